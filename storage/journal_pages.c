/* The layout is that of LMDB 0.9 on 64-bit machines (MDB_page, MDB_node, MDB_db and MDB_meta of its
 * mdb.c), in the order of bytes of the machine:
 *
 *   page   0 u64 number   10 u16 flags   12 u16 lower   14 u16 upper   16 u16 offset of each node
 *          of a run of pages for one large value, only the first has a head: 12 u32 how many
 *   node   0 u32 size of the value (branch: the low bits of the child's number)   4 u16 flags
 *          (branch: the high bits)   6 u16 size of the key   8 key, then the value; if it is large,
 *          the number of its first page
 *   tree   4 u16 flags   6 u16 depth   8 u64 branches   16 u64 leaves   24 u64 pages of large
 *          values   32 u64 entries   40 u64 root
 *   meta   16 u32 magic   20 u32 version   40 tree of free pages (its first u32 is the size of a
 *          page)   88 tree of the keys   136 u64 last page   144 u64 transaction
 *
 * Pages 0 and 1 are metas; transaction n writes page n & 1, and the higher one counts. */
#include "storage/journal_pages.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/mem.h"
#include "storage/journal.h"
#include "storage/journal_entry.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "sizes of values are read as little-endian machines write them"
#endif

enum { PAGE_NUMBER = 0, PAGE_FLAGS = 10, PAGE_LOWER = 12, PAGE_UPPER = 14, PAGE_COUNT = 12 };
enum { NODE_SIZE = 0, NODE_FLAGS = 4, NODE_KEY_SIZE = 6, NODE_KEY = 8 };
enum { META_MAGIC = 16, META_VERSION = 20, META_FREE = 40, META_KEYS = 88, META_LAST_PAGE = 136 };
enum { META_TXN = 144, META_END = 152 };

#define PAGE_HEAD 16
#define KEY_SIZE 8
#define FLAG_BRANCH 0x01
#define FLAG_LEAF 0x02
#define FLAG_OVERFLOW 0x04
#define FLAG_META 0x08
#define TREE_INTEGER_KEY 0x08
#define TREE_NO_SUBDIR 0x4000 /* how the file was made; stands with the tree of free pages */
#define NODE_LARGE 0x01
#define MAGIC UINT32_C(0xBEEFC0DE)
#define VERSION 1
#define PAGE_SIZE_MIN 512
#define PAGE_SIZE_MAX 65536
#define DEPTH_MAX 16
#define NO_PAGE UINT64_MAX

static const struct sel_pos nowhere;

struct tree {
    bool is_free_list;
    uint16_t depth;
    uint64_t branches, leaves, large, entries, root; /* as it says */
    uint64_t seen_branches, seen_leaves, seen_large, seen_entries;
    uint64_t next_key; /* none lower may come; NO_PAGE: none at all */
};

struct scan {
    struct sel_journal_pages *pages;
    struct sel_error *err;
    uint8_t *buffers;  /* a page for each level of a tree */
    uint8_t *taken;    /* a bit a page */
    uint8_t *occupied; /* of one page, a bit for two bytes */
    uint64_t txn;
};

static uint64_t load(const uint8_t *p, size_t bytes)
{
    uint64_t value = 0;
    memcpy(&value, p, bytes);
    return value;
}

static int damage(const struct sel_journal_pages *pages, struct sel_error *err, const char *fmt,
                  ...) SEL_PRINTF(3, 4);
static int damage(const struct sel_journal_pages *pages, struct sel_error *err, const char *fmt,
                  ...)
{
    char text[256];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return sel_error_set(
        err, SEL_EFORMAT, nowhere,
        "'%s' is damaged: %s; restore the whole folder from a copy, or move it away", pages->path,
        text);
}

static int read_at(const struct sel_journal_pages *pages, uint64_t offset, void *p, size_t n,
                   struct sel_error *err)
{
    if (offset > pages->size || n > pages->size - offset)
        return damage(pages, err, "it has %" PRIu64 " bytes, but refers to byte %" PRIu64,
                      pages->size, offset + n);
    int r = pages->read(pages->ctx, offset, p, n);
    if (r < 0)
        return sel_error_set(err, r, nowhere, "cannot read '%s' at %" PRIu64 ": %s", pages->path,
                             offset, sel_error_text(r));
    return 0;
}

/* ---- metas ---- */

