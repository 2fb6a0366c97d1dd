#include "broker/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "broker/commit.h"
#include "broker/logger.h"
#include "broker/loop.h"
#include "core/mem.h"
#include "storage/journal.h"

struct sel_broker_process {
    const struct sel_broker_config *config;
    struct sel_broker_logger logger;
    struct sel_journal *journal;      /* NULL: none */
    struct sel_broker_commit *commit; /* NULL: none */
    struct sel_broker_loop *loop;
    struct sel_broker *broker;
    pthread_t thread;
    int end_fd;
    int result;
};

static struct sel_broker_now read_clocks(void)
{
    struct timespec mono, unix_time; /* neither call can fail with these clocks */
    (void)clock_gettime(CLOCK_MONOTONIC, &mono);
    (void)clock_gettime(CLOCK_REALTIME, &unix_time);
    return (struct sel_broker_now){mono.tv_sec * INT64_C(1000000) + mono.tv_nsec / 1000,
                                   unix_time.tv_sec * INT64_C(1000000) + unix_time.tv_nsec / 1000};
}

static int64_t ms_since(int64_t begin_us)
{
    return (read_clocks().mono_us - begin_us) / 1000;
}

/* ---- what the core asks of the world ---- */

static int io_send(void *ctx, uint32_t connection, struct sel_str frame)
{
    struct sel_broker_process *process = ctx;
    return sel_broker_loop_send(process->loop, connection, frame);
}

static int io_read(void *ctx, uint64_t seq, uint64_t offset, uint64_t n, struct sel_buf *buf)
{
    struct sel_broker_process *process = ctx;
    struct sel_error err;
    int r = process->journal->ops->read(process->journal, seq, offset, n, buf, &err);
    if (r < 0)
        sel_broker_logger_put(&process->logger, SEL_BROKER_ERROR, "journal.read",
                              "batch=%" PRIu64 " offset=%" PRIu64 " bytes=%" PRIu64
                              " error=%s text=\"%s\"",
                              seq, offset, n, sel_error_name(r), err.text);
    return r;
}

static void io_log(void *ctx, enum sel_broker_log level, const char *event, const char *text)
{
    struct sel_broker_process *process = ctx;
    sel_broker_logger_log(&process->logger, level, event, text);
}

/* ---- the start ---- */

static int open_journal(struct sel_broker_process *process, struct sel_error *err)
{
    const struct sel_broker_config *config = process->config;
    if (!config->journal)
        return 0;
    struct sel_journal_lmdb_options options = {.path = config->journal,
                                               .size_max = config->journal_size_max,
                                               .reserve = config->journal_reserve};
    int64_t begin_us = read_clocks().mono_us;
    int r = sel_journal_lmdb_open(&options, &process->journal, err);
    if (r < 0)
        return r;
    struct sel_journal_stats stats;
    process->journal->ops->stats(process->journal, &stats);
    sel_broker_logger_put(
        &process->logger, SEL_BROKER_INFO, "journal.open",
        "path=%s first=%" PRIu64 " last=%" PRIu64 " bytes=%" PRIu64 " ms=%" PRId64, config->journal,
        stats.first, stats.last, stats.bytes_live, ms_since(begin_us));
    return 0;
}

static int new_broker(struct sel_broker_process *process, struct sel_error *err)
{
    struct sel_broker_io io = {process, io_send, process->journal ? io_read : NULL, io_log};
    struct sel_id id;
    struct sel_broker_options options = process->config->options;
    if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id) ||
        getrandom(&options.seed, sizeof(options.seed), 0) != (ssize_t)sizeof(options.seed))
        return sel_error_set(err, -errno, (struct sel_pos){0}, "no random bytes: %s",
                             strerror(errno));
    return sel_broker_new(&options, &io, id, &process->broker, err);
}

struct replay {
    struct sel_broker *broker;
    struct sel_broker_now now;
    uint64_t batches;
};

static int replay_batch(void *ctx, uint64_t seq, struct sel_str batch, struct sel_error *err)
{
    struct replay *replay = ctx;
    replay->batches++;
    return sel_broker_replay(replay->broker, seq, batch, replay->now, err);
}

