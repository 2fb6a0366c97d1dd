/* What people ask: see docs/operations.md, "Questions". Each answer is one value. */
#include "broker/query.h"

#include <inttypes.h>
#include <stdio.h>

#define LIST_MAX 10000u /* entries of an answer */
#define ARENA_MAX ((size_t)32 << 20)

void sel_broker_put_u64(struct sel_value_builder *map, const char *key, uint64_t value)
{
    sel_value_put_c(map, key, sel_value_from_u64(value));
}

void sel_broker_put_bool(struct sel_value_builder *map, const char *key, bool value)
{
    sel_value_put_c(map, key, sel_value_from_bool(value));
}

void sel_broker_put_text(struct sel_value_builder *map, struct sel_arena *arena, const char *key,
                         const char *text)
{
    const char *copy = sel_arena_strdup(arena, sel_str_c(text ? text : ""));
    map->failed |= !copy;
    sel_value_put_c(map, key, sel_value_from_c(copy));
}

void sel_broker_put_id(struct sel_value_builder *map, struct sel_arena *arena, const char *key,
                       struct sel_id id)
{
    char text[SEL_ID_TEXT_SIZE];
    sel_broker_put_text(map, arena, key, sel_id_format(id, text));
}

static void put_times(struct sel_value_builder *map, struct sel_arena *arena, const char *key,
                      const struct sel_histogram *h)
{
    struct sel_value_builder times;
    struct sel_value value = sel_value_null;
    sel_value_begin_map(&times, arena);
    sel_broker_put_u64(&times, "count", h->count);
    sel_broker_put_u64(&times, "p50_us", (uint64_t)sel_histogram_quantile(h, 0.5));
    sel_broker_put_u64(&times, "p99_us", (uint64_t)sel_histogram_quantile(h, 0.99));
    sel_broker_put_u64(&times, "max_us", (uint64_t)h->max);
    map->failed |= sel_value_end(&times, &value) < 0;
    sel_value_put_c(map, key, value);
}

/* ---- the questions ---- */

static int on_status(struct sel_broker_question *query)
{
    struct sel_broker_stats s;
    struct sel_value_builder map;
    sel_broker_get_stats(query->b, &s);
    sel_value_begin_map(&map, query->arena);
    sel_broker_put_id(&map, query->arena, "broker", query->b->id);
    sel_broker_put_u64(&map, "incarnation", s.incarnation);
    sel_broker_put_u64(&map, "shard", query->b->options.shard);
    sel_broker_put_bool(&map, "draining", s.is_draining);
    sel_broker_put_bool(&map, "full", s.is_full);
    sel_broker_put_bool(&map, "recovering", s.is_recovering);
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"sessions", s.sessions},
        {"workers", s.workers},
        {"producers", s.producers},
        {"queues", s.queues},
        {"tasks", s.tasks},
        {"queued", s.queued},
        {"waiting", s.waiting},
        {"delivered", s.delivered},
        {"ended", s.ended},
        {"submitted", s.submitted},
        {"duplicates", s.duplicates},
        {"refused", s.refused},
        {"started", s.started},
        {"finished", s.finished},
        {"failed", s.failed},
        {"retried", s.retried},
        {"cancelled", s.cancelled},
        {"put_back", s.put_back},
        {"lost", s.lost},
        {"results_dropped", s.results_dropped},
        {"frames_in", s.frames_in},
        {"frames_out", s.frames_out},
        {"bytes_in", s.bytes_in},
        {"bytes_out", s.bytes_out},
        {"records_in", s.records_in},
        {"records_out", s.records_out},
        {"errors_sent", s.errors_sent},
        {"memory_used", s.memory_used},
        {"memory_max", s.memory_max},
        {"commits", s.commits},
        {"commit_bytes", s.commit_bytes},
        {"commit_failures", s.commit_failures},
        {"journal_bytes", query->b->log.journal_bytes},
        {"journal_backlog", query->b->log.backlog_bytes},
        {"journal_first", query->b->log.first_seq},
        {"journal_last", query->b->log.committed},
    };
    for (size_t i = 0; i < SEL_COUNT(numbers); i++)
        sel_broker_put_u64(&map, numbers[i].name, numbers[i].value);
    put_times(&map, query->arena, "commit", &s.commit_us);
    put_times(&map, query->arena, "queue", &s.queue_us);
    return sel_value_end(&map, query->body);
}

static int on_queues(struct sel_broker_question *query)
{
    struct sel_value_builder list;
    sel_value_begin_list(&list, query->arena);
    for (uint32_t i = 0; i < query->b->queue_count && i < LIST_MAX; i++) {
        const struct sel_queue *q = &query->b->queues[i];
        struct sel_value_builder map;
        struct sel_value value = sel_value_null;
        if (q->name.n == 0)
            continue; /* of ends that came without a SUBMIT */
        sel_value_begin_map(&map, query->arena);
        sel_value_put_c(&map, "name", sel_value_from_str(q->name));
        sel_broker_put_bool(&map, "flows", q->kind == SEL_QUEUE_FLOWS);
        sel_broker_put_bool(&map, "subflows", q->kind == SEL_QUEUE_SUBFLOWS);
        sel_broker_put_u64(&map, "depth", q->depth);
        sel_broker_put_u64(&map, "workers", q->workers);
        sel_broker_put_u64(&map, "submitted", q->submitted);
        sel_broker_put_u64(&map, "finished", q->finished);
        sel_broker_put_u64(&map, "failed", q->failed);
        list.failed |= sel_value_end(&map, &value) < 0;
        sel_value_add(&list, value);
    }
    return sel_value_end(&list, query->body);
}

