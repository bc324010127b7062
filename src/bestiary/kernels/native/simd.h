/* Sixteen floats and sixteen bytes at a time, in three ways: AVX-512, AVX2 with FMA and F16C, plain C.
 *
 * A file that includes this defines ISA_AVX512 or ISA_AVX2, or neither. Everything here is inlined into it, so one
 * shared library holds all three and the processor is asked at run time which to call (see api.c). Plain C serves
 * other processors: its loops of sixteen become NEON or SSE2 under any optimising compiler.
 *
 * Decoded weights equal ggml's to the last bit although v_fma rounds once where ggml rounds twice: a scale has 11 or,
 * after a product with a six-bit integer, 17 significant bits, an element at most 6, so their product is exact.
 */
#ifndef BESTIARY_SIMD_H
#define BESTIARY_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline, unused))
#define PRAGMA(text) _Pragma(#text)
#define UNROLL(n) PRAGMA(GCC unroll n)

typedef uint8_t b16 __attribute__((vector_size(16)));
typedef uint8_t b32 __attribute__((vector_size(32)));
typedef int8_t s16 __attribute__((vector_size(16)));

INLINE b16 b_load(const uint8_t *p) {
    b16 b;
    memcpy(&b, p, sizeof b);
    return b;
}

/* Thirty-two bytes, the bits of each moved so that bit `from` becomes bit `to`; the caller masks what it wants. */
INLINE b32 b_moved(const uint8_t *p, const int from, const int to) {
    b32 b;
    memcpy(&b, p, sizeof b);
    return from > to ? b >> (from - to) : b << (to - from);
}

/* The sixteen values of IQ4_NL and IQ4_XS (ggml-common.h, kvalues_iq4nl), and Q4_0's: a nibble less eight. */
static const s16 IQ4 = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const s16 CENTRED = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};

#if defined(ISA_AVX512)
#include "simd_avx512.h"
#elif defined(ISA_AVX2)
#include "simd_avx2.h"
#else
#include "simd_plain.h"
#endif

/* What follows is written with the above only. */

/* s * q for sixteen signed bytes. */
INLINE v16 v_scaled(b16 q, float s) { return v_scale(v_bytes(q), s); }

/* s * q + o for sixteen signed bytes. */
INLINE v16 v_affine(b16 q, float s, float o) { return v_fma(v_bytes(q), v_all(s), v_all(o)); }

#endif
