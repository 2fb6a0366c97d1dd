/* The journal's side of the broker: what happened is packed into batches; they are committed beside
 * the loop, several at a time; what depends on a batch happens when it is.
 *
 * A batch counts the tasks that need it. The oldest ones that nobody needs are dropped; when much
 * of the journal is not needed, what is needed of the oldest batch is copied to the newest. */
#include "broker/internal.h"
#include "core/mem.h"

#define WAIT_US 1000        /* what can wait is committed with what comes next */
#define RETRY_US 100000     /* pause after an append that found no room */
#define FULL_US_MIN 1000000 /* so long nothing new is taken afterwards */
#define FULL_US_MAX 60000000
#define DROP_MIN 64 /* batches that are dropped together */
#define SPARES_MAX 4
#define SPARE_BYTES_MAX ((size_t)4 << 20)

/* ---- which batches are needed ---- */

static struct sel_log_info *info_of(const struct sel_log *log, uint64_t seq)
{
    if (seq < log->first_seq || seq - log->first_seq >= log->info_count)
        return NULL;
    uint32_t i = log->info_head + (uint32_t)(seq - log->first_seq);
    return &log->infos[i >= log->info_cap ? i - log->info_cap : i];
}

bool sel_broker_log_note_batch(struct sel_broker *b, uint64_t seq, size_t size)
{
    struct sel_log *log = &b->log;
    if (log->info_count == 0)
        log->first_seq = seq;
    SEL_ASSERT(seq == log->first_seq + log->info_count);
    if (log->info_count == log->info_cap) {
        uint32_t old = log->info_cap;
        if (!sel_mem_grow(&log->infos, &log->info_cap, (uint64_t)old + 1, sizeof(*log->infos)))
            return false;
        /* what had wrapped round goes behind the old end */
        memcpy(log->infos + old, log->infos, log->info_head * sizeof(*log->infos));
    }
    log->info_count++;
    *info_of(log, seq) = (struct sel_log_info){.size = (uint32_t)size};
    return true;
}

static void need(struct sel_log *log, uint64_t seq, uint32_t bytes)
{
    struct sel_log_info *info = info_of(log, seq);
    SEL_ASSERT(info);
    info->live++;
    info->bytes += bytes;
    log->live_bytes += bytes;
}

/* Bytes are counted off when nobody needs the batch: what lies among others keeps it. */
static void need_no_more(struct sel_log *log, uint64_t seq)
{
    struct sel_log_info *info = info_of(log, seq);
    SEL_ASSERT(info && info->live > 0);
    if (--info->live == 0) {
        log->live_bytes -= info->bytes;
        info->bytes = 0;
    }
}

void sel_broker_log_claim(struct sel_broker *b, uint32_t i, struct sel_log_place place,
                          size_t blob_size)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    SEL_ASSERT(task->log_seq == 0);
    task->log_seq = place.seq;
    task->log_offset = place.blob_offset;
    need(&b->log, place.seq, (uint32_t)(SEL_MUTATION_HEADER + blob_size));
}

void sel_broker_log_move(struct sel_broker *b, uint32_t i, struct sel_log_place place,
                         size_t blob_size)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    need_no_more(&b->log, task->log_seq);
    need(&b->log, place.seq, (uint32_t)(SEL_MUTATION_HEADER + blob_size));
    task->log_seq = place.seq;
    task->log_offset = place.blob_offset;
}

void sel_broker_log_release(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (task->log_seq == 0)
        return;
    /* freed before, see sel_broker_task_free_blob */
    SEL_ASSERT(!*sel_broker_blob_at(task) && task->blob_size == 0);
    need_no_more(&b->log, task->log_seq);
    task->log_seq = 0;
}

/* ---- batches ---- */

static void batch_free(struct sel_log_batch *batch)
{
    sel_buf_done(&batch->buf);
    sel_mem_free(batch->effects);
    sel_mem_free(batch);
}

void sel_broker_log_done(struct sel_broker *b)
{
    struct sel_log *log = &b->log;
    struct sel_log_batch *lists[] = {log->first, log->spare};
    for (size_t i = 0; i < SEL_COUNT(lists); i++) {
        for (struct sel_log_batch *batch = lists[i], *next; batch; batch = next) {
            next = batch->next;
            batch_free(batch);
        }
    }
    sel_mem_free(log->infos);
    *log = (struct sel_log){0};
}

static uint64_t next_seq(const struct sel_log *log)
{
    return log->open ? log->open->seq + 1 : log->committed + 1;
}

