#include "client/waiting.h"

#include "core/assert.h"
#include "core/mem.h"

#define CAP_MIN 1024u
#define CAP_MAX (1u << 30)
#define DISTANCE_MAX 128u /* far above what random ids come to below 5/8 */

void sel_waiting_done(struct sel_waiting *waiting)
{
    sel_mem_free(waiting->entries);
    *waiting = (struct sel_waiting){0};
}

static bool is_free(const struct sel_waiting_entry *entry)
{
    return (entry->id.hi | entry->id.lo) == 0;
}

/* Where an id belongs. */
static uint32_t home_of(const struct sel_waiting *waiting, struct sel_id id)
{
    uint64_t place = id.lo;
    if (__builtin_expect(waiting->is_mixed, 0)) { /* as core/prng.h */
        place ^= id.hi * UINT64_C(0x9e3779b97f4a7c15);
        place = (place ^ (place >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        place = (place ^ (place >> 27)) * UINT64_C(0x94d049bb133111eb);
        place ^= place >> 31;
    }
    return (uint32_t)place & (waiting->cap - 1);
}

static uint32_t distance_of(const struct sel_waiting *waiting, uint32_t at)
{
    return (at - home_of(waiting, waiting->entries[at].id)) & (waiting->cap - 1);
}

/* Puts an entry that is not there. How far the farthest of those that it moved went. */
static uint32_t place(struct sel_waiting *waiting, struct sel_waiting_entry entry)
{
    uint32_t at = home_of(waiting, entry.id), distance = 0, far = 0;
    while (!is_free(&waiting->entries[at])) {
        uint32_t other = distance_of(waiting, at);
        if (other < distance) {
            struct sel_waiting_entry moved = waiting->entries[at];
            waiting->entries[at] = entry;
            entry = moved;
            distance = other;
        }
        at = (at + 1) & (waiting->cap - 1);
        distance++;
        far = distance > far ? distance : far;
    }
    waiting->entries[at] = entry;
    return far;
}

static bool rebuild(struct sel_waiting *waiting, uint32_t cap, bool is_mixed)
{
    struct sel_waiting_entry *old = waiting->entries;
    uint32_t old_cap = waiting->cap;
    struct sel_waiting_entry *entries = sel_mem_zalloc((size_t)cap * sizeof(*entries));
    if (!entries)
        return false;
    waiting->entries = entries;
    waiting->cap = cap;
    waiting->is_mixed = is_mixed;
    for (uint32_t i = 0; i < old_cap; i++)
        if (!is_free(&old[i]))
            (void)place(waiting, old[i]);
    sel_mem_free(old);
    return true;
}

struct sel_waiting_entry *sel_waiting_get(const struct sel_waiting *waiting, struct sel_id id)
{
    if (waiting->count == 0)
        return NULL;
    uint32_t at = home_of(waiting, id);
    for (uint32_t distance = 0;; distance++) {
        struct sel_waiting_entry *entry = &waiting->entries[at];
        if (sel_id_eq(entry->id, id))
            return is_free(entry) ? NULL : entry;
        /* there is always a free one, and what belongs farther ahead would stand here */
        if (is_free(entry) || distance_of(waiting, at) < distance)
            return NULL;
        at = (at + 1) & (waiting->cap - 1);
    }
}

int sel_waiting_add(struct sel_waiting *waiting, struct sel_id id, void *tag, uint64_t number)
{
    SEL_ASSERT(id.hi | id.lo);
    if (sel_waiting_get(waiting, id))
        return SEL_EEXISTS;
    if (waiting->count >= waiting->cap - waiting->cap / 8 * 3) {
        if (waiting->cap == CAP_MAX ||
            !rebuild(waiting, waiting->cap ? waiting->cap * 2 : CAP_MIN, waiting->is_mixed))
            return SEL_ENOMEM;
    }
    uint32_t far =
        place(waiting, (struct sel_waiting_entry){
                           .id = id, .tag = tag, .number = number & SEL_WAITING_NUMBER_MAX});
    waiting->count++;
    if (__builtin_expect(far > DISTANCE_MAX && !waiting->is_mixed, 0))
        (void)rebuild(waiting, waiting->cap, true); /* without memory it stays slow, not wrong */
    return 0;
}

void sel_waiting_remove(struct sel_waiting *waiting, struct sel_waiting_entry *entry)
{
    uint32_t at = (uint32_t)(entry - waiting->entries);
    SEL_ASSERT(at < waiting->cap && !is_free(entry));
    for (;;) {
        uint32_t next = (at + 1) & (waiting->cap - 1);
        if (is_free(&waiting->entries[next]) || distance_of(waiting, next) == 0)
            break;
        waiting->entries[at] = waiting->entries[next];
        at = next;
    }
    waiting->entries[at] = (struct sel_waiting_entry){0};
    waiting->count--;
}
