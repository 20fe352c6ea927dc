/* Workers: finding work, sleeping, waking, stealing, stopping.

   What must stay true:
   - Looking for work happens in the middle of a goroutine's park: its wait is published and its frames are
     the thread's.  Nothing here runs Python code, allocates an object or drops a reference.
   - No wake-up is lost.  Who sleeps: sets w->sleeping, then looks at its inbox, its timers, the shared
     queue and the others' fresh queues once more, then waits.  Who wakes: puts the work there, then looks
     at w->sleeping and rings.  Both in one order that all threads agree on, so one of the two sees the
     other.  The bell is remembered if nobody waits yet (netpoll.h).
   - An unstarted goroutine is in one queue at any moment at which the collector may run: a worker's
     `fresh` or `hand`, or the shared one.
   - A worker searches (steals) before it sleeps; while one searches, a spawn wakes no other.  The last one
     that stops searching because it found something wakes the next, if more is there.
   - sched.all[0] is the main thread's; a worker's place in the table is never given to another thread.

   A deadlock is declared by a worker about to sleep, under sched.lock, when every worker sleeps, no queue
   holds anything, no timer is armed, no foreign thread that has used the library lives, no other Python
   thread lives that a program would wait for at its end, and goroutine 1 waits. */
#define _GNU_SOURCE
#include "sched.h"
#include "timer.h"
#include "netpoll.h"
#include <sched.h>
#include <signal.h>
#include <unistd.h>

enum {
    MAX_WORKERS = 256,
    STEAL_MOST = 128,
    SPINS = 200,                   /* looks before going to sleep, where another worker may bring work */
};
static const int64_t RECHECK_NS = 100000000;   /* threads that end, and signals that others received, do not
                                                  ring: look again after so long */
static const int64_t STUCK_NS = 10000000;      /* a worker that has not switched for so long */
static const int64_t UNWIND_NS = 1000000000;   /* end_run gives up after so long without progress */

static struct {
    _Atomic(worker *) all[MAX_WORKERS];
    _Atomic(int) n;                /* places in use, counting the main thread's */
    _Atomic(int) procs;
    _Atomic(int) idle, searching;
    _Atomic(int) threads;          /* foreign threads that have used the library and live */
    lock_t lock;                   /* guards the table, the shared queue and the deadlock check */
    _Atomic(bool) exiting;         /* under the lock: no more threads are started */
    gqueue shared;                 /* unstarted, from foreign threads */
    _Atomic(worker *) keeper;      /* NULL until it is needed */
    _Atomic(int) keeper_rests;     /* nobody waits for a worker: the next spawn is to ring */
} sched;

static sigset_t program_signals;   /* what the program's threads block: not what our threads do */

static int n_workers(void) { return atomic_load(&sched.n); }

/* Those that exist and have their thread. */
static worker *live_worker(int i) {
    worker *w = sched.all[i];
    return w && atomic_load(&w->live) ? w : NULL;
}

/* --- making workers ------------------------------------------------------------------------------------ */
static void worker_free(worker *w) {
    timers_free(w->timers);
    if (w->poller) netpoll_free(w->poller);
    if (w->aux) stack_aux_free(w->aux);
    mem_free(w);
}

static worker *worker_new(void) {
    worker *w = mem_calloc(sizeof *w);
    if (!w) { PyErr_NoMemory(); return NULL; }
    w->rng = (uint64_t)clock_ns() * 2 + 1;
    ring_init(&w->all);
    if (!(w->timers = timers_new(w)) || !(w->aux = stack_aux_new())) PyErr_NoMemory();
    else if ((w->poller = netpoll_new())) return w;
    worker_free(w);
    return NULL;
}

