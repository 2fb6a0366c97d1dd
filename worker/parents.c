#include "worker/parents.h"

#include "core/arena.h"
#include "core/mem.h"

/* ---- ended flows ---- */

struct sel_ended_flow *sel_ended_flow_new(const struct sel_flow_def *flow,
                                          struct sel_state *take_state,
                                          struct sel_ended_flow **take_children)
{
    struct sel_ended_flow *ended = SEL_NEW(struct sel_ended_flow);
    if (!ended)
        return NULL;
    ended->refs = 1;
    ended->flow = flow;
    ended->state = *take_state;
    ended->children = take_children;
    memset(take_state, 0, sizeof(*take_state));
    return ended;
}

struct sel_ended_flow *sel_ended_flow_ref(struct sel_ended_flow *ended)
{
    if (ended)
        ended->refs++;
    return ended;
}

/* Flows nest as deep as users let them recurse: the children of what is freed are put on a list
 * (through their own `children` pointer's place) instead of the stack. */
void sel_ended_flow_unref(struct sel_ended_flow *ended)
{
    if (!ended || --ended->refs > 0)
        return;
    struct sel_ended_flow *todo = ended;
    todo->flow = NULL; /* from now on: the next on the list */
    while (todo) {
        struct sel_ended_flow *dead = todo;
        todo = (struct sel_ended_flow *)(uintptr_t)dead->flow;
        for (uint32_t i = 0; dead->children && i < dead->state.child_count; i++) {
            struct sel_ended_flow *child = dead->children[i];
            if (!child || --child->refs > 0)
                continue;
            child->flow = (const struct sel_flow_def *)(uintptr_t)todo;
            todo = child;
        }
        sel_mem_free(dead->children);
        sel_run_failures_done(&dead->failures);
        sel_state_done(&dead->state);
        sel_mem_free(dead);
    }
}

/* ---- parents ---- */

struct sel_parents *sel_parents_new(uint32_t count, uint32_t failed_count)
{
    struct sel_parents *parents = sel_mem_zalloc(
        sizeof(*parents) + sizeof(struct sel_parent) * ((size_t)count + failed_count));
    if (!parents)
        return NULL;
    parents->refs = 1;
    parents->count = count;
    parents->failed_count = failed_count;
    return parents;
}

struct sel_parents *sel_parents_ref(struct sel_parents *parents)
{
    if (parents)
        parents->refs++;
    return parents;
}

void sel_parents_unref(struct sel_parents *parents)
{
    if (!parents || --parents->refs > 0)
        return;
    for (uint32_t i = 0; i < parents->count + parents->failed_count; i++) {
        sel_mem_free(parents->parents[i].id);
        sel_mem_free(parents->parents[i].error_class);
        sel_mem_free(parents->parents[i].message);
        sel_ended_flow_unref(parents->parents[i].ended);
    }
    sel_mem_free(parents);
}

static char *dup_text(struct sel_str text)
{
    char *copy = sel_mem_alloc(text.n + 1);
    if (copy && text.n)
        memcpy(copy, text.p, text.n);
    if (copy)
        copy[text.n] = '\0';
    return copy;
}

int sel_parents_set_task(struct sel_parents *parents, uint32_t index, struct sel_str name,
                         struct sel_str id)
{
    SEL_ASSERT(index < parents->count + parents->failed_count);
    char *copy = dup_text(id);
    if (!copy)
        return SEL_ENOMEM;
    parents->parents[index].name = name;
    parents->parents[index].id = copy;
    return 0;
}

void sel_parents_set_flow(struct sel_parents *parents, uint32_t index, struct sel_str name,
                          struct sel_ended_flow *ended, bool compound)
{
    SEL_ASSERT(index < parents->count + parents->failed_count);
    parents->parents[index] =
        (struct sel_parent){.name = name, .ended = sel_ended_flow_ref(ended), .compound = compound};
}

