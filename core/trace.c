#include "core/trace.h"

#include "core/assert.h"

static const struct {
    const char *name;
    enum sel_trace_level level;
} events[] = {
#define TRACE_ENTRY(number, name, level) [number] = {#name, SEL_LEVEL_##level},
    SEL_TRACE_LIST(TRACE_ENTRY)
#undef TRACE_ENTRY
};

/* A gap in the numbers would leave an entry without a name. */
_Static_assert(SEL_COUNT(events) == SEL_TRACE_COUNT, "the numbers end with the last event");
#define TRACE_ONE(number, name, level) +1
_Static_assert(0 SEL_TRACE_LIST(TRACE_ONE) == SEL_TRACE_COUNT, "the numbers have no gap");
#undef TRACE_ONE

const char *sel_trace_name(uint32_t event)
{
    SEL_ASSERT(event < SEL_TRACE_COUNT);
    return events[event].name;
}

enum sel_trace_level sel_trace_level_of(uint32_t event)
{
    SEL_ASSERT(event < SEL_TRACE_COUNT);
    return events[event].level;
}