static void put_session(struct sel_broker_question *query, struct sel_value_builder *map,
                        const struct sel_broker_session *s)
{
    int64_t now_us = query->b->now.mono_us;
    char number[20];
    (void)snprintf(number, sizeof(number), "%" PRIx64, s->s.number);
    sel_broker_put_text(map, query->arena, "session", number);
    sel_broker_put_text(map, query->arena, "name", s->name);
    sel_broker_put_text(map, query->arena, "role", s->is_worker ? "worker" : "producer");
    sel_broker_put_bool(map, "connected", s->is_connected);
    sel_broker_put_u64(map, "age_us", (uint64_t)(now_us - s->since_us));
    sel_broker_put_u64(map, "heard_us_ago",
                       (uint64_t)(now_us > s->heard_us ? now_us - s->heard_us : 0));
    sel_broker_put_u64(map, "records_in", s->records_in);
    sel_broker_put_u64(map, "records_out", s->records_out);
    sel_broker_put_u64(map, "unsettled", s->s.out.next - 1 - s->s.out.settled);
    if (!s->is_worker)
        return;
    sel_broker_put_u64(map, "slots", s->slots);
    sel_broker_put_u64(map, "window", s->window);
    sel_broker_put_u64(map, "tasks", s->in_flight);
    sel_broker_put_u64(map, "finished", s->finished);
    sel_broker_put_bool(map, "stalled", s->is_stalled);
    sel_broker_put_bool(map, "ready", s->ready_batch <= query->b->log.committed);
}

static int list_sessions(struct sel_broker_question *query, bool workers_only)
{
    struct sel_value_builder list;
    uint32_t count = 0;
    sel_value_begin_list(&list, query->arena);
    for (uint32_t i = 0; i < query->b->session_count && count < LIST_MAX; i++) {
        const struct sel_broker_session *s = query->b->sessions[i];
        struct sel_value_builder map;
        struct sel_value value = sel_value_null;
        if (!s || (workers_only && !s->is_worker))
            continue;
        sel_value_begin_map(&map, query->arena);
        put_session(query, &map, s);
        list.failed |= sel_value_end(&map, &value) < 0;
        sel_value_add(&list, value);
        count++;
    }
    return sel_value_end(&list, query->body);
}

static int on_workers(struct sel_broker_question *query)
{
    return list_sessions(query, true);
}

static int on_sessions(struct sel_broker_question *query)
{
    return list_sessions(query, false);
}

static const char *const state_names[] = {"free",      "orphan", "held",  "waiting", "queued",
                                          "delivered", "ended",  "alias", "piece"};

static int put_task(struct sel_broker_question *query, uint32_t i)
{
    struct sel_broker *b = query->b;
    const struct sel_task_entry *task = sel_broker_task_at(b, i);
    struct sel_str fields = {NULL, 0}, payload, name;
    struct sel_value_builder map;
    if (task->state == SEL_TASK_ALIAS)
        return put_task(query, task->holder);
    sel_value_begin_map(&map, query->arena);
    sel_broker_put_id(&map, query->arena, "id", task->id);
    sel_broker_put_text(&map, query->arena, "state", state_names[task->state]);
    if (task->state != SEL_TASK_ENDED && sel_broker_task_get_blob(b, i, &fields, &payload) == 0 &&
        (name = sel_broker_task_name(fields)).n) {
        const char *copy = sel_arena_strdup(query->arena, name);
        map.failed |= !copy;
        sel_value_put_c(&map, "task", sel_value_from_c(copy));
    }
    sel_value_put_c(&map, "queue", sel_value_from_str(b->queues[task->queue].name));
    sel_broker_put_u64(&map, "priority", task->priority);
    sel_broker_put_u64(&map, "level", task->level);
    sel_broker_put_u64(&map, "try", task->try_count);
    sel_broker_put_u64(&map, "delivery", task->delivery);
    sel_broker_put_u64(&map, "lost", task->lost);
    if (task->state == SEL_TASK_ENDED)
        sel_broker_put_u64(&map, "code", task->code);
    if (task->state == SEL_TASK_DELIVERED)
        sel_broker_put_text(&map, query->arena, "worker", b->sessions[task->holder]->name);
    if (task->state == SEL_TASK_WAITING)
        sel_broker_put_u64(
            &map, "due_us",
            (uint64_t)(task->at_us > b->now.mono_us ? task->at_us - b->now.mono_us : 0));
    return sel_value_end(&map, query->body);
}

