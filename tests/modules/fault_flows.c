/* Tasks of flows for tests/fault. What a task results in, or fails with, depends on its name, on
 * its arguments and on what its parents ended with, and on nothing else: so each run of a flow
 * makes the same `digest`s, whatever happens on the way, and one that saw a wrong parent makes
 * another. Each execution leaves a line in the file that SEL_FAULT_FLOW_LOG names; a line is one
 * write. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <selinon/task.h>

#define DEPTH_MAX 8 /* flows in flows */
#define LINE_MAX_SIZE 512

/* What is known of the run before it does anything. */
struct seen {
    uint64_t digest;
    int64_t n;     /* of the root flow; not in the digest */
    int64_t depth; /* the longest way of tasks that led here */
};

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t hash(uint64_t seed, const void *p, size_t n)
{
    const unsigned char *bytes = p;
    uint64_t h = seed ^ UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++)
        h = (h ^ bytes[i]) * UINT64_C(0x100000001b3);
    return mix(h);
}

static uint64_t hash_text(uint64_t seed, struct sel_str s)
{
    return hash(seed, s.p, s.n);
}

/* ---- what the parents ended with ---- */

/* Where the walk through {flow: {task: [ids]}} is. */
struct walk {
    struct sel_task *task;
    struct seen *seen;
    const char *flows[DEPTH_MAX];
    uint32_t depth;
    bool failed; /* through the failed ones */
};

static int walk_map(struct walk *walk, const struct sel_value *map, uint64_t seed);

/* Sums: the order in which parents are told means nothing. */
static void add(struct walk *walk, uint64_t seed, const struct sel_value *result)
{
    const char *key = walk->failed ? "message" : "digest";
    struct sel_str text = {"", 0};
    int64_t depth = 0;
    const struct sel_value *digest = sel_value_get_c(result, key);
    const struct sel_value *deep = sel_value_get_c(result, "depth");
    if (digest && sel_value_kind(digest) == SEL_TEXT)
        text = sel_value_str(digest);
    walk->seen->digest += hash_text(seed, text);
    if (deep && sel_value_kind(deep) == SEL_INT && sel_value_i64(deep, &depth) &&
        depth > walk->seen->depth)
        walk->seen->depth = depth;
}

static int walk_task(struct walk *walk, const char *name, uint64_t seed)
{
    const struct sel_value *result = NULL;
    SEL_TRY(walk->failed ? sel_parent_exception(walk->task, name, &result)
                         : sel_parent_result(walk->task, name, &result));
    add(walk, seed, result);
    return 0;
}

static int walk_list(struct walk *walk, const char *name, const struct sel_value *ids,
                     uint64_t seed)
{
    for (uint32_t i = 0; i < sel_value_count(ids); i++) {
        const struct sel_value *result = NULL;
        SEL_TRY(walk->failed ? sel_parent_flow_exception(walk->task, walk->flows, walk->depth, name,
                                                         (int)i, &result)
                             : sel_parent_flow_result(walk->task, walk->flows, walk->depth, name,
                                                      (int)i, &result));
        add(walk, seed, result);
    }
    return 0;
}

static int walk_map(struct walk *walk, const struct sel_value *map, uint64_t seed)
{
    for (uint32_t i = 0; i < sel_value_count(map); i++) {
        struct sel_str key = sel_value_str(sel_value_key_at(map, i));
        const struct sel_value *value = sel_value_val_at(map, i);
        uint64_t here = hash_text(seed, key);
        char *name = sel_alloc(walk->task, key.n + 1);
        if (!name)
            return SEL_ERR_FAILED;
        memcpy(name, key.p, key.n);
        if (sel_value_kind(value) == SEL_TEXT) {
            SEL_TRY(walk_task(walk, name, here));
        } else if (sel_value_kind(value) == SEL_LIST) {
            SEL_TRY(walk_list(walk, name, value, here));
        } else if (sel_value_kind(value) == SEL_MAP) {
            if (walk->depth == DEPTH_MAX)
                return sel_fail(walk->task, "WalkError", "parents are too deep");
            walk->flows[walk->depth++] = name;
            SEL_TRY(walk_map(walk, value, here));
            walk->depth--;
        } else {
            return sel_fail(walk->task, "WalkError", "parent %s is neither id, list nor map", name);
        }
    }
    return 0;
}

