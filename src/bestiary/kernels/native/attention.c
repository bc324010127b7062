/* Attention of many sequences over pages, in pieces of PIECE_KEYS keys that begin at multiples of it.
 *
 * Each query attends to its pieces one by one (vector.h) and they are joined in order, weighted by how much of the softmax
 * each holds. So its numbers follow from its own keys alone: not from the queries beside it, nor from where pages lie,
 * nor from which thread computed a piece.
 *
 * Work is dealt out as tiles: some tokens of a sequence, for one key head, with all pieces. Where those are too few for
 * the threads and each is of one token, pieces are dealt out too, kept, and joined afterwards.
 */
#include "step.h"

#include <math.h>

enum { TILE_TOKENS = 32, ENOUGH = 8 /* shares a thread */ };

/* Of a piece: the greatest score, the sum of weights, and from the sixteenth float on the weighted sum of values. */
static size_t part_floats(const block *b) { return b->dim + 16; }

static size_t first_key(const block *b, size_t position) {
    return b->window && position + 1 > b->window ? position + 1 - b->window : 0;
}

/* Pieces are kept for each token where all sequences have one and there are few. */
size_t split_of(const block *b, const tokens *t, int threads) {
    size_t longest = 0;
    if (t->count != t->sequences || (t->count > 1 && t->count * b->kv_heads >= ENOUGH * (size_t)threads)) return 0;
    for (size_t s = 0; s < t->sequences; s++) {
        size_t at = (size_t)t->starts[s];
        longest = most(longest, at / PIECE_KEYS - first_key(b, at) / PIECE_KEYS + 1);
    }
    return longest;
}

size_t piece_floats(const block *b, const tokens *t, size_t split) {
    return t->count * b->heads * split * part_floats(b);
}

/* Floats that hold the number of the first tile of each sequence, and of all. */
size_t tile_floats(const tokens *t) { return (t->sequences + 1) * sizeof(size_t) / sizeof(float); }

void lay_tiles(const tokens *t, size_t *firsts) {
    firsts[0] = 0;
    for (size_t s = 0; s < t->sequences; s++)
        firsts[s + 1] = firsts[s] + ((size_t)(t->begins[s + 1] - t->begins[s]) + TILE_TOKENS - 1) / TILE_TOKENS;
}

/* Rotate the pairs of a head, which may stay where it is: Su et al., 2021, arXiv 2104.09864. */
static void turn(const worker *w, size_t token, const float *from, float *to) {
    const block *b = w->b;
    size_t half = b->turned / 2, first = b->interleaved ? 2 : 1, second = b->interleaved ? 1 : half;
    const float *cos = w->cos + token * half, *sin = w->sin + token * half;
    if (to != from) memcpy(to, from, b->dim * sizeof *to);
    for (size_t i = 0; i < half; i++) {
        float u = from[first * i], v = from[first * i + second];
        to[first * i] = u * cos[i] - v * sin[i];
        to[first * i + second] = v * cos[i] + u * sin[i];
    }
}

/* How far from the first page's first key a position's is, in floats. */
static size_t place(const block *b, const tokens *t, size_t s, size_t position) {
    size_t page = (size_t)t->tables[s * t->most + position / t->page];
    return (page * t->page + position % t->page) * b->kv_heads * b->dim;
}

/* Write the key and the value that token i of sequence s has for one key head. */
static void write(const worker *w, size_t s, size_t i, size_t kv) {
    const block *b = w->b;
    const tokens *t = w->r->t;
    size_t position = (size_t)(t->starts[s] - t->begins[s]) + i, to = place(b, t, s, position) + kv * b->dim;
    turn(w, i, w->base + w->at.k + i * w->at.kv + kv * b->dim, t->keys[w->index] + to);
    memcpy(t->values[w->index] + to, w->base + w->at.v + i * w->at.kv + kv * b->dim, b->dim * sizeof(float));
}

/* Rotate all queries where they are and write all keys and values. */
static void turned(const worker *w) {
    const tokens *t = w->r->t;
    dealer d = part(w, TURNING, t->count, 1);
    for (size_t r, n; (n = next_share(&d, &r));) {
        size_t s = 0;
        while ((size_t)t->begins[s + 1] <= r) s++;
        for (size_t i = r; i < r + n; i++) {
            while ((size_t)t->begins[s + 1] <= i) s++;
            float *q = w->base + w->at.q + i * w->at.wide;
            for (size_t h = 0; h < w->b->heads; h++) turn(w, i, q + h * w->b->dim, q + h * w->b->dim);
            for (size_t kv = 0; kv < w->b->kv_heads; kv++) write(w, s, i, kv);
        }
    }
}

