/* Which runs are the parents of what a flow starts. */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "worker/hub.h"

#define LINEAGE_OWN 0u /* in bytes: failed parents of the flow itself; others are 1 + ordinal */

/* ---- lists of failed runs ---- */

static void failed_unref(struct sel_failed_runs *failed)
{
    if (failed && --failed->refs == 0)
        sel_mem_free(failed);
}

static struct sel_failed_runs *failed_new(uint32_t count)
{
    struct sel_failed_runs *failed =
        sel_mem_alloc(sizeof(*failed) + (size_t)count * sizeof(failed->runs[0]));
    if (failed)
        *failed = (struct sel_failed_runs){.refs = 1, .count = count};
    return failed;
}

static void drop_lineage(struct sel_flow_run *run)
{
    for (uint32_t i = 0; i < run->lineage_count; i++)
        failed_unref(run->lineage[i].failed);
    run->lineage_count = 0;
}

static void drop_combination(struct sel_flow_run *run)
{
    sel_parents_unref(run->combination_parents);
    run->combination_parents = NULL;
    run->combination = UINT64_MAX;
}

static void drop_combination_failed(struct sel_flow_run *run)
{
    failed_unref(run->combination_failed);
    run->combination_failed = NULL;
    run->failed_combination = UINT64_MAX;
}

void sel_hub_forget_parents(struct sel_flow_run *run)
{
    drop_lineage(run);
    drop_combination(run);
    drop_combination_failed(run);
}

/* NULL: the run hands none on. */
static const struct sel_failed_runs *find_lineage(const struct sel_flow_run *run, uint32_t ordinal)
{
    uint32_t low = 0, high = run->lineage_count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (run->lineage[mid].ordinal < ordinal)
            low = mid + 1;
        else
            high = mid;
    }
    bool found = low < run->lineage_count && run->lineage[low].ordinal == ordinal;
    return found ? run->lineage[low].failed : NULL;
}

/* As they were started; the failed parents of the flow itself (SEL_NONE) were before all others. */
static int by_start(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a + 1, y = *(const uint32_t *)b + 1;
    return (x > y) - (x < y);
}

static uint32_t slot_of(const struct sel_flow_run *run, uint32_t ordinal)
{
    return ordinal == SEL_NONE ? SEL_NONE : sel_state_run_slot(&run->state, ordinal);
}

/* Of each node the last one, as a task is told one failure of a node. Where ways meet, both bring
 * along what they have in common: else a list would be doubled with each round of a cycle. */
static void keep_last(const struct sel_flow_run *run, struct sel_failed_runs *failed)
{
    uint32_t first = failed->count;
    for (uint32_t i = failed->count; i-- > 0;) {
        uint32_t k = first;
        while (k < failed->count && slot_of(run, failed->runs[k]) != slot_of(run, failed->runs[i]))
            k++;
        if (k == failed->count)
            failed->runs[--first] = failed->runs[i];
    }
    failed->count -= first;
    memmove(failed->runs, failed->runs + first, failed->count * sizeof(failed->runs[0]));
}

/* The failed runs among and before those of a combination: what they inherited, then its own if
 * it is a fallback's. NULL and 0: none. */
static int list_failed(const struct sel_flow_run *run, const struct sel_combination *combination,
                       struct sel_failed_runs **ret)
{
    bool is_fallback = combination->edge == SEL_NONE;
    bool is_start = !is_fallback && combination->count == 0;
    uint64_t count = is_fallback ? combination->count
                                 : is_start && run->parents && run->parents->failed_count > 0;
    *ret = NULL;
    for (uint32_t i = 0; run->lineage_count > 0 && i < combination->count; i++) {
        const struct sel_failed_runs *lineage = find_lineage(run, combination->runs[i]);
        count += lineage ? lineage->count : 0;
    }
    if (count == 0)
        return 0;
    struct sel_failed_runs *failed = count < UINT32_MAX ? failed_new((uint32_t)count) : NULL;
    if (!failed)
        return SEL_ENOMEM;
    uint32_t at = 0;
    if (is_start)
        failed->runs[at++] = SEL_NONE;
    for (uint32_t i = 0; run->lineage_count > 0 && i < combination->count; i++) {
        const struct sel_failed_runs *lineage = find_lineage(run, combination->runs[i]);
        for (uint32_t k = 0; lineage && k < lineage->count; k++)
            failed->runs[at++] = lineage->runs[k];
    }
    qsort(failed->runs, at, sizeof(failed->runs[0]), by_start);
    for (uint32_t i = 0; is_fallback && i < combination->count; i++)
        failed->runs[at++] = combination->runs[i];
    keep_last(run, failed);
    *ret = failed;
    return 0;
}

