#include "worker/mock_report.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/json.h"
#include "core/mem.h"

struct sel_mock_report {
    struct sel_executor_observer observer;
    int fd;
    int64_t (*now_us)(void *ctx);
    void *clock;
    uint64_t lost; /* atomic */
};

/* One line under construction, on any thread. It begins on a new line whatever is before it: a
 * worker that is killed in a write leaves a line without an end. */
struct line {
    struct sel_arena arena;
    struct sel_value_builder map;
};

static int64_t monotonic_us(void *ctx)
{
    struct timespec now = {0};
    (void)ctx;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail */
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void begin_late(const struct sel_mock_report *report, struct line *line, const char *what,
                       int64_t age_us)
{
    *line = (struct line){0};
    sel_value_begin_map(&line->map, &line->arena);
    sel_value_put_c(&line->map, "what", sel_value_from_c(what));
    sel_value_put_c(&line->map, "at_us",
                    sel_value_from_i64(report->now_us(report->clock) - age_us));
}

static void begin(const struct sel_mock_report *report, struct line *line, const char *what)
{
    begin_late(report, line, what, 0);
}

static void put_str(struct line *line, const char *key, struct sel_str text)
{
    sel_value_put_c(&line->map, key, sel_value_from_str(text));
}

static void put_text(struct line *line, const char *key, const char *text)
{
    sel_value_put_c(&line->map, key, sel_value_from_c(text));
}

static void put_value(struct line *line, const char *key, const struct sel_value *value)
{
    sel_value_put_c(&line->map, key, value ? *value : sel_value_null);
}

/* null if the bytes are no value: producers may send anything as arguments. */
static void put_encoded(struct line *line, const char *key, struct sel_str bytes)
{
    struct sel_value value = sel_value_null;
    if (bytes.n && sel_value_decode(&line->arena, bytes.p, bytes.n, false, &value, NULL) < 0)
        value = sel_value_null;
    put_value(line, key, &value);
}

static void end(struct sel_mock_report *report, struct line *line)
{
    struct sel_buf text = {0};
    struct sel_value value;
    ssize_t n = -1;
    if (sel_value_end(&line->map, &value) == 0) {
        sel_buf_put_u8(&text, '\n');
        sel_json_write(&value, 0, &text);
        sel_buf_put_u8(&text, '\n');
    }
    if (text.n && sel_buf_error(&text) == 0)
        n = write(report->fd, text.p, text.n);
    if (n < 0 || (size_t)n < text.n)
        __atomic_fetch_add(&report->lost, 1, __ATOMIC_RELAXED);
    sel_buf_done(&text);
    sel_arena_done(&line->arena);
}

/* ---- what is seen ---- */

static void put_outcome(struct line *line, const struct sel_execution *e)
{
    const struct sel_exec_result *result = e->result;
    if (result->outcome == SEL_EXEC_SUCCESS) {
        put_text(line, "outcome", "success");
        put_encoded(line, "result", result->value);
    } else if (result->outcome == SEL_EXEC_CANCELED) {
        put_text(line, "outcome", "returned");
    } else {
        bool asked = result->outcome == SEL_EXEC_RETRY;
        put_text(line, "outcome", e->will_retry ? "retry" : "failure");
        put_text(line, "error", asked ? "Retry" : result->error_class);
        if (e->will_retry)
            sel_value_put_c(&line->map, "countdown", sel_value_from_f64(e->countdown_s));
    }
}

static void on_execution(void *ctx, const struct sel_execution *e)
{
    struct line line;
    begin(ctx, &line, "execution");
    put_str(&line, "task", e->task->name);
    if (e->flow)
        put_str(&line, "flow", e->flow->name);
    put_text(&line, "id", e->task_id);
    sel_value_put_c(&line.map, "try", sel_value_from_i64(e->try_count));
    put_encoded(&line, "node_args", e->node_args);
    put_value(&line, "parents", e->parents);
    put_outcome(&line, e);
    end(ctx, &line);
}

static void on_flow_end(void *ctx, const struct sel_flow_end *flow)
{
    static const char *const outcomes[] = {[SEL_FLOW_SUCCESS] = "success",
                                           [SEL_FLOW_FAILURE] = "failure",
                                           [SEL_FLOW_RETRY] = "retry",
                                           [SEL_FLOW_CANCELED] = "canceled"};
    char id[SEL_ID_TEXT_SIZE];
    struct line line;
    begin(ctx, &line, "flow");
    put_str(&line, "flow", flow->flow->name);
    put_text(&line, "id", sel_id_format(flow->id, id));
    put_encoded(&line, "node_args", flow->start_args);
    put_text(&line, "outcome", outcomes[flow->outcome]);
    put_value(&line, "finished_nodes", flow->finished_nodes);
    put_value(&line, "failed_nodes", flow->failed_nodes);
    sel_value_put_c(&line.map, "top", sel_value_from_bool(flow->is_top));
    end(ctx, &line);
}

static void on_stored(void *ctx, const struct sel_storage_def *storage,
                      const struct sel_task_def *task, const struct sel_flow_def *flow,
                      struct sel_str result)
{
    struct line line;
    begin(ctx, &line, "stored");
    put_str(&line, "storage", storage->name);
    put_str(&line, "task", task->name);
    put_str(&line, "storage_task_name", task->storage_task_name);
    if (flow)
        put_str(&line, "flow", flow->name);
    put_encoded(&line, "result", result);
    end(ctx, &line);
}

static void on_trace(void *ctx, enum sel_trace_event event, const struct sel_value *details,
                     int64_t age_us)
{
    struct line line;
    begin_late(ctx, &line, "event", age_us);
    put_text(&line, "event", sel_trace_name(event));
    put_value(&line, "details", details);
    end(ctx, &line);
}

/* ---- public ---- */

int sel_mock_report_open(const char *path, struct sel_mock_report **ret, struct sel_error *err)
{
    struct sel_mock_report *report = SEL_NEW(struct sel_mock_report);
    int fd = report ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    if (fd < 0) {
        int r = report ? -errno : SEL_ENOMEM;
        sel_mem_free(report);
        return sel_error_set(err, r, (struct sel_pos){path, 0, 0}, "%s", sel_error_text(r));
    }
    report->fd = fd;
    report->now_us = monotonic_us;
    report->observer = (struct sel_executor_observer){.ctx = report,
                                                      .wants_parents = true,
                                                      .execution = on_execution,
                                                      .flow_end = on_flow_end,
                                                      .stored = on_stored,
                                                      .trace = on_trace};
    *ret = report;
    return 0;
}

struct sel_mock_report *sel_mock_report_close(struct sel_mock_report *report)
{
    if (!report)
        return NULL;
    (void)close(report->fd); /* every line was written when it came */
    return sel_mem_free(report);
}

const struct sel_executor_observer *sel_mock_report_observer(const struct sel_mock_report *report)
{
    return &report->observer;
}

void sel_mock_report_clock(struct sel_mock_report *report, int64_t (*now_us)(void *ctx), void *ctx)
{
    report->now_us = now_us;
    report->clock = ctx;
}

uint64_t sel_mock_report_lost(const struct sel_mock_report *report)
{
    return __atomic_load_n(&report->lost, __ATOMIC_RELAXED);
}
