/* The cache of the states of a flow's nodes: `cache` in a flow definition.
 *
 * A completion carries its state, which is added. What no completion tells is looked up, in the
 * cache, then where it is kept: what ran in a sub-flow that hands it on (here the hub has its final
 * state), and how a run of an earlier time ended whose result is reused (its storage has the result
 * or not). An item is {state: finished or failed}, for such a sub-flow with its finished_nodes and
 * failed_nodes. */
#include "core/buf.h"
#include "worker/hub.h"
#include "worker/result_cache.h"

/* One run that is asked about. */
struct subject {
    struct sel_flow_run *run;
    struct sel_arena *arena;
    uint32_t slot;
    struct sel_str id;
};

static void trace(const struct subject *s, enum sel_trace_event event, const char *what)
{
    sel_hub_trace_node_state(s->run, event, s->slot, s->id, what);
}

/* Whether the cache knows the state. */
static bool look_up(const struct subject *s, struct sel_value *ret)
{
    struct sel_error err = {0};
    struct sel_str bytes;
    trace(s, SEL_TRACE_NODE_STATE_CACHE_GET, NULL);
    int r = sel_result_cache_get(s->run->states, s->arena, s->id, &bytes, &err);
    if (r > 0 && sel_value_decode(s->arena, bytes.p, bytes.n, true, ret, &err) < 0)
        r = SEL_EFORMAT;
    if (r > 0)
        trace(s, SEL_TRACE_NODE_STATE_CACHE_HIT, NULL);
    else if (r == 0)
        trace(s, SEL_TRACE_NODE_STATE_CACHE_MISS, "CacheMissError: not in the cache");
    else
        trace(s, SEL_TRACE_NODE_STATE_CACHE_ISSUE, err.text);
    return r > 0;
}

/* {state} and, of a flow that was kept, what ran in it. */
static int build(const struct subject *s, bool failed, const struct sel_ended_flow *ended,
                 struct sel_value *ret)
{
    static const char *const lists[] = {"finished_nodes", "failed_nodes"};
    struct sel_value_builder map;
    struct sel_value state;
    sel_value_begin_map(&map, s->arena);
    sel_value_put_c(&map, "state", sel_value_from_c(failed ? "failed" : "finished"));
    if (ended) {
        int r =
            sel_state_to_value(s->arena, s->run->hub->system, ended->flow, &ended->state, &state);
        if (r < 0)
            return r;
        for (size_t i = 0; i < SEL_COUNT(lists); i++)
            sel_value_put_c(&map, lists[i], *sel_value_get_c(&state, lists[i]));
    }
    return sel_value_end(&map, ret);
}

static void add(const struct subject *s, bool failed, const struct sel_ended_flow *ended)
{
    struct sel_error err = {0};
    struct sel_buf bytes = {0};
    struct sel_value item;
    int r = build(s, failed, ended, &item);
    trace(s, SEL_TRACE_NODE_STATE_CACHE_ADD, NULL);
    if (r == 0) {
        sel_value_encode(&item, &bytes);
        r = sel_buf_error(&bytes);
    }
    if (r == 0)
        r = sel_result_cache_add(s->run->states, s->arena, s->id, sel_buf_str(&bytes), &err);
    if (r < 0)
        trace(s, SEL_TRACE_NODE_STATE_CACHE_ISSUE, err.text[0] ? err.text : sel_error_text(r));
    sel_buf_done(&bytes);
}

static bool hands_on(const struct sel_flow_node *node)
{
    return node->propagate_finished || node->propagate_compound_finished ||
           node->propagate_failures || node->propagate_compound_failures;
}

void sel_hub_note_state(struct sel_flow_run *run, struct sel_arena *arena,
                        const struct sel_flow_input *input)
{
    char text[SEL_RUN_ID_TEXT_SIZE];
    struct subject s = {.run = run,
                        .arena = arena,
                        .slot = sel_state_run_slot(&run->state, input->ordinal),
                        .id = sel_state_run_id(&run->state, input->ordinal, text)};
    const struct sel_ended_flow *ended = sel_hub_ended_child(run, input->ordinal);
    struct sel_value known;
    if (ended && hands_on(&run->flow->nodes[s.slot]) && look_up(&s, &known))
        return;
    add(&s, input->failed, ended);
}

/* ---- reused results ---- */

static void warn(const struct subject *s, const char *what)
{
    const struct sel_flow_def *flow = s->run->flow;
    struct sel_str node = sel_system_node_name(s->run->hub->system, flow->nodes[s->slot].node);
    sel_engine_log(s->run->hub->engine, SEL_LOG_WARNING,
                   "flow '%.*s' reuses run %.*s for '%.*s', %s", SEL_STR_ARG(flow->name),
                   SEL_STR_ARG(s->id), SEL_STR_ARG(node), what);
}

/* 1: the storage has the result; 0: it has not; < 0: it cannot be asked, `err` says why. */
static int ask_storage(const struct subject *s, const struct sel_task_def *task,
                       struct sel_error *err)
{
    struct sel_hub *hub = s->run->hub;
    struct sel_storage *storage;
    struct sel_storage_item item = {
        .flow = s->run->flow->name, .task = task->storage_task_name, .id = s->id};
    int r = sel_engine_storage(hub->engine, task->storage, &storage, err);
    if (r == 0)
        r = storage->ops->retrieve(storage, sel_loop_io(hub->loop), s->arena, &item, 1, err);
    if (r == 0 && item.status == SEL_STORE_FAILED)
        r = sel_error_set(err, SEL_ESTORAGE, task->pos, "%s",
                          item.message ? item.message : "the storage failed");
    return r < 0 ? r : item.status == SEL_STORE_OK;
}

void sel_hub_look_up_reused(struct sel_flow_run *run, struct sel_arena *arena, uint32_t slot,
                            struct sel_str id)
{
    struct subject s = {run, arena, slot, id};
    const struct sel_task_def *task =
        sel_system_task(run->hub->system, run->flow->nodes[slot].node);
    struct sel_error err = {0};
    struct sel_value known;
    if (look_up(&s, &known)) {
        const struct sel_value *state = sel_value_get_c(&known, "state");
        if (sel_value_is(state, SEL_TEXT) && sel_str_eq_c(sel_value_str(state), "failed"))
            warn(&s, "which failed");
        return;
    }
    if (task->storage == SEL_NONE)
        return; /* nobody knows, and nobody can ask for the result */
    int r = ask_storage(&s, task, &err);
    if (r > 0)
        add(&s, false, NULL);
    else if (r == 0)
        warn(&s, "of which the storage has no result");
    else
        trace(&s, SEL_TRACE_RESULT_BACKEND_ISSUE, err.text);
}
