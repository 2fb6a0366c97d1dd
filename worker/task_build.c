#include "worker/task_internal.h"

#include <stdarg.h>

#include "core/json.h"

/* A small recursive parser. It never reads an argument for a letter that it has not accepted, so
 * that a wrong format fails before the arguments go out of step. */
struct builder {
    struct sel_task *task;
    const char *fmt, *at;
    sel_build_take_fn take;
    void *ctx;
    uint32_t depth;
};

static int bad_format(const struct builder *b, const char *want)
{
    return sel_fail(b->task, "FormatError", "bad format \"%s\" at position %u: %s", b->fmt,
                    (unsigned)(b->at - b->fmt) + 1, want);
}

static void skip_blank(struct builder *b)
{
    while (*b->at == ' ' || *b->at == ',')
        b->at++;
}

static int build_text(struct builder *b, struct sel_str s, struct sel_value *ret)
{
    if (s.n > UINT32_MAX)
        return sel_fail(b->task, "ResultError", "a text of %zu bytes is too long", s.n);
    if (!sel_str_is_utf8(s))
        return sel_fail(b->task, "ResultError", "a text for \"%s\" is not UTF-8", b->fmt);
    const char *copy = s.n ? sel_arena_strdup(b->task->arena, s) : "";
    if (!copy)
        return sel_task_note_memory(b->task);
    *ret = sel_value_from_str((struct sel_str){copy, s.n});
    return 0;
}

static int build_bytes(struct builder *b, struct sel_bytes bytes, struct sel_value *ret)
{
    if (bytes.n > UINT32_MAX)
        return sel_fail(b->task, "ResultError", "%zu bytes are too many for one value", bytes.n);
    const char *copy = bytes.n ? sel_arena_memdup(b->task->arena, bytes.p, bytes.n) : "";
    if (!copy)
        return sel_task_note_memory(b->task);
    ret->o.type = MSGPACK_OBJECT_BIN;
    ret->o.via.bin.ptr = copy;
    ret->o.via.bin.size = (uint32_t)bytes.n;
    return 0;
}

static int build_scalar(struct builder *b, struct sel_value *ret)
{
    union sel_build_arg arg;
    char letter = *b->at++;
    if (letter == 'n') {
        *ret = sel_value_null;
        return 0;
    }
    b->take(b->ctx, letter, &arg);
    switch (letter) {
    case 'b':
        *ret = sel_value_from_bool(arg.b != 0);
        return 0;
    case 'i':
        *ret = sel_value_from_i64(arg.i);
        return 0;
    case 'f':
        *ret = sel_value_from_f64(arg.f);
        return 0;
    case 's':
        *ret = sel_value_null;
        return arg.s ? build_text(b, sel_str_c(arg.s), ret) : 0;
    case 'S':
        return build_text(b, arg.str, ret);
    case 'B':
        return build_bytes(b, arg.bytes, ret);
    default:
        *ret = arg.v ? *arg.v : sel_value_null;
        return 0;
    }
}

static int build_value(struct builder *b, struct sel_value *ret);

static int build_list(struct builder *b, struct sel_value *ret)
{
    struct sel_value_builder list;
    sel_value_begin_list(&list, b->task->arena);
    b->at++;
    for (skip_blank(b); *b->at != ']'; skip_blank(b)) {
        struct sel_value item;
        SEL_TRY(build_value(b, &item));
        sel_value_add(&list, item);
    }
    b->at++;
    return sel_value_end(&list, ret) < 0 ? sel_task_note_memory(b->task) : 0;
}

static int build_key(struct builder *b, struct sel_value *ret)
{
    if (*b->at != 's' && *b->at != 'S')
        return bad_format(b, "a key of a map is 's' or 'S', or the map ends with '}'");
    SEL_TRY(build_scalar(b, ret));
    if (!sel_value_is(ret, SEL_TEXT))
        return bad_format(b, "the key of a map is NULL");
    while (*b->at == ' ')
        b->at++;
    if (*b->at != ':')
        return bad_format(b, "':' must follow a key");
    b->at++;
    skip_blank(b);
    return 0;
}

static int build_map(struct builder *b, struct sel_value *ret)
{
    struct sel_value_builder map;
    sel_value_begin_map(&map, b->task->arena);
    b->at++;
    for (skip_blank(b); *b->at != '}'; skip_blank(b)) {
        struct sel_value key, item;
        SEL_TRY(build_key(b, &key));
        SEL_TRY(build_value(b, &item));
        sel_value_put_key(&map, key, item);
    }
    b->at++;
    return sel_value_end(&map, ret) < 0 ? sel_task_note_memory(b->task) : 0;
}

static int build_value(struct builder *b, struct sel_value *ret)
{
    if (*b->at == '\0')
        return bad_format(b, "a value is missing");
    if (strchr("nbifsSBv", *b->at))
        return build_scalar(b, ret);
    if (*b->at != '[' && *b->at != '{')
        return bad_format(b, "one of n b i f s S B v [ { is expected");
    if (b->depth == SEL_BUILD_DEPTH_MAX)
        return bad_format(b, "nested too deeply; put the inner part in by 'v'");
    b->depth++;
    int r = *b->at == '[' ? build_list(b, ret) : build_map(b, ret);
    b->depth--;
    return r;
}

