/* selinon/client.h - producers in C: submit tasks and flows to brokers, get their results.
 *
 *   struct sel_client_options options = SEL_CLIENT_OPTIONS;
 *   const char *endpoints[] = {"tcp://127.0.0.1:5571"};
 *   options.endpoints = endpoints;
 *   options.endpoint_count = 1;
 *   struct sel_client *client;
 *   int r = sel_client_open(&options, &client, NULL);
 *
 *   struct sel_client_task task = {.name = {"Resize", 6}, .args = {"\x81\xa1w\x64", 4}};
 *   r = sel_client_submit(client, &task, &id, SEL_CLIENT_FOREVER);
 *   struct sel_client_batch *batch;
 *   while ((r = sel_client_next(client, &batch, SEL_CLIENT_FOREVER)) > 0) {
 *       for (uint32_t i = 0; i < batch->count; i++)
 *           use(&batch->results[i]);
 *       sel_client_batch_free(batch);
 *   }
 *   sel_client_close(client, 5000000);
 *
 * What is said of tasks holds for flows too: they are submitted with sel_client_run_flow, or as
 * tasks with SEL_CLIENT_FLOW.
 *
 * What it promises. A task is submitted once, whatever happens to connections and to the broker
 * while this process lives; its result is handed out once. After sel_client_flush has returned 0,
 * what was submitted has reached its level of durability and no longer needs this process.
 *
 * Threads. Every function may be called by any thread at any time, but for sel_client_close, which
 * must be the last. A thread of the library, with all signals blocked, owns the connections.
 * Callers that block are not woken by signals: give them a timeout.
 *
 * Fork. A client belongs to the process that opened it. In a child of fork every function returns
 * -ECHILD, and sel_client_close frees nothing.
 *
 * Times are microseconds. A timeout of 0 does not block, SEL_CLIENT_FOREVER waits for ever. Texts
 * and bytes that are passed in are copied before a function returns; they need no terminator.
 *
 * Errors are negative numbers of <errno.h>; sel_client_error_text tells what they mean here:
 *   -EAGAIN        no room now, and the timeout is 0        -ETIMEDOUT  the timeout is over
 *   -EINVAL        an argument is wrong                     -EMSGSIZE   over a limit of the wire
 *   -EEXIST        the id is waited for already             -ENOENT     nothing waits for the id
 *   -ECONNREFUSED  a broker will never have this client     -ECHILD     another process's client
 *   -ENOMEM        out of memory
 *
 * Other languages speak the protocol themselves: proto/PROTOCOL.md and examples/producers. */
#ifndef SELINON_CLIENT_H
#define SELINON_CLIENT_H

#include <selinon/base.h>

struct sel_client;

/* The text of an error, as above; never NULL, lives for ever. */
SEL_API const char *sel_client_error_text(int error);
/* "0.1.0", of the library that is linked. */
SEL_API const char *sel_client_version(void);

/* ---- ids ---- */

/* 128 bits in the order of a UUID's text. */
struct sel_client_id {
    uint8_t bytes[16];
};

#define SEL_CLIENT_ID_SIZE 37 /* of its text, with the terminator */
/* "0198f3c2-...", lower case. Returns out. */
SEL_API const char *sel_client_id_format(const struct sel_client_id *id, char *out);
/* 0 or -EINVAL: no UUID's text. */
SEL_API SEL_CHECKED int sel_client_id_parse(const char *text, size_t n, struct sel_client_id *ret);

/* ---- a client ---- */

#define SEL_CLIENT_FOREVER INT64_C(-1)

/* Zero stands for the default in brackets. */
struct sel_client_options {
    size_t size;                  /* sizeof(struct sel_client_options) */
    size_t task_size;             /* sizeof(struct sel_client_task) */
    const char *const *endpoints; /* one for each broker: "tcp://HOST:PORT" or "ipc://PATH" */
    uint32_t endpoint_count;      /* 1 to 64 */
    const char *name;             /* for people who look at the broker [program and process] */
    uint32_t waiting_max;         /* tasks a broker whose end is not known yet [1,000,000] */
    size_t keep_bytes_max;   /* submits a broker, behind one that it has not settled [64 MiB] */
    size_t result_bytes_max; /* results not taken yet: above it brokers send no more [64 MiB] */
    int64_t lost_after_us;   /* no broker for so long: submits to it return -ETIMEDOUT,
                                whatever their own timeout [never] */
    /* One line for a log: connections, refusals. Called on any thread while the client is locked:
     * it must not call the client. [none] */
    void (*log)(void *ctx, const char *text);
    void *log_ctx;
};

