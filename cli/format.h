/* cli/format.h - numbers and times as people read and write them. Pure. */
#ifndef SEL_CLI_FORMAT_H
#define SEL_CLI_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#define SEL_CLI_FORMAT_SIZE 32

/* "1,204". Returns out. */
const char *sel_cli_format_count(uint64_t count, char out[SEL_CLI_FORMAT_SIZE]);
/* "0 s", "870 us", "41 ms", "4.8 s", "3 min 20 s", "2 h 5 min". Negative counts as 0. Returns out.
 */
const char *sel_cli_format_time(int64_t us, char out[SEL_CLI_FORMAT_SIZE]);
/* "00:00:04", hours as many as it takes. Returns out. */
const char *sel_cli_format_clock(int64_t us, char out[SEL_CLI_FORMAT_SIZE]);

/* "2026-01-31T12:00:00", a fraction, then Z, +HH:MM or nothing for local time. false: no time. */
bool sel_cli_parse_time(const char *text, int64_t *ret_unix_us);

#endif
