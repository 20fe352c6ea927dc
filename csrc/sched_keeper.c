/* The keeper: a thread that runs no goroutines.  It exists where other threads than a single worker do.  It
   keeps the timers of foreign threads, which no goroutine may hold up, and sees to it that nobody waits
   behind a goroutine that blocks or keeps its thread:
   - Unstarted goroutines.  While somebody has any it looks every STUCK_NS, and declares a worker stuck
     that has not switched since.  A stuck worker may be robbed by all; if nobody is idle, a new one is
     started to do it.
   - Timers.  It sleeps no longer than STUCK_NS after the first of all timers, and fires what is still there
     then.  Who arms one that is due before that rings.  As in sched.c, one of the two sees the other: the one
     puts the timer into the heap and then looks how long the keeper sleeps, the keeper says that it sleeps
     (for ever, until it knows better) and then looks at the heaps. */
#include "sched_table.h"
#include <signal.h>

static const int64_t STUCK_NS = 10000000;      /* a worker that has not switched for so long */

/* One that is locked waits for another worker, also in its sleep. */
static bool is_waiting_for_a_worker(worker *w) {
    return gqueue_len(&w->fresh) && (!atomic_load(&w->sleeping) || !g_may_start(w));
}

static bool anybody_waits(void) {
    if (gqueue_len(&sched.shared)) return true;
    for (int i = 0; i < n_workers(); i++) {
        worker *w = live_worker(i);
        if (w && is_waiting_for_a_worker(w)) return true;
    }
    return false;
}

/* Compares with the last look; true when somebody's goroutines are to be taken over. */
static bool look_for_stuck(void) {
    bool found = false, all = true, left = gqueue_len(&sched.shared);
    lock_acquire(&sched.lock);                   /* so that no thread ends meanwhile */
    for (int i = 0; i < n_workers(); i++) {
        worker *w = live_worker(i);
        if (!w) continue;
        uint32_t tick = relaxed_load(&w->tick);
        uint8_t sleeping = atomic_load(&w->sleeping);
        bool stuck = !sleeping && tick == w->watched && ps_is_blocked(w->ts);
        w->watched = tick;
        if (!g_may_start(w)) {
            left = left || gqueue_len(&w->fresh);
            continue;
        }
        all = all && (stuck || sleeping == 1);   /* asleep beyond gomaxprocs, and not rung for this */
        if (!stuck || !is_waiting_for_a_worker(w)) continue;
        relaxed_store(&w->stuck_at, tick);
        found = true;
    }
    lock_release(&sched.lock);
    return found || (all && left && !atomic_load(&sched.searching));
}

/* When the first timer of a worker will be overdue. */
static int64_t first_overdue(void) {
    int64_t first = NEVER;
    for (int i = 0; i < n_workers(); i++) {
        worker *w = live_worker(i);
        int64_t when = w ? relaxed_load(&w->timers->first) : NEVER;
        if (when < first) first = when;
    }
    return first == NEVER ? NEVER : first + STUCK_NS;
}

static void fire_overdue(int64_t now) {
    for (int i = 0; i < n_workers(); i++) {
        worker *w = live_worker(i);
        if (w && relaxed_load(&w->timers->first) <= now - STUCK_NS) timers_run(w->timers, now);
    }
}

/* Detached, and unless `busy` asleep already: until a timer is due, the bell rings or the time is over; while
   `busy`, until nobody waits any more either, or somebody is stuck (true). */
static bool watch(worker *k, bool busy, int64_t until) {
    for (;;) {
        int64_t next = busy ? clock_ns() + STUCK_NS : until;
        atomic_store(&sched.keeper_looks, NEVER);
        /* Else it has slept since before it asked for a deadlock.  To fall asleep once more, and not ask,
           would have who asks at this moment leave the question to it. */
        if (busy) fall_asleep(k);
        atomic_thread_fence(memory_order_seq_cst);
        int64_t first = relaxed_load(&k->timers->first), overdue = first_overdue();
        atomic_store(&sched.keeper_looks, overdue);
        if (overdue < next) next = overdue;
        netpoll_wait(k->poller, first < next ? first : next, false);
        atomic_store(&k->sleeping, 0);
        int64_t now = clock_ns();
        if (!busy || relaxed_load(&k->stop)) return false;
        if (relaxed_load(&k->timers->first) <= now || overdue <= now) return false;
        if (look_for_stuck()) return true;
        if (!anybody_waits()) return false;
    }
}

/* One that starts, searches or was rung will see to it, once the system lets it:
   another would not be quicker. */
static bool somebody_comes(void) {
    if (atomic_load(&sched.searching)) return true;
    for (int i = 0; i < n_workers(); i++) {
        worker *w = live_worker(i);
        if (w && atomic_load(&w->sleeping) == 2) return true;
    }
    return false;
}

static void keep(worker *k) {
    bool lingers = false;                        /* woken by a spawn: the next one need not ring again */
    while (!relaxed_load(&k->stop)) {
        k->now = clock_ns();
        timers_run(k->timers, k->now);
        fire_overdue(k->now);
        bool busy = lingers || anybody_waits();
        int64_t until = NEVER;
        if (!busy) {
            atomic_store(&sched.keeper_rests, 1);
            busy = anybody_waits();
            fall_asleep(k);
            if (!busy && check_deadlock() == PERHAPS) until = clock_ns() + RECHECK_NS;
        }
        if (busy) look_for_stuck();              /* what is seen later is compared with this */
        PyEval_SaveThread();
        bool stuck = watch(k, busy, until);
        PyEval_RestoreThread(k->ts);
        lingers = !busy && !atomic_exchange(&sched.keeper_rests, 0);
        if (stuck && !somebody_comes() && !wake_one(MAX_WORKERS) && !worker_start()) PyErr_Clear();
    }
}

static void keeper_main(void *arg) {
    worker *k = arg;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    PyGILState_STATE held = PyGILState_Ensure();
    g_worker = k;
    k->ts = PyThreadState_Get();
    atomic_store(&k->live, 1);
    keep(k);
    g_worker = NULL;
    atomic_store(&k->stop, 2);
    PyGILState_Release(held);
}

worker *keeper(void) {
    worker *k = atomic_load(&sched.keeper), *none = NULL;
    if (k) return k;
    if (!(k = worker_new())) return NULL;
    lock_acquire(&sched.lock);
    bool ours = !sched.exiting && atomic_compare_exchange_strong(&sched.keeper, &none, k);
    lock_release(&sched.lock);
    if (!ours) {
        worker_free(k);
        return none ? none : no_thread();
    }
    if (PyThread_start_new_thread(keeper_main, k) != PYTHREAD_INVALID_THREAD_ID) return k;
    atomic_store(&sched.keeper, NULL);
    return no_thread();
}

void keeper_wake(void) {
    if (relaxed_load(&sched.keeper_rests) && atomic_exchange(&sched.keeper_rests, 0))
        worker_ring(atomic_load(&sched.keeper));
}

void keeper_armed(worker *w, int64_t when) {
    worker *k = atomic_load_explicit(&sched.keeper, memory_order_acquire);
    if (!k && w == g_worker) return;
    atomic_thread_fence(memory_order_seq_cst);
    if (w != g_worker && atomic_load(&w->sleeping)) worker_ring(w);
    if (!k || w == k || !atomic_load(&k->sleeping)) return;
    if (when + STUCK_NS < relaxed_load(&sched.keeper_looks)) worker_ring(k);
}
