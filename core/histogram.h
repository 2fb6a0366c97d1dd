/* core/histogram.h - counts of durations in buckets of about 3 % width.
 *
 * Log-linear: 32 buckets for each power of two, exact below 64. No memory is allocated; adding is
 * a few instructions. Not thread safe. */
#ifndef SEL_CORE_HISTOGRAM_H
#define SEL_CORE_HISTOGRAM_H

#include <stdint.h>

#define SEL_HISTOGRAM_SUB 32
#define SEL_HISTOGRAM_BUCKETS (60 * SEL_HISTOGRAM_SUB)

struct sel_histogram {
    uint64_t count;
    int64_t max;
    uint64_t buckets[SEL_HISTOGRAM_BUCKETS];
};

/* `value` below 0 counts as 0. */
void sel_histogram_add(struct sel_histogram *h, int64_t value);
/* The value below or at which a share `q` (0..1) of the values lies, as the upper end of its
 * bucket, at most the largest value; 0 if there is none. */
int64_t sel_histogram_quantile(const struct sel_histogram *h, double q);
/* Adds all of `from`. */
void sel_histogram_merge(struct sel_histogram *h, const struct sel_histogram *from);

#endif
