#include "worker/supervisor.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/mem.h"
#include "proto/wire.h"

#define PAUSE_MS_MIN INT64_C(100)
#define PAUSE_MS_MAX INT64_C(10000)
#define GOOD_LIFE_MS INT64_C(10000) /* after so long a death is not one at once */

struct supervisor {
    const struct sel_worker_logger *log;
    struct sel_worker_life life;
    pid_t pid;
    int64_t begin_ms, pause_ms;
    bool is_stopping;
};

void sel_worker_signals(sigset_t *ret)
{
    (void)sigemptyset(ret);
    (void)sigaddset(ret, SIGTERM);
    (void)sigaddset(ret, SIGINT);
    (void)sigaddset(ret, SIGHUP);
}

static int64_t clock_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- deaths ---- */

static void log_death(const struct supervisor *s, int status, uint32_t count)
{
    if (WIFSIGNALED(status))
        sel_worker_logger_put(s->log, SEL_LOG_ERROR, "supervisor.died",
                              "pid=%d signal=%d (%s) running=%u", (int)s->pid, WTERMSIG(status),
                              strsignal(WTERMSIG(status)), count);
    else
        sel_worker_logger_put(
            s->log, SEL_LOG_ERROR, "supervisor.died", "pid=%d status=%d%s running=%u", (int)s->pid,
            WEXITSTATUS(status),
            WEXITSTATUS(status) == SEL_CO_OVERFLOW_STATUS ? " (stack overflow)" : "", count);
}

static void log_tasks(const struct supervisor *s, struct sel_str notes, uint32_t count)
{
    uint32_t all = (uint32_t)(notes.n / SEL_WIRE_HELD_SIZE);
    for (uint32_t i = all - count; i < all; i++) {
        struct sel_wire_held task = sel_wire_held_at(notes, i);
        char id[SEL_ID_TEXT_SIZE];
        sel_worker_logger_put(s->log, SEL_LOG_ERROR, "supervisor.suspect", "task=%s try=%u%s",
                              sel_id_format(task.id, id), task.try_count,
                              task.is_done ? " stack overflow" : "");
    }
}

/* Sessions are of threads, deaths of processes: of a thread that was not to blame the broker must
 * not think that nobody was, and suspect what it had. */
static void acquit_others(struct supervisor *s)
{
    static const char nobody[SEL_WIRE_HELD_SIZE];
    for (uint32_t i = 0; i < s->life.page->thread_count; i++) {
        struct sel_buf *notes = &s->life.notes[i];
        if (notes->n == 0)
            sel_buf_put(notes, nobody, sizeof(nobody));
        s->life.crashed[i] = sel_buf_str(notes);
    }
}

/* What of earlier lives the broker has not heard is kept beside. */
static void take_notes(struct supervisor *s, int status)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < s->life.page->thread_count; i++) {
        struct sel_buf *notes = &s->life.notes[i];
        if (s->life.page->threads[i].told)
            sel_buf_clear(notes);
        uint32_t count = sel_crash_collect(s->life.page, i, notes);
        s->life.crashed[i] = sel_buf_str(notes);
        log_tasks(s, s->life.crashed[i], count);
        total += count;
    }
    if (total)
        acquit_others(s);
    log_death(s, status, total);
}

/* ---- lives ---- */

/* When its parent is killed it drains; and a key pressed at a terminal reaches the parent alone. */
static void begin_life(const struct supervisor *s, pid_t parent)
{
    (void)s;
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) /* it has died meanwhile */
        (void)raise(SIGTERM);
}

static void pass_on(struct supervisor *s, int number)
{
    s->is_stopping = true;
    (void)kill(s->pid, number); /* it may have ended: that shows next */
}

/* Its status as of waitpid. */
static int wait_for_end(struct supervisor *s)
{
    sigset_t set;
    int status;
    sel_worker_signals(&set);
    (void)sigaddset(&set, SIGCHLD);
    for (;;) { /* until it has ended */
        if (waitpid(s->pid, &status, WNOHANG) == s->pid)
            return status;
        int number = sigwaitinfo(&set, NULL);
        if (number > 0 && number != SIGCHLD)
            pass_on(s, number);
    }
}

/* A growing pause, cut short by a signal to stop. false: it is to stop. */
static bool pause_for_next(struct supervisor *s)
{
    sigset_t set;
    sel_worker_signals(&set);
    bool was_good = clock_ms() - s->begin_ms > GOOD_LIFE_MS;
    s->pause_ms = was_good || !s->pause_ms ? PAUSE_MS_MIN : s->pause_ms * 2;
    if (s->pause_ms > PAUSE_MS_MAX)
        s->pause_ms = PAUSE_MS_MAX;
    const struct timespec pause = {.tv_sec = s->pause_ms / 1000,
                                   .tv_nsec = s->pause_ms % 1000 * 1000000};
    return sigtimedwait(&set, NULL, &pause) < 0;
}

/* 1: this is the child. 0: the worker has ended for good. */
static int live(struct supervisor *s, int *ret_status)
{
    pid_t parent = getpid();
    for (;;) { /* a life each */
        sel_crash_page_clear(s->life.page);
        s->life.incarnation++;
        s->begin_ms = clock_ms();
        s->pid = fork();
        if (s->pid == 0) {
            begin_life(s, parent);
            return 1;
        }
        if (s->pid < 0)
            return -errno;
        int status = wait_for_end(s);
        if (WIFEXITED(status) && s->life.page->has_ended) {
            *ret_status = WEXITSTATUS(status);
            return 0;
        }
        take_notes(s, status);
        if (s->is_stopping || !pause_for_next(s)) {
            *ret_status = SEL_WORKER_STATUS_LEFT;
            return 0;
        }
    }
}

/* ---- making and freeing ---- */

void sel_worker_life_done(struct sel_worker_life *life)
{
    for (uint32_t i = 0; life->page && life->notes && i < life->page->thread_count; i++)
        sel_buf_done(&life->notes[i]);
    sel_mem_free(life->notes);
    sel_mem_free(life->crashed);
    (void)sel_crash_page_free(life->page);
    *life = (struct sel_worker_life){0};
}

static void block_signals(void)
{
    sigset_t set;
    sel_worker_signals(&set);
    (void)sigaddset(&set, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
}

int sel_worker_supervise(const struct sel_worker_logger *log, uint32_t thread_count,
                         uint32_t slot_count, struct sel_worker_life *ret_life, int *ret_status)
{
    struct supervisor s = {.log = log};
    s.life.page = sel_crash_page_new(thread_count, slot_count);
    s.life.notes = sel_mem_zalloc(sizeof(*s.life.notes) * thread_count);
    s.life.crashed = sel_mem_zalloc(sizeof(*s.life.crashed) * thread_count);
    int r = s.life.page && s.life.notes && s.life.crashed ? 0 : SEL_ENOMEM;
    if (r == 0 && getrandom(&s.life.id, sizeof(s.life.id), 0) != (ssize_t)sizeof(s.life.id))
        r = -errno;
    if (r == 0) {
        block_signals();
        r = live(&s, ret_status);
    }
    if (r == 1)
        *ret_life = s.life;
    else
        sel_worker_life_done(&s.life);
    return r;
}
