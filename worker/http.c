#include "worker/http.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "core/buf.h"
#include "core/error.h"
#include "core/str.h"
#include "worker/loop.h"

#define PORT_DEFAULT 80
#define HOST_MAX 255         /* RFC 1035, 2.3.4 */
#define LINE_MAX_SIZE 65536  /* of a response, as the original's library has it */
#define HEADER_COUNT_MAX 100 /* the empty line at the end included, as above */
#define INTERIM_COUNT_MAX 32 /* answers `100 Continue` before the real one */
#define QUEUE_WAIT_US 10000  /* between tries while the pool is full */

/* ---- the request ---- */

struct target {
    char host[HOST_MAX + 1];
    uint16_t port;
    struct sel_str path;
};

/* No blank, no control character, nothing beyond ASCII: none of them can be sent in a line of a
 * request. */
static bool is_plain(struct sel_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] <= ' ' || (unsigned char)s.p[i] >= 0x7f)
            return false;
    }
    return true;
}

/* Decimal digits; nothing at all is the default port. */
static bool parse_port(struct sel_str s, uint16_t *ret)
{
    uint32_t port = s.n == 0 ? PORT_DEFAULT : 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        port = port * 10 + (uint32_t)(s.p[i] - '0');
        if (port > UINT16_MAX)
            return false;
    }
    *ret = (uint16_t)port;
    return port > 0;
}

static bool parse_host(struct sel_str s, struct target *target)
{
    const char *colon = s.n ? memrchr(s.p, ':', s.n) : NULL;
    const char *bracket = s.n ? memrchr(s.p, ']', s.n) : NULL;
    target->port = PORT_DEFAULT;
    if (colon && (!bracket || colon > bracket)) {
        struct sel_str port = {colon + 1, (size_t)(s.p + s.n - colon) - 1};
        if (!parse_port(port, &target->port))
            return false;
        s.n = (size_t)(colon - s.p);
    }
    if (s.n >= 2 && s.p[0] == '[' && s.p[s.n - 1] == ']')
        s = (struct sel_str){s.p + 1, s.n - 2};
    if (s.n == 0 || s.n > HOST_MAX || !is_plain(s))
        return false;
    memcpy(target->host, s.p, s.n);
    target->host[s.n] = '\0';
    return true;
}

static bool parse_target(const struct sel_value *host, const struct sel_value *path,
                         struct target *target)
{
    if (!sel_value_is(host, SEL_TEXT) || !parse_host(sel_value_str(host), target))
        return false;
    target->path = SEL_STR("/");
    if (!sel_value_is_true(path))
        return true;
    if (!sel_value_is(path, SEL_TEXT))
        return false;
    target->path = sel_value_str(path);
    return is_plain(target->path);
}

/* The host inside a path that is a whole URL (a request to a proxy); n == 0: it is none. */
static struct sel_str host_of_url(struct sel_str path)
{
    struct sel_str none = {"", 0};
    const char *slashes =
        path.n > 4 && memcmp(path.p, "http", 4) == 0 ? memmem(path.p, path.n, "://", 3) : NULL;
    if (!slashes)
        return none;
    struct sel_str host = {slashes + 3, (size_t)(path.p + path.n - slashes) - 3};
    for (size_t i = 0; i < host.n; i++) {
        if (memchr("/?#", host.p[i], 3))
            host.n = i;
    }
    return host;
}

static void put_request(struct sel_buf *buf, const struct target *target)
{
    struct sel_str host = host_of_url(target->path);
    sel_buf_printf(buf, "HEAD %.*s HTTP/1.1\r\nHost: ", SEL_STR_ARG(target->path));
    if (host.n > 0)
        sel_buf_put_str(buf, host);
    else
        sel_buf_printf(buf, strchr(target->host, ':') ? "[%s]" : "%s", target->host);
    if (host.n == 0 && target->port != PORT_DEFAULT)
        sel_buf_printf(buf, ":%u", target->port);
    sel_buf_put_c(buf, "\r\nAccept-Encoding: identity\r\n\r\n");
}

/* ---- the response ---- */

struct reader {
    int fd;
    int64_t deadline_us;
    size_t at, n;
    char bytes[4096];
};

static int64_t remaining_us(int64_t deadline_us)
{
    return deadline_us - sel_loop_now_us(sel_loop_current());
}

/* More bytes: 1, 0 at the end of the stream, < 0. */
static SEL_CO int fill(struct reader *r)
{
    int64_t left_us = remaining_us(r->deadline_us);
    if (left_us <= 0)
        return -ETIMEDOUT;
    ssize_t n = sel_co_recv(r->fd, r->bytes, sizeof(r->bytes), 0, left_us);
    if (n < 0)
        return (int)n;
    r->at = 0;
    r->n = (size_t)n;
    return n > 0;
}

/* One line with its end; of a long one only the beginning is kept. Its length, 0 at the end of the
 * stream, or < 0. */
static SEL_CO int read_line(struct reader *r, char *out, size_t size)
{
    int length = 0;
    for (char c = '\0'; c != '\n'; length++) {
        if (r->at == r->n) {
            int got = fill(r);
            if (got < 0)
                return got;
            if (got == 0)
                break;
        }
        if (length == LINE_MAX_SIZE)
            return SEL_ELIMIT;
        c = r->bytes[r->at++];
        if ((size_t)length < size - 1)
            out[length] = c;
    }
    out[(size_t)length < size - 1 ? (size_t)length : size - 1] = '\0';
    return length;
}

