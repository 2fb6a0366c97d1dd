#include <errno.h>
#include <string.h>

#include "storage/journal_pages.h"

/* Bytes as data.mdb: refused with a text, or every value that is named can be read, from pages that
 * no other value has. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct file {
    const uint8_t *p;
    size_t n;
};

static int read_file(void *ctx, uint64_t offset, void *p, size_t n)
{
    const struct file *file = ctx;
    SEL_ASSERT(offset <= file->n && n <= file->n - offset); /* asked for within `size` only */
    if (n)                                                  /* an empty value has no buffer */
        memcpy(p, file->p + offset, n);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct file file = {data, size};
    struct sel_journal_pages pages = {
        .path = "data.mdb", .size = size, .read = read_file, .ctx = &file};
    struct sel_error err = {0};
    struct sel_buf buf = {0};
    int r = sel_journal_pages_scan(&pages, &err);
    SEL_ASSERT(r == 0 || (err.code == r && err.text[0]));
    uint64_t bytes = 0;
    for (uint32_t i = 0; r == 0 && i < pages.place_count; i++) {
        struct sel_str value;
        if (sel_journal_pages_load(&pages, i, &buf, &value, &err) < 0)
            continue;
        SEL_ASSERT(value.n == pages.places[i].size);
        SEL_ASSERT(i == 0 || pages.places[i].key > pages.places[i - 1].key);
        bytes += value.n;
    }
    SEL_ASSERT(bytes <= size);
    sel_buf_done(&buf);
    sel_journal_pages_done(&pages);
    return 0;
}
