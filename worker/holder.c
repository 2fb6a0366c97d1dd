#include "worker/holder.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "core/assert.h"
#include "core/mem.h"
#include "core/value.h"
#include "worker/holder_private.h"

#define PLACES_MIN 2048u
#define FRAMES_OWED 64u /* ends that are tried again in a turn */

/* ---- lists ---- */

static void list_add(struct sel_held_list *list, struct sel_held_task *task)
{
    task->next = NULL;
    task->prev = list->last;
    if (list->last)
        list->last->next = task;
    else
        list->first = task;
    list->last = task;
    list->count++;
}

static void list_remove(struct sel_held_list *list, struct sel_held_task *task)
{
    if (task->prev)
        task->prev->next = task->next;
    else
        list->first = task->next;
    if (task->next)
        task->next->prev = task->prev;
    else
        list->last = task->prev;
    SEL_ASSERT(list->count > 0);
    list->count--;
}

static struct sel_held_list *list_of(struct sel_holder *h, const struct sel_held_task *task)
{
    switch ((enum sel_held_state)task->state) {
    case SEL_HELD_WAITING:
        return &h->waiting;
    case SEL_HELD_RUNNING:
        return &h->running;
    case SEL_HELD_ENDED:
        break;
    }
    return task->done_number && !task->is_again ? &h->ended : &h->owing;
}

/* ---- the table of what is held ---- */

/* Ids come from producers, who must not be able to choose a crowd: hence the secret factors. */
static uint32_t hash_of(const struct sel_holder *h, struct sel_id id)
{
    uint64_t x = id.hi * h->hash_factors[0] + id.lo;
    x ^= x >> 32;
    x *= h->hash_factors[1];
    return (uint32_t)(x >> 32);
}

static struct sel_held_task *task_at(const struct sel_holder *h, uint32_t index)
{
    return &h->chunks[(index - 1) / SEL_HELD_CHUNK_TASKS]
                ->tasks[(index - 1) % SEL_HELD_CHUNK_TASKS];
}

static uint32_t after(const struct sel_holder *h, uint32_t at)
{
    return (at + 1) & (h->place_count - 1);
}

static void table_put(struct sel_holder *h, struct sel_held_place place)
{
    uint32_t at = place.hash & (h->place_count - 1);
    while (h->places[at].index)
        at = after(h, at);
    h->places[at] = place;
}

static bool table_grow(struct sel_holder *h)
{
    uint32_t old_count = h->place_count;
    struct sel_held_place *old = h->places;
    struct sel_held_place *places = sel_mem_zalloc(sizeof(*places) * old_count * 2);
    if (!places)
        return false;
    h->places = places;
    h->place_count = old_count * 2;
    for (uint32_t i = 0; i < old_count; i++) {
        if (old[i].index)
            table_put(h, old[i]);
    }
    sel_mem_free(old);
    return true;
}

/* Its place, which is there, becomes empty. What stands behind moves up, so that none is lost
 * behind the gap. */
static void table_remove(struct sel_holder *h, const struct sel_held_task *task)
{
    uint32_t mask = h->place_count - 1, gap = hash_of(h, task->id) & mask;
    while (h->places[gap].index != task->index)
        gap = after(h, gap);
    for (uint32_t at = after(h, gap); h->places[at].index; at = after(h, at)) {
        if (((at - h->places[at].hash) & mask) < ((at - gap) & mask))
            continue; /* it would come before its home */
        h->places[gap] = h->places[at];
        gap = at;
    }
    h->places[gap].index = 0;
    h->held_count--;
}

static struct sel_held_task *find_try(const struct sel_holder *h, struct sel_id id,
                                      uint16_t try_count)
{
    uint32_t hash = hash_of(h, id);
    for (uint32_t at = hash & (h->place_count - 1); h->places[at].index; at = after(h, at)) {
        if (h->places[at].hash != hash)
            continue;
        struct sel_held_task *task = task_at(h, h->places[at].index);
        if (sel_id_eq(task->id, id) && task->try_count == try_count)
            return task;
    }
    return NULL;
}

