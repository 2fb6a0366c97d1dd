/* storage/record.h - a record as bytes: texts with their lengths, a format number, a checksum.
 *
 *   1 byte    SEL_RECORD_FORMAT
 *   4 bytes   CRC-32C of the key and of all that follows, little-endian
 *   parts     each but the last: varint length, bytes; the last: the bytes that are left
 *
 * The key is part of the checksum, so that a record under a wrong key is noticed too. This is a
 * format on disk. */
#ifndef SEL_STORAGE_RECORD_H
#define SEL_STORAGE_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "core/assert.h"
#include "core/str.h"

#define SEL_RECORD_FORMAT 1
#define SEL_RECORD_PARTS_MAX 4

size_t sel_record_size(const struct sel_str *parts, uint32_t count);
/* Writes sel_record_size bytes. */
void sel_record_pack(void *out, struct sel_str key, const struct sel_str *parts, uint32_t count);
/* Finds `count` parts; they point into `data`. 0; SEL_EFORMAT: damaged; SEL_EVERSION: a format
 * that this program does not know. */
int sel_record_unpack(struct sel_str key, struct sel_str data, struct sel_str *parts,
                      uint32_t count) SEL_WARN_UNUSED;

#endif
