#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/arena.h"
#include "core/json.h"
#include "storage/schema.h"

/* A schema, a NUL, a value: any schema compiles or is refused, any value is judged, and judged
 * alike a second time. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *split = size ? memchr(data, '\0', size) : NULL;
    size_t schema_n = split ? (size_t)(split - data) : size;
    struct sel_str schema_text = {(const char *)data, schema_n};
    struct sel_str value_text = {(const char *)data + schema_n + 1, size - schema_n - 1};
    struct sel_schema *schema = NULL;
    struct sel_error err = {0};
    /* A regular expression may take exponential time; that is the author's, and std::regex's. */
    if (size == 0 || memmem(data, size, "pattern", strlen("pattern")))
        return 0;
    if (sel_schema_compile("fuzz", schema_text, &schema, &err) < 0)
        return 0;
    struct sel_arena arena = {0};
    struct sel_value v;
    if (split && sel_json_parse(&arena, "fuzz", value_text, &v, NULL, NULL) == 0) {
        int first = sel_schema_validate(schema, &v, &err);
        SEL_ASSERT(first == 0 || err.text[0]);
        SEL_ASSERT(sel_schema_validate(schema, &v, NULL) == first);
    }
    sel_arena_done(&arena);
    sel_schema_free(schema);
    return 0;
}
