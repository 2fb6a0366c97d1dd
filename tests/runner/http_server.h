/* tests/runner/http_server.h - a web server of one thread on a free port of the loopback. */
#ifndef SEL_TESTS_RUNNER_HTTP_SERVER_H
#define SEL_TESTS_RUNNER_HTTP_SERVER_H

#include <pthread.h>
#include <stdint.h>

#include "core/assert.h"
#include "core/value.h"

struct sel_http_server {
    uint16_t port;
    int fd; /* private from here on */
    const struct sel_value *statuses;
    pthread_t thread;
};

/* Answers HEAD with the status that `statuses` (a map, borrowed) has for the path, 404 for other
 * paths and 405 for other methods, and closes each connection. 0 or -errno. */
int sel_http_server_start(struct sel_http_server *server,
                          const struct sel_value *statuses) SEL_WARN_UNUSED;
void sel_http_server_stop(struct sel_http_server *server);

#endif
