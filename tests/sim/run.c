#include "tests/sim/run.h"

#include <stdio.h>
#include <string.h>

#include "core/mem.h"

#define SETTLE_QUIETS_MAX 20 /* of quiet_us, whatever still begins */
#define LOOK_US 20000        /* how often it is asked whether all is done */

static const struct {
    const char *name, *text, *promise;
} cheats[] = {{"none", "", ""},
#define SEL_CHEAT_ROW(name, text, what, promise) {text, what, promise},
              SEL_CHEAT_LIST(SEL_CHEAT_ROW)
#undef SEL_CHEAT_ROW
};

const char *sel_cheat_name(enum sel_cheat cheat)
{
    return cheats[cheat].name;
}

const char *sel_cheat_text(enum sel_cheat cheat)
{
    return cheats[cheat].text;
}

const char *sel_cheat_promise(enum sel_cheat cheat)
{
    return cheats[cheat].promise;
}

const char *sel_run_who(struct sel_run *run, const struct sel_link *link)
{
    (void)run;
    return link ? link->process->name : "?";
}

static void late_worker(struct sel_run *run, void *p, uint64_t a, uint64_t b)
{
    (void)a;
    (void)b;
    sel_crew_start(run, p);
}

static void begin(struct sel_run *run)
{
    sel_net_init(run);
    sel_oracle_init(run);
    sel_stage_init(run);
    sel_server_init(run);
    sel_crew_init(run);
    sel_source_init(run);
    sel_faults_plan(run);
    sel_server_start(run, sel_draw_wait(&run->faults, 100000));
    for (uint32_t i = 0; i < run->scenario.producer_count; i++)
        sel_source_start(run, &run->sources[i]);
    for (uint32_t i = 0; i < run->scenario.worker_count; i++) {
        struct sel_worker *worker = &run->workers[i];
        bool is_late = run->scenario.is_ordered || sel_draw_chance(&run->faults, 200);
        int64_t wait = is_late ? run->scenario.submits_until_us + 1000000 : 0;
        sel_world_plan(&run->world, run->world.now_us + wait, late_worker, worker, 0, 0);
    }
}

static void end(struct sel_run *run)
{
    sel_source_done(run);
    sel_crew_done(run);
    sel_server_done(run);
    sel_net_done(run);
    sel_stage_done(run);
    sel_oracle_done(run);
    sel_world_done(&run->world);
}

static bool is_idle(struct sel_run *run)
{
    return sel_source_is_idle(run) && sel_crew_is_idle(run) && sel_server_is_idle(run);
}

static void go_on(struct sel_run *run, int64_t until_us)
{
    while (sel_world_step(run, &run->world, until_us))
        ;
    if (!run->world.is_over && run->world.now_us < until_us)
        run->world.now_us = until_us;
}

/* Until nothing is left to do. Tasks of flows that are throttled begin one after the other, however
 * long that takes. */
static void settle_down(struct sel_run *run, const char *when)
{
    const struct sel_cast *cast = &run->stage.cast;
    uint32_t begun = cast->count;
    int64_t last_us = run->world.now_us + SETTLE_QUIETS_MAX * run->scenario.quiet_us;
    int64_t end_us = run->world.now_us + run->scenario.quiet_us;
    while (!run->world.is_over && !is_idle(run) && run->world.now_us < end_us) {
        go_on(run, run->world.now_us + LOOK_US);
        if (cast->count > begun && run->world.now_us < last_us)
            end_us = run->world.now_us + run->scenario.quiet_us;
        begun = cast->count;
    }
    if (run->world.is_over)
        return;
    sel_world_note(&run->world, "world", when, 0, 0);
    sel_oracle_check_end(run);
    if (run->world.is_over || is_idle(run))
        return;
    const struct sel_broker_stats *stats = &run->server.stats;
    sel_oracle_check_broker(run);
    char producers[100] = "";
    size_t n = 0;
    for (uint32_t i = 0; i < run->scenario.producer_count; i++)
        n += (size_t)snprintf(producers + n, sizeof(producers) - n,
                              " %u due %u unsettled %u waiting", run->sources[i].due_count,
                              sel_producer_unsettled(run->sources[i].producer),
                              sel_producer_waiting(run->sources[i].producer));
    sel_world_violate(&run->world, "idle",
                      "%s: work is left: producers:%s; workers %s, broker %s (%llu queued, %llu "
                      "waiting, %llu delivered)",
                      when, producers, sel_crew_is_idle(run) ? "idle" : "busy",
                      sel_server_is_idle(run) ? "idle" : "busy", (unsigned long long)stats->queued,
                      (unsigned long long)stats->waiting, (unsigned long long)stats->delivered);
}

/* What was promised to survive does: the same results are there after the power failed. */
static void audit(struct sel_run *run)
{
    sel_source_audit(run);
    settle_down(run, "first audit");
    if (run->world.is_over)
        return;
    sel_server_kill(run, run->scenario.seed & 2);
    sel_server_start(run, 1000);
    sel_source_audit(run);
    settle_down(run, "second audit");
    if (!run->world.is_over)
        sel_stage_check_end(run);
}

void sel_run_history(const struct sel_run_options *options, struct sel_run_report *ret)
{
    struct sel_run *run = SEL_NEW(struct sel_run);
    SEL_ASSERT(run);
    run->options = *options;
    if (options->is_short)
        sel_scenario_draw_short(&run->scenario, options->seed);
    else
        sel_scenario_draw(&run->scenario, options->seed, options->modes_only,
                          options->modes_without);
    if (options->has_flows)
        sel_scenario_add_flows(&run->scenario);
    sel_world_init(&run->world, options->seed, options->is_verbose);
    begin(run);
    go_on(run, run->world.now_us + run->scenario.faults_until_us);
    sel_faults_heal(run);
    for (uint32_t i = 0; i < run->oracle.wish_count; i++) /* the last ones come late */
        go_on(run, run->oracle.wishes[i].at_us);
    settle_down(run, "the end");
    if (!run->world.is_over)
        audit(run);
    *ret = (struct sel_run_report){
        .hash = run->world.hash,
        .is_broken = run->world.is_over,
        .modes = run->scenario.modes,
        .events = run->world.fired,
        .frames = run->net.frames,
        .runs = run->oracle.run_count + run->stage.cast.count,
        .tasks = run->scenario.task_count,
        .writes = sel_journal_disk_writes(run->server.disk),
        .cuts = run->net.cuts,
        .deaths = run->oracle.death_count,
        .virtual_us = run->world.now_us,
    };
    memcpy(ret->promise, run->world.promise, sizeof(ret->promise));
    memcpy(ret->text, run->world.text, sizeof(ret->text));
    end(run);
    sel_mem_free(run);
}
