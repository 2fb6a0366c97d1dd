/* The tasks of the example: measure all texts of a folder.
 *
 * Every call that reads, writes or waits suspends the task on the ring, so that one thread has
 * hundreds of files under way. Which task follows which stands in flows/, not here. */
#include <selinon/task.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FOLDER_DEPTH_MAX 16
#define CHUNK_SIZE ((size_t)64 * 1024) /* of a large file that is in memory at a time */
#define SETTLE_US (INT64_C(300) * 1000)
#define SETTLE_WAIT_S 0.2

/* ---- ListFiles: every *.txt below a folder ---- */

static bool is_text_name(struct sel_str name)
{
    return name.n > 4 && name.p[0] != '.' && memcmp(name.p + name.n - 4, ".txt", 4) == 0;
}

static int join(struct sel_task *task, const char *folder, struct sel_str name, const char **ret)
{
    size_t size = strlen(folder) + name.n + 2;
    char *path = sel_alloc(task, size);
    if (!path)
        return SEL_ERR_FAILED; /* sel_alloc has noted why */
    (void)snprintf(path, size, "%s/%.*s", folder, (int)name.n, name.p);
    *ret = path;
    return 0;
}

static int walk(struct sel_task *task, const char *folder, int depth, struct sel_list *files)
{
    const struct sel_value *names;
    if (depth > FOLDER_DEPTH_MAX)
        return sel_fail(task, "TooDeep", "%s is more than %d folders deep", folder,
                        FOLDER_DEPTH_MAX);
    SEL_TRY(sel_list_dir(task, folder, &names));
    for (uint32_t i = 0; i < sel_value_count(names); i++) {
        struct sel_str name = sel_value_str(sel_value_at(names, i));
        struct sel_file_info info;
        const char *path;
        SEL_TRY(join(task, folder, name, &path));
        if (is_text_name(name)) /* whether it can be read is Fingerprint's business */
            SEL_TRY(sel_list_add(files, "s", path));
        else if (sel_stat(task, path, &info) >= 0 && info.is_dir)
            SEL_TRY(walk(task, path, depth + 1, files));
    }
    return 0;
}

static int list_files(struct sel_task *task)
{
    const char *folder;
    const struct sel_value *paths;
    SEL_TRY(sel_arg_str(task, "folder", &folder));
    struct sel_list *files = sel_list_begin(task);
    if (!files)
        return SEL_ERR_FAILED;
    SEL_TRY(walk(task, folder, 0, files));
    SEL_TRY(sel_list_end(files, &paths));
    return sel_result(task, "{s:v, s:i}", "files", paths, "count", (int64_t)sel_value_count(paths));
}

/* The foreach function: the arguments of one sub-flow for each file that ListFiles found. */
static int each_file(struct sel_task *task)
{
    const struct sel_value *found, *all;
    SEL_TRY(sel_parent_result(task, "ListFiles", &found));
    const struct sel_value *files = sel_value_get_c(found, "files");
    struct sel_list *list = sel_list_begin(task);
    if (!list)
        return SEL_ERR_FAILED;
    for (uint32_t i = 0; i < sel_value_count(files); i++)
        SEL_TRY(sel_list_add(list, "{s:v}", "path", sel_value_at(files, i)));
    SEL_TRY(sel_list_end(list, &all));
    return sel_result_value(task, all);
}

/* ---- Fingerprint: what a file is, without looking at its words ---- */

