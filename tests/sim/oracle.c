#include "tests/sim/oracle.h"

#include <stdio.h>

#include "core/hash.h"
#include "core/mem.h"
#include "tests/sim/residue.h"
#include "tests/sim/run.h"

/* Clocks of the broker are read once a turn, and its turns take time. */
#define SLACK_US 20000
/* What took several workers with it is delivered alone; one that suits is looked for four times a
 * second. */
#define LATE_US 600000

#define BROKEN(run, promise, ...) sel_world_violate(&(run)->world, (promise), __VA_ARGS__)

/* ---- what may have been lost ---- */

bool sel_oracle_is_forgiven(const struct sel_run *run, const struct sel_deed *deed,
                            int64_t since_us)
{
    const struct sel_oracle *oracle = &run->oracle;
    for (uint32_t i = 0; i < oracle->death_count; i++) {
        if (oracle->deaths[i].at_us < since_us)
            continue;
        if (deed->level == SEL_LEVEL_MEMORY || !run->scenario.has_journal ||
            (deed->level == SEL_LEVEL_INTERVAL && oracle->deaths[i].is_power))
            return true;
    }
    return false;
}

/* Whether a broker may not know any more of a task that was begun at `since_us`: its SUBMIT may
 * not have been kept, as it was not settled yet. */
static bool is_forgotten(const struct sel_run *run, const struct sel_deed *deed, int64_t since_us)
{
    const struct sel_oracle *oracle = &run->oracle;
    for (uint32_t i = 0; i < oracle->death_count; i++)
        if (oracle->deaths[i].at_us >= since_us &&
            (deed->settled_us == 0 || deed->settled_us > oracle->deaths[i].at_us))
            return true;
    return sel_oracle_is_forgiven(run, deed, since_us);
}

/* Whether the broker may have given the session up since then. */
static bool has_lapsed(const struct sel_run *run, const struct sel_member *member, int64_t since_us)
{
    int64_t lease_us = run->scenario.lease_us - SLACK_US - 2 * run->scenario.latency_us_max;
    int64_t heard_us = member->link.heard_us;
    if (heard_us < run->server.started_us)
        heard_us = run->server.started_us;
    return (member->lapsed_us && member->lapsed_us >= since_us) ||
           run->world.now_us - heard_us >= lease_us;
}

/* Whether the session of a run may have been given up. */
static bool run_has_lapsed(const struct sel_run *run, const struct sel_sim_execution *e,
                           int64_t since_us)
{
    if (e->life != e->member->worker->process.life)
        return e->lapsed_us && e->lapsed_us >= since_us;
    return has_lapsed(run, e->member, since_us);
}

/* ---- what is heard ---- */

static void note_heard(struct sel_run *run, struct sel_member *member)
{
    if (has_lapsed(run, member, SEL_WORLD_NEVER))
        member->lapsed_us = run->world.now_us;
    member->link.heard_us = run->world.now_us;
}

/* A connection has a session from a HELLO; what comes on another is not listened to. */
static void note_said(struct sel_run *run, struct sel_member *member, uint32_t connection,
                      bool is_hello)
{
    if (is_hello)
        member->hello_connection = connection;
    if (connection == member->hello_connection)
        note_heard(run, member);
}

void sel_oracle_heard(struct sel_run *run, uint32_t connection, struct sel_str frame, bool is_copy)
{
    int type = sel_wire_message_type(frame, NULL);
    if (is_copy || type < 0)
        return;
    if (type == SEL_MESSAGE_BEAT) {
        struct sel_wire_beat beat;
        struct sel_member *member =
            sel_wire_decode_beat(frame, &beat, NULL) == 0 ? sel_crew_find(run, beat.peer) : NULL;
        if (member && beat.incarnation == member->incarnation && member->hello_connection)
            note_heard(run, member);
        return;
    }
    const struct sel_link *link = sel_net_peer(run, connection);
    for (uint32_t i = 0; i < run->scenario.worker_count; i++)
        for (uint32_t m = 0; m < run->workers[i].member_count; m++)
            if (link == &run->workers[i].members[m].link)
                note_said(run, &run->workers[i].members[m], connection, type == SEL_MESSAGE_HELLO);
}

