/* Other systems, by way of perf/peers/peer.py, which starts, measures and stops them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "perf/bench.h"
#include "perf/bench_fabric.h"

#define MISSING 77 /* how peer.py says that something is not installed */
#define ARGUMENTS_MAX 24
#define NUMBER_SIZE 24

struct command {
    const char *argv[ARGUMENTS_MAX];
    uint32_t count;
    char numbers[ARGUMENTS_MAX][NUMBER_SIZE];
};

static void add(struct command *command, const char *word)
{
    SEL_ASSERT(command->count + 1 < ARGUMENTS_MAX);
    command->argv[command->count++] = word;
}

/* An option with a number; 0: left out. */
static void add_number(struct command *command, const char *option, uint64_t number)
{
    if (number == 0)
        return;
    char *text = command->numbers[command->count];
    (void)snprintf(text, NUMBER_SIZE, "%llu", (unsigned long long)number);
    add(command, option);
    add(command, text);
}

static double number_of(const char *json, const char *key)
{
    char quoted[32];
    (void)snprintf(quoted, sizeof(quoted), "\"%s\":", key);
    const char *at = strstr(json, quoted);
    return at ? strtod(at + strlen(quoted), NULL) : NAN;
}

int sel_rival_measure(const struct sel_rival *rival, struct sel_rival_result *ret)
{
    struct sel_stage stage;
    struct command command = {.count = 0};
    char clients[SEL_STAGE_PATH_MAX], variable[SEL_STAGE_PATH_MAX + 32], out[1024];
    const char *const vars[] = {variable, NULL};
    *ret = (struct sel_rival_result){NAN, NAN, NAN};
    int r = sel_stage_open(&stage);
    if (r < 0)
        return r;
    (void)snprintf(variable, sizeof(variable), "SELINON_PEERS=%s",
                   sel_stage_program("selinon-peers", clients));
    add(&command, "/usr/bin/python3");
    add(&command, SEL_BENCH_SOURCE "/perf/peers/peer.py");
    add(&command, rival->name);
    add(&command, "--folder");
    add(&command, stage.folder);
    if (rival->program) {
        add(&command, "--program");
        add(&command, rival->program);
    }
    if (rival->transport) {
        add(&command, "--transport");
        add(&command, rival->transport);
    }
    add_number(&command, "--count", rival->count);
    add_number(&command, "--window", rival->window);
    add_number(&command, "--batch", rival->batch);
    add_number(&command, "--record-bytes", rival->record_bytes);
    add_number(&command, "--reply-bytes", rival->reply_bytes);
    add_number(&command, "--head-bytes", rival->head_bytes);
    r = sel_stage_run(&stage, command.argv, vars, out, sizeof(out));
    if (r == 0) {
        *ret = (struct sel_rival_result){number_of(out, "per_s"), number_of(out, "p50_us"),
                                         number_of(out, "p99_us")};
    } else if (r != MISSING) {
        fprintf(stderr, "selinon-bench: %s could not be measured\n", rival->name);
        sel_stage_show(&stage);
    }
    sel_stage_close(&stage);
    return r < 0 ? r : 0;
}
