/* What block.c and attention.c share: the threads of one call, where values lie, and how work is dealt out. */
#ifndef BESTIARY_STEP_H
#define BESTIARY_STEP_H

#include "block.h"
#include "shares.h"

#include <string.h>

/* The parts of a block that are dealt out. Blocks use the first and the second half of the dealings in turn, so that
 * those of the block after can be wound back while this one's are in use. */
enum { NORM, QKV, TURNING, ATTENTION, JOIN, OUT, NORM_AGAIN, GATED, DOWN, PARTS };
_Static_assert(2 * PARTS <= DEALINGS, "a dealing for each part of two blocks");

/* What the threads of one call have in common. */
typedef struct {
    const isa *isa;
    const block *blocks;
    size_t count;
    const tokens *t;
    float *x;       /* (tokens, width): in, and out */
    float *scratch; /* see layout */
    ranges of[MOST_THREADS];
    _Atomic int arrived;
    _Atomic unsigned round;
} run;

/* Where a block's values lie in the scratch memory: first what all threads share, then a part for each. A row each token,
 * of so many floats that rows do not want the same places of a cache. pieces: see attention.c; split: how many for each
 * query, 0 where they are not kept. */
typedef struct {
    size_t angles, tiles, state, pieces, normed, q, k, v, attended, x, hidden, up, own, own_queries, own_floats;
    size_t wide, kv, width, deep, split;
} layout;

/* One thread, at one block. */
typedef struct {
    run *r;
    const block *b;
    size_t index;
    layout at;
    float *own, *own_queries, *base;
    const float *cos, *sin; /* of each token, for each pair of channels */
    float own_angles[MOST_DIM];
    int id, count;
} worker;

static inline size_t most(size_t a, size_t b) { return a > b ? a : b; }
static inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

static inline dealer part(const worker *w, int which, size_t total, size_t grain) {
    return deal(w->r->of, w->index % 2 * PARTS + (size_t)which, total, grain, w->id, w->count);
}

/* Wait until all threads are here. */
void meet(worker *w);

/* How attention is laid out for these blocks: `split`, and floats of pieces, tiles and state. */
size_t split_of(const block *b, const tokens *t, int threads);
size_t piece_floats(const block *b, const tokens *t, size_t split);
size_t tile_floats(const tokens *t);
void lay_tiles(const tokens *t, size_t *firsts);

/* Rotate queries and keys and write keys and values into their pages; then attend. Returns where what was attended is, the
 * rows `wide` floats apart. */
const float *attended(worker *w);

#endif
