/* The nodes of large flows: questions of producers to the endpoint for questions. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include <selinon/client.h>

#include "client/internal.h"
#include "client/query.h"
#include "core/mem.h"
#include "proto/wire.h"

#define ARENA_MAX ((size_t)256 << 20) /* an answer has 4 MiB */
#define FOREVER_US INT64_C(3000000000000000)

struct sel_client_asker {
    pthread_mutex_t lock;
    pid_t pid;
    struct sel_client_query *query;
    char endpoint[256];
};

/* A page, in its own memory. */
struct told {
    struct sel_client_nodes nodes; /* first */
    struct sel_arena arena;
    struct sel_client_node *list;
    uint32_t cap;
};

static void say(char *error, const char *text)
{
    if (!error)
        return;
    size_t n = strnlen(text, SEL_CLIENT_ERROR_SIZE - 1);
    memcpy(error, text, n);
    error[n] = '\0';
}

/* ---- the connection ---- */

int sel_client_asker_open(const char *endpoint, struct sel_client_asker **ret, char *error)
{
    struct sel_client_asker *asker = SEL_NEW(struct sel_client_asker);
    struct sel_error err = {0};
    if (!asker) {
        say(error, sel_client_error_text(-ENOMEM));
        return -ENOMEM;
    }
    int r = sel_client_query_open(endpoint, &asker->query, &err);
    if (r == 0)
        r = -pthread_mutex_init(&asker->lock, NULL);
    if (r < 0) {
        say(error, err.text[0] ? err.text : sel_error_text(r));
        (void)sel_client_query_close(asker->query);
        sel_mem_free(asker);
        return sel_client_errno(r);
    }
    memcpy(asker->endpoint, endpoint, strlen(endpoint) + 1); /* as query.c has taken it */
    asker->pid = getpid();
    *ret = asker;
    return 0;
}

void sel_client_asker_close(struct sel_client_asker *asker)
{
    if (!asker || asker->pid != getpid())
        return;
    (void)sel_client_query_close(asker->query);
    (void)pthread_mutex_destroy(&asker->lock);
    sel_mem_free(asker);
}

/* ---- the answer ---- */

static bool number_in(const struct sel_value *map, const char *key, uint32_t *ret)
{
    const struct sel_value *value = sel_value_get_c(map, key);
    int64_t number;
    if (!value || !sel_value_is(value, SEL_INT) || !sel_value_i64(value, &number) || number < 0 ||
        number > UINT32_MAX)
        return false;
    *ret = (uint32_t)number;
    return true;
}

static int copy_text(struct told *told, const struct sel_value *value, struct sel_str *ret)
{
    if (!value || !sel_value_is(value, SEL_TEXT))
        return SEL_EFORMAT;
    struct sel_str text = sel_value_str(value);
    ret->p = sel_arena_strdup(&told->arena, text); /* terminated */
    ret->n = text.n;
    return ret->p ? 0 : SEL_ENOMEM;
}

static int add(struct told *told, enum sel_client_node_state state, struct sel_str name,
               const struct sel_value *id)
{
    struct sel_client_node node = {.name = name, .state = state};
    int r = copy_text(told, id, &node.id);
    if (r == 0 && !sel_mem_grow(&told->list, &told->cap, (uint64_t)told->nodes.count + 1,
                                sizeof(*told->list)))
        r = SEL_ENOMEM;
    if (r == 0)
        told->list[told->nodes.count++] = node;
    return r;
}

/* A list of {name, id}. */
static int add_active(struct told *told, const struct sel_value *list)
{
    if (!list || !sel_value_is(list, SEL_LIST))
        return SEL_EFORMAT;
    for (uint32_t i = 0; i < sel_value_count(list); i++) {
        const struct sel_value *node = sel_value_at(list, i);
        struct sel_str name;
        if (!sel_value_is(node, SEL_MAP))
            return SEL_EFORMAT;
        int r = copy_text(told, sel_value_get_c(node, "name"), &name);
        if (r == 0)
            r = add(told, SEL_CLIENT_NODE_ACTIVE, name, sel_value_get_c(node, "id"));
        if (r < 0)
            return r;
    }
    return 0;
}

/* A map of lists of ids. */
static int add_ended(struct told *told, enum sel_client_node_state state,
                     const struct sel_value *map)
{
    if (!map || !sel_value_is(map, SEL_MAP))
        return SEL_EFORMAT;
    for (uint32_t i = 0; i < sel_value_count(map); i++) {
        const struct sel_value *ids = sel_value_val_at(map, i);
        struct sel_str name;
        if (!sel_value_is(ids, SEL_LIST))
            return SEL_EFORMAT;
        int r = copy_text(told, sel_value_key_at(map, i), &name);
        for (uint32_t k = 0; r == 0 && k < sel_value_count(ids); k++)
            r = add(told, state, name, sel_value_at(ids, k));
        if (r < 0)
            return r;
    }
    return 0;
}

