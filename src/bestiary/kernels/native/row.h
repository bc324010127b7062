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
/* A super-block's groups are unrolled, so that the shifts in its F_group are constants. */
#define UNROLL _Pragma("GCC unroll 8")

/* A row is taken in pieces of this many blocks, for their scales to have room in the first-level cache. */
enum { OF(_piece) = PIECE / BLOCK };

static void OF(_decode)(const uint8_t *row, float *dst, size_t columns) {
    float s[ROOM(PIECE / BLOCK)], o[ROOM(PIECE / BLOCK)];
    for (size_t left = columns / BLOCK; left;) {
        size_t n = left < OF(_piece) ? left : OF(_piece);
        OF(_open)(row, n, s, o);
        for (size_t b = 0; b < n; b++, row += BYTES) {
            UNROLL
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
/* y[j][r] += products of one or two rows of `blocks` blocks, opened at s and o, with up to MOST_VECTORS vectors. `rows`
 * and `m` are constants where this is inlined. */
INLINE void OF(_few)(const uint8_t *w, size_t row_bytes, const size_t rows, size_t blocks, const float *s,
                     const float *o, const float *x, size_t x_step, const size_t m, float *y, size_t y_step) {
    v16 sums[2][MOST_VECTORS][2];
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < m; j++) sums[r][j][0] = sums[r][j][1] = v_zero();
    for (size_t b = 0; b < blocks; b++) {
        UNROLL
        for (size_t g = 0; g < BLOCK / 32; g++, x += 32)
            for (size_t r = 0; r < rows; r++) {
                size_t at = (r * blocks + b) * SCALES;
                v16 w0, w1;
                OF(_group)(w + r * row_bytes + b * BYTES, g, s + at, o + at, &w0, &w1);
                for (size_t j = 0; j < m; j++) {
                    sums[r][j][0] = v_fma(w0, v_load(x + j * x_step), sums[r][j][0]);
                    sums[r][j][1] = v_fma(w1, v_load(x + j * x_step + 16), sums[r][j][1]);
                }
            }
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < m; j++) y[j * y_step + r] += v_sum(v_add(sums[r][j][0], sums[r][j][1]));
}

/* Ask for the bytes that come AHEAD bytes after these rows, into the second-level cache. Processors foresee the next
 * lines, but not the next page. */
INLINE void OF(_foresee)(const uint8_t *w, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(w + AHEAD + i, 0, 2);
}

static void OF(_dot)(const uint8_t *w, size_t row_bytes, size_t rows, size_t columns, const float *x, size_t x_step,
                     size_t m, float *y, size_t y_step) {
    float s[ROOM(2 * PIECE / BLOCK)], o[ROOM(2 * PIECE / BLOCK)];
    for (size_t j = 0; j < m; j++) memset(y + j * y_step, 0, rows * sizeof *y);
    for (size_t left = columns / BLOCK, blocks; left; left -= blocks, w += blocks * BYTES, x += blocks * BLOCK) {
        blocks = left < OF(_piece) ? left : OF(_piece);
        /* The scales of a strip of rows are read together: of two rows, or of more when they are short. */
        size_t strip = STRIP / BLOCK / blocks / 2 * 2;
        strip = strip < 2 ? 2 : strip;
        for (size_t r = 0, n; r < rows; r += n) {
            const uint8_t *p = w + r * row_bytes;
            n = rows - r < strip ? rows - r : strip;
            if (row_bytes == blocks * BYTES) OF(_open)(p, n * blocks, s, o);
            else
                for (size_t i = 0; i < n; i++)
                    OF(_open)(p + i * row_bytes, blocks, s + i * blocks * SCALES, o + i * blocks * SCALES);
            for (size_t j = 0, k; j < m; j += k) {
                k = m - j >= MOST_VECTORS ? MOST_VECTORS : m - j >= 4 ? 4 : m - j;
                const float *xj = x + j * x_step;
                for (size_t i = 0, two; i < n; i += two) {
                    two = k < 3 && n - i > 1 ? 2 : 1;
                    const uint8_t *row = p + i * row_bytes;
                    const float *si = s + i * blocks * SCALES, *oi = o + i * blocks * SCALES;
                    float *out = y + j * y_step + r + i;
                    if (j == 0) OF(_foresee)(row, two * blocks * BYTES);
#define FEW(N, K) \
    if (two == N && k == K) OF(_few)(row, row_bytes, N, blocks, si, oi, xj, x_step, K, out, y_step)
                    FEW(2, 1);
                    FEW(2, 2);
                    FEW(1, 1);
                    FEW(1, 2);
                    FEW(1, 3);
                    FEW(1, 4);
                    FEW(1, 8);
#undef FEW
                }
            }
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
#undef UNROLL
#undef F
#undef BLOCK
#undef BYTES
