/* Blocks of a Llama for one token, in one parallel region: the threads meet at a barrier between the steps of a block
 * instead of being called again for each matrix, and nothing returns to Python in between.
 *
 * Work that is small is done by every thread for itself (norms, merging the pieces of attention), because meeting
 * costs more; products and attention are dealt out in shares to whichever thread is free.
 */
#include "block.h"

#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

enum { STEPS = 5 }; /* of a block that deal out shares */

/* What the threads of one call have in common. */
typedef struct {
    const isa *isa;
    const block *blocks;
    size_t count;
    const token *token;
    float *x;       /* (width): in, and out */
    float *scratch; /* see layout */
    _Atomic size_t next[2][STEPS];
    _Atomic int arrived;
    _Atomic unsigned round;
} run;

/* Where a block's values lie in the scratch memory: first what all threads share, then a part for each. */
typedef struct {
    float *q, *k, *v, *x, *hidden, *up, *pieces, *own;
    size_t floats;
} layout;

static size_t most(size_t a, size_t b) { return a > b ? a : b; }
static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static size_t piece_floats(const block *b) { return b->dim + 2; }

/* The first key that is seen, and the pieces that the earlier keys make; this token's own key is one more. */
static size_t first_key(const block *b, size_t position) {
    return b->window && position + 1 > b->window ? position + 1 - b->window : 0;
}
static size_t pieces_of(const block *b, size_t position) {
    return (position - first_key(b, position) + PIECE_KEYS - 1) / PIECE_KEYS;
}

static layout lay_out(const block *b, size_t position, float *base, int id) {
    size_t heads = b->heads * b->dim, kv = b->kv_heads * b->dim, width = b->o.rows;
    size_t sizes[] = {heads, kv, kv, width, b->gate.rows, b->gate.rows,
                      b->heads * (pieces_of(b, position) + 1) * piece_floats(b), most(heads, width)};
    float *at[8];
    size_t total = 0;
    for (int i = 0; i < 8; i++) {
        at[i] = base + total;
        total += (sizes[i] + 15) & ~(size_t)15;
    }
    float *own = at[7] + (size_t)id * ((sizes[7] + 15) & ~(size_t)15);
    return (layout){at[0], at[1], at[2], at[3], at[4], at[5], at[6], own, total};
}

/* Floats of scratch memory for these blocks and this many threads. */
PUBLIC size_t bestiary_blocks_scratch(const block *blocks, size_t count, size_t position, int threads) {
    size_t floats = 0;
    for (size_t i = 0; i < count; i++) {
        layout all = lay_out(&blocks[i], position, NULL, 0);
        size_t own = most(blocks[i].heads * blocks[i].dim, blocks[i].o.rows) + 15;
        floats = most(floats, all.floats + own * (size_t)threads);
    }
    return floats;
}

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Wait until all threads are here. Whoever is last opens the next round. On a core that is shared with another program
 * the thread waited for may not be running at all, so spinning gives way to the scheduler after about 20 us. */
static void meet(run *r, int threads) {
    if (threads == 1) return;
    unsigned round = atomic_load(&r->round);
    if (atomic_fetch_add(&r->arrived, 1) == threads - 1) {
        atomic_store(&r->arrived, 0);
        atomic_fetch_add(&r->round, 1);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&r->round, memory_order_acquire) == round; spins++) {
        if (spins < 1000) pause_briefly();
        else sched_yield();
    }
}

/* y[r] = w[r] . x + bias[r], and plus add[r] where add is not NULL, for the rows of one share. */
static void rows_of(const run *r, const matrix *m, size_t start, size_t n, const float *x, const float *add, float *y) {
    const uint8_t *w = m->w + start * m->row_bytes;
    r->isa->formats[m->format].dot(w, m->row_bytes, n, m->columns, x, m->columns, 1, y + start, m->rows);
    for (size_t i = start; i < start + n; i++) y[i] += (m->bias ? m->bias[i] : 0) + (add ? add[i] : 0);
}

typedef struct {
    const matrix *m;
    const float *x, *add;
    float *y;
} product;

/* Deal out the rows of up to three matrices as if they were one. */
static void products(run *r, _Atomic size_t *next, const product *p, int count, int threads) {
    size_t total = 0;
    for (int i = 0; i < count; i++) total += p[i].m->rows;
    size_t share = share_of(total, threads);
    for (size_t start; (start = atomic_fetch_add(next, share)) < total;) {
        size_t stop = least(start + share, total), before = 0;
        for (int i = 0; i < count; before += p[i++].m->rows) {
            size_t from = most(start, before), to = least(stop, before + p[i].m->rows);
            if (from < to) rows_of(r, p[i].m, from - before, to - from, p[i].x, p[i].add, p[i].y);
        }
    }
}

/* Rotate the pairs of a head: Su et al., 2021, arXiv 2104.09864. */
static void turn(const block *b, const token *t, const float *from, float *to) {
    size_t half = b->turned / 2, first = b->interleaved ? 2 : 1, second = b->interleaved ? 1 : half;
    memcpy(to, from, b->dim * sizeof *to);
    for (size_t i = 0; i < half; i++) {
        float u = from[first * i], v = from[first * i + second];
        to[first * i] = u * t->cos[i] - v * t->sin[i];
        to[first * i + second] = v * t->cos[i] + u * t->sin[i];
    }
}

