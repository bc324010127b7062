/* What a block of a Transformer does besides products with weights, norm, gate, attention.
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

/* s[r][j] = the score of query r with key j, for keys `begin` up to `end`. A score is summed in one order, alone and
 * beside others. `queries` and `dim` are constants where this is inlined, if they can be. */
INLINE void scores(const float *const *q, const int queries, const float *k, const size_t *rows, size_t begin, size_t end,
                   const size_t dim, float scale, float (*s)[PIECE_KEYS]) {
    size_t j = begin;
    for (; j + 4 <= end; j += 4)
        for (int first = 0; first < queries; first += SCORED) {
            const int n = queries - first < SCORED ? queries - first : SCORED;
            v16 sums[SCORED][4];
            for (int r = 0; r < n; r++) sums[r][0] = sums[r][1] = sums[r][2] = sums[r][3] = v_zero();
            for (size_t c = 0; c < dim; c += 16) {
                v16 some[4];
                for (int i = 0; i < 4; i++) some[i] = v_load(k + rows[j + (size_t)i] + c);
                for (int r = 0; r < n; r++) {
                    v16 query = v_load(q[first + r] + c);
                    for (int i = 0; i < 4; i++) sums[r][i] = v_fma(query, some[i], sums[r][i]);
                }
            }
            for (int r = 0; r < n; r++) {
                float *four = s[first + r] + j;
                four[0] = four[1] = four[2] = four[3] = 0;
                v_sum4(sums[r], four);
                for (int i = 0; i < 4; i++) four[i] *= scale;
            }
        }
    for (; j < end; j++)
        for (int r = 0; r < queries; r++) {
            v16 sum = v_zero();
            for (size_t c = 0; c < dim; c += 16) sum = v_fma(v_load(q[r] + c), v_load(k + rows[j] + c), sum);
            s[r][j] = v_sum(sum) * scale;
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

/* out[r] += s[r][j] v_j for keys `begin` up to `end`, `count` queries, in `parts` sixteenths of the channels. */
INLINE void weigh(float (*s)[PIECE_KEYS], const float *v, const size_t *rows, size_t begin, size_t end, const int count,
                  const int parts, float *out, size_t out_step) {
    v16 sums[4][4];
    for (int r = 0; r < count; r++)
        for (int i = 0; i < parts; i++) sums[r][i] = v_load(out + (size_t)r * out_step + 16 * i);
    for (size_t j = begin; j < end; j++)
        for (int i = 0; i < parts; i++) {
            v16 value = v_load(v + rows[j] + 16 * i);
            for (int r = 0; r < count; r++) sums[r][i] = v_fma(value, v_all(s[r][j]), sums[r][i]);
        }
    for (int r = 0; r < count; r++)
        for (int i = 0; i < parts; i++) v_store(out + (size_t)r * out_step + 16 * i, sums[r][i]);
}

/* The same for a range of keys of each query: those that all see together, in order with those before and after. */
INLINE void weigh_ranges(float (*s)[PIECE_KEYS], const float *v, const size_t *rows, const size_t *begin,
                         const size_t *end, const int count, const int parts, float *out, size_t out_step) {
    size_t from = begin[0], to = end[0];
    for (int r = 1; r < count; r++) {
        from = begin[r] > from ? begin[r] : from;
        to = end[r] < to ? end[r] : to;
    }
    if (from > to) from = to; /* not all see any: then each by itself */
    if (from == to) {
        for (int r = 0; r < count; r++)
            weigh(s + r, v, rows, begin[r], end[r], 1, parts, out + (size_t)r * out_step, out_step);
        return;
    }
    for (int r = 0; r < count; r++)
        if (begin[r] < from) weigh(s + r, v, rows, begin[r], from, 1, parts, out + (size_t)r * out_step, out_step);
    weigh(s, v, rows, from, to, count, parts, out, out_step);
    for (int r = 0; r < count; r++)
        if (to < end[r]) weigh(s + r, v, rows, to, end[r], 1, parts, out + (size_t)r * out_step, out_step);
}

/* `queries` queries, each of its range of keys; `queries` is a constant where this is inlined. */
INLINE void attend_some(const float *const *q, const int queries, const float *k, const float *v, const size_t *rows,
                        const size_t *begin, const size_t *end, size_t dim, float scale, float *out, size_t out_step) {
    float s[SOME_QUERIES][PIECE_KEYS];
    size_t from = begin[0], to = end[0], c = 0;
    for (int r = 1; r < queries; r++) {
        from = begin[r] < from ? begin[r] : from;
        to = end[r] > to ? end[r] : to;
    }
    if (dim == 64) scores(q, queries, k, rows, from, to, 64, scale, s);
    else if (dim == 128) scores(q, queries, k, rows, from, to, 128, scale, s);
    else scores(q, queries, k, rows, from, to, dim, scale, s);
    for (int r = 0; r < queries; r++) {
        float *head = out + (size_t)r * out_step;
        memset(head, 0, out_step * sizeof *head);
        if (begin[r] < end[r]) head[0] = soften(s[r] + begin[r], end[r] - begin[r], &head[1]);
    }
    for (; c + 64 <= dim; c += 64) weigh_ranges(s, v + c, rows, begin, end, queries, 4, out + 16 + c, out_step);
    for (; c < dim; c += 16) weigh_ranges(s, v + c, rows, begin, end, queries, 1, out + 16 + c, out_step);
}

/* A piece of attention: up to SOME_QUERIES queries of one key head over the keys k + rows[j] and values v + rows[j], query
 * r over those from begin[r] up to end[r]. Each leaves out[0] = the greatest score, out[1] = the sum of weights, out[16...]
 * = the weighted sum of values. What it leaves does not depend on the queries beside it. */
static void attend(const float *const *q, int queries, const float *k, const float *v, const size_t *rows,
                   const size_t *begin, const size_t *end, size_t dim, float scale, float *out, size_t out_step) {
    if (queries == 1) attend_some(q, 1, k, v, rows, begin, end, dim, scale, out, out_step);
    if (queries == 2) attend_some(q, 2, k, v, rows, begin, end, dim, scale, out, out_step);
    if (queries == 3) attend_some(q, 3, k, v, rows, begin, end, dim, scale, out, out_step);
    if (queries == 4) attend_some(q, 4, k, v, rows, begin, end, dim, scale, out, out_step);
}
