#include "core/assert.h"

#include <stdio.h>
#include <stdlib.h>

void sel_assert_fail(const char *file, int line, const char *cond)
{
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, cond);
    abort();
}