/* What a CANCEL means: the delivery that it names. */
static struct sel_held_task *find_delivery(const struct sel_holder *h,
                                           const struct sel_wire_item *item)
{
    uint32_t hash = hash_of(h, item->id);
    for (uint32_t at = hash & (h->place_count - 1); h->places[at].index; at = after(h, at)) {
        if (h->places[at].hash != hash)
            continue;
        struct sel_held_task *task = task_at(h, h->places[at].index);
        if (sel_id_eq(task->id, item->id) && task->handle == item->handle &&
            task->delivery == item->delivery)
            return task;
    }
    return NULL;
}

/* ---- tasks and their memory ---- */

static bool add_chunk(struct sel_holder *h)
{
    if (!sel_mem_grow(&h->chunks, &h->chunk_cap, (uint64_t)h->chunk_count + 1, sizeof(*h->chunks)))
        return false;
    struct sel_held_chunk *chunk = sel_mem_alloc(sizeof(*chunk));
    if (!chunk)
        return false;
    for (uint32_t i = SEL_HELD_CHUNK_TASKS; i-- > 0;) {
        chunk->tasks[i].index = h->chunk_count * SEL_HELD_CHUNK_TASKS + i + 1;
        chunk->tasks[i].next = h->free;
        h->free = &chunk->tasks[i];
    }
    h->chunks[h->chunk_count++] = chunk;
    return true;
}

/* Room for one more in the table. */
static bool has_place(struct sel_holder *h)
{
    return h->held_count < h->place_count / 2 || table_grow(h);
}

/* Copies the record, which lies in a frame. */
static bool keep_record(struct sel_holder *h, struct sel_held_task *task, struct sel_str raw)
{
    task->is_kept_inside = raw.n <= SEL_HELD_INLINE_MAX;
    char *copy = task->is_kept_inside ? task->inside : sel_pool_alloc(&h->bytes, raw.n);
    if (!copy)
        return false;
    memcpy(copy, raw.p, raw.n);
    task->record = (struct sel_str){copy, raw.n};
    return true;
}

static void release_record(struct sel_holder *h, struct sel_held_task *task)
{
    h->freed_bytes += task->record.n;
    if (!task->is_kept_inside)
        sel_pool_free(&h->bytes, (char *)(uintptr_t)task->record.p, task->record.n);
    task->record = (struct sel_str){0};
}

/* NULL: out of memory. */
static struct sel_held_task *new_task(struct sel_holder *h, const struct sel_wire_item *item)
{
    if ((!h->free && !add_chunk(h)) || !has_place(h))
        return NULL;
    struct sel_held_task *task = h->free;
    struct sel_held_task *next_free = task->next;
    uint32_t index = task->index;
    memset(task, 0, offsetof(struct sel_held_task, inside)); /* the rest when it is needed */
    task->index = index;
    if (!keep_record(h, task, item->raw)) {
        task->next = next_free;
        return NULL;
    }
    task->id = item->id;
    task->handle = item->handle;
    task->try_count = item->try_count;
    task->delivery = item->delivery;
    task->state = SEL_HELD_WAITING;
    task->is_run = sel_wire_find_field(item->fields, SEL_FIELD_RUN).n > 0;
    h->free = next_free;
    table_put(h, (struct sel_held_place){hash_of(h, task->id), index});
    h->held_count++;
    return task;
}

/* It is in no list any more. */
static void free_task(struct sel_holder *h, struct sel_held_task *task)
{
    if (task->record.p)
        release_record(h, task);
    table_remove(h, task);
    task->next = h->free;
    h->free = task;
}

void sel_holder_say(const struct sel_holder *h, const char *text)
{
    if (h->options.ops && h->options.ops->log)
        h->options.ops->log(h->options.ctx, text);
}

/* ---- ends ---- */

static struct sel_str cut(struct sel_str text, size_t max)
{
    return text.n <= max
               ? text
               : (struct sel_str){text.p, sel_str_utf8_prefix((struct sel_str){text.p, max})};
}

static struct sel_wire_item end_of(const struct sel_held_task *task, uint8_t type, uint32_t code)
{
    return (struct sel_wire_item){.type = type,
                                  .id = task->id,
                                  .priority = SEL_WIRE_PRIORITY,
                                  .code = code,
                                  .handle = task->handle,
                                  .try_count = task->try_count,
                                  .delivery = task->delivery};
}

size_t sel_holder_record_max(const struct sel_holder *h)
{
    return h->peer.welcome.record_max ? h->peer.welcome.record_max : SEL_WIRE_RECORD_MAX;
}