static int read_meta(struct scan *scan, uint64_t offset, uint8_t meta[META_END])
{
    struct sel_journal_pages *pages = scan->pages;
    int r = read_at(pages, offset, meta, META_END, scan->err);
    if (r < 0)
        return r;
    if (load(meta + META_MAGIC, 4) != MAGIC || load(meta + PAGE_FLAGS, 2) != FLAG_META)
        return damage(pages, scan->err, "at %" PRIu64 " is no head of LMDB", offset);
    if (load(meta + META_VERSION, 4) != VERSION)
        return sel_error_set(scan->err, SEL_EVERSION, nowhere,
                             "'%s' was written by another version of LMDB", pages->path);
    uint64_t size = load(meta + META_FREE, 4);
    if ((size & (size - 1)) != 0 || size < PAGE_SIZE_MIN || size > PAGE_SIZE_MAX)
        return damage(pages, scan->err, "its pages would have %" PRIu64 " bytes", size);
    return 0;
}

static struct tree read_tree(const uint8_t *p, bool is_free_list)
{
    return (struct tree){
        .is_free_list = is_free_list,
        .depth = (uint16_t)load(p + 6, 2),
        .branches = load(p + 8, 8),
        .leaves = load(p + 16, 8),
        .large = load(p + 24, 8),
        .entries = load(p + 32, 8),
        .root = load(p + 40, 8),
    };
}

/* The meta that counts, into `meta`. Two that cannot both be right would make LMDB take an old
 * state for the new one. */
static int pick_meta(struct scan *scan, uint8_t meta[META_END])
{
    struct sel_journal_pages *pages = scan->pages;
    uint8_t second[META_END];
    int r = read_meta(scan, 0, meta);
    if (r < 0)
        return r;
    pages->page_size = (uint32_t)load(meta + META_FREE, 4);
    r = read_meta(scan, pages->page_size, second);
    if (r < 0)
        return r;
    uint64_t a = load(meta + META_TXN, 8), b = load(second + META_TXN, 8);
    bool is_new = a == 0 && b == 0;
    bool is_pair = a % 2 == 0 && b % 2 == 1 && (a + 1 == b || b + 1 == a);
    if (!is_new && !is_pair)
        return damage(pages, scan->err, "its heads are of transactions %" PRIu64 " and %" PRIu64, a,
                      b);
    if (load(second + META_FREE, 4) != pages->page_size || load(second + PAGE_NUMBER, 8) != 1 ||
        load(meta + PAGE_NUMBER, 8) != 0)
        return damage(pages, scan->err, "its heads do not agree");
    if (b > a)
        memcpy(meta, second, META_END);
    return 0;
}

/* ---- pages ---- */

static int take_pages(struct scan *scan, uint64_t first, uint64_t count, bool is_in_file)
{
    struct sel_journal_pages *pages = scan->pages;
    if (first < 2 || first > pages->last_page || count > pages->last_page - first + 1)
        return damage(pages, scan->err, "it refers to page %" PRIu64 " of %" PRIu64, first,
                      pages->last_page + 1);
    if (is_in_file && (first + count) * pages->page_size > pages->size)
        return damage(pages, scan->err, "it has %" PRIu64 " bytes, but refers to byte %" PRIu64,
                      pages->size, (first + count) * pages->page_size);
    for (uint64_t i = first; i < first + count; i++) {
        uint8_t bit = (uint8_t)(1u << (i % 8));
        if (scan->taken[i / 8] & bit)
            return damage(pages, scan->err, "page %" PRIu64 " is used twice", i);
        scan->taken[i / 8] |= bit;
    }
    pages->pages_used += is_in_file ? count : 0;
    return 0;
}

static int bad_page(struct scan *scan, uint64_t number, const char *what)
{
    return damage(scan->pages, scan->err, "page %" PRIu64 " %s", number, what);
}

static int read_page(struct scan *scan, struct tree *tree, uint64_t number, uint32_t level,
                     uint8_t *page)
{
    uint32_t size = scan->pages->page_size;
    int r = take_pages(scan, number, 1, true);
    if (r == 0)
        r = read_at(scan->pages, number * size, page, size, scan->err);
    if (r < 0)
        return r;
    bool is_leaf = level + 1 == tree->depth;
    uint64_t lower = load(page + PAGE_LOWER, 2), upper = load(page + PAGE_UPPER, 2);
    if (load(page + PAGE_NUMBER, 8) != number)
        return bad_page(scan, number, "says that it is another");
    if (load(page + PAGE_FLAGS, 2) != (is_leaf ? FLAG_LEAF : FLAG_BRANCH))
        return bad_page(scan, number, "is not of the kind that belongs there");
    if (lower % 2 != 0 || lower < PAGE_HEAD + 2 || lower > upper || upper > size)
        return bad_page(scan, number, "has impossible bounds");
    /* LMDB asserts it, except in its lists of free pages. */
    if (!is_leaf && !tree->is_free_list && lower < PAGE_HEAD + 4)
        return bad_page(scan, number, "has a single child");
    memset(scan->occupied, 0, (size + 15) / 16);
    return 0;
}

