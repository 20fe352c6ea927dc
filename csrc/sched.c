/* Workers: finding work, sleeping, waking, stealing, stopping.

   What must stay true:
   - Looking for work happens in the middle of a goroutine's park: its wait is published and its frames are
     the thread's.  Nothing here runs Python code, allocates an object or drops a reference.
   - No wake-up is lost.  Who sleeps: sets w->sleeping, then looks at its inbox, its timers, the shared
     queue and the others' fresh queues once more, then waits.  Who wakes: puts the work there, then looks
     at w->sleeping and rings.  Both in one order that all threads agree on, so one of the two sees the
     other.  The bell is remembered if nobody waits yet (netpoll.h).
   - What a worker has made, and another thread dropped the last of, is freed by its idler, which it takes
     when it looks around.  For one that sleeps, others ring when they look around or fall asleep.
   - An unstarted goroutine is in one queue at any moment at which the collector may run: a worker's
     `fresh` or `hand`, or the shared one.
   - A worker searches (steals) before it sleeps; while one searches, a spawn wakes no other.  The last one
     that stops searching because it found something wakes the next, if more is there.
   - sched.all[0] is the main thread's; a worker's place in the table is never given to another thread.
   - A worker whose thread is locked starts nothing: it does not search, and is not rung for what has not
     started.  Others may rob it, whoever they are.  As long as one is locked there is one that is not, and
     the keeper. */
#include "sched_table.h"
#include <sched.h>
#include <signal.h>
#include <unistd.h>

enum {
    STEAL_MOST = 128,
    SPIN_NS = 50 * 1000,           /* before going to sleep, where another worker may bring work */
    CALL_NS = 100 * 1000,          /* so soon a call on a thread may be over: to be woken takes 10 to 60 us */
    LATE = 4, LATE_TRY = 32,
};

struct sched_table sched;
static sigset_t program_signals;   /* what the program's threads block */

/* --- making workers -------------------------------------------------------------------------------- */
void worker_free(worker *w) {
    timers_free(w->timers);
    if (w->poller) netpoll_free(w->poller);
    fds_free(w->fds);
    if (w->aux) stack_aux_free(w->aux);
    mem_free(w);
}

worker *worker_new(void) {
    worker *w = mem_calloc(sizeof *w);
    if (!w) { PyErr_NoMemory(); return NULL; }
    w->rng = (uint64_t)clock_ns() * 2 + 1;
    ring_init(&w->all);
    bool enough = (w->timers = timers_new(w)) && (w->aux = stack_aux_new()) && (w->fds = fds_new());
    if (!enough) PyErr_NoMemory();
    else if ((w->poller = netpoll_new())) return w;
    worker_free(w);
    return NULL;
}

/* The bottom of a worker's thread: a goroutine that waits until the thread is to end. */
static void worker_main(void *arg) {
    worker *w = arg;
    pthread_sigmask(SIG_SETMASK, &program_signals, NULL);    /* a child process inherits it */
    PyGILState_STATE held = PyGILState_Ensure();
    if (g_adopt_thread(w) == 0) {
        atomic_store(&w->live, 1);
        atomic_fetch_sub(&sched.searching, 1);
        w->idler = w->host;
        g_idle(w->host);
        Py_CLEAR(w->spare);
        pool_use(NULL);
        g_worker = NULL;
        lock_acquire(&sched.lock);               /* the keeper may be looking at w->ts */
        atomic_store(&w->live, 0);
        lock_release(&sched.lock);
    } else {
        atomic_fetch_sub(&sched.searching, 1);
        PyErr_Clear();
    }
    atomic_store(&w->stop, 2);
    PyGILState_Release(held);
}

void *no_thread(void) {
    PyErr_SetString(PyExc_RuntimeError, sched.exiting
                    ? "gofer can not be used any more: the interpreter is exiting"
                    : "gofer can not start another thread: the system has no more of them");
    return NULL;
}

