#include "storage/key.h"

#include "core/id.h"

enum { KEY_RUN = 1, KEY_TEXT = 2 }; /* first byte; new forms get new numbers */

static uint8_t *put_be(uint8_t *p, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
    return p + bytes;
}

/* Whether `id` is spelt as the engine spells it. sel_id_parse_run takes one spelling only, but for
 * capital hexadecimal digits; another spelling is another id. */
static bool parse_own(struct sel_str id, struct sel_id *flow, uint32_t *attempt, uint32_t *ordinal)
{
    if (!sel_id_parse_run(id, flow, attempt, ordinal))
        return false;
    for (size_t i = 0; i < id.n; i++)
        if (id.p[i] >= 'A' && id.p[i] <= 'F')
            return false;
    return true;
}

bool sel_storage_key_encode(struct sel_str id, struct sel_storage_key *ret)
{
    struct sel_id flow;
    uint32_t attempt, ordinal;
    if (parse_own(id, &flow, &attempt, &ordinal)) {
        uint8_t *p = put_be(ret->bytes, KEY_RUN, 1);
        p = put_be(p, flow.hi, 8);
        p = put_be(p, flow.lo, 8);
        p = put_be(p, attempt, 4);
        p = put_be(p, ordinal, 4);
        ret->n = (uint32_t)(p - ret->bytes);
        return true;
    }
    if (id.n == 0 || id.n > SEL_STORAGE_KEY_MAX - 1)
        return false;
    ret->bytes[0] = KEY_TEXT;
    memcpy(ret->bytes + 1, id.p, id.n);
    ret->n = (uint32_t)id.n + 1;
    return true;
}