/* The i-th node of a page, whose whole size in the page is `size`; none may overlap another. */
static int check_extent(struct scan *scan, const uint8_t *page, uint64_t at, uint64_t size)
{
    uint64_t number = load(page + PAGE_NUMBER, 8);
    if (size > scan->pages->page_size - at)
        return bad_page(scan, number, "has an entry that goes beyond it");
    for (uint64_t i = at / 2; i < (at + size + 1) / 2; i++) {
        uint8_t bit = (uint8_t)(1u << (i % 8));
        if (scan->occupied[i / 8] & bit)
            return bad_page(scan, number, "has entries that overlap");
        scan->occupied[i / 8] |= bit;
    }
    return 0;
}

static int find_node(struct scan *scan, const uint8_t *page, uint32_t i, uint64_t *ret_at)
{
    uint64_t at = load(page + PAGE_HEAD + 2 * (size_t)i, 2);
    if (at % 2 != 0 || at < load(page + PAGE_UPPER, 2) || at + NODE_KEY > scan->pages->page_size)
        return bad_page(scan, load(page + PAGE_NUMBER, 8), "has an entry outside of it");
    *ret_at = at;
    return 0;
}

static uint32_t node_count(const uint8_t *page)
{
    return (uint32_t)(load(page + PAGE_LOWER, 2) - PAGE_HEAD) / 2;
}

/* ---- values ---- */

static int check_large(const struct sel_journal_pages *pages, const struct sel_journal_place *place,
                       const uint8_t head[PAGE_HEAD], struct sel_error *err)
{
    uint64_t number = place->offset / pages->page_size;
    if (load(head + PAGE_NUMBER, 8) != number || load(head + PAGE_FLAGS, 2) != FLAG_OVERFLOW ||
        load(head + PAGE_COUNT, 4) != place->pages)
        return damage(pages, err, "page %" PRIu64 " does not begin what belongs there", number);
    return 0;
}

/* One list of free pages: how many, then their numbers, falling. */
static int check_free_list(struct scan *scan, const struct sel_journal_place *place)
{
    struct sel_journal_pages *pages = scan->pages;
    uint8_t head[PAGE_HEAD], numbers[512];
    int r = 0;
    if (place->pages > 0) {
        r = read_at(pages, place->offset - PAGE_HEAD, head, sizeof(head), scan->err);
        if (r == 0)
            r = check_large(pages, place, head, scan->err);
    }
    uint64_t left = 0, last = NO_PAGE;
    if (r == 0)
        r = read_at(pages, place->offset, &left, sizeof(left), scan->err);
    if (r == 0 && left > place->size / 8 - 1)
        r = damage(pages, scan->err, "a list of free pages is longer than its place");
    for (uint64_t at = place->offset + 8; r == 0 && left > 0;) {
        uint64_t n = left < sizeof(numbers) / 8 ? left : sizeof(numbers) / 8;
        r = read_at(pages, at, numbers, (size_t)n * 8, scan->err);
        for (uint64_t i = 0; i < n && r == 0; i++) {
            uint64_t number = load(numbers + 8 * i, 8);
            r = number < last ? take_pages(scan, number, 1, false)
                              : damage(pages, scan->err, "a list of free pages is not in order");
            last = number;
        }
        at += n * 8;
        left -= n;
    }
    return r;
}

static int add_place(struct scan *scan, struct tree *tree, const struct sel_journal_place *place)
{
    struct sel_journal_pages *pages = scan->pages;
    if (tree->is_free_list) {
        if (place->size < 8 || place->key == 0 || place->key > scan->txn)
            return damage(pages, scan->err, "a list of free pages is none");
        return check_free_list(scan, place);
    }
    if (!sel_mem_grow(&pages->places, &pages->place_cap, (uint64_t)pages->place_count + 1,
                      sizeof(*pages->places)))
        return sel_error_set(scan->err, SEL_ENOMEM, nowhere, "%s", sel_error_text(SEL_ENOMEM));
    pages->places[pages->place_count++] = *place;
    return 0;
}

/* The pages of a large value. A list of free pages may have more than it needs: LMDB makes room for
 * it before it knows how long it will be. */
