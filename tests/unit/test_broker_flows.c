/* The core with flows: a dispatcher by hand, whose flows do as many rounds of tasks as their name
 * says. What it knows of a flow it has from the broker alone. */
#include "broker/internal.h"
#include "proto/decision.h"
#include "proto/nodes.h"
#include "tests/support/broker_world.h"

#define FLOWS_MAX 2048u
#define PARENTS "\x92\x01\x02"

/* ---- a dispatcher ----
 *
 * A flow is a chain of `steps` runs; its name is a letter and that number:
 *   c  a chain      n  a chain whose runs nobody waits for, that ends at once
 *   r  a chain that begins anew once      s  a chain of sub-flows "c1"
 *   w  one decision starts all, it ends when they have
 *   t  the same, throttled to one in 100 ms
 * Events: a byte for each end that was used, and one for each run that was started. */
struct mine {
    bool is_used, is_live;
    struct sel_wire_item item; /* handle, try, delivery */
    char kind;
    uint32_t steps, number, started, ended;
    uint32_t failed_texts; /* told, of runs that have failed */
    uint32_t waiting[FLOWS_MAX];
    uint32_t waiting_count;
};

struct world_flows {
    struct world w; /* first */
    struct mine flows[FLOWS_MAX];
    uint32_t taken, histories, cancels;
    uint32_t failed_texts; /* of all */
    uint32_t state_every;  /* decisions; 0: never */
    uint32_t skips;        /* so many decisions have a wrong number */
    char skips_kind;       /* those of flows of this kind */
    bool is_mute;
    size_t ballast; /* of events */
    uint32_t nodes; /* that each flow says it had, at its end; 0: it says nothing of that */
};

static struct mine *find(struct world_flows *f, struct sel_id id)
{
    for (uint32_t i = 0; i < FLOWS_MAX; i++) {
        if (f->flows[i].is_used && sel_id_eq(f->flows[i].item.id, id))
            return &f->flows[i];
    }
    return NULL;
}

static struct mine *free_one(struct world_flows *f)
{
    for (uint32_t i = 0; i < FLOWS_MAX; i++) {
        if (!f->flows[i].is_used)
            return &f->flows[i];
    }
    fail_msg("too many flows");
    return f->flows;
}

static void put(struct world_flows *f, const struct mine *m, uint8_t type, uint32_t code,
                struct sel_str payload)
{
    do {
        bool more = payload.n > SEL_DECISION_PIECE;
        struct sel_wire_item item = {
            .type = type,
            .flags = more ? SEL_ITEM_MORE : 0,
            .id = m->item.id,
            .priority = SEL_WIRE_PRIORITY,
            .code = code,
            .handle = m->item.handle,
            .try_count = m->item.try_count,
            .delivery = m->item.delivery,
            .payload = {payload.p, more ? SEL_DECISION_PIECE : payload.n},
        };
        assert_int_equal(sel_holder_put_flow(f->w.worker, &item), 0);
        payload = (struct sel_str){payload.p + item.payload.n, payload.n - item.payload.n};
    } while (payload.n);
}

static void add_start(struct sel_decision_writer *w, const struct mine *m, uint32_t ordinal,
                      uint16_t queue)
{
    struct sel_buf fields = {0};
    bool is_flow = m->kind == 's';
    sel_wire_put_field(&fields, SEL_FIELD_TASK, is_flow ? SEL_STR("c1") : SEL_STR("Noop"));
    struct sel_decision_start start = {
        .ordinal = ordinal,
        .count = 1,
        .queue = queue,
        .flags = is_flow          ? SEL_START_FLOW
                 : m->kind == 'n' ? SEL_START_NOWAIT
                                  : 0,
        .parents = 1,
        .throttle_us = m->kind == 't' ? 100000 : 0,
        .fields = sel_buf_str(&fields),
    };
    if (is_flow)
        start.child = (struct sel_id){m->item.id.hi + 1000, m->item.id.lo * 100 + ordinal};
    sel_decision_add_start(w, &start);
    sel_buf_done(&fields);
}

static uint32_t start_count(const struct mine *m)
{
    bool at_once = m->kind == 'w' || m->kind == 't' || m->kind == 'n';
    if (at_once)
        return m->started ? 0 : m->steps;
    return m->started < m->steps && m->ended == m->started;
}

static bool is_over(const struct mine *m)
{
    return m->kind == 'n' || m->ended == m->steps;
}

/* Pages: of all nodes but two, which have failed and are active. */
static void put_nodes(const struct world_flows *f, struct sel_buf *events)
{
    struct sel_nodes_writer w = {0};
    struct sel_nodes_run run = {.state = SEL_NODES_ACTIVE, .name = SEL_STR("Noop")};
    sel_buf_clear(events);
    for (run.ordinal = 0; run.ordinal < f->nodes; run.ordinal++) {
        bool is_last = run.ordinal == f->nodes - 1;
        sel_nodes_add(&w, &run, 0);
        run.state = is_last || run.ordinal == f->nodes - 2 ? SEL_NODES_FAILED : SEL_NODES_FINISHED;
    }
    assert_int_equal(sel_nodes_writer_end(&w, 0, events), 0);
    sel_nodes_writer_done(&w);
}

