#include "worker/tracer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/json.h"
#include "core/mem.h"
#include "worker/module.h"

/* An event on its way to storages. */
struct record {
    struct record *next;
    enum sel_trace_event event;
    size_t size;    /* of all */
    char details[]; /* encoded */
};

struct sink {
    const struct sel_trace_def *def;
    sel_trace_fn function;       /* SEL_TRACE_FUNCTION */
    struct sel_storage *storage; /* SEL_TRACE_STORAGE */
    bool has_failed;             /* and this was said; atomic */
};

struct sel_tracer {
    struct sel_tracer_options options;
    struct sink *sinks;
    uint32_t sink_count;
    char host[256];
    uint64_t lost; /* atomic */

    pthread_mutex_t write_lock; /* long lines go out in pieces, which must not mix */

    bool has_storage;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;
    pthread_cond_t filled;
    struct record *first, *last;
    size_t queued_bytes;
    bool has_overflown; /* and this was said; atomic */
    bool closing;
};

#define BATCH_MAX 1024u                     /* events given to storages at once */
#define QUEUED_BYTES_MAX ((size_t)64 << 20) /* of events that wait for storages */

#define LOG_NAME_WIDTH 10 /* of the host in lines of the logging sink */

/* ---- lines ---- */

static void put_time(struct sel_buf *line, int64_t unix_us)
{
    time_t seconds = (time_t)(unix_us / 1000000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    sel_buf_printf(line, "%04d-%02d-%02d %02d:%02d:%02d.%06d", tm.tm_year + 1900, tm.tm_mon + 1,
                   tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(unix_us % 1000000));
}

/* {"details": ..., "event": ..., ["node": ...,] "time": ...}: keys sorted. */
static void put_json(const struct sel_tracer *tracer, struct sel_buf *line,
                     enum sel_trace_event event, const struct sel_value *details, bool with_node,
                     int64_t unix_us)
{
    struct sel_value host = sel_value_from_c(tracer->host);
    sel_buf_put_c(line, "{\"details\": ");
    sel_json_write(details, SEL_JSON_SORT | SEL_JSON_SPACED, line);
    sel_buf_printf(line, ", \"event\": \"%s\"", sel_trace_name(event));
    if (with_node) {
        sel_buf_put_c(line, ", \"node\": ");
        sel_json_write(&host, SEL_JSON_SPACED, line);
    }
    sel_buf_put_c(line, ", \"time\": \"");
    put_time(line, unix_us);
    sel_buf_put_c(line, "\"}\n");
}

/* A terminal or pipe that somebody made non-blocking is waited for. */
static int write_line(int fd, const struct sel_buf *line)
{
    size_t done = 0;
    while (done < line->n) {
        ssize_t n = write(fd, line->p + done, line->n - done);
        struct pollfd room = {.fd = fd, .events = POLLOUT};
        if (n < 0 && errno == EAGAIN)
            (void)poll(&room, 1, -1); /* if it fails, so will the next write */
        else if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int emit_line(struct sel_tracer *tracer, const struct sink *sink, enum sel_trace_event event,
                     const struct sel_value *details, int64_t unix_us)
{
    enum sel_trace_level level = sel_trace_level_of(event);
    struct sel_buf line = {0};
    int fd = level == SEL_LEVEL_INFO ? tracer->options.out_fd : tracer->options.err_fd;
    if (sink->def->kind == SEL_TRACE_LOGGING) {
        if (level == SEL_LEVEL_INFO && !tracer->options.log_info)
            return 0;
        fd = tracer->options.err_fd;
        sel_buf_printf(&line, "SELINON %*s - %s : ", LOG_NAME_WIDTH, tracer->host,
                       sel_trace_name(event));
    }
    put_json(tracer, &line, event, details, sink->def->kind == SEL_TRACE_JSON, unix_us);
    int r = sel_buf_error(&line);
    if (r == 0) {
        pthread_mutex_lock(&tracer->write_lock);
        r = write_line(fd, &line);
        pthread_mutex_unlock(&tracer->write_lock);
    }
    sel_buf_done(&line);
    return r;
}

/* ---- storages ---- */

/* The records that wait, at most BATCH_MAX; 0: the tracer closes. */
static uint32_t next_records(struct sel_tracer *tracer, struct record *records[BATCH_MAX])
{
    uint32_t count = 0;
    pthread_mutex_lock(&tracer->lock);
    while (!tracer->first && !tracer->closing)
        pthread_cond_wait(&tracer->filled, &tracer->lock);
    while (tracer->first && count < BATCH_MAX) {
        records[count++] = tracer->first;
        tracer->queued_bytes -= tracer->first->size;
        tracer->first = tracer->first->next;
    }
    if (!tracer->first)
        tracer->last = NULL;
    pthread_mutex_unlock(&tracer->lock);
    return count;
}

/* `has_failed` is that of a sink, or of the way to the storages. */
static void sink_failed(struct sel_tracer *tracer, bool *has_failed, const char *why)
{
    __atomic_fetch_add(&tracer->lost, 1, __ATOMIC_RELAXED);
    if (!__atomic_exchange_n(has_failed, true, __ATOMIC_RELAXED))
        (void)dprintf(tracer->options.err_fd,
                      "selinon: a trace sink failed and is tried on with the next events: %s\n",
                      why);
}

static int give(struct sink *sink, const struct sel_storage_event *events, uint32_t count,
                struct sel_error *err)
{
    return sink->storage->ops->trace(sink->storage, sel_io_blocking(), events, count, err);
}

/* In one batch, which is one commit for a storage that syncs; if that fails, a part at a time, so
 * that one event does not take the others with it. */
static void give_to_storage(struct sel_tracer *tracer, struct sink *sink,
                            const struct sel_storage_event *events, uint32_t count)
{
    struct sel_error err = {0};
    if (count > 1 && give(sink, events, count, &err) == 0)
        return;
    for (uint32_t i = 0; i < count; i++) {
        int r = give(sink, &events[i], 1, &err);
        if (r < 0)
            sink_failed(tracer, &sink->has_failed, err.text[0] ? err.text : sel_error_text(r));
    }
}

static void give_to_storages(struct sel_tracer *tracer, struct record *const records[],
                             uint32_t count)
{
    struct sel_storage_event events[BATCH_MAX];
    for (uint32_t i = 0; i < count; i++) {
        events[i].name = sel_str_c(sel_trace_name(records[i]->event));
        events[i].details =
            (struct sel_str){records[i]->details, records[i]->size - sizeof(*records[i])};
    }
    for (uint32_t i = 0; i < tracer->sink_count; i++) {
        if (tracer->sinks[i].storage)
            give_to_storage(tracer, &tracer->sinks[i], events, count);
    }
}

static void *storage_main(void *arg)
{
    struct sel_tracer *tracer = arg;
    struct sel_modules *modules = tracer->options.modules;
    struct record *records[BATCH_MAX];
    uint32_t count;
    struct sel_error err = {0};
    bool is_ready = !modules || sel_modules_thread_init(modules, &err) == 0;
    while ((count = next_records(tracer, records)) > 0) {
        if (is_ready)
            give_to_storages(tracer, records, count);
        for (uint32_t i = 0; i < count; i++) {
            if (!is_ready)
                sink_failed(tracer, &tracer->has_overflown, err.text);
            sel_mem_free(records[i]);
        }
    }
    if (modules)
        sel_modules_thread_done(modules);
    return NULL;
}

/* 0 or SEL_ELIMIT: the storages do not keep up, and no loop waits for them. */
static int queue_record(struct sel_tracer *tracer, struct record *record)
{
    pthread_mutex_lock(&tracer->lock);
    bool has_room = tracer->queued_bytes + record->size <= QUEUED_BYTES_MAX;
    if (has_room) {
        if (tracer->last)
            tracer->last->next = record;
        else
            tracer->first = record;
        tracer->last = record;
        tracer->queued_bytes += record->size;
        pthread_cond_signal(&tracer->filled);
    }
    pthread_mutex_unlock(&tracer->lock);
    return has_room ? 0 : SEL_ELIMIT;
}

static int hand_to_storages(struct sel_tracer *tracer, enum sel_trace_event event,
                            const struct sel_value *details)
{
    struct sel_buf bytes = {0};
    sel_value_encode(details, &bytes);
    struct record *record = bytes.failed ? NULL : sel_mem_alloc(sizeof(*record) + bytes.n);
    int r = record ? 0 : SEL_ENOMEM;
    if (record) {
        *record = (struct record){.event = event, .size = sizeof(*record) + bytes.n};
        memcpy(record->details, bytes.p, bytes.n);
        r = queue_record(tracer, record);
    }
    if (r < 0)
        sel_mem_free(record);
    sel_buf_done(&bytes);
    return r;
}

/* ---- emitting ---- */

bool sel_tracer_is_on(const struct sel_tracer *tracer)
{
    return tracer->sink_count > 0 || tracer->options.observer;
}

static int emit_to(struct sel_tracer *tracer, const struct sink *sink, enum sel_trace_event event,
                   const struct sel_value *details, int64_t unix_us)
{
    switch (sink->def->kind) {
    case SEL_TRACE_LOGGING:
    case SEL_TRACE_JSON:
        return emit_line(tracer, sink, event, details, unix_us);
    case SEL_TRACE_FUNCTION:
        return sink->function(event, sel_trace_name(event), details);
    case SEL_TRACE_STORAGE: /* all at once, below */
    case SEL_TRACE_SENTRY:  /* said at the start */
        return 0;
    }
    return 0;
}

void sel_tracer_emit(struct sel_tracer *tracer, enum sel_trace_event event,
                     const struct sel_value *details)
{
    sel_tracer_emit_late(tracer, event, details, 0);
}

void sel_tracer_emit_late(struct sel_tracer *tracer, enum sel_trace_event event,
                          const struct sel_value *details, int64_t age_us)
{
    if (tracer->options.observer)
        tracer->options.observer(tracer->options.observer_ctx, event, details, age_us);
    if (tracer->sink_count == 0)
        return;
    int64_t unix_us = tracer->options.unix_us(tracer->options.clock_ctx) - age_us;
    for (uint32_t i = 0; i < tracer->sink_count; i++) {
        int r = emit_to(tracer, &tracer->sinks[i], event, details, unix_us);
        if (r < 0)
            sink_failed(tracer, &tracer->sinks[i].has_failed, sel_error_text(r));
    }
    int r = tracer->has_storage ? hand_to_storages(tracer, event, details) : 0;
    if (r < 0)
        sink_failed(tracer, &tracer->has_overflown,
                    r == SEL_ELIMIT ? "the storages do not keep up" : sel_error_text(r));
}

uint64_t sel_tracer_lost(const struct sel_tracer *tracer)
{
    return __atomic_load_n(&tracer->lost, __ATOMIC_RELAXED);
}

/* ---- life ---- */

static int open_function(struct sel_tracer *tracer, struct sink *sink, struct sel_error *err)
{
    const struct sel_import *import = &sink->def->function;
    const struct sel_module_entry *entry;
    struct sel_error own = {0};
    if (!tracer->options.modules)
        return sel_error_set(err, SEL_ENOTFOUND, import->pos,
                             "trace: there are no modules to take function '%.*s' from",
                             SEL_STR_ARG(import->name));
    int r = sel_modules_find(tracer->options.modules, SEL_MODULE_TRACE, import->module,
                             import->name, &entry, &own);
    if (r < 0)
        return sel_error_set(err, r, import->pos, "trace: %s", own.text);
    sink->function = entry->u.trace;
    return 0;
}

/* Built-in storages have one method for events, whatever the configuration calls it. */
static int open_sink_storage(struct sel_tracer *tracer, struct sink *sink, struct sel_error *err)
{
    const struct sel_storage_def *def = &tracer->options.system->storages[sink->def->storage];
    int r = tracer->options.storage(tracer->options.storage_ctx, sink->def->storage, &sink->storage,
                                    err);
    if (r < 0)
        return r;
    if (!sink->storage->ops->trace)
        return sel_error_set(err, SEL_EUNSUPPORTED, def->pos,
                             "storage '%.*s' keeps no trace events: its adapter has no '%.*s'",
                             SEL_STR_ARG(def->name), SEL_STR_ARG(sink->def->method));
    tracer->has_storage = true;
    return 0;
}

static int open_sink(struct sel_tracer *tracer, struct sink *sink, struct sel_error *err)
{
    switch (sink->def->kind) {
    case SEL_TRACE_FUNCTION:
        return open_function(tracer, sink, err);
    case SEL_TRACE_STORAGE:
        return open_sink_storage(tracer, sink, err);
    case SEL_TRACE_SENTRY:
        (void)dprintf(tracer->options.err_fd,
                      "selinon: trace: reports to Sentry are not sent by this version\n");
        return 0;
    case SEL_TRACE_LOGGING:
    case SEL_TRACE_JSON:
        return 0;
    }
    return 0;
}

int sel_tracer_new(const struct sel_tracer_options *options, struct sel_tracer **ret,
                   struct sel_error *err)
{
    struct sel_tracer *tracer = SEL_NEW(struct sel_tracer);
    if (!tracer)
        return sel_error_set(err, SEL_ENOMEM, (struct sel_pos){0}, "out of memory");
    tracer->options = *options;
    pthread_mutex_init(&tracer->lock, NULL);
    pthread_mutex_init(&tracer->write_lock, NULL);
    pthread_cond_init(&tracer->filled, NULL);
    if (gethostname(tracer->host, sizeof(tracer->host) - 1) < 0)
        memcpy(tracer->host, "localhost", sizeof("localhost"));
    uint32_t count = options->system->trace_count;
    tracer->sinks = sel_mem_zalloc(sizeof(*tracer->sinks) * ((size_t)count + 1));
    int r =
        tracer->sinks ? 0 : sel_error_set(err, SEL_ENOMEM, (struct sel_pos){0}, "out of memory");
    for (uint32_t i = 0; i < count && r == 0; i++) {
        tracer->sinks[i].def = &options->system->traces[i];
        r = open_sink(tracer, &tracer->sinks[i], err);
    }
    if (r == 0 && tracer->has_storage) {
        r = -pthread_create(&tracer->thread, NULL, storage_main, tracer);
        tracer->has_thread = r == 0;
        if (r < 0)
            (void)sel_error_set(err, r, (struct sel_pos){0},
                                "trace: a thread cannot be started: %s", sel_error_text(r));
    }
    if (r < 0) {
        sel_tracer_free(tracer);
        return r;
    }
    tracer->sink_count = count;
    *ret = tracer;
    return 0;
}

struct sel_tracer *sel_tracer_free(struct sel_tracer *tracer)
{
    if (!tracer)
        return NULL;
    if (tracer->has_thread) {
        pthread_mutex_lock(&tracer->lock);
        tracer->closing = true;
        pthread_cond_signal(&tracer->filled);
        pthread_mutex_unlock(&tracer->lock);
        pthread_join(tracer->thread, NULL);
    }
    uint64_t lost = sel_tracer_lost(tracer);
    if (lost > 0)
        (void)dprintf(tracer->options.err_fd, "selinon: %llu trace events did not reach a sink\n",
                      (unsigned long long)lost);
    sel_mem_free(tracer->sinks);
    pthread_mutex_destroy(&tracer->lock);
    pthread_mutex_destroy(&tracer->write_lock);
    pthread_cond_destroy(&tracer->filled);
    return sel_mem_free(tracer);
}
