#include "worker/mock.h"

#include "core/arena.h"
#include "core/buf.h"
#include "core/json.h"
#include "core/mem.h"
#include "worker/config.h"
#include "worker/mock_state.h"

enum step_kind { STEP_RESULT, STEP_RAISE, STEP_FATAL, STEP_RETRY };

struct step {
    enum step_kind kind;
    struct sel_str result;   /* encoded */
    const char *error_class; /* STEP_RAISE */
    double retry_s;
};

struct script {
    struct step *steps;
    uint32_t count; /* 0: always null */
    uint32_t next;  /* executions so far; atomic */
};

struct sel_mock {
    struct sel_arena arena;
    struct script *scripts; /* by task */
    const struct sel_system *system;
    const struct sel_value *functions; /* map or NULL */
    struct sel_mock_state *state;      /* NULL: counts of its own */
};

/* ---- reading the script ---- */

static int bad(struct sel_error *err, const char *where, const char *what)
{
    return sel_error_set(err, SEL_EREQUEST, (struct sel_pos){0}, "mock: %s: %s", where, what);
}

static int read_step(struct sel_mock *mock, const struct sel_value *v, const char *where,
                     struct step *step, struct sel_error *err)
{
    const struct sel_value *member;
    static const char expected[] = "a step is one of {\"result\": ...}, {\"raise\": \"Class\"}, "
                                   "{\"fatal\": true}, {\"retry\": seconds}";
    if (!sel_value_is(v, SEL_MAP) || sel_value_count(v) != 1)
        return bad(err, where, expected);
    if ((member = sel_value_get_c(v, "result"))) {
        struct sel_buf bytes = {0};
        sel_value_encode(member, &bytes);
        void *copy = bytes.failed ? NULL : sel_arena_memdup(&mock->arena, bytes.p, bytes.n);
        *step = (struct step){.kind = STEP_RESULT, .result = {copy, bytes.n}};
        sel_buf_done(&bytes);
        return copy ? 0 : bad(err, where, "out of memory");
    }
    if ((member = sel_value_get_c(v, "raise")) && sel_value_is(member, SEL_TEXT)) {
        step->kind = STEP_RAISE;
        step->error_class = sel_arena_strdup(&mock->arena, sel_value_str(member));
        return step->error_class ? 0 : bad(err, where, "out of memory");
    }
    if ((member = sel_value_get_c(v, "fatal")) && sel_value_is_true(member)) {
        step->kind = STEP_FATAL;
        return 0;
    }
    member = sel_value_get_c(v, "retry");
    if (!sel_value_is(member, SEL_INT) && !sel_value_is(member, SEL_FLOAT))
        return bad(err, where, expected);
    *step = (struct step){.kind = STEP_RETRY, .retry_s = sel_value_num(member)};
    return step->retry_s >= 0 ? 0 : bad(err, where, "retry: the seconds are negative");
}

static int read_steps(struct sel_mock *mock, const struct sel_value *v, const char *where,
                      struct script *script, struct sel_error *err)
{
    if (!sel_value_is(v, SEL_LIST) || sel_value_count(v) == 0)
        return bad(err, where, "expected a list of at least one step");
    script->count = sel_value_count(v);
    script->steps = SEL_ARENA_NEW_ARRAY(&mock->arena, struct step, script->count);
    int r = script->steps ? 0 : bad(err, where, "out of memory");
    for (uint32_t i = 0; i < script->count && r == 0; i++)
        r = read_step(mock, sel_value_at(v, i), where, &script->steps[i], err);
    return r;
}

/* Names that the configuration does not have are left alone: a script may serve several. */
static int read_map(struct sel_mock *mock, const struct sel_value *map, bool by_class,
                    struct sel_error *err)
{
    const struct sel_system *s = mock->system;
    for (uint32_t i = 0; i < sel_value_count(map); i++) {
        struct sel_str key = sel_value_str(sel_value_key_at(map, i));
        const char *where = sel_arena_printf(&mock->arena, "%s '%.*s'", by_class ? "class" : "task",
                                             SEL_STR_ARG(key));
        for (uint32_t t = 0; where && t < s->task_count; t++) {
            struct sel_str name = by_class ? s->tasks[t].import.name : s->tasks[t].name;
            if (!sel_str_eq(name, key) || (by_class && mock->scripts[t].count > 0))
                continue;
            int r = read_steps(mock, sel_value_val_at(map, i), where, &mock->scripts[t], err);
            if (r < 0)
                return r;
        }
        if (!where)
            return bad(err, "tasks", "out of memory");
    }
    return 0;
}

static int read_script(struct sel_mock *mock, const struct sel_value *script, struct sel_error *err)
{
    static const char *const members[] = {"tasks", "classes", "functions"};
    if (!sel_value_is(script, SEL_MAP))
        return bad(err, "the script", "expected an object with tasks, classes, functions");
    for (size_t i = 0; i < SEL_COUNT(members); i++) {
        const struct sel_value *map = sel_value_get_c(script, members[i]);
        if (map && !sel_value_is(map, SEL_MAP) && !sel_value_is(map, SEL_NULL))
            return bad(err, members[i], "expected an object");
        int r = map && sel_value_is(map, SEL_MAP) && i < 2 ? read_map(mock, map, i == 1, err) : 0;
        if (r < 0)
            return r;
    }
    const struct sel_value *functions = sel_value_get_c(script, "functions");
    mock->functions = sel_value_is(functions, SEL_MAP) ? functions : NULL;
    return 0;
}