/* What follows from the ends that it has heard of: one decision for all of them. */
static void decide(struct world_flows *f, struct mine *m)
{
    struct sel_decision_writer w = {0};
    struct sel_buf events = {0}, out = {0};
    uint16_t queue;
    assert_int_equal(sel_holder_queue_number(f->w.worker, QUEUE, &queue), 0);
    (void)sel_decision_add_blob(&w, SEL_STR(PARENTS));
    for (uint32_t i = 0; i < m->waiting_count; i++) {
        sel_decision_add_consumed(&w, m->waiting[i]);
        sel_buf_put_u8(&events, 'e');
        m->ended++;
    }
    m->waiting_count = 0;
    for (uint32_t n = start_count(m); n; n--) {
        add_start(&w, m, m->started++, queue);
        sel_buf_put_u8(&events, 's');
    }
    for (size_t i = 0; i < f->ballast; i++)
        sel_buf_put_u8(&events, '.');
    if (f->nodes && is_over(m))
        put_nodes(f, &events);
    bool skips = f->skips > 0 && m->kind == f->skips_kind;
    f->skips -= skips;
    struct sel_decision end = {
        .number = ++m->number + skips, .is_end = is_over(m), .events = sel_buf_str(&events)};
    if (end.is_end && m->kind == 'r' && m->item.try_count == 0) {
        end.outcome = SEL_OUTCOME_RETRY;
        end.countdown_us = 50000;
    } else if (end.is_end) {
        end.result = SEL_STR("\xa4over");
    }
    assert_int_equal(sel_decision_writer_end(&w, &end, &out), 0);
    put(f, m, SEL_RECORD_DECIDE, 0, sel_buf_str(&out));
    if (f->state_every && m->number % f->state_every == 0 && !end.is_end) {
        sel_buf_clear(&out);
        for (uint32_t i = 0; i < m->started; i++)
            sel_buf_put_u8(&out, 's');
        for (uint32_t i = 0; i < m->ended; i++)
            sel_buf_put_u8(&out, 'e');
        for (size_t i = 0; i < f->ballast; i++)
            sel_buf_put_u8(&out, '.');
        put(f, m, SEL_RECORD_STATE, m->number, sel_buf_str(&out));
    }
    if (end.is_end)
        m->is_used = false;
    sel_decision_writer_done(&w);
    sel_buf_done(&events);
    sel_buf_done(&out);
}

static void take_flow(struct world_flows *f, const struct sel_wire_item *item)
{
    struct mine *m = free_one(f);
    memset(m, 0, offsetof(struct mine, waiting));
    m->waiting_count = 0;
    m->is_used = true;
    m->item = *item;
    m->kind = item->task.p[0];
    for (size_t i = 1; i < item->task.n; i++)
        m->steps = m->steps * 10 + (uint32_t)(item->task.p[i] - '0');
    f->taken++;
    if (item->flags & SEL_ITEM_HISTORY) {
        f->histories++;
        return;
    }
    assert_int_equal(item->payload.n, sel_wire_find_field(item->fields, SEL_FIELD_RUN).n
                                          ? 6 + sizeof(PARENTS) - 1
                                          : 6);
    m->is_live = true;
    decide(f, m);
}

static void apply(struct mine *m, const struct sel_wire_item *item)
{
    for (size_t i = 0; i < item->payload.n; i++) {
        m->started += item->payload.p[i] == 's';
        m->ended += item->payload.p[i] == 'e';
    }
}

static void on_flow(void *ctx, const struct sel_wire_item *item)
{
    struct world_flows *f = ctx;
    struct mine *m = find(f, item->id);
    if (f->is_mute)
        return;
    switch (item->type) {
    case SEL_RECORD_TASK:
        if (m) /* an epoch before */
            m->is_used = false;
        take_flow(f, item);
        return;
    case SEL_RECORD_EVENTS:
    case SEL_RECORD_STATE:
        apply(m, item);
        if (!(item->flags & SEL_ITEM_MORE))
            m->number = item->code;
        return;
    case SEL_RECORD_ENDED:
        assert_non_null(m);
        m->failed_texts += item->payload.n > 0;
        f->failed_texts += item->payload.n > 0;
        if (item->flags & SEL_ITEM_CONSUMED)
            return;
        m->waiting[m->waiting_count++] = (uint32_t)item->handle;
        if (m->is_live)
            decide(f, m);
        return;
    case SEL_RECORD_LIVE:
        assert_int_equal(item->code, m->number);
        m->is_live = true;
        if (m->waiting_count)
            decide(f, m);
        return;
    default:
        f->cancels++;
        if (m)
            m->is_used = false;
        return;
    }
}

static void on_lost(void *ctx)
{
    struct world_flows *f = ctx;
    for (uint32_t i = 0; i < FLOWS_MAX; i++)
        f->flows[i].is_used = false;
}

static const struct sel_holder_ops flow_ops = {.flow = on_flow, .flows_lost = on_lost};