static int look(struct sel_task *task, struct seen *seen)
{
    const struct sel_value *parents = NULL;
    const char *name = sel_task_name(task), *flow = sel_task_flow_name(task);
    int64_t v = 0, i = -1;
    SEL_TRY(sel_arg_i64(task, "n", &seen->n));
    SEL_TRY(sel_arg_i64(task, "v", &v));
    if (sel_has_arg(task, "i"))
        SEL_TRY(sel_arg_i64(task, "i", &i));
    struct walk walk = {.task = task, .seen = seen};
    SEL_TRY(sel_task_parents(task, &parents));
    SEL_TRY(walk_map(&walk, parents, 1));
    walk.failed = true;
    SEL_TRY(sel_task_failed_parents(task, &parents));
    SEL_TRY(walk_map(&walk, parents, 2));
    seen->digest = hash(seen->digest, name, strlen(name));
    seen->digest = hash(seen->digest, flow, strlen(flow));
    seen->digest = mix(seen->digest ^ (uint64_t)(v * 1000 + i));
    return 0;
}

/* ---- what it leaves behind ---- */

static int note(struct sel_task *task, const struct seen *seen)
{
    const char *path = getenv("SEL_FAULT_FLOW_LOG");
    char line[LINE_MAX_SIZE];
    if (!path)
        return 0;
    int n = snprintf(line, sizeof(line), "%lld %s %s %s %016llx %u %ld\n", (long long)seen->n,
                     sel_task_id(task), sel_task_flow_name(task), sel_task_name(task),
                     (unsigned long long)seen->digest, (unsigned)sel_task_retried_count(task),
                     (long)getpid());
    if (n < 0 || (size_t)n >= sizeof(line))
        return sel_fail(task, "NoteError", "the line is too long");
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return sel_fail(task, "NoteError", "%s cannot be opened", path);
    ssize_t written = write(fd, line, (size_t)n);
    (void)close(fd);
    return written == n ? 0 : sel_fail(task, "NoteError", "%s cannot be written", path);
}

static int begin(struct sel_task *task, struct seen *seen)
{
    *seen = (struct seen){0, 0, 0};
    SEL_TRY(look(task, seen));
    SEL_TRY(note(task, seen));
    if (seen->digest % 8 == 0) /* some take their time */
        SEL_TRY(sel_sleep(task, 0.001 * (double)(seen->digest / 8 % 50)));
    return 0;
}

static int end(struct sel_task *task, const struct seen *seen)
{
    char digest[24];
    int64_t v;
    SEL_TRY(sel_arg_i64(task, "v", &v));
    (void)snprintf(digest, sizeof(digest), "%016llx", (unsigned long long)seen->digest);
    return sel_result(task, "{s:i, s:i, s:s, s:i, s:i}", "n", seen->n, "v", v, "digest", digest,
                      "kind", (int64_t)(seen->digest % 3), "depth", seen->depth + 1);
}

static int works(struct sel_task *task)
{
    struct seen seen;
    SEL_TRY(begin(task, &seen));
    return end(task, &seen);
}

static int breaks(struct sel_task *task)
{
    struct seen seen;
    SEL_TRY(begin(task, &seen));
    return sel_fail(task, "Broken", "%s %016llx", sel_task_name(task),
                    (unsigned long long)seen.digest);
}

/* Fails in every second variant. */
static int breaks_at_odds(struct sel_task *task)
{
    int64_t v;
    SEL_TRY(sel_arg_i64(task, "v", &v));
    return v % 2 ? breaks(task) : works(task);
}

