/* tests/support/storage.h - what the tests of storages share: opening one from a JSON
 * configuration, single-record calls, a folder that goes away with the test. */
#ifndef SEL_TESTS_SUPPORT_STORAGE_H
#define SEL_TESTS_SUPPORT_STORAGE_H

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/storage.h"
#include "tests/support/test.h"

/* ---- a folder for one test ---- */

/* Makes it and sets *state to its path; for cmocka's set-up. */
static inline int sel_test_folder_make(void **state)
{
    char path[] = "/tmp/selinon-test-XXXXXX";
    if (!mkdtemp(path))
        return -1;
    *state = strdup(path);
    return *state ? 0 : -1;
}

static inline void sel_test_remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
        char child[PATH_MAX];
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        int n = snprintf(child, sizeof(child), "%s/%s", path, e->d_name);
        if (n < 0 || (size_t)n >= sizeof(child))
            continue; /* too long to be one of ours */
        if (lstat(child, &st) == 0 && S_ISDIR(st.st_mode))
            sel_test_remove_tree(child);
        else
            (void)unlink(child);
    }
    if (dir)
        closedir(dir);
    (void)rmdir(path);
}

static inline int sel_test_folder_remove(void **state)
{
    sel_test_remove_tree(*state);
    free(*state);
    return 0;
}

#define with_folder(test)                                                                          \
    cmocka_unit_test_setup_teardown(test, sel_test_folder_make, sel_test_folder_remove)

/* ---- opening ---- */

/* The variable {FOLDER} is `ctx`. */
static inline const char *sel_test_getenv(void *ctx, const char *name)
{
    return strcmp(name, "FOLDER") == 0 ? ctx : NULL;
}

static inline int sel_test_open(const char *module, const char *name, const char *config,
                                void *folder, struct sel_storage **ret, struct sel_error *err)
{
    const struct sel_storage_adapter *adapter =
        sel_storage_find(sel_str_c(module), sel_str_c(name));
    assert_non_null(adapter);
    struct sel_arena arena = {0};
    struct sel_value v = sel_test_json(&arena, config);
    struct sel_storage_options options = {
        .name = SEL_STR("S"), .config = &v, .getenv = sel_test_getenv, .getenv_ctx = folder};
    int r = adapter->open(&options, sel_io_blocking(), ret, err);
    sel_arena_done(&arena);
    return r;
}

static inline struct sel_storage *sel_test_must_open(const char *module, const char *name,
                                                     const char *config, void *folder)
{
    struct sel_storage *s = NULL;
    struct sel_error err = {0};
    if (sel_test_open(module, name, config, folder, &s, &err) < 0)
        fail_msg("%s %s: %s", name, config, err.text);
    return s;
}

/* ---- one record ---- */

static inline struct sel_storage_item sel_test_item(const char *id, struct sel_str value)
{
    return (struct sel_storage_item){.flow = SEL_STR("flow1"),
                                     .task = SEL_STR("Task1"),
                                     .id = sel_str_c(id),
                                     .node_args = {(const char *)sel_value_null_bytes, 1},
                                     .value = value,
                                     .status = SEL_STORE_FAILED};
}

/* A JSON text as the msgpack bytes that storages get; lives in `arena`. */
static inline struct sel_str sel_test_bytes(struct sel_arena *arena, const char *json)
{
    struct sel_value v = sel_test_json(arena, json);
    struct sel_buf buf = {0};
    sel_value_encode(&v, &buf);
    assert_ok(sel_buf_error(&buf));
    struct sel_str bytes = {sel_arena_memdup(arena, buf.p, buf.n), buf.n};
    sel_buf_done(&buf);
    return bytes;
}

static inline enum sel_store_status sel_test_store(struct sel_storage *s, const char *id,
                                                   const char *json)
{
    struct sel_arena arena = {0};
    struct sel_storage_item item = sel_test_item(id, sel_test_bytes(&arena, json));
    assert_ok(s->ops->store(s, sel_io_blocking(), &arena, &item, 1, NULL));
    sel_arena_done(&arena);
    return item.status;
}

static inline enum sel_store_status sel_test_delete(struct sel_storage *s, const char *id)
{
    struct sel_arena arena = {0};
    struct sel_storage_item item = sel_test_item(id, (struct sel_str){NULL, 0});
    assert_ok(s->ops->del(s, sel_io_blocking(), &arena, &item, 1, NULL));
    sel_arena_done(&arena);
    return item.status;
}

/* The JSON text of a result in `arena`; NULL: there is none. */
static inline const char *sel_test_retrieve(struct sel_storage *s, struct sel_arena *arena,
                                            const char *id)
{
    struct sel_storage_item item = sel_test_item(id, (struct sel_str){NULL, 0});
    struct sel_value v;
    assert_ok(s->ops->retrieve(s, sel_io_blocking(), arena, &item, 1, NULL));
    if (item.status == SEL_STORE_MISSING)
        return NULL;
    if (item.status != SEL_STORE_OK)
        fail_msg("%s: %s", id, item.message);
    assert_ok(sel_value_decode(arena, item.value.p, item.value.n, false, &v, NULL));
    return sel_test_json_text(arena, &v);
}

#define assert_stored(s, id, expected)                                                             \
    do {                                                                                           \
        struct sel_arena arena_of_assert = {0};                                                    \
        const char *got_of_assert = sel_test_retrieve((s), &arena_of_assert, (id));                \
        assert_non_null(got_of_assert);                                                            \
        assert_string_equal(got_of_assert, (expected));                                            \
        sel_arena_done(&arena_of_assert);                                                          \
    } while (0)

#define assert_missing(s, id)                                                                      \
    do {                                                                                           \
        struct sel_arena arena_of_assert = {0};                                                    \
        assert_null(sel_test_retrieve((s), &arena_of_assert, (id)));                               \
        sel_arena_done(&arena_of_assert);                                                          \
    } while (0)

#endif
