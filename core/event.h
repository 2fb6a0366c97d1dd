/* core/event.h - the events of a flow: what a decision did, in the form in which it is journaled.
 *
 * An event is a type byte and LEB128 numbers, and bytes behind their length. Numbers of types never
 * change and a released layout never does either: a new layout gets a new number. */
#ifndef SEL_CORE_EVENT_H
#define SEL_CORE_EVENT_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/id.h"
#include "core/str.h"

struct sel_buf;

/* number, name, fields in the order of the encoding: a, b, c, list, bytes, id */
#define SEL_EVENT_LIST(X)                                                                          \
    X(1, START, 0)                              /* the flow, or a further attempt of it, begins */ \
    X(2, DONE, SEL_EVENT_A)                     /* run a succeeded; its edges are due */           \
    X(3, FAILED, SEL_EVENT_A)                   /* run a failed for good */                        \
    X(4, ARGS, SEL_EVENT_BYTES)                 /* the arguments of the flow from now on */        \
    X(5, TAKE, 0)                               /* the edges of the oldest due run come next */    \
    X(6, WAIT, SEL_EVENT_ITEMS)                 /* edges: something they wait for has finished */  \
    X(7, EDGE, SEL_EVENT_ABC | SEL_EVENT_ITEMS) /* a position among the edges looked at, b edge,   \
                                               c index of the run's own slot in the list of        \
                                               source slots: its combinations begin */             \
    X(8, FALSE, 0)          /* the condition does not hold for a combination */                    \
    X(9, FIRE, SEL_EVENT_A) /* it holds: a destinations start */                                   \
    X(10, FOREACH, SEL_EVENT_AB | SEL_EVENT_BYTES) /* it holds: a destinations for each of the b   \
                                               items of the encoded list */                        \
    X(11, TASK, SEL_EVENT_AB)                   /* a task of slot a starts; b 1: nobody waits */   \
    X(12, FLOW, SEL_EVENT_AB | SEL_EVENT_ID)    /* a sub-flow of slot a starts; b as above */      \
    X(13, REUSE, SEL_EVENT_A | SEL_EVENT_BYTES) /* slot a takes the result of an earlier run */    \
    X(14, OMIT, 0)      /* a destination is left out by the selective run */                       \
    X(15, OMIT_EDGE, 0) /* a starting edge is left out by it */                                    \
    X(16, EDGES_END, 0) /* no more edges for what was looked at */                                 \
    X(17, CHOICE, SEL_EVENT_ABC | SEL_EVENT_ITEMS) /* choice a takes one failure of each of the b  \
                                               first slots of the list and starts the others; c 1: \
                                               the failures still count */                         \
    X(18, SKIP, SEL_EVENT_A)                       /* none of the conditions of choice a holds */  \
    X(19, END, 0)                                  /* the flow succeeded */                        \
    X(20, FAIL, 0)                                 /* the flow failed for good */                  \
    X(21, RETRY, 0)                                /* it failed and begins again */                \
    X(22, CANCEL, 0)                               /* it was cancelled */

/* Which fields an event has. */
#define SEL_EVENT_A 1
#define SEL_EVENT_AB 3
#define SEL_EVENT_ABC 7
#define SEL_EVENT_ITEMS 8
#define SEL_EVENT_BYTES 16
#define SEL_EVENT_ID 32

#define SEL_EVENT_ENUM(number, name, fields) SEL_EVENT_##name = number,
enum sel_event_type { SEL_EVENT_LIST(SEL_EVENT_ENUM) SEL_EVENT_TYPE_END };
#undef SEL_EVENT_ENUM

#define SEL_EVENT_ITEMS_MAX 65536 /* numbers in one list */

struct sel_event {
    enum sel_event_type type;
    uint32_t a, b, c;
    const uint32_t *list;
    uint32_t list_count;
    struct sel_str bytes;
    struct sel_id id;
};

const char *sel_event_name(enum sel_event_type type);

/* Appends; errors stick in `buf`. */
void sel_event_encode(const struct sel_event *event, struct sel_buf *buf);

/* Decodes one event at *pos of `n` bytes and moves *pos behind it. `list` (room for
 * SEL_EVENT_ITEMS_MAX numbers, or for `n` if that is less) holds the event's list; bytes point into
 * `p`. 0 or SEL_EFORMAT. */
int sel_event_decode(const uint8_t *p, size_t n, size_t *pos, uint32_t *list,
                     struct sel_event *ret) SEL_WARN_UNUSED;

#endif