#define SEL_CLIENT_OPTIONS                                                                         \
    {                                                                                              \
        sizeof(struct sel_client_options), sizeof(struct sel_client_task), NULL, 0, NULL, 0, 0, 0, \
            0, NULL, NULL                                                                          \
    }

#define SEL_CLIENT_ERROR_SIZE 256

/* Opens a client and begins to connect; it does not wait for brokers, see sel_client_ready. With
 * several brokers a task goes to the one that its id stands for: FNV-1a (64 bit) of the 16 bytes,
 * modulo their number; a task with an idempotency key to that of the key's bytes, and an id that is
 * minted for it stands for the same. So all clients must be given the same endpoints in the same
 * order, brokers that are down included.
 *
 * 0; -EINVAL: options or an endpoint are wrong; -ENOMEM; others of the system. `error` (may be
 * NULL) gets at most SEL_CLIENT_ERROR_SIZE bytes of text. */
SEL_API SEL_CHECKED int sel_client_open(const struct sel_client_options *options,
                                        struct sel_client **ret, char *error);
/* Waits until all that was submitted is settled, but no longer than `timeout_us`, says goodbye and
 * frees everything but batches that were taken. 0; -ETIMEDOUT: some submits were not settled, they
 * may or may not be run. Results that were not taken are lost. Nobody may be in another call. NULL
 * is allowed. */
SEL_API int sel_client_close(struct sel_client *client, int64_t timeout_us);
/* Waits until every broker has answered at least once. 0, -ETIMEDOUT, -ECONNREFUSED. */
SEL_API SEL_CHECKED int sel_client_ready(struct sel_client *client, int64_t timeout_us);
/* What went wrong last with a broker or connection, for people: at most `size` bytes with the
 * terminator, "" if nothing did. Returns out. */
SEL_API const char *sel_client_problem(struct sel_client *client, char *out, size_t size);

/* ---- submitting ---- */

enum sel_client_level {
    SEL_CLIENT_LEVEL_DEFAULT,  /* the broker's own */
    SEL_CLIENT_LEVEL_MEMORY,   /* settled when the broker has it */
    SEL_CLIENT_LEVEL_INTERVAL, /* on disk soon: the broker's interval may be lost with the machine
                                */
    SEL_CLIENT_LEVEL_COMMIT,   /* settled when it is on disk */
};

enum sel_client_flags {
    /* No result is wanted, none comes. A refusal is logged and counted, and comes only with
     * SEL_CLIENT_TELL_SETTLED. */
    SEL_CLIENT_QUIET = 1,
    /* The result is kept for sel_client_wait, instead of coming from sel_client_next. */
    SEL_CLIENT_KEEP = 2,
    /* When the submit is settled, a result of status SEL_CLIENT_SETTLED comes from sel_client_next;
     * if it was refused, after the one that says so. */
    SEL_CLIENT_TELL_SETTLED = 4,
    /* It is a flow: `name` is the flow's, `queue` one of dispatchers, which is another than that of
     * tasks with the same name. */
    SEL_CLIENT_FLOW = 8,
    /* With SEL_CLIENT_FLOW, not with SEL_CLIENT_QUIET: the result comes when also all has ended
     * that the flow has sent off and did not wait for. */
    SEL_CLIENT_ALL = 16,
};

