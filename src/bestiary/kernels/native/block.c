/* Blocks of a Llama for one token, in one parallel region: the threads meet at a barrier between the parts of a block
 * instead of being called again for each matrix, and nothing returns to Python in between.
 *
 * Work that is small is done by every thread for itself (norms, angles, joining the pieces of attention), because
 * meeting costs more; products and attention are dealt out.
 */
#include "block.h"
#include "shares.h"

#include <math.h>
#include <sched.h>
#include <string.h>

/* The parts of a block that are dealt out. Blocks use the first five and the second five dealings in turn, so that those
 * of the block after can be wound back while this one's are in use. */
enum { QKV, ATTENTION, OUT, GATED, DOWN, PARTS };

/* What the threads of one call have in common. */
typedef struct {
    const isa *isa;
    const block *blocks;
    size_t count;
    const token *token;
    float *x;       /* (width): in, and out */
    float *scratch; /* see layout */
    ranges of[MOST_THREADS];
    _Atomic int arrived;
    _Atomic unsigned round;
} run;

/* Where a block's values lie in the scratch memory: first what all threads share, then `own`, a part for each. */
typedef struct {
    size_t q, k, v, x, hidden, up, pieces, own, own_floats;
} layout;

/* One thread, at one block. */
typedef struct {
    run *r;
    const block *b;
    size_t index;
    float *q, *k, *v, *x, *hidden, *up, *pieces, *own;
    int id, count;
    float cos[MOST_DIM / 2], sin[MOST_DIM / 2];
} worker;

static size_t most(size_t a, size_t b) { return a > b ? a : b; }
static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* A head's share of a piece of the keys: the greatest score, the sum of weights, the weighted sum of values. */
static size_t piece_floats(const block *b) { return b->dim + 2; }

/* The first key that is seen, and the pieces that the earlier keys make; this token's own key is one more. */
static size_t first_key(const block *b, size_t position) {
    return b->window && position + 1 > b->window ? position + 1 - b->window : 0;
}
static size_t pieces_of(const block *b, size_t position) {
    return (position - first_key(b, position) + PIECE_KEYS - 1) / PIECE_KEYS;
}

static layout lay_out(const block *b, size_t position) {
    size_t heads = b->heads * b->dim, kv = b->kv_heads * b->dim, width = b->o.rows;
    size_t pieces = b->heads * (pieces_of(b, position) + 1) * piece_floats(b);
    size_t sizes[] = {heads, kv, kv, width, b->gate.rows, b->gate.rows, pieces, most(heads, width)};
    size_t at[9] = {0};
    for (int i = 0; i < 8; i++) at[i + 1] = at[i] + ((sizes[i] + 15) & ~(size_t)15);
    return (layout){at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8] - at[7]};
}