int sel_parents_set_failure(struct sel_parents *parents, uint32_t index, const char *error_class,
                            const char *message)
{
    SEL_ASSERT(index < parents->count + parents->failed_count);
    struct sel_parent *parent = &parents->parents[index];
    char *texts[2] = {dup_text(sel_str_c(error_class)), dup_text(sel_str_c(message))};
    if (!texts[0] || !texts[1]) {
        sel_mem_free(texts[0]);
        sel_mem_free(texts[1]);
        return SEL_ENOMEM;
    }
    sel_mem_free(parent->error_class);
    sel_mem_free(parent->message);
    parent->error_class = texts[0];
    parent->message = texts[1];
    return 0;
}

int sel_parents_copy(struct sel_parents *parents, uint32_t index, const struct sel_parent *from)
{
    int r = 0;
    if (from->id)
        r = sel_parents_set_task(parents, index, from->name, sel_str_c(from->id));
    else
        sel_parents_set_flow(parents, index, from->name, from->ended, from->compound);
    if (r == 0 && from->error_class)
        r = sel_parents_set_failure(parents, index, from->error_class, from->message);
    return r;
}

int sel_parents_part(struct sel_parents *parents, bool finished, bool failed,
                     struct sel_parents **ret)
{
    *ret = NULL;
    if (!parents || (!finished && !failed))
        return 0;
    if ((finished || parents->count == 0) && (failed || parents->failed_count == 0)) {
        *ret = sel_parents_ref(parents);
        return 0;
    }
    struct sel_parents *part =
        sel_parents_new(finished ? parents->count : 0, failed ? parents->failed_count : 0);
    int r = part ? 0 : SEL_ENOMEM;
    uint32_t from = finished ? 0 : parents->count;
    for (uint32_t i = 0; r == 0 && i < part->count + part->failed_count; i++)
        r = sel_parents_copy(part, i, &parents->parents[from + i]);
    if (r < 0) {
        sel_parents_unref(part);
        return r;
    }
    *ret = part;
    return 0;
}

/* ---- what they failed with ---- */

#define DEPTH_MAX 400 /* flows in flows: stacks of coroutines are small */

struct wanted {
    struct sel_id flow;
    uint32_t attempt, ordinal;
};

static bool find_in_flow(const struct sel_ended_flow *ended, const struct wanted *wanted,
                         uint32_t depth, const char **ret_class, const char **ret_message)
{
    if (sel_id_eq(ended->state.id, wanted->flow))
        return ended->state.attempt == wanted->attempt &&
               sel_run_failures_find(&ended->failures, wanted->ordinal, ret_class, ret_message);
    for (uint32_t i = 0; ended->children && depth < DEPTH_MAX && i < ended->state.child_count;
         i++) {
        if (ended->children[i] &&
            find_in_flow(ended->children[i], wanted, depth + 1, ret_class, ret_message))
            return true;
    }
    return false;
}

bool sel_parents_find_failure(const struct sel_parents *parents, struct sel_str id,
                              const char **ret_class, const char **ret_message)
{
    struct wanted wanted;
    bool is_run = sel_id_parse_run(id, &wanted.flow, &wanted.attempt, &wanted.ordinal);
    for (uint32_t i = 0; parents && i < parents->failed_count; i++) {
        const struct sel_parent *parent = &parents->parents[parents->count + i];
        if (parent->id && parent->error_class && sel_str_eq_c(id, parent->id)) {
            *ret_class = parent->error_class;
            *ret_message = parent->message;
            return true;
        }
        if (is_run && parent->ended &&
            find_in_flow(parent->ended, &wanted, 0, ret_class, ret_message))
            return true;
    }
    return false;
}

/* ---- as a value ---- */

/* A map under construction: names of tasks with lists of ids, names of flows with maps. */
struct tree {
    struct sel_str name;
    bool is_flow;
    struct tree *first, *last, *next; /* members, in order of appearance */
    struct sel_value_builder ids;
};

struct tree_context {
    const struct sel_system *system;
    struct sel_arena *arena;
    bool failed;
};

static struct tree *tree_member(struct tree_context *c, struct tree *tree, struct sel_str name,
                                bool is_flow)
{
    for (struct tree *t = tree->first; t; t = t->next) {
        if (t->is_flow == is_flow && sel_str_eq(t->name, name))
            return t;
    }
    struct tree *member = SEL_ARENA_NEW(c->arena, struct tree);
    if (!member)
        return NULL;
    member->name = name;
    member->is_flow = is_flow;
    sel_value_begin_list(&member->ids, c->arena);
    if (tree->last)
        tree->last->next = member;
    else
        tree->first = member;
    tree->last = member;
    return member;
}

