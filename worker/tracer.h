/* worker/tracer.h - where trace events go: the sinks of `global.trace` and an observer.
 *
 * Emitting is thread safe. Forms of the lines: tests/conformance/trace-events.md. Logging and JSON
 * sinks write whole lines; function sinks are called on the emitting thread; storage sinks are fed
 * by a thread of the tracer, in the order of emission, so that no loop waits for them; what they
 * cannot keep up with is lost. A sink that fails is reported once to the log (and counted); the
 * others still get the event. */
#ifndef SEL_WORKER_TRACER_H
#define SEL_WORKER_TRACER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/system.h"
#include "core/trace.h"
#include "core/value.h"
#include "storage/storage.h"

struct sel_modules;
struct sel_tracer;

struct sel_tracer_options {
    const struct sel_system *system; /* its `traces` */
    struct sel_modules *modules;     /* for function sinks; NULL: there are none */
    /* The opened storage `index` of the system, for storage sinks (blocking). */
    int (*storage)(void *ctx, uint32_t index, struct sel_storage **ret, struct sel_error *err);
    void *storage_ctx;
    /* Sees every event, on any thread, before the sinks, and how long ago it was; NULL: none. */
    void (*observer)(void *ctx, enum sel_trace_event event, const struct sel_value *details,
                     int64_t age_us);
    void *observer_ctx;
    /* Wall clock in microseconds since 1970. */
    int64_t (*unix_us)(void *ctx);
    void *clock_ctx;
    int out_fd, err_fd; /* where logging and JSON lines go: 1 and 2 */
    bool log_info;      /* logging sink: also events of level info (else warnings and errors) */
};

/* Finds functions and storages now, so that what is missing shows at start. */
int sel_tracer_new(const struct sel_tracer_options *options, struct sel_tracer **ret,
                   struct sel_error *err) SEL_WARN_UNUSED;
/* Waits until everything emitted is out; returns NULL. */
struct sel_tracer *sel_tracer_free(struct sel_tracer *tracer);

/* False: nobody listens; details need not be built. */
bool sel_tracer_is_on(const struct sel_tracer *tracer);
/* `details` is a map, borrowed for the call. */
void sel_tracer_emit(struct sel_tracer *tracer, enum sel_trace_event event,
                     const struct sel_value *details);
/* The same, of what was so long ago. */
void sel_tracer_emit_late(struct sel_tracer *tracer, enum sel_trace_event event,
                          const struct sel_value *details, int64_t age_us);
/* Events that some sink did not take. */
uint64_t sel_tracer_lost(const struct sel_tracer *tracer);

#endif
