/* What the parts of the library know of each other. Only the functions of api.c marked PUBLIC are seen from outside. */
#ifndef BESTIARY_NATIVE_H
#define BESTIARY_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#define PUBLIC __attribute__((visibility("default")))

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAVE_X86 1
#endif

/* dst[i] = decoded element i of one row. */
typedef void decode_fn(const uint8_t *row, float *dst, size_t columns);

/* y[j * y_step + r] = row r of w times x[j * x_step ...], for `rows` rows and m vectors x. */
typedef void dot_fn(const uint8_t *w, size_t row_bytes, size_t rows, size_t columns, const float *x, size_t x_step,
                    size_t m, float *y, size_t y_step);

typedef struct {
    const char *name;
    size_t block, nbytes; /* elements and bytes of a block */
    decode_fn *decode;
    dot_fn *dot;
} format;

enum { FORMATS = 15, PIECE_KEYS = 128, MOST_DIM = 256, SOME_QUERIES = 4, MOST_THREADS = 64 };

/* See vector.h for these. */
typedef void norm_fn(const float *x, const float *weight, size_t n, float eps, float *y);
typedef void gate_fn(float *gate, const float *up, size_t n);
typedef void attend_fn(const float *const *q, int queries, const float *k, const float *v, const size_t *rows,
                       const size_t *begin, const size_t *end, size_t dim, float scale, float *out, size_t out_step);

/* One instruction set's functions. */
typedef struct {
    const char *name;
    norm_fn *norm;
    gate_fn *gate;
    attend_fn *attend;
    format formats[FORMATS];
} isa;

extern const isa isa_plain;
#ifdef HAVE_X86
extern const isa isa_avx2, isa_avx512;
#endif

/* The best that this processor runs. */
const isa *best_isa(void);

/* Run work(job, id, count) on `threads` or MOST_THREADS threads at most, id from 0 to count - 1. See threads.c. */
typedef void work_fn(void *job, int id, int count);
void parallel(int threads, work_fn *work, void *job);

#endif
