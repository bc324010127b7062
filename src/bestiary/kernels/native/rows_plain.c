/* The kernels for every other processor, in C without intrinsics.
 *
 * They decode a piece of a row to a buffer and multiply from there: fusing the two, as the other files do, gains little
 * without wide registers, and makes a compiler work for half a minute.
 */
#ifdef __GNUC__
#pragma GCC diagnostic ignored "-Wpsabi" /* vectors of 32 bytes are passed between inlined functions only */
#endif
#define ISA_PLAIN
#define ISA_NAME "plain C"
#define ISA_TABLE isa_plain
#include "native.h"
#include "simd.h"

enum { FEW = 512 }; /* elements, a multiple of every block */

static float plain_dot(const float *a, const float *b, size_t n) {
    v16 sum = v_zero();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) sum = v_fma(v_load(a + i), v_load(b + i), sum);
    float rest = 0;
    for (; i < n; i++) rest += a[i] * b[i];
    return v_sum(sum) + rest;
}

/* What each format's dot_fn does here. */
static void decoded_dot(decode_fn *decode, size_t block, size_t nbytes, const uint8_t *w, size_t row_bytes, size_t rows,
                        size_t columns, const float *x, size_t x_step, size_t m, float *y, size_t y_step) {
    float piece[FEW];
    for (size_t r = 0; r < rows; r++, w += row_bytes) {
        for (size_t j = 0; j < m; j++) y[j * y_step + r] = 0;
        for (size_t i = 0; i < columns; i += FEW) {
            size_t n = columns - i < FEW ? columns - i : FEW;
            decode(w + i / block * nbytes, piece, n);
            for (size_t j = 0; j < m; j++) y[j * y_step + r] += plain_dot(piece, x + j * x_step + i, n);
        }
    }
}

#include "rows.h"
