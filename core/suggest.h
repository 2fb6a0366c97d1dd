/* core/suggest.h - "did you mean": the nearest of the names that would have been right.
 *
 * Offer every candidate, then take the best. Of equally near ones the first offered wins, so that
 * messages do not depend on chance. */
#ifndef SEL_CORE_SUGGEST_H
#define SEL_CORE_SUGGEST_H

#include <stdbool.h>

#include "core/str.h"

struct sel_suggest {
    struct sel_str wanted;
    struct sel_str best;
    unsigned limit;    /* what is further away is no suggestion */
    unsigned distance; /* of `best`; limit + 1: there is none yet */
};

/* `wanted` is borrowed. A third of its letters, at most 3, may differ. */
void sel_suggest_init(struct sel_suggest *s, struct sel_str wanted);
/* `candidate` is borrowed. Another case of letters counts as one difference. */
void sel_suggest_offer(struct sel_suggest *s, struct sel_str candidate);
/* False if nothing is near; *ret is then untouched. */
bool sel_suggest_get(const struct sel_suggest *s, struct sel_str *ret);

#endif
