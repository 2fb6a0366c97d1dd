/* Flows in the journal: the mutations PIECE, RUNS and USED, and what DONE says of a run.
 *
 * Layout of what they have beside the header, little-endian:
 *
 *   a run       flow (16), u32 attempt, u32 ordinal, u32 0; DONE of a run: its fields; of a flow:
 * its fields, of a sub-flow, then its name PIECE       fields: flow (16), u32 attempt, u32 number,
 * u32 flags (of a state: 1 the last, 2 the first) RUNS        payload: u32 attempt, u32 first
 * ordinal, u32 count, u16 flags for field 15, u16 1: nobody waits for it, u64 step of the times of
 * the starts, args and parents (16 each: pieces, 0: none), u16 retries, u16 reserved; fields: as of
 * the TASK; sequence: of the first */
#include "broker/flow_log.h"

#include "broker/internal.h"
#include "proto/le.h"

/* ---- runs and pieces as bytes ---- */

void sel_flow_ref_encode(const struct sel_flow_ref *ref, uint8_t p[SEL_FLOW_REF_SIZE])
{
    sel_le_put_id(p, ref->flow);
    sel_le_put32(p + 16, ref->attempt);
    sel_le_put32(p + 20, ref->number);
    sel_le_put32(p + 24, ref->flags);
}

bool sel_flow_ref_decode(struct sel_str bytes, struct sel_flow_ref *ret)
{
    if (bytes.n != SEL_FLOW_REF_SIZE)
        return false;
    *ret = (struct sel_flow_ref){
        .flow = sel_le_get_id(bytes.p),
        .attempt = sel_le_get32(bytes.p + 16),
        .number = sel_le_get32(bytes.p + 20),
        .flags = sel_le_get32(bytes.p + 24),
    };
    return ret->attempt <= UINT16_MAX;
}

bool sel_flow_done_name(const struct sel_mutation *m, struct sel_str *ret_origin,
                        struct sel_str *ret_name)
{
    size_t origin = m->flags & SEL_MUTATION_CHILD ? SEL_FLOW_REF_SIZE
                    : m->key.n                    ? SEL_KEY_DIGEST
                                                  : 0;
    if (m->fields.n < origin)
        return false;
    *ret_origin = (struct sel_str){m->fields.p, origin};
    *ret_name = (struct sel_str){m->fields.p + origin, m->fields.n - origin};
    return true;
}

uint32_t sel_flow_used_at(struct sel_str payload, size_t i)
{
    return sel_le_get32(payload.p + i * 4);
}

enum {
    RUNS_ATTEMPT = 0,
    RUNS_ORDINAL = 4,
    RUNS_COUNT = 8,
    RUNS_FLAGS = 12,
    RUNS_NOWAIT = 14,
    RUNS_STEP = 16,
    RUNS_ARGS = 24,
    RUNS_PARENTS = 40,
    RUNS_RETRIES = 56,
    RUNS_RESERVED = 58,
    RUNS_END = 60,
};

bool sel_flow_runs_decode(const struct sel_mutation *m, struct sel_flow_runs *ret)
{
    const char *p = m->payload.p;
    if (m->payload.n != RUNS_END || m->fields.n == 0 || m->fields.n > SEL_TASK_FIELDS_MAX)
        return false;
    *ret = (struct sel_flow_runs){
        .attempt = sel_le_get32(p + RUNS_ATTEMPT),
        .ordinal = sel_le_get32(p + RUNS_ORDINAL),
        .count = sel_le_get32(p + RUNS_COUNT),
        .run_flags = sel_le_get16(p + RUNS_FLAGS),
        .is_nowait = sel_le_get16(p + RUNS_NOWAIT),
        .step_us = sel_le_get64(p + RUNS_STEP),
        .args = sel_le_get_id(p + RUNS_ARGS),
        .parents = sel_le_get_id(p + RUNS_PARENTS),
        .retries = sel_le_get16(p + RUNS_RETRIES),
    };
    return ret->attempt <= UINT16_MAX && ret->count > 0 &&
           ret->count <= UINT32_MAX - ret->ordinal && ret->step_us <= (uint64_t)SEL_WAIT_US_MAX;
}

size_t sel_flow_runs_share(const struct sel_mutation *m, uint32_t count)
{
    size_t size = sel_mutation_size(m) / count;
    return size > SEL_MUTATION_HEADER ? size - SEL_MUTATION_HEADER : 0;
}

static struct sel_id id_of(const struct sel_broker *b, uint32_t piece)
{
    return piece == SEL_NONE ? (struct sel_id){0, 0} : sel_broker_task_at(b, piece)->id;
}

/* ---- writing ---- */

int sel_broker_log_piece(struct sel_broker *b, const struct sel_flow_try *t, struct sel_id id,
                         enum sel_piece_type type, uint32_t number, uint32_t flags, uint8_t level,
                         struct sel_str bytes, struct sel_log_place *ret)
{
    uint8_t ref[SEL_FLOW_REF_SIZE];
    sel_flow_ref_encode(&(struct sel_flow_ref){t->flow->id, t->attempt, number, flags}, ref);
    struct sel_mutation m = {.type = SEL_MUTATION_PIECE,
                             .level = level,
                             .id = id,
                             .sequence = id.lo,
                             .unix_us = b->now.unix_us,
                             .code = (uint16_t)type,
                             .fields = {(const char *)ref, sizeof(ref)},
                             .payload = bytes};
    return sel_broker_log_put(b, &m, level, ret);
}

