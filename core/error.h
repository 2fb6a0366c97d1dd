/* core/error.h - error codes, one error with its place, and lists of diagnostics.
 *
 * Functions return 0 or a count, or a negative code: -errno from the system, or SEL_E... from
 * -20000 down, so that both share one int. */
#ifndef SEL_CORE_ERROR_H
#define SEL_CORE_ERROR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/assert.h"
#include "core/str.h"

struct sel_arena;

/* name, value, text */
#define SEL_ERROR_LIST(X)                                                                          \
    X(SEL_ESYNTAX, -20000, "syntax error")                                                         \
    X(SEL_ELIMIT, -20001, "limit reached")                                                         \
    X(SEL_ENOMEM, -20002, "out of memory")                                                         \
    X(SEL_ECONFIG, -20003, "configuration error")                                                  \
    X(SEL_ENOTFOUND, -20004, "not found")                                                          \
    X(SEL_EEXISTS, -20005, "exists already")                                                       \
    X(SEL_ETYPE, -20006, "wrong type")                                                             \
    X(SEL_ERANGE, -20007, "out of range")                                                          \
    X(SEL_EFORMAT, -20008, "damaged or foreign data")                                              \
    X(SEL_EVERSION, -20009, "unsupported version")                                                 \
    X(SEL_ECANCELED, -20010, "cancelled")                                                          \
    X(SEL_ETIMEOUT, -20011, "time limit reached")                                                  \
    X(SEL_ENEED, -20012, "an answer is needed first")                                              \
    X(SEL_EFAILED, -20013, "failed")                                                               \
    X(SEL_EREQUEST, -20014, "bad request")                                                         \
    X(SEL_ENOPATH, -20015, "no path to a selected task")                                           \
    X(SEL_ESTORAGE, -20016, "storage error")                                                       \
    X(SEL_EUNSUPPORTED, -20017, "not supported")                                                   \
    X(SEL_ESTATE, -20018, "illegal in this state")

#define SEL_ERROR_ENUM(name, value, text) name = value,
enum sel_error_code { SEL_ERROR_LIST(SEL_ERROR_ENUM) };
#undef SEL_ERROR_ENUM

/* The text of a code, -errno included; never NULL, lives for ever, any thread. */
const char *sel_error_text(int code);
/* The name of a code, "SEL_ELIMIT" or "ENOENT"; "?" for unknown ones. */
const char *sel_error_name(int code);

/* A place in a user's text. line and col begin at 1; line 0: the file as a whole. */
struct sel_pos {
    const char *file; /* may be NULL; lives as long as the text's arena */
    uint32_t line;
    uint32_t col;
};

#define SEL_ERROR_TEXT_MAX 1024

struct sel_error {
    int code;
    struct sel_pos pos;
    char text[SEL_ERROR_TEXT_MAX]; /* cut, never unterminated */
};

/* Fills `err` (may be NULL) and returns `code`. */
int sel_error_set(struct sel_error *err, int code, struct sel_pos pos, const char *fmt, ...)
    SEL_PRINTF(4, 5);

/* "file:line:col: text" (parts that are unknown are left out) into `out`; returns out. */
const char *sel_error_format(const struct sel_error *err, char *out, size_t size);

/* One diagnostic of a compilation. */
struct sel_diag_item {
    struct sel_diag_item *next;
    struct sel_pos pos;
    bool is_warning;
    const char *text;
};

/* All diagnostics of one run; kept in the order of file, line, column by sel_diag_sort. */
struct sel_diag {
    struct sel_arena *arena; /* texts live here */
    struct sel_diag_item *first, *last;
    uint32_t error_count, warning_count;
    uint32_t dropped_count; /* counted above, but not in the list */
};

#define SEL_DIAG_MAX 1000 /* errors in the list, and as many warnings */

void sel_diag_init(struct sel_diag *diag, struct sel_arena *arena);
void sel_diag_error(struct sel_diag *diag, struct sel_pos pos, const char *fmt, ...)
    SEL_PRINTF(3, 4);
void sel_diag_warning(struct sel_diag *diag, struct sel_pos pos, const char *fmt, ...)
    SEL_PRINTF(3, 4);
/* Sorts by file (in order of first appearance), line, column; removes exact duplicates. */
void sel_diag_sort(struct sel_diag *diag);

#endif
