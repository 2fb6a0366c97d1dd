#include "tests/runner/flow_seen.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/mem.h"

#define LATE_US_MAX 10000000 /* later is no slow machine any more */

static const struct {
    const char *name;
    bool is_decided; /* by a flow: else it is of a run, of which there may be more than one */
} compared_events[] = {
    {"FLOW_SCHEDULE", true},
    {"FLOW_START", true},
    {"FLOW_END", true},
    {"FLOW_FAILURE", true},
    {"FLOW_RETRY", true},
    {"SUBFLOW_SCHEDULE", true},
    {"TASK_SCHEDULE", true},
    {"TASK_START", false},
    {"TASK_END", false},
    {"TASK_FAILURE", false},
    {"TASK_RETRY", false},
    {"TASK_DISCARD_RESULT", false},
    {"NODE_SUCCESSFUL", true},
    {"NODE_FAILURE", true},
    {"EAGER_FAILURE", true},
    {"FALLBACK_START", true},
    {"EDGE_COND_FALSE", true},
    {"FOREACH_RESULT", true},
    {"SELECTIVE_TASK_REUSE", true},
    {"STORAGE_STORE", false},
    {"STORAGE_STORE_ERROR", false},
    {"STORAGE_OMIT_STORE_ERROR", false},
};

static void fail(struct sel_flow_seen *seen, const char *what, const char *difference)
{
    sel_flow_case_fail(seen->c, what, difference);
}

static struct sel_arena *arena_of(const struct sel_flow_seen *seen)
{
    return &seen->c->arena;
}

/* The list or map; null, which differs from what is expected, when memory ran out. */
static struct sel_value built(struct sel_value_builder *b)
{
    struct sel_value value;
    return sel_value_end(b, &value) == 0 ? value : sel_value_null;
}

/* ---- results of runs, for parents ---- */

static void keep_result(struct sel_flow_seen *seen, struct sel_str id, struct sel_value result)
{
    if (sel_map_add(&seen->result_index, id, seen->results.count, NULL) == 1)
        sel_value_add(&seen->results, result);
}

static struct sel_value result_of(const struct sel_flow_seen *seen, const struct sel_value *id)
{
    uint32_t index;
    if (sel_map_get(&seen->result_index, sel_value_str(id), &index))
        return seen->results.items[index];
    return sel_value_from_c("(no such run has a result)");
}

static int by_json(const void *a, const void *b, void *arena)
{
    return strcmp(sel_runner_json(arena, a), sel_runner_json(arena, b));
}

/* Ids become results; lists below a flow name are sorted, for their order has no meaning. */
static struct sel_value resolved(const struct sel_flow_seen *seen, const struct sel_value *parents)
{
    struct sel_value_builder out;
    if (sel_value_is(parents, SEL_TEXT))
        return result_of(seen, parents);
    if (sel_value_is(parents, SEL_LIST)) {
        sel_value_begin_list(&out, arena_of(seen));
        for (uint32_t i = 0; i < sel_value_count(parents); i++)
            sel_value_add(&out, result_of(seen, sel_value_at(parents, i)));
        qsort_r(out.items, out.count, sizeof(*out.items), by_json, arena_of(seen));
        return built(&out);
    }
    sel_value_begin_map(&out, arena_of(seen));
    for (uint32_t i = 0; sel_value_is(parents, SEL_MAP) && i < sel_value_count(parents); i++)
        sel_value_put_key(&out, *sel_value_key_at(parents, i),
                          resolved(seen, sel_value_val_at(parents, i)));
    return built(&out);
}

/* ---- reading ---- */

static bool is_text(const struct sel_value *line, const char *key, const char *text)
{
    const struct sel_value *v = sel_value_get_c(line, key);
    return sel_value_is(v, SEL_TEXT) && sel_str_eq_c(sel_value_str(v), text);
}

