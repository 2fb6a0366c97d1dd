/* How many bytes a producer may have under way.
 *
 * What was given cannot be taken back, and what is on its way lies in ZeroMQ's memory, which nobody
 * counts. So the first producers get the full window; when those add up to half of the memory,
 * further ones get little until they use it or ask for more, and then as much as the largest record
 * needs, no faster than the broker can take it in. Ten thousand that come at once do not fill the
 * machine before the broker has seen what they send. */
#include "broker/internal.h"

#define SMALL_BYTES ((uint64_t)64 << 10)
#define LOOK_US 10000
#define REFILL_US 100000 /* an eighth of the memory so often */

static bool has_room_for(const struct sel_broker *b, uint64_t more)
{
    return b->windows_bytes + more <= b->options.memory_max / 2;
}

/* What it may grow to now. */
static uint64_t goal(const struct sel_broker *b, const struct sel_broker_session *s)
{
    if (has_room_for(b, b->options.window_bytes - s->window_bytes))
        return b->options.window_bytes;
    return s->window_bytes < b->options.record_max ? b->options.record_max : s->window_bytes;
}

void sel_broker_window_open(struct sel_broker *b, struct sel_broker_session *s)
{
    if (s->is_worker)
        return;
    s->window_bytes = b->options.window_bytes;
    if (!has_room_for(b, s->window_bytes))
        s->window_bytes = SMALL_BYTES < b->options.record_max ? SMALL_BYTES : b->options.record_max;
    b->windows_bytes += s->window_bytes;
    sel_inbox_window(&s->s.in, b->options.window_records, s->window_bytes);
}

void sel_broker_window_close(struct sel_broker *b, struct sel_broker_session *s)
{
    b->windows_bytes -= s->window_bytes;
    b->windows_wanted -= s->wants_window;
    s->wants_window = false;
}

void sel_broker_window_want(struct sel_broker *b, struct sel_broker_session *s)
{
    if (s->is_worker || s->wants_window || goal(b, s) == s->window_bytes)
        return;
    s->wants_window = true;
    b->windows_wanted++;
}

static void refill(struct sel_broker *b)
{
    uint64_t share = b->options.memory_max / 8;
    if (share < b->options.window_bytes)
        share = b->options.window_bytes;
    int64_t passed_us = b->now.mono_us - b->window_tokens_us;
    b->window_tokens_us = b->now.mono_us;
    if (passed_us >= REFILL_US)
        b->window_tokens = share;
    else
        b->window_tokens += share / REFILL_US * (uint64_t)passed_us;
    if (b->window_tokens > share)
        b->window_tokens = share;
}

static void grow(struct sel_broker *b, struct sel_broker_session *s)
{
    uint64_t bytes = goal(b, s), more = bytes - s->window_bytes;
    if (more > b->window_tokens)
        return;
    b->window_tokens -= more;
    b->windows_bytes += more;
    b->windows_wanted--;
    s->wants_window = false;
    s->window_bytes = bytes;
    sel_inbox_window(&s->s.in, b->options.window_records, bytes);
    sel_broker_session_mark(b, s);
}

int64_t sel_broker_windows_grow(struct sel_broker *b)
{
    if (b->windows_wanted == 0)
        return INT64_MAX;
    if (b->now.mono_us < b->window_look_us)
        return b->window_look_us;
    b->window_look_us = b->now.mono_us + LOOK_US;
    if (sel_broker_is_short(b))
        return b->window_look_us;
    refill(b);
    for (uint32_t i = 0; i < b->session_count && b->windows_wanted; i++) {
        struct sel_broker_session *s = b->sessions[i];
        if (s && s->wants_window)
            grow(b, s);
    }
    return b->windows_wanted ? b->window_look_us : INT64_MAX;
}