int sel_task_build(struct sel_task *task, const char *fmt, sel_build_take_fn take, void *ctx,
                   struct sel_value *ret)
{
    struct builder b = {task, fmt, fmt, take, ctx, 0};
    struct sel_value v;
    skip_blank(&b);
    SEL_TRY(build_value(&b, &v));
    skip_blank(&b);
    if (*b.at != '\0')
        return bad_format(&b, "a format is one value; lists are written [...]");
    *ret = v;
    return 0;
}

/* va_list may be an array type, which a void pointer cannot carry by itself. */
struct variadic {
    va_list args;
};

static void take_variadic(void *ctx, char letter, union sel_build_arg *ret)
{
    struct variadic *v = ctx;
    switch (letter) {
    case 'b':
        ret->b = va_arg(v->args, int);
        break;
    case 'i':
        ret->i = va_arg(v->args, int64_t);
        break;
    case 'f':
        ret->f = va_arg(v->args, double);
        break;
    case 's':
        ret->s = va_arg(v->args, const char *);
        break;
    case 'S':
        ret->str = va_arg(v->args, struct sel_str);
        break;
    case 'B':
        ret->bytes = va_arg(v->args, struct sel_bytes);
        break;
    default:
        ret->v = va_arg(v->args, const struct sel_value *);
        break;
    }
}

static int vbuild(struct sel_task *task, const char *fmt, struct variadic *v, struct sel_value *ret)
{
    return sel_task_build(task, fmt, take_variadic, v, ret);
}

/* ---- results ---- */

int sel_result_value(struct sel_task *task, const struct sel_value *value)
{
    SEL_TRY(sel_task_check_value(task, value));
    task->result = value ? *value : sel_value_null;
    return 0;
}

int sel_result(struct sel_task *task, const char *fmt, ...)
{
    struct variadic v;
    struct sel_value value;
    va_start(v.args, fmt);
    int r = vbuild(task, fmt, &v, &value);
    va_end(v.args);
    return r < 0 ? r : sel_result_value(task, &value);
}

int sel_result_json(struct sel_task *task, const char *json, size_t n)
{
    struct sel_error err = {0};
    struct sel_value value;
    int r = sel_json_parse(task->arena, "result", (struct sel_str){json, n}, &value, NULL, &err);
    if (r < 0) {
        err.code = r;
        return sel_task_note_error(task, "ResultError", &err);
    }
    task->result = value; /* the parser has the limits of sel_task_check_value */
    return 0;
}

int sel_build(struct sel_task *task, const struct sel_value **ret, const char *fmt, ...)
{
    struct variadic v;
    struct sel_value *value = SEL_ARENA_NEW(task->arena, struct sel_value);
    if (!value)
        return sel_task_note_memory(task);
    va_start(v.args, fmt);
    int r = vbuild(task, fmt, &v, value);
    va_end(v.args);
    if (r == 0)
        *ret = value;
    return r;
}

/* ---- lists and maps, piece by piece ---- */

struct sel_list {
    struct sel_task *task;
    struct sel_value_builder builder;
};

struct sel_map_maker {
    struct sel_task *task;
    struct sel_value_builder builder;
};

static int end_builder(struct sel_task *task, struct sel_value_builder *builder,
                       const struct sel_value **ret)
{
    struct sel_value *value = SEL_ARENA_NEW(task->arena, struct sel_value);
    if (!value || sel_value_end(builder, value) < 0)
        return sel_task_note_memory(task);
    *ret = value;
    return 0;
}

struct sel_list *sel_list_begin(struct sel_task *task)
{
    struct sel_list *list = sel_alloc(task, sizeof(*list));
    if (!list)
        return NULL;
    list->task = task;
    sel_value_begin_list(&list->builder, task->arena);
    return list;
}

int sel_list_add(struct sel_list *list, const char *fmt, ...)
{
    struct variadic v;
    struct sel_value item;
    va_start(v.args, fmt);
    int r = vbuild(list->task, fmt, &v, &item);
    va_end(v.args);
    if (r < 0)
        return r;
    sel_value_add(&list->builder, item);
    return list->builder.failed ? sel_task_note_memory(list->task) : 0;
}

int sel_list_end(struct sel_list *list, const struct sel_value **ret)
{
    return end_builder(list->task, &list->builder, ret);
}

struct sel_map_maker *sel_map_begin(struct sel_task *task)
{
    struct sel_map_maker *map = sel_alloc(task, sizeof(*map));
    if (!map)
        return NULL;
    map->task = task;
    sel_value_begin_map(&map->builder, task->arena);
    return map;
}

int sel_map_put(struct sel_map_maker *map, const char *key, const char *fmt, ...)
{
    struct builder b = {.task = map->task, .fmt = fmt, .at = fmt};
    struct sel_value key_value, item;
    SEL_TRY(build_text(&b, sel_str_c(key), &key_value));
    struct variadic v;
    va_start(v.args, fmt);
    int r = vbuild(map->task, fmt, &v, &item);
    va_end(v.args);
    if (r < 0)
        return r;
    sel_value_put_key(&map->builder, key_value, item);
    return map->builder.failed ? sel_task_note_memory(map->task) : 0;
}

int sel_map_end(struct sel_map_maker *map, const struct sel_value **ret)
{
    return end_builder(map->task, &map->builder, ret);
}