static int64_t time_of(const struct sel_value *line)
{
    int64_t at_us = 0;
    (void)sel_value_i64(sel_value_get_c(line, "at_us"), &at_us); /* 0 will do */
    return at_us;
}

static void copy_keys(const struct sel_value *line, const char *const *keys,
                      struct sel_value_builder *out)
{
    for (; *keys; keys++)
        sel_value_put_c(out, *keys, sel_flow_case_member(line, *keys));
}

static struct sel_value seconds(const struct sel_value *v)
{
    double s = sel_value_num(v);
    return s == (double)(int64_t)s ? sel_value_from_i64((int64_t)s) : sel_value_from_f64(s);
}

/* Whether this try of the run was seen before; always false if nothing was delivered twice. */
static bool is_again(struct sel_flow_seen *seen, const struct sel_value *line)
{
    const struct sel_value *id = sel_value_get_c(line, "id");
    int64_t try_count = 0;
    if (!seen->is_disturbed || !sel_value_is(id, SEL_TEXT))
        return false;
    (void)sel_value_i64(sel_value_get_c(line, "try"), &try_count);
    const char *key = sel_arena_printf(arena_of(seen), "%.*s %lld", SEL_STR_ARG(sel_value_str(id)),
                                       (long long)try_count);
    return key && sel_map_add(&seen->tries, sel_str_c(key), 0, NULL) == 0;
}

static void take_execution(struct sel_flow_seen *seen, const struct sel_value *line)
{
    static const char *const keys[] = {"task", "flow", "node_args", "outcome", NULL};
    struct sel_value_builder entry;
    if (is_text(line, "outcome", "returned") || is_again(seen, line))
        return; /* its worker stopped: it runs elsewhere, or did */
    sel_value_begin_map(&entry, arena_of(seen));
    copy_keys(line, keys, &entry);
    sel_value_put_c(&entry, "parents", resolved(seen, sel_value_get_c(line, "parents")));
    bool is_success = is_text(line, "outcome", "success");
    const char *what = is_success ? "result" : "error";
    sel_value_put_c(&entry, what, sel_flow_case_member(line, what));
    if (is_text(line, "outcome", "retry"))
        sel_value_put_c(&entry, "countdown", seconds(sel_value_get_c(line, "countdown")));
    sel_value_add(&seen->executions, built(&entry));
}

/* {name: ids} to {name: how many}. */
static struct sel_value counted(const struct sel_flow_seen *seen, const struct sel_value *nodes)
{
    struct sel_value_builder out;
    sel_value_begin_map(&out, arena_of(seen));
    for (uint32_t i = 0; sel_value_is(nodes, SEL_MAP) && i < sel_value_count(nodes); i++)
        sel_value_put_key(&out, *sel_value_key_at(nodes, i),
                          sel_value_from_i64(sel_value_count(sel_value_val_at(nodes, i))));
    return built(&out);
}

static void take_end(struct sel_flow_seen *seen, const struct sel_value *line)
{
    static const char *const keys[] = {"flow", "node_args", "outcome", NULL};
    static const char *const lists[] = {"finished_nodes", "failed_nodes"};
    struct sel_value_builder entry;
    sel_value_begin_map(&entry, arena_of(seen));
    copy_keys(line, keys, &entry);
    for (size_t i = 0; i < SEL_COUNT(lists); i++)
        sel_value_put_c(&entry, lists[i], counted(seen, sel_value_get_c(line, lists[i])));
    sel_value_add(&seen->ends, built(&entry));
}

static void take_stored(struct sel_flow_seen *seen, const struct sel_value *line)
{
    static const char *const keys[] = {"storage", "task",   "storage_task_name",
                                       "flow",    "result", NULL};
    struct sel_value_builder entry;
    sel_value_begin_map(&entry, arena_of(seen));
    copy_keys(line, keys, &entry);
    sel_value_add(&seen->stored, built(&entry));
}

