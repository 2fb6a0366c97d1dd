#include "cli/format.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define MS_US INT64_C(1000)
#define SECOND_US (1000 * MS_US)
#define MINUTE_US (60 * SECOND_US)
#define HOUR_US (60 * MINUTE_US)

const char *sel_cli_format_count(uint64_t count, char out[SEL_CLI_FORMAT_SIZE])
{
    char digits[24];
    size_t n = (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, count), o = 0;
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            out[o++] = ',';
        out[o++] = digits[i];
    }
    out[o] = '\0';
    return out;
}

/* `us` in units of `unit`, with one digit behind the point while it is below 10. */
static void format_unit(int64_t us, int64_t unit, const char *name, char *out)
{
    int64_t tenths = (us * 10 + unit / 2) / unit;
    if (tenths < 100 && tenths % 10 != 0)
        (void)snprintf(out, SEL_CLI_FORMAT_SIZE, "%" PRId64 ".%" PRId64 " %s", tenths / 10,
                       tenths % 10, name);
    else
        (void)snprintf(out, SEL_CLI_FORMAT_SIZE, "%" PRId64 " %s", (us + unit / 2) / unit, name);
}

const char *sel_cli_format_time(int64_t us, char out[SEL_CLI_FORMAT_SIZE])
{
    us = us < 0 ? 0 : us;
    if (us == 0)
        (void)snprintf(out, SEL_CLI_FORMAT_SIZE, "0 s");
    else if (us < MS_US)
        (void)snprintf(out, SEL_CLI_FORMAT_SIZE, "%" PRId64 " us", us);
    else if (us < SECOND_US - MS_US / 2)
        format_unit(us, MS_US, "ms", out);
    else if (us < MINUTE_US)
        format_unit(us, SECOND_US, "s", out);
    else if (us < HOUR_US)
        (void)snprintf(out, SEL_CLI_FORMAT_SIZE, "%" PRId64 " min %" PRId64 " s", us / MINUTE_US,
                       us % MINUTE_US / SECOND_US);
    else
        (void)snprintf(out, SEL_CLI_FORMAT_SIZE, "%" PRId64 " h %" PRId64 " min", us / HOUR_US,
                       us % HOUR_US / MINUTE_US);
    return out;
}

const char *sel_cli_format_clock(int64_t us, char out[SEL_CLI_FORMAT_SIZE])
{
    us = us < 0 ? 0 : us;
    (void)snprintf(out, SEL_CLI_FORMAT_SIZE, "%02" PRId64 ":%02" PRId64 ":%02" PRId64, us / HOUR_US,
                   us % HOUR_US / MINUTE_US, us % MINUTE_US / SECOND_US);
    return out;
}

bool sel_cli_parse_time(const char *text, int64_t *ret_unix_us)
{
    struct tm tm = {.tm_isdst = -1};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest)
        rest = strptime(text, "%Y-%m-%d %H:%M:%S", &tm);
    if (!rest)
        return false;
    int64_t us = 0, unit = 100000;
    if (*rest == '.')
        for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10)
            us += (*rest - '0') * unit;
    bool is_local = *rest == '\0';
    int hours = 0, minutes = 0, n = 0;
    char sign = '+';
    if (strcmp(rest, "Z") != 0 && !is_local &&
        (sscanf(rest, "%c%2d:%2d%n", &sign, &hours, &minutes, &n) != 3 || rest[n] != '\0' ||
         (sign != '+' && sign != '-')))
        return false;
    time_t seconds = is_local ? mktime(&tm) : timegm(&tm);
    int64_t offset = (hours * 60 + minutes) * 60;
    *ret_unix_us = ((int64_t)seconds - (sign == '-' ? -offset : offset)) * 1000000 + us;
    return seconds != (time_t)-1;
}