static struct world_flows *flows_new(bool has_journal)
{
    struct world_flows *f = sel_mem_zalloc(sizeof(*f));
    assert_non_null(f);
    world_init(&f->w, has_journal);
    f->w.worker_ops = &flow_ops;
    f->w.flows = 100;
    start_worker(&f->w, 100);
    return f;
}

static void flows_done(struct world_flows *f)
{
    world_done(&f->w);
    (void)sel_mem_free(f);
}

static void run_flow(struct world_flows *f, uint64_t n, const char *name, uint8_t level,
                     uint16_t flags)
{
    struct sel_wire_item item = submit_item(&f->w, n, level);
    item.flags = (uint16_t)(SEL_ITEM_FLOW | flags);
    item.task = sel_str_c(name);
    assert_int_equal(sel_producer_submit(f->w.producer, &item, NULL, true), 0);
}

/* Lets everything happen, tasks included; how many tasks were begun. */
static uint32_t go_on(struct world_flows *f, int rounds)
{
    uint32_t count = 0;
    for (int i = 0; i < rounds; i++) {
        run(&f->w, 2000);
        if (f->w.worker)
            count += work(&f->w, 1000, SEL_OUTCOME_SUCCESS);
    }
    return count;
}

/* Peers notice a new broker after some beats of silence. How many tasks were begun. */
static uint32_t go_on_until(struct world_flows *f, uint32_t finished)
{
    uint32_t count = 0;
    for (int i = 0; i < 20000 && f->w.finished < finished; i++)
        count += go_on(f, 1);
    assert_int_equal(f->w.finished, finished);
    return count + go_on(f, 20);
}

static void restart_broker(struct world_flows *f)
{
    stop_broker(&f->w);
    start_broker(&f->w);
}

/* Nothing is left but results. */
static void assert_clean(struct world_flows *f, uint64_t results)
{
    struct sel_broker_stats stats = stats_of(&f->w);
    assert_int_equal(stats.tasks, results);
    assert_int_equal(stats.ended, results);
}

/* ---- tests ---- */

static void test_a_chain_runs_to_its_end_at_every_level(void **state)
{
    (void)state;
    for (uint8_t level = SEL_LEVEL_MEMORY; level <= SEL_LEVEL_COMMIT; level++) {
        struct world_flows *f = flows_new(true);
        run_flow(f, 1, "c5", level, 0);
        assert_int_equal(go_on(f, 40), 5);
        assert_int_equal(f->w.finished, 1);
        assert_string_equal(f->w.last_payload, "\xa4over");
        assert_clean(f, 1);
        flows_done(f);
    }
}

static void test_sub_flows_are_runs_of_their_parent(void **state)
{
    (void)state;
    struct world_flows *f = flows_new(true);
    run_flow(f, 1, "s3", SEL_LEVEL_COMMIT, 0);
    assert_int_equal(go_on(f, 60), 3);
    assert_int_equal(f->w.finished, 1);
    assert_int_equal(f->taken, 4);
    assert_clean(f, 4); /* theirs are kept as the root's is */
    flows_done(f);
}

static void test_a_flow_that_is_retried_begins_anew(void **state)
{
    (void)state;
    struct world_flows *f = flows_new(true);
    run_flow(f, 1, "r2", SEL_LEVEL_COMMIT, 0);
    assert_int_equal(go_on(f, 20), 2);
    assert_int_equal(f->w.finished, 0);
    assert_int_equal(go_on(f, 60), 2); /* after 50 ms */
    assert_int_equal(f->w.finished, 1);
    assert_int_equal(f->taken, 2);
    assert_int_equal(f->histories, 0);
    assert_clean(f, 1);
    flows_done(f);
}

static void test_detached_work_is_waited_for_by_who_wants_that(void **state)
{
    (void)state;
    for (int journal = 0; journal < 2; journal++) {
        struct world_flows *f = flows_new(journal);
        run_flow(f, 1, "n3", SEL_LEVEL_DEFAULT, SEL_ITEM_ALL);
        run_flow(f, 2, "n3", SEL_LEVEL_DEFAULT, 0);
        run(&f->w, 30000);
        assert_int_equal(f->w.finished, 1); /* that of 2 */
        assert_int_equal(go_on(f, 20), 6);
        assert_int_equal(f->w.finished, 2);
        assert_clean(f, 2);
        flows_done(f);
    }
}

static void test_detached_runs_find_their_arguments_after_a_restart(void **state)
{
    (void)state;
    struct world_flows *f = flows_new(true);
    run_flow(f, 1, "n3", SEL_LEVEL_COMMIT, SEL_ITEM_ALL);
    run(&f->w, 30000);
    restart_broker(f);
    run(&f->w, 30000000); /* over the lease of the lost session */
    uint32_t count = 0;
    for (struct sel_held_task *task; (task = sel_holder_begin(f->w.worker)); count++) {
        struct sel_wire_run field;
        assert_true(sel_wire_find_run(task->item.fields, &field));
        assert_int_equal(field.parents_size, sizeof(PARENTS) - 1);
        assert_memory_equal(task->item.payload.p, "\xa5hello" PARENTS, 6 + sizeof(PARENTS) - 1);
        assert_int_equal(sel_holder_end(f->w.worker, task, SEL_OUTCOME_SUCCESS, 0, SEL_STR("")), 0);
    }
    run(&f->w, 1000000);
    assert_int_equal(f->w.finished, 1);
    assert_clean(f, 1);
    flows_done(f);
    assert_int_equal(count, 3);
}

