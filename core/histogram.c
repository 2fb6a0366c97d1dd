#include "core/histogram.h"

#include "core/assert.h"

/* Values below 2 * SUB have a bucket of their own; above, the top bit and the five below it choose
 * one. */
static uint32_t bucket_of(uint64_t value)
{
    if (value < 2 * SEL_HISTOGRAM_SUB)
        return (uint32_t)value;
    uint32_t shift = 63 - (uint32_t)__builtin_clzll(value) - 5;
    return shift * SEL_HISTOGRAM_SUB + (uint32_t)(value >> shift);
}

/* The largest value of a bucket. */
static int64_t bucket_end(uint32_t bucket)
{
    if (bucket < 2 * SEL_HISTOGRAM_SUB)
        return bucket;
    uint32_t shift = bucket / SEL_HISTOGRAM_SUB - 1;
    uint64_t first = (uint64_t)(bucket % SEL_HISTOGRAM_SUB + SEL_HISTOGRAM_SUB) << shift;
    return (int64_t)(first + (UINT64_C(1) << shift) - 1);
}

void sel_histogram_add(struct sel_histogram *h, int64_t value)
{
    uint32_t bucket = bucket_of(value < 0 ? 0 : (uint64_t)value);
    SEL_ASSERT(bucket < SEL_HISTOGRAM_BUCKETS);
    h->buckets[bucket]++;
    h->count++;
    if (value > h->max)
        h->max = value;
}

int64_t sel_histogram_quantile(const struct sel_histogram *h, double q)
{
    uint64_t rank = (uint64_t)((double)h->count * q);
    uint64_t seen = 0;
    if (h->count == 0)
        return 0;
    if (rank >= h->count)
        rank = h->count - 1;
    for (uint32_t i = 0; i < SEL_HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > rank)
            return bucket_end(i) < h->max ? bucket_end(i) : h->max;
    }
    return h->max;
}

void sel_histogram_merge(struct sel_histogram *h, const struct sel_histogram *from)
{
    for (uint32_t i = 0; i < SEL_HISTOGRAM_BUCKETS; i++)
        h->buckets[i] += from->buckets[i];
    h->count += from->count;
    if (from->max > h->max)
        h->max = from->max;
}
