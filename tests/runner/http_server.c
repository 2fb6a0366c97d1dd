#include "tests/runner/http_server.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/str.h"

static int status_of(const struct sel_http_server *server, const char *request)
{
    static const char method[] = "HEAD ";
    if (strncmp(request, method, sizeof(method) - 1) != 0)
        return 405;
    const char *path = request + sizeof(method) - 1;
    struct sel_str name = {path, strcspn(path, " ")};
    int64_t status;
    const struct sel_value *known = sel_value_get(server->statuses, name);
    return known && sel_value_i64(known, &status) ? (int)status : 404;
}

/* Reads up to the empty line that ends a request. */
static bool read_request(int fd, char *out, size_t size)
{
    size_t n = 0;
    while (n < size - 1) {
        ssize_t got = recv(fd, out + n, size - 1 - n, 0);
        if (got <= 0)
            return false;
        n += (size_t)got;
        out[n] = '\0';
        if (strstr(out, "\r\n\r\n"))
            return true;
    }
    return false;
}

static void answer(const struct sel_http_server *server, int fd)
{
    char request[4096], response[128];
    struct timeval limit = {.tv_sec = 10};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)); /* a hung client only */
    if (!read_request(fd, request, sizeof(request)))
        return;
    int n = snprintf(response, sizeof(response),
                     "HTTP/1.1 %d Told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                     status_of(server, request));
    (void)send(fd, response, (size_t)n, MSG_NOSIGNAL); /* the client will notice */
}

/* Ends when the socket is shut down. */
static void *serve(void *arg)
{
    const struct sel_http_server *server = arg;
    for (int fd; (fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0;) {
        answer(server, fd);
        (void)close(fd);
    }
    return NULL;
}

static int listen_anywhere(struct sel_http_server *server)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(addr);
    if (bind(server->fd, (struct sockaddr *)&addr, size) < 0 || listen(server->fd, 16) < 0 ||
        getsockname(server->fd, (struct sockaddr *)&addr, &size) < 0)
        return -errno;
    server->port = ntohs(addr.sin_port);
    return 0;
}

int sel_http_server_start(struct sel_http_server *server, const struct sel_value *statuses)
{
    *server = (struct sel_http_server){.statuses = statuses};
    server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server->fd < 0)
        return -errno;
    int r = listen_anywhere(server);
    if (r == 0)
        r = -pthread_create(&server->thread, NULL, serve, server);
    if (r < 0)
        (void)close(server->fd);
    return r;
}

void sel_http_server_stop(struct sel_http_server *server)
{
    (void)shutdown(server->fd, SHUT_RDWR);
    (void)pthread_join(server->thread, NULL);
    (void)close(server->fd);
}
