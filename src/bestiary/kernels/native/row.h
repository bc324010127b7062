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

/* Scales of a block, and floats for the scales of `blocks` blocks. */
#define SCALES (BLOCK == 32 ? 1 : 16)
#define ROOM(blocks) ((blocks) * SCALES + 16)

/* A row is taken in pieces of this many blocks, for their scales to have room in the first-level cache. */
enum { OF(_piece) = PIECE / BLOCK };

static void OF(_decode)(const uint8_t *row, float *dst, size_t columns) {
    float s[ROOM(PIECE / BLOCK)], o[ROOM(PIECE / BLOCK)];
    for (size_t left = columns / BLOCK; left;) {
        size_t n = left < OF(_piece) ? left : OF(_piece);
        OF(_open)(row, n, s, o);
        for (size_t b = 0; b < n; b++, row += BYTES) {
            /* Unrolled, so that the shifts in F_group are constants. */
            UNROLL(8)
            for (size_t g = 0; g < BLOCK / 32; g++, dst += 32) {
                v16 w0, w1;
                OF(_group)(row, g, s + b * SCALES, o + b * SCALES, &w0, &w1);
                v_store(dst, w0);
                v_store(dst + 16, w1);
            }
        }
        left -= n;
    }
}

#ifndef ISA_PLAIN
/* y[j][r] += products of a few rows of `blocks` blocks, opened at s and o, with a few vectors. `rows` and `m` are
 * constants where this is inlined; rows * m is 4 at most. */
INLINE void OF(_few)(const uint8_t *w, size_t row_bytes, const size_t rows, size_t blocks, const float *s,
                     const float *o, const float *x, size_t x_step, const size_t m, float *y, size_t y_step) {
    v16 sums[4][2];
    for (size_t i = 0; i < rows * m; i++) sums[i][0] = sums[i][1] = v_zero();
    for (size_t b = 0; b < blocks; b++) {
        UNROLL(8)
        for (size_t g = 0; g < BLOCK / 32; g++, x += 32)
            for (size_t r = 0; r < rows; r++) {
                size_t at = (r * blocks + b) * SCALES;
                v16 w0, w1;
                OF(_group)(w + r * row_bytes + b * BYTES, g, s + at, o + at, &w0, &w1);
                for (size_t j = 0; j < m; j++) {
                    v16 *sum = sums[j * rows + r];
                    sum[0] = v_fma(w0, v_load(x + j * x_step), sum[0]);
                    sum[1] = v_fma(w1, v_load(x + j * x_step + 16), sum[1]);
                }
            }
    }
    v16 whole[4];
    for (size_t i = 0; i < rows * m; i++) whole[i] = v_add(sums[i][0], sums[i][1]);
    if (rows == 4 && m == 1) v_sum4(whole, y);
    else
        for (size_t i = 0; i < rows * m; i++) y[i / rows * y_step + i % rows] += v_sum(whole[i]);
}

/* Read the scales of a strip of n rows. */
INLINE void OF(_open_rows)(const uint8_t *w, size_t row_bytes, size_t n, size_t blocks, float *s, float *o) {
    if (row_bytes == blocks * BYTES) {
        OF(_open)(w, n * blocks, s, o);
        return;
    }
    for (size_t i = 0; i < n; i++, w += row_bytes, s += blocks * SCALES, o += blocks * SCALES) OF(_open)(w, blocks, s, o);
}

/* A strip of rows times m < MANY vectors. */
INLINE void OF(_strip)(const uint8_t *w, size_t row_bytes, size_t rows, size_t blocks, const float *s, const float *o,
                       const float *x, size_t x_step, size_t m, float *y, size_t y_step) {
    for (size_t r = 0, n; r < rows; r += n) {
        n = m == 1 && rows - r >= MOST_ROWS ? MOST_ROWS : m == 2 && rows - r >= 2 ? 2 : 1;
        const uint8_t *p = w + r * row_bytes;
        /* What comes AHEAD bytes later is asked for, into the second-level cache: processors foresee the next lines, but
         * not the next page. */
        for (size_t i = 0; i < n * blocks * BYTES; i += 256)
            for (size_t line = 0; line < 256; line += 64) __builtin_prefetch(p + AHEAD + i + line, 0, 2);
#define FEW(N, M) \
    if (n == N && m == M) \
    OF(_few)(p, row_bytes, N, blocks, s + r * blocks * SCALES, o + r * blocks * SCALES, x, x_step, M, y + r, y_step)
        FEW(MOST_ROWS, 1);
        FEW(2, 2);
        FEW(1, 1);
        FEW(1, 2);
        FEW(1, 3);
        FEW(1, 4);
#undef FEW
    }
}

static void OF(_dot)(const uint8_t *w, size_t row_bytes, size_t rows, size_t columns, const float *x, size_t x_step,
                     size_t m, float *y, size_t y_step) {
    if (m >= MANY) {
        many(OF(_decode), BLOCK, BYTES, w, row_bytes, rows, columns, x, x_step, m, y, y_step);
        return;
    }
    float s[2][ROOM(MOST_ROWS * PIECE / BLOCK)], o[2][ROOM(MOST_ROWS * PIECE / BLOCK)];
    for (size_t j = 0; j < m; j++) memset(y + j * y_step, 0, rows * sizeof *y);
    for (size_t left = columns / BLOCK, blocks; left; left -= blocks, w += blocks * BYTES, x += blocks * BLOCK) {
        blocks = left < OF(_piece) ? left : OF(_piece);
        size_t strip = STRIP / BLOCK / blocks / MOST_ROWS * MOST_ROWS, n = 0;
        strip = strip < MOST_ROWS ? MOST_ROWS : strip;
        OF(_open_rows)(w, row_bytes, rows < strip ? rows : strip, blocks, s[0], o[0]);
        for (size_t r = 0, turn = 0; r < rows; r += n, turn ^= 1) {
            n = rows - r < strip ? rows - r : strip;
            /* The next strip's scales are read before this one is computed, which hides how long that takes. */
            size_t next = rows - r - n < strip ? rows - r - n : strip;
            OF(_open_rows)(w + (r + n) * row_bytes, row_bytes, next, blocks, s[turn ^ 1], o[turn ^ 1]);
            OF(_strip)(w + r * row_bytes, row_bytes, n, blocks, s[turn], o[turn], x, x_step, m, y + r, y_step);
        }
    }
}
#else
static void OF(_dot)(const uint8_t *w, size_t row_bytes, size_t rows, size_t columns, const float *x, size_t x_step,
                     size_t m, float *y, size_t y_step) {
    decoded_dot(OF(_decode), BLOCK, BYTES, w, row_bytes, rows, columns, x, x_step, m, y, y_step);
}
#endif

#undef ROOM
#undef SCALES
#undef F
#undef BLOCK
#undef BYTES
