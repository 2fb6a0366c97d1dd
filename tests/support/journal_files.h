/* tests/support/journal_files.h - a journal's folder as bytes: copied, damaged, opened again. */
#ifndef SEL_TESTS_SUPPORT_JOURNAL_FILES_H
#define SEL_TESTS_SUPPORT_JOURNAL_FILES_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/journal.h"
#include "tests/support/storage.h"

#define SEL_TEST_RESERVE (1 << 20) /* small: a ballast of it is made at each opening */

static inline int sel_test_journal_try(const char *path, bool read_only, struct sel_journal **ret,
                                       struct sel_error *err)
{
    const struct sel_journal_lmdb_options options = {
        .path = path, .reserve = SEL_TEST_RESERVE, .read_only = read_only};
    return sel_journal_lmdb_open(&options, ret, err);
}

static inline struct sel_journal *sel_test_journal_open(const char *path)
{
    struct sel_journal *j = NULL;
    struct sel_error err = {0};
    if (sel_test_journal_try(path, false, &j, &err) < 0)
        fail_msg("%s", err.text);
    return j;
}

static inline void sel_test_path(char out[PATH_MAX], const char *folder, const char *name)
{
    int n = snprintf(out, PATH_MAX, "%s/%s", folder ? folder : ".", name);
    assert_true(n > 0 && n < PATH_MAX);
}

/* A whole file into `buf`, whose content goes; false: there is none. */
static inline bool sel_test_file_load(const char *folder, const char *name, struct sel_buf *buf)
{
    char path[PATH_MAX];
    struct stat st;
    sel_test_path(path, folder, name);
    sel_buf_clear(buf);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(sel_buf_reserve(buf, (size_t)st.st_size + 1));
    assert_int_equal(read(fd, buf->p, (size_t)st.st_size), st.st_size);
    buf->n = (size_t)st.st_size;
    (void)close(fd);
    return true;
}

static inline void sel_test_file_store(const char *folder, const char *name, const void *p,
                                       size_t n)
{
    char path[PATH_MAX];
    sel_test_path(path, folder, name);
    assert_true(mkdir(folder, 0755) == 0 || errno == EEXIST);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    if (n > 0)
        assert_int_equal(write(fd, p, n), n);
    assert_int_equal(close(fd), 0);
}

static inline void sel_test_file_remove(const char *folder, const char *name)
{
    char path[PATH_MAX];
    sel_test_path(path, folder, name);
    (void)unlink(path);
}

/* The two files that hold something. */
struct sel_test_image {
    struct sel_buf data, tail;
};

static inline void sel_test_image_load(struct sel_test_image *image, const char *folder)
{
    assert_true(sel_test_file_load(folder, "data.mdb", &image->data));
    assert_true(sel_test_file_load(folder, "tail", &image->tail));
}

static inline void sel_test_image_store(const struct sel_test_image *image, const char *folder)
{
    sel_test_file_store(folder, "data.mdb", image->data.p, image->data.n);
    sel_test_file_store(folder, "tail", image->tail.p, image->tail.n);
}

static inline void sel_test_image_done(struct sel_test_image *image)
{
    sel_buf_done(&image->data);
    sel_buf_done(&image->tail);
}

/* A folder in memory, where a sync takes no time, or `fallback` where there is none. */
static inline void sel_test_quick_folder(char out[PATH_MAX], const char *fallback)
{
    (void)snprintf(out, PATH_MAX, "/dev/shm/selinon-test-XXXXXX");
    if (!mkdtemp(out))
        (void)snprintf(out, PATH_MAX, "%s", fallback);
}

/* For cmocka's set-up: *state is the path of such a folder. */
static inline int sel_test_quick_make(void **state)
{
    char path[PATH_MAX];
    sel_test_quick_folder(path, "");
    if (!*path)
        return sel_test_folder_make(state);
    *state = strdup(path);
    return *state ? 0 : -1;
}

#define with_quick_folder(test)                                                                    \
    cmocka_unit_test_setup_teardown(test, sel_test_quick_make, sel_test_folder_remove)

/* What an opening of perhaps damaged files came to: refused, which must be by SEL_EFORMAT or
 * SEL_EVERSION with a text; or `ret`, of which everything must be right, now and after it was used:
 * it is appended to, and dropped from, which leads LMDB through all that it believes. */
static inline int sel_test_open_damaged(const char *folder, bool thoroughly,
                                        struct sel_test_walk *ret)
{
    struct sel_journal *j = NULL;
    struct sel_error err = {0};
    struct sel_buf buf = {0};
    *ret = (struct sel_test_walk){0};
    int r = sel_test_journal_try(folder, false, &j, &err);
    if (r < 0) {
        if ((r != SEL_EFORMAT && r != SEL_EVERSION) || err.text[0] == '\0')
            fail_msg("refused with %s: %s", sel_error_name(r), err.text);
        return r;
    }
    if (j->ops->walk(j, 0, sel_test_visit, ret, &err) < 0)
        fail_msg("%s", err.text);
    assert_false(ret->is_wrong);
    for (uint64_t seq = ret->first; thoroughly && seq <= ret->last && seq > 0; seq++) {
        sel_buf_clear(&buf);
        if (j->ops->read(j, seq, 0, sel_test_batch_size(seq), &buf, &err) < 0)
            fail_msg("%s", err.text);
        assert_true(sel_test_batch_is(seq, 0, sel_buf_str(&buf)));
    }
    uint64_t last = ret->last;
    for (int i = 0; i < (thoroughly ? 6 : 1); i++, last += 2) {
        sel_test_append_ok(j, last, 2, true);
        if (j->ops->drop(j, last - 3, &err) < 0)
            fail_msg("%s", err.text);
    }
    j->ops->close(j);
    sel_buf_done(&buf);
    return 0;
}

#endif