void sel_oracle_broker_died(struct sel_run *run, bool is_power)
{
    struct sel_oracle *oracle = &run->oracle;
    SEL_ASSERT(oracle->death_count < SEL_ORACLE_DEATHS);
    oracle->deaths[oracle->death_count].at_us = run->world.now_us;
    oracle->deaths[oracle->death_count++].is_power = is_power;
    for (uint32_t i = 0; i < run->scenario.worker_count; i++)
        for (uint32_t m = 0; m < run->workers[i].member_count; m++)
            if (has_lapsed(run, &run->workers[i].members[m], SEL_WORLD_NEVER))
                run->workers[i].members[m].lapsed_us = run->world.now_us;
}

void sel_oracle_broker_started(struct sel_run *run)
{
    for (uint32_t i = 0; i < run->scenario.worker_count; i++)
        for (uint32_t m = 0; m < run->workers[i].member_count; m++)
            run->workers[i].members[m].hello_connection = 0;
}

/* ---- submits ---- */

void sel_oracle_submitted(struct sel_run *run, struct sel_wish *wish, int64_t not_before_unix_us)
{
    struct sel_deed *deed = &run->oracle.deeds[wish->deed];
    sel_world_note(&run->world, "oracle", "submitted", deed->index, wish->producer);
    wish->state = SEL_WISH_SENT;
    wish->is_listed = true;
    if (deed->submitted_us)
        return;
    deed->submitted_us = run->world.now_us;
    deed->not_before_unix_us = not_before_unix_us;
    deed->age = ++run->oracle.submits;
}

void sel_oracle_settled(struct sel_run *run, struct sel_wish *wish)
{
    struct sel_deed *deed = &run->oracle.deeds[wish->deed];
    sel_world_note(&run->world, "oracle", "settled", deed->index, wish->producer);
    if (wish->is_refused)
        return;
    wish->is_settled = true;
    if (deed->settled_us == 0)
        deed->settled_us = run->world.now_us;
}

/* ---- results ---- */

static void check_refused(struct sel_run *run, struct sel_wish *wish,
                          const struct sel_producer_result *result)
{
    const struct sel_deed *deed = &run->oracle.deeds[wish->deed];
    wish->is_refused = true;
    switch (result->code) {
    case SEL_CODE_CONFLICT:
        for (uint32_t i = 0; deed->key && i < run->oracle.deed_count; i++)
            if (run->oracle.deeds[i].key == deed->key && run->oracle.deeds[i].body != deed->body &&
                run->oracle.deeds[i].submitted_us)
                return;
        /* its key was lost with the broker's memory, and another id came first since */
        if (deed->key && sel_oracle_is_forgiven(run, deed, deed->submitted_us))
            return;
        break;
    case SEL_CODE_UNSUPPORTED:
        if (!run->scenario.has_journal && deed->level > SEL_LEVEL_MEMORY)
            return;
        break;
    case SEL_CODE_UNKNOWN_TASK:
        if (deed->is_quiet) /* its result is wanted by nobody, and need not be kept */
            return;
        /* what was cancelled before it was taken never came to the broker */
        if (deed->settled_us == 0 || sel_oracle_is_forgiven(run, deed, deed->submitted_us))
            return;
        BROKEN(run, "lost", "task %u (level %u, stands for %u) was settled and is not known",
               deed->index, deed->level, deed->body);
        return;
    default:
        break;
    }
    BROKEN(run, "refused", "task %u (key %u, stands for %u) was refused: %s: %.*s", deed->index,
           deed->key, deed->body, sel_wire_code_name(result->code), SEL_STR_ARG(result->payload));
}

