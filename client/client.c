#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "client/internal.h"
#include "core/mem.h"

#define ALIVE UINT64_C(0x53656c696e6f6e21)
#define WAITING_MAX 1000000u
#define KEEP_BYTES ((size_t)64 << 20)
#define RESULT_BYTES ((size_t)64 << 20)
#define WINDOW_RECORDS 65536u
#define WINDOW_BYTES ((uint64_t)16 << 20)

/* What was there in the first version of the structs; they only grow. */
#define OPTIONS_SIZE_MIN sizeof(struct sel_client_options)
#define TASK_SIZE_MIN offsetof(struct sel_client_task, selective)

int64_t sel_client_now_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail */
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* ---- the lock ---- */

/* A mutex alone goes to whoever runs, so that a caller in a tight loop would keep the thread out
 * for long. Who wants `data` stands at `next` first; there is only one there. */
void sel_client_lock(struct sel_client *client)
{
    (void)pthread_mutex_lock(&client->next);
    (void)pthread_mutex_lock(&client->data);
    (void)pthread_mutex_unlock(&client->next);
}

void sel_client_unlock(struct sel_client *client)
{
    (void)pthread_mutex_unlock(&client->data);
}

void sel_client_unlock_and_wake(struct sel_client *client)
{
    bool is_sleeping = client->is_sleeping;
    client->is_sleeping = false; /* one is enough */
    (void)pthread_mutex_unlock(&client->data);
    if (is_sleeping)
        sel_client_net_wake(client);
}

/* The end of a timeout; INT64_MAX: never. */
int64_t sel_client_deadline(int64_t timeout_us)
{
    int64_t now_us = sel_client_now_us();
    return timeout_us < 0 || timeout_us > INT64_MAX - now_us ? INT64_MAX : now_us + timeout_us;
}

/* Waits, locked, until something is told, at most until `deadline_us`. false: it is over. */
bool sel_client_wait_until(struct sel_client *client, pthread_cond_t *cond, int64_t deadline_us)
{
    if (deadline_us == INT64_MAX) {
        (void)pthread_cond_wait(cond, &client->data);
        return true;
    }
    const struct timespec t = {.tv_sec = deadline_us / 1000000,
                               .tv_nsec = deadline_us % 1000000 * 1000};
    return pthread_cond_timedwait(cond, &client->data, &t) != ETIMEDOUT;
}

void sel_client_tell(struct sel_client *client)
{
    if (client->room_waiters) {
        bool has_room = false;
        for (uint32_t i = 0; i < client->link_count; i++) {
            struct sel_client_link *link = &client->links[i];
            if (!link->is_wanted || !sel_producer_has_room(link->producer))
                continue;
            link->is_wanted = false;
            has_room = true;
        }
        if (has_room)
            (void)pthread_cond_broadcast(&client->room);
    }
    if (client->news_waiters || (client->result_waiters && client->results.first))
        (void)pthread_cond_broadcast(&client->news);
}

/* ---- life ---- */

static void copy_error(char *error, const char *text)
{
    if (error)
        (void)snprintf(error, SEL_CLIENT_ERROR_SIZE, "%s", text);
}

static int check_options(const struct sel_client_options *options, char *error)
{
    if (options->size < OPTIONS_SIZE_MIN || options->task_size < TASK_SIZE_MIN)
        return copy_error(error, "options: begin with SEL_CLIENT_OPTIONS"), -EINVAL;
    if (!options->endpoints || options->endpoint_count == 0)
        return copy_error(error, "options: no endpoint of a broker"), -EINVAL;
    if (options->endpoint_count > SEL_CLIENT_LINKS_MAX)
        return copy_error(error, "options: more than 64 endpoints"), -EINVAL;
    for (uint32_t i = 0; i < options->endpoint_count; i++)
        if (!options->endpoints[i] || !*options->endpoints[i])
            return copy_error(error, "options: an endpoint is empty"), -EINVAL;
    return 0;
}

/* A page that the kernel empties in children: asking the process for its id costs a system call. */
static const uint64_t *alive_new(void)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    uint64_t *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return NULL;
    if (madvise(page, size, MADV_WIPEONFORK) < 0) {
        (void)munmap(page, size);
        return NULL;
    }
    *page = ALIVE;
    return page;
}