/* Fails twice, then works: needs `max_retry: 2`. */
static int stumbles(struct sel_task *task)
{
    return sel_task_retried_count(task) < 2 ? breaks(task) : works(task);
}

/* Asks for another run once: the first execution of a run leaves a file. */
static int asks(struct sel_task *task)
{
    const char *log = getenv("SEL_FAULT_FLOW_LOG");
    char path[LINE_MAX_SIZE];
    if (!log)
        return works(task);
    int n = snprintf(path, sizeof(path), "%s.%s", log, sel_task_id(task));
    if (n < 0 || (size_t)n >= sizeof(path))
        return sel_fail(task, "NoteError", "the path is too long");
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return works(task);
    (void)close(fd);
    return sel_retry(task, 0.02);
}

static int crashes(struct sel_task *task)
{
    struct seen seen;
    volatile int *volatile nowhere = 0;
    SEL_TRY(begin(task, &seen));
    *nowhere = 1;
    return 0;
}

static int deeper(volatile char *above, int64_t depth)
{
    volatile char here[1024];
    here[0] = (char)(above[0] + (char)depth);
    return depth == 0 ? here[0] : deeper(here, depth - 1) + here[1023];
}

static int overflows(struct sel_task *task)
{
    struct seen seen;
    volatile char first[1] = {0};
    SEL_TRY(begin(task, &seen));
    return sel_result(task, "i", (int64_t)deeper(first, INT64_C(1) << 40));
}

static int nothing(struct sel_task *task)
{
    (void)task;
    return 0;
}

/* ---- foreach ---- */

/* v % 5 items {n, v, i}. */
static int each_item(struct sel_task *task)
{
    int64_t n, v;
    const struct sel_value *items = NULL;
    SEL_TRY(sel_arg_i64(task, "n", &n));
    SEL_TRY(sel_arg_i64(task, "v", &v));
    struct sel_list *list = sel_list_begin(task);
    if (!list)
        return SEL_ERR_FAILED;
    for (int64_t i = 0; i < v % 5; i++)
        SEL_TRY(sel_list_add(list, "{s:i, s:i, s:i}", "n", n, "v", v, "i", i));
    SEL_TRY(sel_list_end(list, &items));
    return sel_result_value(task, items);
}

/* `count` of the arguments; as cheap as can be: while it runs its dispatcher does nothing else. */
static int each_of_many(struct sel_task *task)
{
    int64_t count;
    const struct sel_value *items = NULL;
    SEL_TRY(sel_arg_i64(task, "count", &count));
    struct sel_list *list = sel_list_begin(task);
    if (!list)
        return SEL_ERR_FAILED;
    for (int64_t i = 0; i < count; i++)
        SEL_TRY(sel_list_add(list, "n"));
    SEL_TRY(sel_list_end(list, &items));
    return sel_result_value(task, items);
}

static int each_of_three(struct sel_task *task)
{
    return sel_result(task, "[i, i, i]", (int64_t)0, (int64_t)1, (int64_t)2);
}

/* Takes the dispatcher with it. */
static int each_crash(struct sel_task *task)
{
    volatile int *volatile nowhere = 0;
    (void)task;
    *nowhere = 1;
    return 0;
}

SEL_MODULE("fault_flows", SEL_TASK("works", works), SEL_TASK("breaks", breaks),
           SEL_TASK("breaks_at_odds", breaks_at_odds), SEL_TASK("stumbles", stumbles),
           SEL_TASK("asks", asks), SEL_TASK("crashes", crashes), SEL_TASK("overflows", overflows),
           SEL_TASK("nothing", nothing), SEL_FOREACH("each_item", each_item),
           SEL_FOREACH("each_of_three", each_of_three), SEL_FOREACH("each_of_many", each_of_many),
           SEL_FOREACH("each_crash", each_crash));
