#include "core/id.h"

#include "core/assert.h"

#define ID_MS_MASK ((UINT64_C(1) << 48) - 1)
#define ID_SHARD_MAX 0xfffu
#define ID_INCARNATION_MAX 0x3fffffu
#define ID_COUNTER_MASK ((UINT64_C(1) << 40) - 1)
#define ID_VERSION UINT64_C(7)
#define ID_VARIANT UINT64_C(2)
#define ID_TEXT_LENGTH (SEL_ID_TEXT_SIZE - 1)

struct sel_id sel_id_next(struct sel_id_source *source, int64_t unix_ms)
{
    SEL_ASSERT(source->shard <= ID_SHARD_MAX);
    SEL_ASSERT(source->incarnation <= ID_INCARNATION_MAX);
    if (unix_ms > source->last_ms)
        source->last_ms = unix_ms;
    uint64_t ms = (uint64_t)source->last_ms & ID_MS_MASK;
    uint64_t counter = source->counter++ & ID_COUNTER_MASK;
    return (struct sel_id){
        .hi = ms << 16 | ID_VERSION << 12 | source->shard,
        .lo = ID_VARIANT << 62 | (uint64_t)source->incarnation << 40 | counter,
    };
}

static bool is_dash(size_t i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

const char *sel_id_format(struct sel_id id, char out[SEL_ID_TEXT_SIZE])
{
    /* Where the two digits of each byte stand; a table, as this is done for every task. */
    static const uint8_t places[16] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < 16; i++) {
        uint64_t half = i < 8 ? id.hi : id.lo;
        unsigned byte = (unsigned)(half >> (56 - 8 * (i & 7))) & 0xff;
        out[places[i]] = digits[byte >> 4];
        out[places[i] + 1] = digits[byte & 15];
    }
    out[8] = out[13] = out[18] = out[23] = '-';
    out[ID_TEXT_LENGTH] = '\0';
    return out;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool sel_id_parse(struct sel_str text, struct sel_id *ret)
{
    if (text.n != ID_TEXT_LENGTH)
        return false;
    uint64_t half[2] = {0, 0};
    unsigned nibble = 0;
    for (size_t i = 0; i < ID_TEXT_LENGTH; i++) {
        if (is_dash(i)) {
            if (text.p[i] != '-')
                return false;
            continue;
        }
        int value = hex_value(text.p[i]);
        if (value < 0)
            return false;
        half[nibble / 16] = half[nibble / 16] << 4 | (uint64_t)value;
        nibble++;
    }
    *ret = (struct sel_id){half[0], half[1]};
    return true;
}

/* Every task has its id written: printf would be a tenth of what a short one costs. */
static char *put_u32(char *out, uint32_t value)
{
    char digits[10];
    size_t n = 0;
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    while (n > 0)
        *out++ = digits[--n];
    return out;
}

const char *sel_id_format_run(struct sel_id flow, uint32_t attempt, uint32_t ordinal,
                              char out[SEL_RUN_ID_TEXT_SIZE])
{
    /* two dividers, two numbers of at most 10 digits */
    _Static_assert(SEL_RUN_ID_TEXT_SIZE >= SEL_ID_TEXT_SIZE + 2 + 2 * 10, "the longest id fits");
    sel_id_format(flow, out);
    char *end = out + ID_TEXT_LENGTH;
    *end++ = '-';
    end = put_u32(end, attempt);
    *end++ = '.';
    end = put_u32(end, ordinal);
    *end = '\0';
    return out;
}

/* Reads a number as it is written: without sign, without leading zeros, so that a run has one id
 * only. */
static bool take_u32(struct sel_str *text, uint32_t *ret)
{
    uint64_t value = 0;
    size_t i = 0;
    while (i < text->n && i <= 10 && text->p[i] >= '0' && text->p[i] <= '9')
        value = value * 10 + (uint64_t)(text->p[i++] - '0');
    if (i == 0 || value > UINT32_MAX || (i > 1 && text->p[0] == '0'))
        return false;
    *text = (struct sel_str){text->p + i, text->n - i};
    *ret = (uint32_t)value;
    return true;
}

static bool take_char(struct sel_str *text, char c)
{
    if (text->n == 0 || text->p[0] != c)
        return false;
    *text = (struct sel_str){text->p + 1, text->n - 1};
    return true;
}

bool sel_id_parse_run(struct sel_str text, struct sel_id *ret_flow, uint32_t *ret_attempt,
                      uint32_t *ret_ordinal)
{
    if (text.n < ID_TEXT_LENGTH)
        return false;
    struct sel_id flow;
    uint32_t attempt, ordinal;
    if (!sel_id_parse((struct sel_str){text.p, ID_TEXT_LENGTH}, &flow))
        return false;
    struct sel_str rest = {text.p + ID_TEXT_LENGTH, text.n - ID_TEXT_LENGTH};
    if (!take_char(&rest, '-') || !take_u32(&rest, &attempt) || !take_char(&rest, '.') ||
        !take_u32(&rest, &ordinal) || rest.n)
        return false;
    *ret_flow = flow;
    *ret_attempt = attempt;
    *ret_ordinal = ordinal;
    return true;
}