static struct sel_log_batch *batch_new(struct sel_broker *b)
{
    struct sel_log *log = &b->log;
    uint64_t seq = next_seq(log);
    struct sel_log_batch *batch = log->spare ? log->spare : SEL_NEW(struct sel_log_batch);
    if (!batch || !sel_broker_log_note_batch(b, seq, 0)) {
        if (batch && batch != log->spare)
            sel_mem_free(batch);
        return NULL;
    }
    if (batch == log->spare) {
        log->spare = batch->next;
        log->spare_count--;
    }
    batch->next = NULL;
    batch->seq = seq;
    batch->can_wait = true;
    batch->since_us = b->now.mono_us;
    if (log->open)
        log->open->next = batch;
    else
        log->first = batch;
    log->open = batch;
    return batch;
}

static void batch_recycle(struct sel_log *log, struct sel_log_batch *batch)
{
    if (batch->buf.cap > SPARE_BYTES_MAX || log->spare_count == SPARES_MAX) {
        batch_free(batch);
        return;
    }
    log->spare_count++;
    sel_buf_clear(&batch->buf);
    batch->sync = batch->urgent = false;
    batch->effect_count = 0;
    batch->next = log->spare;
    log->spare = batch;
}

static bool is_taken(const struct sel_log *log, const struct sel_log_batch *batch)
{
    return log->under_way && batch->seq <= log->committed + log->taken;
}

/* The batch to append to; NULL: out of memory. */
static struct sel_log_batch *open_batch(struct sel_broker *b)
{
    struct sel_log_batch *open = b->log.open;
    if (b->log.is_held)
        return open;
    if (open && !is_taken(&b->log, open) && open->buf.n < b->options.batch_bytes_max)
        return open;
    return batch_new(b);
}

/* What a flow decides comes in a moment, and is committed with what it follows from: the submit
 * that began it, ends of runs that have been told, decisions that start nothing. Alone they would
 * only keep the disk busy when it comes. */
static bool can_wait(const struct sel_mutation *m)
{
    switch (m->type) {
    case SEL_MUTATION_SUBMIT: /* one with a key, or a sub-flow, begins when it is committed */
        return m->flags & SEL_MUTATION_FLOW && !(m->flags & SEL_MUTATION_CHILD) && m->key.n == 0;
    case SEL_MUTATION_DONE:
        return m->flags & SEL_MUTATION_RUN;
    case SEL_MUTATION_PIECE:
    case SEL_MUTATION_USED:
        return true;
    default:
        return false;
    }
}

/* Appends it; *ret_end is where it ends in its batch. */
static int append(struct sel_broker *b, const struct sel_mutation *m, uint8_t level,
                  struct sel_log_batch **ret, size_t *ret_end)
{
    SEL_ASSERT(b->log.is_on && level >= SEL_LEVEL_INTERVAL);
    struct sel_log_batch *batch = open_batch(b);
    /* Room for the effect that may come with it: once it is written there must be no failure. */
    if (!batch || !sel_mem_grow(&batch->effects, &batch->effect_cap,
                                (uint64_t)batch->effect_count + 1, sizeof(*batch->effects)))
        return SEL_ENOMEM;
    size_t before = batch->buf.n;
    sel_mutation_encode(m, &batch->buf);
    if (sel_buf_error(&batch->buf) < 0) {
        batch->buf.failed = batch->buf.over_limit = false; /* what is in it stays good */
        return SEL_ENOMEM;
    }
    batch->sync |= level == SEL_LEVEL_COMMIT;
    batch->can_wait &= can_wait(m);
    batch->urgent |= m->type != SEL_MUTATION_SUBMIT;
    b->log.backlog_bytes += batch->buf.n - before;
    info_of(&b->log, batch->seq)->size = (uint32_t)batch->buf.n;
    *ret = batch;
    *ret_end = batch->buf.n;
    return 0;
}

size_t sel_broker_mutation_blob(const struct sel_mutation *m)
{
    return m->payload.n + (m->type == SEL_MUTATION_SUBMIT ? m->fields.n : 0);
}

int sel_broker_log_put(struct sel_broker *b, const struct sel_mutation *m, uint8_t level,
                       struct sel_log_place *ret)
{
    struct sel_log_batch *batch;
    size_t end;
    int r = append(b, m, level, &batch, &end);
    if (r == 0 && ret)
        *ret = (struct sel_log_place){batch->seq, (uint32_t)(end - sel_broker_mutation_blob(m))};
    return r;
}

#define HOLD_BYTES_MAX ((size_t)8 << 20) /* what is held may be large: it begins a batch then */