/* A task to run; zero it and set what is needed. */
struct sel_client_task {
    struct sel_str name;         /* required, 1 to 255 bytes of UTF-8 */
    struct sel_bytes args;       /* one msgpack value, or what content_type says; empty: null */
    struct sel_str queue;        /* 1 to 255 bytes of UTF-8; empty: "celery" */
    uint64_t tag;                /* comes back with the result, means nothing to the library */
    struct sel_client_id id;     /* all zero: the library makes one. A UUID else, which nobody has
                                    used but for the same task */
    int64_t countdown_us;        /* begin so much later */
    int64_t not_before_unix_us;  /* begin not before this time, microseconds since 1970 */
    struct sel_str key;          /* idempotency key: the same key and body stand for one task */
    struct sel_str content_type; /* of args, if they are not msgpack */
    uint8_t priority;            /* larger first; 0: 128 */
    uint8_t level;               /* enum sel_client_level */
    uint16_t reserved;           /* 0 */
    uint32_t flags;              /* enum sel_client_flags */
    struct sel_bytes selective;  /* SEL_CLIENT_FLOW: a msgpack map, see proto/PROTOCOL.md, "Flows";
                                    sel_client_run_flow makes it */
};

/* Submits one task: it is sent at once, beside the caller. `ret_id` (may be NULL) is its id. Blocks
 * while there is no room (the options' limits, or the broker is full), up to the timeout.
 *
 * 0; -EAGAIN, -ETIMEDOUT; -EINVAL, -EMSGSIZE, -EEXIST, -ECONNREFUSED, -ENOMEM, -ECHILD. */
SEL_API SEL_CHECKED int sel_client_submit(struct sel_client *client,
                                          const struct sel_client_task *task,
                                          struct sel_client_id *ret_id, int64_t timeout_us);
/* Submits `count` tasks in their order, `tasks[i]` getting `ret_ids[i]` (may be NULL). Much cheaper
 * than one by one. How many were submitted, counted from the first: less than `count` if the time
 * was over or the next one is wrong; an error only if not even the first was. */
SEL_API SEL_CHECKED int64_t sel_client_submit_many(struct sel_client *client,
                                                   const struct sel_client_task *tasks,
                                                   size_t count, struct sel_client_id *ret_ids,
                                                   int64_t timeout_us);
/* A flow to run; zero it, set `size` and what is needed. `name` to `level` are as of a task. */
struct sel_client_flow {
    size_t size; /* sizeof(struct sel_client_flow) */
    struct sel_str name;
    struct sel_bytes args;
    struct sel_str queue; /* the flow's in its configuration; empty: "celery" */
    uint64_t tag;
    struct sel_client_id id;
    int64_t countdown_us;
    int64_t not_before_unix_us;
    struct sel_str key;
    uint8_t priority;
    uint8_t level;
    uint16_t reserved; /* 0 */
    uint32_t flags;    /* enum sel_client_flags; SEL_CLIENT_FLOW is understood */
    /* A selective run: only what leads to these tasks. None: a normal one. What follows needs some.
     */
    const struct sel_str *selective_tasks;
    uint32_t selective_task_count;
    uint32_t subsequent_flow_count;
    const struct sel_str *subsequent_flows; /* run_subsequent is for these; none: for all flows */
    bool follow_subflows;                   /* the tasks are looked for in sub-flows too */
    bool run_subsequent;                    /* also what comes after them is run */
};

/* Submits a flow, as sel_client_submit does a task. Its result is a map:
 *   active_nodes    list of {name, id}: what still ran when it failed or was cancelled
 *   finished_nodes  name -> list of ids      failed_nodes  the same
 * with numbers in place of the lists if there are more than 1,000 nodes, and `pages`: how many
 * sel_client_flow_nodes has; for a flow that failed also `class` and `message`. */
SEL_API SEL_CHECKED int sel_client_run_flow(struct sel_client *client,
                                            const struct sel_client_flow *flow,
                                            struct sel_client_id *ret_id, int64_t timeout_us);
/* What it says of a selective run, for `selective` of a task with SEL_CLIENT_FLOW: to submit many
 * at once. Empty without tasks; freed with sel_client_bytes_free. 0, -EINVAL, -ENOMEM. */
SEL_API SEL_CHECKED int sel_client_make_selective(const struct sel_client_flow *flow,
                                                  struct sel_bytes *ret);