/* Of the combination at hand, made once. */
static int failed_of(struct sel_flow_run *run, const struct sel_combination *combination)
{
    if (run->failed_combination == combination->number)
        return 0;
    drop_combination_failed(run);
    int r = list_failed(run, combination, &run->combination_failed);
    if (r == 0)
        run->failed_combination = combination->number;
    return r;
}

static int add_lineage(struct sel_flow_run *run, uint32_t ordinal, struct sel_failed_runs *failed)
{
    if (!sel_mem_grow(&run->lineage, &run->lineage_cap, (uint64_t)run->lineage_count + 1,
                      sizeof(*run->lineage)))
        return SEL_ENOMEM;
    failed->refs++;
    run->lineage[run->lineage_count++] = (struct sel_lineage){ordinal, failed};
    return 0;
}

int sel_hub_note_lineage(struct sel_flow_run *run, uint32_t ordinal,
                         const struct sel_combination *combination)
{
    int r = failed_of(run, combination);
    return r < 0 || !run->combination_failed ? r
                                             : add_lineage(run, ordinal, run->combination_failed);
}

/* ---- parents ---- */

struct sel_ended_flow *sel_hub_ended_child(const struct sel_flow_run *run, uint32_t ordinal)
{
    const struct sel_state_child *child = sel_state_child(&run->state, ordinal);
    size_t index = child ? (size_t)(child - run->state.children) : SIZE_MAX;
    return index < run->child_count ? run->children[index] : NULL;
}

/* Whether a run is among the parents of what it starts: sub-flows only if asked for. */
static bool is_parent(const struct sel_flow_run *run, uint32_t ordinal, bool failed)
{
    const struct sel_flow_node *node = &run->flow->nodes[sel_state_run_slot(&run->state, ordinal)];
    if (!sel_system_is_flow(run->hub->system, node->node))
        return true;
    bool wanted = failed ? node->propagate_failures || node->propagate_compound_failures
                         : node->propagate_finished || node->propagate_compound_finished;
    return wanted && sel_hub_ended_child(run, ordinal);
}

static int set_parent(struct sel_flow_run *run, struct sel_parents *parents, uint32_t index,
                      uint32_t ordinal, bool failed)
{
    const struct sel_flow_node *node = &run->flow->nodes[sel_state_run_slot(&run->state, ordinal)];
    struct sel_str name = sel_system_node_name(run->hub->system, node->node);
    char text[SEL_RUN_ID_TEXT_SIZE];
    const char *error_class, *message;
    if (sel_system_is_flow(run->hub->system, node->node)) {
        bool compound =
            failed ? node->propagate_compound_failures : node->propagate_compound_finished;
        sel_parents_set_flow(parents, index, name, sel_hub_ended_child(run, ordinal), compound);
        return 0;
    }
    int r =
        sel_parents_set_task(parents, index, name, sel_state_run_id(&run->state, ordinal, text));
    if (r == 0 && failed && sel_run_failures_find(&run->failures, ordinal, &error_class, &message))
        r = sel_parents_set_failure(parents, index, error_class, message);
    return r;
}

/* How many parents a failed run of a list stands for. */
static uint32_t count_failed(const struct sel_flow_run *run, uint32_t ordinal)
{
    if (ordinal == SEL_NONE)
        return run->parents ? run->parents->failed_count : 0;
    return is_parent(run, ordinal, true);
}