worker *worker_start(void) {
    worker *w = worker_new();
    if (!w) return NULL;
    lock_acquire(&sched.lock);
    w->index = n_workers() ? n_workers() : 1;
    bool room = w->index < MAX_WORKERS && !sched.exiting;
    if (room) {
        sched.all[w->index] = w;
        atomic_store(&sched.n, w->index + 1);
        atomic_fetch_add(&sched.searching, 1);
    }
    lock_release(&sched.lock);
    if (room && PyThread_start_new_thread(worker_main, w) != PYTHREAD_INVALID_THREAD_ID) return w;
    if (room) {
        atomic_fetch_sub(&sched.searching, 1);
        atomic_store(&w->stop, 2);               /* its place in the table stays taken */
    } else worker_free(w);
    return no_thread();
}

/* The main thread's idler is a goroutine of its own. */
static PyObject *idle(PyObject *module, PyObject *unused) {
    g_idle(g_worker->cur);
    Py_RETURN_NONE;
}
static PyMethodDef idle_def = { "idle", idle, METH_NOARGS, NULL };

int worker_make_idler(worker *w) {
    PyObject *fn = PyCFunction_New(&idle_def, NULL);
    w->idler = fn ? g_new(KIND_GO, &fn, 1, NULL) : NULL;
    Py_XDECREF(fn);
    if (!w->idler) return -1;
    w->idler->kind = KIND_HOST;
    w->idler->id = 0;
    w->next_id--;                                /* the program's first goroutine is number 2 */
    return 0;
}

static int attach_main(void) {
    worker *w = worker_new();
    if (!w) return -1;
    w->is_main_thread = true;
    if (g_adopt_thread(w) < 0) { worker_free(w); return -1; }
    pthread_sigmask(SIG_SETMASK, NULL, &program_signals);
    w->host->id = 1;
    atomic_store(&w->live, 1);
    rt.main = w->host;
    relaxed_store(&w->alive, 1);
    sched.all[0] = w;
    if (!n_workers()) atomic_store(&sched.n, 1);
    return worker_make_idler(w) < 0 ? -1 : g_hooks.attached();
}

/* --- waking ---------------------------------------------------------------------------------------- */
void worker_ring(worker *w) {
    uint8_t asleep = 1;
    if (atomic_compare_exchange_strong(&w->sleeping, &asleep, 2)) netpoll_ring(w->poller);
}

bool wake_one(int among) {
    for (int i = 0, n = n_workers(); i < n && i < among; i++) {
        worker *w = live_worker(i);
        if (w && g_may_start(w) && atomic_load(&w->sleeping) == 1) { worker_ring(w); return true; }
    }
    return false;
}

/* Work was put where others may take it. */
static NOINLINE void wake_another(void) {
    static _Atomic(int) refused;
    if (atomic_load(&sched.searching)) return;
    if (atomic_load(&sched.idle) && wake_one(n_starters())) return;
    if (n_workers() >= n_starters() || relaxed_load(&refused) > 100) return;
    if (!keeper() || !worker_start()) { atomic_fetch_add(&refused, 1); PyErr_Clear(); }
}

static void spawned(worker *w) {
    (void)w;
    if (relaxed_load(&sched.procs) == 1 && !relaxed_load(&sched.keeper)) return;    /* one thread, as ever */
    atomic_thread_fence(memory_order_seq_cst);
    keeper_wake();
    if (n_starters() == 1 || relaxed_load(&sched.searching)) return;
    if (relaxed_load(&sched.idle) || relaxed_load(&sched.n) < n_starters()) wake_another();
}

/* Into the shared queue: from a thread that runs no goroutines itself. */
static void share(G *g) {
    lock_acquire(&sched.lock);
    gqueue_push(&sched.shared, g);
    lock_release(&sched.lock);
    atomic_thread_fence(memory_order_seq_cst);
    if (!wake_one(MAX_WORKERS)) keeper_wake();
}

static int spawn_foreign(G *g) {
    /* The main thread may never have used us, or be busy with something else for long. */
    if (!keeper() || (n_workers() < 2 && !atomic_load(&sched.idle) && !worker_start())) {
        if (!sched.exiting) return -1;
        PyErr_Clear();                           /* nobody runs it any more, as at any moment from now on */
    }
    share(g);
    return 0;
}

