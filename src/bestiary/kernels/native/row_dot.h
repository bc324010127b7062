/* One format's F_dot: all rows, and all vectors. Included by row.h and row_floats.h alone.
 *
 * Two rows of weights go together for one or two vectors, one row for more: enough independent sums to hide the latency
 * of an addition, few enough to stay in registers. Each call below has constants to be unrolled for.
 */
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