/* From now on the end of a task is on its way, or owed if `number` is 0. */
static void enter_ended(struct sel_holder *h, struct sel_held_task *task, uint8_t type,
                        uint32_t code, uint64_t number)
{
    list_remove(list_of(h, task), task);
    if (task->record.p)
        release_record(h, task);
    task->state = SEL_HELD_ENDED;
    task->end_type = type;
    task->end_code = code;
    task->done_number = number;
    task->is_again = false;
    list_add(list_of(h, task), task);
}

static int put_end(struct sel_holder *h, struct sel_held_task *task,
                   const struct sel_wire_item *item)
{
    uint64_t number;
    size_t size = sel_wire_item_size(item);
    if (size == 0 || size > sel_holder_record_max(h))
        return SEL_ERANGE;
    if (h->ended.count >= SEL_HOLDER_UNSETTLED_MAX)
        return SEL_ELIMIT;
    int r = sel_peer_put(&h->peer, item, &number);
    if (r == 0)
        enter_ended(h, task, item->type, item->code, number);
    return r;
}

static void owe_end(struct sel_holder *h, struct sel_held_task *task, uint8_t type, uint32_t code,
                    const char *error_class)
{
    task->end_class = error_class;
    enter_ended(h, task, type, code, 0);
}

int sel_holder_end(struct sel_holder *h, struct sel_held_task *task, uint32_t code,
                   int64_t countdown_us, struct sel_str payload)
{
    SEL_ASSERT(task->state == SEL_HELD_RUNNING);
    struct sel_wire_item item = end_of(task, SEL_RECORD_DONE, code);
    if (code == SEL_OUTCOME_CANCELLED) {
        item = end_of(task, SEL_RECORD_CANCELLED, task->cancel_code);
        if (put_end(h, task, &item) == 0)
            h->stats.cancelled++;
        else
            owe_end(h, task, SEL_RECORD_CANCELLED, task->cancel_code, NULL);
        return 0;
    }
    item.payload = payload;
    if (code == SEL_OUTCOME_RETRY && countdown_us > 0)
        item.countdown_us = (uint64_t)countdown_us;
    if (code == SEL_OUTCOME_RETRY && task->is_uncounted)
        item.flags = SEL_ITEM_UNCOUNTED;
    int r = put_end(h, task, &item);
    if (r == 0)
        h->stats.done++;
    return r;
}

int sel_holder_return(struct sel_holder *h, struct sel_held_task *task, uint32_t code,
                      struct sel_str text)
{
    SEL_ASSERT(task->state != SEL_HELD_ENDED);
    struct sel_wire_item item = end_of(task, SEL_RECORD_RETURN, code);
    item.payload = cut(text, SEL_HOLDER_TEXT_MAX);
    if (put_end(h, task, &item) == 0)
        h->stats.returned++;
    else
        owe_end(h, task, SEL_RECORD_RETURN, code, NULL);
    return 0;
}

/* ---- ends that the holder itself decides; they wait for room here ---- */

void sel_holder_put_failure(struct sel_buf *buf, struct sel_str error_class, struct sel_str message)
{
    static const char *const keys[] = {"class", "message"};
    struct sel_value items[4] = {sel_value_from_c(keys[0]), sel_value_from_str(error_class),
                                 sel_value_from_c(keys[1]), sel_value_from_str(message)};
    struct sel_value_builder builder = {.items = items, .count = 4, .cap = 4, .is_map = true};
    struct sel_value map;
    if (sel_value_end(&builder, &map) < 0) {
        buf->failed = true;
        return;
    }
    sel_value_encode(&map, buf);
}

static const char *failure_text(const char *error_class)
{
    return strcmp(error_class, "ProtocolError") == 0
               ? "the task's record cannot be read by the worker"
               : "the broker did not take the end of the task";
}

/* The DONE of a task that came again, from the copy that is kept for the broker. 0; SEL_ELIMIT or
 * SEL_ENOMEM; SEL_ENOTFOUND: it is settled, and kept no more. */
