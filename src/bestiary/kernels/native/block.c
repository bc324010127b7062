/* Blocks of a Llama for tokens of many sequences, in one parallel region: the threads meet at a barrier between the parts
 * of a block instead of being called again for each matrix, and nothing returns to Python in between.
 *
 * Work that is small is done by every thread for itself (norms and angles of few tokens), because meeting costs more;
 * products and attention are dealt out. A token's numbers do not depend on the tokens beside it: see tile.h and
 * attention.c.
 */
#include "step.h"

#include <math.h>
#include <sched.h>

/* Tokens that every thread norms for itself; rows of a matrix that are dealt out together to one token, or to many. */
enum { FEW_NORMS = 16, ROWS_OF_MANY = 16 };

/* Floats from row to row: an odd number of cache lines, so that rows do not want the same places of a cache. */
static size_t row_floats(size_t n) { return ((n + 15) / 16 | 1) * 16; }

static layout lay_out(const block *b, const tokens *t, int threads) {
    layout at = {.wide = row_floats(b->heads * b->dim), .kv = row_floats(b->kv_heads * b->dim)};
    size_t n = t->count, own_norms = n <= FEW_NORMS ? n : 0;
    at.width = row_floats(b->o.rows), at.deep = row_floats(b->gate.rows), at.split = split_of(b, t, threads);
    struct {
        size_t *place, floats;
    } parts[] = {
        {&at.angles, n > 1 ? n * b->turned : 0},
        {&at.tiles, tile_floats(t)},
        {&at.state, 2 * n * b->heads},
        {&at.pieces, piece_floats(b, t, at.split)},
        {&at.normed, own_norms ? 0 : n * at.width},
        {&at.q, n * at.wide},
        {&at.k, n * at.kv},
        {&at.v, n * at.kv},
        {&at.attended, n * at.wide},
        {&at.x, n * at.width},
        {&at.hidden, n * at.deep},
        {&at.up, n * at.deep},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        *parts[i].place = at.own;
        at.own += (parts[i].floats + 15) & ~(size_t)15;
    }
    at.own_queries = row_floats(most(own_norms * at.width, n == 1 ? at.wide : 0));
    at.own_floats = at.own_queries + (n == 1 ? at.wide : 0);
    return at;
}

