/* Formats of sel_build: the text up to the first NUL is the format, the rest are its arguments.
 * What was built and may be kept survives encoding and decoding. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/arena.h"
#include "core/assert.h"
#include "core/value.h"
#include "worker/task_internal.h"

#define FORMAT_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct source {
    const uint8_t *p;
    size_t n;
    struct sel_task *task;
};

static struct sel_str take_text(struct source *s)
{
    size_t n = s->n > 0 ? *s->p % 16 : 0;
    if (n + 1 > s->n)
        n = s->n > 0 ? s->n - 1 : 0;
    struct sel_str text = {(const char *)s->p + (s->n > 0), n};
    size_t used = s->n > 0 ? n + 1 : 0;
    s->p += used;
    s->n -= used;
    return text;
}

static void take(void *ctx, char letter, union sel_build_arg *ret)
{
    struct source *s = ctx;
    struct sel_str text = take_text(s);
    uint64_t bits = 0;
    if (text.n > 0)
        memcpy(&bits, text.p, text.n < sizeof(bits) ? text.n : sizeof(bits));
    memset(ret, 0, sizeof(*ret));
    switch (letter) {
    case 'b':
        ret->b = (int)bits;
        break;
    case 'i':
        ret->i = (int64_t)bits;
        break;
    case 'f':
        ret->f = (double)(int64_t)bits / 3.0;
        break;
    case 's':
        ret->s = bits % 7 ? sel_arena_strdup(s->task->arena, text) : NULL;
        break;
    case 'S':
        ret->str = text;
        break;
    case 'B':
        ret->bytes = (struct sel_bytes){text.p, text.n};
        break;
    default:
        SEL_ASSERT(letter == 'v');
        ret->v = bits % 3 ? &s->task->result : NULL;
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char fmt[FORMAT_MAX + 1];
    size_t n = strnlen((const char *)data, size < FORMAT_MAX ? size : FORMAT_MAX);
    if (n > 0)
        memcpy(fmt, data, n);
    fmt[n] = '\0';
    size_t skip = n < size ? n + 1 : n;

    struct sel_arena arena;
    sel_arena_init(&arena, (size_t)16 << 20);
    struct sel_task_env env = {0};
    struct sel_task *task = sel_task_new(&arena, &env);
    SEL_ASSERT(task);
    struct source source = {data + skip, size - skip, task};
    struct sel_value v;
    int r = 0;
    for (int i = 0; i < 3 && r == 0; i++) { /* each goes into the next */
        r = sel_task_build(task, fmt, take, &source, &v);
        if (r == 0)
            task->result = v;
    }
    struct sel_exec_result result;
    sel_task_take_result(task, r, &result);
    if (r < 0)
        SEL_ASSERT(result.outcome == SEL_EXEC_FAILURE && result.error_class[0] != '\0');
    if (result.outcome == SEL_EXEC_SUCCESS) {
        struct sel_value back;
        SEL_ASSERT(sel_value_decode(&arena, result.value.p, result.value.n, false, &back, NULL) ==
                   0);
        SEL_ASSERT(sel_value_same(&task->result, &back));
    }
    sel_task_done(task);
    sel_arena_done(&arena);
    return 0;
}
