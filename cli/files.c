#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/arena.h"
#include "worker/config.h"

/* ---- errors ---- */

static int fail_text(const struct sel_cli *cli, const char *text)
{
    (void)fflush(cli->out); /* what was printed before comes first; finish looks at its errors */
    fprintf(cli->err, "Error: %s\n", text);
    return SEL_CLI_FAILED;
}

int sel_cli_fail(const struct sel_cli *cli, const char *fmt, ...)
{
    char text[SEL_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return fail_text(cli, text);
}

int sel_cli_fail_with(const struct sel_cli *cli, const struct sel_error *err)
{
    char text[SEL_ERROR_TEXT_MAX + 512];
    return fail_text(cli, sel_error_format(err, text, sizeof(text)));
}

int sel_cli_finish(const struct sel_cli *cli, int status)
{
    if (fflush(cli->out) == 0 && !ferror(cli->out))
        return status;
    fprintf(cli->err, "Error: standard output: %s\n", sel_error_text(-errno));
    return SEL_CLI_FAILED;
}

/* ---- files ---- */

static int file_error(struct sel_error *err, int code, const char *path)
{
    return sel_error_set(err, code, (struct sel_pos){path, 0, 0}, "%s", sel_error_text(code));
}

int sel_cli_read_file(struct sel_arena *arena, const char *path, struct sel_str *ret,
                      struct sel_error *err)
{
    return sel_config_read_file(arena, path, ret, err);
}

static int write_full(int fd, struct sel_str text)
{
    while (text.n > 0) {
        ssize_t put = write(fd, text.p, text.n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        text.p += put;
        text.n -= (size_t)put;
    }
    return 0;
}

static int write_and_close(int fd, struct sel_str text)
{
    int r = write_full(fd, text);
    if (close(fd) < 0 && r == 0)
        r = -errno;
    return r;
}

/* Devices, pipes, and what a link leads to. */
static int write_in_place(const char *path, struct sel_str text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return fd < 0 ? -errno : write_and_close(fd, text);
}

static int write_beside(const char *path, mode_t mode, struct sel_str text)
{
    char temporary[4096];
    int n = snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
    if (n < 0 || (size_t)n >= sizeof(temporary))
        return -ENAMETOOLONG;
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = fchmod(fd, mode) < 0 ? -errno : 0;
    int written = write_and_close(fd, text);
    r = r < 0 ? r : written;
    if (r == 0 && rename(temporary, path) < 0)
        r = -errno;
    if (r < 0)
        (void)unlink(temporary); /* the first error is the one to tell */
    return r;
}

static mode_t new_file_mode(void)
{
    mode_t mask = umask(0);
    (void)umask(mask);
    return 0666 & ~mask;
}

int sel_cli_write_file(const struct sel_cli *cli, const char *path, struct sel_str text,
                       struct sel_error *err)
{
    if (strcmp(path, "-") == 0) {
        size_t put = fwrite(text.p, 1, text.n, cli->out);
        return put == text.n && fflush(cli->out) == 0 ? 0 : file_error(err, -errno, "-");
    }
    struct stat st;
    bool exists = lstat(path, &st) == 0;
    int r = exists && !S_ISREG(st.st_mode)
                ? write_in_place(path, text)
                : write_beside(path, exists ? st.st_mode & 07777 : new_file_mode(), text);
    return r < 0 ? file_error(err, r, path) : 0;
}