/* The number of the run that answered so; UINT32_MAX: none. */
static uint32_t run_of_result(struct sel_run *run, const struct sel_deed *deed,
                              struct sel_str payload)
{
    struct sel_oracle *oracle = &run->oracle;
    const uint8_t *p = (const uint8_t *)payload.p;
    if (payload.n < 16 || p[0] != 0x93 || p[1] != 0xce)
        return UINT32_MAX;
    uint32_t index = (uint32_t)p[2] << 24 | (uint32_t)p[3] << 16 | (uint32_t)p[4] << 8 | p[5];
    if (index >= oracle->run_count || oracle->runs[index].deed >= oracle->deed_count)
        return UINT32_MAX;
    const struct sel_deed *made = &oracle->deeds[oracle->runs[index].deed];
    if (made->body != deed->body)
        return UINT32_MAX;
    sel_oracle_result(made, index, (uint32_t)(payload.n - 16), &oracle->scratch);
    return sel_str_eq(sel_buf_str(&oracle->scratch), payload) ? index : UINT32_MAX;
}

/* Whether a worker may have died with it. What was delivered and not begun counts too. */
static bool has_been_lost(const struct sel_run *run, const struct sel_deed *deed)
{
    if (sel_scenario_has(&run->scenario, SEL_MODE_CRASH) ||
        sel_scenario_has(&run->scenario, SEL_MODE_LEAVE)) /* its GOODBYE may be lost */
        return true;
    for (uint32_t i = 0; i < run->scenario.worker_count; i++)
        for (uint32_t m = 0; m < run->workers[i].member_count; m++)
            if (has_lapsed(run, &run->workers[i].members[m], deed->submitted_us))
                return true;
    return false;
}

/* A result that no worker made: the broker must have had a reason. */
static bool is_brokers_own(const struct sel_run *run, const struct sel_deed *deed, uint32_t code)
{
    if (code == SEL_OUTCOME_CANCELLED) {
        for (uint32_t i = 0; i < run->oracle.deed_count; i++)
            if (run->oracle.deeds[i].body == deed->body && run->oracle.deeds[i].cancelled_us)
                return true;
        return false;
    }
    if (code != SEL_OUTCOME_FAILURE)
        return false;
    for (uint32_t i = 0; i < run->scenario.worker_count; i++)
        if (!((run->scenario.knows[i] >> deed->kind) & 1))
            return true;
    for (uint32_t i = 0; i < run->oracle.deed_count; i++)
        if (run->oracle.deeds[i].body == deed->body && run->oracle.deeds[i].overflowed_us)
            return true;
    return has_been_lost(run, deed);
}

static void check_made(struct sel_run *run, const struct sel_deed *deed,
                       const struct sel_producer_result *result)
{
    uint32_t index = run_of_result(run, deed, result->payload);
    if (sel_act_is_flow(&run->stage, deed->body)) {
        if (result->code != SEL_OUTCOME_CANCELLED || !is_brokers_own(run, deed, result->code))
            sel_stage_check_result(run, deed, result);
        return;
    }
    if (index == UINT32_MAX) {
        if (!is_brokers_own(run, deed, result->code))
            BROKEN(run, "invented", "task %u has a result (code %u) that nobody made: %.*s",
                   deed->index, result->code, SEL_STR_ARG(result->payload));
        return;
    }
    const struct sel_sim_execution *e = &run->oracle.runs[index];
    uint32_t code = e->code == SEL_OUTCOME_FATAL ? SEL_OUTCOME_FAILURE : e->code;
    bool is_called_off = result->code == SEL_OUTCOME_CANCELLED && code == SEL_OUTCOME_RETRY &&
                         is_brokers_own(run, deed, result->code);
    if (e->ended_us == 0 || (code != result->code && !is_called_off))
        BROKEN(run, "invented", "task %u: run %u ended with %u, its result says %u", deed->index,
               index, e->code, result->code);
}

/* `one` is the task itself, or another that it stands for. The result may have been told long after
 * it was made. */
static void check_same(struct sel_run *run, const struct sel_deed *deed, struct sel_deed *one,
                       uint64_t hash, uint32_t code, int64_t made_us)
{
    if (sel_oracle_is_forgiven(run, one, made_us))
        return; /* of a life before: another may have been made since */
    bool is_void = !one->has_result || sel_oracle_is_forgiven(run, one, one->result_us);
    if (!is_void && one->result_hash != hash) {
        BROKEN(run, "differs", "task %u (level %u) %s %u had a result with code %u, now it is %u",
               deed->index, deed->level, deed == one ? "that is" : "stands for", one->index,
               one->code, code);
        return;
    }
    if (is_void)
        one->result_us = made_us;
    one->has_result = true;
    one->result_hash = hash;
    one->code = code;
}