static void test_throttled_starts_lie_apart(void **state)
{
    (void)state;
    struct world_flows *f = flows_new(true);
    run_flow(f, 1, "t3", SEL_LEVEL_COMMIT, 0);
    run_flow(f, 2, "t2", SEL_LEVEL_COMMIT, 0);
    assert_int_equal(go_on(f, 20), 1); /* 40 ms */
    assert_int_equal(go_on(f, 45), 1); /* 130 ms */
    restart_broker(f);
    assert_int_equal(go_on_until(f, 2), 3);
    assert_clean(f, 2);
    flows_done(f);
}

static void test_failures_are_told_again_to_who_takes_over(void **state)
{
    (void)state;
    struct world_flows *f = flows_new(true);
    run_flow(f, 1, "c3", SEL_LEVEL_COMMIT, 0);
    run(&f->w, 20000);
    assert_int_equal(work(&f->w, 1, SEL_OUTCOME_FAILURE), 1);
    run(&f->w, 20000);
    struct mine *m = find(f, (struct sel_id){77, 1});
    assert_non_null(m);
    assert_int_equal(m->failed_texts, 1);
    restart_broker(f);
    (void)go_on_until(f, 1);
    assert_int_equal(f->histories, 1);
    assert_clean(f, 1);
    flows_done(f);
}

/* A cut after every write, with or without the worker. */
static void test_a_broker_that_dies_anywhere_loses_nothing(void **state)
{
    (void)state;
    static const char *const names[] = {"c4", "w5", "s2", "r2", "n2"};
    for (uint64_t cut = 1; cut < 40; cut++) {
        struct world_flows *f = flows_new(true);
        f->state_every = cut % 2 ? 2 : 0;
        for (uint64_t n = 0; n < SEL_COUNT(names); n++)
            run_flow(f, n + 1, names[n], SEL_LEVEL_COMMIT, SEL_ITEM_ALL);
        bool was_cut = false;
        for (int i = 0; i < 20000 && f->w.finished < SEL_COUNT(names); i++) {
            (void)go_on(f, 1);
            if (!was_cut && sel_journal_disk_writes(f->w.disk) >= cut) {
                was_cut = true;
                stop_broker(&f->w);
                sel_journal_disk_cut(f->w.disk);
                start_broker(&f->w);
                if (cut % 3 == 0) {
                    f->w.worker = sel_holder_free(f->w.worker);
                    on_lost(f);
                    start_worker(&f->w, 100);
                }
            }
        }
        assert_int_equal(f->w.finished, SEL_COUNT(names));
        (void)go_on(f, 20);
        assert_clean(f, SEL_COUNT(names) + 2); /* the sub-flows of s2 */
        flows_done(f);
    }
}

static void test_a_dispatcher_that_dies_is_followed_by_another(void **state)
{
    (void)state;
    for (int journal = 0; journal < 2; journal++) {
        struct world_flows *f = flows_new(journal);
        f->state_every = 3;
        run_flow(f, 1, "c9", SEL_LEVEL_DEFAULT, 0);
        (void)go_on(f, 10);
        assert_int_equal(f->w.finished, 0);
        f->w.worker = sel_holder_free(f->w.worker);
        on_lost(f);
        start_worker(&f->w, 100);
        (void)go_on_until(f, 1);
        assert_int_equal(f->histories, 1);
        assert_clean(f, 1);
        flows_done(f);
    }
}

static void test_a_decision_of_pieces_is_one(void **state)
{
    (void)state;
    struct world_flows *f = flows_new(true);
    f->ballast = 3 * SEL_DECISION_PIECE + 5;
    f->state_every = 2;
    run_flow(f, 1, "c20", SEL_LEVEL_COMMIT, 0);
    (void)go_on(f, 12);
    restart_broker(f);
    (void)go_on_until(f, 1);
    assert_int_equal(f->histories, 1);
    flows_done(f);
}

static struct world_flows *erring(uint32_t times, char kind)
{
    struct world_flows *f = flows_new(true);
    f->skips = times;
    f->skips_kind = kind;
    return f;
}

static void test_a_dispatcher_that_errs_loses_its_flow(void **state)
{
    (void)state;
    struct world_flows *f = erring(3, 'c');
    run_flow(f, 1, "c2", SEL_LEVEL_COMMIT, 0);
    (void)go_on(f, 30);
    assert_int_equal(f->taken, 3); /* poison_max */
    assert_int_equal(f->w.finished, 1);
    assert_int_equal(f->w.last_code, SEL_OUTCOME_FAILURE);
    assert_non_null(strstr(f->w.last_payload, "DispatcherLost"));
    assert_non_null(strstr(f->w.last_payload,
                           "'c2' was given up: 3 workers could not decide it, and what the last "
                           "one decided was refused by the broker: a gap in the numbers"));
    assert_int_equal(f->cancels, 3);
    assert_clean(f, 1);
    flows_done(f);
}

