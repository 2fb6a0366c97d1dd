/* perf/modules/malloc_count.h - what malloc_count.so leaves in the file that SEL_MALLOC_COUNT
 * names.
 */
#ifndef SEL_PERF_MODULES_MALLOC_COUNT_H
#define SEL_PERF_MODULES_MALLOC_COUNT_H

#include <stdatomic.h>
#include <stdint.h>

struct sel_malloc_count {
    _Atomic uint64_t own;    /* calls of malloc and its kin by everything but: */
    _Atomic uint64_t libzmq; /* calls by libzmq, and by C++'s library on behalf of it */
};

#endif
