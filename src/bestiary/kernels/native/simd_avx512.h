/* AVX-512 F, BW, VL and DQ. Included by simd.h alone. */
#include <immintrin.h>

typedef __m512 v16;
enum { MOST_ROWS = 4, SCORED = 4 }; /* SCORED: see scores */

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
/* In the order of v_sum4: a row's sum is the same alone as among four. */
INLINE float v_sum(v16 v) {
    v = _mm512_add_ps(v, _mm512_shuffle_ps(v, v, 0x4E));
    v = _mm512_add_ps(v, _mm512_shuffle_ps(v, v, 0xB1));
    __m256 two = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1)));
}
/* out[i] += the sum of v[i], for four: in a third of the steps that four times v_sum takes. */
INLINE void v_sum4(const v16 *v, float *out) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    __m512 low = _mm512_shuffle_ps(ab, cd, 0x44), high = _mm512_shuffle_ps(ab, cd, 0xEE);
    __m512 lanes = _mm512_add_ps(low, high); /* a, b, c, d in each quarter */
    __m256 two = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
    __m128 one = _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm_loadu_ps(out), one));
}
/* A register's width of lanes, for tile.h: as many vectors as leave room for the rows beside their sums. */
typedef __m512 lanes;
#define LANES 16
#define TILE_VECTORS 6
INLINE lanes l_all(float f) { return _mm512_set1_ps(f); }
INLINE lanes l_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void l_store(float *p, lanes v) { _mm512_storeu_ps(p, v); }
INLINE lanes l_fma(lanes a, lanes b, lanes c) { return _mm512_fmadd_ps(a, b, c); }

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

/* The words (two bytes) that stand `stride` bytes apart from p on, sixteen of them, and in *next those that follow each.
 * A gather would take a cycle an element; this takes one a register that is looked at, since stride is a constant. */
INLINE __m256i words(const uint8_t *p, const size_t stride, __m256i *next) {
    typedef uint16_t u16x32 __attribute__((vector_size(64)));
    const u16x32 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                         0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const u16x32 upper = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    __m512i at = (__m512i)(lane * (uint16_t)(stride / 2) + upper), found = _mm512_setzero_si512();
    UNROLL(16)
    for (size_t i = 0; i < (16 * stride + 63) / 64; i++) {
        __mmask32 here = 0;
        for (size_t e = 0; e < 32; e++) here |= (__mmask32)((e % 16 * stride + 2 * (e / 16)) / 64 == i) << e;
        size_t left = 16 * stride - 64 * i;
        __mmask32 inside = left < 64 ? (__mmask32)((1ull << left / 2) - 1) : ~(__mmask32)0;
        __m512i some = _mm512_maskz_loadu_epi16(inside, p + 64 * i);
        found = _mm512_mask_permutexvar_epi16(found, here, at, some);
    }
    *next = _mm512_extracti64x4_epi64(found, 1);
    return _mm512_castsi512_si256(found);
}

/* The float16 at the start of each of n blocks, and the one after it where second is not NULL. Sixteen are written at a
 * time, up to fifteen of them past the end. */
INLINE void halves(const uint8_t *p, const size_t stride, size_t n, float *first, float *second) {
    size_t i = 0;
    for (__m256i next; i + 16 <= n; i += 16, p += 16 * stride) {
        v_store(first + i, _mm512_cvtph_ps(words(p, stride, &next)));
        if (second) v_store(second + i, _mm512_cvtph_ps(next));
    }
    for (; i < n; i++, p += stride) {
        first[i] = half(p);
        if (second) second[i] = half(p + 2);
    }
}
