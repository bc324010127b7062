/* Run a piece of work on several threads.
 *
 * torch brings an OpenMP runtime whose threads spin for a while after each parallel region. A second pool on the same
 * cores would fight with it, so Python finds the runtime that torch has loaded and hands its entry points over
 * (bestiary_use_openmp). Where there is none, a small pool of our own serves.
 */
#include "native.h"

#include <pthread.h>
#include <stdatomic.h>

/* libgomp's ABI, which Intel's and LLVM's runtimes also offer: the function every `#pragma omp parallel` calls. */
typedef void gomp_parallel_fn(void (*work)(void *), void *data, unsigned threads, unsigned flags);
typedef int omp_get_fn(void);

static gomp_parallel_fn *gomp_parallel;
static omp_get_fn *omp_thread, *omp_count;

PUBLIC void bestiary_use_openmp(void *parallel_entry, void *thread_number, void *thread_count) {
    gomp_parallel = (gomp_parallel_fn *)parallel_entry;
    omp_thread = (omp_get_fn *)thread_number;
    omp_count = (omp_get_fn *)thread_count;
}

typedef struct {
    work_fn *work;
    void *job;
} task;

static void in_team(void *data) {
    task *t = data;
    t->work(t->job, omp_thread(), omp_count());
}

/* Our own pool: workers wait for the round to change. One job at a time; who finds the pool busy works alone. */

static struct {
    pthread_mutex_t lock, busy;
    pthread_cond_t start, done;
    task task;
    int started, wanted, running; /* workers, besides the caller */
    unsigned round;
} pool = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .busy = PTHREAD_MUTEX_INITIALIZER,
    .start = PTHREAD_COND_INITIALIZER,
    .done = PTHREAD_COND_INITIALIZER,
};

static void *worker(void *number) {
    int id = (int)(intptr_t)number;
    unsigned seen = 0;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (pool.round == seen) pthread_cond_wait(&pool.start, &pool.lock);
        seen = pool.round;
        if (id > pool.wanted) continue;
        task t = pool.task;
        int count = pool.wanted + 1;
        pthread_mutex_unlock(&pool.lock);
        t.work(t.job, id, count);
        pthread_mutex_lock(&pool.lock);
        if (--pool.running == 0) pthread_cond_signal(&pool.done);
    }
    return NULL;
}

/* A forked child has no workers, and perhaps a lock that one of them held. */
static void forget_workers(void) {
    pool.started = pool.wanted = pool.running = 0;
    pool.round = 0;
    pthread_mutex_init(&pool.lock, NULL);
    pthread_mutex_init(&pool.busy, NULL);
    pthread_cond_init(&pool.start, NULL);
    pthread_cond_init(&pool.done, NULL);
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, forget_workers); }

/* Have at least n workers if the system grants them; the lock is held. Returns how many there are. */
static int hire(int n) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    while (pool.started < n) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, (void *)(intptr_t)(pool.started + 1))) break;
        pthread_detach(thread);
        pool.started++;
    }
    return pool.started < n ? pool.started : n;
}

static void in_pool(int threads, work_fn *work, void *job) {
    if (pthread_mutex_trylock(&pool.busy)) {
        work(job, 0, 1);
        return;
    }
    pthread_mutex_lock(&pool.lock);
    int helpers = hire(threads - 1);
    pool.task = (task){work, job};
    pool.wanted = pool.running = helpers;
    pool.round++;
    pthread_cond_broadcast(&pool.start);
    pthread_mutex_unlock(&pool.lock);
    work(job, 0, helpers + 1);
    pthread_mutex_lock(&pool.lock);
    while (pool.running) pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&pool.busy);
}

void parallel(int threads, work_fn *work, void *job) {
    threads = threads < MOST_THREADS ? threads : MOST_THREADS;
    if (threads < 2) {
        work(job, 0, 1);
    } else if (gomp_parallel) {
        task t = {work, job};
        gomp_parallel(in_team, &t, (unsigned)threads, 0);
    } else {
        in_pool(threads, work, job);
    }
}
