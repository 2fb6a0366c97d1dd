/* tests/support/wire_json.h - messages of the wire as the JSON of proto/vectors, and back.
 *
 * PROTOCOL.md, "Vectors", tells how they look. All is made in an arena, without a limit; what fails
 * fails the test. */
#ifndef SEL_TESTS_SUPPORT_WIRE_JSON_H
#define SEL_TESTS_SUPPORT_WIRE_JSON_H

#include "proto/wire.h"
#include "tests/support/test.h"

/* The bytes of a text of hex digits. */
struct sel_str sel_test_unhex(struct sel_arena *arena, struct sel_str hex);

/* Decodes a frame of any type; *ret is its JSON. 0, or what the decoder said: for DATA also what it
 * said of a record, *ret_record is then its number in the message, else 0. */
int sel_test_wire_to_json(struct sel_arena *arena, struct sel_str frame, struct sel_value *ret,
                          uint32_t *ret_record);
/* Encodes what `json` tells. */
void sel_test_wire_from_json(struct sel_arena *arena, const struct sel_value *json,
                             struct sel_buf *buf);
/* The same for one record; with `raw_fields` its fields are all in item.fields, else those that are
 * members are members. */
struct sel_wire_item sel_test_item_from_json(struct sel_arena *arena, const struct sel_value *json,
                                             bool raw_fields);

#endif