void sel_oracle_finished(struct sel_run *run, struct sel_wish *wish,
                         const struct sel_producer_result *result)
{
    struct sel_deed *deed = &run->oracle.deeds[wish->deed];
    sel_world_note(&run->world, "oracle", result->is_refused ? "refused" : "finished", deed->index,
                   result->code);
    if (!wish->is_listed || !sel_id_eq(result->id, deed->id)) {
        BROKEN(run, "once", "the result of task %u is reported again", deed->index);
        return;
    }
    wish->is_listed = false;
    wish->state = SEL_WISH_OVER;
    if (result->is_refused) {
        check_refused(run, wish, result);
        return;
    }
    check_made(run, deed, result);
    if (result->code == SEL_OUTCOME_CANCELLED && result->payload.n == 0)
        return; /* by the producer itself: the broker had not taken it yet */
    uint64_t hash = sel_hash_bytes(result->payload.p, result->payload.n, result->code);
    uint32_t index = run_of_result(run, deed, result->payload);
    /* What no run made is as old as the message that tells of it, which may have been read late. */
    int64_t made_us = index == UINT32_MAX ? run->sources[wish->producer].told_us
                                          : run->oracle.runs[index].ended_us;
    check_same(run, deed, deed, hash, result->code, made_us);
    /* A key may be lost with the broker's memory, and its task be told of by a worker later. */
    struct sel_deed *one = &run->oracle.deeds[deed->body];
    if (one != deed && !sel_oracle_is_forgiven(run, deed, 0))
        check_same(run, deed, one, hash, result->code, made_us);
}

/* ---- runs ---- */

static void check_content(struct sel_run *run, struct sel_member *member,
                          const struct sel_deed *deed, const struct sel_wire_item *item)
{
    char name[16];
    (void)snprintf(name, sizeof(name), "kind%u", deed->kind);
    if (!sel_str_eq_c(item->task, name))
        BROKEN(run, "mixed-up", "task %u is called %.*s", deed->index, SEL_STR_ARG(item->task));
    (void)snprintf(name, sizeof(name), "queue%u", deed->queue);
    struct sel_str queue = sel_holder_queue_name(member->holder, item->queue);
    bool is_same_session = run->oracle.death_count == 0 &&
                           !has_lapsed(run, member, deed->submitted_us); /* for its numbers */
    if (is_same_session && !sel_str_eq_c(queue, name))
        BROKEN(run, "mixed-up", "task %u of %s comes from %.*s", deed->index, name,
               SEL_STR_ARG(queue));
    sel_oracle_payload(deed, &run->oracle.scratch);
    if (!sel_str_eq(item->payload, sel_buf_str(&run->oracle.scratch)))
        BROKEN(run, "mixed-up", "task %u has other arguments, %zu bytes", deed->index,
               item->payload.n);
    if (item->priority != deed->priority)
        BROKEN(run, "mixed-up", "task %u has priority %u, was %u", deed->index, item->priority,
               deed->priority);
}

static void check_early(struct sel_run *run, const struct sel_deed *deed,
                        const struct sel_sim_execution *e)
{
    const struct sel_oracle *oracle = &run->oracle;
    bool has_jumped = oracle->last_jump_us && oracle->death_count;
    if (has_jumped) /* what outlives the broker is kept by the clock of the day */
        return;
    if (e->begun_us < deed->submitted_us + deed->countdown_us)
        BROKEN(run, "early", "task %u is begun %lld us before its countdown ends", deed->index,
               (long long)(deed->submitted_us + deed->countdown_us - e->begun_us));
    int64_t unix_us = sel_process_unix_us(&run->server.process);
    if (deed->not_before_unix_us && !oracle->last_jump_us && unix_us < deed->not_before_unix_us)
        BROKEN(run, "early", "task %u is begun %lld us before its time", deed->index,
               (long long)(deed->not_before_unix_us - unix_us));
    int64_t failed_us = SEL_WORLD_NEVER; /* the first try before that wanted another */
    for (uint32_t i = e->before; i; i = oracle->runs[i - 1].before) {
        const struct sel_sim_execution *before = &oracle->runs[i - 1];
        if (before->ended_us && before->code == SEL_OUTCOME_RETRY &&
            before->try_count + 1 == e->try_count && before->ended_us < failed_us)
            failed_us = before->ended_us;
    }
    if (failed_us != SEL_WORLD_NEVER && e->begun_us < failed_us + deed->retry_countdown_us)
        BROKEN(run, "early", "task %u is tried again %lld us too early", deed->index,
               (long long)(failed_us + deed->retry_countdown_us - e->begun_us));
}

