/* broker/commit.h - the thread that writes the journal, so that routing never waits for the disk.
 *
 * One commit is under way at a time. The broker's thread posts it and goes on; when it has ended,
 * `wake` is called on the commit thread and the broker's thread takes the result. The bytes of the
 * batches stay the broker's (valid until sel_broker_committed). */
#ifndef SEL_BROKER_COMMIT_H
#define SEL_BROKER_COMMIT_H

#include <stdbool.h>

#include "broker/broker.h"
#include "core/error.h"

struct sel_journal;
struct sel_broker_commit;

/* `journal` is borrowed: append, sync and drop are called on the new thread. 0, SEL_ENOMEM,
 * -errno. */
int sel_broker_commit_new(struct sel_journal *journal, void (*wake)(void *ctx), void *ctx,
                          struct sel_broker_commit **ret) SEL_WARN_UNUSED;
/* Waits for the commit under way; returns NULL. NULL allowed. */
struct sel_broker_commit *sel_broker_commit_free(struct sel_broker_commit *commit);

/* Starts one; none may be under way. */
void sel_broker_commit_post(struct sel_broker_commit *commit,
                            const struct sel_broker_batches *batches);
bool sel_broker_commit_is_under_way(const struct sel_broker_commit *commit);
/* Its end is there to be taken. */
bool sel_broker_commit_has_ended(const struct sel_broker_commit *commit);
/* true: one has ended since the last call, and may be followed by another. *ret_result is what
 * sel_broker_committed wants to know, *ret_err says more if it is negative (valid until the next
 * post). */
bool sel_broker_commit_take(struct sel_broker_commit *commit, int *ret_result,
                            const struct sel_error **ret_err);

#endif
