#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "storage/key.h"
#include "storage/record.h"

/* Bytes as a record: nothing is read beyond them. Bytes as parts of one: they come back. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t packed[1 << 16];
    struct sel_str all = {(const char *)data, size}, got[SEL_RECORD_PARTS_MAX];
    struct sel_storage_key key;
    for (uint32_t count = 1; count <= SEL_RECORD_PARTS_MAX; count++)
        if (sel_record_unpack(SEL_STR("key"), all, got, count) == 0)
            SEL_ASSERT(got[count - 1].p + got[count - 1].n == all.p + all.n);
    (void)sel_storage_key_encode(all, &key);
    size_t cut = size ? data[0] % size : 0;
    const struct sel_str parts[] = {{all.p, cut}, {all.p, size}, {all.p + cut, size - cut}};
    size_t n = sel_record_size(parts, 3);
    if (n > sizeof(packed))
        return 0;
    sel_record_pack(packed, all, parts, 3);
    SEL_ASSERT(sel_record_unpack(all, (struct sel_str){(char *)packed, n}, got, 3) == 0);
    for (uint32_t i = 0; i < 3; i++)
        SEL_ASSERT(sel_str_eq(got[i], parts[i]));
    return 0;
}
