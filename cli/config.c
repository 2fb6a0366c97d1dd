#include "cli/config.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/mem.h"
#include "core/predicate.h"

#define FOLDER_DEPTH_MAX 64 /* also ends a circle of links that spells each level differently */

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
    int r = sel_cli_read_file(finder->arena, path, &source->text, finder->err);
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

static int add_path(const struct sel_cli *cli, struct finder *finder, const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return path_error(finder, -errno, path);
    if (!S_ISDIR(st.st_mode))
        return add_file(finder, path);
    uint32_t before = finder->count;
    int r = add_folder(finder, path, &st, NULL);
    if (r == 0 && finder->count == before)
        fprintf(cli->err, "%s: warning: no *.yaml or *.yml file is in this folder\n", path);
    return r;
}

/* ---- diagnostics ---- */

static void print_item(const struct sel_cli *cli, const struct sel_diag_item *item)
{
    if (item->pos.file)
        fprintf(cli->err, "%s:", item->pos.file);
    if (item->pos.line > 0)
        fprintf(cli->err, "%u:%u:", item->pos.line, item->pos.col);
    fprintf(cli->err, "%s%s: %s\n", item->pos.file || item->pos.line > 0 ? " " : "",
            item->is_warning ? "warning" : "error", item->text);
}

static void print_diag(const struct sel_cli *cli, const struct sel_diag *diag)
{
    for (const struct sel_diag_item *item = diag->first; item; item = item->next)
        print_item(cli, item);
    if (diag->dropped_count > 0)
        fprintf(cli->err, "... and %u more\n", diag->dropped_count);
}

static int refuse(const struct sel_cli *cli, const struct sel_diag *diag, bool strict)
{
    uint32_t count = diag->error_count + (strict ? diag->warning_count : 0);
    (void)sel_cli_fail(cli, "the configuration has %u %s%s", count,
                       diag->error_count > 0 ? "error" : "warning", count == 1 ? "" : "s");
    return SEL_ECONFIG;
}

/* ---- public ---- */

static int compile(const struct sel_cli *cli, const struct sel_cli_config_request *request,
                   struct sel_cli_config *config, struct sel_source nodes,
                   const struct finder *flows)
{
    struct sel_predicate_world world = {
        request->getenv ? request->getenv : cli->getenv,
        request->getenv ? request->getenv_ctx : cli->getenv_ctx,
    };
    struct sel_compile_options options = {
        .nodes = nodes,
        .flows = flows->sources,
        .flow_count = flows->count,
        .world = &world,
        .user = request->user,
        .no_check = request->no_check,
    };
    int r = sel_compile(&options, &config->diag, &config->system);
    print_diag(cli, &config->diag);
    if (r == SEL_ECONFIG || (r == 0 && request->strict && config->diag.warning_count > 0))
        return refuse(cli, &config->diag, request->strict);
    if (r < 0)
        (void)sel_cli_fail(cli, "%s", sel_error_text(r));
    return r;
}

int sel_cli_config_load(const struct sel_cli *cli, const struct sel_cli_config_request *request,
                        struct sel_cli_config *config)
{
    sel_diag_init(&config->diag, &config->arena);
    struct sel_error err;
    struct sel_source nodes = {.file = request->nodes};
    struct finder flows = {.arena = &config->arena, .err = &err};
    int r = sel_cli_read_file(&config->arena, request->nodes, &nodes.text, &err);
    for (uint32_t i = 0; r == 0 && i < request->flows.count; i++)
        r = add_path(cli, &flows, request->flows.items[i]);
    if (r < 0)
        (void)sel_cli_fail_with(cli, &err);
    else
        r = compile(cli, request, config, nodes, &flows);
    (void)sel_mem_free(flows.sources);
    return r;
}

void sel_cli_config_done(struct sel_cli_config *config)
{
    if (config->system)
        sel_system_free(config->system);
    sel_arena_done(&config->arena);
    *config = (struct sel_cli_config){0};
}
