/* Plans of selective runs, by the bytes that ask for them. */
#include <string.h>

#include "core/mem.h"
#include "worker/dispatcher_private.h"
#include "worker/flow_codec.h"

#define UNUSED_PLANS_MAX 64u /* kept for flows that ask for the same */

static struct sel_dispatch_plan *plan_free(struct sel_dispatch_plan *plan)
{
    sel_arena_done(&plan->arena);
    sel_buf_done(&plan->for_children);
    return sel_mem_free(plan);
}

void sel_dispatch_plan_unref(struct sel_dispatch_plan *plan)
{
    if (plan)
        plan->refs--;
}

void sel_dispatch_plans_done(struct sel_dispatcher *d)
{
    while (d->plans) {
        struct sel_dispatch_plan *plan = d->plans;
        d->plans = plan->next;
        plan_free(plan);
    }
    d->plan_count = 0;
}

/* The oldest ones that no flow has, at the end of the list. */
static void drop_unused(struct sel_dispatcher *d)
{
    struct sel_dispatch_plan **at = &d->plans;
    uint32_t unused = 0;
    while (*at) {
        struct sel_dispatch_plan *plan = *at;
        if (plan->refs > 0 || ++unused <= UNUSED_PLANS_MAX) {
            at = &plan->next;
            continue;
        }
        *at = plan->next;
        plan_free(plan);
        d->plan_count--;
    }
}

static int from_edge(struct sel_dispatcher *d, const struct sel_flow_selective *selective,
                     struct sel_dispatch_plan *plan, struct sel_error *err)
{
    const struct sel_flow_def *parent = sel_system_find_flow(d->hub.system, selective->flow);
    if (!parent || selective->edge >= parent->edge_count ||
        !parent->edges[selective->edge].selective)
        return sel_error_set(err, SEL_ENOTFOUND, (struct sel_pos){0},
                             "the edge whose 'selective' the flow obeys is not here");
    return sel_plan_cache_get(d->hub.plans, parent, selective->edge, &plan->plan, err);
}

static int from_request(struct sel_dispatcher *d, const struct sel_flow_def *flow,
                        struct sel_flow_selective *selective, struct sel_dispatch_plan *plan,
                        struct sel_error *err)
{
    const struct sel_flow_def *top =
        selective->flow.n ? sel_system_find_flow(d->hub.system, selective->flow) : flow;
    if (!top)
        return sel_error_set(err, SEL_ENOTFOUND, (struct sel_pos){0},
                             "the flow whose selective run this is part of is not here");
    selective->flow = top->name;
    return sel_plan_compute(&plan->arena, d->hub.system, top, &selective->request, &plan->plan,
                            err);
}

static int fill_plan(struct sel_dispatcher *d, const struct sel_flow_def *flow,
                     struct sel_str bytes, struct sel_dispatch_plan *plan, struct sel_error *err)
{
    struct sel_flow_selective selective;
    char *copy = sel_arena_memdup(&plan->arena, bytes.p, bytes.n);
    if (!copy)
        return SEL_ENOMEM;
    plan->bytes = (struct sel_str){copy, bytes.n};
    plan->flow = flow->index;
    int r = sel_flow_take_selective(plan->bytes, &plan->arena, &selective, err);
    if (r == 0 && selective.edge != SEL_NONE)
        r = from_edge(d, &selective, plan, err);
    else if (r == 0)
        r = from_request(d, flow, &selective, plan, err);
    if (r < 0)
        return r;
    sel_flow_put_selective(&selective, &plan->for_children);
    return sel_buf_error(&plan->for_children);
}

/* The first of the list from now on. */
static struct sel_dispatch_plan *find_plan(struct sel_dispatcher *d,
                                           const struct sel_flow_def *flow, struct sel_str bytes)
{
    for (struct sel_dispatch_plan **at = &d->plans; *at; at = &(*at)->next) {
        struct sel_dispatch_plan *plan = *at;
        if (plan->flow != flow->index || !sel_str_eq(plan->bytes, bytes))
            continue;
        *at = plan->next;
        plan->next = d->plans;
        d->plans = plan;
        return plan;
    }
    return NULL;
}

int sel_dispatch_plan_get(struct sel_dispatcher *d, const struct sel_flow_def *flow,
                          struct sel_str bytes, struct sel_dispatch_plan **ret,
                          struct sel_error *err)
{
    struct sel_dispatch_plan *plan = find_plan(d, flow, bytes);
    if (!plan) {
        plan = SEL_NEW(struct sel_dispatch_plan);
        int r = plan ? fill_plan(d, flow, bytes, plan, err) : SEL_ENOMEM;
        if (r < 0) {
            if (plan)
                plan_free(plan);
            return r;
        }
        plan->next = d->plans;
        d->plans = plan;
        d->plan_count++;
        if (d->plan_count > UNUSED_PLANS_MAX)
            drop_unused(d);
    }
    plan->refs++;
    *ret = plan;
    return 0;
}
