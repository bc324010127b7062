/* What a block of a Transformer does besides products with weights, for one token: norm, gate, attention.
 * Included once by each instruction set's file, after simd.h.
 */
#include "native.h"

#include <math.h>

/* exp(x) by 2^n * 2^f with |f| <= 1/2, and Taylor's terms of 2^f = e^(f ln 2) up to the seventh: under 2 units in the
 * last place, 0 below -87.3 and at most 2^127 above. */
INLINE v16 v_exp(v16 x) {
    /* The constants come first: of two operands of which one is not a number, the second is taken. */
    x = v_max(v_all(-87.3365447504019f), v_min(v_all(88.3762626647949f), x));
    v16 n = v_round(v_scale(x, 1.44269504088896341f));
    /* n ln 2 in two parts: the first has so few bits that its product with n is exact. */
    v16 f = v_fma(n, v_all(-0.693359375f), x);
    f = v_fma(n, v_all(2.12194440e-4f), f);
    v16 p = v_all(1.0f / 5040);
    p = v_fma(p, f, v_all(1.0f / 720));
    p = v_fma(p, f, v_all(1.0f / 120));
    p = v_fma(p, f, v_all(1.0f / 24));
    p = v_fma(p, f, v_all(1.0f / 6));
    p = v_fma(p, f, v_all(0.5f));
    p = v_fma(p, f, v_all(1));
    p = v_fma(p, f, v_all(1));
    return v_times_power(p, n);
}

/* The first n < 16 floats, and `rest` in the other places. */
INLINE v16 v_some(const float *p, size_t n, float rest) {
    float full[16];
    for (size_t i = 0; i < 16; i++) full[i] = i < n ? p[i] : rest;
    return v_load(full);
}
INLINE void v_store_some(float *p, v16 v, size_t n) {
    float full[16];
    v_store(full, v);
    memcpy(p, full, n * sizeof *p);
}

typedef float f8 __attribute__((vector_size(32)));
typedef double d8 __attribute__((vector_size(64)));

/* y = x / sqrt(mean(x^2) + eps) * weight: Zhang and Sennrich, 2019, arXiv 1910.07467.
 * The squares are summed in double, which costs nothing here and leaves no error of the order of summing. */
static void rms_norm(const float *x, const float *weight, size_t n, float eps, float *y) {
    d8 squares = {0};
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        f8 part;
        memcpy(&part, x + i, sizeof part);
        d8 wide = __builtin_convertvector(part, d8);
        squares += wide * wide;
    }
    double total = 0;
    for (int lane = 0; lane < 8; lane++) total += squares[lane];
    for (; i < n; i++) total += (double)x[i] * x[i];
    float scale = (float)(1 / sqrt(total / (double)n + eps));
    for (i = 0; i + 16 <= n; i += 16) v_store(y + i, v_mul(v_scale(v_load(x + i), scale), v_load(weight + i)));
    for (; i < n; i++) y[i] = x[i] * scale * weight[i];
}

/* gate = silu(gate) * up. */
static void swiglu(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i += 16) {
        size_t left = n - i < 16 ? n - i : 16;
        v16 g = left == 16 ? v_load(gate + i) : v_some(gate + i, left, 0);
        v16 u = left == 16 ? v_load(up + i) : v_some(up + i, left, 0);
        v16 y = v_mul(v_div(g, v_add(v_all(1), v_exp(v_scale(g, -1)))), u);
        if (left == 16) v_store(gate + i, y);
        else v_store_some(gate + i, y, left);
    }
}

/* Scores of one query with n keys `step` floats apart. parts: sixteenths of the channels. */
INLINE void scores(const float *q, const float *k, size_t step, size_t n, const size_t parts, float scale, float *s) {
    for (size_t j = 0; j < n; j++, k += step) {
        v16 a = v_mul(v_load(q), v_load(k)), b = v_zero();
        for (size_t i = 1; i < parts; i++) {
            if (i % 2) b = v_fma(v_load(q + 16 * i), v_load(k + 16 * i), b);
            else a = v_fma(v_load(q + 16 * i), v_load(k + 16 * i), a);
        }
        s[j] = v_sum(v_add(a, b)) * scale;
    }
}

/* s = exp(s - top) where top is the greatest, which is returned; the sum goes to *total. */
INLINE float soften(float *s, size_t n, float *total) {
    v16 top = v_all(-INFINITY), sum = v_zero();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) top = v_max(top, v_load(s + i));
    if (i < n) top = v_max(top, v_some(s + i, n - i, -INFINITY));
    float highest = v_top(top);
    for (i = 0; i + 16 <= n; i += 16) {
        v16 e = v_exp(v_sub(v_load(s + i), v_all(highest)));
        v_store(s + i, e);
        sum = v_add(sum, e);
    }
    *total = v_sum(sum);
    if (i < n) {
        v_store_some(s + i, v_exp(v_sub(v_some(s + i, n - i, highest), v_all(highest))), n - i);
        for (; i < n; i++) *total += s[i];
    }
    return highest;
}

/* out[r] = sum of s[r][j] v_j for `rows` queries, in `parts` sixteenths of the channels. */
INLINE void weigh(float (*s)[PIECE_KEYS], const float *v, size_t step, size_t n, const int rows, const int parts,
                  float *out, size_t out_step) {
    v16 sums[4][4];
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < parts; i++) sums[r][i] = v_zero();
    for (size_t j = 0; j < n; j++, v += step)
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < parts; i++) sums[r][i] = v_fma(v_load(v + 16 * i), v_all(s[r][j]), sums[r][i]);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < parts; i++) v_store(out + (size_t)r * out_step + 16 * i, sums[r][i]);
}

/* A piece of attention: `rows` queries of one key head over n <= PIECE_KEYS keys and values, `step` floats apart. Each
 * query leaves out[0] = the greatest score, out[1] = the sum of weights, out[2...] = the weighted sum of values. */
static void attend(const float *q, size_t rows, const float *k, const float *v, size_t step, size_t n, size_t dim,
                   float scale, float *out, size_t out_step) {
    float s[4][PIECE_KEYS];
    for (size_t r = 0; r < rows; r += 4, q += 4 * dim, out += 4 * out_step) {
        int some = rows - r < 4 ? (int)(rows - r) : 4;
        for (int i = 0; i < some; i++) {
            if (dim == 64) scores(q + (size_t)i * dim, k, step, n, 4, scale, s[i]);
            else if (dim == 128) scores(q + (size_t)i * dim, k, step, n, 8, scale, s[i]);
            else scores(q + (size_t)i * dim, k, step, n, dim / 16, scale, s[i]);
            float *head = out + (size_t)i * out_step;
            head[0] = soften(s[i], n, &head[1]);
        }
        size_t c = 0;
        for (; c + 64 <= dim; c += 64) {
            if (some == 1) weigh(s, v + c, step, n, 1, 4, out + 2 + c, out_step);
            if (some == 2) weigh(s, v + c, step, n, 2, 4, out + 2 + c, out_step);
            if (some == 3) weigh(s, v + c, step, n, 3, 4, out + 2 + c, out_step);
            if (some == 4) weigh(s, v + c, step, n, 4, 4, out + 2 + c, out_step);
        }
        for (; c < dim; c += 16) weigh(s, v + c, step, n, some, 1, out + 2 + c, out_step);
    }
}