/* Attention, dealt out as (key head, piece of the keys). The piece after the last is this token's own key and value,
 * which the same share appends to the cache. */
static void attention(run *r, _Atomic size_t *next, const block *b, size_t index, const layout *at) {
    const token *t = r->token;
    size_t group = b->heads / b->kv_heads, pieces = pieces_of(b, t->position), first = first_key(b, t->position);
    size_t step = b->kv_heads * b->dim, floats = piece_floats(b);
    float *keys = t->keys[index], *values = t->values[index];
    for (size_t unit; (unit = atomic_fetch_add(next, 1)) < b->kv_heads * (pieces + 1);) {
        size_t kv = unit % b->kv_heads, piece = unit / b->kv_heads, head = kv * b->dim;
        size_t from = t->position, n = 1;
        if (piece < pieces) {
            from = first + piece * PIECE_KEYS, n = least(PIECE_KEYS, t->position - from);
        } else {
            turn(b, t, at->k + head, keys + from * step + head);
            memcpy(values + from * step + head, at->v + head, b->dim * sizeof *values);
        }
        for (size_t i = 0; i < group; i += 4) {
            float q[4 * MOST_DIM];
            size_t some = least(4, group - i), at_head = kv * group + i;
            for (size_t j = 0; j < some; j++) turn(b, t, at->q + (at_head + j) * b->dim, q + j * b->dim);
            r->isa->attend(q, some, keys + from * step + head, values + from * step + head, step, n, b->dim, b->scale,
                           at->pieces + (at_head * (pieces + 1) + piece) * floats, (pieces + 1) * floats);
        }
    }
}

/* Join each head's pieces, weighted by how much of the softmax each holds: out (heads * dim). */
static void merge(const block *b, size_t pieces, const float *from, float *out) {
    size_t floats = piece_floats(b);
    for (size_t h = 0; h < b->heads; h++, out += b->dim) {
        const float *head = from + h * pieces * floats;
        float top = -INFINITY, total = 0;
        for (size_t i = 0; i < pieces; i++) top = fmaxf(top, head[i * floats]);
        memset(out, 0, b->dim * sizeof *out);
        for (size_t i = 0; i < pieces; i++) {
            float share = expf(head[i * floats] - top);
            total += share * head[i * floats + 1];
            for (size_t d = 0; d < b->dim; d++) out[d] += share * head[i * floats + 2 + d];
        }
        for (size_t d = 0; d < b->dim; d++) out[d] /= total;
    }
}

/* at.hidden = silu(gate x) * up x, both for the same share of rows. */
static void gated(run *r, _Atomic size_t *next, const block *b, const layout *at, int threads) {
    size_t total = b->gate.rows, share = share_of(total, threads);
    for (size_t start; (start = atomic_fetch_add(next, share)) < total;) {
        size_t n = least(share, total - start);
        rows_of(r, &b->gate, start, n, at->own, NULL, at->hidden);
        rows_of(r, &b->up, start, n, at->own, NULL, at->up);
        r->isa->gate(at->hidden + start, at->up + start, n);
    }
}

/* One block: x = x + attn(norm x); x + mlp(norm x). */
static void one_block(run *r, size_t index, int id, int threads) {
    const block *b = &r->blocks[index];
    _Atomic size_t *next = r->next[index % 2];
    layout at = lay_out(b, r->token->position, r->scratch, id);
    size_t width = b->o.rows;

    r->isa->norm(r->x, b->attn_norm, width, b->attn_eps, at.own);
    product qkv[] = {{&b->q, at.own, NULL, at.q}, {&b->k, at.own, NULL, at.k}, {&b->v, at.own, NULL, at.v}};
    products(r, &next[0], qkv, 3, threads);
    meet(r, threads);
    /* All have left the block before: its counters can be wound back for the block after. */
    for (int i = 0; i < STEPS && id == 0; i++) atomic_store(&r->next[(index + 1) % 2][i], 0);

    attention(r, &next[1], b, index, &at);
    meet(r, threads);
    merge(b, pieces_of(b, r->token->position) + 1, at.pieces, at.own);
    products(r, &next[2], &(product){&b->o, at.own, r->x, at.x}, 1, threads);
    meet(r, threads);
    r->isa->norm(at.x, b->mlp_norm, width, b->mlp_eps, at.own);
    gated(r, &next[3], b, &at, threads);
    meet(r, threads);
    products(r, &next[4], &(product){&b->down, at.hidden, at.x, r->x}, 1, threads);
    meet(r, threads);
}

static void all_blocks(void *job, int id, int count) {
    run *r = job;
    for (size_t i = 0; i < r->count; i++) one_block(r, i, id, count);
}

/* x (width) through `count` blocks, in place; the token's key and value are appended to each block's. scratch has the
 * floats that bestiary_blocks_scratch asks for. */
PUBLIC void bestiary_blocks(const block *blocks, size_t count, const token *t, float *x, float *scratch, int threads) {
    run r = {best_isa(), blocks, count, t, x, scratch, {{0}}, 0, 0};
    parallel(threads, all_blocks, &r);
}