/* Whether the try has failed and another is due. */
static bool has_failed(const struct sel_run *run, const struct sel_deed *deed, uint16_t try_count)
{
    const struct sel_oracle *oracle = &run->oracle;
    for (uint32_t i = deed->last_run; i; i = oracle->runs[i - 1].before) {
        const struct sel_sim_execution *e = &oracle->runs[i - 1];
        if (e->ended_us && e->code == SEL_OUTCOME_RETRY && e->try_count >= try_count)
            return true;
    }
    return false;
}

/* Whether it was told to stop for a run that is lost itself now. */
static bool is_called_off(const struct sel_run *run, const struct sel_deed *deed,
                          const struct sel_sim_execution *e)
{
    if (!e->is_called_off)
        return false;
    for (uint32_t i = deed->last_run; i; i = run->oracle.runs[i - 1].before) {
        const struct sel_sim_execution *other = &run->oracle.runs[i - 1];
        if (other != e &&
            (other->state == SEL_RUN_DEAD || run_has_lapsed(run, other, deed->submitted_us)))
            return true;
    }
    return false;
}

/* Whether another run has a reason, as far as this one is concerned. */
static bool is_released(const struct sel_run *run, const struct sel_deed *deed,
                        const struct sel_sim_execution *e)
{
    /* A CANCEL is not kept: another life of the broker may know nothing of it. */
    bool is_cancelled = e->ended_us && e->code == SEL_OUTCOME_CANCELLED;
    return e->state == SEL_RUN_DEAD || is_cancelled || has_failed(run, deed, e->try_count) ||
           is_called_off(run, deed, e) || run_has_lapsed(run, e, deed->submitted_us) ||
           is_forgotten(run, deed, deed->submitted_us);
}

/* A try that was delivered again when its holder was given up, and was on its way when that holder
 * came back and told how it had failed. */
static bool is_overtaken(const struct sel_run *run, const struct sel_deed *deed, uint16_t try_count)
{
    if (!has_failed(run, deed, try_count))
        return false;
    for (uint32_t i = deed->last_run; i; i = run->oracle.runs[i - 1].before) {
        const struct sel_sim_execution *e = &run->oracle.runs[i - 1];
        if (e->try_count == try_count && run_has_lapsed(run, e, deed->submitted_us))
            return true;
    }
    return false;
}

static void check_again(struct sel_run *run, const struct sel_deed *deed,
                        const struct sel_member *member, uint16_t try_count)
{
    struct sel_oracle *oracle = &run->oracle;
    if (has_lapsed(run, member, deed->submitted_us) || is_overtaken(run, deed, try_count))
        return; /* who was given up may not know yet what others do, nor they of it */
    for (uint32_t i = deed->last_run; i; i = oracle->runs[i - 1].before)
        if (!is_released(run, deed, &oracle->runs[i - 1])) {
            BROKEN(run, "twice",
                   "task %u is begun by %s.%u; run %u of it by %s.%u has not been lost",
                   deed->index, member->worker->process.name, member->index, i - 1,
                   oracle->runs[i - 1].member->worker->process.name,
                   oracle->runs[i - 1].member->index);
            return;
        }
    if (deed->has_result && (deed->code == SEL_OUTCOME_CANCELLED || deed->overflowed_us))
        return; /* a worker that was given it may not know: CANCEL waits for its credit */
    if (deed->key && sel_oracle_is_forgiven(run, deed, 0))
        return; /* the result may be that of another id: the key was lost */
    for (uint32_t i = deed->last_run; i; i = oracle->runs[i - 1].before)
        if (run_has_lapsed(run, &oracle->runs[i - 1], deed->submitted_us))
            return; /* one that was given up ended it; who has it now may not have been told */
    /* what was not settled when the broker died may be said and done again */
    bool was_kept = deed->settled_us && deed->settled_us <= deed->success_us;
    if (!was_kept && is_forgotten(run, deed, deed->submitted_us))
        return;
    if (sel_oracle_is_forgiven(run, deed, deed->submitted_us))
        return;
    if (deed->success_us && !is_forgotten(run, deed, deed->success_us))
        BROKEN(run, "after-end", "task %u is begun again, its success was settled", deed->index);
    else if (deed->has_result)
        BROKEN(run, "after-end", "task %u is begun again, its result was told", deed->index);
}