static int set_failed(struct sel_flow_run *run, struct sel_parents *parents, uint32_t *index,
                      uint32_t ordinal)
{
    int r = 0;
    if (ordinal != SEL_NONE)
        return is_parent(run, ordinal, true) ? set_parent(run, parents, (*index)++, ordinal, true)
                                             : 0;
    const struct sel_parents *own = run->parents;
    for (uint32_t k = 0; own && r == 0 && k < own->failed_count; k++)
        r = sel_parents_copy(parents, (*index)++, &own->parents[own->count + k]);
    return r;
}

static int build_parents(struct sel_flow_run *run, const struct sel_combination *combination,
                         struct sel_parents **ret)
{
    const struct sel_failed_runs *failed = run->combination_failed;
    bool is_fallback = combination->edge == SEL_NONE;
    uint32_t finished_count = 0, failed_count = 0, index = 0;
    for (uint32_t i = 0; !is_fallback && i < combination->count; i++)
        finished_count += is_parent(run, combination->runs[i], false);
    for (uint32_t i = 0; failed && i < failed->count; i++)
        failed_count += count_failed(run, failed->runs[i]);
    struct sel_parents *parents = sel_parents_new(finished_count, failed_count);
    int r = parents ? 0 : SEL_ENOMEM;
    for (uint32_t i = 0; !is_fallback && i < combination->count && r == 0; i++) {
        if (is_parent(run, combination->runs[i], false))
            r = set_parent(run, parents, index++, combination->runs[i], false);
    }
    for (uint32_t i = 0; failed && i < failed->count && r == 0; i++)
        r = set_failed(run, parents, &index, failed->runs[i]);
    if (r < 0) {
        sel_parents_unref(parents);
        return r;
    }
    *ret = parents;
    return 0;
}

int sel_hub_parents(struct sel_flow_run *run, const struct sel_combination *combination,
                    struct sel_parents **ret)
{
    if (combination->edge != SEL_NONE && combination->count == 0) {
        *ret = run->parents;
        return 0;
    }
    if (run->combination != combination->number || !run->combination_parents) {
        drop_combination(run);
        int r = failed_of(run, combination);
        if (r == 0)
            r = build_parents(run, combination, &run->combination_parents);
        if (r < 0)
            return r;
        run->combination = combination->number;
    }
    *ret = run->combination_parents;
    return 0;
}

/* ---- taking over ---- */

/* The combination that the cursor stands at. `runs` has room for all its sources. */
static struct sel_combination combination_at(const struct sel_state *state, uint32_t *runs)
{
    const struct sel_cursor *c = &state->cursor;
    if (state->phase == SEL_PHASE_FALLBACK)
        return (struct sel_combination){.edge = SEL_NONE,
                                        .number = c->combination,
                                        .runs = c->taken.p,
                                        .count = c->taken.count,
                                        .choice = c->choice};
    for (uint32_t i = 0; i < c->source_count; i++)
        runs[i] = i == c->own ? c->run : state->slots[c->sources[i]].finished.p[c->digits[i]];
    return (struct sel_combination){.edge = c->edge,
                                    .number = c->combination,
                                    .runs = runs,
                                    .count = c->source_count,
                                    .choice = SEL_NONE};
}

/* Whether what starts now may hand failed runs on. */
static bool may_hand_on(const struct sel_flow_run *run)
{
    return run->state.phase == SEL_PHASE_FALLBACK || run->lineage_count > 0 ||
           (run->parents && run->parents->failed_count > 0);
}

static int replay_event(struct sel_flow_run *run, const struct sel_event *event)
{
    bool is_start = event->type == SEL_EVENT_TASK || event->type == SEL_EVENT_FLOW;
    const struct sel_cursor *c = &run->state.cursor;
    if (is_start && !c->firing && run->state.phase != SEL_PHASE_FALLBACK)
        return SEL_EFORMAT;
    if (is_start && may_hand_on(run)) {
        uint32_t *runs = sel_mem_alloc(sizeof(*runs) * ((size_t)c->source_count + 1));
        if (!runs)
            return SEL_ENOMEM;
        struct sel_combination combination = combination_at(&run->state, runs);
        int r = sel_hub_note_lineage(run, run->state.run_count, &combination);
        sel_mem_free(runs);
        if (r < 0)
            return r;
    }
    return sel_state_apply(&run->state, event);
}

