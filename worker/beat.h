/* worker/beat.h - the heartbeat of a worker process: a thread that tasks cannot block.
 *
 * It says for each session, every `beat_us`, how often its loop has turned and which slots make
 * progress, and wakes the loop, so that one that sleeps turns and one that does not is stuck. So a
 * task that computes for minutes keeps the leases of all, and the broker sees that the loop does
 * not turn and gives it no new work. */
#ifndef SEL_WORKER_BEAT_H
#define SEL_WORKER_BEAT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/id.h"
#include "core/str.h"
#include "worker/loop.h"

struct sel_worker_net;
struct sel_worker_beat;

/* One session, as its loop shows it. */
struct sel_worker_pulse {
    struct sel_id peer;
    uint32_t incarnation;
    uint32_t slots;
    const uint8_t *pulses;     /* a byte a slot, stored atomically */
    _Atomic bool is_open;      /* there is a session to keep */
    _Atomic uint32_t endpoint; /* its broker's place in the list */
    _Atomic int64_t beat_us;   /* as its broker wants it */
    _Atomic uint64_t turns;
    struct sel_loop *loop; /* lives until the beat has stopped */
    struct sel_post poke;  /* private, as what follows */
    _Atomic bool is_poked;
};

struct sel_worker_beat_options {
    struct sel_worker_net *net;
    const struct sel_str *endpoints; /* terminated, borrowed */
    uint32_t endpoint_count;
    struct sel_worker_pulse *sessions; /* borrowed */
    uint32_t session_count;
};

/* Starts the thread. 0, SEL_ENOMEM, -errno. */
int sel_worker_beat_start(const struct sel_worker_beat_options *options,
                          struct sel_worker_beat **ret) SEL_WARN_UNUSED;
/* A session has opened: it does not wait for its first beat. Any thread. */
void sel_worker_beat_wake(struct sel_worker_beat *beat);
/* Stops it; NULL allowed; returns NULL. */
struct sel_worker_beat *sel_worker_beat_stop(struct sel_worker_beat *beat);

#endif