static int put_again(struct sel_holder *h, struct sel_held_task *task, uint64_t *ret)
{
    const struct sel_outbox *out = &h->peer.session.out;
    if (task->done_number <= out->settled)
        return SEL_ENOTFOUND;
    struct sel_str records = {(const char *)out->p + out->head, out->end - out->head};
    struct sel_wire_item item;
    sel_wire_skip(&records, (uint32_t)(task->done_number - out->settled - 1));
    if (sel_wire_next(&records, &item, NULL) != 1)
        return SEL_ENOTFOUND;
    if (!sel_session_has_room(&h->peer.session, item.raw.n))
        return SEL_ELIMIT;
    /* Putting moves what it points to. */
    size_t size = item.payload.n;
    char *copy = size ? sel_pool_alloc(&h->bytes, size) : NULL;
    if (size && !copy)
        return SEL_ENOMEM;
    if (size)
        memcpy(copy, item.payload.p, size);
    item.payload.p = copy;
    item.fields = (struct sel_str){0};
    item.handle = task->handle;
    item.delivery = task->delivery;
    int r = sel_peer_put(&h->peer, &item, ret);
    sel_pool_free(&h->bytes, copy, size);
    return r;
}

static int put_own_end(struct sel_holder *h, struct sel_held_task *task, uint64_t *ret)
{
    struct sel_wire_item item = end_of(task, task->end_type, task->end_code);
    struct sel_buf payload = {0};
    if (task->end_class) {
        sel_holder_put_failure(&payload, sel_str_c(task->end_class),
                               sel_str_c(failure_text(task->end_class)));
        item.payload = sel_buf_str(&payload);
    }
    int r = sel_buf_error(&payload);
    if (r == 0)
        r = sel_peer_put(&h->peer, &item, ret);
    sel_buf_done(&payload);
    return r;
}

static void count_end(struct sel_holder *h, uint8_t type)
{
    if (type == SEL_RECORD_RETURN)
        h->stats.returned++;
    else if (type == SEL_RECORD_CANCELLED)
        h->stats.cancelled++;
    else
        h->stats.done++;
}

/* false: no room. */
static bool pay_end(struct sel_holder *h, struct sel_held_task *task)
{
    uint64_t number = 0;
    int r = task->is_again ? put_again(h, task, &number) : put_own_end(h, task, &number);
    if (r == SEL_ENOTFOUND) {
        /* The broker has settled the end and wants the try again: it did not know the task then.
         * There is nothing to be said anew, so whoever gets it next begins it. */
        task->is_again = false;
        task->done_number = 0;
        task->end_type = SEL_RECORD_RETURN;
        task->end_code = SEL_RETURN_NOT_BEGUN;
        task->end_class = NULL;
        r = put_own_end(h, task, &number);
    }
    if (r < 0)
        return false;
    if (!task->is_again)
        count_end(h, task->end_type);
    enter_ended(h, task, task->end_type, task->end_code, number);
    return true;
}

static bool tell_unwanted(struct sel_holder *h)
{
    uint64_t number;
    while (h->is_draining && h->wants_told < h->options.peer.queue_count) {
        struct sel_wire_item want = {.type = SEL_RECORD_WANT,
                                     .queue = (uint16_t)(h->wants_told + 1),
                                     .priority = SEL_WIRE_PRIORITY};
        if (sel_peer_put(&h->peer, &want, &number) < 0)
            return false;
        h->wants_told++;
    }
    return true;
}

static void pay(struct sel_holder *h)
{
    if (!tell_unwanted(h))
        return;
    for (uint32_t i = 0; i < FRAMES_OWED && h->owing.first; i++) {
        if (!pay_end(h, h->owing.first))
            return;
    }
}

/* ---- records of the broker ---- */

/* The same try again, under a new delivery: what we have of it is what the broker gets. */
static void take_again(struct sel_holder *h, struct sel_held_task *task,
                       const struct sel_wire_item *item)
{
    h->stats.redelivered++;
    task->handle = item->handle;
    task->delivery = item->delivery;
    if (task->state != SEL_HELD_ENDED || !task->done_number || task->is_again)
        return; /* its end will carry the new ones */
    list_remove(&h->ended, task);
    task->is_again = task->end_type == SEL_RECORD_DONE;
    if (!task->is_again)
        task->done_number = 0; /* RETURN and CANCELLED have nothing to be copied */
    list_add(&h->owing, task);
}

/* We gave it back, the broker has heard that, as it delivers anew, and `settled` is on its way. */
static bool was_given_back(const struct sel_held_task *task, const struct sel_wire_item *item)
{
    return task->state == SEL_HELD_ENDED && task->done_number &&
           task->end_type != SEL_RECORD_DONE && task->delivery != item->delivery;
}

