/* C without intrinsics. Included by simd.h alone. */
#include <math.h>

typedef struct {
    float f[16];
} v16;
enum { SCORED = 1 };

#define EACH(expression)                        \
    v16 r;                                      \
    for (int i = 0; i < 16; i++) r.f[i] = (expression); \
    return r
INLINE v16 v_all(float f) { EACH(f); }
INLINE v16 v_zero(void) { EACH(0); }
INLINE v16 v_load(const float *p) { EACH(p[i]); }
INLINE v16 v_add(v16 a, v16 b) { EACH(a.f[i] + b.f[i]); }
INLINE v16 v_sub(v16 a, v16 b) { EACH(a.f[i] - b.f[i]); }
INLINE v16 v_mul(v16 a, v16 b) { EACH(a.f[i] * b.f[i]); }
INLINE v16 v_max(v16 a, v16 b) { EACH(a.f[i] > b.f[i] ? a.f[i] : b.f[i]); }
INLINE v16 v_min(v16 a, v16 b) { EACH(a.f[i] < b.f[i] ? a.f[i] : b.f[i]); }
INLINE v16 v_div(v16 a, v16 b) { EACH(a.f[i] / b.f[i]); }
INLINE v16 v_round(v16 a) { EACH(rintf(a.f[i])); }
/* a * 2^n for whole n from -126 to 127. */
INLINE float power(float n) {
    uint32_t bits = (uint32_t)((int)n + 127) << 23;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
INLINE v16 v_times_power(v16 a, v16 n) { EACH(a.f[i] * power(n.f[i])); }
INLINE v16 v_scale(v16 a, float f) { EACH(a.f[i] * f); }
INLINE v16 v_bytes(b16 q) { EACH((float)(int8_t)q[i]); }
#ifdef __FP_FAST_FMAF
INLINE v16 v_fma(v16 a, v16 b, v16 c) { EACH(fmaf(a.f[i], b.f[i], c.f[i])); }
#else
INLINE v16 v_fma(v16 a, v16 b, v16 c) { EACH(a.f[i] * b.f[i] + c.f[i]); }
#endif
INLINE void v_store(float *p, v16 v) { memcpy(p, v.f, sizeof v.f); }
INLINE float v_sum(v16 v) {
    for (int n = 8; n; n /= 2)
        for (int i = 0; i < n; i++) v.f[i] += v.f[i + n];
    return v.f[0];
}
INLINE void v_sum4(const v16 *v, float *out) {
    for (int i = 0; i < 4; i++) out[i] += v_sum(v[i]);
}

/* Four lanes, for tile.h: a register of NEON or SSE2. */
typedef float lanes __attribute__((vector_size(16)));
#define LANES 4
#define TILE_VECTORS 3
INLINE lanes l_all(float f) { return (lanes){f, f, f, f}; }
INLINE lanes l_load(const float *p) {
    lanes v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE void l_store(float *p, lanes v) { memcpy(p, &v, sizeof v); }
INLINE lanes l_fma(lanes a, lanes b, lanes c) {
#ifdef __FP_FAST_FMAF
    for (int i = 0; i < 4; i++) c[i] = fmaf(a[i], b[i], c[i]);
    return c;
#else
    return a * b + c;
#endif
}
INLINE float v_top(v16 v) {
    for (int n = 8; n; n /= 2)
        for (int i = 0; i < n; i++) v.f[i] = v.f[i] > v.f[i + n] ? v.f[i] : v.f[i + n];
    return v.f[0];
}

INLINE b16 b_first(const b32 *q) {
    b16 half;
    memcpy(&half, q, sizeof half);
    return half;
}
INLINE b16 b_last(const b32 *q) {
    b16 half;
    memcpy(&half, (const char *)q + 16, sizeof half);
    return half;
}
INLINE v16 v_both(float a, float b) { EACH(i < 8 ? a : b); }

typedef struct {
    float f[16];
} nib;

INLINE nib nib_affine(float s, float o) {
    nib t;
    for (int i = 0; i < 16; i++) t.f[i] = s * (float)i + o;
    return t;
}
INLINE nib nib_values(float s, s16 values) {
    nib t;
    for (int i = 0; i < 16; i++) t.f[i] = s * (float)values[i];
    return t;
}
INLINE v16 v_low(b16 raw, nib t) { EACH(t.f[raw[i] & 0x0F]); }
INLINE v16 v_high(b16 raw, nib t) { EACH(t.f[raw[i] >> 4]); }

INLINE b16 b_spread(uint32_t mask, uint8_t value) {
    const b16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8_t low = (uint8_t)mask, high = (uint8_t)(mask >> 8);
    b16 copied = {low, low, low, low, low, low, low, low, high, high, high, high, high, high, high, high};
    return (b16)((copied & bit) == bit) & value;
}

/* IEEE half to single: shift the exponent and the fraction into place, then let a product with 2^112 set the
 * exponent right; it is exact, and it normalises subnormals on the way. Infinity and NaN are put in by hand. */
#if defined(__aarch64__)
INLINE float half(const uint8_t *p) {
    __fp16 h;
    memcpy(&h, p, sizeof h);
    return (float)h;
}
#else
INLINE float half(const uint8_t *p) {
    uint32_t bits = (uint32_t)p[0] | (uint32_t)p[1] << 8, out;
    uint32_t magnitude = (bits & 0x7FFF) << 13;
    float f;
    memcpy(&f, &magnitude, 4);
    f *= 0x1p112f;
    memcpy(&out, &f, 4);
    if ((bits & 0x7C00) == 0x7C00) out = 0x7F800000 | (bits & 0x3FF) << 13 | (bits & 0x3FF ? 0x400000 : 0);
    out |= (bits & 0x8000) << 16;
    memcpy(&f, &out, 4);
    return f;
}
#endif
INLINE float bfloat(const uint8_t *p) {
    uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
INLINE v16 v_halves(const uint8_t *p) { EACH(half(p + 2 * i)); }
INLINE v16 v_bfloats(const uint8_t *p) { EACH(bfloat(p + 2 * i)); }
INLINE void halves(const uint8_t *p, size_t stride, size_t n, float *first, float *second) {
    for (size_t i = 0; i < n; i++) {
        first[i] = half(p + i * stride);
        if (second) second[i] = half(p + i * stride + 2);
    }
}
#undef EACH
