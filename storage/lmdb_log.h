/* storage/lmdb_log.h - an LMDB environment as a log: values under numbers that only grow. Under 0
 * stands the format of the log.
 *
 * Alone with the library, and without any policy of its own: journal_lmdb.c is told there. One
 * thread writes, one reads, at the same time. Return codes are 0 or:
 *   SEL_ELIMIT    the map is full       -ENOSPC   the disk is, or a quota, or the size of a file
 *   SEL_ENOMEM                          SEL_ENOTFOUND   there is no value under that number
 *   others        the log must be closed: what became of the transaction is not known */
#ifndef SEL_STORAGE_LMDB_LOG_H
#define SEL_STORAGE_LMDB_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/assert.h"
#include "core/str.h"

struct sel_lmdb_log;

/* Makes a log without values in the file `path`, which must not be there, and syncs it. */
int sel_lmdb_log_create(const char *path, struct sel_str format) SEL_WARN_UNUSED;
/* Opens data.mdb of a folder, which must have been checked; nobody else may have it open. The map
 * has `size` bytes, or as many as the file needs. */
int sel_lmdb_log_open(const char *folder, uint64_t size, struct sel_lmdb_log **ret) SEL_WARN_UNUSED;
struct sel_lmdb_log *sel_lmdb_log_close(struct sel_lmdb_log *log); /* NULL allowed; returns NULL */

/* ---- the writing thread ---- */

/* Then any of the calls below, then commit or abort. */
int sel_lmdb_log_begin(struct sel_lmdb_log *log) SEL_WARN_UNUSED;
/* Room for a value of n bytes at *ret, to be filled before the next call, under a number above all
 * others. *ret_page: the first of the pages that it has of its own, 0 if it has none or n is less
 * than a page. */
int sel_lmdb_log_add(struct sel_lmdb_log *log, uint64_t number, size_t n, uint8_t **ret,
                     uint64_t *ret_page) SEL_WARN_UNUSED;
int sel_lmdb_log_delete(struct sel_lmdb_log *log, uint64_t number) SEL_WARN_UNUSED;
/* Writes the format again. A change, for a transaction that would have none: LMDB counts only those
 * that change something. */
int sel_lmdb_log_touch(struct sel_lmdb_log *log, struct sel_str format) SEL_WARN_UNUSED;
/* Synced when it returns. Whatever it returns, the transaction has ended. */
int sel_lmdb_log_commit(struct sel_lmdb_log *log) SEL_WARN_UNUSED;
void sel_lmdb_log_abort(struct sel_lmdb_log *log);

/* Pages in use as of the last commit, without those of lists of free ones. */
uint64_t sel_lmdb_log_pages(const struct sel_lmdb_log *log);
/* Writes all of it to `fd`, without free pages, not synced. */
int sel_lmdb_log_copy(struct sel_lmdb_log *log, int fd) SEL_WARN_UNUSED;

/* ---- the reading thread ---- */

/* On success `ret` is valid until release, which must follow soon: until then nothing that is
 * deleted makes room. */
int sel_lmdb_log_get(struct sel_lmdb_log *log, uint64_t number,
                     struct sel_str *ret) SEL_WARN_UNUSED;
void sel_lmdb_log_release(struct sel_lmdb_log *log);

#endif