/* Waits until all that was submitted, by any thread, is settled: has reached its level, or was
 * refused. 0, -EAGAIN, -ETIMEDOUT, -ECONNREFUSED. */
SEL_API SEL_CHECKED int sel_client_flush(struct sel_client *client, int64_t timeout_us);
/* The task is no longer wanted. What became of it comes as its result: cancelled, or its end if
 * that was faster. Any id will do, also one of another process. Errors as of submitting. */
SEL_API SEL_CHECKED int sel_client_cancel(struct sel_client *client, const struct sel_client_id *id,
                                          int64_t timeout_us);
/* The result of a task is wanted here that another process submitted, or this one in an earlier
 * life; `tag` and `flags` (SEL_CLIENT_KEEP, SEL_CLIENT_ALL for a flow) as of a task. If no broker
 * knows it, or no longer, it ends as SEL_CLIENT_REFUSED. Errors as of submitting. */
SEL_API SEL_CHECKED int sel_client_watch(struct sel_client *client, const struct sel_client_id *id,
                                         uint64_t tag, uint32_t flags, int64_t timeout_us);

/* ---- results ---- */

enum sel_client_status {
    SEL_CLIENT_OK,        /* payload: the result */
    SEL_CLIENT_FAILED,    /* payload: a map {class, message} */
    SEL_CLIENT_CANCELLED, /* payload: a map {class, message}, or empty */
    SEL_CLIENT_REFUSED,   /* was not run: `code` and payload (plain text) say why */
    SEL_CLIENT_SETTLED,   /* see SEL_CLIENT_TELL_SETTLED; another result will come */
};

/* `code` of SEL_CLIENT_REFUSED, as in proto/PROTOCOL.md, "Errors". */
enum sel_client_code {
    SEL_CLIENT_CODE_MALFORMED = 1,
    SEL_CLIENT_CODE_TOO_LARGE = 4,
    SEL_CLIENT_CODE_UNSUPPORTED = 5,   /* above all a level that the broker does not have */
    SEL_CLIENT_CODE_ILLEGAL = 6,       /* the broker will not have this client at all */
    SEL_CLIENT_CODE_CONFLICT = 8,      /* the idempotency key stands for another task */
    SEL_CLIENT_CODE_UNKNOWN_TASK = 11, /* no such task is known, or no longer */
};

struct sel_client_result {
    struct sel_client_id id;
    uint64_t tag;
    struct sel_bytes payload; /* msgpack unless told otherwise above; lives as long as the batch */
    uint32_t status;          /* enum sel_client_status */
    uint32_t code;
    uint8_t level; /* of durability that it has */
    uint8_t reserved;
    uint16_t try_count; /* tries before the one that it is of */
    uint32_t reserved2;
};

struct sel_client_batch {
    uint32_t count;
    const struct sel_client_result *results;
};

/* Takes results, at least one, in the order in which they came. How many; 0: nothing is there and
 * nothing is outstanding that could come; -EAGAIN, -ETIMEDOUT, -ECHILD. *ret is only set if there
 * are some; it is freed with sel_client_batch_free. */
SEL_API SEL_CHECKED int64_t sel_client_next(struct sel_client *client,
                                            struct sel_client_batch **ret, int64_t timeout_us);
/* The same, but it waits also when nothing is outstanding, for what others may still submit. */
SEL_API SEL_CHECKED int64_t sel_client_listen(struct sel_client *client,
                                              struct sel_client_batch **ret, int64_t timeout_us);
/* The result of one task that was submitted or is watched with SEL_CLIENT_KEEP: a batch of one. It
 * is handed out once. 0; -EAGAIN, -ETIMEDOUT; -ENOENT: no result is kept for the id; -ECHILD. */
SEL_API SEL_CHECKED int sel_client_wait(struct sel_client *client, const struct sel_client_id *id,
                                        struct sel_client_batch **ret, int64_t timeout_us);
/* The result is not wanted any more, whether it came already or not; the task itself goes on. 0 or
 * -ENOENT (one that sel_client_next would have handed out is not looked for once it is here). */