static int take(struct told *told, const struct sel_value *answer)
{
    if (!sel_value_is(answer, SEL_MAP) || !number_in(answer, "page", &told->nodes.page) ||
        !number_in(answer, "pages", &told->nodes.page_count))
        return SEL_EFORMAT;
    if (told->nodes.page_count == 0)
        return 0;
    int r = add_active(told, sel_value_get_c(answer, "active_nodes"));
    if (r == 0)
        r = add_ended(told, SEL_CLIENT_NODE_FINISHED, sel_value_get_c(answer, "finished_nodes"));
    if (r == 0)
        r = add_ended(told, SEL_CLIENT_NODE_FAILED, sel_value_get_c(answer, "failed_nodes"));
    told->nodes.nodes = told->list;
    return r;
}

void sel_client_nodes_free(struct sel_client_nodes *nodes)
{
    struct told *told = (struct told *)(void *)nodes;
    if (!told)
        return;
    sel_mem_free(told->list);
    sel_arena_done(&told->arena);
    sel_mem_free(told);
}

/* ---- the question ---- */

static int ask(struct sel_client_asker *asker, const struct sel_client_id *flow, uint32_t page,
               int64_t timeout_us, struct sel_arena *arena, struct sel_value *ret,
               struct sel_error *err)
{
    char id[SEL_CLIENT_ID_SIZE];
    struct sel_value_builder map;
    struct sel_value args;
    sel_value_begin_map(&map, arena);
    sel_value_put_c(&map, "id", sel_value_from_c(sel_client_id_format(flow, id)));
    sel_value_put_c(&map, "page", sel_value_from_u64(page));
    int r = sel_value_end(&map, &args);
    if (r < 0)
        return sel_error_set(err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
    if (timeout_us < 0 || timeout_us > FOREVER_US)
        timeout_us = FOREVER_US;
    r = sel_client_query_ask(asker->query, "flow.nodes", &args, timeout_us, arena, ret, err);
    if (r == SEL_ETIMEOUT) /* its text is for people's tools */
        (void)sel_error_set(err, r, (struct sel_pos){0},
                            "no broker answered at %s in time; is that its endpoint for queries?",
                            asker->endpoint);
    return r;
}

static int errno_of(const struct sel_client_asker *asker, int r)
{
    switch (r) {
    case SEL_EREQUEST:
        break;
    case SEL_ETIMEOUT:
        return -ETIMEDOUT;
    case SEL_ENOMEM:
        return -ENOMEM;
    default:
        return r <= SEL_ESYNTAX ? -EPROTO : r;
    }
    switch (sel_client_query_code(asker->query)) {
    case SEL_CODE_UNKNOWN_TASK:
        return -ENOENT;
    case SEL_CODE_ILLEGAL:
        return -EAGAIN;
    case SEL_CODE_MALFORMED:
        return -EINVAL;
    default:
        return -EPROTO;
    }
}

static int tell(struct sel_client_asker *asker, const struct sel_client_id *flow, uint32_t page,
                int64_t timeout_us, struct told *told, char *error)
{
    struct sel_arena arena;
    struct sel_value answer;
    struct sel_error err = {0};
    sel_arena_init(&arena, ARENA_MAX);
    (void)pthread_mutex_lock(&asker->lock);
    int r = ask(asker, flow, page, timeout_us, &arena, &answer, &err);
    if (r == 0 && (r = take(told, &answer)) < 0)
        (void)sel_error_set(&err, r, (struct sel_pos){0}, "the broker's answer: %s",
                            sel_error_text(r));
    if (r < 0) {
        r = errno_of(asker, r);
        say(error, err.text);
    }
    (void)pthread_mutex_unlock(&asker->lock);
    sel_arena_done(&arena);
    return r;
}

int sel_client_flow_nodes(struct sel_client_asker *asker, const struct sel_client_id *flow,
                          uint32_t page, int64_t timeout_us, struct sel_client_nodes **ret,
                          char *error)
{
    if (asker->pid != getpid()) {
        say(error, sel_client_error_text(-ECHILD));
        return -ECHILD;
    }
    struct told *told = SEL_NEW(struct told);
    if (!told) {
        say(error, sel_client_error_text(-ENOMEM));
        return -ENOMEM;
    }
    int r = tell(asker, flow, page, timeout_us, told, error);
    if (r < 0)
        sel_client_nodes_free(&told->nodes);
    else
        *ret = &told->nodes;
    return r;
}
