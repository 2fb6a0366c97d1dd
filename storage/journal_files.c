#include "storage/journal_files.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/mem.h"
#include "storage/builtin.h"
#include "storage/crc.h"
#include "storage/io.h"

#define DATA "data.mdb"
#define TAIL "tail"
#define TAIL_NEW "tail.new"
#define BALLAST "ballast"
#define LOCK "lock"
#define MODE 0644
#define BOOT_FILE "/proc/sys/kernel/random/boot_id"
#define BOOT_TEXT 36               /* a UUID */
#define AHEAD ((uint64_t)32 << 20) /* bytes asked for before they are needed */

static const struct sel_pos nowhere;
static const char format_magic[16] = "selinon-journal";

/* ---- system calls ---- */

static int full_to_enospc(int code)
{
    return code == -EDQUOT || code == -EFBIG ? -ENOSPC : code;
}

static int read_exactly(int fd, uint64_t offset, void *p, size_t n)
{
    for (uint8_t *at = p; n > 0;) {
        ssize_t r = pread(fd, at, n, (off_t)offset);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r < 0 ? -errno : -EIO; /* shorter than it was */
        at += r;
        offset += (uint64_t)r;
        n -= (size_t)r;
    }
    return 0;
}

static int write_exactly(int fd, uint64_t offset, const void *p, size_t n)
{
    for (const uint8_t *at = p; n > 0;) {
        ssize_t r = pwrite(fd, at, n, (off_t)offset);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r < 0 ? full_to_enospc(-errno) : -EIO;
        at += r;
        offset += (uint64_t)r;
        n -= (size_t)r;
    }
    return 0;
}

static int open_in(const struct sel_journal_files *files, const char *name, int flags)
{
    int fd = openat(files->folder_fd, name, flags | O_CLOEXEC, MODE);
    return fd < 0 ? -errno : fd;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd); /* what had to be written was synced */
    *fd = -1;
}

static int name_error(const struct sel_journal_files *files, int code, const char *what,
                      const char *name, struct sel_error *err)
{
    return sel_error_set(err, code, nowhere, "%s '%s/%s': %s", what, files->path, name,
                         sel_error_text(code));
}

/* ---- opening ---- */

/* The id of the machine's boot; zero if the system does not tell it, which is like no boot at all.
 */
static void read_boot(uint8_t out[SEL_JOURNAL_BOOT_SIZE])
{
    char text[BOOT_TEXT];
    memset(out, 0, SEL_JOURNAL_BOOT_SIZE);
    int fd = open(BOOT_FILE, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, text, sizeof(text));
    (void)close(fd);
    if (n != (ssize_t)sizeof(text))
        return;
    size_t digits = 0;
    for (size_t i = 0; i < sizeof(text) && digits < 2 * (size_t)SEL_JOURNAL_BOOT_SIZE; i++) {
        char c = text[i];
        int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (value < 0)
            continue;
        out[digits / 2] = (uint8_t)(out[digits / 2] << 4 | value);
        digits++;
    }
}

static bool is_zero(const uint8_t *p, size_t n)
{
    while (n > 0 && p[n - 1] == 0)
        n--;
    return n == 0;
}

