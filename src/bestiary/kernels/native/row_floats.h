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

#include "row_dot.h"

#undef F
#undef BLOCK
#undef BYTES
#undef LOAD