static void check_order(struct sel_run *run, const struct sel_deed *deed)
{
    if (!run->scenario.is_ordered || deed->runs)
        return;
    for (uint32_t i = 0; i < run->oracle.deed_count; i++) {
        const struct sel_deed *other = &run->oracle.deeds[i];
        if (other->settled_us && other->settled_us < run->oracle.workers_us && other->runs == 0 &&
            other != deed &&
            (other->priority > deed->priority ||
             (other->priority == deed->priority && other->age < deed->age)))
            BROKEN(run, "order", "task %u (priority %u, age %u) before task %u (%u, %u)",
                   deed->index, deed->priority, deed->age, other->index, other->priority,
                   other->age);
    }
}

static uint32_t add_run(struct sel_run *run, struct sel_sim_execution e)
{
    struct sel_oracle *oracle = &run->oracle;
    SEL_ASSERT(sel_mem_grow(&oracle->runs, &oracle->run_cap, (uint64_t)oracle->run_count + 1,
                            sizeof(*oracle->runs)));
    oracle->runs[oracle->run_count] = e;
    return oracle->run_count++;
}

uint32_t sel_oracle_double(struct sel_run *run, uint32_t run_index)
{
    return add_run(run, run->oracle.runs[run_index]);
}

uint32_t sel_oracle_begun(struct sel_run *run, struct sel_member *member,
                          const struct sel_wire_item *item)
{
    struct sel_oracle *oracle = &run->oracle;
    struct sel_deed *deed = sel_oracle_deed(run, item->id);
    if (!deed || deed->submitted_us == 0) {
        BROKEN(run, "invented", "a task is begun that nobody submitted");
        deed = &oracle->deeds[0];
    }
    const struct sel_sim_execution begun = {
        .deed = deed->index,
        .before = deed->last_run,
        .member = member,
        .life = member->worker->process.life,
        .try_count = item->try_count,
        .delivery = item->delivery,
        .begun_us = run->world.now_us,
    };
    uint32_t index = add_run(run, begun);
    sel_world_note(&run->world, member->worker->process.name, "begins", deed->index, index);
    check_content(run, member, deed, item);
    check_early(run, deed, &begun);
    check_order(run, deed);
    check_again(run, deed, member, item->try_count);
    deed->last_run = index + 1;
    deed->runs++;
    return index;
}

void sel_oracle_ended(struct sel_run *run, uint32_t run_index, uint32_t code)
{
    struct sel_sim_execution *e = &run->oracle.runs[run_index];
    sel_world_note(&run->world, e->member->worker->process.name, "ends", e->deed, code);
    e->ended_us = run->world.now_us;
    e->code = code;
    e->state = SEL_RUN_ENDED;
}

void sel_oracle_end_settled(struct sel_run *run, uint32_t run_index)
{
    struct sel_sim_execution *e = &run->oracle.runs[run_index];
    struct sel_deed *deed = &run->oracle.deeds[e->deed];
    sel_world_note(&run->world, e->member->worker->process.name, "is settled", e->deed, e->code);
    e->state = SEL_RUN_SETTLED;
    if (e->code == SEL_OUTCOME_SUCCESS)
        deed->success_us = run->world.now_us;
}

/* ---- looks ---- */

