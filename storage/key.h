/* storage/key.h - task ids as compact, ordered keys.
 *
 * The engine's own ids, `<flow id>-<attempt>.<ordinal>`, become 25 bytes whose order is that of
 * flow, attempt and ordinal: results of one flow lie side by side, and new ones mostly at the end.
 * Any other id stays text. Two different ids never make one key. This is a format on disk. */
#ifndef SEL_STORAGE_KEY_H
#define SEL_STORAGE_KEY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/str.h"

#define SEL_STORAGE_KEY_MAX 511 /* what LMDB takes */
#define SEL_STORAGE_KEY_REFUSED "the task id is empty or longer than 510 bytes"

struct sel_storage_key {
    uint32_t n;
    uint8_t bytes[SEL_STORAGE_KEY_MAX];
};

/* false: the id is empty or too long. */
bool sel_storage_key_encode(struct sel_str id, struct sel_storage_key *ret);

#endif
