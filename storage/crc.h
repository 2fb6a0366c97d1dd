/* storage/crc.h - CRC-32C (Castagnoli), the checksum of records on disk. */
#ifndef SEL_STORAGE_CRC_H
#define SEL_STORAGE_CRC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The checksum of what `crc` is the checksum of (0: of nothing) followed by these bytes. */
uint32_t sel_crc32c(uint32_t crc, const void *p, size_t n);
/* The same without the instruction of the CPU; for tests. */
uint32_t sel_crc32c_portable(uint32_t crc, const void *p, size_t n);

#endif
