/* tests/support/program.h - running a program as a person would, in a folder of its own. */
#ifndef SEL_TESTS_SUPPORT_PROGRAM_H
#define SEL_TESTS_SUPPORT_PROGRAM_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/test.h"

/* A new folder below the temporary one; removed with everything in it by done. */
struct sel_test_folder {
    char path[256];
};

static inline void sel_test_folder_init(struct sel_test_folder *folder)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(folder->path, sizeof(folder->path), "%s/selinon-test-XXXXXX",
                   tmp && strlen(tmp) < 200 ? tmp : "/tmp");
    assert_non_null(mkdtemp(folder->path));
}

static inline int sel_test_remove(const char *path, const struct stat *st, int type,
                                  struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void sel_test_folder_done(struct sel_test_folder *folder)
{
    (void)nftw(folder->path, sel_test_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* Makes a file, and the one folder that its name may begin with. */
static inline void sel_test_write(const struct sel_test_folder *folder, const char *name,
                                  struct sel_str text)
{
    char path[512];
    const char *slash = strchr(name, '/');
    if (slash) {
        (void)snprintf(path, sizeof(path), "%s/%.*s", folder->path, (int)(slash - name), name);
        assert_true(mkdir(path, 0777) == 0 || errno == EEXIST);
    }
    (void)snprintf(path, sizeof(path), "%s/%s", folder->path, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text.p, 1, text.n, file), text.n);
    assert_int_equal(fclose(file), 0);
}

struct sel_test_run {
    int status;      /* exit status, -1 if a signal ended it */
    char *out, *err; /* terminated; freed by done */
};

static inline char *sel_test_take(const char *path)
{
    struct sel_buf buf = {0};
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof(piece), file)) > 0;)
        sel_buf_put(&buf, piece, n);
    (void)fclose(file);
    (void)unlink(path);
    sel_buf_put_u8(&buf, 0);
    assert_int_equal(sel_buf_error(&buf), 0);
    return (char *)buf.p;
}

static inline void sel_test_redirect(const char *path, int fd)
{
    int to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (to < 0 || dup2(to, fd) < 0)
        _exit(126);
}

/* Runs argv[0] in `folder` with standard input closed off, `vars` ("NAME=value") as its whole
 * environment, and standard output to `out_to` if that is not NULL. */
static inline void sel_test_run_to(struct sel_test_run *run, const struct sel_test_folder *folder,
                                   const char *const *argv, const char *const *vars,
                                   const char *out_to)
{
    static const char *const none[] = {NULL};
    char out[512], err[512];
    (void)snprintf(out, sizeof(out), "%s/.out", folder->path);
    (void)snprintf(err, sizeof(err), "%s/.err", folder->path);
    sel_test_write(folder, ".out", SEL_STR(""));
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (chdir(folder->path) < 0)
            _exit(126);
        sel_test_redirect("/dev/null", STDIN_FILENO);
        sel_test_redirect(out_to ? out_to : out, STDOUT_FILENO);
        sel_test_redirect(err, STDERR_FILENO);
        (void)execve(argv[0], (char *const *)(uintptr_t)argv,
                     (char *const *)(uintptr_t)(vars ? vars : none));
        _exit(126);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    run->status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    run->out = sel_test_take(out);
    run->err = sel_test_take(err);
}

static inline void sel_test_run(struct sel_test_run *run, const struct sel_test_folder *folder,
                                const char *const *argv, const char *const *vars)
{
    sel_test_run_to(run, folder, argv, vars, NULL);
}

static inline void sel_test_run_done(struct sel_test_run *run)
{
    (void)sel_mem_free(run->out);
    (void)sel_mem_free(run->err);
}

#endif
