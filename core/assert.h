/* core/assert.h - assertions that stay on in release builds.
 *
 * SEL_ASSERT is for what the program itself promised; what a peer, a user or a disk sends is
 * never asserted but answered with an error. */
#ifndef SEL_CORE_ASSERT_H
#define SEL_CORE_ASSERT_H

/* Prints the place and the condition to standard error and aborts. */
__attribute__((noreturn, cold)) void sel_assert_fail(const char *file, int line, const char *cond);

#define SEL_ASSERT(cond)                                                                           \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0))                                                          \
            sel_assert_fail(__FILE__, __LINE__, #cond);                                            \
    } while (0)

#ifdef SEL_DEBUG
#define SEL_DEBUG_ASSERT(cond) SEL_ASSERT(cond)
#else
#define SEL_DEBUG_ASSERT(cond) ((void)sizeof(cond))
#endif

#define SEL_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define SEL_WARN_UNUSED __attribute__((warn_unused_result))
#define SEL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

#endif