static void take_task(struct sel_holder *h, const struct sel_wire_item *item, int error)
{
    struct sel_held_task *task = find_try(h, item->id, item->try_count);
    if (task && was_given_back(task, item)) {
        list_remove(&h->ended, task);
        free_task(h, task);
        task = NULL;
    }
    if (task) {
        h->freed_bytes += item->raw.n;
        take_again(h, task, item);
        return;
    }
    task = new_task(h, item);
    if (!task) {
        h->freed_bytes += item->raw.n;
        h->must_break = true; /* HELLO tells what we hold, and so that we do not hold this one */
        return;
    }
    h->stats.taken++;
    list_add(&h->waiting, task);
    if (error == SEL_EUNSUPPORTED)
        owe_end(h, task, SEL_RECORD_RETURN, SEL_RETURN_NO_RESOURCES, NULL);
    else if (error < 0) /* it would come back from every worker */
        owe_end(h, task, SEL_RECORD_DONE, SEL_OUTCOME_FATAL, "ProtocolError");
    else if (h->is_draining)
        owe_end(h, task, SEL_RECORD_RETURN, SEL_RETURN_NOT_BEGUN, NULL);
}

static void take_cancel(struct sel_holder *h, const struct sel_wire_item *item)
{
    struct sel_held_task *task = find_delivery(h, item);
    if (!task && h->options.ops && h->options.ops->flow)
        h->options.ops->flow(h->options.ctx, item);
    if (!task || task->state == SEL_HELD_ENDED || task->is_cancelled)
        return; /* its end was faster */
    task->is_cancelled = true;
    task->cancel_code = item->code;
    if (task->state == SEL_HELD_WAITING)
        owe_end(h, task, SEL_RECORD_CANCELLED, item->code, NULL);
    else if (h->options.ops && h->options.ops->cancel)
        h->options.ops->cancel(h->options.ctx, task);
}

/* A name that is not kept is only missed in what people read. */
static void take_name(struct sel_holder *h, const struct sel_wire_item *item)
{
    uint32_t count = (uint32_t)item->queue + 1;
    if (!sel_mem_grow(&h->names, &h->name_cap, count, sizeof(*h->names)))
        return;
    if (h->name_count < count) {
        memset(h->names + h->name_count, 0, sizeof(*h->names) * (count - h->name_count));
        h->name_count = count;
    }
    struct sel_str *name = &h->names[item->queue];
    if (name->n)
        return;
    char *copy = sel_arena_memdup(&h->name_arena, item->payload.p, item->payload.n);
    if (copy)
        *name = (struct sel_str){copy, item->payload.n};
}

static void on_record(void *ctx, uint64_t number, const struct sel_wire_item *item, int error)
{
    struct sel_holder *h = ctx;
    h->arrived = number;
    if (error < 0) {
        char line[128];
        h->stats.undecodable++;
        (void)snprintf(line, sizeof(line), "record %llu (%s) of the broker cannot be read: %s",
                       (unsigned long long)number, sel_wire_record_name(item->type),
                       sel_error_text(error));
        sel_holder_say(h, line);
    }
    bool is_flow = sel_holder_is_about_flow(item);
    /* Nothing can be said of what has no id. */
    bool is_nameless = error < 0 && (item->id.hi | item->id.lo) == 0;
    if (item->type == SEL_RECORD_TASK && !is_flow && !is_nameless) {
        take_task(h, item, error);
        return;
    }
    h->freed_bytes += item->raw.n;
    if (is_flow && !is_nameless)
        sel_holder_take_flow(h, item, error);
    if (error == 0 && item->type == SEL_RECORD_CANCEL)
        take_cancel(h, item);
    else if (error == 0 && item->type == SEL_RECORD_QUEUE)
        take_name(h, item);
}

/* ---- what else the peer tells ---- */

static void forget_names(struct sel_holder *h)
{
    h->name_count = 0;
    sel_arena_reset(&h->name_arena);
}