static void test_a_flow_whose_decision_was_refused_goes_on_elsewhere(void **state)
{
    (void)state;
    for (uint32_t times = 1; times < 3; times++) {
        struct world_flows *f = erring(times, 'c');
        run_flow(f, 1, "c3", SEL_LEVEL_COMMIT, 0);
        (void)go_on_until(f, 1);
        assert_int_equal(f->w.last_code, SEL_OUTCOME_SUCCESS);
        assert_int_equal(f->taken, 1 + times);
        assert_int_equal(f->cancels, times);
        assert_clean(f, 1);
        flows_done(f);
    }
}

/* Its dispatcher dies of it, or before it hears so. */
static void test_a_refusal_that_nobody_hears_takes_the_flow_away_too(void **state)
{
    (void)state;
    struct world_flows *f = erring(1, 'c');
    run_flow(f, 1, "c3", SEL_LEVEL_COMMIT, 0);
    for (int i = 0; i < 100 && f->skips > 0; i++)
        run(&f->w, 200);
    assert_int_equal(f->skips, 0); /* said, or about to be */
    f->is_mute = true;
    run(&f->w, 2000);
    assert_int_equal(f->cancels, 0);
    f->w.worker = sel_holder_free(f->w.worker);
    on_lost(f);
    f->is_mute = false;
    start_worker(&f->w, 100);
    (void)go_on_until(f, 1);
    assert_int_equal(f->w.last_code, SEL_OUTCOME_SUCCESS);
    assert_clean(f, 1);
    flows_done(f);
}

static void test_a_sub_flow_that_is_given_up_has_failed(void **state)
{
    (void)state;
    struct world_flows *f = erring(3, 'c');
    run_flow(f, 1, "s1", SEL_LEVEL_COMMIT, 0);
    (void)go_on_until(f, 1);
    assert_int_equal(f->taken, 4);
    assert_int_equal(f->cancels, 3);
    assert_int_equal(f->failed_texts, 1);
    flows_done(f);
}

static void test_runs_are_nobodys_to_ask_for(void **state)
{
    (void)state;
    struct world_flows *f = flows_new(true);
    run_flow(f, 1, "c1", SEL_LEVEL_COMMIT, 0);
    run(&f->w, 20000);
    struct sel_wire_item item = submit_item(&f->w, 5, SEL_LEVEL_COMMIT);
    item.id = sel_wire_run_id((struct sel_id){77, 1}, 0, 0);
    assert_int_equal(sel_producer_submit(f->w.producer, &item, NULL, true), 0);
    run(&f->w, 20000);
    assert_int_equal(f->w.refused, 1);
    (void)go_on_until(f, 2);
    assert_clean(f, 1);
    flows_done(f);
}

static void test_flows_that_nobody_decides_wait(void **state)
{
    (void)state;
    struct world_flows *f = flows_new(true);
    f->w.worker = sel_holder_free(f->w.worker);
    f->w.flows = 0;
    start_worker(&f->w, 100);
    run_flow(f, 1, "c1", SEL_LEVEL_COMMIT, 0);
    run(&f->w, 20000000);
    assert_int_equal(f->taken, 0);
    assert_int_equal(stats_of(&f->w).queued, 1);
    flows_done(f);
}

/* What is needed of old batches is copied: nothing of flows may be forgotten on the way. */
static void test_a_journal_is_compacted_around_flows(void **state)
{
    (void)state;
    struct world_flows *f = sel_mem_zalloc(sizeof(*f));
    assert_non_null(f);
    f->w = (struct world){.now_us = 1000000, .worker_ops = &flow_ops, .flows = 100};
    f->w.options.journal_compact_min = 20000;
    f->w.options.lease_us = 1000000;
    f->w.options.result_max = 10;
    f->w.disk = sel_journal_disk_new(1);
    f->state_every = 7;
    start_broker(&f->w);
    start_producer(&f->w);
    start_worker(&f->w, 8);
    run_flow(f, 1, "c60", SEL_LEVEL_COMMIT, SEL_ITEM_ALL);
    run_flow(f, 2, "w40", SEL_LEVEL_COMMIT, SEL_ITEM_ALL);
    run_flow(f, 3, "n40", SEL_LEVEL_COMMIT, SEL_ITEM_ALL);
    run_flow(f, 4, "s20", SEL_LEVEL_COMMIT, SEL_ITEM_ALL);
    uint32_t flows = 0;
    for (uint64_t i = 0; i < 2000 && flows < 4; i++) {
        submit(&f->w, 1000 + i, 1, SEL_LEVEL_COMMIT);
        run(&f->w, 2000);
        flows += f->w.last_payload[0] == '\xa4'; /* one at a time, if any */
        f->w.last_payload[0] = 0;
        if (i % 3 == 0)
            (void)work(&f->w, 2, SEL_OUTCOME_SUCCESS);
        if (i % 150 == 149) {
            restart_broker(f);
            run(&f->w, 1500000);
        }
    }
    for (int i = 0; i < 20000 && stats_of(&f->w).tasks > stats_of(&f->w).ended; i++)
        (void)go_on(f, 1);
    assert_true(f->histories > 3);
    struct sel_journal_stats stats;
    f->w.journal->ops->stats(f->w.journal, &stats);
    assert_true(stats.first > stats.last / 2); /* old batches have gone */
    struct sel_broker_stats now = stats_of(&f->w);
    assert_int_equal(now.tasks, now.ended);
    flows_done(f);
}