/* "HTTP/1.1 200 OK": the number, or SEL_EFORMAT. */
static int parse_status_line(const char *line)
{
    static const char blanks[] = " \t\r\n\v\f";
    const char *version = line + strspn(line, blanks);
    size_t version_n = strcspn(version, blanks);
    if (strncmp(version, "HTTP/1.", 7) != 0 &&
        !sel_str_eq_c((struct sel_str){version, version_n}, "HTTP/0.9"))
        return SEL_EFORMAT;
    const char *p = version + version_n;
    p += strspn(p, blanks);
    int status = 0;
    for (; *p >= '0' && *p <= '9' && status <= 999; p++)
        status = status * 10 + (*p - '0');
    bool ends = *p == '\0' || strchr(blanks, *p) != NULL;
    return ends && status >= 100 && status <= 999 ? status : SEL_EFORMAT;
}

/* A stream that ends among the headers is as good as an empty line. */
static SEL_CO int skip_headers(struct reader *r)
{
    for (int count = 0; count < HEADER_COUNT_MAX; count++) {
        char line[4];
        int n = read_line(r, line, sizeof(line));
        if (n < 0)
            return n;
        if (n == 0 || strcmp(line, "\n") == 0 || strcmp(line, "\r\n") == 0)
            return 0;
    }
    return SEL_ELIMIT;
}

static SEL_CO int read_status(struct reader *r)
{
    for (int i = 0; i < INTERIM_COUNT_MAX; i++) {
        char line[256];
        int n = read_line(r, line, sizeof(line));
        if (n < 0)
            return n;
        int status = parse_status_line(line);
        if (status < 0)
            return status;
        n = skip_headers(r);
        if (n < 0)
            return n;
        if (status != 100)
            return status;
    }
    return SEL_ELIMIT;
}

/* ---- the connection ---- */

struct lookup {
    const char *host;
    char port[6];
    int flags;
    struct addrinfo *found;
};

static void look_up(void *arg)
{
    struct lookup *lookup = arg;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = lookup->flags};
    if (getaddrinfo(lookup->host, lookup->port, &hints, &lookup->found) != 0)
        lookup->found = NULL;
}

/* 0 with or without addresses, or SEL_ECANCELED and whatever else the pool says. */
static SEL_CO int resolve(const struct target *target, int64_t deadline_us,
                          struct addrinfo **ret_found)
{
    struct lookup lookup = {.host = target->host, .flags = AI_NUMERICHOST | AI_NUMERICSERV};
    (void)snprintf(lookup.port, sizeof(lookup.port), "%u", target->port);
    look_up(&lookup); /* an address needs no waiting, and no pool */
    int r = 0;
    if (!lookup.found) {
        lookup.flags = AI_NUMERICSERV;
        while ((r = sel_co_offload(look_up, &lookup)) == SEL_ELIMIT) {
            if (remaining_us(deadline_us) <= 0)
                return -ETIMEDOUT;
            r = sel_co_sleep(QUEUE_WAIT_US);
            if (r < 0)
                return r;
        }
    }
    if (r < 0 && lookup.found) {
        freeaddrinfo(lookup.found);
        return r;
    }
    *ret_found = lookup.found;
    return r;
}

/* A socket connected to the first address that takes it, or < 0. */
static SEL_CO int connect_first(const struct addrinfo *addresses, int64_t deadline_us)
{
    int r = -EHOSTUNREACH;
    for (const struct addrinfo *a = addresses; a && r != SEL_ECANCELED; a = a->ai_next) {
        int64_t left_us = remaining_us(deadline_us);
        if (left_us <= 0)
            return -ETIMEDOUT;
        int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd < 0) {
            r = -errno;
            continue;
        }
        r = sel_co_connect(fd, a->ai_addr, a->ai_addrlen, left_us);
        if (r >= 0)
            return fd;
        (void)sel_co_close(fd); /* the reason is in r */
    }
    return r;
}

static SEL_CO int send_all(int fd, struct sel_str bytes)
{
    while (bytes.n > 0) {
        ssize_t n = sel_co_send(fd, bytes.p, bytes.n, MSG_NOSIGNAL);
        if (n < 0)
            return (int)n;
        bytes = (struct sel_str){bytes.p + n, bytes.n - (size_t)n};
    }
    return 0;
}

/* The status, or < 0. */
static SEL_CO int ask(int fd, const struct target *target, int64_t deadline_us)
{
    struct sel_buf request = {0};
    put_request(&request, target);
    int r = sel_buf_error(&request);
    if (r == 0)
        r = send_all(fd, sel_buf_str(&request));
    sel_buf_done(&request);
    if (r < 0)
        return r;
    struct reader reader = {.fd = fd, .deadline_us = deadline_us};
    return read_status(&reader);
}

static SEL_CO int head(const struct target *target)
{
    int64_t deadline_us = sel_loop_now_us(sel_loop_current()) + SEL_HTTP_TIMEOUT_US;
    struct addrinfo *addresses = NULL;
    int r = resolve(target, deadline_us, &addresses);
    if (r < 0)
        return r;
    int fd = connect_first(addresses, deadline_us);
    if (addresses)
        freeaddrinfo(addresses);
    if (fd < 0)
        return fd;
    r = ask(fd, target, deadline_us);
    (void)sel_co_close(fd); /* nothing of ours can be lost */
    return r;
}

SEL_CO int sel_http_head_status(const struct sel_value *host, const struct sel_value *path,
                                const struct sel_value *status)
{
    struct target target;
    if (!parse_target(host, path, &target))
        return 0;
    int r = head(&target);
    if (r == SEL_ECANCELED)
        return r;
    struct sel_value got = sel_value_from_i64(r);
    return r >= 0 && sel_value_equal(&got, status);
}
