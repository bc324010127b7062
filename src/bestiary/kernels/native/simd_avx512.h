/* AVX-512 F, BW, VL and DQ. Included by simd.h alone. */
#include <immintrin.h>

typedef __m512 v16;
enum { MOST_VECTORS = 8 }; /* sixteen of 32 registers hold sums */

INLINE v16 v_zero(void) { return _mm512_setzero_ps(); }
INLINE v16 v_all(float f) { return _mm512_set1_ps(f); }
INLINE v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, v16 v) { _mm512_storeu_ps(p, v); }
INLINE v16 v_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
INLINE v16 v_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
INLINE v16 v_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
INLINE v16 v_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
INLINE v16 v_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
INLINE v16 v_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
INLINE v16 v_round(v16 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT); }
/* a * 2^n for whole n from -126 to 127. */
INLINE v16 v_times_power(v16 a, v16 n) { return _mm512_scalef_ps(a, n); }
INLINE v16 v_scale(v16 a, float f) { return _mm512_mul_ps(a, _mm512_set1_ps(f)); }
INLINE v16 v_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
INLINE float v_sum(v16 v) { return _mm512_reduce_add_ps(v); }
INLINE float v_top(v16 v) { return _mm512_reduce_max_ps(v); }

/* Sixteen signed bytes as floats. */
INLINE v16 v_bytes(b16 q) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32((__m128i)q)); }

/* The halves of thirty-two bytes. */
INLINE b16 b_first(const b32 *q) { return (b16)_mm256_castsi256_si128((__m256i)*q); }
INLINE b16 b_last(const b32 *q) { return (b16)_mm256_extracti128_si256((__m256i)*q, 1); }
/* Eight times a, eight times b. */
INLINE v16 v_both(float a, float b) { return _mm512_mask_blend_ps(0xFF00, _mm512_set1_ps(a), _mm512_set1_ps(b)); }

/* A table from a nibble to a float, looked up with vpermps: its index is the low four bits of each lane, so the
 * low half of a byte needs no mask, and scale and offset are paid once a block instead of once an element. */
typedef __m512 nib;

INLINE nib nib_affine(float s, float o) {
    const __m512 q = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_fmadd_ps(q, _mm512_set1_ps(s), _mm512_set1_ps(o));
}
INLINE nib nib_values(float s, s16 values) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32((__m128i)values)), _mm512_set1_ps(s));
}
INLINE v16 v_low(b16 raw, nib t) { return _mm512_permutexvar_ps(_mm512_cvtepu8_epi32((__m128i)raw), t); }
INLINE v16 v_high(b16 raw, nib t) {
    return _mm512_permutexvar_ps(_mm512_srli_epi32(_mm512_cvtepu8_epi32((__m128i)raw), 4), t);
}

/* Sixteen bytes that are `value` where the mask has a bit, else 0. */
INLINE b16 b_spread(uint32_t mask, uint8_t value) {
    return (b16)_mm_maskz_set1_epi8((__mmask16)mask, (char)value);
}

INLINE v16 v_halves(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE v16 v_bfloats(const uint8_t *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
INLINE float half(const uint8_t *p) {
    uint16_t bits;
    memcpy(&bits, p, 2);
    return _cvtsh_ss(bits);
}

/* The float16 at the start of each of n blocks, and the one after it where second is not NULL. Sixteen are written at a
 * time, up to fifteen of them past the end. */
INLINE void halves(const uint8_t *p, size_t stride, size_t n, float *first, float *second) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i at = _mm512_mullo_epi32(lane, _mm512_set1_epi32((int)stride));
    for (size_t i = 0; i < n; i += 16, p += 16 * stride) {
        __mmask16 some = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : 0xFFFF;
        __m512i pairs = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), some, at, p, 1);
        v_store(first + i, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(pairs)));
        if (second) v_store(second + i, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs, 16))));
    }
}