int sel_broker_log_hold(struct sel_broker *b, uint64_t effects, struct sel_log_mark *ret)
{
    *ret = (struct sel_log_mark){0};
    if (!b->log.is_on)
        return 0;
    SEL_ASSERT(!b->log.is_held);
    struct sel_log_batch *batch = open_batch(b);
    if (batch && batch->buf.n > HOLD_BYTES_MAX)
        batch = batch_new(b);
    if (!batch || !sel_mem_grow(&batch->effects, &batch->effect_cap,
                                batch->effect_count + effects + 1, sizeof(*batch->effects)))
        return SEL_ENOMEM;
    *ret = (struct sel_log_mark){batch, batch->buf.n, batch->effect_count};
    b->log.is_held = true;
    return 0;
}

void sel_broker_log_release_hold(struct sel_broker *b, const struct sel_log_mark *mark, bool undo)
{
    if (!mark->batch)
        return;
    SEL_ASSERT(b->log.is_held && mark->batch == b->log.open);
    b->log.is_held = false;
    if (!undo)
        return;
    b->log.backlog_bytes -= mark->batch->buf.n - mark->size;
    mark->batch->buf.n = mark->size;
    mark->batch->effect_count = mark->effect_count;
    info_of(&b->log, mark->batch->seq)->size = (uint32_t)mark->size;
}

void sel_broker_log_effect(struct sel_broker *b, uint32_t task, enum sel_effect_kind kind)
{
    struct sel_log_batch *batch = b->log.open;
    SEL_ASSERT(batch && !is_taken(&b->log, batch) && batch->effect_count < batch->effect_cap);
    batch->effects[batch->effect_count++] =
        (struct sel_effect){task, kind, sel_broker_task_at(b, task)->sequence};
}

int sel_broker_log_read(struct sel_broker *b, uint64_t seq, uint64_t offset, uint64_t n,
                        struct sel_str *ret)
{
    for (struct sel_log_batch *batch = b->log.first; batch; batch = batch->next) {
        if (batch->seq != seq)
            continue;
        SEL_ASSERT(offset + n <= batch->buf.n);
        *ret = (struct sel_str){(const char *)batch->buf.p + offset, n};
        return 0;
    }
    sel_buf_clear(&b->scratch);
    int r = b->io.read(b->io.ctx, seq, offset, n, &b->scratch);
    if (r >= 0)
        r = sel_buf_error(&b->scratch);
    if (r < 0) {
        sel_broker_say(b, SEL_BROKER_ERROR, "journal.read", "batch=%llu error=%s",
                       (unsigned long long)seq, sel_error_text(r));
        return r;
    }
    *ret = sel_buf_str(&b->scratch);
    return 0;
}

/* ---- START ---- */

static int log_workers(struct sel_broker *b)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < b->known_count; i++) {
        struct sel_mutation m = {.type = SEL_MUTATION_WORKER,
                                 .id = b->known[i].peer,
                                 .sequence = b->known[i].incarnation};
        r = sel_broker_log_put(b, &m, SEL_LEVEL_COMMIT, NULL);
    }
    return r;
}

int sel_broker_log_start(struct sel_broker *b)
{
    struct sel_mutation m = {.type = SEL_MUTATION_START,
                             .id = b->id,
                             .sequence = b->incarnation,
                             .unix_us = b->now.unix_us};
    struct sel_log_batch *batch;
    size_t end;
    int r = append(b, &m, SEL_LEVEL_COMMIT, &batch, &end);
    if (r < 0)
        return r;
    b->log.start_seq = batch->seq;
    return log_workers(b);
}

/* ---- compaction ---- */

/* The task whose mutation in batch `seq` this is, if it still needs it. */
static uint32_t owner_of(struct sel_broker *b, const struct sel_mutation *m, uint64_t seq,
                         uint64_t end)
{
    uint32_t i = sel_broker_task_find(b, m->id);
    if (i == SEL_NONE)
        return SEL_NONE;
    const struct sel_task_entry *task = sel_broker_task_at(b, i);
    return task->log_seq == seq && task->log_offset + sel_broker_mutation_blob(m) == end ? i
                                                                                         : SEL_NONE;
}

static void describe(struct sel_broker *b, const struct sel_task_entry *task,
                     struct sel_mutation *m)
{
    if (task->kind == SEL_KIND_PIECE) {
        if (m->type == SEL_MUTATION_PIECE && task->queue == SEL_PIECE_THROTTLE)
            m->unix_us = b->now.unix_us + (task->at_us - b->now.mono_us);
        return;
    }
    if (task->state == SEL_TASK_ENDED && task->flags & SEL_TASK_CONSUMED)
        m->flags |= SEL_MUTATION_CONSUMED;
    if (task->kind == SEL_KIND_FLOW && task->flow->is_throttled)
        m->flags |= SEL_MUTATION_THROTTLED;
    m->try_count = task->try_count;
    m->lost = task->lost;
    m->suspected = task->suspected;
    if (task->state == SEL_TASK_WAITING || task->state == SEL_TASK_HELD)
        m->unix_us = b->now.unix_us + (task->at_us - b->now.mono_us);
}