static void on_opened(void *ctx, bool resumed, uint64_t shift)
{
    struct sel_holder *h = ctx;
    char line[96];
    (void)snprintf(line, sizeof(line), "session %#llx %s",
                   (unsigned long long)h->peer.session.number, resumed ? "goes on" : "begins");
    sel_holder_say(h, line);
    if (resumed)
        return;
    h->arrived = 0;
    forget_names(h);
    for (struct sel_held_task *task = h->ended.first; task; task = task->next)
        task->done_number -= shift;
    for (struct sel_held_task *task = h->owing.first; task; task = task->next) {
        if (task->is_again) /* settled ones cannot be told from others by their number any more */
            task->done_number = task->done_number > shift ? task->done_number - shift : 0;
    }
    sel_holder_lose_flows(h, shift);
}

static void on_settled(void *ctx, uint64_t number)
{
    struct sel_holder *h = ctx;
    struct sel_held_task *task;
    while ((task = h->ended.first) && task->done_number <= number) {
        list_remove(&h->ended, task);
        free_task(h, task);
    }
}

static struct sel_held_task *find_end(const struct sel_holder *h, uint64_t number)
{
    struct sel_held_task *task = h->ended.first;
    while (task && task->done_number < number)
        task = task->next;
    return task && task->done_number == number ? task : NULL;
}

/* An end that the broker would not have leaves its task without one: it fails then. */
static void on_error(void *ctx, const struct sel_wire_error *error)
{
    struct sel_holder *h = ctx;
    char line[384];
    (void)snprintf(line, sizeof(line), "the broker says: %s: %.*s (record %llu)",
                   sel_wire_code_name(error->code), SEL_STR_ARG(cut(error->text, 256)),
                   (unsigned long long)error->at);
    sel_holder_say(h, line);
    struct sel_held_task *task = error->at ? find_end(h, error->at) : NULL;
    if (!task || task->is_refused)
        return;
    task->is_refused = true;
    owe_end(h, task, SEL_RECORD_DONE, SEL_OUTCOME_FATAL, "ResultError");
}

static void tell_held(const struct sel_held_list *list, bool is_done, uint32_t *room,
                      struct sel_buf *held)
{
    for (const struct sel_held_task *task = list->first; task && *room > 0; task = task->next) {
        struct sel_wire_held one = {.id = task->id,
                                    .handle = task->handle,
                                    .try_count = task->try_count,
                                    .delivery = task->delivery,
                                    .is_done = is_done,
                                    .is_run = task->is_run,
                                    .is_called_off = task->is_cancelled &&
                                                     task->cancel_code == SEL_CANCEL_ENDED};
        sel_wire_put_held(held, &one);
        (*room)--;
    }
}

/* Ends last: if there are too many to be told they come by themselves. */
static void on_held(void *ctx, struct sel_buf *held)
{
    struct sel_holder *h = ctx;
    uint32_t room = SEL_WIRE_HELD_MAX;
    tell_held(&h->running, false, &room, held);
    tell_held(&h->waiting, false, &room, held);
    tell_held(&h->owing, true, &room, held);
    tell_held(&h->ended, true, &room, held);
}

static const struct sel_peer_ops peer_ops = {
    .opened = on_opened,
    .record = on_record,
    .settled = on_settled,
    .error = on_error,
    .held = on_held,
};

/* ---- life ---- */

int sel_holder_new(const struct sel_holder_options *options, int64_t now_us,
                   struct sel_holder **ret)
{
    struct sel_holder *h = SEL_NEW(struct sel_holder);
    if (!h)
        return SEL_ENOMEM;
    struct sel_prng prng = {options->peer.seed};
    h->options = *options;
    h->hash_factors[0] = sel_prng_next(&prng) | 1;
    h->hash_factors[1] = sel_prng_next(&prng) | 1;
    h->place_count = PLACES_MIN;
    h->places = sel_mem_zalloc(sizeof(*h->places) * PLACES_MIN);
    int r =
        h->places ? sel_peer_init(&h->peer, &h->options.peer, &peer_ops, h, now_us) : SEL_ENOMEM;
    if (r < 0) {
        sel_mem_free(h->places);
        sel_mem_free(h);
        return r;
    }
    sel_peer_expect(&h->peer, true);
    *ret = h;
    return 0;
}

static void release_all(struct sel_holder *h, struct sel_held_list *list)
{
    for (struct sel_held_task *task = list->first; task; task = task->next) {
        if (task->record.p)
            release_record(h, task);
    }
}