/* FNV-1a, 64 bits: enough to find copies, of no use against an adversary. */
#define HASH_TEXT_SIZE 17
#define FNV_START UINT64_C(0xcbf29ce484222325)
static uint64_t fnv1a(uint64_t hash, const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static int64_t unix_us(void)
{
    struct timespec now;
    (void)timespec_get(&now, TIME_UTC);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Calls `take` with each piece of the file. */
static int read_pieces(struct sel_task *task, const char *path,
                       void (*take)(void *ctx, const unsigned char *p, size_t n), void *ctx)
{
    unsigned char *chunk = sel_alloc(task, CHUNK_SIZE);
    if (!chunk)
        return SEL_ERR_FAILED;
    int fd = sel_open(task, path, O_RDONLY, 0);
    SEL_TRY(fd);
    int64_t offset = 0, n;
    while ((n = sel_read(task, fd, chunk, CHUNK_SIZE, offset)) > 0) {
        take(ctx, chunk, (size_t)n);
        offset += n;
    }
    (void)sel_close(task, fd); /* nothing was written */
    return n < 0 ? (int)n : 0;
}

static void take_hash(void *ctx, const unsigned char *p, size_t n)
{
    uint64_t *hash = ctx;
    *hash = fnv1a(*hash, p, n);
}

static int fingerprint(struct sel_task *task)
{
    const char *path;
    struct sel_file_info info;
    SEL_TRY(sel_arg_str(task, "path", &path));
    SEL_TRY(sel_stat(task, path, &info));
    int64_t age_us = unix_us() - info.modified_unix_us;
    if (age_us >= 0 && age_us < SETTLE_US) /* somebody is still writing it */
        return sel_retry(task, SETTLE_WAIT_S);

    uint64_t hash = FNV_START;
    char text[HASH_TEXT_SIZE];
    SEL_TRY(read_pieces(task, path, take_hash, &hash));
    (void)snprintf(text, sizeof(text), "%016llx", (unsigned long long)hash);
    return sel_result(task, "{s:s, s:i, s:s}", "path", path, "bytes", (int64_t)info.size, "hash",
                      text);
}

/* ---- CountWords, CountLarge ---- */

struct counter {
    int64_t words, lines;
    bool in_word;
};

static void count(void *ctx, const unsigned char *p, size_t n)
{
    struct counter *counter = ctx;
    for (size_t i = 0; i < n; i++) {
        bool is_space = p[i] == ' ' || (p[i] >= '\t' && p[i] <= '\r');
        counter->words += !is_space && !counter->in_word;
        counter->in_word = !is_space;
        counter->lines += p[i] == '\n';
    }
}

static int count_result(struct sel_task *task, const char *path, const struct counter *counter)
{
    return sel_result(task, "{s:s, s:i, s:i}", "path", path, "words", counter->words, "lines",
                      counter->lines);
}

/* A small file is read at once. */
static int count_words(struct sel_task *task)
{
    const char *path;
    struct sel_bytes text;
    struct counter counter = {0};
    SEL_TRY(sel_arg_str(task, "path", &path));
    SEL_TRY(sel_read_file(task, path, &text));
    count(&counter, text.p, text.n);
    return count_result(task, path, &counter);
}

/* A large one piece by piece, so that many of them do not fill the memory. */
static int count_large(struct sel_task *task)
{
    const char *path;
    struct counter counter = {0};
    SEL_TRY(sel_arg_str(task, "path", &path));
    SEL_TRY(read_pieces(task, path, count, &counter));
    return count_result(task, path, &counter);
}

/* ---- Quarantine: the fallback for a file that could not be read ---- */

static int quarantine(struct sel_task *task)
{
    const char *path;
    const struct sel_value *failure;
    SEL_TRY(sel_arg_str(task, "path", &path));
    SEL_TRY(sel_parent_exception(task, "Fingerprint", &failure));
    return sel_result(task, "{s:s, s:v}", "path", path, "problem",
                      sel_value_get_c(failure, "class"));
}

/* ---- Summary: over the results of all sub-flows ---- */

struct summary {
    struct sel_task *task;
    int64_t files, words, lines, bytes, copies, large, unreadable;
    int64_t longest_line;
    const char *biggest; /* by words */
    int64_t biggest_words;
    char (*hashes)[HASH_TEXT_SIZE]; /* of all files */
    struct sel_list *problems;
};

static const char *const sub_flows[] = {"files", "file"};

/* How often task `name` ended in the sub-flows. */
static int run_count(struct sel_task *task, const char *name, uint32_t *ret)
{
    const struct sel_value *parents;
    SEL_TRY(sel_task_parents(task, &parents));
    const struct sel_value *files = sel_value_get_c(parents, sub_flows[0]);
    const struct sel_value *ids = sel_value_get_c(sel_value_get_c(files, sub_flows[1]), name);
    *ret = sel_value_kind(ids) == SEL_LIST ? sel_value_count(ids) : 0;
    return 0;
}

static int64_t number(const struct sel_value *map, const char *key)
{
    int64_t n = 0;
    const struct sel_value *v = sel_value_get_c(map, key);
    if (sel_value_kind(v) == SEL_INT)
        (void)sel_value_i64(v, &n); /* a count always fits */
    return n;
}

/* Calls `add` with each result of task `name`. */
static int each_result(struct summary *s, const char *name,
                       int (*add)(struct summary *s, const struct sel_value *result))
{
    uint32_t n;
    SEL_TRY(run_count(s->task, name, &n));
    for (uint32_t i = 0; i < n; i++) {
        const struct sel_value *result;
        SEL_TRY(sel_parent_flow_result(s->task, sub_flows, 2, name, (int)i, &result));
        SEL_TRY(add(s, result));
    }
    return 0;
}

static int add_fingerprint(struct summary *s, const struct sel_value *result)
{
    struct sel_str hash = sel_value_str(sel_value_get_c(result, "hash"));
    (void)snprintf(s->hashes[s->files++], HASH_TEXT_SIZE, "%.*s", (int)hash.n, hash.p);
    s->bytes += number(result, "bytes");
    return 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Files whose bytes are those of another file. */
static int64_t count_copies(struct summary *s)
{
    int64_t copies = 0;
    qsort(s->hashes, (size_t)s->files, HASH_TEXT_SIZE, by_text);
    for (int64_t i = 1; i < s->files; i++)
        copies += strcmp(s->hashes[i - 1], s->hashes[i]) == 0;
    return copies;
}

static int add_count(struct summary *s, const struct sel_value *result)
{
    int64_t words = number(result, "words");
    s->words += words;
    s->lines += number(result, "lines");
    if (words > s->biggest_words) {
        struct sel_str path = sel_value_str(sel_value_get_c(result, "path"));
        char *copy = sel_alloc(s->task, path.n + 1);
        if (!copy)
            return SEL_ERR_FAILED;
        memcpy(copy, path.p, path.n);
        s->biggest = copy;
        s->biggest_words = words;
    }
    return 0;
}

static int add_shape(struct summary *s, const struct sel_value *result)
{
    int64_t longest = number(result, "longest_line");
    s->large++;
    s->longest_line = longest > s->longest_line ? longest : s->longest_line;
    return 0;
}

static int add_problem(struct summary *s, const struct sel_value *result)
{
    s->unreadable++;
    return sel_list_add(s->problems, "v", result);
}

static int gather(struct summary *s)
{
    uint32_t files;
    SEL_TRY(run_count(s->task, "Fingerprint", &files));
    s->hashes = sel_alloc(s->task, ((size_t)files + 1) * HASH_TEXT_SIZE);
    s->problems = sel_list_begin(s->task);
    if (!s->hashes || !s->problems)
        return SEL_ERR_FAILED;
    SEL_TRY(each_result(s, "Fingerprint", add_fingerprint));
    SEL_TRY(each_result(s, "CountWords", add_count));
    SEL_TRY(each_result(s, "CountLarge", add_count));
    SEL_TRY(each_result(s, "Shape", add_shape));
    return each_result(s, "Quarantine", add_problem);
}

static int write_report(const struct summary *s, const struct sel_value *problems)
{
    const char *path;
    char text[4096];
    SEL_TRY(sel_arg_str(s->task, "report", &path));
    int n = snprintf(text, sizeof(text),
                     "files       %lld\nbytes       %lld\nwords       %lld\nlines       %lld\n"
                     "copies      %lld\nlarge       %lld (longest line: %lld characters)\n"
                     "most words  %s (%lld)\nunreadable  %lld\n",
                     (long long)s->files, (long long)s->bytes, (long long)s->words,
                     (long long)s->lines, (long long)s->copies, (long long)s->large,
                     (long long)s->longest_line, s->biggest ? s->biggest : "-",
                     (long long)s->biggest_words, (long long)s->unreadable);
    for (uint32_t i = 0; i < sel_value_count(problems) && n > 0 && (size_t)n < sizeof(text); i++) {
        const struct sel_value *problem = sel_value_at(problems, i);
        struct sel_str file = sel_value_str(sel_value_get_c(problem, "path"));
        struct sel_str why = sel_value_str(sel_value_get_c(problem, "problem"));
        n += snprintf(text + n, sizeof(text) - (size_t)n, "  %.*s: %.*s\n", (int)file.n, file.p,
                      (int)why.n, why.p);
    }
    return sel_write_file(s->task, path, text, strlen(text), false);
}

static int summary(struct sel_task *task)
{
    struct summary s = {.task = task};
    const struct sel_value *problems;
    SEL_TRY(gather(&s));
    SEL_TRY(sel_list_end(s.problems, &problems));
    s.copies = count_copies(&s);
    SEL_TRY(write_report(&s, problems));
    return sel_result(task, "{s:i, s:i, s:i, s:i, s:i, s:v}", "files", s.files, "words", s.words,
                      "copies", s.copies, "large", s.large, "unreadable", s.unreadable, "problems",
                      problems);
}

SEL_MODULE("texts", SEL_TASK("ListFiles", list_files), SEL_FOREACH("each_file", each_file),
           SEL_TASK("Fingerprint", fingerprint), SEL_TASK("CountWords", count_words),
           SEL_TASK("CountLarge", count_large), SEL_TASK("Quarantine", quarantine),
           SEL_TASK("Summary", summary));
