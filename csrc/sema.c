/* Semaphore, mutex, wait group, join.

   Semaphore: 0 <= free <= size.  First come, first served: while somebody waits, nobody passes, so a
   waiter at the head always wants more than is free.  A permit is handed to a waiter by its claimer.

   Mutex, as Go's: normally an unlock frees the mutex and wakes the first waiter, which competes with
   whoever comes along (that is fast: the running goroutine may take it again at once).  A waiter that
   lost and has waited for over 1 ms makes the mutex starving: from then on unlock hands it over, still
   locked, to the first waiter, and newcomers queue, until the queue is empty or its last waiter waited
   for less than that.  MUTEX_WAITERS is set if and only if the queue is not empty; while it is set,
   state changes under the lock only, except that try and lock may still set MUTEX_LOCKED when not
   starving.  A woken waiter that is cancelled or fails passes the wake-up on.

   Wait group: n >= 0.  Whoever brings n to 0 wakes all that wait; a waiter enqueues under the lock and
   then looks at n again, so one of the two sees the other. */
#include "sema.h"

/* --- semaphore ------------------------------------------------------------------------------------- */
void sema_init(semaphore *s, Py_ssize_t n) {
    s->bubble = g_bubble_here();
    s->size = s->free = n;
    waitq_init(&s->waiters);
}

Py_ssize_t sema_free(semaphore *s) {
    lock_acquire(&s->lock);
    Py_ssize_t n = s->free;
    lock_release(&s->lock);
    return n;
}

bool sema_try(semaphore *s, Py_ssize_t n) {
    lock_acquire(&s->lock);
    bool taken = s->free >= n && waitq_empty(&s->waiters);
    if (taken) s->free -= n;
    lock_release(&s->lock);
    return taken;
}

/* Hands permits to the waiters at the head that can be served now.  Under the lock; those to be made
   ready are moved to `woken`. */
static void sema_serve(semaphore *s, waitq *woken) {
    for (waiter *x; (x = waitq_first(&s->waiters)) && x->n <= s->free; ) {
        waitq_remove(x);
        if (!g_claim(x->g, W_READY)) continue;
        s->free -= x->n;
        waitq_push(woken, x);
    }
}

static void ready_all(waitq *woken) {
    for (waiter *x; (x = waitq_first(woken)); ) {
        waitq_remove(x);
        g_ready(x->g);
    }
}

int sema_acquire(semaphore *s, Py_ssize_t n, PyObject *self) {
    G *g = g_self();
    if (UNLIKELY(!g)) return -1;
    if (LIKELY(sema_try(s, n))) { g_could_switch(); return 0; }
    for (;;) {
        if (g_wait_begin(g) < 0) return -1;
        lock_acquire(&s->lock);
        if (s->free >= n && waitq_empty(&s->waiters)) {
            if (g_claim(g, W_NONE)) {
                s->free -= n;
                lock_release(&s->lock);
                return 0;
            }
        }
        g->w.n = n;
        waitq_push(&s->waiters, &g->w);
        lock_release(&s->lock);
        g->durable = g_is_of(g, s->bubble);
        enum wake why = g_park(g, WHY_SEMAPHORE, self);
        if (LIKELY(why == W_READY)) { g_settle(g); return 0; }
        waitq woken;
        waitq_init(&woken);
        lock_acquire(&s->lock);
        waitq_remove(&g->w);
        sema_serve(s, &woken);           /* we may have stood before one that wants less */
        lock_release(&s->lock);
        ready_all(&woken);
        if (g_wake_error(g, why) < 0) return -1;
    }
}

bool sema_release(semaphore *s, Py_ssize_t n) {
    waitq woken;
    waitq_init(&woken);
    lock_acquire(&s->lock);
    bool fits = n <= s->size - s->free;
    if (fits) {
        s->free += n;
        sema_serve(s, &woken);
    }
    lock_release(&s->lock);
    ready_all(&woken);
    return fits;
}

/* --- mutex ----------------------------------------------------------------------------------------- */
enum { MUTEX_LOCKED = 1, MUTEX_WAITERS = 2 };
enum { STARVING_NS = 1000000 };

void mutex_init(mutex *m) {
    m->bubble = g_bubble_here();
    waitq_init(&m->waiters);
}
bool mutex_locked(const mutex *m) { return relaxed_load(&((mutex *)m)->state) & MUTEX_LOCKED; }

bool mutex_try_lock(mutex *m) {
    if (LIKELY(word_move(&m->state, 0, MUTEX_LOCKED))) return true;
    if (relaxed_load(&m->state) != MUTEX_WAITERS) return false;
    lock_acquire(&m->lock);
    bool taken = !m->starving && word_move(&m->state, MUTEX_WAITERS, MUTEX_WAITERS | MUTEX_LOCKED);
    lock_release(&m->lock);
    return taken;
}

static void note_waiters(mutex *m) {
    if (waitq_empty(&m->waiters)) {
        m->starving = false;
        word_clear_bits(&m->state, MUTEX_WAITERS);
    }
}

/* Lets the first waiter that can be claimed compete.  Under the lock. */
static G *mutex_next(mutex *m) {
    waiter *x = waitq_claim(&m->waiters);
    note_waiters(m);
    return x ? x->g : NULL;
}