static void start_quietly(G *g) {
    worker *w = g_worker;
    if (!w || w == relaxed_load(&sched.keeper)) { share(g); return; }     /* no worker: it is in a bubble */
    relaxed_add(&w->spawned, 1);
    relaxed_add(&w->alive, 1);
    g_queue_fresh(w, g);
    atomic_thread_fence(memory_order_seq_cst);
    if (relaxed_load(&sched.idle) && !relaxed_load(&sched.searching)) wake_one(n_starters());
    keeper_wake();
}

int sched_procs(int n) {
    int before = relaxed_load(&sched.procs);
    if (n) {
        atomic_store(&sched.procs, n < MAX_WORKERS ? n : MAX_WORKERS);
        if (g_worker && gqueue_len(&g_worker->fresh)) spawned(g_worker);
    }
    return before;
}

/* --- finding work ---------------------------------------------------------------------------------- */
static G *take_shared(worker *w) {
    if (LIKELY(!gqueue_len(&sched.shared)) || !g_may_start(w)) return NULL;
    lock_acquire(&sched.lock);
    G *g = gqueue_pop(&sched.shared);
    lock_release(&sched.lock);
    if (g) { relaxed_add(&w->spawned, 1); relaxed_add(&w->alive, 1); }
    return g;
}

static bool may_steal(const worker *w) { return w->index < n_starters(); }

static bool can_be_robbed(worker *w, worker *victim) {
    return victim && victim != w && !relaxed_load(&victim->choose) && gqueue_len(&victim->fresh);
}

/* Half of another's unstarted goroutines become ours, unless it has begun to explore. */
static void rob(worker *w, worker *victim) {
    lock_acquire(&victim->fresh_lock);
    uint32_t n = relaxed_load(&victim->choose) ? 0 : (victim->fresh.n + 1) / 2;
    if (n > STEAL_MOST) n = STEAL_MOST;
    for (uint32_t i = 0; i < n; i++) gqueue_push(&w->hand, gqueue_pop(&victim->fresh));
    lock_release(&victim->fresh_lock);
    relaxed_add(&w->stolen, n);
    lock_acquire(&w->fresh_lock);
    for (G *g; (g = gqueue_pop(&w->hand)); gqueue_push(&w->fresh, g)) g->stamp = w->stamp++;
    lock_release(&w->fresh_lock);
}

/* A worker beyond gomaxprocs leaves others their work, unless they are locked or the keeper
   has found them stuck since. */
static bool is_stuck(worker *victim) {
    return !g_may_start(victim) || relaxed_load(&victim->stuck_at) == relaxed_load(&victim->tick);
}

static bool steal(worker *w) {
    int n = n_workers();
    if (n < 2 || !g_may_start(w)) return false;
    uint32_t at = rng_below(&w->rng, (uint32_t)n);
    for (int i = 0; i < n; i++) {
        worker *victim = live_worker((int)((at + (uint32_t)i) % (uint32_t)n));
        if (!can_be_robbed(w, victim) || !(may_steal(w) || is_stuck(victim))) continue;
        rob(w, victim);
        return true;
    }
    return false;
}

static bool somebody_to_rob(worker *w) {
    if (!g_may_start(w)) return false;
    for (int i = 0, n = n_workers(); i < n; i++) {
        worker *victim = live_worker(i);
        if (can_be_robbed(w, victim) && (may_steal(w) || is_stuck(victim))) return true;
    }
    return false;
}

/* Anything that this worker would find if it looked. */
static bool work_for(worker *w) {
    return atomic_load(&w->inbox) || relaxed_load(&w->stop) || (gqueue_len(&sched.shared) && g_may_start(w))
        || somebody_to_rob(w) || (ps_was_given_back(w->ts) && g_idler_rests(w));
}