struct sel_holder *sel_holder_free(struct sel_holder *h)
{
    if (!h)
        return NULL;
    release_all(h, &h->waiting);
    release_all(h, &h->running);
    sel_pool_done(&h->bytes);
    for (uint32_t i = 0; i < h->chunk_count; i++)
        sel_mem_free(h->chunks[i]);
    sel_mem_free(h->chunks);
    sel_peer_done(&h->peer);
    sel_arena_done(&h->name_arena);
    sel_arena_done(&h->flow_queue_arena);
    sel_mem_free(h->flow_queues);
    sel_mem_free(h->names);
    sel_mem_free(h->places);
    return sel_mem_free(h);
}

struct sel_held_task *sel_holder_begin(struct sel_holder *h)
{
    struct sel_held_task *task = h->waiting.first;
    if (!task)
        return NULL;
    struct sel_str record = task->record;
    int r = sel_wire_next(&record, &task->item, NULL);
    SEL_ASSERT(r == 1); /* as when it came */
    list_remove(&h->waiting, task);
    task->state = SEL_HELD_RUNNING;
    list_add(&h->running, task);
    h->stats.begun++;
    return task;
}

void sel_holder_drain(struct sel_holder *h)
{
    h->is_draining = true;
    sel_peer_serve(&h->peer, false); /* in a later HELLO */
    while (h->waiting.first)
        owe_end(h, h->waiting.first, SEL_RECORD_RETURN, SEL_RETURN_NOT_BEGUN, NULL);
    pay(h);
}

bool sel_holder_is_empty(const struct sel_holder *h)
{
    return h->held_count == 0 && h->flow_last <= h->peer.session.out.settled;
}

uint32_t sel_holder_waiting(const struct sel_holder *h)
{
    return h->waiting.count;
}

uint32_t sel_holder_running(const struct sel_holder *h)
{
    return h->running.count;
}

uint32_t sel_holder_unsettled(const struct sel_holder *h)
{
    return h->ended.count + h->owing.count;
}

struct sel_str sel_holder_queue_name(const struct sel_holder *h, uint16_t queue)
{
    return queue < h->name_count ? h->names[queue] : (struct sel_str){0};
}

void sel_holder_get_stats(const struct sel_holder *h, struct sel_holder_stats *ret)
{
    *ret = h->stats;
}

void sel_holder_each_running(struct sel_holder *h,
                             void (*fn)(void *ctx, struct sel_held_task *task), void *ctx)
{
    struct sel_held_task *next;
    for (struct sel_held_task *task = h->running.first; task; task = next) {
        next = task->next;
        fn(ctx, task);
    }
}

/* ---- the socket's side ---- */

/* Records are decided when they are here, but their bytes make credit only when their tasks have
 * ended: that bounds what is held. (sel_peer_settle knows no such difference.) */
static void settle(struct sel_holder *h)
{
    struct sel_session *session = &h->peer.session;
    sel_session_settle(session, h->arrived);
    uint64_t bytes = h->freed_bytes;
    if (bytes > session->in.held_bytes) /* of tasks that were delivered in an earlier session */
        bytes = session->in.held_bytes;
    sel_session_free(session, session->in.held_records, bytes);
    h->freed_bytes = 0;
}

void sel_holder_receive(struct sel_holder *h, struct sel_str frame, int64_t now_us)
{
    struct sel_error err = {0};
    if (sel_peer_receive(&h->peer, frame, now_us, &err) < 0) {
        char line[SEL_ERROR_TEXT_MAX + 64];
        (void)snprintf(line, sizeof(line), "what the broker says cannot be read: %s", err.text);
        sel_holder_say(h, line);
    }
    settle(h);
    if (h->must_break) {
        h->must_break = false;
        sel_holder_say(h, "out of memory: the connection is made anew");
        sel_peer_broken(&h->peer, now_us);
    }
}

enum sel_peer_action sel_holder_poll(struct sel_holder *h, int64_t now_us, struct sel_buf *out)
{
    if (h->owing.first || h->is_draining)
        pay(h);
    if (h->freed_bytes)
        settle(h);
    return sel_peer_poll(&h->peer, now_us, out);
}

int64_t sel_holder_due_us(const struct sel_holder *h)
{
    return sel_peer_due_us(&h->peer);
}

struct sel_peer *sel_holder_peer(struct sel_holder *h)
{
    return &h->peer;
}
