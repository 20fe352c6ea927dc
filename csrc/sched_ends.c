/* How things end: a call of run(), the process, and what a fork leaves behind. */
#include "sched_table.h"
#include <unistd.h>

static const int64_t UNWIND_NS = 1000000000;   /* end_run gives up after so long without progress */

/* --- run() ----------------------------------------------------------------------------------------- */
int sched_begin_run(uint32_t *outer) {
    G *g = g_self();
    if (!g) return -1;
    if (g != rt.main) {
        PyErr_Format(PyExc_RuntimeError, g_is_foreign(g)
                     ? "run() in a thread of its own: goroutine 1 belongs to the main thread; call run() "
                       "there, or use go() here"
                     : "run() in goroutine %llu: only goroutine 1 can run a program; use go(), fork() or a "
                       "Group here", (unsigned long long)g->id);
        return -1;
    }
    *outer = rt.run;
    g->run = rt.run = ++rt.runs;
    return 0;
}

static size_t kill_queue(gqueue *q, uint32_t run) {
    size_t n = 0;
    for (G *g = q->head; g; g = g->next)
        if (g->run == run) { word_set_bits(&g->pending, P_KILL); n++; }
    return n;
}

static size_t kill_of_worker(worker *w, uint32_t run) {
    size_t n = kill_queue(&w->fresh, run);
    for (node *x = w->all.next; x != &w->all; x = x->next) {
        G *g = (G *)((char *)x - offsetof(G, all));
        if (g->run != run || g->kind == KIND_HOST || g == rt.main || g->abandoned || g_is_dead(g)) continue;
        n++;
        g_disturb(g, P_KILL, W_KILL);
        bool running = w != g_worker && g == w->cur && relaxed_load(&g->state) == G_RUNNING;
        if (running && !g->kills && !g->holds_end) g_exit_soon(w, g);
    }
    return n;
}

/* Tells every goroutine of the run to end; *left: how many there still are. */
typedef struct { uint32_t run; size_t left; } kill_order;
static void kill_run(void *arg) {
    kill_order *k = arg;
    k->left = kill_queue(&sched.shared, k->run);
    for (int i = 0; i < n_workers(); i++) {
        worker *w = live_worker(i);
        if (w) k->left += kill_of_worker(w, k->run);
    }
}

void sched_end_run(uint32_t outer) {
    G *g = rt.main;
    worker *w = g->worker;
    kill_order k = { .run = rt.run };
    size_t before = SIZE_MAX;
    int64_t give_up = 0;
    while (ps_in_stopped_world(kill_run, &k), k.left) {
        if (k.left < before) give_up = clock_ns() + UNWIND_NS;
        else if (clock_ns() > give_up) break;            /* blocked in a call that does not return */
        before = k.left;
        bool fresh = gqueue_len(&w->fresh) && g_may_start(w);
        if (w->next || w->ready.n || fresh || relaxed_load(&w->inbox)) g_step_aside(g);
        else {
            Py_BEGIN_ALLOW_THREADS
            usleep(100);
            Py_END_ALLOW_THREADS
        }
    }
    g->run = rt.run = outer;
}

/* --- the end --------------------------------------------------------------------------------------- */
static bool workers_left(void) {
    worker *k = atomic_load(&sched.keeper);
    if (k && relaxed_load(&k->stop) != 2) return true;
    for (int i = 1; i < n_workers(); i++)
        if (sched.all[i] && sched.all[i] != g_worker && relaxed_load(&sched.all[i]->stop) != 2) return true;
    return false;
}

/* Its thread exists, or soon will, and has not come far enough to end when it is told to. */
static bool is_starting(worker *w) { return w && !atomic_load(&w->live) && relaxed_load(&w->stop) != 2; }

/* What takes the interpreter down would free the thread state that such a thread is just making. */
static bool somebody_starts(void) {
    for (int i = 1; i < n_workers(); i++)
        if (is_starting(sched.all[i])) return true;
    return is_starting(atomic_load(&sched.keeper));
}

static void tell_to_end(worker *w) {
    uint8_t running = 0;
    if (w && atomic_compare_exchange_strong(&w->stop, &running, 1)) worker_ring(w);
}