static NOINLINE int mutex_lock_slow(mutex *m, G *g, PyObject *self) {
    int64_t since = 0;
    bool handed = false, woken = false;
    for (;;) {
        if (g_wait_begin(g) < 0) break;
        lock_acquire(&m->lock);
        word_set_bits(&m->state, MUTEX_WAITERS);        /* from here on unlock takes the lock */
        bool starved = since && clock_ns() - since > STARVING_NS && !relaxed_load(&g->bubble);
        if ((!m->starving || woken) && !(relaxed_load(&m->state) & MUTEX_LOCKED)
                && g_claim(g, W_NONE)) {
            word_set_bits(&m->state, MUTEX_LOCKED);
            note_waiters(m);
            lock_release(&m->lock);
            return 0;
        }
        if (starved) m->starving = true;
        if (!since) since = clock_ns();
        g->w.n = since;
        g->w.ok = false;
        if (woken) waitq_push_front(&m->waiters, &g->w);
        else waitq_push(&m->waiters, &g->w);
        lock_release(&m->lock);
        g->durable = g_is_of(g, m->bubble);
        enum wake why = g_park(g, WHY_MUTEX, self);
        if (why == W_READY) {
            handed = g->w.ok;
            g_settle(g);
            if (handed) return 0;
            woken = true;
            continue;
        }
        lock_acquire(&m->lock);
        waitq_remove(&g->w);
        note_waiters(m);
        lock_release(&m->lock);
        if (g_wake_error(g, why) < 0) break;
    }
    if (woken) {                         /* our wake-up is owed to somebody else */
        lock_acquire(&m->lock);
        G *other = relaxed_load(&m->state) & MUTEX_LOCKED ? NULL : mutex_next(m);
        lock_release(&m->lock);
        if (other) g_ready(other);
    }
    return -1;
}

int mutex_lock(mutex *m, PyObject *self) {
    G *g = g_self();
    if (UNLIKELY(!g)) return -1;
    if (LIKELY(mutex_try_lock(m))) { g_could_switch(); return 0; }
    return mutex_lock_slow(m, g, self);
}

bool mutex_unlock(mutex *m) {
    if (LIKELY(word_move(&m->state, MUTEX_LOCKED, 0))) return true;
    lock_acquire(&m->lock);
    if (!(relaxed_load(&m->state) & MUTEX_LOCKED)) { lock_release(&m->lock); return false; }
    G *next = NULL;
    if (m->starving) {                   /* hand it over, locked */
        waiter *x = waitq_claim(&m->waiters);
        if (x) {
            x->ok = true;
            next = x->g;
            if (clock_ns() - (int64_t)x->n < STARVING_NS) m->starving = false;
        } else word_clear_bits(&m->state, MUTEX_LOCKED);
        note_waiters(m);
    } else {
        word_clear_bits(&m->state, MUTEX_LOCKED);
        next = mutex_next(m);
    }
    lock_release(&m->lock);
    if (next) g_ready(next);
    return true;
}

/* --- wait group ------------------------------------------------------------------------------------ */
void waitgroup_init(waitgroup *g) {
    g->bubble = g_bubble_here();
    waitq_init(&g->waiters);
}

static NOINLINE void waitgroup_wake(waitgroup *wg) {
    waitq woken;
    waitq_init(&woken);
    lock_acquire(&wg->lock);
    for (waiter *x; (x = waitq_claim(&wg->waiters)); ) waitq_push(&woken, x);
    lock_release(&wg->lock);
    ready_all(&woken);
}

bool waitgroup_add(waitgroup *wg, int64_t n) {
    int64_t then;
#if GOFER_FREE_THREADED
    int64_t now = atomic_load(&wg->n);
    do if (__builtin_add_overflow(now, n, &then) || then < 0) return false;
    while (!atomic_compare_exchange_weak(&wg->n, &now, then));
#else
    int64_t now = relaxed_load(&wg->n);
    if (__builtin_add_overflow(now, n, &then) || then < 0) return false;
    relaxed_store(&wg->n, then);
#endif
    if (then == 0 && n < 0) waitgroup_wake(wg);
    return true;
}

int waitgroup_wait(waitgroup *wg, PyObject *self) {
    G *g = g_self();
    if (UNLIKELY(!g)) return -1;
    if (atomic_load(&wg->n) == 0) { g_could_switch(); return 0; }
    for (;;) {
        if (g_wait_begin(g) < 0) return -1;
        lock_acquire(&wg->lock);
        waitq_push(&wg->waiters, &g->w);
        if (atomic_load(&wg->n) == 0 && g_claim(g, W_NONE)) {
            waitq_remove(&g->w);
            lock_release(&wg->lock);
            return 0;
        }
        lock_release(&wg->lock);
        g->durable = g_is_of(g, wg->bubble);
        enum wake why = g_park(g, WHY_WAITGROUP, self);
        if (LIKELY(why == W_READY)) { g_settle(g); return 0; }
        lock_acquire(&wg->lock);
        waitq_remove(&g->w);
        lock_release(&wg->lock);
        if (g_wake_error(g, why) < 0) return -1;
    }
}

/* --- join ------------------------------------------------------------------------------------------ */
int sema_join(G *target) {
    G *g = g_self();
    if (UNLIKELY(!g)) return -1;
    if (g_is_dead(target)) { g_could_switch(); return 0; }
    if (g == target) {
        PyErr_Format(PyExc_RuntimeError, "goroutine %llu joins itself: it would wait for ever",
                     (unsigned long long)target->id);
        return -1;
    }
    for (;;) {
        if (g_wait_begin(g) < 0) return -1;
        lock_acquire(&target->lock);
        if (g_is_dead(target) && g_claim(g, W_NONE)) {
            lock_release(&target->lock);
            return 0;
        }
        waitq_push(&target->joiners, &g->w);
        g->durable = g_is_of(g, relaxed_load(&target->bubble));      /* in the lock: it forgets at its end */
        lock_release(&target->lock);
        enum wake why = g_park(g, WHY_JOIN, (PyObject *)target);
        if (LIKELY(why == W_READY)) { g_settle(g); return 0; }
        lock_acquire(&target->lock);
        waitq_remove(&g->w);
        lock_release(&target->lock);
        if (g_wake_error(g, why) < 0) return -1;
    }
}