/* Nothing else than deaths of workers may have kept it from being given to another. */
static bool is_calm(const struct sel_run *run)
{
    uint64_t calm = UINT64_C(1) << SEL_MODE_CRASH | UINT64_C(1) << SEL_MODE_RETRIES |
                    UINT64_C(1) << SEL_MODE_LATER | UINT64_C(1) << SEL_MODE_LEVELS |
                    UINT64_C(1) << SEL_MODE_TWICE | UINT64_C(1) << SEL_MODE_GONE |
                    UINT64_C(1) << SEL_MODE_JUMPS | UINT64_C(1) << SEL_MODE_GARBAGE;
    return (run->scenario.modes & ~calm) == 0;
}

static void note_given(struct sel_run *run, struct sel_str frame)
{
    struct sel_wire_head head;
    struct sel_str records;
    struct sel_wire_item item;
    if (sel_wire_decode_data(frame, &head, &records, NULL) < 0)
        return;
    while (sel_wire_next(&records, &item, NULL) > 0) {
        struct sel_deed *deed = item.type == SEL_RECORD_TASK ? sel_oracle_deed(run, item.id) : NULL;
        if (deed)
            deed->given_us = run->world.now_us;
    }
}

void sel_oracle_said(struct sel_run *run, uint32_t connection, struct sel_str frame, bool is_up)
{
    int type = sel_wire_message_type(frame, NULL);
    if (type == SEL_MESSAGE_DATA && !is_up && is_calm(run))
        note_given(run, frame);
    if (type != SEL_MESSAGE_ERROR)
        return;
    struct sel_arena arena = {0};
    struct sel_wire_error error;
    if (sel_wire_decode_error(&arena, frame, &error, NULL) < 0)
        BROKEN(run, "error", "an ERROR that cannot be read");
    else if ((is_up || sel_net_peer(run, connection)) && error.code != SEL_CODE_UNKNOWN_SESSION &&
             error.code != SEL_CODE_FULL && error.code != SEL_CODE_DRAINING)
        BROKEN(run, "error", "%s says: %s: %.*s", is_up ? "a peer" : "the broker",
               sel_wire_code_name(error.code), SEL_STR_ARG(error.text));
    sel_arena_done(&arena);
}

/* A session that had nothing to do for a while and serves the queue. */
static const struct sel_member *idle_member(const struct sel_run *run, uint32_t queue,
                                            int64_t since_us)
{
    for (uint32_t i = 0; i < run->scenario.worker_count; i++) {
        const struct sel_worker *worker = &run->workers[i];
        for (uint32_t m = 0; worker->process.is_up && m < worker->member_count; m++) {
            const struct sel_member *member = &worker->members[m];
            const struct sel_peer *peer = sel_holder_peer(member->holder);
            if (((run->scenario.serves[i] >> queue) & 1) && member->job_count == 0 &&
                member->busy_us < since_us && member->started_us < since_us &&
                peer->state == SEL_PEER_OPEN && !worker->is_leaving)
                return member;
        }
    }
    return NULL;
}

static void look_elsewhere(struct sel_run *run, void *p, uint64_t run_index, uint64_t b)
{
    (void)p;
    const struct sel_sim_execution *e = &run->oracle.runs[run_index];
    const struct sel_deed *deed = &run->oracle.deeds[e->deed];
    if (deed->last_run != run_index + 1 || deed->given_us > (int64_t)b ||
        run->oracle.deeds[deed->body].has_result)
        return;
    const struct sel_member *idle =
        idle_member(run, deed->queue, run->world.now_us - run->scenario.lease_us / 4);
    if (idle && deed->settled_us && !deed->is_quiet) /* that might have failed, and nobody hears */
        BROKEN(run, "late", "task %u was lost %lld us ago, and %s.%u has nothing to do",
               deed->index, (long long)(run->world.now_us - (int64_t)b), idle->worker->process.name,
               idle->index);
}

void sel_oracle_expect_elsewhere(struct sel_run *run, uint32_t run_index)
{
    if (is_calm(run)) /* leases are looked at eight times each */
        sel_world_plan(&run->world, run->world.now_us + run->scenario.lease_us * 5 / 4 + LATE_US,
                       look_elsewhere, NULL, run_index, (uint64_t)run->world.now_us);
}