/* rows[i] = where the keys from position `from` on lie, n of them. */
static void locate(const block *b, const tokens *t, size_t s, size_t from, size_t n, size_t *rows) {
    size_t step = b->kv_heads * b->dim;
    for (size_t i = 0, left; i < n; i += left) {
        size_t at = place(b, t, s, from + i);
        left = least(t->page - (from + i) % t->page, n - i);
        for (size_t j = 0; j < left; j++) rows[i + j] = at + j * step;
    }
}

/* Some queries of one key head at one piece. */
typedef struct {
    const float *q[SOME_QUERIES];
    size_t begin[SOME_QUERIES], end[SOME_QUERIES];
    int count;
} few;

static void add_query(const block *b, few *f, const float *q, size_t position, size_t piece) {
    size_t from = piece * PIECE_KEYS, first = most(first_key(b, position), from), last = least(position + 1, from + PIECE_KEYS);
    f->q[f->count] = q;
    f->begin[f->count] = first < last ? first - from : 0;
    f->end[f->count++] = first < last ? last - from : 0;
}

static void attend_few(const worker *w, const few *f, size_t kv, const size_t *rows, float *out) {
    const block *b = w->b;
    const tokens *t = w->r->t;
    w->r->isa->attend(f->q, f->count, t->keys[w->index] + kv * b->dim, t->values[w->index] + kv * b->dim, rows, f->begin,
                      f->end, b->dim, b->scale, out, part_floats(b));
}

/* Join a piece to what a query has of those before it: state[0] the greatest score, state[1] the sum of weights; sum. */
static void join(const float *piece, size_t dim, float *state, float *sum, int first) {
    if (first) {
        state[0] = piece[0], state[1] = piece[1];
        memcpy(sum, piece + 16, dim * sizeof *sum);
        return;
    }
    int greater = piece[0] > state[0];
    float old = greater ? expf(state[0] - piece[0]) : 1, new = greater ? 1 : expf(piece[0] - state[0]);
    state[0] = greater ? piece[0] : state[0];
    state[1] = state[1] * old + piece[1] * new;
    for (size_t c = 0; c < dim; c++) sum[c] = sum[c] * old + piece[16 + c] * new;
}

/* All pieces of the queries of tokens `from` up to `to` of sequence s with one key head. */
static void whole_tile(const worker *w, size_t s, size_t from, size_t to, size_t kv) {
    const block *b = w->b;
    const tokens *t = w->r->t;
    const size_t group = b->heads / b->kv_heads, start = (size_t)(t->starts[s] - t->begins[s]);
    float *q = w->base + w->at.q, *sums = w->base + w->at.attended, *states = w->base + w->at.state;
    size_t rows[PIECE_KEYS], begun = first_key(b, start + from) / PIECE_KEYS;
    float parts[SOME_QUERIES * (MOST_DIM + 16)];
    for (size_t piece = begun; piece * PIECE_KEYS < start + to; piece++) {
        locate(b, t, s, piece * PIECE_KEYS, least(PIECE_KEYS, start + to - piece * PIECE_KEYS), rows);
        for (size_t i = from * group, n; i < to * group; i += n) {
            few f = {.count = 0};
            n = least(SOME_QUERIES, to * group - i);
            for (size_t j = i; j < i + n; j++)
                add_query(b, &f, q + j / group * w->at.wide + (kv * group + j % group) * b->dim, start + j / group, piece);
            attend_few(w, &f, kv, rows, parts);
            for (size_t j = 0; j < n; j++) {
                size_t token = (i + j) / group, h = kv * group + (i + j) % group;
                if (f.begin[j] == f.end[j]) continue;
                join(parts + j * part_floats(b), b->dim, states + 2 * (token * b->heads + h),
                     sums + token * w->at.wide + h * b->dim, piece == first_key(b, start + token) / PIECE_KEYS);
            }
        }
    }
    for (size_t i = from; i < to; i++)
        for (size_t h = kv * group; h < (kv + 1) * group; h++)
            for (size_t c = 0; c < b->dim; c++)
                sums[i * w->at.wide + h * b->dim + c] /= states[2 * (i * b->heads + h) + 1];
}

