#include "tests/runner/flow_cluster.h"

#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <selinon/client.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/hash.h"
#include "core/prng.h"
#include "storage/storage.h"
#include "tests/runner/flow_seen.h"
#include "tests/runner/process.h"

#define END_MS_MAX 60000  /* nothing takes so long unless it is broken */
#define LOOK_US 100000    /* how often it is looked whether the processes live */
#define SOCKET_SIZE 100u  /* of the path of a socket: the system has room for 107 */
#define KILLS_MAX 4       /* of a case, with --kill */
#define KILL_US_MAX 30000 /* between two of them: most cases take about as long */
#define LOG_SHOWN 1500u   /* the end of a log, with a failure */

extern char **environ;

struct cluster {
    struct sel_flow_case *c;
    char *folder;
    const char *endpoint, *report, *state, *broker_log;
    int watch_fd; /* tells when something in the folder changes */
    struct sel_runner_process broker;
    uint32_t broker_starts;
    struct sel_prng prng; /* with --kill */
    uint32_t kills;       /* still to come */
    struct sel_runner_process workers[SEL_RUNNER_WORKERS_MAX];
    const char *worker_logs[SEL_RUNNER_WORKERS_MAX];
    uint32_t worker_count;
    struct sel_client *client;
    int64_t begin_us; /* when the flow was submitted */
    char **env;       /* of the workers: what this process has, and the case's */
};

static const char *in_folder(struct cluster *u, const char *name)
{
    const char *path = sel_arena_printf(&u->c->arena, "%s/%s", u->folder, name);
    return path ? path : "";
}

/* A text of the case's arena; "" when memory ran out. */
static const char *text_of(struct cluster *u, uint32_t number)
{
    const char *text = sel_arena_printf(&u->c->arena, "%u", number);
    return text ? text : "";
}

static const char *program(struct cluster *u, const char *name)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    const char *path = sel_arena_printf(&u->c->arena, "%s/%s", self, name);
    return path ? path : "";
}

/* With the end of a log, for it says why. */
static void fail_with_log(struct cluster *u, const char *what, const char *text, const char *path)
{
    struct sel_str log = {0};
    if (sel_runner_read_file(&u->c->arena, path, &log, NULL) < 0)
        log = SEL_STR("(there is no log)");
    const char *end = log.n > LOG_SHOWN ? log.p + log.n - LOG_SHOWN : log.p;
    const char *all = sel_arena_printf(&u->c->arena, "%s\n%s", text, end ? end : "");
    sel_flow_case_fail(u->c, what, all ? all : text);
}

/* ---- the folder ---- */

