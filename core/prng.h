/* core/prng.h - seeded pseudo-random numbers (splitmix64, Steele, Lea and Flood 2014). */
#ifndef SEL_CORE_PRNG_H
#define SEL_CORE_PRNG_H

#include <stdint.h>

struct sel_prng {
    uint64_t state;
};

static inline uint64_t sel_prng_next(struct sel_prng *prng)
{
    uint64_t z = (prng->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Uniform in [0, bound), bound > 0; the bias is below 2^-32 for bounds below 2^32. */
static inline uint64_t sel_prng_below(struct sel_prng *prng, uint64_t bound)
{
    return (uint64_t)(((unsigned __int128)sel_prng_next(prng) * bound) >> 64);
}

#endif
