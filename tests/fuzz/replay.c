/* tests/fuzz/replay.c - runs a fuzz target over files that are kept, as an ordinary test.
 *
 * Arguments are files and folders (not searched deeper). A missing one is an error, and so is a
 * folder without a file: a test that runs nothing must not pass. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/buf.h"
#include "core/error.h"
#include "core/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int complain(const char *path, int code)
{
    fprintf(stderr, "%s: %s\n", path, sel_error_text(code));
    return code;
}

static int read_all(FILE *file, struct sel_buf *content)
{
    for (;;) {
        if (!sel_buf_reserve(content, 65536))
            return sel_buf_error(content);
        size_t n = fread(content->p + content->n, 1, 65536, file);
        content->n += n;
        if (n == 0)
            return ferror(file) ? -EIO : 0;
    }
}

static int run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return complain(path, -errno);
    struct sel_buf content = {0};
    int r = read_all(file, &content);
    (void)fclose(file); /* only read */
    if (r == 0) {
        /* In memory of its exact size, so that a sanitizer sees each byte read beyond it. */
        uint8_t *data = sel_mem_alloc(content.n);
        r = data ? 0 : SEL_ENOMEM;
        if (data && content.n)
            memcpy(data, content.p, content.n);
        if (data)
            (void)LLVMFuzzerTestOneInput(data, content.n); /* always 0 */
        sel_mem_free(data);
    }
    sel_buf_done(&content);
    return r < 0 ? complain(path, r) : 1;
}

/* The number of files run, or an error. */
static int run_folder(const char *path, DIR *folder)
{
    int count = 0;
    struct sel_buf name = {0};
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (!entry) {
            count = errno ? complain(path, -errno) : count;
            break;
        }
        if (entry->d_name[0] == '.')
            continue;
        sel_buf_clear(&name);
        sel_buf_printf(&name, "%s/%s", path, entry->d_name);
        int r = run_file(sel_buf_cstr(&name));
        if (r < 0) {
            count = r;
            break;
        }
        count++;
    }
    sel_buf_done(&name);
    return count == 0 ? complain(path, SEL_ENOTFOUND) : count;
}

static int run_path(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder && errno == ENOTDIR)
        return run_file(path);
    if (!folder)
        return complain(path, -errno);
    int r = run_folder(path, folder);
    (void)closedir(folder); /* only read */
    return r;
}

int main(int argc, char **argv)
{
    int count = 0;
    bool failed = argc < 2;
    for (int i = 1; i < argc; i++) {
        int r = run_path(argv[i]);
        failed = failed || r < 0;
        count += r > 0 ? r : 0;
    }
    printf("%d inputs\n", count);
    return failed ? 1 : 0;
}
