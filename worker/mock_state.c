/* A line is "ID TRY TASK\n". What others have written is read before each look, from where the last
 * one ended; a line without an end is of a process that died in the midst of it, and is cut off. */
#include "worker/mock_state.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/hash.h"
#include "core/mem.h"

#define READ_STEP 65536u

struct sel_mock_state {
    pthread_mutex_t lock;
    int fd;
    off_t end;                 /* lines up to here are known */
    struct sel_buf unread;     /* what was read behind it */
    struct sel_arena arena;    /* lines: the keys below point into them */
    struct sel_map executions; /* line to its number in its task */
    struct sel_map tasks;      /* name to index of `counts` */
    uint32_t *counts;
    uint32_t task_count, task_cap;
};

/* ---- what is known ---- */

static int count_of(struct sel_mock_state *state, struct sel_str task, uint32_t **ret)
{
    uint32_t index;
    if (!sel_map_get(&state->tasks, task, &index)) {
        if (!sel_mem_grow(&state->counts, &state->task_cap, (uint64_t)state->task_count + 1,
                          sizeof(*state->counts)))
            return SEL_ENOMEM;
        index = state->task_count;
        int r = sel_map_add(&state->tasks, task, index, NULL);
        if (r < 0)
            return r;
        state->counts[state->task_count++] = 0;
    }
    *ret = &state->counts[index];
    return 0;
}

/* The name of the task: behind the second space. */
static bool split(struct sel_str line, struct sel_str *ret_task)
{
    const char *at = line.p, *end = line.p + line.n;
    for (int i = 0; i < 2; i++) {
        at = memchr(at, ' ', (size_t)(end - at));
        if (!at)
            return false;
        at++;
    }
    *ret_task = (struct sel_str){at, (size_t)(end - at)};
    return true;
}

static int learn(struct sel_mock_state *state, struct sel_str line)
{
    struct sel_str task;
    uint32_t *count = NULL;
    char *copy = sel_arena_memdup(&state->arena, line.p, line.n);
    if (!copy)
        return SEL_ENOMEM;
    line.p = copy;
    if (!split(line, &task))
        return SEL_EFORMAT;
    int r = count_of(state, task, &count);
    if (r == 0)
        r = sel_map_add(&state->executions, line, *count, NULL);
    if (r == 1)
        ++*count;
    return r < 0 ? r : 0;
}

/* ---- the file, under both locks ---- */

static int read_rest(struct sel_mock_state *state)
{
    struct sel_buf *buf = &state->unread;
    ssize_t n = 1;
    sel_buf_clear(buf);
    while (n > 0) {
        if (!sel_buf_reserve(buf, READ_STEP))
            return sel_buf_error(buf);
        n = pread(state->fd, buf->p + buf->n, READ_STEP, state->end + (off_t)buf->n);
        if (n < 0)
            return -errno;
        buf->n += (size_t)n;
    }
    return 0;
}

static int learn_rest(struct sel_mock_state *state)
{
    int r = read_rest(state);
    const char *at = (const char *)state->unread.p, *end = at + state->unread.n, *line_end;
    while (r == 0 && at < end && (line_end = memchr(at, '\n', (size_t)(end - at)))) {
        r = learn(state, (struct sel_str){at, (size_t)(line_end - at)});
        if (r == 0)
            state->end += line_end + 1 - at;
        at = line_end + 1;
    }
    if (r == 0 && at < end && ftruncate(state->fd, state->end) < 0)
        r = -errno;
    return r;
}

static int append(struct sel_mock_state *state, struct sel_str line)
{
    struct sel_buf *buf = &state->unread;
    sel_buf_clear(buf);
    sel_buf_put(buf, line.p, line.n);
    sel_buf_put_u8(buf, '\n');
    if (sel_buf_error(buf) < 0)
        return sel_buf_error(buf);
    ssize_t n = pwrite(state->fd, buf->p, buf->n, state->end);
    if (n < 0 || (size_t)n < buf->n)
        return n < 0 ? -errno : -ENOSPC; /* half a line is cut off by the next one */
    int r = learn(state, line);
    if (r == 0)
        state->end += n;
    return r;
}

static int count_locked(struct sel_mock_state *state, struct sel_str line, uint32_t *ret)
{
    int r = learn_rest(state);
    if (r == 0 && !sel_map_get(&state->executions, line, ret)) {
        r = append(state, line);
        if (r == 0 && !sel_map_get(&state->executions, line, ret))
            r = SEL_ENOMEM;
    }
    return r;
}

/* ---- public ---- */

int sel_mock_state_open(const char *path, struct sel_mock_state **ret, struct sel_error *err)
{
    struct sel_mock_state *state = SEL_NEW(struct sel_mock_state);
    int fd = state ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (fd < 0) {
        int r = state ? -errno : SEL_ENOMEM;
        sel_mem_free(state);
        return sel_error_set(err, r, (struct sel_pos){path, 0, 0}, "%s", sel_error_text(r));
    }
    state->fd = fd;
    pthread_mutex_init(&state->lock, NULL);
    *ret = state;
    return 0;
}

struct sel_mock_state *sel_mock_state_close(struct sel_mock_state *state)
{
    if (!state)
        return NULL;
    (void)close(state->fd); /* nobody waits for it */
    pthread_mutex_destroy(&state->lock);
    sel_buf_done(&state->unread);
    sel_map_done(&state->executions);
    sel_map_done(&state->tasks);
    sel_arena_done(&state->arena);
    sel_mem_free(state->counts);
    return sel_mem_free(state);
}

static int lock_file(int fd)
{
    while (flock(fd, LOCK_EX) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int sel_mock_state_count(struct sel_mock_state *state, struct sel_str task, const char *id,
                         uint32_t try_count, uint32_t *ret)
{
    struct sel_buf line = {0};
    if (memchr(task.p, '\n', task.n))
        return SEL_EREQUEST;
    sel_buf_printf(&line, "%s %u %.*s", id, try_count, SEL_STR_ARG(task));
    int r = sel_buf_error(&line);
    pthread_mutex_lock(&state->lock); /* the other lock is between processes */
    if (r == 0)
        r = lock_file(state->fd);
    if (r == 0) {
        r = count_locked(state, sel_buf_str(&line), ret);
        (void)flock(state->fd, LOCK_UN); /* cannot fail for what we hold */
    }
    pthread_mutex_unlock(&state->lock);
    sel_buf_done(&line);
    return r;
}