static int take_large(struct scan *scan, struct tree *tree, uint64_t first,
                      struct sel_journal_place *place)
{
    struct sel_journal_pages *pages = scan->pages;
    uint8_t head[PAGE_HEAD];
    place->pages = (uint32_t)((PAGE_HEAD + (uint64_t)place->size - 1) / pages->page_size + 1);
    int r = take_pages(scan, first, 1, true);
    if (r == 0 && tree->is_free_list) {
        r = read_at(pages, first * pages->page_size, head, sizeof(head), scan->err);
        if (r == 0 && load(head + PAGE_COUNT, 4) > place->pages)
            place->pages = (uint32_t)load(head + PAGE_COUNT, 4);
    }
    if (r == 0 && place->pages > 1)
        r = take_pages(scan, first + 1, place->pages - 1, true);
    place->offset = first * pages->page_size + PAGE_HEAD;
    tree->seen_large += place->pages;
    return r;
}

static int check_leaf_node(struct scan *scan, struct tree *tree, const uint8_t *page, uint32_t i,
                           uint64_t key_end)
{
    struct sel_journal_pages *pages = scan->pages;
    uint64_t at = 0, number = load(page + PAGE_NUMBER, 8);
    int r = find_node(scan, page, i, &at);
    if (r < 0)
        return r;
    const uint8_t *node = page + at;
    uint64_t size = load(node + NODE_SIZE, 4), flags = load(node + NODE_FLAGS, 2);
    if (load(node + NODE_KEY_SIZE, 2) != KEY_SIZE || (flags & ~(uint64_t)NODE_LARGE) != 0)
        return bad_page(scan, number, "has an entry that no journal has");
    bool is_large = (flags & NODE_LARGE) != 0;
    uint64_t head = NODE_KEY + KEY_SIZE;
    r = check_extent(scan, page, at, head + (is_large ? 8 : size));
    if (r < 0)
        return r;
    struct sel_journal_place place = {
        .key = load(node + NODE_KEY, 8),
        .offset = number * pages->page_size + at + head,
        .size = (uint32_t)size,
    };
    if (place.key < tree->next_key || place.key >= key_end)
        return bad_page(scan, number, "has a key out of order");
    tree->next_key = place.key + 1;
    if (is_large) {
        r = take_large(scan, tree, load(node + head, 8), &place);
    }
    return r < 0 ? r : add_place(scan, tree, &place);
}

/* ---- trees ---- */

static int check_subtree(struct scan *scan, struct tree *tree, uint64_t number, uint32_t level,
                         uint64_t key_end);

/* The nodes of a branch lie within it, with a key each but for the first. */
static int check_branch_nodes(struct scan *scan, const uint8_t *page)
{
    uint32_t count = node_count(page);
    int r = 0;
    for (uint32_t i = 0; i < count && r == 0; i++) {
        uint64_t at = 0;
        r = find_node(scan, page, i, &at);
        if (r < 0)
            break;
        uint64_t key_size = load(page + at + NODE_KEY_SIZE, 2);
        if (key_size != KEY_SIZE && !(i == 0 && key_size == 0))
            return bad_page(scan, load(page + PAGE_NUMBER, 8), "has a child without a key");
        r = check_extent(scan, page, at, NODE_KEY + key_size);
    }
    return r;
}

static const uint8_t *node_at(const uint8_t *page, uint32_t i)
{
    return page + load(page + PAGE_HEAD + 2 * (size_t)i, 2);
}

static int check_branch(struct scan *scan, struct tree *tree, const uint8_t *page, uint32_t level,
                        uint64_t key_end)
{
    uint32_t count = node_count(page);
    int r = check_branch_nodes(scan, page);
    for (uint32_t i = 0; i < count && r == 0; i++) {
        const uint8_t *node = node_at(page, i);
        uint64_t key = i > 0 ? load(node + NODE_KEY, 8) : tree->next_key;
        uint64_t next = i + 1 < count ? load(node_at(page, i + 1) + NODE_KEY, 8) : key_end;
        if (next > key_end || key < tree->next_key)
            return bad_page(scan, load(page + PAGE_NUMBER, 8), "has children out of order");
        tree->next_key = key;
        uint64_t child = load(node + NODE_SIZE, 4) | load(node + NODE_FLAGS, 2) << 32;
        r = check_subtree(scan, tree, child, level + 1, next);
    }
    return r;
}

/* Keys below key_end. Not deeper than the tree says, which is at most DEPTH_MAX. */
static int check_subtree(struct scan *scan, struct tree *tree, uint64_t number, uint32_t level,
                         uint64_t key_end)
{
    uint8_t *page = scan->buffers + (size_t)level * scan->pages->page_size;
    int r = read_page(scan, tree, number, level, page);
    if (r < 0)
        return r;
    if (level + 1 < tree->depth) {
        tree->seen_branches++;
        return check_branch(scan, tree, page, level, key_end);
    }
    tree->seen_leaves++;
    uint32_t count = node_count(page);
    tree->seen_entries += count;
    for (uint32_t i = 0; i < count && r == 0; i++)
        r = check_leaf_node(scan, tree, page, i, key_end);
    return r;
}