static void test_a_broker_without_memory_takes_a_decision_whole_or_not(void **state)
{
    (void)state;
    for (int64_t fail_at = 1; fail_at < 60; fail_at++) {
        for (int journal = 0; journal < 2; journal++) {
            struct world_flows *f = flows_new(journal);
            run(&f->w, 5000);
            run_flow(f, 1, "w5", SEL_LEVEL_DEFAULT, 0);
            run_flow(f, 2, "s2", SEL_LEVEL_DEFAULT, 0);
            f->w.fail_at = fail_at;
            run(&f->w, 20000);
            f->w.fail_at = 0;
            (void)go_on_until(f, 2);
            flows_done(f);
        }
    }
}

#define FIRST "00000000-0000-004d-0000-000000000001"

/* One answer, as JSON. */
static const char *ask(struct world_flows *f, struct sel_arena *arena, const char *what,
                       const char *args)
{
    struct sel_wire_query query = {.n = 1, .what = sel_str_c(what)};
    struct sel_buf frame = {0}, reply = {0};
    struct sel_wire_reply answer;
    query.args = sel_test_json(arena, args);
    sel_wire_encode_query(&query, &frame);
    sel_broker_query(f->w.broker, sel_buf_str(&frame), now_of(&f->w), &reply);
    const char *copy = sel_arena_memdup(arena, reply.p, reply.n);
    assert_int_equal(sel_wire_decode_reply(arena, (struct sel_str){copy, reply.n}, &answer, NULL),
                     0);
    copy = answer.code ? sel_arena_strdup(arena, answer.text)
                       : sel_test_json_text(arena, &answer.body);
    sel_buf_done(&frame);
    sel_buf_done(&reply);
    return copy;
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' is not in %s", part, text);
}

/* A number of an answer's text; 0: it is not there. */
static unsigned long number_after(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    return at ? strtoul(at + strlen(key), NULL, 10) : 0;
}

static void test_large_events_are_told_in_slices(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    for (int in_journal = 0; in_journal < 2; in_journal++) {
        struct world_flows *f = sel_mem_zalloc(sizeof(*f));
        assert_non_null(f);
        f->w = (struct world){.now_us = 1000000, .worker_ops = &flow_ops, .flows = 100};
        f->w.options.payload_memory = in_journal ? 1 : 100 << 20;
        f->w.disk = sel_journal_disk_new(1);
        start_broker(&f->w);
        start_producer(&f->w);
        start_worker(&f->w, 100);
        f->ballast = 5 << 20;
        run_flow(f, 1, "w3", SEL_LEVEL_COMMIT, 0);
        run(&f->w, 30000);
        unsigned long offset = 0;
        for (int i = 0; i < 3; i++) {
            const char *args =
                sel_arena_printf(&arena, "{\"id\": \"" FIRST "\", \"offset\": %lu}", offset);
            const char *text = ask(f, &arena, "flow.history", args);
            assert_has(text, "\"number\":1");
            assert_int_equal(number_after(text, "\"size\":"), (5 << 20) + 3);
            assert_int_equal(strstr(text, "\"next\":0") != NULL, i < 2);
            offset = number_after(text, "\"offset\":");
            assert_int_equal(offset, i < 2 ? (i + 1) * (2 << 20) : 0);
        }
        flows_done(f);
        sel_arena_reset(&arena);
    }
    sel_arena_done(&arena);
}

