/* core/trace.h - the trace events: names, numbers, levels (tests/conformance/trace-events.md). */
#ifndef SEL_CORE_TRACE_H
#define SEL_CORE_TRACE_H

#include <stdint.h>

enum sel_trace_level { SEL_LEVEL_INFO, SEL_LEVEL_WARNING, SEL_LEVEL_ERROR };

/* number, name, level */
#define SEL_TRACE_LIST(X)                                                                          \
    X(0, DISPATCHER_WAKEUP, INFO)                                                                  \
    X(1, FLOW_SCHEDULE, INFO)                                                                      \
    X(2, FLOW_START, INFO)                                                                         \
    X(3, TASK_SCHEDULE, INFO)                                                                      \
    X(4, TASK_START, INFO)                                                                         \
    X(5, SUBFLOW_SCHEDULE, INFO)                                                                   \
    X(6, TASK_END, INFO)                                                                           \
    X(7, NODE_SUCCESSFUL, INFO)                                                                    \
    X(8, TASK_DISCARD_RESULT, WARNING)                                                             \
    X(9, TASK_FAILURE, WARNING)                                                                    \
    X(10, TASK_RETRY, WARNING)                                                                     \
    X(11, FLOW_FAILURE, WARNING)                                                                   \
    X(12, DISPATCHER_FAILURE, ERROR)                                                               \
    X(13, NODE_FAILURE, WARNING)                                                                   \
    X(14, FALLBACK_START, INFO)                                                                    \
    X(15, DISPATCHER_RETRY, INFO)                                                                  \
    X(16, FLOW_END, INFO)                                                                          \
    X(17, STORAGE_CONNECT, INFO)                                                                   \
    X(18, STORAGE_DISCONNECT, INFO)                                                                \
    X(19, STORAGE_RETRIEVE, INFO)                                                                  \
    X(20, STORAGE_RETRIEVED, INFO)                                                                 \
    X(21, STORAGE_STORE, INFO)                                                                     \
    X(22, STORAGE_STORED, INFO)                                                                    \
    X(23, EDGE_COND_FALSE, INFO)                                                                   \
    X(24, FOREACH_RESULT, INFO)                                                                    \
    X(25, NODE_STATE_CACHE_GET, INFO)                                                              \
    X(26, NODE_STATE_CACHE_ADD, INFO)                                                              \
    X(27, NODE_STATE_CACHE_MISS, INFO)                                                             \
    X(28, NODE_STATE_CACHE_HIT, INFO)                                                              \
    X(29, TASK_RESULT_CACHE_GET, INFO)                                                             \
    X(30, TASK_RESULT_CACHE_ADD, INFO)                                                             \
    X(31, TASK_RESULT_CACHE_MISS, INFO)                                                            \
    X(32, TASK_RESULT_CACHE_HIT, INFO)                                                             \
    X(33, SELECTIVE_OMIT_EDGE, INFO)                                                               \
    X(34, SELECTIVE_OMIT_NODE, INFO)                                                               \
    X(35, SELECTIVE_RUN_FUNC, INFO)                                                                \
    X(36, SELECTIVE_TASK_REUSE, INFO)                                                              \
    X(37, STORAGE_STORE_ERROR, INFO)                                                               \
    X(38, STORAGE_OMIT_STORE_ERROR, WARNING)                                                       \
    X(39, FALLBACK_COND_FALSE, INFO)                                                               \
    X(40, FALLBACK_COND_TRUE, INFO)                                                                \
    X(41, NODE_STATE_CACHE_ISSUE, WARNING)                                                         \
    X(42, TASK_RESULT_CACHE_ISSUE, WARNING)                                                        \
    X(43, STORAGE_ISSUE, WARNING)                                                                  \
    X(44, RESULT_BACKEND_ISSUE, WARNING)                                                           \
    X(45, FLOW_RETRY, WARNING)                                                                     \
    X(46, MIGRATION, INFO)                                                                         \
    X(47, MIGRATION_SKEW, WARNING)                                                                 \
    X(48, MIGRATION_TAINTED_FLOW, INFO)                                                            \
    X(49, MIGRATION_ERROR, WARNING)                                                                \
    X(50, EAGER_FAILURE, WARNING)                                                                  \
    X(51, STORAGE_DELETE, INFO)                                                                    \
    X(52, STORAGE_DELETED, INFO)                                                                   \
    X(53, TASK_DUPLICATE, INFO)

#define SEL_TRACE_ENUM(number, name, level) SEL_TRACE_##name = number,
enum sel_trace_event { SEL_TRACE_LIST(SEL_TRACE_ENUM) SEL_TRACE_COUNT };
#undef SEL_TRACE_ENUM

/* "TASK_START"; the number must be below SEL_TRACE_COUNT. */
const char *sel_trace_name(uint32_t event);
enum sel_trace_level sel_trace_level_of(uint32_t event);

#endif