void sel_oracle_check_member(struct sel_run *run, struct sel_member *member)
{
    const struct sel_scenario *s = &run->scenario;
    uint32_t window = s->window[member->worker->index];
    if (window == 0)
        window = s->slots[member->worker->index];
    uint32_t held = sel_holder_waiting(member->holder) + sel_holder_running(member->holder);
    for (uint32_t i = 0; i < SEL_SIM_SLOTS; i++) /* ended elsewhere, it runs in vain */
        held -= member->jobs[i].task && member->jobs[i].task->is_cancelled;
    if (held > window && member->lapsed_us == 0 && run->oracle.death_count == 0 &&
        !has_lapsed(run, member, SEL_WORLD_NEVER))
        BROKEN(run, "window", "%s.%u has %u tasks, its window is %u", member->worker->process.name,
               member->index, held, window);
}

void sel_oracle_check_broker(struct sel_run *run)
{
    struct sel_broker_stats *stats = &run->server.stats;
    sel_broker_get_stats(run->server.core, stats);
    if (stats->tasks != stats->queued + stats->waiting + stats->delivered + stats->ended)
        BROKEN(run, "stats",
               "%llu tasks, but %llu queued, %llu waiting, %llu delivered, %llu ended",
               (unsigned long long)stats->tasks, (unsigned long long)stats->queued,
               (unsigned long long)stats->waiting, (unsigned long long)stats->delivered,
               (unsigned long long)stats->ended);
    uint64_t allowed = run->scenario.memory_max;
    if (stats->memory_used <= allowed + allowed / 4)
        return;
    struct sel_residue kept;
    sel_residue_look(run->server.core, &kept);
    allowed += kept.flow_bytes;
    if (stats->memory_used > allowed + allowed / 4)
        BROKEN(run, "memory", "%llu bytes are in use, %llu for what flows started, %llu for others",
               (unsigned long long)stats->memory_used, (unsigned long long)kept.flow_bytes,
               (unsigned long long)stats->memory_max);
}

static void check_conflicts(struct sel_run *run, const struct sel_deed *deed)
{
    for (uint32_t i = 0; i < deed->index; i++) {
        const struct sel_deed *other = &run->oracle.deeds[i];
        if (deed->key && other->key == deed->key && other->body != deed->body &&
            run->oracle.deeds[deed->body].has_result && run->oracle.deeds[other->body].has_result &&
            !sel_oracle_is_forgiven(run, deed, 0))
            BROKEN(run, "refused", "tasks %u and %u have one key and two bodies, and both ran",
                   other->index, deed->index);
    }
}

void sel_oracle_check_end(struct sel_run *run)
{
    struct sel_oracle *oracle = &run->oracle;
    for (uint32_t i = 0; i < oracle->wish_count && !run->world.is_over; i++) {
        const struct sel_wish *wish = &oracle->wishes[i];
        const struct sel_deed *deed = &oracle->deeds[wish->deed];
        if (wish->state != SEL_WISH_OVER && !deed->is_quiet)
            BROKEN(run, wish->is_settled ? "lost" : "idle",
                   "task %u (level %u) of p%u has no result, %s; it was begun %u times",
                   deed->index, deed->level, wish->producer,
                   wish->is_settled ? "but was settled" : "and was not settled", deed->runs);
        else if (deed->is_quiet && !wish->is_settled && !wish->is_refused)
            BROKEN(run, "idle", "task %u of p%u was never settled", deed->index, wish->producer);
        else if (deed->is_quiet && deed->runs == 0 && !deed->cancelled_us &&
                 (run->scenario.has_journal || deed->level == SEL_LEVEL_MEMORY) &&
                 !sel_oracle_is_forgiven(run, deed, deed->settled_us) &&
                 !is_brokers_own(run, deed, 1))
            BROKEN(run, "lost", "task %u was settled and never begun", deed->index);
    }
    for (uint32_t i = 0; i < oracle->deed_count; i++)
        check_conflicts(run, &oracle->deeds[i]);
}