/* The entry of the folder in the one above it. */
static int sync_parent(const struct sel_journal_files *files)
{
    int fd = open_in(files, "..", O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return fd;
    int r = fsync(fd) < 0 ? -errno : 0;
    (void)close(fd);
    return r;
}

static int open_folder(struct sel_journal_files *files, struct sel_error *err)
{
    if (!files->is_read_only) {
        int r = sel_storage_make_folder(sel_io_blocking(), files->path);
        if (r < 0)
            return sel_error_set(err, r, nowhere, "cannot make the folder '%s': %s", files->path,
                                 sel_error_text(r));
    }
    files->folder_fd = open(files->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (files->folder_fd < 0)
        return sel_error_set(err, -errno, nowhere, "'%s': %s", files->path, strerror(errno));
    return 0;
}

static int lock_folder(struct sel_journal_files *files, struct sel_error *err)
{
    int fd = open_in(files, LOCK, O_RDWR | O_CREAT);
    if ((fd == -EACCES || fd == -EROFS) && files->is_read_only) {
        fd = open_in(files, LOCK, O_RDONLY);
        if (fd == -ENOENT)
            return 0; /* a copy that nobody can write */
    }
    if (fd < 0)
        return name_error(files, fd, "cannot open", LOCK, err);
    files->lock_fd = fd;
    if (flock(fd, (files->is_read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return sel_error_set(err, -EAGAIN, nowhere, "the journal '%s' is in use by another process",
                             files->path);
    return name_error(files, -errno, "cannot lock", LOCK, err);
}

static int decode_tail(struct sel_journal_files *files, const uint8_t head[SEL_JOURNAL_TAIL_HEAD],
                       struct sel_error *err)
{
    int r = sel_journal_tail_head_decode(head, &files->tail);
    if (r == SEL_EVERSION)
        return sel_error_set(err, r, nowhere,
                             "the journal '%s' has format %" PRIu32
                             "; this program knows format %d",
                             files->path, files->tail.format, SEL_JOURNAL_FORMAT);
    if (r < 0)
        return sel_error_set(err, r, nowhere,
                             "'%s/" TAIL "' is damaged, or of another program; restore the whole "
                             "folder from a copy, or move that file away, which loses at most what "
                             "was not synced yet",
                             files->path);
    uint8_t boot[SEL_JOURNAL_BOOT_SIZE];
    read_boot(boot);
    files->is_same_boot =
        !is_zero(boot, sizeof(boot)) && memcmp(boot, files->tail.boot, sizeof(boot)) == 0;
    return 0;
}

/* One that is missing, or shorter than its head, or zero, is that of a journal whose making was cut
 * off: then nothing was ever appended. */
static int open_tail(struct sel_journal_files *files, struct sel_error *err)
{
    uint8_t head[SEL_JOURNAL_TAIL_HEAD];
    struct stat st;
    int fd = open_in(files, TAIL, files->is_read_only ? O_RDONLY : O_RDWR);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return name_error(files, fd, "cannot open", TAIL, err);
    files->tail_fd = fd;
    if (fstat(fd, &st) < 0)
        return name_error(files, -errno, "cannot read", TAIL, err);
    if (st.st_size < (off_t)sizeof(head))
        return 0;
    int r = read_exactly(fd, 0, head, sizeof(head));
    if (r < 0)
        return name_error(files, r, "cannot read", TAIL, err);
    if (is_zero(head, sizeof(head)))
        return 0;
    files->tail_size = (uint64_t)st.st_size;
    return decode_tail(files, head, err);
}

static int open_data(struct sel_journal_files *files, struct sel_error *err)
{
    int fd = open_in(files, DATA, O_RDONLY);
    if (fd == -ENOENT) {
        if (files->is_read_only && files->tail_size == 0)
            return sel_error_set(err, fd, nowhere, "'%s' holds no journal", files->path);
        if (files->tail.synced.seq > 0 || files->tail_size > SEL_JOURNAL_TAIL_HEAD)
            return sel_error_set(err, SEL_EFORMAT, nowhere,
                                 "'%s' is missing, but the journal had batches; restore the whole "
                                 "folder from a copy, or move it away",
                                 files->data_path);
        return files->is_read_only ? name_error(files, fd, "cannot open", DATA, err) : 0;
    }
    if (fd < 0)
        return name_error(files, fd, "cannot open", DATA, err);
    files->data_fd = fd;
    return 0;
}

int sel_journal_files_open(struct sel_journal_files *files, const char *path, bool read_only,
                           struct sel_error *err)
{
    *files = (struct sel_journal_files){.is_read_only = read_only,
                                        .folder_fd = -1,
                                        .lock_fd = -1,
                                        .data_fd = -1,
                                        .tail_fd = -1,
                                        .ballast_fd = -1};
    int n = snprintf(files->path, sizeof(files->path), "%s", path);
    int m = snprintf(files->data_path, sizeof(files->data_path), "%s/" DATA, path);
    if (n <= 0 || m < 0 || (size_t)m >= sizeof(files->data_path))
        return sel_error_set(err, n == 0 ? -ENOENT : -ENAMETOOLONG, nowhere,
                             "'%s' is no path of a journal", path);
    int r = open_folder(files, err);
    if (r == 0)
        r = lock_folder(files, err);
    if (r == 0)
        r = open_tail(files, err);
    return r < 0 ? r : open_data(files, err);
}

void sel_journal_files_close(struct sel_journal_files *files)
{
    sel_journal_pages_done(&files->pages);
    close_fd(&files->ballast_fd);
    close_fd(&files->tail_fd);
    close_fd(&files->data_fd);
    close_fd(&files->lock_fd); /* unlocks */
    close_fd(&files->folder_fd);
}

int sel_journal_files_adopt(struct sel_journal_files *files, const char *name)
{
    int fd = open_in(files, name, O_RDONLY), r = fd < 0 ? fd : 0;
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    if (r == 0 && renameat(files->folder_fd, name, files->folder_fd, DATA) < 0)
        r = -errno;
    if (r == 0 && fsync(files->folder_fd) < 0)
        r = -errno;
    if (r == 0)
        r = sync_parent(files);
    if (r < 0) {
        close_fd(&fd);
        return full_to_enospc(r);
    }
    close_fd(&files->data_fd);
    files->data_fd = fd;
    return 0;
}

/* ---- data.mdb ---- */

void sel_journal_files_encode_format(uint8_t out[SEL_JOURNAL_FORMAT_SIZE])
{
    uint32_t format = htole32(SEL_JOURNAL_FORMAT), crc;
    memcpy(out, format_magic, sizeof(format_magic));
    memcpy(out + 16, &format, sizeof(format));
    crc = htole32(sel_crc32c(0, out, 20));
    memcpy(out + 20, &crc, sizeof(crc));
}

static int damage(const struct sel_journal_files *files, struct sel_error *err, uint64_t seq,
                  const char *what)
{
    return sel_error_set(err, SEL_EFORMAT, nowhere,
                         "'%s' is damaged: batch %" PRIu64
                         " %s; restore the whole folder from a copy, or move it away",
                         files->data_path, seq, what);
}

static int read_data(void *ctx, uint64_t offset, void *p, size_t n)
{
    const struct sel_journal_files *files = ctx;
    return read_exactly(files->data_fd, offset, p, n);
}

static int scan(struct sel_journal_files *files, struct sel_error *err)
{
    struct stat st;
    if (fstat(files->data_fd, &st) < 0)
        return name_error(files, -errno, "cannot read", DATA, err);
    sel_journal_pages_done(&files->pages);
    files->pages = (struct sel_journal_pages){
        .path = files->data_path, .size = (uint64_t)st.st_size, .read = read_data, .ctx = files};
    return sel_journal_pages_scan(&files->pages, err);
}

/* Place 0 is the format record. */
static int check_format(struct sel_journal_files *files, struct sel_buf *buf, struct sel_error *err)
{
    const struct sel_journal_pages *pages = &files->pages;
    uint8_t expected[SEL_JOURNAL_FORMAT_SIZE];
    uint32_t format, crc;
    struct sel_str value = {NULL, 0};
    sel_journal_files_encode_format(expected);
    if (pages->place_count > 0 && pages->places[0].key == 0 &&
        pages->places[0].size == sizeof(expected)) {
        int r = sel_journal_pages_load(pages, 0, buf, &value, err);
        if (r < 0)
            return r;
        if (memcmp(value.p, expected, sizeof(expected)) == 0)
            return 0;
    }
    if (!value.p || memcmp(value.p, format_magic, sizeof(format_magic)) != 0)
        return sel_error_set(err, SEL_EFORMAT, nowhere, "'%s' is no journal, or damaged",
                             files->data_path);
    memcpy(&format, value.p + 16, sizeof(format));
    memcpy(&crc, value.p + 20, sizeof(crc));
    if (le32toh(crc) != sel_crc32c(0, value.p, 20) || le32toh(format) < SEL_JOURNAL_FORMAT)
        return damage(files, err, 0, "(the format) has a wrong checksum");
    return sel_error_set(err, SEL_EVERSION, nowhere,
                         "the journal '%s' has format %" PRIu32 "; this program knows format %d",
                         files->path, le32toh(format), SEL_JOURNAL_FORMAT);
}

/* Asks for what comes after place i, so far that the disk is never idle. */
static void ask_ahead(const struct sel_journal_files *files, uint32_t i, uint32_t *next,
                      uint64_t *asked, uint64_t walked)
{
    const struct sel_journal_pages *pages = &files->pages;
    if (*next < i)
        *next = i;
    for (; *next < pages->place_count && *asked < walked + AHEAD; ++*next) {
        const struct sel_journal_place *place = &pages->places[*next];
        (void)posix_fadvise(files->data_fd, (off_t)place->offset, place->size,
                            POSIX_FADV_WILLNEED); /* only a hint */
        *asked += place->size;
    }
}

/* The entry of place i; it follows `link`, unless it is the first that is looked at. */
static int load_entry(struct sel_journal_files *files, uint32_t i, bool is_first,
                      struct sel_buf *buf, struct sel_journal_link *link,
                      struct sel_journal_entry *ret, struct sel_error *err)
{
    uint64_t seq = files->pages.places[i].key;
    struct sel_str value;
    int r = sel_journal_pages_load(&files->pages, i, buf, &value, err);
    if (r < 0)
        return r;
    if (sel_journal_entry_parse((const uint8_t *)value.p, value.n, ret) < 0 ||
        value.n != SEL_JOURNAL_HEAD_SIZE + ret->batch.n || ret->seq != seq)
        return damage(files, err, seq, "has a wrong checksum");
    if (is_first)
        *link = (struct sel_journal_link){seq - 1, seq == 1 ? 0 : ret->prev};
    if (!sel_journal_entry_follows(ret, link))
        return damage(files, err, seq, "does not follow the one before");
    if (seq == files->tail.synced.seq && ret->crc != files->tail.synced.crc)
        return damage(files, err, seq, "is not the one that was synced");
    return 0;
}

static int walk_places(struct sel_journal_files *files, uint64_t from, sel_journal_visit_fn visit,
                       void *ctx, struct sel_buf *buf, struct sel_journal_link *link,
                       struct sel_error *err)
{
    const struct sel_journal_pages *pages = &files->pages;
    uint64_t asked = 0, walked = 0;
    uint32_t next = 0, begin = 1;
    while (begin + 1 < pages->place_count && pages->places[begin].key < from)
        begin++; /* the last one is looked at in any case: it tells what follows */
    for (uint32_t i = begin; i < pages->place_count; i++) {
        struct sel_journal_entry entry;
        ask_ahead(files, i, &next, &asked, walked);
        walked += pages->places[i].size;
        int r = load_entry(files, i, i == begin, buf, link, &entry, err);
        if (r == 0 && visit && entry.seq >= from)
            r = visit(ctx, entry.seq, entry.batch, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int sel_journal_files_walk(struct sel_journal_files *files, uint64_t from,
                           sel_journal_visit_fn visit, void *ctx, struct sel_journal_found *ret,
                           struct sel_error *err)
{
    struct sel_buf buf = {0};
    struct sel_journal_found found = {0};
    int r = scan(files, err);
    if (r == 0)
        r = check_format(files, &buf, err);
    if (r == 0)
        r = walk_places(files, from, visit, ctx, &buf, &found.last, err);
    sel_buf_done(&buf);
    if (r < 0)
        return r;
    if (found.last.seq < files->tail.synced.seq)
        return sel_error_set(err, SEL_EFORMAT, nowhere,
                             "'%s' is damaged: it ends with batch %" PRIu64 ", but batch %" PRIu64
                             " was synced; restore the whole folder from a copy, or move it away",
                             files->data_path, found.last.seq, files->tail.synced.seq);
    if (files->pages.place_count > 1)
        found.first = files->pages.places[1].key;
    *ret = found;
    return 0;
}

/* ---- the tail ---- */

int sel_journal_files_walk_tail(struct sel_journal_files *files, struct sel_journal_link *stored,
                                sel_journal_tail_fn visit, void *ctx, struct sel_error *err)
{
    if (files->tail_size <= SEL_JOURNAL_TAIL_HEAD)
        return 0;
    size_t n = (size_t)(files->tail_size - SEL_JOURNAL_TAIL_HEAD), at = 0;
    if (files->tail_size > SEL_JOURNAL_TAIL_MAX)
        return sel_error_set(err, SEL_EFORMAT, nowhere,
                             "'%s/" TAIL "' has %" PRIu64 " bytes; no journal has one so large",
                             files->path, files->tail_size);
    uint8_t *p = sel_mem_alloc(n);
    if (!p)
        return name_error(files, SEL_ENOMEM, "cannot read", TAIL, err);
    int r = read_exactly(files->tail_fd, SEL_JOURNAL_TAIL_HEAD, p, n);
    if (r < 0) {
        sel_mem_free(p);
        return name_error(files, r, "cannot read", TAIL, err);
    }
    r = sel_journal_tail_parse(p, n, files->is_same_boot, stored, visit, ctx, &at);
    sel_mem_free(p);
    if (r == SEL_EFORMAT)
        return sel_error_set(
            err, r, nowhere,
            "'%s/" TAIL "' is damaged at byte %zu, behind batch %" PRIu64
            "; restore the whole folder from a copy, or move that file away, which loses at most "
            "what was not synced yet",
            files->path, at + SEL_JOURNAL_TAIL_HEAD, stored->seq);
    return r;
}

static int write_head(struct sel_journal_files *files, struct sel_journal_link stored)
{
    uint8_t head[SEL_JOURNAL_TAIL_HEAD];
    files->tail.synced = stored;
    sel_journal_tail_head_encode(&files->tail, head);
    return write_exactly(files->tail_fd, 0, head, sizeof(head));
}

int sel_journal_files_new_tail(struct sel_journal_files *files, struct sel_journal_link stored)
{
    int fd = open_in(files, TAIL_NEW, O_RDWR | O_CREAT | O_TRUNC);
    if (fd < 0)
        return full_to_enospc(fd);
    close_fd(&files->tail_fd);
    files->tail_fd = fd;
    files->tail_size = SEL_JOURNAL_TAIL_HEAD;
    files->tail.format = SEL_JOURNAL_FORMAT;
    read_boot(files->tail.boot);
    files->is_same_boot = true;
    return write_head(files, stored);
}

int sel_journal_files_adopt_tail(struct sel_journal_files *files)
{
    if (fdatasync(files->tail_fd) < 0 ||
        renameat(files->folder_fd, TAIL_NEW, files->folder_fd, TAIL) < 0 ||
        fsync(files->folder_fd) < 0)
        return full_to_enospc(-errno);
    return 0;
}

int sel_journal_files_write_tail(struct sel_journal_files *files, const uint8_t *p, size_t n)
{
    int r = write_exactly(files->tail_fd, files->tail_size, p, n);
    if (r == 0) {
        files->tail_size += n;
        return 0;
    }
    if (ftruncate(files->tail_fd, (off_t)files->tail_size) < 0)
        return -EIO;
    return r;
}

int sel_journal_files_sync_tail(struct sel_journal_files *files)
{
    return fdatasync(files->tail_fd) < 0 ? full_to_enospc(-errno) : 0;
}

void sel_journal_files_cut_tail(struct sel_journal_files *files, struct sel_journal_link stored)
{
    if (files->tail_size > SEL_JOURNAL_TAIL_HEAD &&
        ftruncate(files->tail_fd, (off_t)SEL_JOURNAL_TAIL_HEAD) == 0)
        files->tail_size = SEL_JOURNAL_TAIL_HEAD;
    (void)write_head(files, stored); /* an older batch there says less, and nothing wrong */
}

/* ---- ballast ---- */

/* A disk without so much room is not asked: it would give and take back all that it has. */
static bool may_have(const struct sel_journal_files *files, uint64_t size)
{
    struct statvfs st;
    if (fstatvfs(files->folder_fd, &st) < 0)
        return true;
    return (uint64_t)st.f_bavail * st.f_frsize > size;
}

int sel_journal_files_make_ballast(struct sel_journal_files *files, uint64_t size)
{
    if (size == 0 || files->has_ballast)
        return 0;
    if (files->ballast_fd < 0) {
        int fd = open_in(files, BALLAST, O_RDWR | O_CREAT);
        if (fd < 0)
            return full_to_enospc(fd);
        files->ballast_fd = fd;
    }
    struct stat st;
    files->ballast_size = size;
    bool is_whole = fstat(files->ballast_fd, &st) == 0 && (uint64_t)st.st_size == size &&
                    (uint64_t)st.st_blocks * 512 >= size;
    int r = 0;
    if (!is_whole && (ftruncate(files->ballast_fd, 0) < 0 || !may_have(files, size)))
        r = -ENOSPC;
    else if (!is_whole && fallocate(files->ballast_fd, 0, 0, (off_t)size) < 0)
        r = full_to_enospc(-errno);
    if (r == -EOPNOTSUPP || r == -ENOSYS) {
        files->ballast_size = 0;
        return -EOPNOTSUPP;
    }
    if (r < 0)
        (void)!ftruncate(files->ballast_fd, 0); /* a part of it helps nobody */
    files->has_ballast = r == 0;
    return r;
}

bool sel_journal_files_give_ballast(struct sel_journal_files *files)
{
    if (!files->has_ballast)
        return false;
    files->has_ballast = false;
    if (ftruncate(files->ballast_fd, 0) < 0)
        return false;
    (void)fsync(files->ballast_fd); /* journaling file systems free blocks with their next commit */
    return true;
}