static void test_flows_are_told_of(void **state)
{
    (void)state;
    struct world_flows *f = flows_new(true);
    struct sel_arena arena = {0};
    static const char *const of_first = "{\"id\": \"00000000-0000-004d-0000-000000000001\"}";
    run_flow(f, 1, "w3", SEL_LEVEL_COMMIT, 0);
    run_flow(f, 2, "s1", SEL_LEVEL_COMMIT, 0);
    run(&f->w, 30000);
    for (int life = 0; life < 2; life++) {
        const char *text = ask(f, &arena, "flows", "{\"name\": \"w3\"}");
        assert_has(text, "\"name\":\"w3\",\"open\":3,\"queue\":\"celery\",\"state\":\"running\"");
        assert_null(strstr(text, "s1"));
        assert_has(ask(f, &arena, "flows", "{\"limit\": 1}"), "\"next\":");
        assert_has(ask(f, &arena, "flow", of_first), "\"number\":1");
        text = ask(f, &arena, "flow.runs", of_first);
        assert_has(text, "\"name\":\"Noop\",\"ordinal\":2");
        text = ask(f, &arena, "flow.history", of_first);
        assert_has(text, "\"kind\":\"events\",\"number\":1");
        text = ask(f, &arena, "flow.runs", "{\"id\": \"00000000-0000-004d-0000-000000000002\"}");
        assert_has(text, "\"name\":\"c1\"");
        restart_broker(f);
        run(&f->w, 30000000);
    }
    (void)go_on_until(f, 2);
    assert_has(ask(f, &arena, "flows", "{\"state\": \"finished\", \"name\": \"w3\"}"), "w3");
    restart_broker(f);
    run(&f->w, 1000);
    assert_has(ask(f, &arena, "flow", of_first), "\"name\":\"w3\"");
    assert_has(ask(f, &arena, "flow", "{\"id\": \"00000000-0000-004d-0000-000000000009\"}"),
               "no such");
    assert_has(ask(f, &arena, "flow", "{}"), "UUID");
    sel_arena_done(&arena);
    flows_done(f);
}

/* The pages of the first flow, which had 1,500 nodes. */
static void assert_told(struct world_flows *f, struct sel_arena *arena)
{
    const char *text = ask(f, arena, "flow.nodes", "{\"id\": \"" FIRST "\"}");
    assert_has(text, "\"active_nodes\":[{\"id\":\"" FIRST "-0.0\",\"name\":\"Noop\"}]");
    assert_has(text, "\"failed_nodes\":{},\"finished_nodes\":{\"Noop\":[\"" FIRST "-0.1\",");
    assert_has(text, FIRST "-0.999\"]},\"page\":0,\"pages\":2}");
    text = ask(f, arena, "flow.nodes", "{\"id\": \"" FIRST "\", \"page\": 1}");
    assert_has(text, "\"active_nodes\":[],\"failed_nodes\":{\"Noop\":[\"" FIRST "-0.1499\"]}");
    assert_has(text, "\"finished_nodes\":{\"Noop\":[\"" FIRST "-0.1000\",");
    assert_has(text, FIRST "-0.1498\"]},\"page\":1,\"pages\":2}");
}

static void assert_not_told(struct world_flows *f, struct sel_arena *arena, const char *args,
                            const char *why)
{
    assert_has(ask(f, arena, "flow.nodes", args), why);
}

static void test_the_nodes_of_a_large_flow_are_kept_with_its_result(void **state)
{
    (void)state;
    for (uint8_t level = SEL_LEVEL_MEMORY; level <= SEL_LEVEL_COMMIT; level++) {
        for (int reads_back = 0; reads_back < 2; reads_back++) {
            struct world_flows *f = sel_mem_zalloc(sizeof(*f));
            struct sel_arena arena = {0};
            assert_non_null(f);
            f->w = (struct world){.now_us = 1000000, .worker_ops = &flow_ops, .flows = 100};
            f->w.options.payload_memory = reads_back ? 1 : 1 << 20;
            f->w.disk = sel_journal_disk_new(1);
            start_broker(&f->w);
            start_producer(&f->w);
            start_worker(&f->w, 100);
            f->nodes = 1500;
            run_flow(f, 1, "w2", level, 0);
            run(&f->w, 5000);
            assert_not_told(f, &arena, "{\"id\": \"" FIRST "\"}", "has not ended");
            (void)go_on_until(f, 1);
            assert_told(f, &arena);
            assert_not_told(f, &arena, "{\"id\": \"" FIRST "\", \"page\": 2}", "no such page");
            assert_not_told(f, &arena, "{\"id\": \"0\"}", "UUID");
            for (int life = 0; life < 2; life++) {
                restart_broker(f);
                run(&f->w, 1000);
                if (level > SEL_LEVEL_MEMORY)
                    assert_told(f, &arena);
                else
                    assert_not_told(f, &arena, "{\"id\": \"" FIRST "\"}", "no such flow");
            }
            sel_arena_done(&arena);
            flows_done(f);
        }
    }
}

static uint64_t pieces_of(struct world_flows *f)
{
    return f->w.broker->tasks.by_state[SEL_TASK_PIECE];
}

static void test_nodes_go_with_the_result(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct world_flows *f = flows_new(true);
    f->nodes = 1500;
    run_flow(f, 1, "w2", SEL_LEVEL_COMMIT, 0);
    run_flow(f, 2, "r1", SEL_LEVEL_MEMORY, 0); /* of which the first attempt keeps none */
    run_flow(f, 3, "s1", SEL_LEVEL_COMMIT, 0); /* nor does a sub-flow */
    (void)go_on_until(f, 3);
    assert_int_equal(pieces_of(f), 3);
    assert_true(f->w.broker->result_bytes > 2 * 1500); /* they count as results do */
    f->nodes = 0;
    run_flow(f, 4, "c1", SEL_LEVEL_COMMIT, 0);
    (void)go_on_until(f, 4);
    assert_not_told(f, &arena, "{\"id\": \"00000000-0000-004d-0000-000000000004\"}",
                    "cannot be read");
    f->w.now_us += INT64_C(100) * 86400 * 1000000; /* older than any result gets */
    run(&f->w, 10000);
    assert_int_equal(pieces_of(f), 0);
    assert_int_equal(f->w.broker->result_bytes, 0);
    assert_not_told(f, &arena, "{\"id\": \"" FIRST "\"}", "no such flow");
    restart_broker(f);
    run(&f->w, 10000);
    assert_int_equal(pieces_of(f), 0);
    sel_arena_done(&arena);
    flows_done(f);
}

