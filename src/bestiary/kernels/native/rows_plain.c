/* The kernels for every other processor, in C without intrinsics.
 *
 * They decode a piece of a row to a buffer and multiply from there, for few vectors too: fusing the two, as the other
 * files do, gains little without wide registers, and makes a compiler work for half a minute.
 */
#ifdef __GNUC__
#pragma GCC diagnostic ignored "-Wpsabi" /* vectors of 32 bytes are passed between inlined functions only */
#endif
#define ISA_PLAIN
#define ISA_NAME "plain C"
#define ISA_TABLE isa_plain
#include "native.h"
#include "simd.h"
#include "tile.h"

/* The product of two pieces, of which the first is padded with zeros to a whole group. */
static float plain_dot(const float *a, const float *b, size_t n) {
    v16 first = v_zero(), second = v_zero();
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        first = v_fma(v_load(a + i), v_load(b + i), first);
        second = v_fma(v_load(a + i + 16), v_load(b + i + 16), second);
    }
    if (i < n) {
        float last[32] = {0};
        memcpy(last, b + i, (n - i) * sizeof *last);
        first = v_fma(v_load(a + i), v_load(last), first);
        second = v_fma(v_load(a + i + 16), v_load(last + 16), second);
    }
    return v_sum(v_add(first, second));
}

/* What each format's dot_fn does here. */
static void decoded_dot(decode_fn *decode, size_t block, size_t nbytes, const uint8_t *w, size_t row_bytes, size_t rows,
                        size_t columns, const float *x, size_t x_step, size_t m, float *y, size_t y_step) {
    if (m > 1) {
        many(decode, block, nbytes, w, row_bytes, rows, columns, x, x_step, m, y, y_step);
        return;
    }
    float piece[PIECE];
    for (size_t r = 0; r < rows; r++, w += row_bytes) {
        y[r] = 0;
        for (size_t i = 0; i < columns; i += PIECE) {
            size_t n = columns - i < PIECE ? columns - i : PIECE;
            decode(w + i / block * nbytes, piece, n);
            memset(piece + n, 0, ((n + 31) / 32 * 32 - n) * sizeof *piece);
            y[r] += plain_dot(piece, x + i, n);
        }
    }
}

#include "rows.h"