/* Floats of scratch memory for these blocks and this many threads. */
PUBLIC size_t bestiary_blocks_scratch(const block *blocks, size_t count, size_t position, int threads) {
    size_t floats = 0;
    for (size_t i = 0; i < count; i++) {
        layout at = lay_out(&blocks[i], position);
        floats = most(floats, at.own + at.own_floats * (size_t)threads);
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
static void meet(worker *w) {
    run *r = w->r;
    unsigned round = atomic_load(&r->round);
    if (atomic_fetch_add(&r->arrived, 1) == w->count - 1) {
        atomic_store(&r->arrived, 0);
        atomic_fetch_add(&r->round, 1);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&r->round, memory_order_acquire) == round; spins++) {
        if (spins < 1000) pause_briefly();
        else sched_yield();
    }
}

static dealer part(const worker *w, int which, size_t total, size_t grain) {
    return deal(w->r->of, w->index % 2 * PARTS + (size_t)which, total, grain, w->id, w->count);
}

/* Ask for the beginning of this thread's range of rows, before waiting for the others. */
static void foresee(const worker *w, const matrix *m) {
    const uint8_t *p = m->w + range_start(m->rows, ROWS, w->id, w->count) * m->row_bytes;
    for (size_t i = 0; i < 2048; i += 64) __builtin_prefetch(p + i, 0, 2);
}

/* y[r] = m[r] . x + bias[r], and plus add[r] where add is not NULL, for n rows from `start` on. */
static void rows_of(const worker *w, const matrix *m, size_t start, size_t n, const float *x, const float *add,
                    float *y) {
    const uint8_t *p = m->w + start * m->row_bytes;
    w->r->isa->formats[m->format].dot(p, m->row_bytes, n, m->columns, x, m->columns, 1, y + start, m->rows);
    for (size_t i = start; i < start + n; i++) y[i] += (m->bias ? m->bias[i] : 0) + (add ? add[i] : 0);
}

/* q, k and v of the normed x, dealt out as one matrix. */
static void queries_keys_values(const worker *w) {
    const matrix *m[] = {&w->b->q, &w->b->k, &w->b->v};
    float *y[] = {w->q, w->k, w->v};
    dealer d = part(w, QKV, m[0]->rows + m[1]->rows + m[2]->rows, ROWS);
    for (size_t r, n; (n = next_share(&d, &r));)
        for (size_t i = 0, before = 0; i < 3; before += m[i++]->rows) {
            size_t from = most(r, before), to = least(r + n, before + m[i]->rows);
            if (from < to) rows_of(w, m[i], from - before, to - from, w->own, NULL, y[i]);
        }
}

/* y = m x + add. */
static void projected(const worker *w, int which, const matrix *m, const float *x, const float *add, float *y) {
    dealer d = part(w, which, m->rows, ROWS);
    for (size_t r, n; (n = next_share(&d, &r));) rows_of(w, m, r, n, x, add, y);
}

/* hidden = silu(gate x) * up x of the normed x, both for the same rows. */
static void gated(const worker *w) {
    dealer d = part(w, GATED, w->b->gate.rows, ROWS);
    for (size_t r, n; (n = next_share(&d, &r));) {
        rows_of(w, &w->b->gate, r, n, w->own, NULL, w->hidden);
        rows_of(w, &w->b->up, r, n, w->own, NULL, w->up);
        w->r->isa->gate(w->hidden + r, w->up + r, n);
    }
}

/* Rotate the pairs of a head: Su et al., 2021, arXiv 2104.09864. */
static void turn(const worker *w, const float *from, float *to) {
    const block *b = w->b;
    size_t half = b->turned / 2, first = b->interleaved ? 2 : 1, second = b->interleaved ? 1 : half;
    memcpy(to, from, b->dim * sizeof *to);
    for (size_t i = 0; i < half; i++) {
        float u = from[first * i], v = from[first * i + second];
        to[first * i] = u * w->cos[i] - v * w->sin[i];
        to[first * i + second] = v * w->cos[i] + u * w->sin[i];
    }
}

/* Attention, dealt out as (piece of the keys, key head). The piece after the last is this token's own key and value,
 * which the same share appends to the cache. */
static void attention(const worker *w) {
    const block *b = w->b;
    size_t position = w->r->token->position, pieces = pieces_of(b, position), step = b->kv_heads * b->dim;
    size_t group = b->heads / b->kv_heads, floats = piece_floats(b);
    float *keys = w->r->token->keys[w->index], *values = w->r->token->values[w->index];
    dealer d = part(w, ATTENTION, b->kv_heads * (pieces + 1), 1);
    for (size_t r, n; (n = next_share(&d, &r));)
        for (size_t unit = r; unit < r + n; unit++) {
            size_t kv = unit % b->kv_heads, piece = unit / b->kv_heads, head = kv * b->dim;
            size_t from = position, seen = 1;
            if (piece < pieces) {
                from = first_key(b, position) + piece * PIECE_KEYS, seen = least(PIECE_KEYS, position - from);
            } else {
                turn(w, w->k + head, keys + from * step + head);
                memcpy(values + from * step + head, w->v + head, b->dim * sizeof *values);
            }
            for (size_t i = 0; i < group; i += 4) {
                float q[4 * MOST_DIM];
                size_t some = least(4, group - i), query = kv * group + i;
                for (size_t j = 0; j < some; j++) turn(w, w->q + (query + j) * b->dim, q + j * b->dim);
                w->r->isa->attend(q, some, keys + from * step + head, values + from * step + head, step, seen, b->dim,
                                  b->scale, w->pieces + (query * (pieces + 1) + piece) * floats, (pieces + 1) * floats);
            }
        }
}

/* Join each head's pieces, weighted by how much of the softmax each holds: own (heads * dim). */
static void join(const worker *w) {
    const block *b = w->b;
    size_t pieces = pieces_of(b, w->r->token->position) + 1, floats = piece_floats(b);
    float *out = w->own;
    for (size_t h = 0; h < b->heads; h++, out += b->dim) {
        const float *head = w->pieces + h * pieces * floats;
        float top = -INFINITY, total = 0;
        for (size_t i = 0; i < pieces; i++) top = fmaxf(top, head[i * floats]);
        memset(out, 0, b->dim * sizeof *out);
        for (size_t i = 0; i < pieces; i++) {
            float share = expf(head[i * floats] - top);
            total += share * head[i * floats + 1];
            for (size_t c = 0; c < b->dim; c++) out[c] += share * head[i * floats + 2 + c];
        }
        for (size_t c = 0; c < b->dim; c++) out[c] /= total;
    }
}

/* Take up the next block: nobody may be at the one before the last any more. */
static void begin(worker *w, size_t index) {
    w->index = index, w->b = &w->r->blocks[index];
    layout at = lay_out(w->b, w->r->token->position);
    float *base = w->r->scratch;
    w->q = base + at.q, w->k = base + at.k, w->v = base + at.v, w->x = base + at.x, w->hidden = base + at.hidden;
    w->up = base + at.up, w->pieces = base + at.pieces, w->own = base + at.own + (size_t)w->id * at.own_floats;
}

/* x = x + attn(norm x); x + mlp(norm x). */
static void one_block(worker *w, size_t index) {
    run *r = w->r;
    begin(w, index);
    const block *b = w->b;
    r->isa->norm(r->x, b->attn_norm, b->o.rows, b->attn_eps, w->own);
    queries_keys_values(w);
    foresee(w, &b->o);
    meet(w);
    /* All have left the block before: its dealings can be wound back for the block after. */
    for (size_t i = 0; i < PARTS; i++) atomic_store(&r->of[w->id].taken[(index + 1) % 2 * PARTS + i], 0);
    attention(w);
    meet(w);
    join(w);
    projected(w, OUT, &b->o, w->own, r->x, w->x);
    foresee(w, &b->gate);
    meet(w);
    r->isa->norm(w->x, b->mlp_norm, b->o.rows, b->mlp_eps, w->own);
    gated(w);
    foresee(w, &b->down);
    meet(w);
    projected(w, DOWN, &b->down, w->hidden, w->x, r->x);
    if (index + 1 < r->count) foresee(w, &b[1].q);
    meet(w);
}

static void all_blocks(void *job, int id, int count) {
    worker w = {.r = job, .id = id, .count = count};
    const token *t = w.r->token;
    for (size_t i = 0; i < w.r->blocks->turned / 2; i++) {
        float angle = (float)t->position * t->turns[i];
        w.cos[i] = cosf(angle) * t->magnitude, w.sin[i] = sinf(angle) * t->magnitude;
    }
    for (size_t i = 0; i < w.r->count; i++) one_block(&w, i);
}

/* x (width) through `count` blocks, in place; the token's key and value are appended to each block's. All blocks turn
 * their heads alike. scratch has the floats that bestiary_blocks_scratch asks for. */
PUBLIC void bestiary_blocks(const block *blocks, size_t count, const token *t, float *x, float *scratch, int threads) {
    run r = {best_isa(), blocks, count, t, x, scratch, {{{0}}}, 0, 0};
    parallel(threads, all_blocks, &r);
}
