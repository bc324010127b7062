/* Products of rows with many vectors. Included once by each instruction set's file, after simd.h.
 *
 * Every output is summed in one order, whatever is computed beside it: PIECE columns at a time; of those the sixteen
 * first and the sixteen last elements of each group of 32 in lanes of their own, groups in order; then the two
 * sixteens are added, and their lanes by v_sum. row.h and row_floats.h do that for few vectors. Here a tile of outputs is
 * summed together from decoded rows, a register's width of the 32 lanes at a time, so that each value that is loaded
 * serves several outputs.
 */
#ifndef BESTIARY_TILE_H
#define BESTIARY_TILE_H

#include "native.h"
#include "simd.h"

/* Columns of a piece; rows of a tile, which v_sum4 sums; groups that are taken for one register's width before the
 * next, for them to stay in the first-level cache. */
enum { PIECE = 4096, TILE_ROWS = 4, TURN = 48 };
/* Decoded rows begin an odd number of cache lines apart: rows 4 KiB apart would all want the same places. So many floats
 * of them, and of the vectors that they meet, for the second-level cache; and for the first level so many rows, and vectors
 * that all of those meet before the next. FEW vectors need no such order. */
enum { ODD = 16, DECODED = 2 * TILE_ROWS * (PIECE + ODD), MET = 1 << 17, SOME_ROWS = 16, NEAR = 12, FEW = 18 };

/* sums[j * TILE_ROWS + r] = or += the products of some lanes of `groups` groups. m and `more` are constants where this is
 * inlined. */
INLINE void tile_lanes(const float *w, size_t w_step, const float *x, size_t x_step, const int m, size_t groups,
                       const int more, float (*sums)[32]) {
    lanes all[TILE_VECTORS * TILE_ROWS];
    UNROLL(24)
    for (int i = 0; i < m * TILE_ROWS; i++) all[i] = more ? l_load(sums[i]) : l_all(0);
    for (; groups; groups--, w += 32, x += 32) {
        lanes b[TILE_VECTORS];
        UNROLL(8)
        for (int j = 0; j < m; j++) b[j] = l_load(x + (size_t)j * x_step);
        UNROLL(4)
        for (int r = 0; r < TILE_ROWS; r++) {
            lanes a = l_load(w + (size_t)r * w_step);
            UNROLL(8)
            for (int j = 0; j < m; j++) all[j * TILE_ROWS + r] = l_fma(a, b[j], all[j * TILE_ROWS + r]);
        }
    }
    UNROLL(24)
    for (int i = 0; i < m * TILE_ROWS; i++) l_store(sums[i], all[i]);
}

/* All lanes of `groups` groups, the first or more. */
INLINE void tile_groups(const float *w, size_t w_step, const float *x, size_t x_step, const int m, size_t groups,
                        int more, float (*sums)[32]) {
    for (int lane = 0; lane < 32; lane += LANES) {
        float(*some)[32] = (float(*)[32])(sums[0] + lane);
        if (more) tile_lanes(w + lane, w_step, x + lane, x_step, m, groups, 1, some);
        else tile_lanes(w + lane, w_step, x + lane, x_step, m, groups, 0, some);
    }
}

/* y[j * y_step + r] += the product of row r with vector j, for `rows` of four rows that are padded with zeros to a whole
 * group. */
INLINE void tile(const float *w, size_t w_step, const float *x, size_t x_step, const int m, size_t columns, float *y,
                 size_t y_step, size_t rows) {
    _Alignas(64) float sums[TILE_VECTORS * TILE_ROWS][32], last[TILE_VECTORS][32];
    size_t whole = columns / 32, tail = columns % 32, from = 0;
    for (size_t turns = (whole + TURN - 1) / TURN, n; turns; turns--, from += n) {
        n = (whole - from) / turns;
        tile_groups(w + 32 * from, w_step, x + 32 * from, x_step, m, n, from > 0, sums);
    }
    if (tail) {
        memset(last, 0, sizeof last);
        for (int j = 0; j < m; j++) memcpy(last[j], x + (size_t)j * x_step + 32 * whole, tail * sizeof *x);
        tile_groups(w + 32 * whole, w_step, last[0], 32, m, 1, whole > 0, sums);
    }
    for (int j = 0; j < m; j++, y += y_step) {
        v16 both[TILE_ROWS];
        for (int r = 0; r < TILE_ROWS; r++) {
            const float *s = sums[j * TILE_ROWS + r];
            both[r] = v_add(v_load(s), v_load(s + 16));
        }
        if (rows == TILE_ROWS) v_sum4(both, y);
        else
            for (size_t r = 0; r < rows; r++) y[r] += v_sum(both[r]);
    }
}

static void tiles(const float *w, size_t w_step, const float *x, size_t x_step, size_t m, size_t columns, float *y,
                  size_t y_step, size_t rows) {
    for (size_t turns = (m + TILE_VECTORS - 1) / TILE_VECTORS, n; turns; turns--, m -= n) {
        n = m / turns;
#define TILE(M) \
    if (n == M) tile(w, w_step, x, x_step, M, columns, y, y_step, rows)
        TILE(1);
        TILE(2);
        TILE(3);
#if TILE_VECTORS > 3
        TILE(4);
        TILE(5);
        TILE(6);
#endif
#undef TILE
        x += n * x_step, y += n * y_step;
    }
}

/* One piece of the columns: y[j * y_step + r] += the product of row r of w with vector j. */
static void piece_of_many(decode_fn *decode, const uint8_t *w, size_t row_bytes, size_t rows, size_t columns,
                          const float *x, size_t x_step, size_t m, float *y, size_t y_step) {
    _Alignas(64) float decoded[DECODED];
    size_t step = (columns + 31) / 32 * 32 + ODD, fit = DECODED / step / TILE_ROWS * TILE_ROWS, n;
    size_t most = m <= FEW ? TILE_ROWS : fit < SOME_ROWS ? fit : SOME_ROWS, near = m <= FEW ? FEW : NEAR;
    for (size_t r = 0; r < rows; r += n) {
        n = rows - r < most ? rows - r : most;
        for (size_t i = 0; i < n; i++) {
            float *row = decoded + i * step;
            decode(w + (r + i) * row_bytes, row, columns);
            memset(row + columns, 0, (step - columns) * sizeof *row);
        }
        for (size_t turns = (m + near - 1) / near, j = 0, k; turns; turns--, j += k) {
            k = (m - j) / turns;
            for (size_t i = 0; i < n; i += TILE_ROWS)
                tiles(decoded + i * step, step, x + j * x_step, x_step, k, columns, y + j * y_step + r + i, y_step,
                      n - i < TILE_ROWS ? n - i : TILE_ROWS);
        }
    }
}

/* y[j * y_step + r] = row r of w times vector j: what dot_fn says, for many vectors. */
static void many(decode_fn *decode, size_t block, size_t nbytes, const uint8_t *w, size_t row_bytes, size_t rows,
                 size_t columns, const float *x, size_t x_step, size_t m, float *y, size_t y_step) {
    for (size_t j = 0; j < m; j++) memset(y + j * y_step, 0, rows * sizeof *y);
    for (size_t c = 0, n; c < columns; c += n) {
        n = columns - c < PIECE ? columns - c : PIECE;
        for (size_t turns = (m * n + MET - 1) / MET, j = 0, k; turns; turns--, j += k) {
            k = (m - j) / turns;
            piece_of_many(decode, w + c / block * nbytes, row_bytes, rows, n, x + j * x_step + c, x_step, k,
                          y + j * y_step, y_step);
        }
    }
}

#endif
