#include "worker/config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/predicate.h"

#define FOLDER_DEPTH_MAX 64 /* also ends a circle of links that spells each level differently */
#define FILE_SIZE_MAX (UINT64_C(1) << 30)
#define CHUNK_SIZE ((size_t)64 << 10) /* read at a time from what has no size */

/* ---- reading a file ---- */

static int file_error(struct sel_error *err, int code, const char *path)
{
    return sel_error_set(err, code, (struct sel_pos){path, 0, 0}, "%s", sel_error_text(code));
}

/* Up to `cap` bytes: the count, or -errno. */
static ssize_t read_full(int fd, char *p, size_t cap)
{
    size_t n = 0;
    while (n < cap) {
        ssize_t got = read(fd, p + n, cap - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        n += (size_t)got;
    }
    return (ssize_t)n;
}

/* Reads to the end: files by their size, pipes in growing pieces. */
static int read_all(struct sel_arena *arena, int fd, size_t size_hint, struct sel_str *ret)
{
    size_t cap = size_hint > 0 ? size_hint + 1 : CHUNK_SIZE, n = 0;
    char *text = sel_arena_alloc_raw(arena, cap, 1);
    for (;;) { /* ends with the file or at FILE_SIZE_MAX */
        if (!text)
            return SEL_ENOMEM;
        ssize_t got = read_full(fd, text + n, cap - n);
        if (got < 0)
            return (int)got;
        n += (size_t)got;
        if (n < cap) {
            text[n] = '\0';
            *ret = (struct sel_str){text, n};
            return 0;
        }
        if (cap > FILE_SIZE_MAX)
            return SEL_ELIMIT;
        char *larger = sel_arena_alloc_raw(arena, cap * 2, 1);
        if (larger)
            memcpy(larger, text, n);
        text = larger;
        cap *= 2;
    }
}

static int read_open(struct sel_arena *arena, int fd, struct sel_str *ret)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    if (st.st_size < 0 || (uint64_t)st.st_size > FILE_SIZE_MAX)
        return SEL_ELIMIT;
    return read_all(arena, fd, (size_t)st.st_size, ret);
}

int sel_config_read_file(struct sel_arena *arena, const char *path, struct sel_str *ret,
                         struct sel_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_error(err, -errno, path);
    int r = read_open(arena, fd, ret);
    (void)close(fd); /* nothing was written */
    return r < 0 ? file_error(err, r, path) : 0;
}

/* ---- finding files ---- */

/* The files of a configuration as they are found. */
struct finder {
    struct sel_arena *arena;
    struct sel_source *sources;
    uint32_t count, cap;
    struct sel_error *err;
};

static int path_error(struct finder *finder, int code, const char *path)
{
    return sel_error_set(finder->err, code, (struct sel_pos){path, 0, 0}, "%s",
                         sel_error_text(code));
}

static int add_file(struct finder *finder, const char *path)
{
    if (!sel_mem_grow(&finder->sources, &finder->cap, (uint64_t)finder->count + 1,
                      sizeof(*finder->sources)))
        return path_error(finder, SEL_ENOMEM, path);
    struct sel_source *source = &finder->sources[finder->count];
    source->file = path;
    int r = sel_config_read_file(finder->arena, path, &source->text, finder->err);
    if (r == 0)
        finder->count++;
    return r;
}

static bool is_flow_file(const char *name)
{
    const char *end = strrchr(name, '.');
    return end && end != name && (strcmp(end, ".yaml") == 0 || strcmp(end, ".yml") == 0);
}

/* Folders above the one that is read, so that a circle of links ends. */
struct above {
    const struct above *up;
    dev_t device;
    ino_t inode;
    uint32_t depth;
};

static bool is_above(const struct above *above, const struct stat *st)
{
    for (; above; above = above->up) {
        if (above->device == st->st_dev && above->inode == st->st_ino)
            return true;
    }
    return false;
}

static int add_folder(struct finder *finder, const char *path, const struct stat *st,
                      const struct above *up);

