/* Predicates: single ones over given values, trees compiled from a configuration, and httpStatus
 * against a server of our own. */
#include <stdio.h>

#include "core/buf.h"
#include "core/compile.h"
#include "core/json.h"
#include "core/predicate.h"
#include "tests/runner/http_server.h"
#include "tests/runner/runner.h"
#include "worker/http.h"
#include "worker/loop.h"
#include "worker/offload.h"

/* ---- leaf.jsonl ---- */

/* The predicate of a line with its arguments in order; NULL, reported, if it cannot be called. */
static const struct sel_predicate *read_call(const char *name, const struct sel_value *line,
                                             const struct sel_value *args[SEL_PREDICATE_ARGS_MAX],
                                             struct sel_runner_report *report)
{
    struct sel_str wanted = sel_value_str(sel_value_get_c(line, "predicate"));
    const struct sel_predicate *predicate = sel_predicate_find(wanted);
    if (!predicate) {
        sel_runner_fail(report, name, "no predicate '%.*s'", SEL_STR_ARG(wanted));
        return NULL;
    }
    const struct sel_value *given = sel_value_get_c(line, "args");
    for (uint32_t i = 0; i < predicate->arg_count; i++) {
        args[i] = sel_value_get_c(given, predicate->args[i]);
        if (!args[i]) {
            sel_runner_fail(report, name, "argument '%s' is missing", predicate->args[i]);
            return NULL;
        }
    }
    if (sel_value_count(given) != predicate->arg_count) {
        sel_runner_fail(report, name, "%s takes %u arguments", predicate->name,
                        predicate->arg_count);
        return NULL;
    }
    return predicate;
}

/* The key under which a line has the predicate's input says which input it takes. */
static enum sel_predicate_input input_of(const struct sel_value *line,
                                         const struct sel_value **ret_input)
{
    const struct sel_value *message = sel_value_get_c(line, "message");
    const struct sel_value *node_args = sel_value_get_c(line, "node_args");
    *ret_input = message ? message : node_args;
    return message ? SEL_INPUT_MESSAGE : node_args ? SEL_INPUT_ARGS : SEL_INPUT_NONE;
}

static void run_leaf(void *ctx, const char *name, const struct sel_value *line,
                     struct sel_arena *arena, struct sel_runner_report *report)
{
    (void)ctx;
    const struct sel_value *args[SEL_PREDICATE_ARGS_MAX] = {NULL}, *input;
    const struct sel_predicate *predicate = read_call(name, line, args, report);
    if (!predicate)
        return;
    struct sel_runner_env env;
    if (sel_runner_env_init(&env, arena, sel_value_get_c(line, "env")) < 0) {
        sel_runner_fail(report, name, "bad environment");
        return;
    }
    if (input_of(line, &input) != predicate->input) {
        sel_runner_fail(report, name, "%s takes another kind of input", predicate->name);
        return;
    }
    struct sel_predicate_world world = {sel_runner_getenv, &env};
    bool got = predicate->eval(predicate, input, args, &world);
    bool expected = sel_value_bool(sel_value_get_c(line, "expected"));
    if (got != expected)
        sel_runner_fail(report, name, "%s: expected %s, got %s", predicate->name,
                        expected ? "true" : "false", got ? "true" : "false");
    else
        sel_runner_pass(report);
}

/* ---- a loop for one httpStatus ---- */

struct http_call {
    struct sel_loop *loop;
    const struct sel_value *const *args;
    int answer;
};

static void ask(void *arg)
{
    struct http_call *call = arg;
    call->answer = sel_http_head_status(call->args[0], call->args[1], call->args[2]);
    sel_loop_stop(call->loop);
}