static void alive_free(const uint64_t *alive)
{
    if (alive)
        (void)munmap((void *)(uintptr_t)alive, (size_t)sysconf(_SC_PAGESIZE));
}

bool sel_client_is_ours(const struct sel_client *client)
{
    return *client->alive == ALIVE;
}

static int init_sync(struct sel_client *client)
{
    pthread_condattr_t attr;
    int r = pthread_condattr_init(&attr);
    if (r)
        return -r;
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* exists, so it cannot fail */
    (void)pthread_mutex_init(&client->next, NULL);
    (void)pthread_mutex_init(&client->data, NULL);
    r = pthread_cond_init(&client->room, &attr);
    if (r == 0)
        r = pthread_cond_init(&client->news, &attr);
    (void)pthread_condattr_destroy(&attr);
    return -r;
}

struct random {
    struct sel_id peer;
    uint64_t seed, maker, counter;
};

/* A part of a uniform number of 64 bits. */
static uint64_t bits_of(uint64_t random, unsigned shift, unsigned count)
{
    return random >> shift & ((UINT64_C(1) << count) - 1);
}

static int open_link(struct sel_client *client, const struct sel_client_options *options,
                     const char *name)
{
    struct sel_client_link *link = &client->links[client->link_count];
    struct random random;
    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return -errno;
    if (client->link_count == 0) /* two makers with the same 34 bits at the same time are unlikely,
                                    and then their counters still differ */
        client->ids = (struct sel_id_source){
            .shard = (uint16_t)bits_of(random.maker, 0, 12),
            .incarnation = (uint32_t)bits_of(random.maker, 12, 22),
            .counter = random.counter,
        };
    link->client = client;
    size_t size = strlen(options->endpoints[client->link_count]) + 1;
    link->endpoint = sel_mem_alloc(size);
    if (!link->endpoint)
        return -ENOMEM;
    memcpy(link->endpoint, options->endpoints[client->link_count], size);
    client->link_count++;
    const struct sel_producer_options producer = {
        .id = random.peer,
        .name = sel_str_c(name),
        .ops = &sel_client_producer_ops,
        .ctx = link,
        .keep_bytes_max = options->keep_bytes_max ? options->keep_bytes_max : KEEP_BYTES,
        .waiting_max = options->waiting_max ? options->waiting_max : WAITING_MAX,
        .window_records = WINDOW_RECORDS,
        .window_bytes = WINDOW_BYTES,
        .seed = random.seed,
        .lost_after_us = options->lost_after_us,
    };
    return sel_client_errno(sel_producer_new(&producer, sel_client_now_us(), &link->producer));
}

static int open_links(struct sel_client *client, const struct sel_client_options *options)
{
    char host[65] = "?", name[256];
    (void)gethostname(host, sizeof(host) - 1); /* for people only */
    (void)snprintf(name, sizeof(name), "%s:%s:%ld", host, program_invocation_short_name,
                   (long)getpid());
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < options->endpoint_count; i++)
        r = open_link(client, options, options->name ? options->name : name);
    return r;
}

static void free_client(struct sel_client *client)
{
    sel_client_net_close(client);
    for (uint32_t i = 0; i < client->link_count; i++) {
        sel_producer_free(client->links[i].producer);
        sel_buf_done(&client->links[i].out);
        sel_mem_free(client->links[i].endpoint);
    }
    sel_client_results_done(&client->results);
    (void)pthread_cond_destroy(&client->room);
    (void)pthread_cond_destroy(&client->news);
    (void)pthread_mutex_destroy(&client->next);
    (void)pthread_mutex_destroy(&client->data);
    alive_free(client->alive);
    sel_mem_free(client);
}

int sel_client_open(const struct sel_client_options *options, struct sel_client **ret, char *error)
{
    int r = check_options(options, error);
    if (r < 0)
        return r;
    struct sel_client *client = SEL_NEW(struct sel_client);
    if (!client)
        return copy_error(error, sel_client_error_text(-ENOMEM)), -ENOMEM;
    client->wake_fd = -1;
    client->task_size = options->task_size;
    client->log = options->log;
    client->log_ctx = options->log_ctx;
    client->results.bytes_max =
        options->result_bytes_max ? options->result_bytes_max : RESULT_BYTES;
    client->alive = alive_new();
    r = client->alive ? init_sync(client) : -errno;
    if (r == 0)
        r = open_links(client, options);
    if (r < 0)
        copy_error(error, sel_client_error_text(r));
    else
        r = sel_client_net_open(client, error);
    if (r < 0) {
        free_client(client);
        return r;
    }
    *ret = client;
    return 0;
}

