/* AVX2, FMA and F16C: a v16 is two registers. Included by simd.h alone. */
#include <immintrin.h>

typedef struct {
    __m256 a, b;
} v16;
enum { MOST_ROWS = 2, SCORED = 1 };

#define EACH(call) ((v16){call(p.a, q.a), call(p.b, q.b)})
INLINE v16 v_add(v16 p, v16 q) { return EACH(_mm256_add_ps); }
INLINE v16 v_sub(v16 p, v16 q) { return EACH(_mm256_sub_ps); }
INLINE v16 v_mul(v16 p, v16 q) { return EACH(_mm256_mul_ps); }
INLINE v16 v_max(v16 p, v16 q) { return EACH(_mm256_max_ps); }
INLINE v16 v_min(v16 p, v16 q) { return EACH(_mm256_min_ps); }
INLINE v16 v_div(v16 p, v16 q) { return EACH(_mm256_div_ps); }
#undef EACH
INLINE v16 v_all(float f) { return (v16){_mm256_set1_ps(f), _mm256_set1_ps(f)}; }
INLINE v16 v_zero(void) { return v_all(0); }
INLINE v16 v_load(const float *p) { return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE void v_store(float *p, v16 v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}
INLINE v16 v_round(v16 v) {
    const int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return (v16){_mm256_round_ps(v.a, mode), _mm256_round_ps(v.b, mode)};
}
INLINE __m256 eight_powers(__m256 n) {
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
/* v * 2^n for whole n from -126 to 127. */
INLINE v16 v_times_power(v16 v, v16 n) { return v_mul(v, (v16){eight_powers(n.a), eight_powers(n.b)}); }
INLINE v16 v_scale(v16 v, float f) { return v_mul(v, v_all(f)); }
INLINE v16 v_fma(v16 p, v16 q, v16 r) {
    return (v16){_mm256_fmadd_ps(p.a, q.a, r.a), _mm256_fmadd_ps(p.b, q.b, r.b)};
}
INLINE float v_sum(v16 v) {
    __m256 eight = _mm256_add_ps(v.a, v.b);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
INLINE void v_sum4(const v16 *v, float *out) {
    for (int i = 0; i < 4; i++) out[i] += v_sum(v[i]);
}
/* A register's width of lanes, for tile.h: as many vectors as leave room for the rows beside their sums. */
typedef __m256 lanes;
#define LANES 8
#define TILE_VECTORS 3
INLINE lanes l_all(float f) { return _mm256_set1_ps(f); }
INLINE lanes l_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void l_store(float *p, lanes v) { _mm256_storeu_ps(p, v); }
INLINE lanes l_fma(lanes a, lanes b, lanes c) { return _mm256_fmadd_ps(a, b, c); }

INLINE float v_top(v16 v) {
    __m256 eight = _mm256_max_ps(v.a, v.b);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

INLINE v16 v_bytes(b16 q) {
    __m128i raw = (__m128i)q, upper = _mm_srli_si128(raw, 8);
    return (v16){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(raw)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(upper))};
}

/* The halves of thirty-two bytes. */
INLINE b16 b_first(const b32 *q) { return (b16)_mm256_castsi256_si128((__m256i)*q); }
INLINE b16 b_last(const b32 *q) { return (b16)_mm256_extracti128_si256((__m256i)*q, 1); }
INLINE v16 v_both(float a, float b) { return (v16){_mm256_set1_ps(a), _mm256_set1_ps(b)}; }

typedef struct {
    s16 values;
    float s, o;
} nib;

static const s16 SELF = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

INLINE nib nib_affine(float s, float o) { return (nib){SELF, s, o}; }
INLINE nib nib_values(float s, s16 values) { return (nib){values, s, -0.0f}; } /* x + -0.0 is x, also for 0 */
INLINE v16 nib_value(b16 q, nib t) {
    b16 bytes = (b16)_mm_shuffle_epi8((__m128i)t.values, (__m128i)q);
    return v_fma(v_bytes(bytes), v_all(t.s), v_all(t.o));
}
INLINE v16 v_low(b16 raw, nib t) { return nib_value(raw & 0x0F, t); }
INLINE v16 v_high(b16 raw, nib t) { return nib_value(raw >> 4, t); }

INLINE b16 b_spread(uint32_t mask, uint8_t value) {
    const b16 byte = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    const b16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    b16 copied = (b16)_mm_shuffle_epi8(_mm_set1_epi16((short)mask), (__m128i)byte);
    return (b16)((copied & bit) == bit) & value;
}

INLINE v16 v_halves(const uint8_t *p) {
    __m128i first = _mm_loadu_si128((const __m128i *)p), second = _mm_loadu_si128((const __m128i *)(p + 16));
    return (v16){_mm256_cvtph_ps(first), _mm256_cvtph_ps(second)};
}
INLINE __m256 eight_bfloats(const uint8_t *p) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
INLINE v16 v_bfloats(const uint8_t *p) { return (v16){eight_bfloats(p), eight_bfloats(p + 16)}; }
INLINE float half(const uint8_t *p) {
    uint16_t bits;
    memcpy(&bits, p, 2);
    return _cvtsh_ss(bits);
}
INLINE void halves(const uint8_t *p, size_t stride, size_t n, float *first, float *second) {
    for (size_t i = 0; i < n; i++) {
        first[i] = half(p + i * stride);
        if (second) second[i] = half(p + i * stride + 2);
    }
}
