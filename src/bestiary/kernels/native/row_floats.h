/* Rows of plain floats, 4 or 2 bytes wide: a template beside row.h, for any number of columns. The includer defines
 *
 *     F        the format's name
 *     BYTES    bytes of an element
 *     LOAD     sixteen elements from memory to a v16
 */
#define BLOCK 1
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define OF(name) JOIN(F, name)

/* The last n < 16 elements of a row, and zeros. */
INLINE v16 OF(_tail)(const uint8_t *p, size_t n) {
    uint8_t full[16 * BYTES] = {0};
    memcpy(full, p, n * BYTES);
    return LOAD(full);
}

static void OF(_decode)(const uint8_t *row, float *dst, size_t columns) {
    size_t i = 0;
    for (; i + 16 <= columns; i += 16) v_store(dst + i, LOAD(row + i * BYTES));
    if (i == columns) return;
    float last[16];
    v_store(last, OF(_tail)(row + i * BYTES, columns - i));
    memcpy(dst + i, last, (columns - i) * sizeof *dst);
}

#ifdef ISA_PLAIN
static void OF(_dot)(const uint8_t *w, size_t row_bytes, size_t rows, size_t columns, const float *x, size_t x_step,
                     size_t m, float *y, size_t y_step) {
    decoded_dot(OF(_decode), BLOCK, BYTES, w, row_bytes, rows, columns, x, x_step, m, y, y_step);
}
#else
/* y[j][r] += products of a piece of two rows or one with m vectors. `rows` and `m` are constants where this is inlined. */
INLINE void OF(_few)(const uint8_t *w, size_t row_bytes, const int rows, size_t columns, const float *x, size_t x_step,
                     const int m, float *y, size_t y_step) {
    v16 sums[2][2][2];
    for (int i = 0; i < rows * m; i++) sums[i / m][i % m][0] = sums[i / m][i % m][1] = v_zero();
    size_t i = 0;
    for (; i + 32 <= columns; i += 32)
        for (int r = 0; r < rows; r++) {
            const uint8_t *p = w + (size_t)r * row_bytes + i * BYTES;
            v16 w0 = LOAD(p), w1 = LOAD(p + 16 * BYTES);
            for (int j = 0; j < m; j++) {
                const float *xj = x + (size_t)j * x_step + i;
                sums[r][j][0] = v_fma(w0, v_load(xj), sums[r][j][0]);
                sums[r][j][1] = v_fma(w1, v_load(xj + 16), sums[r][j][1]);
            }
        }
    for (int r = 0; r < rows && i < columns; r++) {
        float row[32] = {0};
        OF(_decode)(w + (size_t)r * row_bytes + i * BYTES, row, columns - i);
        for (int j = 0; j < m; j++) {
            float last[32] = {0};
            memcpy(last, x + (size_t)j * x_step + i, (columns - i) * sizeof *x);
            sums[r][j][0] = v_fma(v_load(row), v_load(last), sums[r][j][0]);
            sums[r][j][1] = v_fma(v_load(row + 16), v_load(last + 16), sums[r][j][1]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < m; j++) y[(size_t)j * y_step + (size_t)r] += v_sum(v_add(sums[r][j][0], sums[r][j][1]));
}

static void OF(_dot)(const uint8_t *w, size_t row_bytes, size_t rows, size_t columns, const float *x, size_t x_step,
                     size_t m, float *y, size_t y_step) {
    if (m > 2) {
        many(OF(_decode), BLOCK, BYTES, w, row_bytes, rows, columns, x, x_step, m, y, y_step);
        return;
    }
    for (size_t j = 0; j < m; j++) memset(y + j * y_step, 0, rows * sizeof *y);
    for (size_t c = 0; c < columns; c += PIECE, x += PIECE, w += PIECE * BYTES) {
        size_t n = columns - c < PIECE ? columns - c : PIECE, r = 0;
        for (; r + 2 <= rows; r += 2) {
            const uint8_t *p = w + r * row_bytes;
            if (m == 1) OF(_few)(p, row_bytes, 2, n, x, x_step, 1, y + r, y_step);
            else OF(_few)(p, row_bytes, 2, n, x, x_step, 2, y + r, y_step);
        }
        if (r == rows) continue;
        const uint8_t *p = w + r * row_bytes;
        if (m == 1) OF(_few)(p, row_bytes, 1, n, x, x_step, 1, y + r, y_step);
        else OF(_few)(p, row_bytes, 1, n, x, x_step, 2, y + r, y_step);
    }
}
#endif

#undef F
#undef BLOCK
#undef BYTES
#undef LOAD
