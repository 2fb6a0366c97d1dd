/* core/value.h - values: what arguments, results and messages are made of.
 *
 * A value is a msgpack-c object whose parts live in an arena. It never changes once made and may
 * then be read by any thread. Integers and floats are kept apart; maps keep their order; keys may
 * be any value, though only text keys come from JSON and YAML.
 *
 * Encoded values (msgpack bytes) are what is stored and sent. */
#ifndef SEL_CORE_VALUE_H
#define SEL_CORE_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <msgpack/object.h>
#include <selinon/value.h> /* kinds and readers */

#include "core/assert.h"
#include "core/error.h"
#include "core/str.h"

struct sel_arena;
struct sel_buf;

/* The same type is opaque to users of include/selinon/. */
struct sel_value {
    struct msgpack_object o;
};

#define SEL_VALUE_DEPTH_MAX 512 /* nesting of lists and maps */

extern const struct sel_value sel_value_null;

static inline bool sel_value_is(const struct sel_value *v, enum sel_kind kind)
{
    return sel_value_kind(v) == kind;
}

/* Equality as the original's language has it: 1, 1.0 and true are equal; ints and floats are
 * compared exactly; maps regardless of order (unless they are keys themselves), of duplicate keys
 * the last counts. NULL is null. What nests deeper than SEL_VALUE_DEPTH_MAX equals nothing. */
bool sel_value_equal(const struct sel_value *a, const struct sel_value *b);
/* Equality that keeps kinds apart: 1 is not 1.0. NaN is the same as NaN. Else as above. */
bool sel_value_same(const struct sel_value *a, const struct sel_value *b);

/* Truth as the original's language has it: null, false, 0, 0.0, empty text, list, map: false. */
bool sel_value_is_true(const struct sel_value *v);

/* Makers by value; texts and elements are borrowed and must live as long as the value. Texts are
 * taken as they are: one that may not be UTF-8 must be checked first (sel_str_is_utf8), or nobody
 * will decode it. At most UINT32_MAX bytes. */
struct sel_value sel_value_from_bool(bool b);
struct sel_value sel_value_from_i64(int64_t i);
struct sel_value sel_value_from_u64(uint64_t i);
struct sel_value sel_value_from_f64(double f);
struct sel_value sel_value_from_str(struct sel_str s);
struct sel_value sel_value_from_bin(struct sel_str s);
struct sel_value sel_value_from_c(const char *text); /* NULL makes null */
struct sel_value sel_value_from_list(const struct sel_value *items, uint32_t count);

/* Building lists and maps in an arena. Elements are copied shallowly; errors stick until
 * sel_value_end. */
struct sel_value_builder {
    struct sel_arena *arena;
    struct sel_value *items; /* for a map: key, value, key, value */
    uint32_t count, cap;
    bool is_map;
    bool failed;
};
void sel_value_begin_list(struct sel_value_builder *b, struct sel_arena *arena);
void sel_value_begin_map(struct sel_value_builder *b, struct sel_arena *arena);
void sel_value_add(struct sel_value_builder *b, struct sel_value item);
void sel_value_put(struct sel_value_builder *b, struct sel_str key, struct sel_value item);
void sel_value_put_c(struct sel_value_builder *b, const char *key, struct sel_value item);
void sel_value_put_key(struct sel_value_builder *b, struct sel_value key, struct sel_value item);
/* 0 and *ret set, or SEL_ENOMEM. */
int sel_value_end(struct sel_value_builder *b, struct sel_value *ret) SEL_WARN_UNUSED;

/* Appends the msgpack encoding to `buf` (its errors stick; beyond SEL_VALUE_DEPTH_MAX it fails with
 * SEL_ELIMIT). */
void sel_value_encode(const struct sel_value *v, struct sel_buf *buf);

/* Decodes exactly one value that fills all `n` bytes.
 *
 * Counts, depth and sizes are bounded by the input before anything is reserved. Texts point into
 * `p` unless `copy`: then they are copied to the arena. Text must be UTF-8.
 * 0; SEL_EFORMAT damaged, cut or trailing bytes; SEL_ELIMIT too deep; SEL_ENOMEM. */
int sel_value_decode(struct sel_arena *arena, const void *p, size_t n, bool copy,
                     struct sel_value *ret, struct sel_error *err) SEL_WARN_UNUSED;

/* Deep copy into an arena, texts included. 0; SEL_ENOMEM; SEL_ELIMIT too deep. */
int sel_value_copy(struct sel_arena *arena, const struct sel_value *v,
                   struct sel_value *ret) SEL_WARN_UNUSED;

/* Bytes of an encoded null (0xc0), for "no arguments". */
extern const uint8_t sel_value_null_bytes[1];

#endif