int sel_client_close(struct sel_client *client, int64_t timeout_us)
{
    if (!client)
        return 0;
    if (!sel_client_is_ours(client))
        return -ECHILD;
    int r = sel_client_flush(client, timeout_us);
    sel_client_lock(client);
    client->is_closing = true;
    sel_client_unlock_and_wake(client);
    free_client(client);
    return r == -EAGAIN ? -ETIMEDOUT : r;
}

/* Waits until `is_done` is not 0, and returns that; -EAGAIN or -ETIMEDOUT after the timeout. */
static int wait_for(struct sel_client *client, int (*is_done)(struct sel_client *client),
                    int64_t timeout_us)
{
    if (!sel_client_is_ours(client))
        return -ECHILD;
    int64_t deadline_us = sel_client_deadline(timeout_us);
    bool is_over = timeout_us == 0;
    int r;
    sel_client_lock(client);
    client->news_waiters++;
    while ((r = is_done(client)) == 0 && !is_over)
        is_over = !sel_client_wait_until(client, &client->news, deadline_us);
    client->news_waiters--;
    sel_client_unlock(client);
    if (r == 0)
        return timeout_us == 0 ? -EAGAIN : -ETIMEDOUT;
    return r < 0 ? r : 0;
}

static bool is_refused(const struct sel_client_link *link)
{
    return sel_producer_peer(link->producer)->state == SEL_PEER_REFUSED;
}

static int is_ready(struct sel_client *client)
{
    int ready = 1;
    for (uint32_t i = 0; i < client->link_count; i++) {
        struct sel_producer_stats stats;
        if (is_refused(&client->links[i]))
            return -ECONNREFUSED;
        sel_producer_get_stats(client->links[i].producer, &stats);
        if (stats.sessions == 0)
            ready = 0;
    }
    return ready;
}

int sel_client_ready(struct sel_client *client, int64_t timeout_us)
{
    return wait_for(client, is_ready, timeout_us);
}

static int is_settled(struct sel_client *client)
{
    for (uint32_t i = 0; i < client->link_count; i++)
        if (sel_producer_unsettled(client->links[i].producer))
            return is_refused(&client->links[i]) ? -ECONNREFUSED : 0;
    return 1;
}

int sel_client_flush(struct sel_client *client, int64_t timeout_us)
{
    return wait_for(client, is_settled, timeout_us);
}

const char *sel_client_problem(struct sel_client *client, char *out, size_t size)
{
    if (!sel_client_is_ours(client)) {
        (void)snprintf(out, size, "%s", sel_client_error_text(-ECHILD));
        return out;
    }
    sel_client_lock(client);
    (void)snprintf(out, size, "%s", client->problem);
    sel_client_unlock(client);
    return out;
}

int sel_client_get_stats(struct sel_client *client, struct sel_client_stats *stats)
{
    if (!sel_client_is_ours(client))
        return -ECHILD;
    if (stats->size < sizeof(*stats))
        return -EINVAL;
    *stats = (struct sel_client_stats){.size = stats->size};
    sel_client_lock(client);
    for (uint32_t i = 0; i < client->link_count; i++) {
        const struct sel_client_link *link = &client->links[i];
        struct sel_producer_stats one;
        sel_producer_get_stats(link->producer, &one);
        stats->submitted += one.submitted;
        stats->finished += one.finished;
        stats->refused += one.refused;
        stats->deferred += one.deferred;
        stats->watched += one.watched;
        stats->sessions += one.sessions;
        stats->unsettled += sel_producer_unsettled(link->producer);
        stats->waiting += sel_producer_waiting(link->producer);
        stats->connected += sel_producer_peer(link->producer)->state == SEL_PEER_OPEN;
    }
    stats->brokers = client->link_count;
    stats->results = client->results.count;
    stats->result_bytes = client->results.bytes;
    sel_client_unlock(client);
    return 0;
}
