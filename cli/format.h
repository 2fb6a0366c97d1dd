/* cli/format.h - numbers as people read them. Pure. */
#ifndef SEL_CLI_FORMAT_H
#define SEL_CLI_FORMAT_H

#include <stdint.h>

#define SEL_CLI_FORMAT_SIZE 32

/* "1,204". Returns out. */
const char *sel_cli_format_count(uint64_t count, char out[SEL_CLI_FORMAT_SIZE]);
/* "0 s", "870 us", "41 ms", "4.8 s", "3 min 20 s", "2 h 5 min". Negative counts as 0. Returns out.
 */
const char *sel_cli_format_time(int64_t us, char out[SEL_CLI_FORMAT_SIZE]);
/* "00:00:04", hours as many as it takes. Returns out. */
const char *sel_cli_format_clock(int64_t us, char out[SEL_CLI_FORMAT_SIZE]);

#endif