/* Writes what is needed of a batch anew. */
static int copy_forward(struct sel_broker *b, uint64_t seq)
{
    struct sel_buf copy = {0};
    int r = b->io.read(b->io.ctx, seq, 0, info_of(&b->log, seq)->size, &copy);
    struct sel_str rest = sel_buf_str(&copy);
    struct sel_mutation m;
    while (r >= 0 && (r = sel_mutation_next(&rest, &m, NULL)) > 0) {
        if (m.type == SEL_MUTATION_RUNS) {
            if ((r = sel_broker_copy_runs(b, &m, seq)) < 0)
                break;
            continue;
        }
        uint32_t i = owner_of(b, &m, seq, copy.n - rest.n);
        if (i == SEL_NONE)
            continue;
        struct sel_task_entry *task = sel_broker_task_at(b, i);
        describe(b, task, &m);
        /* The blob stays as it is: only where it can be read back changes. */
        struct sel_log_batch *batch;
        size_t end;
        r = append(b, &m, task->level, &batch, &end);
        if (r < 0)
            break;
        batch->urgent = true; /* it makes room */
        struct sel_log_place place = {batch->seq, (uint32_t)(end - sel_broker_mutation_blob(&m))};
        sel_broker_log_move(b, i, place, sel_mutation_size(&m) - SEL_MUTATION_HEADER);
    }
    sel_buf_done(&copy);
    return r;
}

static bool is_wasteful(const struct sel_broker *b)
{
    return b->log.journal_bytes >= 2 * b->log.live_bytes + b->options.journal_compact_min;
}

/* Moves the front to the first batch that is needed. */
static void advance_front(struct sel_broker *b)
{
    struct sel_log *log = &b->log;
    while (log->info_count && log->first_seq <= log->committed &&
           info_of(log, log->first_seq)->live == 0) {
        if (log->first_seq == log->start_seq && (!is_wasteful(b) || sel_broker_log_start(b) < 0))
            return;
        log->first_seq++;
        log->info_count--;
        log->info_head = log->info_head + 1 == log->info_cap ? 0 : log->info_head + 1;
    }
}

/* A batch a commit: the disk has other things to do too. */
static void compact(struct sel_broker *b)
{
    struct sel_log *log = &b->log;
    advance_front(b);
    if (log->was_refused || log->first_seq >= log->committed || !is_wasteful(b))
        return;
    int r = copy_forward(b, log->first_seq);
    if (r < 0)
        sel_broker_say(b, SEL_BROKER_WARNING, "journal.compact", "batch=%llu error=%s",
                       (unsigned long long)log->first_seq, sel_error_text(r));
    advance_front(b);
}

void sel_broker_note_journal(struct sel_broker *b, uint64_t bytes_live)
{
    b->log.journal_bytes = bytes_live;
}

/* ---- commits ---- */

static bool wants_interval_sync(const struct sel_broker *b)
{
    const struct sel_log *log = &b->log;
    return log->synced < log->committed && b->now.mono_us >= log->interval_due_us;
}

/* When what is to be committed can wait no longer. */
static int64_t waits_until_us(const struct sel_log *log)
{
    const struct sel_log_batch *first = log->first;
    return first->next || !first->can_wait ? first->since_us : first->since_us + WAIT_US;
}

int64_t sel_broker_log_due_us(const struct sel_broker *b)
{
    const struct sel_log *log = &b->log;
    if (!log->is_on || log->under_way)
        return INT64_MAX;
    if (log->was_refused)
        return log->retry_us;
    if (log->first)
        return waits_until_us(log);
    return log->synced < log->committed ? log->interval_due_us : INT64_MAX;
}