/* The answer, or < 0: there is no loop to ask in. */
static int ask_in_loop(const struct sel_value *const args[], struct sel_error *err)
{
    struct sel_offload *offload = sel_offload_new(1, 16);
    if (!offload)
        return sel_error_set(err, SEL_ENOMEM, (struct sel_pos){0}, "out of memory");
    struct http_call call = {.args = args};
    int r = sel_loop_new(&(struct sel_loop_options){.offload = offload}, &call.loop, err);
    if (r == 0) {
        r = sel_loop_spawn(call.loop, ask, &call, NULL);
        if (r == 0) {
            sel_loop_run(call.loop);
            r = call.answer;
        }
        (void)sel_loop_free(call.loop);
    }
    (void)sel_offload_free(offload);
    return r;
}

/* ---- conditions.jsonl ---- */

/* In double quotes, with everything but printable ASCII escaped: YAML refuses some characters that
 * JSON has, and has no surrogate pairs. */
static void put_yaml_text(struct sel_buf *buf, struct sel_str s)
{
    sel_buf_put_u8(buf, '"');
    for (size_t i = 0; i < s.n;) {
        uint32_t c = (unsigned char)s.p[i++];
        if (c >= 0xc0) {
            c &= c >= 0xf0 ? 0x07U : c >= 0xe0 ? 0x0fU : 0x1fU;
            for (; i < s.n && ((unsigned char)s.p[i] & 0xc0) == 0x80; i++)
                c = c << 6 | ((unsigned char)s.p[i] & 0x3fU);
        }
        bool is_plain = c >= ' ' && c < 0x7f && c != '"' && c != '\\';
        sel_buf_printf(buf, is_plain ? "%c" : "\\U%08x", c);
    }
    sel_buf_put_u8(buf, '"');
}

/* JSON is YAML, but for texts and for numbers: in YAML 1.1 a float needs a point. */
static void put_yaml(struct sel_buf *buf, const struct sel_value *v)
{
    if (sel_value_is(v, SEL_FLOAT)) {
        char text[40];
        (void)snprintf(text, sizeof(text), "%.17g", sel_value_num(v));
        size_t digits = strcspn(text, "e");
        sel_buf_put(buf, text, digits);
        if (!memchr(text, '.', digits))
            sel_buf_put_c(buf, ".0");
        sel_buf_put_c(buf, text + digits);
        return;
    }
    if (sel_value_is(v, SEL_TEXT)) {
        put_yaml_text(buf, sel_value_str(v));
        return;
    }
    bool is_map = sel_value_is(v, SEL_MAP);
    if (!is_map && !sel_value_is(v, SEL_LIST)) {
        sel_json_write(v, 0, buf);
        return;
    }
    sel_buf_put_u8(buf, is_map ? '{' : '[');
    for (uint32_t i = 0; i < sel_value_count(v); i++) {
        if (i > 0)
            sel_buf_put_c(buf, ", ");
        if (is_map) {
            put_yaml(buf, sel_value_key_at(v, i));
            sel_buf_put_c(buf, ": ");
        }
        put_yaml(buf, is_map ? sel_value_val_at(v, i) : sel_value_at(v, i));
    }
    sel_buf_put_u8(buf, is_map ? '}' : ']');
}

static void put_names(struct sel_buf *buf, const struct sel_value *messages)
{
    for (uint32_t i = 0; i < sel_value_count(messages); i++)
        sel_buf_printf(buf, "%s%.*s", i ? ", " : "",
                       SEL_STR_ARG(sel_value_str(sel_value_key_at(messages, i))));
}

#define TARGET "RunnerTarget" /* the node behind the condition */

/* A flow with the condition on its last edge, whose sources are the nodes that have a message. */
static void put_configuration(struct sel_buf *buf, const struct sel_value *condition,
                              const struct sel_value *messages)
{
    bool starts = sel_value_count(messages) == 0;
    sel_buf_put_c(buf, "storages: [{name: S, import: selinon.storages.memory, "
                       "classname: InMemoryStorage}]\ntasks:\n"
                       "- {name: " TARGET ", import: m}\n");
    for (uint32_t i = 0; i < sel_value_count(messages); i++)
        sel_buf_printf(buf, "- {name: %.*s, import: m, storage: S}\n",
                       SEL_STR_ARG(sel_value_str(sel_value_key_at(messages, i))));
    sel_buf_put_c(buf, "flows: [flow]\nflow-definitions:\n- name: flow\n  edges:\n");
    if (!starts) {
        sel_buf_put_c(buf, "  - {from: null, to: [");
        put_names(buf, messages);
        sel_buf_put_c(buf, "]}\n");
    }
    sel_buf_put_c(buf, "  - to: " TARGET "\n    from: ");
    if (starts) {
        sel_buf_put_c(buf, "null");
    } else {
        sel_buf_put_u8(buf, '[');
        put_names(buf, messages);
        sel_buf_put_u8(buf, ']');
    }
    sel_buf_put_c(buf, "\n    condition: ");
    put_yaml(buf, condition);
    sel_buf_put_u8(buf, '\n');
}