/* While we searched, spawns have woken nobody. */
static bool work_for_others(worker *w) {
    return gqueue_len(&w->fresh) || gqueue_len(&sched.shared) || somebody_to_rob(w);
}

static int n_awake(void) {
    int awake = 0;
    for (int i = 0, n = n_workers(); i < n; i++) {
        worker *w = live_worker(i);
        awake += w && atomic_load(&w->sleeping) != 1;      /* who was rung is about to be */
    }
    return awake;
}

static bool descriptors_ready(worker *w) {
    if (LIKELY(!fds_in_use(w->fds))) return false;
    enum poll_result found = netpoll_wait(w->poller, 0, false);
    fds_dispatch(w);
    return found != POLL_TIMEOUT;
}

/* Other workers may be about to bring something, and to sleep and be woken takes longer than a short look.
   At most half of those that are awake do this. */
static bool spin(worker *w) {
    if (!GOFER_FREE_THREADED || n_workers() < 2) return false;
    if (2 * relaxed_load(&sched.searching) > n_awake()) return false;
    int64_t now = clock_ns(), end = now + SPIN_NS;
    for (; now < end; now = clock_ns()) {
        if (work_for(w) || descriptors_ready(w) || relaxed_load(&w->timers->first) <= now) return true;
        for (int k = 0; k < 16; k++) cpu_pause();
        sched_yield();                           /* the one that was rung may be waiting for this processor */
    }
    return false;
}

/* --- sleeping -------------------------------------------------------------------------------------- */
/* Lets goroutine 1 run the Python handlers of signals that have arrived. */
static void handle_signals(void) {
    if (g_claim(rt.main, W_SIGNAL)) g_ready(rt.main);
}

/* Signals come to the main thread.  Between netpoll_block and its sleep they go to another thread that is
   awake, which then has no way to ring. */
static bool others_take_signals(worker *w) {
    return relaxed_load(&sched.idle) < n_workers() || relaxed_load(&sched.threads) || ps_thread_count(w->ts);
}

/* One that came for the program may be on its way to another thread, and that may not have run since.  As the
   mask changes, the system looks for them anew, and goroutine 1 will handle it before it raises Deadlock. */
static void take_signals(worker *w) {
    if (!w->is_main_thread) return;
    netpoll_block(w->poller);
    netpoll_unblock(w->poller);
}

/* The thread that a goroutine has given a call to may bring it back before we were asleep and woken; where
   the last ones did not, we look only now and then whether that has changed.  Without the GIL, or it could
   not. */
static bool call_comes_back(worker *w, int64_t until) {
    int64_t end = w->called + CALL_NS;
    if (!w->called) return false;
    w->called = 0;
    bool waits = w->late < LATE || w->late % LATE_TRY == 0;
    for (int64_t now = clock_ns(); waits && now < end && now < until; now = clock_ns()) {
        if (atomic_load(&w->inbox)) { w->late = 0; return true; }
        for (int k = 0; k < 16; k++) cpu_pause();
        sched_yield();
    }
    w->late++;
    return false;
}

static void doze(worker *w) {
    int64_t until = relaxed_load(&w->timers->first);
    bool signals = w->is_main_thread;
    if (until == NEVER) {
        enum verdict v = check_deadlock();
        if (v == DEADLOCK) {
            take_signals(w);
            return;
        }
        if (v == PERHAPS) until = clock_ns() + RECHECK_NS;
    }
    if (signals) {
        if (others_take_signals(w) && until > clock_ns() + RECHECK_NS) until = clock_ns() + RECHECK_NS;
        netpoll_block(w->poller);
        if (ps_signals_pending(w->ts)) {
            netpoll_unblock(w->poller);
            handle_signals();
            return;
        }
    }
    relaxed_add(&w->sleeps, 1);
    PyEval_SaveThread();
    if (call_comes_back(w, until)) until = 0;
    netpoll_wait(w->poller, until, signals);
    PyEval_RestoreThread(w->ts);
    fds_dispatch(w);
    if (signals && ps_signals_pending(w->ts)) handle_signals();
}