static bool is_wanted(const struct sel_state *state, uint32_t ordinal, bool failed)
{
    enum sel_run_status status = sel_state_run_status(state, ordinal);
    return failed ? status == SEL_RUN_FAILED : status == SEL_RUN_FINISHED;
}

static int add_run(struct tree_context *c, struct tree *tree, const struct sel_ended_flow *ended,
                   uint32_t ordinal, struct sel_str name)
{
    char text[SEL_RUN_ID_TEXT_SIZE];
    struct sel_str id = sel_state_run_id(&ended->state, ordinal, text);
    struct tree *member = tree_member(c, tree, name, false);
    char *copy = sel_arena_strdup(c->arena, id);
    if (!member || !copy)
        return SEL_ENOMEM;
    sel_value_add(&member->ids, sel_value_from_str((struct sel_str){copy, id.n}));
    return 0;
}

/* Adds the runs of an ended flow. Depth is that of flows in flows. */
static int add_flow(struct tree_context *c, struct tree *tree, const struct sel_ended_flow *ended,
                    bool compound, uint32_t depth)
{
    const struct sel_state *state = &ended->state;
    uint32_t child = 0;
    for (uint32_t i = 0; i < state->run_count; i++) {
        bool is_child = child < state->child_count && state->children[child].ordinal == i;
        uint32_t own_child = child;
        child += is_child;
        if (!is_wanted(state, i, c->failed))
            continue;
        struct sel_str name =
            sel_system_node_name(c->system, ended->flow->nodes[sel_state_run_slot(state, i)].node);
        if (!is_child) {
            int r = add_run(c, tree, ended, i, name);
            if (r < 0)
                return r;
            continue;
        }
        struct sel_ended_flow *below = ended->children ? ended->children[own_child] : NULL;
        if (!below)
            continue;
        if (depth >= DEPTH_MAX)
            return SEL_ELIMIT;
        struct tree *branch = compound ? tree : tree_member(c, tree, name, true);
        int r = branch ? add_flow(c, branch, below, compound, depth + 1) : SEL_ENOMEM;
        if (r < 0)
            return r;
    }
    return 0;
}

static int tree_to_value(struct tree_context *c, struct tree *tree, struct sel_value *ret)
{
    struct sel_value_builder map;
    sel_value_begin_map(&map, c->arena);
    for (struct tree *t = tree->first; t; t = t->next) {
        struct sel_value value;
        int r = t->is_flow ? tree_to_value(c, t, &value) : sel_value_end(&t->ids, &value);
        if (r < 0)
            return r;
        /* a branch without tasks, however deep, is left out: it has no ids to offer */
        if (!t->is_flow || sel_value_count(&value) > 0)
            sel_value_put(&map, t->name, value);
    }
    return sel_value_end(&map, ret);
}

int sel_parents_to_value(const struct sel_system *system, const struct sel_parents *parents,
                         bool failed, struct sel_arena *arena, struct sel_value *ret)
{
    struct tree_context c = {system, arena, failed};
    struct sel_value_builder map;
    sel_value_begin_map(&map, arena);
    uint32_t first = parents && failed ? parents->count : 0;
    uint32_t count = !parents ? 0 : failed ? parents->failed_count : parents->count;
    for (uint32_t i = first; i < first + count; i++) {
        const struct sel_parent *p = &parents->parents[i];
        if (p->id) {
            sel_value_put(&map, p->name, sel_value_from_str(sel_str_c(p->id)));
            continue;
        }
        struct tree tree = {0};
        struct sel_value value;
        int r = add_flow(&c, &tree, p->ended, p->compound, 0);
        if (r == 0)
            r = tree_to_value(&c, &tree, &value);
        if (r < 0)
            return r;
        if (sel_value_count(&value) > 0)
            sel_value_put(&map, p->name, value);
    }
    return sel_value_end(&map, ret);
}