/* Floats of scratch memory for these blocks, tokens and threads. */
PUBLIC size_t bestiary_blocks_scratch(const block *blocks, size_t count, const tokens *t, int threads) {
    size_t floats = 0;
    for (size_t i = 0; i < count; i++) {
        layout at = lay_out(&blocks[i], t, threads);
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

/* Whoever is last opens the next round. On a core that is shared with another program the thread waited for may not be
 * running at all, so spinning gives way to the scheduler after about 20 us. */
void meet(worker *w) {
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

/* The rows of a matrix that are dealt out together. */
static size_t grain(const worker *w) { return w->r->t->count > 1 ? ROWS_OF_MANY : ROWS; }

/* Ask for the beginning of this thread's range of rows, before waiting for the others. */
static void foresee(const worker *w, const matrix *m) {
    const uint8_t *p = m->w + range_start(m->rows, grain(w), w->id, w->count) * m->row_bytes;
    for (size_t i = 0; i < 2048; i += 64) __builtin_prefetch(p + i, 0, 2);
}

/* A row each token, `step` floats apart. */
typedef struct {
    const float *p;
    size_t step;
} values;

/* y[r] = m[r] . x + bias[r], and plus add[r] where there is any, for n rows from `start` on and every token. */
static void rows_of(const worker *w, const matrix *m, size_t start, size_t n, values x, values add, float *y,
                    size_t y_step) {
    size_t tokens = w->r->t->count;
    const uint8_t *p = m->w + start * m->row_bytes;
    w->r->isa->formats[m->format].dot(p, m->row_bytes, n, m->columns, x.p, x.step, tokens, y + start, y_step);
    if (!m->bias && !add.p) return;
    for (size_t j = 0; j < tokens; j++, y += y_step, add.p += add.step)
        for (size_t i = start; i < start + n; i++) y[i] += (m->bias ? m->bias[i] : 0) + (add.p ? add.p[i] : 0);
}

/* q, k and v of the normed x, dealt out as one matrix. */
static void queries_keys_values(const worker *w, values x) {
    const matrix *m[] = {&w->b->q, &w->b->k, &w->b->v};
    const layout *at = &w->at;
    size_t y[] = {at->q, at->k, at->v}, steps[] = {at->wide, at->kv, at->kv};
    dealer d = part(w, QKV, m[0]->rows + m[1]->rows + m[2]->rows, grain(w));
    for (size_t r, n; (n = next_share(&d, &r));)
        for (size_t i = 0, before = 0; i < 3; before += m[i++]->rows) {
            size_t from = most(r, before), to = least(r + n, before + m[i]->rows);
            if (from < to) rows_of(w, m[i], from - before, to - from, x, (values){0}, w->base + y[i], steps[i]);
        }
}

/* y = m x + add. */
static void projected(const worker *w, int which, const matrix *m, values x, values add, float *y, size_t y_step) {
    dealer d = part(w, which, m->rows, grain(w));
    for (size_t r, n; (n = next_share(&d, &r));) rows_of(w, m, r, n, x, add, y, y_step);
}

/* hidden = silu(gate x) * up x of the normed x, both for the same rows. */
static void gated(const worker *w, values x) {
    float *hidden = w->base + w->at.hidden, *up = w->base + w->at.up;
    size_t deep = w->at.deep;
    dealer d = part(w, GATED, w->b->gate.rows, grain(w));
    for (size_t r, n; (n = next_share(&d, &r));) {
        rows_of(w, &w->b->gate, r, n, x, (values){0}, hidden, deep);
        rows_of(w, &w->b->up, r, n, x, (values){0}, up, deep);
        for (size_t j = 0; j < w->r->t->count; j++) w->r->isa->gate(hidden + j * deep + r, up + j * deep + r, n);
    }
}

/* The normed x of all tokens, when all threads have what they need of it. */
static values normed(worker *w, int which, values x, const float *weight, float eps) {
    size_t width = w->b->o.rows, step = w->at.width, count = w->r->t->count;
    if (count <= FEW_NORMS) {
        for (size_t i = 0; i < count; i++) w->r->isa->norm(x.p + i * x.step, weight, width, eps, w->own + i * step);
        return (values){w->own, step};
    }
    float *y = w->base + w->at.normed;
    dealer d = part(w, which, count, 1);
    for (size_t r, n; (n = next_share(&d, &r));)
        for (size_t i = r; i < r + n; i++) w->r->isa->norm(x.p + i * x.step, weight, width, eps, y + i * step);
    meet(w);
    return (values){y, step};
}

/* Take up the next block: nobody may be at the one before the last any more. */
static void begin(worker *w, size_t index) {
    w->index = index, w->b = &w->r->blocks[index];
    w->at = lay_out(w->b, w->r->t, w->count);
    w->own = w->base + w->at.own + (size_t)w->id * w->at.own_floats, w->own_queries = w->own + w->at.own_queries;
}

/* x = x + attn(norm x); x + mlp(norm x). */
static void one_block(worker *w, size_t index) {
    run *r = w->r;
    begin(w, index);
    const block *b = w->b;
    size_t width = b->o.rows;
    values x = {r->x, width}, half = {w->base + w->at.x, w->at.width};
    queries_keys_values(w, normed(w, NORM, x, b->attn_norm, b->attn_eps));
    foresee(w, &b->o);
    meet(w);
    /* All have left the block before: its dealings can be wound back for the block after. */
    for (size_t i = 0; i < PARTS; i++) atomic_store(&r->of[w->id].taken[(index + 1) % 2 * PARTS + i], 0);
    projected(w, OUT, &b->o, (values){attended(w), w->at.wide}, x, w->base + w->at.x, w->at.width);
    foresee(w, &b->gate);
    meet(w);
    gated(w, normed(w, NORM_AGAIN, half, b->mlp_norm, b->mlp_eps));
    foresee(w, &b->down);
    meet(w);
    projected(w, DOWN, &b->down, (values){w->base + w->at.hidden, w->at.deep}, half, r->x, width);
    if (index + 1 < r->count) foresee(w, &b[1].q);
    meet(w);
}

/* cos and sin of tokens `from` up to `to`. */
static void angles(const tokens *t, size_t half, size_t from, size_t to, float *cos, float *sin) {
    for (size_t s = 0; s < t->sequences; s++)
        for (size_t i = most(from, (size_t)t->begins[s]); i < least(to, (size_t)t->begins[s + 1]); i++)
            for (size_t c = 0; c < half; c++) {
                float angle = (float)(t->starts[s] + (int64_t)i - t->begins[s]) * t->turns[i * t->turns_step + c];
                cos[i * half + c] = cosf(angle) * t->magnitude, sin[i * half + c] = sinf(angle) * t->magnitude;
            }
}

static void all_blocks(void *job, int id, int count) {
    worker w = {.r = job, .id = id, .count = count, .base = ((run *)job)->scratch};
    const tokens *t = w.r->t;
    begin(&w, 0);
    size_t half = w.b->turned / 2, n = t->count;
    float *cos = n == 1 ? w.own_angles : w.base + w.at.angles, *sin = cos + n * half;
    w.cos = cos, w.sin = sin;
    if (n == 1) angles(t, half, 0, 1, cos, sin);
    else angles(t, half, range_start(n, 1, id, count), range_start(n, 1, id + 1, count), cos, sin);
    /* All meet in the first block before any of this is read. */
    if (id == 0) lay_tiles(t, (size_t *)(w.base + w.at.tiles));
    for (size_t i = 0; i < w.r->count; i++) one_block(&w, i);
}

/* x (tokens, width) through `count` blocks, in place; the tokens' keys and values are written to each block's pages. All
 * blocks have the same heads and turn them alike. scratch has the floats that bestiary_blocks_scratch asks for. */
PUBLIC void bestiary_blocks(const block *blocks, size_t count, const tokens *t, float *x, float *scratch, int threads) {
    run r = {best_isa(), blocks, count, t, x, scratch, {{{0}}}, 0, 0};
    parallel(threads, all_blocks, &r);
}
