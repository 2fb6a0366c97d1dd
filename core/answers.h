/* core/answers.h - what a decision has asked and been told; private to core/decide.c.
 *
 * A question that has no answer yet becomes a need; the caller of sel_decide fills in the needs
 * and they become answers, kept until the decision ends. Answers are found by what was asked. */
#ifndef SEL_CORE_ANSWERS_H
#define SEL_CORE_ANSWERS_H

#include <stdint.h>

#include "core/arena.h"
#include "core/decide.h"
#include "core/value.h"

struct sel_answer {
    enum sel_need_kind kind;
    uint32_t number; /* RESULT: ordinal; SELECTIVE: slot */
    uint64_t combination;
    const struct sel_cond *leaf;
    uint32_t need; /* asked, not answered: 1 + which of the needs; 0: answered */
    struct sel_value value;
};

/* Zeroed is empty. */
struct sel_answers {
    struct sel_arena arena;   /* of the values, and of what needs point to */
    struct sel_answer *items; /* what was asked or answered */
    uint32_t count, cap;
    uint32_t *index; /* hash table of item number + 1 */
    uint32_t index_cap;
    struct sel_need *needs;
    uint32_t need_count, need_cap;
};

void sel_answers_done(struct sel_answers *answers);
/* Forgets everything, for the next decision; memory is kept. */
void sel_answers_clear(struct sel_answers *answers);
/* Bytes that they occupy, reserves included. */
size_t sel_answers_bytes(const struct sel_answers *answers);

/* 0 and the answer, valid until the next add or take; SEL_ENEED: the need is noted; SEL_ENOMEM. */
int sel_answers_ask(struct sel_answers *answers, const struct sel_need *need,
                    const struct sel_value **ret) SEL_WARN_UNUSED;
/* NULL: not answered; nothing is noted. */
const struct sel_value *sel_answers_find(const struct sel_answers *answers,
                                         const struct sel_need *need);
/* Answers `need` with `value`, whose parts live in the arena. 0 or SEL_ENOMEM. */
int sel_answers_add(struct sel_answers *answers, const struct sel_need *need,
                    struct sel_value value) SEL_WARN_UNUSED;
/* The caller has answered all needs: they become answers. */
void sel_answers_take(struct sel_answers *answers);

#endif