static void whole_tiles(const worker *w) {
    const tokens *t = w->r->t;
    const size_t *firsts = (const size_t *)(w->base + w->at.tiles);
    dealer d = part(w, ATTENTION, firsts[t->sequences] * w->b->kv_heads, 1);
    for (size_t r, n; (n = next_share(&d, &r));)
        for (size_t unit = r, s = 0; unit < r + n; unit++) {
            size_t tile = unit / w->b->kv_heads;
            while (firsts[s + 1] <= tile) s++;
            size_t from = (size_t)t->begins[s] + (tile - firsts[s]) * TILE_TOKENS;
            whole_tile(w, s, from, least(from + TILE_TOKENS, (size_t)t->begins[s + 1]), unit % w->b->kv_heads);
        }
}

static float *kept(const worker *w, size_t token, size_t head, size_t piece) {
    return w->base + w->at.pieces + ((token * w->b->heads + head) * w->at.split + piece) * part_floats(w->b);
}

/* One piece of the only token of sequence s, for one key head. `queries` are those of this token. */
static void one_piece(const worker *w, size_t s, size_t piece, size_t kv, const float *queries) {
    const block *b = w->b;
    const tokens *t = w->r->t;
    size_t at = (size_t)t->starts[s], from = piece * PIECE_KEYS, n = least(PIECE_KEYS, at + 1 - from), rows[PIECE_KEYS];
    size_t group = b->heads / b->kv_heads, number = piece - first_key(b, at) / PIECE_KEYS;
    locate(b, t, s, from, n, rows);
    for (size_t i = 0; i < group; i += SOME_QUERIES) {
        float parts[SOME_QUERIES * (MOST_DIM + 16)];
        few f = {.count = 0};
        for (size_t j = i; j < least(group, i + SOME_QUERIES); j++)
            add_query(b, &f, queries + (kv * group + j) * b->dim, at, piece);
        attend_few(w, &f, kv, rows, parts);
        for (size_t j = 0; j < (size_t)f.count; j++)
            memcpy(kept(w, s, kv * group + i + j, number), parts + j * part_floats(b), part_floats(b) * sizeof(float));
    }
}

/* Pieces dealt out. A lone token's key and value are written by whoever has the last piece, which alone reads them. */
static void split_pieces(const worker *w) {
    const block *b = w->b;
    const tokens *t = w->r->t;
    dealer d = part(w, ATTENTION, t->count * w->at.split * b->kv_heads, 1);
    for (size_t r, n; (n = next_share(&d, &r));)
        for (size_t unit = r; unit < r + n; unit++) {
            size_t kv = unit % b->kv_heads, s = unit / b->kv_heads / w->at.split, at = (size_t)t->starts[s];
            size_t piece = first_key(b, at) / PIECE_KEYS + unit / b->kv_heads % w->at.split;
            if (piece > at / PIECE_KEYS) continue;
            if (t->count == 1 && piece == at / PIECE_KEYS) write(w, s, 0, kv);
            one_piece(w, s, piece, kv, t->count == 1 ? w->own_queries : w->base + w->at.q + s * w->at.wide);
        }
}

/* Join the pieces of all heads of a token. */
static void joined(const worker *w, size_t s, float *out) {
    const block *b = w->b;
    size_t at = (size_t)w->r->t->starts[s], pieces = at / PIECE_KEYS - first_key(b, at) / PIECE_KEYS + 1;
    for (size_t h = 0; h < b->heads; h++, out += b->dim) {
        float state[2] = {0};
        for (size_t i = 0; i < pieces; i++) join(kept(w, s, h, i), b->dim, state, out, i == 0);
        for (size_t c = 0; c < b->dim; c++) out[c] /= state[1];
    }
}

const float *attended(worker *w) {
    const tokens *t = w->r->t;
    float *out = w->base + w->at.attended;
    if (t->count == 1) {
        /* A meeting costs more than what each thread does for itself here. */
        for (size_t h = 0; h < w->b->heads; h++)
            turn(w, 0, w->base + w->at.q + h * w->b->dim, w->own_queries + h * w->b->dim);
        split_pieces(w);
        meet(w);
        joined(w, 0, w->own);
        return w->own;
    }
    turned(w);
    meet(w);
    if (w->at.split) {
        split_pieces(w);
        meet(w);
        dealer d = part(w, JOIN, t->count, 1);
        for (size_t r, n; (n = next_share(&d, &r));)
            for (size_t s = r; s < r + n; s++) joined(w, s, out + s * w->at.wide);
    } else {
        whole_tiles(w);
    }
    meet(w);
    return out;
}