static int add_entry(struct finder *finder, const char *folder, const char *name,
                     const struct above *above)
{
    char *path = sel_arena_printf(finder->arena, "%s%s%s", folder,
                                  folder[strlen(folder) - 1] == '/' ? "" : "/", name);
    if (!path)
        return path_error(finder, SEL_ENOMEM, folder);
    struct stat st;
    if (stat(path, &st) < 0)
        /* A link to nothing matters only if it looks like a flow file. */
        return is_flow_file(name) ? path_error(finder, -errno, path) : 0;
    if (S_ISDIR(st.st_mode))
        return is_above(above, &st) ? 0 : add_folder(finder, path, &st, above);
    return is_flow_file(name) ? add_file(finder, path) : 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_shown(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int add_folder(struct finder *finder, const char *path, const struct stat *st,
                      const struct above *up)
{
    struct above above = {up, st->st_dev, st->st_ino, up ? up->depth + 1 : 0};
    if (above.depth > FOLDER_DEPTH_MAX)
        return path_error(finder, SEL_ELIMIT, path);
    struct dirent **entries;
    int count = scandir(path, &entries, is_shown, by_name);
    if (count < 0)
        return path_error(finder, -errno, path);
    int r = 0;
    for (int i = 0; i < count; i++) {
        if (r == 0)
            r = add_entry(finder, path, entries[i]->d_name, &above);
        free(entries[i]); /* scandir's own */
    }
    free(entries);
    return r;
}

static int add_path(struct finder *finder, struct sel_diag *diag, const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return path_error(finder, -errno, path);
    if (!S_ISDIR(st.st_mode))
        return add_file(finder, path);
    uint32_t before = finder->count;
    int r = add_folder(finder, path, &st, NULL);
    if (r == 0 && finder->count == before)
        sel_diag_warning(diag, (struct sel_pos){path, 0, 0},
                         "no *.yaml or *.yml file is in this folder");
    return r;
}

/* ---- diagnostics ---- */

static void print_item(FILE *out, const struct sel_diag_item *item)
{
    if (item->pos.file)
        fprintf(out, "%s:", item->pos.file);
    if (item->pos.line > 0)
        fprintf(out, "%u:%u:", item->pos.line, item->pos.col);
    fprintf(out, "%s%s: %s\n", item->pos.file || item->pos.line > 0 ? " " : "",
            item->is_warning ? "warning" : "error", item->text);
}

void sel_config_print(const struct sel_diag *diag, FILE *out)
{
    for (const struct sel_diag_item *item = diag->first; item; item = item->next)
        print_item(out, item);
    if (diag->dropped_count > 0)
        fprintf(out, "... and %u more\n", diag->dropped_count);
}

/* ---- public ---- */

static int compile(const struct sel_config_request *request, struct sel_config *config,
                   struct sel_source nodes, const struct finder *flows)
{
    struct sel_predicate_world world = {request->getenv, request->getenv_ctx};
    struct sel_compile_options options = {
        .nodes = nodes,
        .flows = flows->sources,
        .flow_count = flows->count,
        .world = &world,
        .user = request->user,
        .no_check = request->no_check,
    };
    return sel_compile(&options, &config->diag, &config->system);
}

int sel_config_load(const struct sel_config_request *request, struct sel_config *config,
                    struct sel_error *err)
{
    sel_diag_init(&config->diag, &config->arena);
    struct sel_source nodes = {.file = request->nodes};
    struct finder flows = {.arena = &config->arena, .err = err};
    int r = sel_config_read_file(&config->arena, request->nodes, &nodes.text, err);
    for (uint32_t i = 0; r == 0 && i < request->flow_count; i++)
        r = add_path(&flows, &config->diag, request->flows[i]);
    if (r == 0) {
        r = compile(request, config, nodes, &flows);
        if (r < 0 && r != SEL_ECONFIG)
            (void)sel_error_set(err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
    }
    (void)sel_mem_free(flows.sources);
    return r;
}

void sel_config_done(struct sel_config *config)
{
    if (config->system)
        sel_system_free(config->system);
    sel_arena_done(&config->arena);
    *config = (struct sel_config){0};
}