/* Who sleeps does not learn that objects of its own have been given back. */
static void ring_for_given_back(worker *w) {
    if (!GOFER_FREE_THREADED || !relaxed_load(&sched.idle)) return;
    lock_acquire(&sched.lock);                       /* so that their thread states stay */
    for (int i = 0, n = n_workers(); i < n; i++) {
        worker *other = live_worker(i);
        if (other && other != w && ps_was_given_back(other->ts)) worker_ring(other);
    }
    lock_release(&sched.lock);
}

static void go_to_sleep(worker *w) {
    ring_for_given_back(w);
    fall_asleep(w);
    atomic_fetch_add(&sched.idle, 1);
    if (!work_for(w)) doze(w);
    atomic_fetch_sub(&sched.idle, 1);
    atomic_store(&w->sleeping, 0);
}

static bool is_told_to_end(worker *w) {
    return UNLIKELY(relaxed_load(&w->stop)) && g_claim(w->host, W_KILL);
}

static G *look(worker *w) {
    w->now = clock_ns();
    timers_run(w->timers, w->now);
    descriptors_ready(w);
    if (is_told_to_end(w)) return w->host;
    G *g = ps_was_given_back(w->ts) ? g_take_idler(w) : NULL;
    if (LIKELY(!g)) g = take_shared(w);
    return g ? g : g_pick(w);
}

static G *find(worker *w) {
    G *g = look(w);
    bool around = w->tick % LOOK_AROUND == 0;
    if (around) ring_for_given_back(w);
    if (g) {
        /* Whoever yields again and again is never idle, and may wait for one behind somebody who computes. */
        if (around && (!gqueue_len(&w->fresh) || relaxed_load(&sched.locked))) steal(w);
        return g;
    }
    if (!g_may_start(w)) {
        do go_to_sleep(w);
        while (!(g = look(w)));
        return g;
    }
    atomic_fetch_add(&sched.searching, 1);
    while (!(steal(w) && (g = g_pick(w))) && !(g = look(w))) {
        if (spin(w)) continue;
        atomic_fetch_sub(&sched.searching, 1);
        go_to_sleep(w);
        atomic_fetch_add(&sched.searching, 1);
    }
    if (atomic_fetch_sub(&sched.searching, 1) == 1 && work_for_others(w)) wake_another();
    return g;
}

/* --- descriptors ----------------------------------------------------------------------------------- */
static void tell_tables(int fd, void (*what)(worker *, int)) {
    for (int i = 0; i < n_workers(); i++) {
        worker *w = live_worker(i);
        if (w && fds_in_use(w->fds)) what(w, fd);
    }
}

void sched_fd_closing(int fd) { tell_tables(fd, fds_closing); }
void sched_fd_closed(int fd) { tell_tables(fd, fds_closed); }

/* --- threads for one goroutine --------------------------------------------------------------------- */
static bool somebody_starts(void) {
    for (int i = 0; i < n_workers(); i++) {
        worker *w = sched.all[i];
        if (w && relaxed_load(&w->stop) != 2 && g_may_start(w)) return true;
    }
    return false;
}

static void give_back(worker *w) {
    if (atomic_fetch_sub(&w->locked, 1) == 1) atomic_fetch_sub(&sched.locked, 1);
}

/* w starts no goroutines until it is given back; -1 with an exception when nobody else could. */
static int reserve(worker *w) {
    if (!keeper()) return -1;
    lock_acquire(&sched.lock);
    if (atomic_fetch_add(&w->locked, 1) == 0) atomic_fetch_add(&sched.locked, 1);
    bool others = somebody_starts();
    lock_release(&sched.lock);
    if (!others && !worker_start()) { give_back(w); return -1; }
    if (gqueue_len(&w->fresh)) spawned(w);
    return 0;
}

static void unlock_thread(G *g) {
    g->locks = 0;
    if (g->worker) give_back(g->worker);
}

