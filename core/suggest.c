#include "core/suggest.h"

#include <strings.h>

#define DIFFERENCES_MAX 3

void sel_suggest_init(struct sel_suggest *s, struct sel_str wanted)
{
    size_t limit = wanted.n / 3;
    if (limit > DIFFERENCES_MAX)
        limit = DIFFERENCES_MAX;
    if (limit == 0)
        limit = 1;
    *s = (struct sel_suggest){.wanted = wanted, .limit = (unsigned)limit};
    s->distance = s->limit + 1;
}

void sel_suggest_offer(struct sel_suggest *s, struct sel_str candidate)
{
    size_t gap = s->wanted.n > candidate.n ? s->wanted.n - candidate.n : candidate.n - s->wanted.n;
    if (s->distance == 0 || candidate.n == 0 || gap >= s->distance)
        return;
    unsigned distance = sel_str_distance(s->wanted, candidate, s->limit);
    if (gap == 0 && distance > 1 && strncasecmp(s->wanted.p, candidate.p, candidate.n) == 0)
        distance = 1;
    /* A name of which every letter differs is no suggestion, however short it is. */
    if (distance < s->distance && distance < candidate.n) {
        s->distance = distance;
        s->best = candidate;
    }
}

bool sel_suggest_get(const struct sel_suggest *s, struct sel_str *ret)
{
    if (s->distance > s->limit)
        return false;
    *ret = s->best;
    return true;
}
