/* client/internal.h - what the files of the public client share. Private to client/.
 *
 *   client.c   opening, closing, waiting for what is general
 *   submit.c   tasks on their way to the producers
 *   flow.c     flows, which are tasks with more to say
 *   results.c  results on their way to callers, who
 *   take.c     take them
 *   link.c     the thread and its sockets
 *   values.c   ids, JSON, texts: what needs no client
 *
 * One lock guards everything but the sockets, which are the thread's alone. Callers put their tasks
 * straight into the outboxes of the producers: nothing is copied twice, and the thread finds large
 * frames. */
#ifndef SEL_CLIENT_INTERNAL_H
#define SEL_CLIENT_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <selinon/client.h>

#include "client/producer.h"
#include "client/waiting.h"
#include "core/buf.h"
#include "core/error.h"
#include "core/id.h"

#define SEL_CLIENT_LINKS_MAX 64u

/* Results of one reading. The public part is filled when it is handed out. */
struct sel_client_batch_all {
    struct sel_client_batch batch; /* first: what callers hold points here */
    struct sel_client_result *all;
    uint32_t count, cap;
    struct sel_buf payloads; /* until it is handed out, payload.p of a result is its offset here */
    struct sel_client_batch_all *next;
};

/* A task whose result is kept for sel_client_wait. */
struct sel_client_kept {
    struct sel_client_batch_all *result; /* NULL: not here yet */
};

struct sel_client_results {
    struct sel_client_batch_all *first, *last; /* for sel_client_next */
    uint64_t count, bytes;                     /* in there and kept; bytes with the structs */
    uint64_t bytes_max;
    struct sel_waiting kept; /* tag: struct sel_client_kept */
    uint32_t kept_pending;   /* of those, not here yet */
    uint32_t tell_pending;   /* SEL_CLIENT_SETTLED that are still to come */
};

/* What one broker is to the client. */
struct sel_client_link {
    struct sel_client *client;
    struct sel_producer *producer;
    char *endpoint;
    struct sel_str queue; /* of the last submit, in the producer's memory or static */
    char queue_text[256];
    uint16_t queue_number;
    bool is_wanted; /* somebody waits for room here */
    uint64_t sessions_seen;

    /* the thread's */
    void *socket; /* NULL: none */
    struct sel_buf out;
    bool is_blocked; /* the socket takes no more */
    int64_t blocked_until_us;
};

struct sel_client {
    const uint64_t *alive; /* a page that is empty in children of fork */
    size_t task_size;
    void (*log)(void *ctx, const char *text);
    void *log_ctx;

    pthread_mutex_t next, data; /* see sel_client_lock */
    pthread_cond_t room, news;  /* for submits; for all others */
    uint32_t room_waiters, news_waiters, result_waiters;

    struct sel_client_link links[SEL_CLIENT_LINKS_MAX];
    uint32_t link_count;
    struct sel_id_source ids;
    struct sel_client_results results;
    bool is_held; /* too many results: brokers get no more credit */
    bool is_sleeping, is_closing, has_started;
    char problem[SEL_CLIENT_ERROR_SIZE];

    pthread_t thread;
    void *zmq;
    int wake_fd;
};

/* Whoever waits for the lock gets it before who has just had it and wants it again. */
void sel_client_lock(struct sel_client *client);
void sel_client_unlock(struct sel_client *client);
/* The same, and wakes the thread if it sleeps: there is something to send. */
void sel_client_unlock_and_wake(struct sel_client *client);
/* After a frame was worked on, locked: wakes callers for whom there is something new. */
void sel_client_tell(struct sel_client *client);
/* Waits, locked, until something is told through `cond`, at most until `deadline_us` (INT64_MAX:
 * for ever). false: it is over. */
bool sel_client_wait_until(struct sel_client *client, pthread_cond_t *cond, int64_t deadline_us);
int64_t sel_client_now_us(void);
/* When a timeout that begins now is over. */
int64_t sel_client_deadline(int64_t timeout_us);
/* Whether this process has opened it. */
bool sel_client_is_ours(const struct sel_client *client);

/* ---- results.c; all locked ---- */

extern const struct sel_producer_ops sel_client_producer_ops; /* ctx: struct sel_client_link */

void sel_client_results_done(struct sel_client_results *results);
/* The first batch, taken out; its pointers are not set yet. NULL: there is none. */
struct sel_client_batch_all *sel_client_results_take(struct sel_client *client);
/* The result of a task is to be kept. 0, SEL_EEXISTS, SEL_ENOMEM. */
int sel_client_results_keep(struct sel_client_results *results, struct sel_id id) SEL_WARN_UNUSED;
/* No longer, whether it came or not. *ret, if not NULL, gets the result if it is here, else it is
 * freed. false: it was not kept. */
bool sel_client_results_drop(struct sel_client *client, struct sel_id id,
                             struct sel_client_batch_all **ret);
/* Whether it is kept; *ret_is_here whether it came. */
bool sel_client_results_find(const struct sel_client_results *results, struct sel_id id,
                             bool *ret_is_here);
/* Sets the public part; not locked, the batch is the caller's now. */
struct sel_client_batch *sel_client_results_seal(struct sel_client_batch_all *batch);

/* ---- submit.c ---- */

/* sel_client_submit_many for tasks of a size; the client is this process's. */
int64_t sel_client_put(struct sel_client *client, const struct sel_client_task *tasks,
                       size_t task_size, size_t count, struct sel_client_id *ret_ids,
                       int64_t timeout_us) SEL_WARN_UNUSED;

/* ---- link.c ---- */

/* Checks the endpoints, starts the thread. 0 or -errno, `error` as of sel_client_open. */
int sel_client_net_open(struct sel_client *client, char *error) SEL_WARN_UNUSED;
/* Ends it: says goodbye, closes the sockets. NULL members are allowed. */
void sel_client_net_close(struct sel_client *client);
void sel_client_net_wake(struct sel_client *client);

/* ---- values.c ---- */

struct sel_id sel_client_id_in(const struct sel_client_id *id);
struct sel_client_id sel_client_id_out(struct sel_id id);
/* Our codes as those of errno that <selinon/client.h> lists. */
int sel_client_errno(int error);
uint64_t sel_client_fnv1a(const void *p, size_t n);

#endif
