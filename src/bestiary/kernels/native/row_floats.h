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

#ifndef ISA_PLAIN
INLINE void OF(_few)(const uint8_t *w, size_t row_bytes, const int rows, size_t columns, const float *x, size_t x_step,
                     const int m, float *y, size_t y_step) {
    v16 sums[2][MOST_VECTORS];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < m; j++) sums[r][j] = v_zero();
    size_t i = 0;
    for (; i + 16 <= columns; i += 16)
        for (int r = 0; r < rows; r++) {
            v16 wi = LOAD(w + (size_t)r * row_bytes + i * BYTES);
            for (int j = 0; j < m; j++) sums[r][j] = v_fma(wi, v_load(x + (size_t)j * x_step + i), sums[r][j]);
        }
    for (int j = 0; j < m && i < columns; j++) {
        float last[16] = {0};
        memcpy(last, x + (size_t)j * x_step + i, (columns - i) * sizeof *x);
        for (int r = 0; r < rows; r++) {
            v16 wi = OF(_tail)(w + (size_t)r * row_bytes + i * BYTES, columns - i);
            sums[r][j] = v_fma(wi, v_load(last), sums[r][j]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < m; j++) y[(size_t)j * y_step + (size_t)r] = v_sum(sums[r][j]);
}
#endif

#ifdef ISA_PLAIN
static void OF(_dot)(const uint8_t *w, size_t row_bytes, size_t rows, size_t columns, const float *x, size_t x_step,
                     size_t m, float *y, size_t y_step) {
    decoded_dot(OF(_decode), BLOCK, BYTES, w, row_bytes, rows, columns, x, x_step, m, y, y_step);
}
#else
static void OF(_dot)(const uint8_t *w, size_t row_bytes, size_t rows, size_t columns, const float *x, size_t x_step,
                     size_t m, float *y, size_t y_step) {
    while (m) {
        size_t n = m >= MOST_VECTORS ? MOST_VECTORS : m >= 4 ? 4 : m, r = 0;
        for (; r + 2 <= rows && n < 3; r += 2) {
            const uint8_t *p = w + r * row_bytes;
            if (n == 1) OF(_few)(p, row_bytes, 2, columns, x, x_step, 1, y + r, y_step);
            if (n == 2) OF(_few)(p, row_bytes, 2, columns, x, x_step, 2, y + r, y_step);
        }
        for (; r < rows; r++) {
            const uint8_t *p = w + r * row_bytes;
            if (n == 1) OF(_few)(p, row_bytes, 1, columns, x, x_step, 1, y + r, y_step);
            if (n == 2) OF(_few)(p, row_bytes, 1, columns, x, x_step, 2, y + r, y_step);
            if (n == 3) OF(_few)(p, row_bytes, 1, columns, x, x_step, 3, y + r, y_step);
            if (n == 4) OF(_few)(p, row_bytes, 1, columns, x, x_step, 4, y + r, y_step);
            if (n == 8) OF(_few)(p, row_bytes, 1, columns, x, x_step, 8, y + r, y_step);
        }
        m -= n, x += n * x_step, y += n * y_step;
    }
}
#endif

#undef F
#undef BLOCK
#undef BYTES
#undef LOAD