static void take_event(struct sel_flow_seen *seen, const struct sel_value *line)
{
    uint32_t event = 0;
    while (event < SEL_TRACE_COUNT && !is_text(line, "event", sel_trace_name(event)))
        event++;
    if (event == SEL_TRACE_COUNT) {
        fail(seen, "report", "an event of no known name");
        return;
    }
    seen->events[event]++;
    if (event != SEL_TRACE_TASK_START && event != SEL_TRACE_FLOW_START)
        return;
    const struct sel_value *name =
        sel_value_get_c(sel_value_get_c(line, "details"),
                        event == SEL_TRACE_TASK_START ? "task_name" : "flow_name");
    if (!sel_value_is(name, SEL_TEXT) ||
        !sel_mem_grow(&seen->begun, &seen->begun_cap, (uint64_t)seen->begun_count + 1,
                      sizeof(*seen->begun)))
        fail(seen, "report", "a start without a name");
    else
        seen->begun[seen->begun_count++] =
            (struct sel_flow_begun){sel_value_str(name), time_of(line)};
}

/* Results first: a line may come before the one that it tells of. */
static void take_result(struct sel_flow_seen *seen, const struct sel_value *line)
{
    const struct sel_value *id = sel_value_get_c(line, "id");
    if (is_text(line, "what", "execution") && is_text(line, "outcome", "success"))
        keep_result(seen, sel_value_str(id), sel_flow_case_member(line, "result"));
}

static void take_line(struct sel_flow_seen *seen, const struct sel_value *line)
{
    bool is_end = true;
    if (is_text(line, "what", "execution"))
        take_execution(seen, line);
    else if (is_text(line, "what", "flow"))
        take_end(seen, line);
    else
        is_end = false;
    if (is_text(line, "what", "stored"))
        take_stored(seen, line);
    if (is_text(line, "what", "event"))
        take_event(seen, line);
    if (is_end && time_of(line) > seen->last_end_us)
        seen->last_end_us = time_of(line);
}

void sel_flow_seen_read(struct sel_flow_seen *seen, struct sel_str text)
{
    struct sel_runner_lines lines = {.rest = text};
    struct sel_value_builder list;
    struct sel_value all, value;
    struct sel_error err = {0};
    sel_value_begin_list(&list, arena_of(seen));
    for (struct sel_str line; sel_runner_next_line(&lines, &line);) {
        if (sel_json_parse(arena_of(seen), NULL, line, &value, NULL, &err) == 0)
            sel_value_add(&list, value);
        else if (!seen->is_disturbed) /* else its writer was killed before the line's end */
            fail(seen, "report", err.text);
    }
    if (sel_value_end(&list, &all) < 0) {
        fail(seen, "report", "out of memory");
        return;
    }
    for (uint32_t i = 0; i < sel_value_count(&all); i++)
        take_result(seen, sel_value_at(&all, i));
    for (uint32_t i = 0; i < sel_value_count(&all); i++)
        take_line(seen, sel_value_at(&all, i));
}

void sel_flow_seen_init(struct sel_flow_seen *seen, struct sel_flow_case *c, bool is_disturbed)
{
    uint32_t count;
    *seen = (struct sel_flow_seen){.c = c, .is_disturbed = is_disturbed};
    sel_value_begin_list(&seen->results, &c->arena);
    sel_value_begin_list(&seen->executions, &c->arena);
    sel_value_begin_list(&seen->ends, &c->arena);
    sel_value_begin_list(&seen->stored, &c->arena);
    const struct sel_executor_preset *presets = sel_flow_case_presets(c, &count);
    for (uint32_t i = 0; i < count; i++)
        keep_result(seen, sel_str_c(presets[i].id), presets[i].result);
}

void sel_flow_seen_done(struct sel_flow_seen *seen)
{
    sel_map_done(&seen->tries);
    sel_map_done(&seen->result_index);
    seen->begun = sel_mem_free(seen->begun);
}

/* ---- comparing ---- */