int sched_lock_thread(void) {
    G *g = g_self();
    if (!g) return -1;
    if (g->locks == UINT16_MAX) {
        PyErr_SetString(PyExc_RuntimeError, "lock_os_thread() 65,536 times without unlock_os_thread()");
        return -1;
    }
    if (!g->locks && g->worker && reserve(g->worker) < 0) return -1;
    g->locks++;
    return 0;
}

void sched_unlock_thread(void) {
    G *g = g_self_quick();
    if (!g || !g->locks) return;
    if (g->locks > 1) g->locks--;
    else unlock_thread(g);
}

/* --- the hooks ------------------------------------------------------------------------------------- */
/* Lives in the thread state's dictionary, and so as long as the thread. */
static void thread_ended(PyObject *capsule) {
    G *g = PyCapsule_GetPointer(capsule, NULL);
    if (ps_finalizing()) return;                 /* its thread may still be asleep on it */
    if (g != g_thread) g_hooks.after_fork(g);    /* we are in the child, and it is in the parent */
    if (g->scope) g_hooks.left(g);
    g_wake_joiners(g);
    worker *k = atomic_load(&sched.keeper);
    if (!g->abandoned) atomic_fetch_sub(g->rests ? &sched.resting : &sched.threads, 1);
    if (k) worker_ring(k);                     /* it may have been the last that could wake somebody */
    if (g == g_thread) g_thread = NULL;
    Py_DECREF(g);
}

void sched_outside(int n) { atomic_fetch_add(&sched.outside, n); }

uint32_t sched_call_begin(void) {
    worker *w = g_worker;
    if (w) w->called = clock_ns();
    atomic_fetch_add(&sched.calls, 1);
    return atomic_load(&sched.epoch);
}

void sched_call_over(uint32_t epoch) {
    if (epoch == atomic_load(&sched.epoch)) atomic_fetch_sub(&sched.calls, 1);
}

void sched_look_for_deadlock(void) {
    worker *k = atomic_load(&sched.keeper);
    if (k) worker_ring(k);
}

worker *sched_reserve(uint32_t *epoch) {
    worker *w = g_worker;
    *epoch = atomic_load(&sched.epoch);
    return reserve(w) < 0 ? NULL : w;
}

void sched_give_back(worker *w, uint32_t epoch) {
    if (epoch == atomic_load(&sched.epoch)) give_back(w);
}

void sched_thread_rests(void) {
    G *g = g_thread;
    if (!g || g->rests) return;
    g->rests = true;
    atomic_fetch_sub(&sched.threads, 1);
    atomic_fetch_add(&sched.resting, 1);
    sched_look_for_deadlock();
}

static PyObject *thread_key;             /* "gofer.thread" */

static int attach_thread(void) {
    if (!keeper()) return -1;
    PyObject *dict = PyThreadState_GetDict();
    G *g = dict ? g_thread_new() : NULL;
    if (!g) return PyErr_Occurred() ? -1 : (PyErr_NoMemory(), -1);
    PyObject *capsule = PyCapsule_New(g, NULL, thread_ended);
    if (!capsule) { Py_DECREF(g); return -1; }
    atomic_fetch_add(&sched.threads, 1);
    g_thread = g;
    int result = PyDict_SetItem(dict, thread_key, capsule);
    Py_DECREF(capsule);                  /* when it could not be kept, this ends it */
    return result;
}

static int attach(void) {
    return ps_is_main_thread() ? attach_main() : attach_thread();
}

int sched_init(void) {
    if (!(thread_key = PyUnicode_InternFromString("gofer.thread"))) return -1;
    atomic_store(&sched.procs, 1);
    atomic_store(&rt.ids, 1);
    g_hooks.find = find;
    g_hooks.spawned = spawned;
    g_hooks.ring = worker_ring;
    g_hooks.attach = attach;
    g_hooks.spawn_foreign = spawn_foreign;
    g_hooks.keeper = keeper;
    g_hooks.start_quietly = start_quietly;
    g_hooks.armed = keeper_armed;
    g_hooks.unlock = unlock_thread;
    fds_changed = sched_fd_closed;
    return 0;
}