/* The bottom of a worker's thread: a goroutine that waits until the thread is to end. */
static void worker_main(void *arg) {
    worker *w = arg;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);      /* signals are the main thread's */
    PyGILState_STATE held = PyGILState_Ensure();
    if (g_adopt_thread(w) == 0) {
        atomic_store(&w->live, 1);
        atomic_fetch_sub(&sched.searching, 1);
        w->idler = w->host;
        g_idle(w->host);
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

static void *no_thread(void) {
    PyErr_SetString(PyExc_RuntimeError, sched.exiting
                    ? "gofer can not be used any more: the interpreter is exiting"
                    : "gofer can not start another thread: the system has no more of them");
    return NULL;
}

/* One more thread; NULL with an exception.  Counts as searching until it has started. */
static worker *worker_start(void) {
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

static int make_idler(worker *w) {
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
    return make_idler(w) < 0 ? -1 : g_hooks.attached();
}

/* --- waking ------------------------------------------------------------------------------------------------ */
static void ring(worker *w) {
    uint8_t asleep = 1;
    if (atomic_compare_exchange_strong(&w->sleeping, &asleep, 2)) netpoll_ring(w->poller);
}

/* Rings one that sleeps and would take unstarted goroutines; false when all are awake. */
static bool wake_one(int among) {
    for (int i = 0, n = n_workers(); i < n && i < among; i++) {
        worker *w = live_worker(i);
        if (w && atomic_load(&w->sleeping) == 1) { ring(w); return true; }
    }
    return false;
}

static worker *keeper(void);

/* Work was put where others may take it. */
static NOINLINE void wake_another(void) {
    static _Atomic(int) refused;
    int procs = relaxed_load(&sched.procs);
    if (atomic_load(&sched.searching)) return;
    if (atomic_load(&sched.idle) && wake_one(procs)) return;
    if (n_workers() >= procs || relaxed_load(&refused) > 100) return;
    if (!keeper() || !worker_start()) { atomic_fetch_add(&refused, 1); PyErr_Clear(); }
}

static void wake_keeper(void) {
    if (relaxed_load(&sched.keeper_rests) && atomic_exchange(&sched.keeper_rests, 0))
        ring(atomic_load(&sched.keeper));
}

static void spawned(worker *w) {
    (void)w;
    if (relaxed_load(&sched.procs) == 1 && !relaxed_load(&sched.keeper)) return;    /* one thread, as ever */
    atomic_thread_fence(memory_order_seq_cst);
    wake_keeper();
    if (relaxed_load(&sched.procs) == 1 || relaxed_load(&sched.searching)) return;
    if (relaxed_load(&sched.idle) || relaxed_load(&sched.n) < relaxed_load(&sched.procs)) wake_another();
}

/* Into the shared queue: from a thread that runs no goroutines itself. */
static void share(G *g) {
    lock_acquire(&sched.lock);
    gqueue_push(&sched.shared, g);
    lock_release(&sched.lock);
    atomic_thread_fence(memory_order_seq_cst);
    if (!wake_one(MAX_WORKERS)) wake_keeper();
}

static int spawn_foreign(G *g) {
    /* The main thread may never have used us, or be busy with something else for long. */
    if (n_workers() < 2 && !atomic_load(&sched.idle) && !worker_start()) {
        if (!sched.exiting) return -1;
        PyErr_Clear();                           /* nobody runs it any more, as at any moment from now on */
    }
    share(g);
    return 0;
}

static void start_quietly(G *g) {
    worker *w = g_worker;
    if (w == relaxed_load(&sched.keeper)) { share(g); return; }
    relaxed_add(&w->spawned, 1);
    relaxed_add(&w->alive, 1);
    g_queue_fresh(w, g);
    atomic_thread_fence(memory_order_seq_cst);
    if (relaxed_load(&sched.idle) && !relaxed_load(&sched.searching)) wake_one(relaxed_load(&sched.procs));
    wake_keeper();
}

/* --- finding work -------------------------------------------------------------------------------------------- */
static G *take_shared(worker *w) {
    if (LIKELY(!gqueue_len(&sched.shared))) return NULL;
    lock_acquire(&sched.lock);
    G *g = gqueue_pop(&sched.shared);
    lock_release(&sched.lock);
    if (g) { relaxed_add(&w->spawned, 1); relaxed_add(&w->alive, 1); }
    return g;
}

static bool may_steal(const worker *w) { return w->index < relaxed_load(&sched.procs); }

static bool can_be_robbed(worker *w, worker *victim) {
    return victim && victim != w && gqueue_len(&victim->fresh);
}

/* Half of another's unstarted goroutines become ours. */
static void rob(worker *w, worker *victim) {
    lock_acquire(&victim->fresh_lock);
    uint32_t n = (victim->fresh.n + 1) / 2;
    if (n > STEAL_MOST) n = STEAL_MOST;
    for (uint32_t i = 0; i < n; i++) gqueue_push(&w->hand, gqueue_pop(&victim->fresh));
    lock_release(&victim->fresh_lock);
    relaxed_add(&w->stolen, n);
    lock_acquire(&w->fresh_lock);
    for (G *g; (g = gqueue_pop(&w->hand)); gqueue_push(&w->fresh, g)) g->stamp = w->stamp++;
    lock_release(&w->fresh_lock);
}

/* A worker beyond gomaxprocs leaves others their work, unless the keeper has found them stuck since. */
static bool is_stuck(worker *victim) {
    return relaxed_load(&victim->stuck_at) == relaxed_load(&victim->tick);
}

static bool steal(worker *w) {
    int n = n_workers();
    if (n < 2) return false;
    uint32_t at = rng_below(&w->rng, (uint32_t)n);
    for (int i = 0; i < n; i++) {
        worker *victim = live_worker((int)((at + (uint32_t)i) % (uint32_t)n));
        if (!can_be_robbed(w, victim) || !(may_steal(w) || is_stuck(victim))) continue;
        rob(w, victim);
        return true;
    }
    return false;
}

/* Anything that this worker would find if it looked. */
static bool work_for(worker *w) {
    if (atomic_load(&w->inbox) || gqueue_len(&sched.shared) || relaxed_load(&w->stop)) return true;
    for (int i = 0, n = n_workers(); i < n; i++) {
        worker *victim = live_worker(i);
        if (can_be_robbed(w, victim) && (may_steal(w) || is_stuck(victim))) return true;
    }
    return false;
}

/* Other workers may be about to bring something: sleeping and being woken takes longer than a short look. */
static bool spin(worker *w) {
    if (!GOFER_FREE_THREADED || n_workers() < 2) return false;
    int running = n_workers() - relaxed_load(&sched.idle);
    if (2 * relaxed_load(&sched.searching) > running) return false;
    for (int i = 0; i < SPINS; i++) {
        if (work_for(w)) return true;
        for (int k = 0; k < 16; k++) cpu_pause();
    }
    return false;
}

/* --- deadlock ------------------------------------------------------------------------------------------------------- */
/* A thread of the program that does not end with it: it might wake somebody.  Reads two dictionaries of the
   module threading; runs nothing of it. */
static bool is_ours(long ident) {
    for (int i = 0; i < n_workers(); i++) {
        worker *w = live_worker(i);
        if (w && (long)w->ident == ident) return true;
    }
    return false;
}

static bool dict_tells_of_threads(PyObject *active) {
    PyObject *key, *thread;
    Py_ssize_t at = 0;
    bool found = false;
    Py_BEGIN_CRITICAL_SECTION(active);
    while (!found && PyDict_Next(active, &at, &key, &thread)) {
        if (PyLong_Check(key) && is_ours(PyLong_AsLong(key))) continue;
        PyObject *daemon = PyObject_GetAttrString(thread, "_daemonic");
        found = daemon != Py_True;
        Py_XDECREF(daemon);
        PyErr_Clear();
    }
    Py_END_CRITICAL_SECTION();
    return found;
}

static bool other_threads(void) {
    PyObject *modules = PyImport_GetModuleDict();        /* borrowed, as all of these */
    PyObject *threading = modules ? PyDict_GetItemString(modules, "threading") : NULL;
    PyObject *names = threading && PyModule_Check(threading) ? PyModule_GetDict(threading) : NULL;
    if (!names) return false;
    PyObject *starting = PyDict_GetItemString(names, "_limbo");
    PyObject *active = PyDict_GetItemString(names, "_active");
    if (starting && PyDict_Check(starting) && PyDict_GET_SIZE(starting)) return true;
    return active && PyDict_Check(active) && dict_tells_of_threads(active);
}

static bool all_quiet(void) {
    if (sched.shared.n || atomic_load(&sched.threads)) return false;
    for (int i = 0; i < n_workers(); i++) {
        worker *w = sched.all[i];
        if (!w || relaxed_load(&w->stop) == 2) continue;
        if (atomic_load(&w->sleeping) != 1 || atomic_load(&w->inbox) || gqueue_len(&w->fresh)) return false;
        if (atomic_load(&w->timers->first) != NEVER) return false;
    }
    worker *k = atomic_load(&sched.keeper);
    return !k || (atomic_load(&k->sleeping) == 1 && atomic_load(&k->timers->first) == NEVER);
}

/* Changes whenever a worker leaves a goroutine, and so before it can sleep again after having run one. */
static uint64_t all_ticks(void) {
    uint64_t sum = 0;
    for (int i = 0; i < n_workers(); i++)
        if (sched.all[i]) sum += atomic_load(&sched.all[i]->tick);
    return sum;
}

/* Looking at one worker after the other is not enough: while we look at the second, the third may bring work
   to the first and fall asleep.  Who was asleep both times, and has not run anything between, was asleep
   between the two looks; and if all were at that one moment, nobody will ever wake. */
static bool all_quiet_at_once(void) {
    uint64_t before = all_ticks();
    return all_quiet() && all_quiet() && all_ticks() == before;
}

enum verdict { BUSY, PERHAPS, DEADLOCK };

static enum verdict check_deadlock(void) {
    lock_acquire(&sched.lock);
    bool quiet = rt.main && all_quiet_at_once();
    lock_release(&sched.lock);
    if (!quiet) return BUSY;
    if (other_threads()) return PERHAPS;
    if (!g_claim(rt.main, W_DEADLOCK)) return BUSY;
    g_ready(rt.main);
    return DEADLOCK;
}

/* --- sleeping --------------------------------------------------------------------------------------------------------- */
/* Lets goroutine 1 run the Python handlers of signals that have arrived. */
static void handle_signals(void) {
    if (g_claim(rt.main, W_SIGNAL)) g_ready(rt.main);
}

static void doze(worker *w) {
    int64_t until = relaxed_load(&w->timers->first);
    bool signals = w->is_main_thread;
    if (until == NEVER) {
        enum verdict v = check_deadlock();
        if (v == DEADLOCK) return;
        if (v == PERHAPS) until = clock_ns() + RECHECK_NS;
    }
    if (signals && relaxed_load(&sched.threads) && until > clock_ns() + RECHECK_NS)
        until = clock_ns() + RECHECK_NS;
    if (signals) {
        netpoll_block(w->poller);
        if (ps_signals_pending(w->ts)) {
            netpoll_unblock(w->poller);
            handle_signals();
            return;
        }
    }
    relaxed_add(&w->sleeps, 1);
    PyEval_SaveThread();
    netpoll_wait(w->poller, until, signals);
    PyEval_RestoreThread(w->ts);
    if (signals && ps_signals_pending(w->ts)) handle_signals();
}

static void go_to_sleep(worker *w) {
    atomic_store(&w->sleeping, 1);
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
    if (is_told_to_end(w)) return w->host;
    G *g = take_shared(w);
    return g ? g : g_pick(w);
}

static G *find(worker *w) {
    G *g = look(w);
    if (g) return g;
    atomic_fetch_add(&sched.searching, 1);
    while (!(steal(w) && (g = g_pick(w))) && !(g = look(w))) {
        if (spin(w)) continue;
        atomic_fetch_sub(&sched.searching, 1);
        go_to_sleep(w);
        atomic_fetch_add(&sched.searching, 1);
    }
    if (atomic_fetch_sub(&sched.searching, 1) == 1 && gqueue_len(&w->fresh) && relaxed_load(&sched.idle))
        wake_one(relaxed_load(&sched.procs));
    return g;
}

/* --- the keeper ------------------------------------------------------------------------------------------------------------ */
/* A thread that runs no goroutines.  It exists where other threads than a single worker do.  It keeps the
   timers of foreign threads, which no goroutine may hold up, and sees to it that unstarted goroutines do
   not wait behind one that blocks its thread: while somebody has any it looks every STUCK_NS, and declares
   a worker stuck that has not switched since.  A stuck worker may be robbed by all; if nobody is idle, a new
   one is started to do it. */
static bool is_waiting_for_a_worker(worker *w) { return gqueue_len(&w->fresh) && !atomic_load(&w->sleeping); }

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
    bool found = false, all = true;
    lock_acquire(&sched.lock);                   /* so that no thread ends meanwhile */
    for (int i = 0; i < n_workers(); i++) {
        worker *w = live_worker(i);
        if (!w) continue;
        uint32_t tick = relaxed_load(&w->tick);
        bool stuck = !atomic_load(&w->sleeping) && tick == w->watched && ps_is_blocked(w->ts);
        w->watched = tick;
        all = all && stuck;
        if (!stuck || !is_waiting_for_a_worker(w)) continue;
        relaxed_store(&w->stuck_at, tick);
        found = true;
    }
    lock_release(&sched.lock);
    return found || (all && gqueue_len(&sched.shared));
}

/* Detached: until a timer is due, the bell rings or the time is over; while `busy`, until nobody waits any
   more either, or somebody is stuck (true). */
static bool watch(worker *k, bool busy, int64_t until) {
    for (;;) {
        int64_t next = busy ? clock_ns() + STUCK_NS : until;
        atomic_store(&k->sleeping, 1);
        int64_t first = relaxed_load(&k->timers->first);
        netpoll_wait(k->poller, first < next ? first : next, false);
        atomic_store(&k->sleeping, 0);
        if (!busy || relaxed_load(&k->stop) || relaxed_load(&k->timers->first) <= clock_ns()) return false;
        if (look_for_stuck()) return true;
        if (!anybody_waits()) return false;
    }
}

static void keep(worker *k) {
    bool lingers = false;                        /* woken by a spawn: the next one need not ring again */
    while (!relaxed_load(&k->stop)) {
        k->now = clock_ns();
        timers_run(k->timers, k->now);
        bool busy = lingers || anybody_waits();
        int64_t until = NEVER;
        if (!busy) {
            atomic_store(&sched.keeper_rests, 1);
            busy = anybody_waits();
            atomic_store(&k->sleeping, 1);
            if (!busy && check_deadlock() == PERHAPS) until = clock_ns() + RECHECK_NS;
        }
        if (busy) look_for_stuck();              /* what is seen later is compared with this */
        PyEval_SaveThread();
        bool stuck = watch(k, busy, until);
        PyEval_RestoreThread(k->ts);
        lingers = !busy && !atomic_exchange(&sched.keeper_rests, 0);
        if (stuck && !wake_one(MAX_WORKERS) && !worker_start()) PyErr_Clear();
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

/* The keeper, started when it is first needed; NULL with an exception. */
static worker *keeper(void) {
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

/* --- run() --------------------------------------------------------------------------------------------------------------- */
int sched_begin_run(uint32_t *outer) {
    G *g = g_self();
    if (!g) return -1;
    if (g != rt.main) {
        PyErr_Format(PyExc_RuntimeError, g_is_foreign(g)
                     ? "run() in a thread of its own: goroutine 1 belongs to the main thread; call run() there, "
                       "or use go() here"
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

/* Running elsewhere: it ends at its next bytecode boundary. */
static void kill_running(worker *w, G *g) {
    g->kills = 1;
    w->async_exit = true;
    ps_raise_async(w->ts, rt.errors.exit);
}

static size_t kill_of_worker(worker *w, uint32_t run) {
    size_t n = kill_queue(&w->fresh, run);
    for (node *x = w->all.next; x != &w->all; x = x->next) {
        G *g = (G *)((char *)x - offsetof(G, all));
        if (g->run != run || g->kind == KIND_HOST || g == rt.main || g->abandoned || g_is_dead(g)) continue;
        n++;
        g_disturb(g, P_KILL, W_KILL);
        if (w != g_worker && g == w->cur && relaxed_load(&g->state) == G_RUNNING && !g->kills) kill_running(w, g);
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
        if (w->next || w->ready.n || gqueue_len(&w->fresh) || relaxed_load(&w->inbox)) g_step_aside(g);
        else {
            Py_BEGIN_ALLOW_THREADS
            usleep(100);
            Py_END_ALLOW_THREADS
        }
    }
    g->run = rt.run = outer;
}

/* --- the end ----------------------------------------------------------------------------------------------------------------- */
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
    if (w && atomic_compare_exchange_strong(&w->stop, &running, 1)) ring(w);
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

/* --- fork ---------------------------------------------------------------------------------------------------------------------- */
static void lose(G *g) {
    g->abandoned = true;
    relaxed_store(&g->state, G_DEAD);
    relaxed_store(&g->wait, W_ABANDONED);
    lock_reset(&g->lock);
    waitq_init(&g->joiners);
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
    if (!(w->poller = netpoll_new())) Py_FatalError("gofer: no poller for the child of a fork");
    pthread_sigmask(SIG_SETMASK, &program_signals, NULL);
    relaxed_store(&w->sleeping, 0);
    relaxed_store(&w->stop, 0);
    w->index = 0;
    w->idler = NULL;
    relaxed_store(&w->alive, 1);
    w->is_main_thread = true;
    w->ident = PyThread_get_thread_ident();
    sched.all[0] = w;
    rt.main = w->cur;
    rt.main->id = 1;
    rt.main->run = rt.run;
    if (make_idler(w) < 0) PyErr_Clear();
}

void sched_after_fork(void) {
    worker *me = g_worker;
    ps_after_fork();
    lock_reset(&sched.lock);
    sched.exiting = false;
    lock_reset(&rt.lock);
    for (int i = 0; i < n_workers(); i++) {
        worker *w = sched.all[i];
        sched.all[i] = NULL;
        if (!w) continue;
        lose_worker(w, me ? me->cur : NULL);
        if (me && w != me) timers_move(w->timers, me->timers);
    }
    lose_queue(&sched.shared);
    worker *k = atomic_exchange(&sched.keeper, NULL);
    if (k && me) timers_move(k->timers, me->timers);
    atomic_store(&sched.keeper_rests, 0);
    atomic_store(&sched.n, me ? 1 : 0);
    atomic_store(&sched.idle, 0);
    atomic_store(&sched.searching, 0);
    atomic_store(&sched.threads, 0);
    rt.main = NULL;
    if (g_thread) { lose(g_thread); g_thread = NULL; }
    if (me) keep_worker(me);
}

/* --- looking ------------------------------------------------------------------------------------------------------------------- */
int sched_procs(int n) {
    int before = relaxed_load(&sched.procs);
    if (n) {
        atomic_store(&sched.procs, n < MAX_WORKERS ? n : MAX_WORKERS);
        if (g_worker && gqueue_len(&g_worker->fresh)) spawned(g_worker);
    }
    return before;
}

int sched_cores(void) {
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

sched_stats sched_count(void) {
    sched_stats s = { .goroutines = gqueue_len(&sched.shared) };
    for (int i = 0; i < n_workers(); i++) {
        worker *w = sched.all[i];
        if (!w) continue;
        s.workers += relaxed_load(&w->stop) != 2;
        s.goroutines += relaxed_load(&w->alive);
        s.switches += relaxed_load(&w->switches);
        s.spawned += relaxed_load(&w->spawned);
        s.stolen += relaxed_load(&w->stolen);
        s.sleeps += relaxed_load(&w->sleeps);
    }
    return s;
}

static bool each_in_queue(gqueue *q, worker *w, sched_each_fn fn, void *arg) {
    for (G *g = q->head; g; g = g->next)
        if (!fn(g, w, false, arg)) return false;
    return true;
}

static bool each_of_worker(worker *w, sched_each_fn fn, void *arg) {
    for (node *x = w->all.next; x != &w->all; x = x->next) {
        G *g = (G *)((char *)x - offsetof(G, all));
        if (g_is_dead(g) || (g->kind == KIND_HOST && g != rt.main)) continue;
        if (!fn(g, w, g == w->cur, arg)) return false;
    }
    return each_in_queue(&w->hand, w, fn, arg) && each_in_queue(&w->fresh, w, fn, arg);
}

typedef struct { sched_each_fn fn; void *arg; } each_order;

static void each(void *arg) {
    each_order *e = arg;
    bool on = each_in_queue(&sched.shared, NULL, e->fn, e->arg);
    for (int i = 0; i < n_workers() && on; i++)
        if (sched.all[i]) on = each_of_worker(sched.all[i], e->fn, e->arg);
}

void sched_each(sched_each_fn fn, void *arg) {
    each_order e = { fn, arg };
    ps_in_stopped_world(each, &e);
}

typedef struct { visitproc visit; void *arg; int result; } visitor;

static bool visit_one(G *g, worker *w, bool current, void *arg) {
    visitor *v = arg;
    (void)w;
    if (g->args) v->result = ps_visit_fn(&g->fn, v->visit, v->arg);
    if (!v->result && !current && relaxed_load(&g->state) != G_NEW) v->result = ps_visit(&g->ps, v->visit, v->arg);
    return v->result == 0;
}

int sched_visit(visitproc visit, void *arg) {
    visitor v = { visit, arg, 0 };
    each_order e = { visit_one, &v };
    each(&e);                                    /* the collector has stopped the world already */
    return v.result;
}

/* --- the hooks -------------------------------------------------------------------------------------------------------------------- */
/* Lives in the thread state's dictionary, and so as long as the thread. */
static void thread_ended(PyObject *capsule) {
    G *g = PyCapsule_GetPointer(capsule, NULL);
    if (ps_finalizing()) return;                 /* its thread may still be asleep on it */
    g_wake_joiners(g);
    worker *k = atomic_load(&sched.keeper);
    if (!g->abandoned) atomic_fetch_sub(&sched.threads, 1);
    if (k) ring(k);                              /* it may have been the last that could wake somebody */
    if (g == g_thread) g_thread = NULL;
    Py_DECREF(g);
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
    g_hooks.ring = ring;
    g_hooks.attach = attach;
    g_hooks.spawn_foreign = spawn_foreign;
    g_hooks.keeper = keeper;
    g_hooks.start_quietly = start_quietly;
    return 0;
}