/* NULL, reported, if the compiler refuses it. */
static struct sel_system *compile(const char *name, struct sel_str text,
                                  const struct sel_predicate_world *world, struct sel_arena *arena,
                                  struct sel_runner_report *report)
{
    struct sel_diag diag;
    struct sel_system *system = NULL;
    struct sel_source file = {.file = "condition.yaml", .text = text};
    struct sel_compile_options options = {
        .nodes = file, .flows = &file, .flow_count = 1, .world = world};
    sel_diag_init(&diag, arena);
    int r = sel_compile(&options, &diag, &system);
    if (r == 0)
        return system;
    const struct sel_diag_item *item = diag.first;
    while (item && item->is_warning)
        item = item->next;
    sel_runner_fail(report, name, "refused: %s", item ? item->text : sel_error_text(r));
    return NULL;
}

struct reading {
    const struct sel_value *messages;
    struct sel_value_builder read;
};

static int give_message(void *ctx, uint32_t from_index, const struct sel_value **ret)
{
    struct reading *reading = ctx;
    if (from_index >= sel_value_count(reading->messages))
        return SEL_ERANGE;
    sel_value_add(&reading->read, *sel_value_key_at(reading->messages, from_index));
    *ret = sel_value_val_at(reading->messages, from_index);
    return 0;
}

/* Only httpStatus: the configuration names no module of predicates. */
static int ask_outside(void *ctx, const struct sel_cond *leaf, const struct sel_value *message)
{
    (void)ctx, (void)message;
    return ask_in_loop(leaf->arg_values, NULL);
}

static bool check_text(const char *name, const struct sel_value *line, const struct sel_cond *cond,
                       struct sel_arena *arena, struct sel_runner_report *report)
{
    const struct sel_value *text = sel_value_get_c(line, "condition_str");
    const char *got = sel_cond_format(arena, cond);
    if (sel_value_is(text, SEL_NULL) || (got && sel_str_eq_c(sel_value_str(text), got)))
        return true;
    sel_runner_fail(report, name, "the text should be %.*s, is %s",
                    SEL_STR_ARG(sel_value_str(text)), got ? got : "missing");
    return false;
}

static bool check_reads(const char *name, const struct sel_value *line, struct reading *reading,
                        struct sel_runner_report *report)
{
    const struct sel_value *expected = sel_value_get_c(line, "results_read");
    struct sel_value read;
    struct sel_arena *arena = reading->read.arena;
    const char *diff = sel_value_end(&reading->read, &read) < 0 ? "out of memory"
                       : expected ? sel_runner_diff(arena, expected, &read)
                                  : NULL;
    if (diff)
        sel_runner_fail(report, name, "results read: %s", diff);
    return !diff;
}

static void check_condition(const char *name, const struct sel_value *line,
                            const struct sel_cond *cond, const struct sel_predicate_world *world,
                            struct sel_arena *arena, struct sel_runner_report *report)
{
    struct reading reading = {.messages = sel_value_get_c(line, "messages")};
    sel_value_begin_list(&reading.read, arena);
    struct sel_cond_env env = {
        .ctx = &reading,
        .node_args = sel_value_get_c(line, "node_args"),
        .world = world,
        .message = give_message,
        .external = ask_outside,
    };
    int got = sel_cond_eval(cond, &env);
    int expected = sel_value_bool(sel_value_get_c(line, "expected"));
    bool same = got == expected;
    if (got < 0)
        sel_runner_fail(report, name, "not evaluated: %s", sel_error_text(got));
    else if (!same)
        sel_runner_fail(report, name, "expected %d, got %d", expected, got);
    same = check_text(name, line, cond, arena, report) && same;
    same = check_reads(name, line, &reading, report) && same;
    if (same)
        sel_runner_pass(report);
}