/* After its result was dropped an id is that of another flow; the journal may still tell of both.
 */
static void test_an_id_that_is_used_anew_is_another_flow(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct world_flows *f = flows_new(true);
    f->nodes = 1500;
    run_flow(f, 1, "w2", SEL_LEVEL_COMMIT, 0);
    (void)go_on_until(f, 1);
    f->w.now_us += INT64_C(100) * 86400 * 1000000; /* older than any result gets */
    run(&f->w, 10000);
    assert_not_told(f, &arena, "{\"id\": \"" FIRST "\"}", "no such flow");
    f->nodes = 0;
    f->is_mute = true;
    run_flow(f, 1, "c2", SEL_LEVEL_COMMIT, 0);
    run(&f->w, 10000);
    restart_broker(f);
    f->is_mute = false;
    (void)go_on_until(f, 2);
    assert_has(ask(f, &arena, "flow", "{\"id\": \"" FIRST "\"}"), "\"name\":\"c2\"");
    assert_int_equal(pieces_of(f), 1); /* what it said at its end */
    sel_arena_done(&arena);
    flows_done(f);
}

/* What is needed of old batches is copied forward, nodes and ends of flows one by one. */
static void test_nodes_survive_compaction(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct world_flows *f = sel_mem_zalloc(sizeof(*f));
    assert_non_null(f);
    f->w = (struct world){.now_us = 1000000, .worker_ops = &flow_ops, .flows = 100};
    f->w.options.journal_compact_min = 20000;
    f->w.options.batch_bytes_max = 1000;
    f->w.options.payload_memory = 1;
    f->w.disk = sel_journal_disk_new(1);
    start_broker(&f->w);
    start_producer(&f->w);
    start_worker(&f->w, 100);
    f->nodes = 1500;
    run_flow(f, 1, "w2", SEL_LEVEL_COMMIT, 0);
    (void)go_on_until(f, 1);
    struct sel_journal_stats first, stats;
    f->w.journal->ops->stats(f->w.journal, &first);
    f->nodes = 0;
    f->ballast = 3000;
    f->state_every = 2;
    for (uint32_t i = 0; i < 4; i++) {
        run_flow(f, 2 + i, "c40", SEL_LEVEL_COMMIT, 0);
        (void)go_on_until(f, 2 + i);
        restart_broker(f);
        run(&f->w, 60000000);
        assert_told(f, &arena);
        sel_arena_reset(&arena);
    }
    f->w.journal->ops->stats(f->w.journal, &stats);
    assert_true(stats.first > first.last); /* where they stood first is gone */
    sel_arena_done(&arena);
    flows_done(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_chain_runs_to_its_end_at_every_level),
        cmocka_unit_test(test_sub_flows_are_runs_of_their_parent),
        cmocka_unit_test(test_a_flow_that_is_retried_begins_anew),
        cmocka_unit_test(test_detached_work_is_waited_for_by_who_wants_that),
        cmocka_unit_test(test_detached_runs_find_their_arguments_after_a_restart),
        cmocka_unit_test(test_throttled_starts_lie_apart),
        cmocka_unit_test(test_failures_are_told_again_to_who_takes_over),
        cmocka_unit_test(test_a_broker_that_dies_anywhere_loses_nothing),
        cmocka_unit_test(test_a_dispatcher_that_dies_is_followed_by_another),
        cmocka_unit_test(test_a_decision_of_pieces_is_one),
        cmocka_unit_test(test_a_dispatcher_that_errs_loses_its_flow),
        cmocka_unit_test(test_a_flow_whose_decision_was_refused_goes_on_elsewhere),
        cmocka_unit_test(test_a_refusal_that_nobody_hears_takes_the_flow_away_too),
        cmocka_unit_test(test_a_sub_flow_that_is_given_up_has_failed),
        cmocka_unit_test(test_runs_are_nobodys_to_ask_for),
        cmocka_unit_test(test_flows_that_nobody_decides_wait),
        cmocka_unit_test(test_a_journal_is_compacted_around_flows),
        cmocka_unit_test(test_flows_are_told_of),
        cmocka_unit_test(test_large_events_are_told_in_slices),
        cmocka_unit_test(test_the_nodes_of_a_large_flow_are_kept_with_its_result),
        cmocka_unit_test(test_nodes_go_with_the_result),
        cmocka_unit_test(test_an_id_that_is_used_anew_is_another_flow),
        cmocka_unit_test(test_nodes_survive_compaction),
        cmocka_unit_test(test_a_broker_without_memory_takes_a_decision_whole_or_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
