/* Rows dealt out among threads, in shares.
 *
 * Every thread has a range of its own, which it takes share by share in order: the weights that come next have then
 * been asked for already. When its range is done it takes shares of the others': on a busy machine one core can be much
 * slower than the next, and nobody should wait for it.
 */
#ifndef BESTIARY_SHARES_H
#define BESTIARY_SHARES_H

#include "native.h"

#include <stdatomic.h>

/* What has been taken of one thread's ranges, one counter a dealing, apart from the other threads' cache lines. */
enum { DEALINGS = 18, ROWS = 4 /* the grain of a matrix */ };
typedef struct {
    _Alignas(128) _Atomic size_t taken[DEALINGS];
} ranges;

typedef struct {
    ranges *of; /* each thread */
    size_t dealing, total, grain, share;
    int id, count, done; /* done: how many ranges, from the own one on, are exhausted */
} dealer;

/* Where a thread's range begins: at a multiple of the grain, and after the last at the end of all. */
static inline size_t range_start(size_t total, size_t grain, int id, int count) {
    return id == count ? total : total * (size_t)id / (size_t)count / grain * grain;
}

/* About eight shares a thread, of a multiple of `grain` each. */
static inline dealer deal(ranges *of, size_t dealing, size_t total, size_t grain, int id, int count) {
    size_t share = total / (8 * (size_t)count) / grain * grain;
    return (dealer){of, dealing, total, grain, share ? share : grain, id, count, 0};
}

/* The size of the next share for this thread, and its start; 0 when all are taken. */
static inline size_t next_share(dealer *d, size_t *start) {
    for (; d->done < d->count; d->done++) {
        int owner = (d->id + d->done) % d->count;
        size_t end = range_start(d->total, d->grain, owner + 1, d->count);
        *start = range_start(d->total, d->grain, owner, d->count);
        *start += atomic_fetch_add(&d->of[owner].taken[d->dealing], d->share);
        if (*start < end) return end - *start < d->share ? end - *start : d->share;
    }
    return 0;
}

#endif
