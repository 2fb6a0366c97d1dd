/* worker/process.h - the threads of a worker, from the first HELLO to the last GOODBYE.
 *
 * What selinon-worker runs, and `selinon-cli dev` beside a broker. Each thread has a loop and a
 * session of its own with the broker; it runs tasks in its slots, decides flows, or does both. One
 * more thread says that the process lives. Logs; knows no signals. Functions belong to the thread
 * that started it, unless said otherwise. */
#ifndef SEL_WORKER_PROCESS_H
#define SEL_WORKER_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/id.h"
#include "core/str.h"
#include "core/system.h"
#include "worker/bare.h"
#include "worker/crash.h"
#include "worker/dispatcher.h"
#include "worker/holder.h"
#include "worker/link.h"
#include "worker/logger.h"

struct sel_executor_observer;
struct sel_mock;
struct sel_modules;
struct sel_worker_process;

#define SEL_WORKER_BROKER_DEFAULT "tcp://127.0.0.1:5711"
#define SEL_WORKER_BROKERS_MAX 16u
#define SEL_WORKER_THREADS_MAX 1024u
#define SEL_WORKER_SLOTS_DEFAULT 1024u
#define SEL_WORKER_WINDOW_DEFAULT 8192u /* at least; see --window in docs/operations.md */
#define SEL_WORKER_FLOWS_DEFAULT 4096u
#define SEL_WORKER_FLOWS_MAX 1000000u
/* Slots of a thread in its crash page: of tasks, then of what flows have called. */
#define SEL_WORKER_PAGE_SLOTS(slots) ((slots) + SEL_DISPATCHER_SLOTS)

struct sel_worker_process_options {
    const struct sel_system *system; /* borrowed, as all below */
    struct sel_modules *modules;     /* NULL: only executables can be run */
    const char *const *brokers;      /* endpoints of one broker, tried in turn; at least one */
    uint32_t broker_count;
    const char *const *queues; /* NULL: those of all tasks and flows of the system */
    uint32_t queue_count;
    uint32_t threads;        /* that run tasks; 0: 1, or none if there are dispatchers */
    uint32_t slots;          /* of a thread; 0: the default */
    uint32_t window;         /* tasks that a thread may have; 0: enough for the pipe to stay full */
    uint32_t dispatchers;    /* threads that only decide flows; 0: those that run tasks do it too */
    uint32_t flows;          /* of a thread that decides; 0: the worker decides none */
    uint32_t flow_nodes_max; /* that a flow may start; 0: the default */
    const char *name;        /* for people; NULL: host:process */
    struct sel_id id; /* of the process; zero: random. Thread n has it with n xor-ed to `lo` */
    uint32_t incarnation;
    bool pin;                      /* thread n to the n-th of the CPUs that are allowed */
    struct sel_crash_page *page;   /* with all threads, SEL_WORKER_PAGE_SLOTS each; NULL: none */
    const struct sel_str *crashed; /* by thread, see proto/wire.h; NULL: none */
    struct sel_worker_logger log;
    int verbosity; /* of tasks and traces: 0 warnings, 1 also what is done, 2 also why */
    const char *(*getenv)(void *ctx, const char *name); /* NULL: the process's own */
    void *getenv_ctx;
    struct sel_mock *mock;    /* NULL: real code; the rest is for a mock */
    const char *mock_results; /* these as of struct sel_executor_options */
    double speed;
    const struct sel_executor_observer *observer;
};

/* Finds the code, opens storages and starts all threads; does not wait for the broker. 0;
 * SEL_ECONFIG and the codes of sel_engine_new (`err` says what is wrong in the configuration);
 * SEL_ENOMEM; -errno. */
int sel_worker_process_start(const struct sel_worker_process_options *options,
                             struct sel_worker_process **ret,
                             struct sel_error *err) SEL_WARN_UNUSED;
/* Begins the end: nothing new is begun, what waits is returned; what runs has `drain_us`, then it
 * is cancelled and returned. Any thread. */
void sel_worker_process_drain(struct sel_worker_process *process, int64_t drain_us);

enum sel_worker_end {
    SEL_WORKER_RUNS,    /* it has not ended */
    SEL_WORKER_DRAINED, /* everything was handed over */
    SEL_WORKER_LEFT,    /* the broker did not take all in time: it will miss it, and give it out */
    SEL_WORKER_REFUSED, /* the broker will not have us */
    SEL_WORKER_STUCK,   /* a task neither ends nor hears; the process can only be left */
};
/* Readable when sel_worker_process_end has news. */
int sel_worker_process_fd(const struct sel_worker_process *process);
enum sel_worker_end sel_worker_process_end(struct sel_worker_process *process);
/* Waits for the end, at most so long (INT64_MAX: for ever). */
enum sel_worker_end sel_worker_process_wait(struct sel_worker_process *process, int64_t limit_us);
/* After the end, and not if it is stuck. NULL allowed; returns NULL. */
struct sel_worker_process *sel_worker_process_free(struct sel_worker_process *process);

/* Sums over the threads. Only after the end: they belong to the threads. */
struct sel_worker_process_stats {
    struct sel_bare_stats bare;
    struct sel_holder_stats held;
    struct sel_dispatcher_stats flows;
    struct sel_worker_link_stats link;
};
void sel_worker_process_get_stats(const struct sel_worker_process *process,
                                  struct sel_worker_process_stats *ret);

#endif