/* Each item once. */
static struct sel_value different(struct sel_flow_seen *seen, const struct sel_value *list)
{
    struct sel_value_builder out;
    sel_value_begin_list(&out, arena_of(seen));
    for (uint32_t i = 0; i < sel_value_count(list); i++) {
        bool is_new = true;
        for (uint32_t j = 0; j < out.count && is_new; j++)
            is_new = !sel_value_same(&out.items[j], sel_value_at(list, i));
        if (is_new)
            sel_value_add(&out, *sel_value_at(list, i));
    }
    return built(&out);
}

static void compare_set(struct sel_flow_seen *seen, const char *what,
                        struct sel_value_builder *list)
{
    const struct sel_value *expected = sel_value_get_c(&seen->c->expected, what);
    struct sel_value actual = built(list);
    if (!expected)
        return;
    struct sel_value want = different(seen, expected), have = different(seen, &actual);
    fail(seen, what, sel_runner_diff_multiset(arena_of(seen), &want, &have));
}

static void compare_list(struct sel_flow_seen *seen, const char *what,
                         struct sel_value_builder *list)
{
    const struct sel_value *expected = sel_value_get_c(&seen->c->expected, what);
    struct sel_value actual = built(list);
    if (expected)
        fail(seen, what, sel_runner_diff_multiset(arena_of(seen), expected, &actual));
}

static uint64_t events_of(const struct sel_flow_seen *seen, const char *name)
{
    for (uint32_t e = 0; e < SEL_TRACE_COUNT; e++) {
        if (strcmp(sel_trace_name(e), name) == 0)
            return seen->events[e];
    }
    return 0;
}

/* What died may have had a decision of which it had not told yet, but none is told twice. */
static void compare_events(struct sel_flow_seen *seen)
{
    const struct sel_value *expected = sel_value_get_c(&seen->c->expected, "events");
    for (size_t i = 0; i < SEL_COUNT(compared_events); i++) {
        const char *name = compared_events[i].name;
        const struct sel_value *v = sel_value_get_c(expected, name);
        uint64_t have = events_of(seen, name);
        int64_t want = 0;
        if (v)
            (void)sel_value_i64(v, &want);
        bool is_right = have == (uint64_t)want;
        if (seen->is_disturbed)
            is_right = have <= (uint64_t)want || !compared_events[i].is_decided;
        if (!is_right)
            fail(seen, "events",
                 sel_arena_printf(arena_of(seen), "%s: expected %lld, got %llu", name,
                                  (long long)want, (unsigned long long)have));
    }
}

static void compare_queues(struct sel_flow_seen *seen)
{
    const struct sel_system *system = seen->c->system;
    const struct sel_value *expected = sel_value_get_c(&seen->c->expected, "queues");
    struct sel_value_builder tasks, flows, both;
    if (!expected)
        return;
    sel_value_begin_map(&tasks, arena_of(seen));
    for (uint32_t i = 0; i < system->task_count; i++)
        sel_value_put(&tasks, system->tasks[i].name, sel_value_from_str(system->tasks[i].queue));
    sel_value_begin_map(&flows, arena_of(seen));
    for (uint32_t i = 0; i < system->flow_count; i++)
        sel_value_put(&flows, system->flows[i].name, sel_value_from_str(system->flows[i].queue));
    sel_value_begin_map(&both, arena_of(seen));
    sel_value_put_c(&both, "tasks", built(&tasks));
    sel_value_put_c(&both, "flows", built(&flows));
    struct sel_value actual = built(&both);
    fail(seen, "queues", sel_runner_diff(arena_of(seen), expected, &actual));
}

static void compare_nodes(struct sel_flow_seen *seen, const char *what,
                          const struct sel_value *state)
{
    const struct sel_value *expected = sel_value_get_c(&seen->c->expected, what);
    struct sel_value actual = counted(seen, sel_value_get_c(state, what));
    if (expected)
        fail(seen, what, sel_runner_diff(arena_of(seen), expected, &actual));
}

