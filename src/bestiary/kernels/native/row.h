/* One format's rows: decoding, and products with a few vectors. A template: the includer defines
 *
 *     F        the format's name, as in F_open and F_group
 *     BLOCK    elements of a block, 32 or 256
 *     BYTES    bytes of a block
 *
 * and gets the functions F_decode and F_dot. See rows.h.
 */
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define OF(name) JOIN(F, name)

/* Groups of 32 elements in a chunk, whose scales are read in one go. A super-block's eight are unrolled, so that the
 * shifts in its F_group are constants. */
#if BLOCK == 256
#define GROUPS(left) 8
#define UNROLL _Pragma("GCC unroll 8")
#else
#define GROUPS(left) ((left) < 16 ? (int)(left) : 16)
#define UNROLL
#endif

static void OF(_decode)(const uint8_t *row, float *dst, size_t columns) {
    for (size_t left = columns / 32; left;) {
        const int n = GROUPS(left);
        chunk c;
        OF(_open)(row, n, &c);
        UNROLL
        for (int g = 0; g < n; g++) {
            v16 w0, w1;
            OF(_group)(row, g, &c, &w0, &w1);
            v_store(dst + 32 * g, w0);
            v_store(dst + 32 * g + 16, w1);
        }
        dst += 32 * n;
        row += (size_t)n * 32 / BLOCK * BYTES;
        left -= (size_t)n;
    }
}

#ifndef ISA_PLAIN
/* Products of one or two rows with a few vectors. `rows` and `m` are constants where this is inlined. */
INLINE void OF(_few)(const uint8_t *w, size_t row_bytes, const int rows, size_t columns, const float *x, size_t x_step,
                     const int m, float *y, size_t y_step) {
    v16 sums[2][MOST_VECTORS][2];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < m; j++) sums[r][j][0] = sums[r][j][1] = v_zero();
    for (size_t left = columns / 32; left;) {
        const int n = GROUPS(left);
        chunk c[2];
        for (int r = 0; r < rows; r++) OF(_open)(w + (size_t)r * row_bytes, n, &c[r]);
        UNROLL
        for (int g = 0; g < n; g++)
            for (int r = 0; r < rows; r++) {
                v16 w0, w1;
                OF(_group)(w + (size_t)r * row_bytes, g, &c[r], &w0, &w1);
                for (int j = 0; j < m; j++) {
                    const float *xj = x + (size_t)j * x_step + 32 * g;
                    sums[r][j][0] = v_fma(w0, v_load(xj), sums[r][j][0]);
                    sums[r][j][1] = v_fma(w1, v_load(xj + 16), sums[r][j][1]);
                }
            }
        x += 32 * n;
        w += (size_t)n * 32 / BLOCK * BYTES;
        left -= (size_t)n;
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < m; j++) y[(size_t)j * y_step + (size_t)r] = v_sum(v_add(sums[r][j][0], sums[r][j][1]));
}
#endif

#include "row_dot.h"

#undef GROUPS
#undef UNROLL
#undef F
#undef BLOCK
#undef BYTES
