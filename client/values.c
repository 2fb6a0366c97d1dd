#include <errno.h>
#include <string.h>

#include "client/internal.h"
#include "core/arena.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/value.h"
#include "proto/le.h"

#define FNV_OFFSET UINT64_C(0xcbf29ce484222325) /* draft-eastlake-fnv: 64 bits */
#define FNV_PRIME UINT64_C(0x100000001b3)

/* A hostile msgpack may want 50 times its size as a tree of values. */
#define ARENA_MAX ((size_t)1 << 30)

struct sel_id sel_client_id_in(const struct sel_client_id *id)
{
    return sel_le_get_id(id->bytes);
}

struct sel_client_id sel_client_id_out(struct sel_id id)
{
    struct sel_client_id out;
    sel_le_put_id(out.bytes, id);
    return out;
}

const char *sel_client_id_format(const struct sel_client_id *id, char *out)
{
    char text[SEL_ID_TEXT_SIZE];
    _Static_assert(SEL_ID_TEXT_SIZE == SEL_CLIENT_ID_SIZE, "the public size is the same");
    (void)sel_id_format(sel_client_id_in(id), text);
    memcpy(out, text, sizeof(text));
    return out;
}

int sel_client_id_parse(const char *text, size_t n, struct sel_client_id *ret)
{
    struct sel_id id;
    if (!text || !sel_id_parse((struct sel_str){text, n}, &id))
        return -EINVAL;
    *ret = sel_client_id_out(id);
    return 0;
}

uint64_t sel_client_fnv1a(const void *p, size_t n)
{
    const uint8_t *bytes = p;
    uint64_t hash = FNV_OFFSET;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ bytes[i]) * FNV_PRIME;
    return hash;
}

const char *sel_client_version(void)
{
    return SEL_VERSION;
}

int sel_client_errno(int error)
{
    switch (error) {
    case SEL_ELIMIT:
        return -EAGAIN;
    case SEL_EEXISTS:
        return -EEXIST;
    case SEL_ENOTFOUND:
        return -ENOENT;
    case SEL_ENOMEM:
        return -ENOMEM;
    case SEL_ERANGE:
        return -EMSGSIZE;
    case SEL_EREQUEST:
        return -ECONNREFUSED;
    default:
        return error <= SEL_ESYNTAX ? -EINVAL : error;
    }
}

const char *sel_client_error_text(int error)
{
    switch (error) {
    case -EAGAIN:
        return "no room for more now, or nothing is here yet";
    case -ETIMEDOUT:
        return "the time is over";
    case -EINVAL:
        return "an argument is wrong";
    case -EMSGSIZE:
        return "the task is larger than the protocol allows";
    case -EEXIST:
        return "the id is waited for already";
    case -ENOENT:
        return "nothing waits for this id";
    case -ECONNREFUSED:
        return "the broker refuses this client for good";
    case -ECHILD:
        return "the client was opened by another process, before fork";
    case -ENOMEM:
        return "out of memory";
    default:
        return sel_error_text(error);
    }
}

/* ---- JSON ---- */

static void say(char *error, const struct sel_error *err)
{
    char text[SEL_ERROR_TEXT_MAX + 64];
    if (!error)
        return;
    (void)sel_error_format(err, text, sizeof(text));
    size_t n = strnlen(text, SEL_CLIENT_ERROR_SIZE - 1);
    memcpy(error, text, n);
    error[n] = '\0';
}

/* Gives the buffer's memory to the caller. */
static int take(struct sel_buf *buf, int r, struct sel_bytes *ret)
{
    if (r < 0) {
        sel_buf_done(buf);
        return sel_client_errno(r);
    }
    *ret = (struct sel_bytes){buf->p, buf->n};
    return 0;
}

int sel_client_from_json(const char *text, size_t n, struct sel_bytes *ret, char *error)
{
    struct sel_arena arena = {0};
    struct sel_value value;
    struct sel_buf buf = {0};
    struct sel_error err = {.code = 0};
    int r = sel_json_parse(&arena, NULL, (struct sel_str){text, n}, &value, NULL, &err);
    if (r == 0) {
        sel_value_encode(&value, &buf);
        r = sel_buf_error(&buf);
    }
    if (r < 0 && err.code == 0)
        (void)sel_error_set(&err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
    if (r < 0)
        say(error, &err);
    sel_arena_done(&arena);
    if (r < 0 && r != SEL_ENOMEM)
        r = -EINVAL; /* whatever is wrong, it is the text */
    return take(&buf, r, ret);
}

int sel_client_to_json(struct sel_bytes bytes, struct sel_bytes *ret, char *error)
{
    struct sel_arena arena;
    struct sel_value value = sel_value_null;
    struct sel_buf buf = {0};
    struct sel_error err = {.code = 0};
    int r = 0;
    sel_arena_init(&arena, ARENA_MAX);
    if (bytes.n)
        r = sel_value_decode(&arena, bytes.p, bytes.n, false, &value, &err);
    if (r == 0) {
        sel_json_write(&value, 0, &buf);
        (void)sel_buf_cstr(&buf); /* terminates it */
        r = sel_buf_error(&buf);
    }
    if (r < 0 && err.code == 0)
        (void)sel_error_set(&err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
    if (r < 0)
        say(error, &err);
    sel_arena_done(&arena);
    if (r < 0 && r != SEL_ENOMEM)
        r = -EINVAL;
    return take(&buf, r, ret);
}

void sel_client_bytes_free(struct sel_bytes *bytes)
{
    sel_mem_free((void *)(uintptr_t)bytes->p);
    *bytes = (struct sel_bytes){NULL, 0};
}
