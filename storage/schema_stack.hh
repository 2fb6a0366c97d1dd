/* storage/schema_stack.hh - running what recurses on a stack that is large enough.
 *
 * The caller may be a coroutine with 256 KiB; valijson recurses with schema and value, std::regex
 * with the length of a text. What may need more than a little of the caller's stack runs on a
 * thread of its own, which the caller waits for: rare, and some 20 us. */
#ifndef SEL_STORAGE_SCHEMA_STACK_HH
#define SEL_STORAGE_SCHEMA_STACK_HH

#include <cstddef>

namespace sel_schema_internal
{

constexpr size_t INLINE_STACK = 48 << 10;     /* what may be taken of the caller's stack, twice */
constexpr size_t STACK_MAX = size_t(1) << 30; /* address space; pages are taken when touched */

/* Runs fn(arg), which must not throw, with `size` bytes of stack at least. 0 or SEL_ENOMEM. */
int run_on_stack(size_t size, void (*fn)(void *arg), void *arg);

} // namespace sel_schema_internal

#endif