void sched_exit(void) {
    G *g = g_self_quick();
    if (g) word_set_bits(&g->pending, P_EXIT);
    if (rt.main && ps_is_main_thread()) word_set_bits(&rt.main->pending, P_EXIT);   /* else it just stops */
    atomic_store(&sched.procs, 1);
    lock_acquire(&sched.lock);
    sched.exiting = true;
    lock_release(&sched.lock);
    for (int i = 1; i < n_workers(); i++)
        if (sched.all[i] != g_worker) tell_to_end(sched.all[i]);
    tell_to_end(atomic_load(&sched.keeper));
    int64_t until = clock_ns() + UNWIND_NS / 5;
    while (somebody_starts() || (workers_left() && clock_ns() < until)) {
        Py_BEGIN_ALLOW_THREADS
        usleep(100);
        Py_END_ALLOW_THREADS
    }
}

/* --- fork ------------------------------------------------------------------------------------------ */
static void lose(G *g) {
    g->abandoned = true;
    relaxed_store(&g->state, G_DEAD);
    relaxed_store(&g->wait, W_ABANDONED);
    lock_reset(&g->lock);
    waitq_init(&g->joiners);
    if (!g->scope) return;
    g_hooks.after_fork(g);
    g_hooks.left(g);
}

static void lose_queue(gqueue *q) {
    for (G *g = q->head; g; g = g->next) lose(g);
    *q = (gqueue){ 0 };
}

/* Its thread does not exist in this process. */
static void lose_worker(worker *w, G *survivor) {
    for (node *x = w->all.next, *next; x != &w->all; x = next) {
        G *g = (G *)((char *)x - offsetof(G, all));
        next = x->next;
        if (g == survivor) continue;
        ring_remove(x);
        lose(g);
    }
    lose_queue(&w->fresh);
    lose_queue(&w->hand);
    w->ready = (gqueue){ 0 };
    w->next = NULL;
    relaxed_store(&w->inbox, NULL);
    lock_reset(&w->fresh_lock);
    lock_reset(&w->timers->lock);
}

static void keep_worker(worker *w) {
    netpoll_free(w->poller);
    fds_free(w->fds);
    if (!(w->poller = netpoll_new()) || !(w->fds = fds_new()))
        Py_FatalError("gofer: no poller for the child of a fork");
    relaxed_store(&w->sleeping, 0);
    relaxed_store(&w->stop, 0);
    relaxed_store(&w->locked, 0);
    w->cur->locks = 0;
    w->index = 0;
    w->idler = NULL;
    relaxed_store(&w->alive, 1);
    w->is_main_thread = true;
    w->ident = PyThread_get_thread_ident();
    sched.all[0] = w;
    atomic_store(&sched.n, 1);
    rt.main = w->cur;
    rt.main->id = 1;
    rt.main->run = rt.run;
    if (worker_make_idler(w) < 0) PyErr_Clear();
}

/* The calling thread ran no goroutines: it is the main thread now, and goes on as goroutine 1. */
static worker *succeed_thread(G *thread) {
    g_thread = NULL;
    G *heir = g_self();
    if (heir) g_hooks.succeed(heir, thread);
    else PyErr_Clear();                          /* then it is in no scope, and no timer fires */
    lose(thread);
    return heir ? heir->worker : NULL;
}

static void forget_the_others(void) {
    atomic_store(&sched.keeper_rests, 0);
    atomic_store(&sched.n, 0);
    atomic_store(&sched.idle, 0);
    atomic_store(&sched.searching, 0);
    atomic_store(&sched.threads, 0);
    atomic_store(&sched.calls, 0);
    atomic_store(&sched.outside, 0);
    atomic_store(&sched.resting, 0);
    atomic_fetch_add(&sched.epoch, 1);
    atomic_store(&sched.locked, 0);
    rt.main = NULL;
}

void sched_after_fork(void) {
    worker *me = g_worker, *lost[MAX_WORKERS + 1];
    G *self = g_self_quick();
    int n = 0;
    ps_after_fork();
    lock_reset(&sched.lock);
    sched.exiting = false;
    lock_reset(&rt.lock);
    if (self) g_hooks.after_fork(self);
    for (int i = 0; i < n_workers(); i++) {
        worker *w = sched.all[i];
        sched.all[i] = NULL;
        if (!w) continue;
        lose_worker(w, self);
        if (w != me) lost[n++] = w;
    }
    lose_queue(&sched.shared);
    worker *k = atomic_exchange(&sched.keeper, NULL);
    if (k) lost[n++] = k;
    forget_the_others();
    if (me) keep_worker(me);
    else if (self) me = succeed_thread(self);
    while (n && me) timers_move(lost[--n]->timers, me->timers);
}