static int check_tree(struct scan *scan, const uint8_t *meta_tree, bool is_free_list)
{
    struct tree tree = read_tree(meta_tree, is_free_list);
    const char *name = is_free_list ? "free pages" : "batches";
    uint64_t flags = load(meta_tree + 4, 2);
    if (is_free_list)
        flags &= ~(uint64_t)TREE_NO_SUBDIR;
    if (flags != TREE_INTEGER_KEY)
        return damage(scan->pages, scan->err, "its keys are none of a journal's");
    if (tree.depth > DEPTH_MAX || (tree.depth == 0) != (tree.root == NO_PAGE))
        return damage(scan->pages, scan->err, "the tree of its %s has %u levels", name, tree.depth);
    int r = tree.depth > 0 ? check_subtree(scan, &tree, tree.root, 0, NO_PAGE) : 0;
    if (r < 0)
        return r;
    if (tree.seen_branches != tree.branches || tree.seen_leaves != tree.leaves ||
        tree.seen_large != tree.large || tree.seen_entries != tree.entries)
        return damage(scan->pages, scan->err,
                      "the tree of its %s has %" PRIu64 " entries, but says %" PRIu64, name,
                      tree.seen_entries, tree.entries);
    return 0;
}

static int check_trees(struct scan *scan, const uint8_t meta[META_END])
{
    struct sel_journal_pages *pages = scan->pages;
    pages->last_page = load(meta + META_LAST_PAGE, 8);
    pages->txn = scan->txn = load(meta + META_TXN, 8);
    pages->pages_used = 2;
    /* Free pages may lie behind the end of the file, but never far. */
    if (pages->last_page < 1 || pages->last_page / 2 > pages->size / pages->page_size + 65536)
        return damage(pages, scan->err, "it has %" PRIu64 " bytes, but counts %" PRIu64 " pages",
                      pages->size, pages->last_page);
    scan->buffers = sel_mem_alloc((size_t)DEPTH_MAX * pages->page_size);
    scan->taken = sel_mem_zalloc((size_t)(pages->last_page / 8 + 1));
    scan->occupied = sel_mem_alloc(pages->page_size / 16 + 1);
    if (!scan->buffers || !scan->taken || !scan->occupied)
        return sel_error_set(scan->err, SEL_ENOMEM, nowhere, "%s", sel_error_text(SEL_ENOMEM));
    int r = check_tree(scan, meta + META_KEYS, false);
    return r < 0 ? r : check_tree(scan, meta + META_FREE, true);
}

int sel_journal_pages_scan(struct sel_journal_pages *pages, struct sel_error *err)
{
    struct scan scan = {.pages = pages, .err = err};
    uint8_t meta[META_END];
    int r = pick_meta(&scan, meta);
    if (r == 0)
        r = check_trees(&scan, meta);
    sel_mem_free(scan.buffers);
    sel_mem_free(scan.taken);
    sel_mem_free(scan.occupied);
    return r;
}

int sel_journal_pages_load(const struct sel_journal_pages *pages, uint32_t i, struct sel_buf *buf,
                           struct sel_str *ret, struct sel_error *err)
{
    const struct sel_journal_place *place = &pages->places[i];
    size_t skip = place->pages > 0 ? PAGE_HEAD : 0, n = place->size + skip;
    if (place->size > SEL_JOURNAL_BATCH_MAX + SEL_JOURNAL_HEAD_SIZE)
        return damage(pages, err, "batch %" PRIu64 " has %" PRIu32 " bytes", place->key,
                      place->size);
    sel_buf_clear(buf);
    if (n == 0) { /* no entry of a journal, but that is for the caller to say */
        *ret = SEL_STR("");
        return 0;
    }
    if (!sel_buf_reserve(buf, n))
        return sel_error_set(err, SEL_ENOMEM, nowhere, "%s", sel_error_text(SEL_ENOMEM));
    int r = read_at(pages, place->offset - skip, buf->p, n, err);
    if (r == 0 && skip > 0)
        r = check_large(pages, place, buf->p, err);
    if (r < 0)
        return r;
    buf->n = n;
    *ret = (struct sel_str){(const char *)buf->p + skip, place->size};
    return 0;
}

void sel_journal_pages_done(struct sel_journal_pages *pages)
{
    pages->places = sel_mem_free(pages->places);
    pages->place_cap = pages->place_count = 0;
}