SEL_API int sel_client_forget(struct sel_client *client, const struct sel_client_id *id);
/* NULL is allowed. Works after sel_client_close too. */
SEL_API void sel_client_batch_free(struct sel_client_batch *batch);

/* ---- the nodes of large flows ---- */

/* A connection to the endpoint at which a broker answers questions (its setting `query`), which is
 * another than that of producers. One is enough for any number of flows of that broker; calls of
 * several threads follow each other. */
struct sel_client_asker;

/* Begins to connect. 0; -EINVAL: no endpoint; -ENOMEM; others of the system. `error` as of
 * sel_client_open. */
SEL_API SEL_CHECKED int sel_client_asker_open(const char *endpoint, struct sel_client_asker **ret,
                                              char *error);
/* Nobody may be in another call; what was answered stays. NULL is allowed. */
SEL_API void sel_client_asker_close(struct sel_client_asker *asker);

enum sel_client_node_state {
    SEL_CLIENT_NODE_ACTIVE, /* still ran when the flow failed or was cancelled */
    SEL_CLIENT_NODE_FINISHED,
    SEL_CLIENT_NODE_FAILED,
};

struct sel_client_node {
    struct sel_str name;
    struct sel_str id; /* under which storages have the result; of a sub-flow its own */
    uint32_t state;    /* enum sel_client_node_state */
    uint32_t reserved;
};

struct sel_client_nodes {
    uint32_t page, page_count;
    uint32_t count;
    uint32_t reserved;
    const struct sel_client_node *nodes; /* texts have a terminator, which does not count */
};

/* One page, from 0, of the nodes of a flow that has ended, for as long as the broker keeps its
 * result: at most 1,000. A flow of at most 1,000 nodes, or one whose result says `pages` 0, has a
 * page_count of 0 and none here. *ret is only set if all went well; it is freed with
 * sel_client_nodes_free.
 *
 * 0; -EAGAIN: the flow has not ended; -ENOENT: the broker knows no such flow, or no longer;
 * -EINVAL: there is no such page; -ETIMEDOUT: nobody answered; -EPROTO: what answered is no broker,
 * or one that cannot tell; -ENOMEM; -ECHILD. `error` as above. */
SEL_API SEL_CHECKED int sel_client_flow_nodes(struct sel_client_asker *asker,
                                              const struct sel_client_id *flow, uint32_t page,
                                              int64_t timeout_us, struct sel_client_nodes **ret,
                                              char *error);
/* NULL is allowed. Works after sel_client_asker_close too. */
SEL_API void sel_client_nodes_free(struct sel_client_nodes *nodes);

/* ---- values ---- */

/* One JSON text as msgpack, for `args`; freed with sel_client_bytes_free. 0; -EINVAL: `error` (may
 * be NULL, as of sel_client_open) says where and why; -ENOMEM. */
SEL_API SEL_CHECKED int sel_client_from_json(const char *text, size_t n, struct sel_bytes *ret,
                                             char *error);
/* A msgpack value (empty: null) as JSON text, terminated; the terminator does not count. Bytes are
 * written as base64 text. Errors and freeing as above. */
SEL_API SEL_CHECKED int sel_client_to_json(struct sel_bytes value, struct sel_bytes *ret,
                                           char *error);
SEL_API void sel_client_bytes_free(struct sel_bytes *bytes); /* leaves it empty */

/* ---- numbers ---- */

struct sel_client_stats {
    size_t size;                           /* set by the caller: sizeof(struct sel_client_stats) */
    uint64_t submitted, finished, refused; /* since the client was opened */
    uint64_t deferred;                     /* sent again because a broker had no room */
    uint64_t watched;  /* asked for because a broker had forgotten the session */
    uint64_t sessions; /* with all brokers: more than there are brokers mean interruptions */
    uint64_t unsettled, waiting, results, result_bytes; /* now */
    uint32_t brokers, connected;                        /* now */
};

/* 0, -EINVAL (size), -ECHILD. */
SEL_API int sel_client_get_stats(struct sel_client *client, struct sel_client_stats *stats);

#endif
