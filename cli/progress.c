#include "cli/progress.h"

#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/format.h"

#define LINE_SIZE 1024
#define WIDTH_DEFAULT 80
#define BAR_WIDTH 20
#define RATE_WEIGHT 0.3 /* of the newest second in the shown rate */
#define RATE_US_MIN 200000

static bool is_utf8(const struct sel_cli *cli)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < SEL_COUNT(names); i++) {
        const char *value = cli->getenv(cli->getenv_ctx, names[i]);
        if (value && *value)
            return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
    }
    return false;
}

static bool is_terminal(const struct sel_cli *cli)
{
    const char *term = cli->getenv(cli->getenv_ctx, "TERM");
    return isatty(fileno(cli->err)) && term && *term && strcmp(term, "dumb") != 0;
}

void sel_cli_progress_init(struct sel_cli_progress *progress, const struct sel_cli *cli,
                           const char *name, bool wanted)
{
    bool terminal = is_terminal(cli);
    *progress = (struct sel_cli_progress){
        .out = cli->err,
        .name = name,
        .is_on = wanted && terminal,
        .color = terminal && !cli->no_color,
        .utf8 = is_utf8(cli),
        .lock = PTHREAD_MUTEX_INITIALIZER,
    };
}

static uint32_t terminal_width(FILE *out)
{
    struct winsize size;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
        return WIDTH_DEFAULT;
    return size.ws_col;
}

/* The bar in eighths of a column where the terminal has such signs. Returns the bytes. */
static size_t format_bar(bool utf8, uint64_t done, uint64_t total, char *out, size_t size)
{
    static const char *const eighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    uint64_t filled = total ? done * BAR_WIDTH * 8 / total : 0;
    size_t n = 0;
    for (uint32_t i = 0; i < BAR_WIDTH; i++) {
        uint64_t left = filled > i * 8 ? filled - i * 8 : 0;
        const char *sign = left >= 8 ? (utf8 ? "█" : "#") : utf8 ? eighths[left] : " ";
        n += (size_t)snprintf(out + n, size - n, "%s", sign);
    }
    return n;
}

/* A line that is put together from pieces as long as there is room. */
struct line {
    char *out;
    size_t size, n;
    uint32_t width, columns;
};

/* `columns` is what the piece takes on the screen. Too wide: it is left out. */
static void put(struct line *line, const char *text, uint32_t columns)
{
    size_t n = strlen(text);
    if (line->columns + columns > line->width || line->n + n >= line->size)
        return;
    memcpy(line->out + line->n, text, n + 1);
    line->n += n;
    line->columns += columns;
}

static void put_count(struct line *line, uint64_t count, const char *what)
{
    char number[SEL_CLI_FORMAT_SIZE], text[2 * SEL_CLI_FORMAT_SIZE];
    int n = snprintf(text, sizeof(text), "   %s %s", sel_cli_format_count(count, number), what);
    put(line, text, (uint32_t)n);
}

size_t sel_cli_progress_format(const struct sel_cli_progress *progress,
                               const struct sel_executor_progress *now, uint32_t width, char *out,
                               size_t size)
{
    SEL_ASSERT(size > 0);
    out[0] = '\0';
    struct line line = {.out = out, .size = size, .width = width};
    uint64_t ended = now->finished + now->failed;
    char text[256], a[SEL_CLI_FORMAT_SIZE], b[SEL_CLI_FORMAT_SIZE];
    put(&line, progress->name, (uint32_t)strlen(progress->name));
    put(&line, "  ", 2);
    (void)format_bar(progress->utf8, ended, now->started, text, sizeof(text));
    put(&line, text, BAR_WIDTH);
    int n = snprintf(text, sizeof(text), "  %s/%s nodes", sel_cli_format_count(ended, a),
                     sel_cli_format_count(now->started, b));
    put(&line, text, (uint32_t)n);
    put_count(&line, now->running, "running");
    if (now->failed > 0)
        put_count(&line, now->failed, "failed");
    if (now->delayed > 0)
        put_count(&line, now->delayed, "waiting");
    if (progress->has_rate)
        put_count(&line, (uint64_t)progress->rate, "nodes/s");
    n = snprintf(text, sizeof(text), "   %s", sel_cli_format_clock(now->elapsed_us, a));
    put(&line, text, (uint32_t)n);
    return line.n;
}

static void take_rate(struct sel_cli_progress *progress, const struct sel_executor_progress *now)
{
    int64_t span = now->elapsed_us - progress->rate_elapsed_us;
    if (span < RATE_US_MIN)
        return;
    uint64_t ended = now->finished + now->failed;
    double rate = (double)(ended - progress->rate_ended) * 1e6 / (double)span;
    progress->rate =
        progress->has_rate ? progress->rate + RATE_WEIGHT * (rate - progress->rate) : rate;
    progress->has_rate = true;
    progress->rate_elapsed_us = now->elapsed_us;
    progress->rate_ended = ended;
}

static void erase(struct sel_cli_progress *progress)
{
    if (progress->is_shown)
        fputs("\r\033[K", progress->out); /* to the first column, clear the line */
    progress->is_shown = false;
}

void sel_cli_progress_show(void *ctx, const struct sel_executor_progress *now)
{
    struct sel_cli_progress *progress = ctx;
    if (!progress->is_on)
        return;
    char line[LINE_SIZE];
    take_rate(progress, now);
    uint32_t width = terminal_width(progress->out) - 1; /* the last column may wrap */
    (void)sel_cli_progress_format(progress, now, width, line, sizeof(line));
    (void)pthread_mutex_lock(&progress->lock);
    erase(progress);
    fputs(line, progress->out);
    progress->is_shown = true;
    (void)fflush(progress->out);
    (void)pthread_mutex_unlock(&progress->lock);
}

void sel_cli_progress_log(void *ctx, enum sel_log_level level, const char *line)
{
    static const char *const colors[] = {"\033[2m", "", "\033[33m", "\033[31m"};
    struct sel_cli_progress *progress = ctx;
    const char *color = progress->color ? colors[level] : "";
    (void)pthread_mutex_lock(&progress->lock);
    erase(progress);
    fprintf(progress->out, "%s%s%s\n", color, line, *color ? "\033[0m" : "");
    (void)pthread_mutex_unlock(&progress->lock);
}

void sel_cli_progress_erase(struct sel_cli_progress *progress)
{
    (void)pthread_mutex_lock(&progress->lock);
    erase(progress);
    (void)fflush(progress->out);
    (void)pthread_mutex_unlock(&progress->lock);
}

void sel_cli_progress_done(struct sel_cli_progress *progress)
{
    sel_cli_progress_erase(progress);
    (void)pthread_mutex_destroy(&progress->lock);
}