static int replay_journal(struct sel_broker_process *process, struct sel_error *err)
{
    struct replay replay = {process->broker, read_clocks(), 0};
    struct sel_journal *journal = process->journal;
    if (!journal)
        return 0;
    int r = journal->ops->walk(journal, 0, replay_batch, &replay, err);
    if (r < 0)
        return r;
    struct sel_journal_stats journaled;
    journal->ops->stats(journal, &journaled);
    sel_broker_note_journal(process->broker, journaled.bytes_live);
    struct sel_broker_stats stats;
    sel_broker_get_stats(process->broker, &stats);
    sel_broker_logger_put(&process->logger, SEL_BROKER_INFO, "journal.replayed",
                          "batches=%" PRIu64 " tasks=%" PRIu64 " ms=%" PRId64, replay.batches,
                          stats.tasks, ms_since(replay.now.mono_us));
    return 0;
}

static void wake_loop(void *ctx)
{
    sel_broker_loop_wake(ctx);
}

static int open_all(struct sel_broker_process *process, struct sel_error *err)
{
    const struct sel_broker_config *config = process->config;
    struct sel_broker_loop_options options = {.listen = config->listen,
                                              .query = config->query,
                                              .io_threads = config->io_threads,
                                              .socket_messages = config->socket_messages};
    process->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (process->end_fd < 0)
        return sel_error_set(err, -errno, (struct sel_pos){0}, "eventfd: %s", strerror(errno));
    /* The journal first: its lock keeps a second broker from the sockets of the first. */
    int r = open_journal(process, err);
    if (r == 0)
        r = new_broker(process, err);
    if (r == 0)
        r = sel_broker_loop_new(&options, &process->loop, err);
    if (r == 0)
        r = replay_journal(process, err);
    if (r < 0)
        return r;
    r = sel_broker_start(process->broker, read_clocks());
    if (r == 0 && process->journal)
        r = sel_broker_commit_new(process->journal, wake_loop, process->loop, &process->commit);
    return r == 0 ? 0 : sel_error_set(err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
}

static void put_endpoints(struct sel_buf *out, const char *what,
                          const struct sel_broker_endpoints *endpoints)
{
    for (uint32_t i = 0; i < endpoints->count; i++)
        sel_buf_printf(out, "%s %s\n", what, endpoints->items[i]);
}

/* Whole or not at all: who waits for the file reads it at once. */
static int write_ready_file(const struct sel_broker_process *process, struct sel_error *err)
{
    const char *path = process->config->ready_file;
    if (!path)
        return 0;
    char part[4096];
    if ((size_t)snprintf(part, sizeof(part), "%s.part", path) >= sizeof(part))
        return sel_error_set(err, -ENAMETOOLONG, (struct sel_pos){0}, "ready_file: %s",
                             sel_error_text(-ENAMETOOLONG));
    struct sel_buf text = {0};
    put_endpoints(&text, "listen", sel_broker_loop_listens(process->loop));
    put_endpoints(&text, "query", sel_broker_loop_queries(process->loop));
    int r = sel_buf_error(&text);
    int fd = r == 0 ? open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
    if (r == 0 && fd < 0)
        r = -errno;
    if (r == 0 && write(fd, text.p, text.n) != (ssize_t)text.n)
        r = errno ? -errno : -EIO;
    if (fd >= 0)
        (void)close(fd);
    if (r == 0 && rename(part, path) < 0)
        r = -errno;
    sel_buf_done(&text);
    return r == 0 ? 0
                  : sel_error_set(err, r, (struct sel_pos){.file = path},
                                  "the ready file cannot be written: %s", sel_error_text(r));
}

static void log_ready(struct sel_broker_process *process, int64_t begin_us)
{
    const struct sel_broker_endpoints *listens = sel_broker_loop_listens(process->loop);
    const struct sel_broker_endpoints *queries = sel_broker_loop_queries(process->loop);
    for (uint32_t i = 0; i < listens->count; i++)
        sel_broker_logger_put(&process->logger, SEL_BROKER_INFO, "broker.listen", "endpoint=%s",
                              listens->items[i]);
    for (uint32_t i = 0; i < queries->count; i++)
        sel_broker_logger_put(&process->logger, SEL_BROKER_INFO, "broker.query", "endpoint=%s",
                              queries->items[i]);
    struct sel_broker_stats stats;
    sel_broker_get_stats(process->broker, &stats);
    sel_broker_logger_put(&process->logger, SEL_BROKER_INFO, "broker.ready",
                          "name=%s version=%s pid=%ld incarnation=%" PRIu32 " tasks=%" PRIu64
                          " ms=%" PRId64,
                          process->config->name, SEL_VERSION, (long)getpid(), stats.incarnation,
                          stats.tasks, ms_since(begin_us));
}

/* After the sockets were made, so that their I/O threads may run anywhere. */
static void pin(struct sel_broker_process *process)
{
    int32_t cpu = process->config->pin;
    if (cpu < 0)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        sel_broker_logger_put(&process->logger, SEL_BROKER_WARNING, "broker.pin",
                              "cpu=%" PRId32 " error=%s", cpu, sel_error_name(-errno));
}

static void *run(void *arg)
{
    struct sel_broker_process *process = arg;
    struct sel_broker_loop_work work = {process->broker, process->commit, process->journal,
                                        &process->logger};
    (void)pthread_setname_np(pthread_self(), "broker");
    pin(process);
    process->result = sel_broker_loop_run(process->loop, &work);
    uint64_t one = 1;
    ssize_t r = write(process->end_fd, &one, sizeof(one));
    (void)r; /* a counter of 1 fits */
    return NULL;
}

static void free_all(struct sel_broker_process *process)
{
    process->commit = sel_broker_commit_free(process->commit);
    process->broker = sel_broker_free(process->broker);
    if (process->journal)
        process->journal->ops->close(process->journal);
    process->loop = sel_broker_loop_free(process->loop);
    if (process->end_fd >= 0)
        (void)close(process->end_fd);
    (void)sel_mem_free(process);
}

int sel_broker_process_start(const struct sel_broker_config *config, int log_fd,
                             struct sel_broker_process **ret, struct sel_error *err)
{
    int64_t begin_us = read_clocks().mono_us;
    struct sel_broker_process *process = SEL_NEW(struct sel_broker_process);
    if (!process)
        return sel_error_set(err, SEL_ENOMEM, (struct sel_pos){0}, "%s",
                             sel_error_text(SEL_ENOMEM));
    process->config = config;
    process->end_fd = -1;
    sel_broker_logger_init(&process->logger, log_fd, config->log_level);
    int r = open_all(process, err);
    if (r == 0)
        r = write_ready_file(process, err);
    if (r == 0) {
        log_ready(process, begin_us);
        r = -pthread_create(&process->thread, NULL, run, process);
        if (r < 0)
            (void)sel_error_set(err, r, (struct sel_pos){0}, "no thread: %s", sel_error_text(r));
    }
    if (r < 0) {
        free_all(process);
        return r;
    }
    *ret = process;
    return 0;
}

const struct sel_broker_endpoints *
sel_broker_process_listens(const struct sel_broker_process *process)
{
    return sel_broker_loop_listens(process->loop);
}

const struct sel_broker_endpoints *
sel_broker_process_queries(const struct sel_broker_process *process)
{
    return sel_broker_loop_queries(process->loop);
}

void *sel_broker_process_context(const struct sel_broker_process *process)
{
    return sel_broker_loop_context(process->loop);
}

void sel_broker_process_stop(struct sel_broker_process *process, const char *reason)
{
    sel_broker_loop_stop(process->loop, reason);
}

int sel_broker_process_end_fd(const struct sel_broker_process *process)
{
    return process->end_fd;
}

int sel_broker_process_join(struct sel_broker_process *process)
{
    (void)pthread_join(process->thread, NULL);
    int result = process->result;
    sel_broker_logger_put(&process->logger, result == 0 ? SEL_BROKER_INFO : SEL_BROKER_ERROR,
                          "broker.end", "result=%s", result == 0 ? "0" : sel_error_name(result));
    free_all(process);
    return result;
}
