/* worker/http.h - the I/O of the predicate httpStatus.
 *
 * One HEAD request over plain HTTP/1.1 on a connection of its own; redirects are not followed.
 * Names are looked up on the pool for blocking work. */
#ifndef SEL_WORKER_HTTP_H
#define SEL_WORKER_HTTP_H

#include <stdint.h>

#include "core/assert.h"
#include "core/value.h"
#include "worker/co.h"

/* Connecting, sending and reading together; a name that is looked up may take as long as the
 * resolver of the system allows. */
#define SEL_HTTP_TIMEOUT_US (INT64_C(10) * 1000 * 1000)

/* Whether `host` answers a HEAD request for `path` with `status`; the arguments as written in the
 * condition, in any kind.
 *
 * `host` is "name", "name:port", an IPv4 address or an IPv6 one in brackets; a name beyond ASCII
 * must be written in its ASCII form. An empty path is "/".
 *
 * 1 or 0: what cannot be asked or answered is 0. SEL_ECANCELED: the coroutine was cancelled. */
SEL_CO int sel_http_head_status(const struct sel_value *host, const struct sel_value *path,
                                const struct sel_value *status) SEL_WARN_UNUSED;

#endif