static void run_condition(void *ctx, const char *name, const struct sel_value *line,
                          struct sel_arena *arena, struct sel_runner_report *report)
{
    (void)ctx;
    struct sel_runner_env env;
    if (sel_runner_env_init(&env, arena, sel_value_get_c(line, "env")) < 0) {
        sel_runner_fail(report, name, "bad environment");
        return;
    }
    struct sel_predicate_world world = {sel_runner_getenv, &env};
    struct sel_buf text = {0};
    put_configuration(&text, sel_value_get_c(line, "condition"), sel_value_get_c(line, "messages"));
    struct sel_system *system = compile(name, sel_buf_str(&text), &world, arena, report);
    if (system) {
        const struct sel_flow_def *flow = &system->flows[0];
        check_condition(name, line, flow->edges[flow->edge_count - 1].cond, &world, arena, report);
    }
    sel_system_free(system);
    sel_buf_done(&text);
}

/* ---- http.jsonl ---- */

static void check_http(const char *name, const struct sel_value *line,
                       const struct sel_value *const args[], struct sel_runner_report *report)
{
    struct sel_error err = {0};
    int got = ask_in_loop(args, &err);
    int expected = sel_value_bool(sel_value_get_c(line, "expected"));
    if (got < 0)
        sel_runner_fail(report, name, "not asked: %s %s", sel_error_text(got), err.text);
    else if (got != expected)
        sel_runner_fail(report, name, "httpStatus: expected %d, got %d", expected, got);
    else
        sel_runner_pass(report);
}

static void run_http(void *ctx, const char *name, const struct sel_value *line,
                     struct sel_arena *arena, struct sel_runner_report *report)
{
    (void)ctx;
    const struct sel_value *args[SEL_PREDICATE_ARGS_MAX] = {NULL};
    const struct sel_predicate *predicate = read_call(name, line, args, report);
    if (!predicate)
        return;
    if (!sel_value_is(args[0], SEL_TEXT) || !sel_str_eq_c(sel_value_str(args[0]), "{HOST}")) {
        check_http(name, line, args, report);
        return;
    }
    struct sel_http_server server;
    int r = sel_http_server_start(&server, sel_value_get_c(line, "server"));
    if (r < 0) {
        sel_runner_fail(report, name, "no server: %s", sel_error_text(r));
        return;
    }
    struct sel_value host = sel_value_from_c(sel_arena_printf(arena, "127.0.0.1:%u", server.port));
    args[0] = &host;
    check_http(name, line, args, report);
    sel_http_server_stop(&server);
}

/* ---- the topic ---- */

int sel_topic_predicates(const char *dir, const struct sel_runner_options *options,
                         struct sel_runner_report *report, struct sel_error *err)
{
    (void)options;
    static const struct {
        const char *file;
        sel_runner_line_fn *run;
    } files[] = {
        {"leaf.jsonl", run_leaf},
        {"conditions.jsonl", run_condition},
        {"http.jsonl", run_http},
    };
    int found_count = 0;
    for (size_t i = 0; i < SEL_COUNT(files); i++) {
        char path[4096];
        (void)snprintf(path, sizeof(path), "%s/%s", dir, files[i].file);
        if (!sel_runner_exists(path))
            continue;
        found_count++;
        int r = sel_runner_each_line(path, files[i].run, NULL, report, err);
        if (r < 0)
            return r;
    }
    if (found_count == 0)
        return sel_error_set(err, SEL_ENOTFOUND, (struct sel_pos){dir, 0, 0},
                             "holds none of leaf.jsonl, conditions.jsonl, http.jsonl");
    return 0;
}
