/* One pre-norm block of a Llama for one token: what bestiary_blocks is told (block.c). Mirrored in kernels/native.py. */
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

/* The token: its position, the radians by which each pair of channels turns a position (turned / 2) and a factor on what
 * was turned; and each block's keys and values, of shape (positions, kv_heads, dim). `position` of them are there, this
 * token's are appended. */
typedef struct {
    const float *turns;
    float *const *keys, *const *values;
    size_t position;
    float magnitude;
} token;

#endif
