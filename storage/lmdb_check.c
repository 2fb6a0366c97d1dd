#include "storage/lmdb_check.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The layout of a meta page in LMDB 0.9 on 64-bit machines, struct MDB_page's header and MDB_meta
 * of its mdb.c: pages 0 and 1 hold one each, the one with the higher transaction counts. */
enum {
    PAGE_FLAGS = 10,      /* u16 */
    META_MAGIC = 16,      /* u32 */
    META_VERSION = 20,    /* u32 */
    META_PAGE_SIZE = 40,  /* u32 */
    META_LAST_PAGE = 136, /* u64 */
    META_TXN = 144,       /* u64 */
    META_END = 152,
};
#define FLAG_META 0x08
#define MAGIC UINT32_C(0xBEEFC0DE)
#define VERSION 1
#define PAGE_SIZE_MIN 512
#define PAGE_SIZE_MAX 65536

static const struct sel_pos nowhere;

struct meta {
    uint32_t page_size;
    uint64_t last_page, txn;
};

static uint64_t load(const uint8_t *p, size_t bytes)
{
    uint64_t value = 0;
    memcpy(&value, p, bytes); /* LMDB writes the order of the machine */
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? value : value >> (64 - 8 * bytes);
}

/* 0, -errno, SEL_EFORMAT, SEL_EVERSION */
static int read_meta(int fd, int64_t offset, struct meta *ret)
{
    uint8_t page[META_END];
    ssize_t n = pread(fd, page, sizeof(page), offset);
    if (n < 0)
        return -errno;
    if (n < META_END || load(page + META_MAGIC, 4) != MAGIC ||
        !(load(page + PAGE_FLAGS, 2) & FLAG_META))
        return SEL_EFORMAT;
    if (load(page + META_VERSION, 4) != VERSION)
        return SEL_EVERSION;
    ret->page_size = (uint32_t)load(page + META_PAGE_SIZE, 4);
    ret->last_page = load(page + META_LAST_PAGE, 8);
    ret->txn = load(page + META_TXN, 8);
    bool is_power = (ret->page_size & (ret->page_size - 1)) == 0;
    if (!is_power || ret->page_size < PAGE_SIZE_MIN || ret->page_size > PAGE_SIZE_MAX)
        return SEL_EFORMAT;
    return 0;
}

static int check_file(int fd, const char *path, struct sel_error *err)
{
    struct stat st;
    struct meta first = {0}, second = {0};
    if (fstat(fd, &st) < 0)
        return sel_error_set(err, -errno, nowhere, "'%s': %s", path, strerror(errno));
    if (st.st_size == 0)
        return 0; /* LMDB makes a new one of it */
    int r = read_meta(fd, 0, &first);
    if (r == 0)
        r = read_meta(fd, first.page_size, &second);
    if (r == SEL_EVERSION)
        return sel_error_set(err, r, nowhere, "'%s' was written by another version of LMDB", path);
    if (r == SEL_EFORMAT)
        return sel_error_set(err, r, nowhere, "'%s' is damaged, or no LMDB environment", path);
    if (r < 0)
        return sel_error_set(err, r, nowhere, "'%s': %s", path, sel_error_text(r));
    uint64_t last = first.txn > second.txn ? first.last_page : second.last_page, need;
    if (last == UINT64_MAX || __builtin_mul_overflow(last + 1, first.page_size, &need) ||
        need > (uint64_t)st.st_size)
        return sel_error_set(err, SEL_EFORMAT, nowhere,
                             "'%s' is damaged: it has %" PRId64 " bytes but counts %" PRIu64
                             " pages of %" PRIu32 "; restore it from a copy, or move it away",
                             path, (int64_t)st.st_size, last + 1, first.page_size);
    return 0;
}

int sel_lmdb_check(const char *folder, struct sel_error *err)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s/data.mdb", folder);
    if (n < 0 || (size_t)n >= sizeof(path))
        return sel_error_set(err, -ENAMETOOLONG, nowhere, "the path '%s' is too long", folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT)
            return 0;
        return sel_error_set(err, -errno, nowhere, "cannot open '%s': %s", path, strerror(errno));
    }
    int r = check_file(fd, path, err);
    (void)close(fd); /* nothing was written */
    return r;
}