/* ---- times ---- */

/* What is `due_s` on a clock without haste was at `at_us`. It counts from when the flow was
 * submitted: whoever is the first to say that something happens may be late to say it. */
static void compare_time(struct sel_flow_seen *seen, const struct sel_flow_top *top,
                         const char *what, double due_s, int64_t at_us)
{
    double due_us = due_s * 1e6 / (top->speed > 0 ? top->speed : 1);
    double late_us = (double)(at_us - (top->speed > 0 ? top->begin_us : 0)) - due_us;
    double slack_us = top->speed > 0 ? 2 : 0.5; /* each of two delays may be rounded */
    double late_us_max = seen->is_disturbed ? HUGE_VAL : top->speed > 0 ? LATE_US_MAX : 0.5;
    if (late_us < -slack_us || late_us > late_us_max)
        fail(seen, what,
             sel_arena_printf(arena_of(seen), "expected at %g s, was %g s late", due_us / 1e6,
                              late_us / 1e6));
}

static int by_time(const void *a, const void *b)
{
    const struct sel_flow_begun *x = a, *y = b;
    return (x->at_us > y->at_us) - (x->at_us < y->at_us);
}

/* `times`: when the task or flow `name` began, every try. */
static void compare_starts_of(struct sel_flow_seen *seen, const struct sel_flow_top *top,
                              struct sel_str name, const struct sel_value *times)
{
    const char *what = sel_arena_printf(arena_of(seen), "starts of %.*s", SEL_STR_ARG(name));
    uint32_t count = 0;
    for (uint32_t i = 0; i < seen->begun_count; i++) {
        if (!sel_str_eq(seen->begun[i].name, name))
            continue;
        if (count < sel_value_count(times))
            compare_time(seen, top, what, sel_value_num(sel_value_at(times, count)),
                         seen->begun[i].at_us);
        count++;
    }
    if (count != sel_value_count(times))
        fail(
            seen, what,
            sel_arena_printf(arena_of(seen), "expected %u, got %u", sel_value_count(times), count));
}

static void compare_times(struct sel_flow_seen *seen, const struct sel_flow_top *top)
{
    const struct sel_value *virtual_s = sel_value_get_c(&seen->c->expected, "virtual_seconds");
    const struct sel_value *starts = sel_value_get_c(&seen->c->expected, "starts");
    if (seen->is_disturbed)
        starts = NULL; /* those of runs that died cannot be told from others */
    if (virtual_s)
        compare_time(seen, top, "virtual_seconds", sel_value_num(virtual_s), seen->last_end_us);
    if (seen->begun_count)
        qsort(seen->begun, seen->begun_count, sizeof(*seen->begun), by_time);
    for (uint32_t i = 0; sel_value_is(starts, SEL_MAP) && i < sel_value_count(starts); i++)
        compare_starts_of(seen, top, sel_value_str(sel_value_key_at(starts, i)),
                          sel_value_val_at(starts, i));
}

void sel_flow_seen_compare(struct sel_flow_seen *seen, const struct sel_flow_top *top)
{
    struct sel_value expected = sel_flow_case_member(&seen->c->expected, "outcome");
    struct sel_value actual = sel_value_from_c(top->outcome);
    fail(seen, "outcome", sel_runner_diff(arena_of(seen), &expected, &actual));
    compare_nodes(seen, "finished_nodes", &top->state);
    compare_nodes(seen, "failed_nodes", &top->state);
    compare_list(seen, "executions", &seen->executions);
    compare_queues(seen);
    compare_times(seen, top);
    compare_events(seen);
    if (seen->is_disturbed) {
        compare_set(seen, "flows", &seen->ends);
        compare_set(seen, "stored", &seen->stored);
        return;
    }
    compare_list(seen, "flows", &seen->ends);
    compare_list(seen, "stored", &seen->stored);
}