int sel_mock_new(const struct sel_system *system, const struct sel_value *script,
                 struct sel_mock **ret, struct sel_error *err)
{
    struct sel_mock *mock = SEL_NEW(struct sel_mock);
    if (!mock)
        return bad(err, "the script", "out of memory");
    mock->system = system;
    mock->scripts = SEL_ARENA_NEW_ARRAY(&mock->arena, struct script, system->task_count + 1);
    int r = mock->scripts ? read_script(mock, script, err) : bad(err, "tasks", "out of memory");
    if (r < 0) {
        sel_mock_free(mock);
        return r;
    }
    *ret = mock;
    return 0;
}

struct sel_mock *sel_mock_free(struct sel_mock *mock)
{
    if (mock) {
        sel_arena_done(&mock->arena);
        sel_mem_free(mock);
    }
    return NULL;
}

int sel_mock_load(const struct sel_system *system, const char *path, struct sel_arena *arena,
                  struct sel_mock **ret, struct sel_error *err)
{
    struct sel_value *whole = SEL_ARENA_NEW(arena, struct sel_value);
    struct sel_error own = {0};
    struct sel_str text;
    if (!whole)
        return bad(err, "the script", "out of memory");
    int r = sel_config_read_file(arena, path, &text, err);
    if (r == 0)
        r = sel_json_parse(arena, path, text, whole, NULL, err);
    if (r < 0)
        return r;
    const struct sel_value *script = sel_value_get_c(whole, "mock");
    r = sel_mock_new(system, script ? script : whole, ret, &own);
    return r < 0 ? sel_error_set(err, r, (struct sel_pos){path, 0, 0}, "%s", own.text) : 0;
}

void sel_mock_share(struct sel_mock *mock, struct sel_mock_state *state)
{
    mock->state = state;
}

/* ---- tasks ---- */

static int mock_prepare(void *self, const struct sel_task_def *task, void **ret_code,
                        struct sel_error *err)
{
    struct sel_mock *mock = self;
    (void)err;
    *ret_code = &mock->scripts[task - mock->system->tasks];
    return 0;
}

/* Which execution of its task this is, from 0. */
static int count(struct sel_mock *mock, struct script *script, const struct sel_task *task,
                 uint32_t *ret)
{
    if (!mock->state) {
        *ret = __atomic_fetch_add(&script->next, 1, __ATOMIC_RELAXED);
        return 0;
    }
    const struct sel_task_env *env = sel_task_get_env(task);
    return sel_mock_state_count(mock->state, env->task->name, env->task_id, env->try_count, ret);
}

static void mock_run(void *self, void *code, struct sel_task *task, struct sel_exec_result *ret)
{
    static const struct sel_str null = {(const char *)sel_value_null_bytes, 1};
    struct script *script = code;
    uint32_t n = 0;
    *ret = (struct sel_exec_result){
        .value = null, .error_class = "", .error_message = "", .retry_s = -1};
    if (script->count == 0)
        return;
    int r = count(self, script, task, &n);
    if (r < 0) {
        ret->outcome = SEL_EXEC_FATAL;
        ret->error_class = "MockStateError";
        ret->error_message = sel_error_text(r);
        return;
    }
    const struct step *step = &script->steps[n < script->count ? n : script->count - 1];
    switch (step->kind) {
    case STEP_RESULT:
        ret->value = step->result;
        break;
    case STEP_RAISE:
        ret->outcome = SEL_EXEC_FAILURE;
        ret->error_class = step->error_class;
        ret->error_message = "as the mock says";
        break;
    case STEP_FATAL:
        ret->outcome = SEL_EXEC_FATAL;
        ret->error_class = "FatalTaskError";
        ret->error_message = "as the mock says";
        break;
    case STEP_RETRY:
        ret->outcome = SEL_EXEC_RETRY;
        ret->error_class = "Retry";
        ret->error_message = "as the mock says";
        ret->retry_s = step->retry_s;
        break;
    }
}

const struct sel_runtime_ops sel_runtime_mock = {.prepare = mock_prepare, .run = mock_run};

/* ---- functions ---- */

/* args["a"]["b"] for {"args_key": ["a", "b"]}, null where that cannot be reached. */
static const struct sel_value *follow(const struct sel_value *args, const struct sel_value *keys)
{
    for (uint32_t i = 0; i < sel_value_count(keys) && args; i++) {
        const struct sel_value *key = sel_value_at(keys, i);
        args = sel_value_is(key, SEL_TEXT) ? sel_value_get(args, sel_value_str(key)) : NULL;
    }
    return args ? args : &sel_value_null;
}

int sel_mock_function(struct sel_mock *mock, const struct sel_import *import,
                      const struct sel_value *node_args, struct sel_arena *arena,
                      struct sel_value *ret, struct sel_error *err)
{
    const char *name = sel_arena_printf(arena, "%.*s:%.*s", SEL_STR_ARG(import->module),
                                        SEL_STR_ARG(import->name));
    if (!name)
        return SEL_ENOMEM;
    const struct sel_value *function = sel_value_get_c(mock->functions, name);
    const struct sel_value *member;
    if (!function)
        return sel_error_set(err, SEL_ENOTFOUND, import->pos,
                             "mock: functions has no '%s': add \"%s\": {\"return\": ...}", name,
                             name);
    if ((member = sel_value_get_c(function, "return")))
        return sel_value_copy(arena, member, ret);
    member = sel_value_get_c(function, "args_key");
    if (!sel_value_is(member, SEL_LIST))
        return bad(err, name, "a function is {\"return\": ...} or {\"args_key\": [\"a\", \"b\"]}");
    return sel_value_copy(arena, follow(node_args, member), ret);
}