static bool make_folder(struct cluster *u)
{
    const char *tmp = getenv("TMPDIR");
    u->folder = sel_arena_printf(&u->c->arena, "%s/selinon-XXXXXX", tmp ? tmp : "/tmp");
    if (!u->folder || strlen(u->folder) > SOCKET_SIZE || !mkdtemp(u->folder)) {
        sel_flow_case_fail(u->c, "the folder cannot be made (TMPDIR)", sel_error_text(-errno));
        u->folder = NULL;
        return false;
    }
    u->endpoint = sel_arena_printf(&u->c->arena, "ipc://%s/l", u->folder);
    u->report = in_folder(u, "report");
    u->state = in_folder(u, "state");
    u->broker_log = in_folder(u, "broker.log");
    u->watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (u->watch_fd < 0 || inotify_add_watch(u->watch_fd, u->folder, IN_CREATE | IN_MODIFY) < 0)
        sel_flow_case_fail(u->c, "inotify", sel_error_text(-errno));
    return u->endpoint && !u->c->failed;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void remove_folder(struct cluster *u)
{
    if (!u->folder)
        return;
    if (u->c->failed && u->c->options->keep)
        printf("kept: %s\n", u->folder);
    else
        (void)nftw(u->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS); /* the next one has its own */
}

/* ---- results of earlier runs ---- */

/* Where the workers keep what is in memory without them, see sel_executor_options.mock_results. */
static int open_storage(struct cluster *u, const struct sel_storage_def *def,
                        struct sel_storage **ret, struct sel_error *err)
{
    const struct sel_storage_adapter *adapter =
        sel_storage_find(SEL_STR("selinon.storages.filesystem"), SEL_STR("Filesystem"));
    const char *path =
        sel_arena_printf(&u->c->arena, "%s.results/%.*s", u->state, SEL_STR_ARG(def->name));
    struct sel_value_builder map;
    struct sel_value config;
    sel_value_begin_map(&map, &u->c->arena);
    sel_value_put_c(&map, "path", sel_value_from_c(path));
    int r = sel_value_end(&map, &config);
    const struct sel_storage_options options = {.name = def->name, .config = &config};
    return r < 0 ? r : adapter->open(&options, sel_io_blocking(), ret, err);
}

static int store_preset(struct cluster *u, const struct sel_executor_preset *preset,
                        struct sel_error *err)
{
    const struct sel_system *system = u->c->system;
    uint32_t node = sel_system_find(system, preset->task);
    struct sel_storage *storage;
    struct sel_buf bytes = {0};
    if (node == SEL_NONE || sel_system_is_flow(system, node) ||
        system->tasks[node].storage == SEL_NONE)
        return sel_error_set(err, SEL_EREQUEST, (struct sel_pos){0},
                             "a result is given of what is no task with a storage");
    const struct sel_task_def *task = &system->tasks[node];
    int r = open_storage(u, &system->storages[task->storage], &storage, err);
    if (r < 0)
        return r;
    sel_value_encode(&preset->result, &bytes);
    struct sel_storage_item item = {.flow = sel_flow_case_flow(u->c)->name,
                                    .task = task->storage_task_name,
                                    .id = sel_str_c(preset->id),
                                    .value = sel_buf_str(&bytes)};
    r = sel_buf_error(&bytes);
    if (r == 0)
        r = storage->ops->store(storage, sel_io_blocking(), &u->c->arena, &item, 1, err);
    if (r == 0 && item.status == SEL_STORE_FAILED)
        r = sel_error_set(err, SEL_ESTORAGE, (struct sel_pos){0}, "%s", item.message);
    storage->ops->close(storage);
    sel_buf_done(&bytes);
    return r;
}

static bool store_presets(struct cluster *u)
{
    uint32_t count;
    struct sel_error err = {0};
    const struct sel_executor_preset *presets = sel_flow_case_presets(u->c, &count);
    for (uint32_t i = 0; i < count; i++) {
        if (store_preset(u, &presets[i], &err) < 0) {
            sel_flow_case_fail(u->c, "preset", err.text);
            return false;
        }
    }
    return true;
}

/* ---- processes ---- */

static uint32_t times_in(const char *path, const char *text)
{
    struct sel_arena arena = {0};
    struct sel_str log = {0};
    uint32_t count = 0;
    if (sel_runner_read_file(&arena, path, &log, NULL) == 0) {
        for (const char *at = log.p; (at = strstr(at, text)); at++)
            count++;
    }
    sel_arena_done(&arena);
    return count;
}

/* Until the process has logged `text` that often. */
static bool wait_for_text(struct cluster *u, const struct sel_runner_process *process,
                          const char *log, const char *text, uint32_t count)
{
    char events[4096];
    struct pollfd fds[] = {{.fd = u->watch_fd, .events = POLLIN},
                           {.fd = process->fd, .events = POLLIN}};
    while (times_in(log, text) < count) {
        if (fds[1].revents || poll(fds, SEL_COUNT(fds), END_MS_MAX) <= 0) {
            fail_with_log(u, text, "it is not logged", log);
            return false;
        }
        (void)!read(u->watch_fd, events, sizeof(events)); /* whatever it says, we look */
    }
    return true;
}

static bool start_broker(struct cluster *u)
{
    enum { COUNT_ALWAYS = 7 };
    const char *argv[] = {program(u, "selinon-broker"), "--journal", in_folder(u, "journal"),
                          "--listen", u->endpoint, "--query",
                          sel_arena_printf(&u->c->arena, "ipc://%s/q", u->folder),
                          /* with --kill: the dead are missed soon, and nothing is given up */
                          "--lease", "200ms", "--poison-max", "15", NULL};
    if (!u->c->options->kill)
        argv[COUNT_ALWAYS] = NULL;
    int r = sel_runner_process_start(&u->broker, argv, environ, u->broker_log);
    if (r < 0)
        sel_flow_case_fail(u->c, "broker", sel_error_text(r));
    return r == 0 &&
           wait_for_text(u, &u->broker, u->broker_log, "broker.ready", ++u->broker_starts);
}

/* The variables of the case come first, so that they win. */
static char **make_env(struct cluster *u)
{
    const struct sel_runner_env *vars = &u->c->env;
    uint32_t count = 0;
    while (environ[count])
        count++;
    char **env = SEL_ARENA_NEW_ARRAY(&u->c->arena, char *, (size_t)count + vars->count + 1);
    uint32_t n = 0;
    for (uint32_t i = 0; env && i < vars->count; i++) {
        const char *name = vars->names[2 * i], *value = vars->names[2 * i + 1];
        env[n++] = sel_arena_printf(&u->c->arena, "%s=%s", name, value);
    }
    for (uint32_t i = 0; env && i < count; i++) {
        size_t size = strcspn(environ[i], "=");
        const char *name = sel_arena_printf(&u->c->arena, "%.*s", (int)size, environ[i]);
        if (name && !sel_runner_getenv(&u->c->env, name))
            env[n++] = environ[i];
    }
    return env;
}

/* Worker `index`, in place of one that is dead or for the first time. */
static bool start_worker(struct cluster *u, uint32_t index)
{
    const struct sel_runner_options *o = u->c->options;
    const char *const argv[] = {program(u, "selinon-worker"),
                                "--broker",
                                u->endpoint,
                                "--nodes-definition",
                                "nodes.yaml",
                                "--flow-definitions",
                                "flows.yaml",
                                "--mock",
                                "case.json",
                                "--mock-state",
                                u->state,
                                "--mock-report",
                                u->report,
                                "--mock-speed",
                                text_of(u, o->speed),
                                "--threads",
                                text_of(u, o->threads),
                                "--drain-timeout",
                                "30",
                                "--no-supervisor",
                                NULL};
    const char *log = sel_arena_printf(&u->c->arena, "%s/worker-%u.log", u->folder, index);
    int r = SEL_ENOMEM;
    if (u->env && log)
        r = sel_runner_process_start(&u->workers[index], argv, u->env, log);
    if (r < 0)
        sel_flow_case_fail(u->c, "worker", sel_error_text(r));
    else
        u->worker_logs[index] = log;
    if (r == 0 && index == u->worker_count)
        u->worker_count++;
    return r == 0;
}

static bool start_workers(struct cluster *u)
{
    uint32_t count = u->c->options->workers;
    u->env = make_env(u);
    for (uint32_t i = 0; i < count; i++) {
        if (!start_worker(u, i))
            return false;
    }
    for (uint32_t i = 0; i < count; i++) { /* so that all of them take part */
        if (!wait_for_text(u, &u->workers[i], u->worker_logs[i], "worker.session",
                           u->c->options->threads))
            return false;
    }
    return true;
}

static bool do_all_live(struct cluster *u)
{
    for (uint32_t i = 0; i < u->worker_count; i++) {
        if (!sel_runner_process_wait(&u->workers[i], 0))
            continue;
        fail_with_log(u, "worker", "it has ended too early", u->worker_logs[i]);
        return false;
    }
    if (!sel_runner_process_wait(&u->broker, 0))
        return true;
    fail_with_log(u, "broker", "it has ended too early", u->broker_log);
    return false;
}

static void stop_one(struct cluster *u, struct sel_runner_process *process, const char *what,
                     const char *log)
{
    if (!sel_runner_process_stop(process, END_MS_MAX))
        fail_with_log(u, what, "it does not end", log);
    else if (times_in(log, "Sanitizer") > 0 || times_in(log, "runtime error:") > 0)
        fail_with_log(u, what, "a sanitizer complains", log); /* the status may not tell */
    else if (u->c->options->kill && process->status == -SIGTERM)
        return; /* it had not begun yet */
    else if (process->status != 0)
        fail_with_log(u, what,
                      sel_arena_printf(&u->c->arena, "it ended with status %d", process->status),
                      log);
}

/* What they have seen is written when they have ended. */
static void stop_all(struct cluster *u)
{
    for (uint32_t i = 0; i < u->worker_count; i++)
        stop_one(u, &u->workers[i], "worker", u->worker_logs[i]);
    stop_one(u, &u->broker, "broker", u->broker_log);
}

static void end_all(struct cluster *u)
{
    for (uint32_t i = 0; i < u->worker_count; i++)
        sel_runner_process_done(&u->workers[i]);
    sel_runner_process_done(&u->broker);
}

/* One of them dies, or is asked to end and hands over what it has, and begins anew. */
static bool kill_one(struct cluster *u)
{
    uint32_t index = (uint32_t)sel_prng_below(&u->prng, u->worker_count + 1);
    bool is_worker = index < u->worker_count;
    struct sel_runner_process *process = is_worker ? &u->workers[index] : &u->broker;
    u->kills--;
    if (sel_prng_below(&u->prng, 2) == 0)
        stop_one(u, process, is_worker ? "worker" : "broker",
                 is_worker ? u->worker_logs[index] : u->broker_log);
    sel_runner_process_done(process);
    if (u->c->failed)
        return false;
    return is_worker ? start_worker(u, index) : start_broker(u);
}

/* ---- the producer ---- */

static int64_t now_us(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail */
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static bool submit(struct cluster *u)
{
    struct sel_flow_case *c = u->c;
    struct sel_client_options options = SEL_CLIENT_OPTIONS;
    struct sel_selective_request request;
    struct sel_value args = sel_flow_case_member(&c->script, "node_args");
    struct sel_buf bytes = {0};
    const struct sel_flow_def *def = sel_flow_case_flow(c);
    struct sel_client_flow flow = {
        .size = sizeof(flow), .name = def->name, .queue = def->queue, .flags = SEL_CLIENT_ALL};
    if (sel_flow_case_selective(c, &request)) {
        flow.selective_tasks = request.tasks;
        flow.selective_task_count = request.task_count;
        flow.follow_subflows = request.follow_subflows;
        flow.run_subsequent = request.run_subsequent;
    }
    options.endpoints = &u->endpoint;
    options.endpoint_count = 1;
    sel_value_encode(&args, &bytes);
    flow.args = (struct sel_bytes){bytes.p, bytes.n};
    int r = sel_buf_error(&bytes);
    if (r == 0)
        r = sel_client_open(&options, &u->client, NULL);
    u->begin_us = now_us();
    if (r == 0)
        r = sel_client_run_flow(u->client, &flow, NULL, (int64_t)END_MS_MAX * 1000);
    sel_buf_done(&bytes);
    if (r < 0)
        sel_flow_case_fail(c, "producer", sel_client_error_text(r));
    return r == 0;
}

/* The one result, when all has ended. NULL: there is none, and the case failed. */
static struct sel_client_batch *wait_for_result(struct cluster *u)
{
    int64_t end_us = now_us() + (int64_t)END_MS_MAX * 1000;
    struct sel_client_batch *batch = NULL;
    while (now_us() < end_us) {
        int64_t wait_us = LOOK_US;
        if (u->kills > 0)
            wait_us = (int64_t)sel_prng_below(&u->prng, KILL_US_MAX);
        int64_t n = sel_client_next(u->client, &batch, wait_us);
        if (n == 1)
            return batch;
        if (n != -ETIMEDOUT && n != -EAGAIN) {
            sel_flow_case_fail(u->c, "producer",
                               n < 0 ? sel_client_error_text((int)n) : "no result will come");
            return NULL;
        }
        if (!do_all_live(u) || (u->kills > 0 && !kill_one(u)))
            return NULL;
    }
    fail_with_log(u, "the flow does not end", "the first worker says:", u->worker_logs[0]);
    return NULL;
}

/* ---- a run ---- */

static struct sel_value payload_of(struct cluster *u, const struct sel_client_result *result)
{
    struct sel_value value = sel_value_null;
    struct sel_error err = {0};
    if (sel_value_decode(&u->c->arena, result->payload.p, result->payload.n, true, &value, &err) <
        0)
        sel_flow_case_fail(u->c, "result", err.text);
    return value;
}

static void expect_refusal(struct cluster *u, const struct sel_value *result,
                           const struct sel_flow_seen *seen)
{
    struct sel_value class = sel_flow_case_member(result, "class");
    struct sel_value text = sel_flow_case_member(result, "message");
    const char *message = sel_runner_json(&u->c->arena, &text);
    const char *name = NULL;
    if (sel_value_is(&class, SEL_TEXT))
        name = sel_arena_printf(&u->c->arena, "%.*s", SEL_STR_ARG(sel_value_str(&class)));
    if (name)
        sel_flow_case_refused(u->c, name, message);
    else
        sel_flow_case_fail(u->c, "error", "the run was to be refused");
    if (name && seen->executions.count > 0)
        sel_flow_case_fail(u->c, "error", "the run was refused, but tasks ran");
}

static void compare(struct cluster *u, const struct sel_client_result *result)
{
    static const char *const outcomes[] = {[SEL_CLIENT_OK] = "success",
                                           [SEL_CLIENT_FAILED] = "failure",
                                           [SEL_CLIENT_CANCELLED] = "canceled",
                                           [SEL_CLIENT_REFUSED] = "refused"};
    struct sel_flow_top top = {.speed = (double)u->c->options->speed, .begin_us = u->begin_us};
    struct sel_flow_seen seen;
    struct sel_str text = {0};
    struct sel_error err = {0};
    top.outcome = result->status < SEL_COUNT(outcomes) ? outcomes[result->status] : "?";
    top.state = payload_of(u, result);
    if (sel_runner_read_file(&u->c->arena, u->report, &text, &err) < 0)
        sel_flow_case_fail(u->c, "report", err.text);
    sel_flow_seen_init(&seen, u->c, u->c->options->kill);
    sel_flow_seen_read(&seen, text);
    if (sel_flow_case_is_refused(u->c))
        expect_refusal(u, &top.state, &seen);
    else
        sel_flow_seen_compare(&seen, &top);
    sel_flow_seen_done(&seen);
}

static void run_flow(struct cluster *u)
{
    struct sel_client_batch *batch = NULL;
    if (!store_presets(u) || !start_broker(u) || !start_workers(u) || !submit(u))
        return;
    batch = wait_for_result(u);
    if (sel_client_close(u->client, (int64_t)END_MS_MAX * 1000) < 0)
        sel_flow_case_fail(u->c, "producer", "the broker does not settle what it has");
    u->client = NULL;
    stop_all(u);
    if (batch)
        compare(u, &batch->results[0]);
    sel_client_batch_free(batch);
}

/* A configuration that is to be refused. */
static void expect_refused_worker(struct cluster *u)
{
    struct sel_str log = {0};
    u->env = make_env(u);
    if (!start_worker(u, 0))
        return;
    struct sel_runner_process *worker = &u->workers[0];
    const char *path = u->worker_logs[0];
    if (!sel_runner_process_wait(worker, END_MS_MAX))
        fail_with_log(u, "worker", "it takes the configuration", path);
    else if (worker->status != 1 || sel_runner_read_file(&u->c->arena, path, &log, NULL) < 0 ||
             !strstr(log.p, "Error: the configuration has "))
        fail_with_log(u, "worker", "it does not refuse the configuration", path);
}

void sel_flow_cluster_run(struct sel_flow_case *c)
{
    struct cluster u = {.c = c, .watch_fd = -1};
    if (c->options->kill) {
        u.prng.state = c->options->seed ^ sel_hash_bytes(c->name, strlen(c->name), 0);
        u.kills = KILLS_MAX;
    }
    if (c->system && !sel_flow_case_flow(c))
        sel_flow_case_fail(c, "the flow", "there is none of this name");
    else if (make_folder(&u) && c->system)
        run_flow(&u);
    else if (u.folder)
        expect_refused_worker(&u);
    (void)sel_client_close(u.client, 0); /* after a failure only */
    end_all(&u);
    if (u.watch_fd >= 0)
        (void)close(u.watch_fd);
    remove_folder(&u);
}
