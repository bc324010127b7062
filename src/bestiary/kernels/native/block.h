/* Pre-norm blocks of a Llama for tokens of many sequences: what bestiary_blocks is told (block.c). Mirrored in
 * kernels/native.py. */
#ifndef BESTIARY_BLOCK_H
#define BESTIARY_BLOCK_H

#include "native.h"

/* A matrix as it lies in memory: rows of packed bytes, and the format's number. */
typedef struct {
    const uint8_t *w;
    const float *bias; /* one a row, or NULL */
    size_t rows, columns, row_bytes;
    size_t format;
} matrix;

typedef struct {
    matrix q, k, v, o, gate, up, down;
    const float *attn_norm, *mlp_norm;
    size_t heads, kv_heads, dim; /* dim a multiple of 16 */
    size_t turned;               /* channels of a head that rotate, even, from the first on */
    size_t interleaved;          /* a rotating pair is two neighbours, else channels i and i + turned / 2 */
    size_t window;               /* keys that a query sees, itself included; 0: all */
    float attn_eps, mlp_eps, scale;
} block;

/* The tokens of a step, `count` of `sequences` sequences laid end to end. Sequence s has those from begins[s] up to
 * begins[s + 1], at positions from starts[s] on. Its keys and values are in the pages that row s of `tables` (sequences,
 * most) names in order, of `page` positions each; those of earlier positions are there, these tokens' are written.
 * turns: the radians by which each pair of channels turns a position, turns_step floats apart from token to token (0: the
 * same for all); magnitude: a factor on what was turned. keys, values: each block's pages, (pages, page, kv_heads, dim). */
typedef struct {
    size_t count, sequences, most, page, turns_step;
    const int64_t *begins, *starts, *tables;
    const float *turns;
    float *const *keys, *const *values;
    float magnitude;
} tokens;

#endif