int sel_hub_replay(struct sel_flow_run *run, struct sel_str events)
{
    size_t room = events.n < SEL_EVENT_ITEMS_MAX ? events.n : SEL_EVENT_ITEMS_MAX;
    uint32_t *list = sel_mem_alloc(sizeof(*list) * (room + 1));
    struct sel_event event;
    size_t pos = 0;
    int r = list ? 0 : SEL_ENOMEM;
    while (r == 0 && pos < events.n) {
        r = sel_event_decode((const uint8_t *)events.p, events.n, &pos, list, &event);
        if (r == 0)
            r = replay_event(run, &event);
    }
    sel_mem_free(list);
    return r;
}

void sel_hub_put_lineage(const struct sel_flow_run *run, struct sel_buf *buf)
{
    const struct sel_failed_runs *last = NULL;
    uint32_t before = 0;
    sel_buf_put_varint(buf, run->lineage_count);
    for (uint32_t i = 0; i < run->lineage_count; i++) {
        const struct sel_failed_runs *failed = run->lineage[i].failed;
        sel_buf_put_varint(buf, run->lineage[i].ordinal - before);
        before = run->lineage[i].ordinal;
        sel_buf_put_varint(buf, failed == last ? 0 : failed->count); /* 0: as before */
        for (uint32_t k = 0; failed != last && k < failed->count; k++)
            sel_buf_put_varint(buf, failed->runs[k] == SEL_NONE ? LINEAGE_OWN
                                                                : (uint64_t)failed->runs[k] + 1);
        last = failed;
    }
}

struct lineage_reader {
    const uint8_t *p;
    size_t n, pos;
};

/* A number of at most `max`. */
static bool read_number(struct lineage_reader *r, uint64_t max, uint64_t *ret)
{
    return sel_buf_get_varint(r->p, r->n, &r->pos, ret) && *ret <= max;
}

static int read_failed(struct lineage_reader *r, uint32_t count, uint32_t run_count,
                       struct sel_failed_runs **ret)
{
    uint64_t value;
    if (count > r->n - r->pos)
        return SEL_EFORMAT;
    struct sel_failed_runs *failed = failed_new(count);
    if (!failed)
        return SEL_ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        if (!read_number(r, run_count, &value)) {
            failed_unref(failed);
            return SEL_EFORMAT;
        }
        failed->runs[i] = value == LINEAGE_OWN ? SEL_NONE : (uint32_t)(value - 1);
    }
    *ret = failed;
    return 0;
}

static int read_lineage(struct sel_flow_run *run, struct lineage_reader *r, uint64_t *ordinal)
{
    uint64_t delta, count;
    struct sel_failed_runs *failed = NULL;
    bool is_first = run->lineage_count == 0;
    if (!read_number(r, UINT32_MAX, &delta) || !read_number(r, UINT32_MAX, &count) ||
        (!is_first && delta == 0) || (is_first && count == 0))
        return SEL_EFORMAT;
    *ordinal += delta;
    if (*ordinal >= run->state.run_count)
        return SEL_EFORMAT;
    if (count == 0)
        return add_lineage(run, (uint32_t)*ordinal, run->lineage[run->lineage_count - 1].failed);
    int code = read_failed(r, (uint32_t)count, run->state.run_count, &failed);
    if (code == 0)
        code = add_lineage(run, (uint32_t)*ordinal, failed);
    failed_unref(failed);
    return code;
}

int sel_hub_take_lineage(struct sel_flow_run *run, struct sel_str bytes)
{
    struct lineage_reader r = {.p = (const uint8_t *)bytes.p, .n = bytes.n};
    uint64_t count, ordinal = 0;
    if (!read_number(&r, UINT32_MAX, &count))
        return SEL_EFORMAT;
    for (uint64_t i = 0; i < count; i++) { /* each takes bytes, or ends it */
        int code = read_lineage(run, &r, &ordinal);
        if (code < 0)
            return code;
    }
    return r.pos == bytes.n ? 0 : SEL_EFORMAT;
}
