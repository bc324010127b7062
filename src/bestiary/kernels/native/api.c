/* What Python calls through ctypes, with block.c and threads.c. Shapes and bounds are checked there; here everything is
 * trusted.
 */
#include "native.h"

#include <stdatomic.h>
#include <string.h>

/* Raised whenever a signature changes, so that a stale library is refused instead of misread. */
PUBLIC int bestiary_abi(void) { return 1; }

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
    size_t rows, columns, row_bytes, m, share;
    _Atomic size_t next;
} product;

static size_t minimum(size_t a, size_t b) { return a < b ? a : b; }

static void some_products(void *job, int id, int count) {
    (void)id, (void)count;
    product *p = job;
    for (size_t start; (start = atomic_fetch_add(&p->next, p->share)) < p->rows;) {
        size_t n = minimum(p->share, p->rows - start);
        p->fmt->dot(p->w + start * p->row_bytes, p->row_bytes, n, p->columns, p->x, p->columns, p->m, p->y + start,
                    p->rows);
        for (size_t j = 0; j < p->m && p->bias; j++)
            for (size_t r = start; r < start + n; r++) p->y[j * p->rows + r] += p->bias[r];
    }
}

/* y (m, rows) = x (m, columns) times the transpose of w (rows, columns), plus bias (rows) unless it is NULL. */
PUBLIC void bestiary_linear(int fmt, const uint8_t *w, size_t rows, size_t row_bytes, size_t columns, const float *x,
                            size_t m, const float *bias, float *y, int threads) {
    product p = {&best_isa()->formats[fmt], w, x, bias, y, rows, columns, row_bytes, m, share_of(rows, threads), 0};
    parallel(threads, some_products, &p);
}

static void some_decoding(void *job, int id, int count) {
    (void)id, (void)count;
    product *p = job;
    for (size_t start; (start = atomic_fetch_add(&p->next, p->share)) < p->rows;)
        for (size_t r = start; r < minimum(start + p->share, p->rows); r++)
            p->fmt->decode(p->w + r * p->row_bytes, p->y + r * p->columns, p->columns);
}

/* y (rows, columns) = the decoded rows. */
PUBLIC void bestiary_decode(int fmt, const uint8_t *w, size_t rows, size_t row_bytes, size_t columns, float *y,
                            int threads) {
    product p = {&best_isa()->formats[fmt], w, NULL, NULL, y, rows, columns, row_bytes, 0, share_of(rows, threads), 0};
    parallel(threads, some_decoding, &p);
}
