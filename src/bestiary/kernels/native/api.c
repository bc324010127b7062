/* What Python calls through ctypes, with block.c and threads.c. Shapes and bounds are checked there; here everything is
 * trusted.
 */
#include "shares.h"

#include <string.h>

/* Raised whenever a signature changes, so that a stale library is refused instead of misread. */
PUBLIC int bestiary_abi(void) { return 4; }

static const isa *chosen;

const isa *best_isa(void) {
    if (chosen) return chosen;
    chosen = &isa_plain;
#ifdef HAVE_X86
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    chosen = avx512 ? &isa_avx512 : avx2 ? &isa_avx2 : &isa_plain;
#endif
    return chosen;
}

/* The name of the instruction set in use. */
PUBLIC const char *bestiary_isa(void) { return best_isa()->name; }

/* Use the instruction set of this name, for tests. Returns 0, or -1 when this processor lacks it. */
PUBLIC int bestiary_use_isa(const char *name) {
    const isa *found[] = {
#ifdef HAVE_X86
        &isa_avx512, &isa_avx2,
#endif
        &isa_plain};
    int count = (int)(sizeof found / sizeof *found), best = 0;
    chosen = NULL;
    while (found[best] != best_isa()) best++;
    /* The table is ordered: a processor that runs one runs all after it. */
    for (int i = best; i < count; i++)
        if (!strcmp(found[i]->name, name)) {
            chosen = found[i];
            return 0;
        }
    return -1;
}

/* The number by which the functions below know a format, or -1. */
PUBLIC int bestiary_format(const char *name) {
    for (int i = 0; i < FORMATS; i++)
        if (!strcmp(best_isa()->formats[i].name, name)) return i;
    return -1;
}

typedef struct {
    const format *fmt;
    const uint8_t *w;
    const float *x, *bias;
    float *y;
    size_t rows, columns, row_bytes, x_step, m;
    ranges of[MOST_THREADS];
} product;

static void some_products(void *job, int id, int count) {
    product *p = job;
    dealer d = deal(p->of, 0, p->rows, ROWS, id, count);
    for (size_t r, n; (n = next_share(&d, &r));) {
        float *y = p->y + r;
        p->fmt->dot(p->w + r * p->row_bytes, p->row_bytes, n, p->columns, p->x, p->x_step, p->m, y, p->rows);
        for (size_t j = 0; j < p->m && p->bias; j++, y += p->rows)
            for (size_t i = 0; i < n; i++) y[i] += p->bias[r + i];
    }
}

/* y (m, rows) = x (m, columns) times the transpose of w (rows, columns), plus bias (rows) unless it is NULL. Vectors of x
 * are x_step floats apart. */
PUBLIC void bestiary_linear(int fmt, const uint8_t *w, size_t rows, size_t row_bytes, size_t columns, const float *x,
                            size_t x_step, size_t m, const float *bias, float *y, int threads) {
    product p = {&best_isa()->formats[fmt], w, x, bias, y, rows, columns, row_bytes, x_step, m, {{{0}}}};
    parallel(threads, some_products, &p);
}

static void some_decoding(void *job, int id, int count) {
    product *p = job;
    dealer d = deal(p->of, 0, p->rows, ROWS, id, count);
    for (size_t r, n; (n = next_share(&d, &r));)
        for (size_t i = r; i < r + n; i++) p->fmt->decode(p->w + i * p->row_bytes, p->y + i * p->columns, p->columns);
}

/* y (rows, columns) = the decoded rows. */
PUBLIC void bestiary_decode(int fmt, const uint8_t *w, size_t rows, size_t row_bytes, size_t columns, float *y,
                            int threads) {
    product p = {&best_isa()->formats[fmt], w, NULL, NULL, y, rows, columns, row_bytes, 0, 0, {{{0}}}};
    parallel(threads, some_decoding, &p);
}

typedef struct {
    const float *x, *weight;
    float *y, eps;
    size_t rows, width;
    ranges of[MOST_THREADS];
} norming;

static void some_norms(void *job, int id, int count) {
    norming *p = job;
    dealer d = deal(p->of, 0, p->rows, ROWS, id, count);
    for (size_t r, n; (n = next_share(&d, &r));)
        for (size_t i = r * p->width; i < (r + n) * p->width; i += p->width)
            best_isa()->norm(p->x + i, p->weight, p->width, p->eps, p->y + i);
}

/* y (rows, width) = the rows of x divided by their root mean square, times weight (width). */
PUBLIC void bestiary_rms_norm(const float *x, const float *weight, size_t rows, size_t width, float eps, float *y,
                              int threads) {
    norming p = {x, weight, y, eps, rows, width, {{{0}}}};
    parallel(threads, some_norms, &p);
}