bool sel_broker_take_batches(struct sel_broker *b, struct sel_broker_now now,
                             struct sel_broker_batches *ret)
{
    struct sel_log *log = &b->log;
    b->now = now;
    if (!log->is_on || log->under_way || (log->was_refused && now.mono_us < log->retry_us))
        return false;
    if (log->first && now.mono_us < waits_until_us(log) && !wants_interval_sync(b))
        return false;
    compact(b);
    *ret = (struct sel_broker_batches){.sync = wants_interval_sync(b), .first = log->committed + 1};
    bool urgent = false;
    for (struct sel_log_batch *batch = log->first;
         batch && ret->count < SEL_BROKER_BATCHES_MAX && batch->buf.n; batch = batch->next) {
        SEL_ASSERT(batch->seq == ret->first + ret->count);
        ret->bytes[ret->count++] = sel_buf_str(&batch->buf);
        ret->sync |= batch->sync;
        urgent |= batch->urgent;
    }
    /* The reserve is for what ends work, and only when there is no other room. */
    ret->urgent = urgent && log->was_refused;
    /* All that keeps a batch from being needed must be in this commit. */
    bool is_all = log->committed + ret->count + 1 == next_seq(log);
    if (is_all && log->first_seq >= log->dropped + (is_wasteful(b) ? 1 : DROP_MIN))
        ret->drop_before = log->first_seq;
    if (ret->count == 0 && !ret->sync && ret->drop_before == 0)
        return false;
    log->under_way = true;
    log->taken = ret->count;
    log->sync_wanted = ret->sync;
    log->taken_us = now.mono_us;
    if (ret->drop_before)
        log->dropped = ret->drop_before;
    return true;
}

static void refused(struct sel_broker *b, int result)
{
    struct sel_log *log = &b->log;
    int64_t now_us = b->now.mono_us;
    b->stats.commit_failures++;
    log->was_refused = true;
    log->retry_us = now_us + RETRY_US;
    log->dropped = 0; /* said again */
    if (log->is_full)
        return;
    /* Each time that room was found and lost again costs some of the reserve: less and less often.
     */
    bool is_again = log->full_pause_us && now_us < log->full_until_us + FULL_US_MAX;
    log->full_pause_us = is_again ? 2 * log->full_pause_us : FULL_US_MIN;
    if (log->full_pause_us > FULL_US_MAX)
        log->full_pause_us = FULL_US_MAX;
    log->full_until_us = now_us + log->full_pause_us;
    log->is_full = true;
    sel_broker_say(b, SEL_BROKER_ERROR, "journal.full",
                   "error=\"%s\" submits are refused until there is room", sel_error_text(result));
}

/* Without memory to wait it runs early. */
static void wait_or_queue(struct sel_broker *b, uint32_t i)
{
    int64_t due_us = sel_broker_task_at(b, i)->at_us;
    if (due_us <= b->now.mono_us || !sel_broker_timer_add(b, i, due_us))
        sel_broker_queue_push(b, i);
}

static void run_effects(struct sel_broker *b, struct sel_log_batch *batch)
{
    for (uint32_t i = 0; i < batch->effect_count; i++) {
        struct sel_effect e = batch->effects[i];
        struct sel_task_entry *task = sel_broker_task_at(b, e.task);
        if (task->sequence != e.sequence)
            continue;
        if (e.kind == SEL_EFFECT_ENDED && task->state == SEL_TASK_ENDED)
            sel_broker_task_release(b, e.task);
        else if (e.kind == SEL_EFFECT_ENQUEUE && task->state == SEL_TASK_HELD)
            wait_or_queue(b, e.task);
    }
}

void sel_broker_log_check_room(struct sel_broker *b)
{
    struct sel_log *log = &b->log;
    if (!log->is_full || log->was_refused || b->now.mono_us < log->full_until_us)
        return;
    log->is_full = false;
    sel_broker_say(b, SEL_BROKER_INFO, "journal.room", "submits are taken again");
}

void sel_broker_committed(struct sel_broker *b, int result, struct sel_broker_now now)
{
    struct sel_log *log = &b->log;
    b->now = now;
    SEL_ASSERT(log->under_way);
    log->under_way = false;
    if (result < 0) {
        refused(b, result);
        return;
    }
    log->was_refused = false;
    b->stats.commits++;
    sel_histogram_add(&b->stats.commit_us, now.mono_us - log->taken_us);
    log->committed += log->taken;
    if (log->sync_wanted)
        log->synced = log->committed;
    else if (log->synced + log->taken >= log->committed)
        log->interval_due_us = now.mono_us + b->options.interval_us; /* the first since a sync */
    sel_broker_sessions_committed(b);
    for (uint32_t i = 0; i < log->taken; i++) {
        struct sel_log_batch *batch = log->first;
        run_effects(b, batch); /* which find results in it */
        log->first = batch->next;
        if (!log->first)
            log->open = NULL;
        log->backlog_bytes -= batch->buf.n;
        b->stats.commit_bytes += batch->buf.n;
        batch_recycle(log, batch);
    }
    b->has_started = true;
}