/* Runs in the state of the first of them. */
static int log_range(struct sel_broker *b, const struct sel_flow_try *t, uint32_t first,
                     uint32_t count, uint64_t step_us, struct sel_log_place *ret, size_t *ret_share)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, first);
    const struct sel_run_group *group = entry->group;
    bool is_due = step_us > 0 || entry->state == SEL_TASK_WAITING ||
                  (entry->at_us > b->now.mono_us &&
                   (entry->state == SEL_TASK_HELD || entry->state == SEL_TASK_ORPHAN));
    uint8_t p[RUNS_END] = {0};
    sel_le_put32(p + RUNS_ATTEMPT, t->attempt);
    sel_le_put32(p + RUNS_ORDINAL, entry->extra);
    sel_le_put32(p + RUNS_COUNT, count);
    sel_le_put16(p + RUNS_FLAGS, group->run_flags);
    sel_le_put16(p + RUNS_NOWAIT, group->is_nowait);
    sel_le_put64(p + RUNS_STEP, step_us);
    sel_le_put_id(p + RUNS_ARGS, id_of(b, group->args));
    sel_le_put_id(p + RUNS_PARENTS, id_of(b, group->parents));
    sel_le_put16(p + RUNS_RETRIES, entry->fields_size);
    struct sel_mutation m = {
        .type = SEL_MUTATION_RUNS,
        .level = entry->level,
        .priority = entry->priority,
        .id = t->flow->id,
        .sequence = entry->sequence,
        .unix_us = is_due ? b->now.unix_us + (entry->at_us - b->now.mono_us) : 0,
        .try_count = entry->try_count,
        .lost = entry->lost,
        .suspected = entry->suspected,
        .name = b->queues[entry->queue].name,
        .fields = {(const char *)group->fields, group->fields_size},
        .payload = {(const char *)p, sizeof(p)},
    };
    *ret_share = sel_flow_runs_share(&m, count);
    return sel_broker_log_put(b, &m, entry->level, ret);
}

int sel_broker_log_runs(struct sel_broker *b, const struct sel_flow_try *t, const uint32_t *entries,
                        uint32_t count, uint64_t step_us, struct sel_log_place *ret,
                        size_t *ret_share)
{
    return log_range(b, t, entries[0], count, step_us, ret, ret_share);
}

int sel_broker_flow_keep_args(struct sel_broker *b, uint32_t i, bool has_open)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    struct sel_flow *flow = entry->flow;
    bool is_logged = entry->level > SEL_LEVEL_MEMORY;
    struct sel_log_place place;
    if (!has_open || flow->args != SEL_NONE || !flow->current)
        return 0;
    sel_buf_clear(&b->scratch3);
    uint32_t own = flow->current->args;
    flow->current->args = SEL_NONE; /* as submitted */
    int r = sel_broker_put_args(b, flow->current, SEL_NONE, &b->scratch3);
    flow->current->args = own;
    if (r == 0)
        r = sel_buf_error(&b->scratch3);
    struct sel_id id = is_logged ? sel_broker_piece_id(b) : (struct sel_id){0, 0};
    if (r == 0 && is_logged)
        r = sel_broker_log_piece(b, flow->current, id, SEL_PIECE_BLOB, SEL_BLOB_OF_FLOW, 0,
                                 entry->level, sel_buf_str(&b->scratch3), &place);
    if (r < 0)
        return r;
    flow->args = sel_broker_piece_new(b, id, SEL_PIECE_BLOB, entry->level,
                                      sel_buf_str(&b->scratch3), is_logged ? &place : NULL);
    return flow->args == SEL_NONE ? SEL_ENOMEM : 0;
}

/* ---- compaction ---- */

static bool is_open_there(const struct sel_broker *b, uint32_t i, uint64_t seq)
{
    const struct sel_task_entry *entry = i == SEL_NONE ? NULL : sel_broker_task_at(b, i);
    return entry && entry->kind == SEL_KIND_RUN && entry->state != SEL_TASK_ENDED &&
           entry->log_seq == seq;
}

/* Whether `entry` can be told together with the one before it. */
static bool goes_with(const struct sel_task_entry *before, const struct sel_task_entry *entry)
{
    return entry->group == before->group && entry->sequence == before->sequence + 1 &&
           entry->try_count == before->try_count && entry->lost == before->lost &&
           entry->suspected == before->suspected && entry->fields_size == before->fields_size &&
           entry->state != SEL_TASK_WAITING && before->state != SEL_TASK_WAITING &&
           entry->state != SEL_TASK_HELD && before->state != SEL_TASK_HELD;
}

int sel_broker_copy_runs(struct sel_broker *b, const struct sel_mutation *m, uint64_t seq)
{
    struct sel_flow_runs runs;
    if (!sel_flow_runs_decode(m, &runs))
        return SEL_EFORMAT;
    for (uint32_t k = 0; k < runs.count;) {
        uint32_t first =
            sel_broker_task_find(b, sel_wire_run_id(m->id, runs.attempt, runs.ordinal + k));
        if (!is_open_there(b, first, seq)) {
            k++;
            continue;
        }
        uint32_t last = first, count = 1;
        while (k + count < runs.count) {
            uint32_t i = sel_broker_task_find(
                b, sel_wire_run_id(m->id, runs.attempt, runs.ordinal + k + count));
            if (!is_open_there(b, i, seq) ||
                !goes_with(sel_broker_task_at(b, last), sel_broker_task_at(b, i)))
                break;
            last = i;
            count++;
        }
        struct sel_log_place place;
        size_t share;
        int r =
            log_range(b, sel_broker_task_at(b, first)->attempt, first, count, 0, &place, &share);
        if (r < 0)
            return r;
        for (uint32_t n = 0; n < count; n++) {
            uint32_t i =
                sel_broker_task_find(b, sel_wire_run_id(m->id, runs.attempt, runs.ordinal + k + n));
            sel_broker_log_move(b, i, place, share);
        }
        k += count;
    }
    return 0;
}