static int on_task(struct sel_broker_question *query)
{
    const struct sel_value *id = sel_value_get(&query->q->args, SEL_STR("id"));
    struct sel_str text = {NULL, 0};
    struct sel_id parsed;
    if (id && sel_value_is(id, SEL_TEXT))
        text = sel_value_str(id);
    if (!sel_id_parse(text, &parsed)) {
        query->text = "task: args {id} needs the text of a UUID";
        return SEL_EREQUEST;
    }
    uint32_t i = sel_broker_task_find(query->b, parsed);
    if (i == SEL_NONE || query->b->queue_count == 0) {
        query->text = "no such task, or its result has been dropped";
        return SEL_ENOTFOUND;
    }
    return put_task(query, i);
}

static int on_drain(struct sel_broker_question *query)
{
    sel_broker_drain(query->b);
    return on_status(query);
}

static int on_resume(struct sel_broker_question *query)
{
    query->b->is_draining = false;
    return on_status(query);
}

static int on_config(struct sel_broker_question *query)
{
    const struct sel_broker_options *o = &query->b->options;
    struct sel_value_builder map;
    sel_value_begin_map(&map, query->arena);
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"shard", o->shard},
        {"lease_us", (uint64_t)o->lease_us},
        {"beat_us", (uint64_t)o->beat_us},
        {"record_max", o->record_max},
        {"level_default", o->level_default},
        {"level_max", o->level_max},
        {"interval_us", (uint64_t)o->interval_us},
        {"memory_max", o->memory_max},
        {"payload_memory", o->payload_memory},
        {"result_max", o->result_max},
        {"result_bytes_max", o->result_bytes_max},
        {"result_ttl_us", (uint64_t)o->result_ttl_us},
        {"poison_max", o->poison_max},
        {"unknown_task_us", (uint64_t)o->unknown_task_us},
        {"session_max", o->session_max},
        {"queue_max", o->queue_max},
        {"window_records", o->window_records},
        {"window_bytes", o->window_bytes},
        {"outbox_bytes_max", o->outbox_bytes_max},
        {"batch_bytes_max", o->batch_bytes_max},
        {"journal_compact_min", o->journal_compact_min},
    };
    for (size_t i = 0; i < SEL_COUNT(numbers); i++)
        sel_broker_put_u64(&map, numbers[i].name, numbers[i].value);
    return sel_value_end(&map, query->body);
}

static const struct {
    const char *what;
    int (*fn)(struct sel_broker_question *query);
} questions[] = {
    {"status", on_status},
    {"queues", on_queues},
    {"workers", on_workers},
    {"sessions", on_sessions},
    {"task", on_task},
    {"drain", on_drain},
    {"resume", on_resume},
    {"config", on_config},
    {"flows", sel_broker_ask_flows},
    {"flow", sel_broker_ask_flow},
    {"flow.runs", sel_broker_ask_flow_runs},
    {"flow.history", sel_broker_ask_flow_history},
    {"flow.nodes", sel_broker_ask_flow_nodes},
};

static int ask(struct sel_broker_question *query)
{
    for (size_t i = 0; i < SEL_COUNT(questions); i++) {
        if (sel_str_eq_c(query->q->what, questions[i].what))
            return questions[i].fn(query);
    }
    query->text = "no such question; there are status, queues, workers, sessions, task, flows, "
                  "flow, flow.runs, flow.history, flow.nodes, drain, resume, config";
    return SEL_EUNSUPPORTED;
}

static uint32_t code_of(int r)
{
    switch (r) {
    case SEL_ENOTFOUND:
        return SEL_CODE_UNKNOWN_TASK;
    case SEL_EUNSUPPORTED:
        return SEL_CODE_UNSUPPORTED;
    case SEL_ENOMEM:
        return SEL_CODE_FULL;
    case SEL_ESTATE:
        return SEL_CODE_ILLEGAL;
    default:
        return SEL_CODE_MALFORMED;
    }
}

void sel_broker_query(struct sel_broker *b, struct sel_str frame, struct sel_broker_now now,
                      struct sel_buf *reply)
{
    struct sel_wire_query q = {0};
    struct sel_value body = sel_value_null;
    struct sel_error err = {0};
    b->now = now;
    int type = sel_wire_message_type(frame, &err);
    if (type == SEL_MESSAGE_ERROR)
        return;
    sel_arena_reset(&b->arena);
    b->arena.limit = ARENA_MAX;
    int r = type < 0 ? type : SEL_EUNSUPPORTED;
    if (type == SEL_MESSAGE_QUERY)
        r = sel_wire_decode_query(&b->arena, frame, &q, &err);
    struct sel_broker_question query = {b, &b->arena, &q, &body, err.text[0] ? err.text : NULL};
    if (r == 0)
        r = ask(&query);
    else if (!query.text)
        query.text = "only QUERY is answered here; peers have another endpoint";
    const struct sel_wire_reply answer = {
        .n = q.n,
        .code = r == 0 ? 0 : code_of(r),
        .text = sel_str_c(r == 0       ? ""
                          : query.text ? query.text
                                       : sel_error_text(r)),
        .body = r == 0 ? body : sel_value_null,
    };
    sel_wire_encode_reply(&answer, reply);
}
