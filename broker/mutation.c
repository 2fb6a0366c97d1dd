#include "broker/mutation.h"

#include <inttypes.h>

#include "core/assert.h"
#include "proto/le.h"

static const char *const names[] = {
    [SEL_MUTATION_START] = "START", [SEL_MUTATION_SUBMIT] = "SUBMIT",
    [SEL_MUTATION_DONE] = "DONE",   [SEL_MUTATION_RETRY] = "RETRY",
    [SEL_MUTATION_ALIAS] = "ALIAS", [SEL_MUTATION_WORKER] = "WORKER",
    [SEL_MUTATION_PIECE] = "PIECE", [SEL_MUTATION_RUNS] = "RUNS",
    [SEL_MUTATION_USED] = "USED",
};

const char *sel_mutation_name(unsigned type)
{
    return type < SEL_COUNT(names) && names[type] ? names[type] : "?";
}

/* Whether a size of fields stands before them. */
static bool has_fields(unsigned type)
{
    return type == SEL_MUTATION_SUBMIT || type == SEL_MUTATION_DONE || type == SEL_MUTATION_PIECE ||
           type == SEL_MUTATION_RUNS;
}

size_t sel_mutation_size(const struct sel_mutation *m)
{
    return SEL_MUTATION_HEADER + m->name.n + m->key.n + (has_fields(m->type) ? 4 : 0) +
           m->fields.n + m->payload.n;
}

static uint8_t *put(uint8_t *p, struct sel_str s)
{
    if (s.n)
        memcpy(p, s.p, s.n);
    return p + s.n;
}

void sel_mutation_encode(const struct sel_mutation *m, struct sel_buf *buf)
{
    size_t size = sel_mutation_size(m);
    SEL_ASSERT(m->name.n <= UINT8_MAX && m->key.n <= UINT8_MAX && size <= UINT32_MAX);
    SEL_ASSERT(has_fields(m->type) || m->fields.n == 0);
    if (!sel_buf_reserve(buf, size))
        return;
    uint8_t *p = buf->p + buf->n;
    sel_le_put32(p, (uint32_t)size);
    p[4] = m->type;
    p[5] = m->level;
    p[6] = m->priority;
    p[7] = m->flags;
    sel_le_put_id(p + 8, m->id);
    sel_le_put64(p + 24, m->sequence);
    sel_le_put64(p + 32, (uint64_t)m->unix_us);
    sel_le_put16(p + 40, m->try_count);
    sel_le_put16(p + 42, m->code);
    p[44] = m->lost;
    p[45] = m->suspected;
    p[46] = (uint8_t)m->name.n;
    p[47] = (uint8_t)m->key.n;
    p = put(put(p + SEL_MUTATION_HEADER, m->name), m->key);
    if (has_fields(m->type)) {
        sel_le_put32(p, (uint32_t)m->fields.n);
        p += 4;
    }
    (void)put(put(p, m->fields), m->payload);
    buf->n += size;
}

static struct sel_str take(struct sel_str *rest, size_t n)
{
    struct sel_str s = {rest->p, n};
    rest->p += n;
    rest->n -= n;
    return s;
}

static int damaged(struct sel_error *err, const char *what)
{
    return sel_error_set(err, SEL_EFORMAT, (struct sel_pos){0}, "a mutation %s", what);
}

int sel_mutation_next(struct sel_str *batch, struct sel_mutation *ret, struct sel_error *err)
{
    if (batch->n == 0)
        return 0;
    if (batch->n < SEL_MUTATION_HEADER)
        return damaged(err, "is cut");
    const uint8_t *p = (const uint8_t *)batch->p;
    uint32_t size = sel_le_get32(p);
    if (size < SEL_MUTATION_HEADER || size > batch->n)
        return damaged(err, "has an impossible size");
    struct sel_mutation m = {
        .type = p[4],
        .level = p[5],
        .priority = p[6],
        .flags = p[7],
        .id = sel_le_get_id(p + 8),
        .sequence = sel_le_get64(p + 24),
        .unix_us = (int64_t)sel_le_get64(p + 32),
        .try_count = sel_le_get16(p + 40),
        .code = sel_le_get16(p + 42),
        .lost = p[44],
        .suspected = p[45],
    };
    if (m.type == 0 || m.type >= SEL_MUTATION_END)
        return sel_error_set(err, SEL_EVERSION, (struct sel_pos){0},
                             "a mutation of the unknown type %u: written by a newer program?",
                             m.type);
    struct sel_str rest = {batch->p + SEL_MUTATION_HEADER, size - SEL_MUTATION_HEADER};
    if (rest.n < (size_t)p[46] + p[47] + (has_fields(m.type) ? 4u : 0u))
        return damaged(err, "is smaller than its texts");
    m.name = take(&rest, p[46]);
    m.key = take(&rest, p[47]);
    if (has_fields(m.type)) {
        uint32_t fields_size = sel_le_get32(take(&rest, 4).p);
        if (fields_size > rest.n)
            return damaged(err, "is smaller than its fields");
        m.fields = take(&rest, fields_size);
    }
    m.payload = rest;
    if (m.type == SEL_MUTATION_ALIAS && m.payload.n != 16)
        return damaged(err, "names no task to stand for");
    if (m.key.n && m.type == SEL_MUTATION_DONE && m.fields.n < 16)
        return damaged(err, "has a key and no digest");
    (void)take(batch, size);
    *ret = m;
    return 1;
}
