#include "worker/details.h"

#include <math.h>

void sel_details_begin(struct sel_details *details, struct sel_arena *arena)
{
    details->arena = arena;
    sel_value_begin_map(&details->map, arena);
}

void sel_details_value(struct sel_details *details, const char *key, struct sel_value value)
{
    sel_value_put_c(&details->map, key, value);
}

void sel_details_text(struct sel_details *details, const char *key, const char *text)
{
    sel_details_value(details, key, sel_value_from_c(text));
}

void sel_details_str(struct sel_details *details, const char *key, struct sel_str text)
{
    sel_details_value(details, key, sel_value_from_str(text));
}

void sel_details_int(struct sel_details *details, const char *key, int64_t number)
{
    sel_details_value(details, key, sel_value_from_i64(number));
}

void sel_details_bool(struct sel_details *details, const char *key, bool value)
{
    sel_details_value(details, key, sel_value_from_bool(value));
}

void sel_details_seconds(struct sel_details *details, const char *key, double seconds)
{
    if (seconds < 0)
        sel_details_value(details, key, sel_value_null);
    else if (seconds < 1e15 && seconds == floor(seconds))
        sel_details_int(details, key, (int64_t)seconds);
    else
        sel_details_value(details, key, sel_value_from_f64(seconds));
}

void sel_details_encoded(struct sel_details *details, const char *key, struct sel_str bytes)
{
    struct sel_value value = sel_value_null;
    if (bytes.n > 0 && sel_value_decode(details->arena, bytes.p, bytes.n, false, &value, NULL) < 0)
        value = sel_value_null;
    sel_details_value(details, key, value);
}

struct sel_value sel_details_end(struct sel_details *details)
{
    struct sel_value value;
    if (sel_value_end(&details->map, &value) < 0) {
        value = sel_value_null;
        value.o.type = MSGPACK_OBJECT_MAP; /* of size 0 */
    }
    return value;
}
