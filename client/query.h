/* client/query.h - asking a broker: one question, one answer, and the caller waits.
 *
 * For people's tools, and for what producers ask about flows that have ended (client/nodes.c). A
 * connection belongs to one thread at a time. What may be asked: docs/operations.md, "Questions".
 */
#ifndef SEL_CLIENT_QUERY_H
#define SEL_CLIENT_QUERY_H

#include <stdint.h>

#include "core/arena.h"
#include "core/error.h"
#include "core/value.h"

struct sel_client_query;

/* Connects to an endpoint for queries. It is not known yet whether anybody is there. 0, SEL_ENOMEM,
 * -errno (`err` names the endpoint). */
int sel_client_query_open(const char *endpoint, struct sel_client_query **ret,
                          struct sel_error *err) SEL_WARN_UNUSED;
struct sel_client_query *sel_client_query_close(struct sel_client_query *query); /* returns NULL */

/* Asks `what` with `args` (a map; NULL: none). The answer lives in `arena`; where it came in
 * several messages, it is the list of all their items. 0; SEL_ETIMEOUT: nobody answered;
 * SEL_EREQUEST: the broker refused, SEL_EFORMAT: its answer cannot be read; SEL_ENOMEM; -errno. */
int sel_client_query_ask(struct sel_client_query *query, const char *what,
                         const struct sel_value *args, int64_t timeout_us, struct sel_arena *arena,
                         struct sel_value *ret, struct sel_error *err) SEL_WARN_UNUSED;
/* After SEL_EREQUEST: the code that the broker refused with, enum sel_wire_code; 0: it said none.
 */
uint32_t sel_client_query_code(const struct sel_client_query *query);

#endif
