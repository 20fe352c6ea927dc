/* See g.h. */
#include "g.h"

struct runtime rt;
struct g_hooks g_hooks;
__thread worker *g_worker;
__thread G *g_thread;
__thread bool g_collecting;

const char *const wait_reason_names[WHY_COUNT] = {
    [WHY_NONE] = "", [WHY_SEND] = "chan send", [WHY_RECV] = "chan receive", [WHY_SELECT] = "select",
    [WHY_SELECT_EMPTY] = "select (no cases)", [WHY_SLEEP] = "sleep", [WHY_JOIN] = "join",
    [WHY_MUTEX] = "mutex lock", [WHY_SEMAPHORE] = "semaphore acquire",
    [WHY_WAITGROUP] = "wait group", [WHY_FOREVER] = "for ever", [WHY_UNWIND] = "unwinding the others", [WHY_BUBBLE] = "bubble", [WHY_IO] = "IO wait",
    [WHY_LOCK] = "lock acquire", [WHY_QUEUE] = "queue get",
    [WHY_IDLE] = "idle",
};

enum {
    NEXT_STREAK = 32,      /* so many picks of `next` in a row, then the queue has its turn */
    KILLS = 1000,          /* a killed goroutine that catches GoroutineExit so often is abandoned */
    ID_BLOCK = 64,
    BASE_GAP = 16 * 1024,  /* main parks in about the same depth as it was found: nothing to copy */
};

/* --- who am I -------------------------------------------------------------------------------------- */
NOINLINE G *g_self_first(void) {
    if (ps_finalizing()) {
        PyErr_SetString(PyExc_RuntimeError, "gofer can not be used any more: the interpreter is exiting");
        return NULL;
    }
    return g_hooks.attach() < 0 ? NULL : g_self_quick();
}

static uint64_t new_id(worker *w) {
    if (!w) return atomic_fetch_add(&rt.ids, 1) + 1;
    if (UNLIKELY(w->next_id == w->last_id)) {
        w->next_id = atomic_fetch_add(&rt.ids, ID_BLOCK) + 1;
        w->last_id = w->next_id + ID_BLOCK;
    }
    return w->next_id++;
}

/* --- where a go statement stands ------------------------------------------------------------------- */
static bool is_ours(PyCodeObject *code) {
    return rt.home && PyUnicode_Tailmatch(code->co_filename, rt.home, 0, PY_SSIZE_T_MAX, -1) == 1;
}

static NOINLINE const site *site_find(worker *w, PyCodeObject *code, int lasti) {
    site *s;
    for (s = w->sites; s; s = s->next)
        if (s->code == code && s->lasti == lasti) return s;
    if (!(s = mem_alloc(sizeof *s))) return NULL;
    *s = (site){ (PyCodeObject *)Py_NewRef(code), lasti, is_ours(code), w->sites };
    return w->sites = s;
}

static inline bool is_site(const site *s, PyCodeObject *code, int lasti) {
    return LIKELY(s && s->code == code && s->lasti == lasti);
}

const site *g_site_here(worker *w) {
    int lasti;
    pyframe *f = ps_current_frame(w->ts);
    for (PyCodeObject *code; (code = ps_read_frame(f, &lasti, &f)); ) {
        if (is_site(w->last_site, code, lasti)) return w->last_site;
        const site *s = is_site(w->last_ours, code, lasti) ? w->last_ours : site_find(w, code, lasti);
        if (!s || !s->ours) return w->last_site = s;
        w->last_ours = s;
    }
    return NULL;
}

/* --- making and unmaking --------------------------------------------------------------------------- */
static void init_references(G *g) {
#ifdef Py_GIL_DISABLED
    /* Goroutines end on other threads than they were made on.  Counting them without an owner from the
       start is one atomic operation each; giving the reference back to its owner is a queue. */
    g->ob_base.ob_tid = 0;
    g->ob_base.ob_ref_local = 0;
    g->ob_base.ob_ref_shared = _Py_REF_SHARED(1, _Py_REF_MERGED);
#else
    (void)g;
#endif
}

static G *g_alloc(worker *w, enum g_kind kind) {
    G *g;
    if (kind == KIND_TASK) {
        if (!(g = PyObject_GC_New(G, &Task_Type))) return NULL;
        memset((char *)g + offsetof(G, next), 0, sizeof *g - offsetof(G, next));
    } else if (w && LIKELY((g = w->free) != NULL)) {
        w->free = g->next;
        w->n_free--;
        PyObject_Init((PyObject *)g, &Goroutine_Type);
    } else {
        if (!(g = PyObject_Malloc(sizeof *g))) { PyErr_NoMemory(); return NULL; }
        PyObject_Init((PyObject *)g, &Goroutine_Type);
        memset((char *)g + offsetof(G, next), 0, sizeof *g - offsetof(G, next));
    }
    init_references(g);
    g->kind = (uint8_t)kind;
    relaxed_store(&g->state, G_NEW);
    g->w.g = g;
    waitq_init(&g->joiners);
    return g;
}

/* tp_dealloc of Goroutine and Task, after their own fields: it is dead, or was never queued. */
void g_free(G *g) {
    worker *w = g_worker;
    if (g->kind == KIND_TASK) { PyObject_GC_Del(g); return; }
    if (!w || w->n_free >= POOL_KEEP) { PyObject_Free(g); return; }
    if (HOSTILE) memset((char *)g + offsetof(G, next), POISON, sizeof *g - offsetof(G, next));
    memset((char *)g + offsetof(G, next), 0, sizeof *g - offsetof(G, next));
    g->next = w->free;
    w->free = g;
    w->n_free++;
}

static void drop_call(G *g) {
    if (!g->args) return;
    PyObject **args = g->args;
    Py_ssize_t n = g->nargs + (g->kwnames ? PyTuple_GET_SIZE(g->kwnames) : 0);
    fnref fn = g->fn;
    bool known = UNLIKELY(Py_REFCNT(g) > 1);         /* somebody may be asking for its name */
    if (known) lock_acquire(&g->lock);
    g->args = NULL;
    if (known) lock_release(&g->lock);
    for (Py_ssize_t i = 0; i < n; i++) Py_DECREF(args[i]);
    fnref_close(fn);
    Py_CLEAR(g->kwnames);
    if (args != g->inline_args + 1) mem_free(args - 1);
}

void g_keep_name(G *g) {
    if (!g->args) return;
    PyObject *fn = fnref_get(g->fn);
    if (PyMethod_Check(fn)) fn = PyMethod_GET_FUNCTION(fn);
    if (!PyFunction_Check(fn)) return;
    lock_acquire(&g->lock);
    if (!g->name) g->name = Py_NewRef(((PyFunctionObject *)fn)->func_qualname);
    lock_release(&g->lock);
}

G *g_new(enum g_kind kind, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    G *self = g_self();
    if (!self) return NULL;
    worker *w = g_worker;
    G *g = g_alloc(w, kind);
    if (!g) return NULL;
    PyObject *fn = args[0];
    Py_ssize_t n = nargs - 1 + (kwnames ? PyTuple_GET_SIZE(kwnames) : 0);
    PyObject **copy = g->inline_args + 1;
    if (UNLIKELY(n > ARGS_INLINE)) {
        copy = mem_alloc((size_t)(n + 1) * sizeof *copy);
        if (!copy) { Py_DECREF(g); PyErr_NoMemory(); return NULL; }
        copy++;
    }
    for (Py_ssize_t i = 0; i < n; i++) copy[i] = Py_NewRef(args[1 + i]);
    g->args = copy;
    g->nargs = (uint32_t)(nargs - 1);
    g->kwnames = Py_XNewRef(kwnames);
    g->fn = fnref_new(fn);
    PyThreadState *ts = w ? w->ts : PyThreadState_Get();
    if (UNLIKELY(ts->context != NULL) && !(g->ps.context = PyContext_CopyCurrent())) {
        Py_DECREF(g);
        return NULL;
    }
    g->id = new_id(w);
    g->parent = self->id;
    g->run = g_is_foreign(self) ? rt.run : self->run;
    if (w) {
        g->site = g_site_here(w);
        if (UNLIKELY(relaxed_load(&self->pending) & P_KILL)) relaxed_store(&g->pending, P_KILL);
    }
    return g;
}

/* tp_dealloc's first half: what a goroutine still owns. */
void g_clear(G *g) {
    clear_weakrefs((PyObject *)g, &g->weakrefs);
    if (UNLIKELY(g->scope != NULL)) g_hooks.left(g);
    drop_call(g);
    Py_CLEAR(g->ps.context);
    ps_drop_locals(&g->ps);
    Py_CLEAR(g->at_end_arg);
    Py_CLEAR(g->name);
    Py_CLEAR(g->result);
    Py_CLEAR(g->exception);
    if (g->thread) { PyThread_free_lock(g->thread); g->thread = NULL; }
}

void g_discard(G *g) { Py_DECREF(g); }

int g_spawn_apart(G *g) {
    Py_INCREF(g);
    if (g_hooks.spawn_foreign(g) == 0) return 0;
    Py_DECREF(g);
    return -1;
}

int g_spawn(G *g) {
    worker *w = g_worker;
    if (UNLIKELY(!w)) return g_spawn_apart(g);
    Py_INCREF(g);                        /* the runtime's, until it is dead */
    relaxed_add(&w->spawned, 1);
    relaxed_add(&w->alive, 1);
    g_queue_fresh(w, g);
    g_hooks.spawned(w);
    return 0;
}

/* --- run queues ------------------------------------------------------------------------------------ */
void g_queue_fresh(worker *w, G *g) {
    lock_acquire(&w->fresh_lock);
    g->stamp = w->stamp++;
    gqueue_push(&w->fresh, g);
    lock_release(&w->fresh_lock);
}

static void queue_ready(worker *w, G *g) {
    relaxed_store(&g->state, G_RUNNABLE);
    g->stamp = w->stamp++;
    gqueue_push(&w->ready, g);
}

void g_drain(worker *w) {
    G *newest = atomic_exchange(&w->inbox, NULL), *oldest = NULL;
    while (newest) {                     /* turn it round: first come, first served */
        G *g = newest;
        newest = g->next;
        g->next = oldest;
        oldest = g;
    }
    while (oldest) {
        G *g = oldest;
        oldest = g->next;
        queue_ready(w, g);
    }
}

static G *pick_queued(worker *w) {
    G *r = w->ready.head;
    if (gqueue_len(&w->fresh) && g_may_start(w)) {
        lock_acquire(&w->fresh_lock);
        G *f = w->fresh.head;
        if (f && (!r || (int32_t)(f->stamp - r->stamp) < 0)) {
            gqueue_pop(&w->fresh);
            lock_release(&w->fresh_lock);
            return f;
        }
        lock_release(&w->fresh_lock);
    }
    return gqueue_pop(&w->ready);
}

G *g_pick(worker *w) {
    if (relaxed_load(&w->inbox)) g_drain(w);
    G *g = w->next;
    if (g) {
        w->next = NULL;
        if (LIKELY(w->streak++ < NEXT_STREAK)) return g;
        queue_ready(w, g);
    }
    w->streak = 0;
    return pick_queued(w);
}

static bool has_queued(worker *w) {
    return w->next || w->ready.head || relaxed_load(&w->inbox) || (gqueue_len(&w->fresh) && g_may_start(w));
}

/* Whether it is time to look at timers, poller and shared queue first. */
static inline bool tick(worker *w) {
    relaxed_add(&w->tick, 1);
    return UNLIKELY(relaxed_load(&w->tick) % LOOK_AROUND == 0);
}

static inline G *pick(worker *w) {
    if (UNLIKELY(relaxed_load(&w->choose) != NULL)) {
        G *g = relaxed_load(&w->choose)(w);
        if (g) return g;
    }
    if (!tick(w)) {
        G *g = g_pick(w);
        if (LIKELY(g != NULL)) return g;
    }
    return g_hooks.find(w);
}

/* Puts back what pick returned, first in line again. */
static void unpick(worker *w, G *g) {
    if (relaxed_load(&g->state) == G_NEW) {
        lock_acquire(&w->fresh_lock);
        g->stamp = w->fresh.head ? w->fresh.head->stamp - 1 : w->stamp;
        gqueue_push_front(&w->fresh, g);
        lock_release(&w->fresh_lock);
    } else {
        g->stamp = w->ready.head ? w->ready.head->stamp - 1 : w->stamp;
        gqueue_push_front(&w->ready, g);
    }
}

static bool unlink_from(gqueue *q, G *g) {
    gqueue rest = { 0 };
    bool found = false;
    for (G *x; (x = gqueue_pop(q)); )
        if (x == g) found = true;
        else gqueue_push(&rest, x);
    q->head = rest.head;
    q->tail = rest.tail;
    relaxed_store((_Atomic(uint32_t) *)&q->n, rest.n);       /* others look without the lock */
    return found;
}

bool g_unqueue(worker *w, G *g) {
    g_drain(w);
    if (w->next == g) { w->next = NULL; return true; }
    if (relaxed_load(&g->state) != G_NEW) return unlink_from(&w->ready, g);
    lock_acquire(&w->fresh_lock);
    bool found = unlink_from(&w->fresh, g);
    lock_release(&w->fresh_lock);
    return found;
}

void g_ready(G *g) {
    worker *w = g->worker;
    if (UNLIKELY(relaxed_load(&g->bubble))) g_hooks.woken(g);
    if (LIKELY(w == g_worker && w)) {
        if (!w->next) { relaxed_store(&g->state, G_RUNNABLE); w->next = g; }
        else queue_ready(w, g);
        return;
    }
    if (!w) { PyThread_release_lock(g->thread); return; }
    G *head = relaxed_load(&w->inbox);
    do g->next = head; while (!atomic_compare_exchange_weak(&w->inbox, &head, g));
    if (atomic_load(&w->sleeping)) g_hooks.ring(w);
}

static int raise_interrupt(G *g);
static void interrupt_again(void);

/* --- switching ------------------------------------------------------------------------------------- */
static void g_main(void);

/* Runs on the auxiliary stack. */
static char *transfer(void *arg, char *sp) {
    worker *w = arg;
    G *from = w->from, *to = w->cur;
    if (from) stack_save(&from->slice, &from->ps, w->base, sp);
    if (UNLIKELY(!to->slice.sp)) return switch_start(w->base, g_main, w->control);
    stack_restore(&to->slice, &to->ps);
    return to->slice.sp;
}

/* Makes the thread state that of `to`: no Python code from here until its stack is in place. */
static inline void become(worker *w, G *to, _PyStackChunk *root) {
    relaxed_add(&w->switches, 1);
    w->cur = to;
    if (relaxed_load(&to->state) == G_NEW) {
        to->worker = w;
        to->root = root ? root : chunk_take(&w->pool);
        to->slice.sp = NULL;
        ring_insert_before(&w->all, &to->all);
        ps_start(&to->ps, w->ts, to->root, w->c_depth);
    } else ps_load(&to->ps, w->ts);
    relaxed_store(&to->state, G_RUNNING);
}

/* false: no memory to leave this stack, nothing has happened */
static NOINLINE bool switch_to(worker *w, G *from, G *to) {
    if (UNLIKELY(!stack_reserve(&w->pool, &from->slice, w->base, switch_sp()))) return false;
    ps_save(&from->ps, w->ts);
    w->from = from;
    become(w, to, NULL);
    size_t depth = switch_depth();
    switch_call(w, w->aux, transfer);
    /* somebody came back to us */
    switch_restore_depth(depth);
    ps_resumed(&from->ps, w->ts);
    return true;
}

/* A goroutine that ends is still the current one until its successor is in place, and dropping the last
   reference to a Task may run Python code.  So it is buried, and dropped by whoever next can. */
static void bury(worker *w, G *g) {
    g->next = w->graveyard;
    w->graveyard = g;
}

static NOINLINE void reap(worker *w) {
    for (G *g; (g = w->graveyard); ) {
        w->graveyard = g->next;
        Py_DECREF(g);
    }
}

/* Collections take half of the time at most, however many objects there are. */
static NOINLINE void hostile_moment(worker *w) {
    static _Atomic(int64_t) next;
    if (rng_below(&w->rng, 64) || g_collecting) return;
    int64_t start = clock_ns();
    if (start < relaxed_load(&next)) return;
    PyGC_Collect();
    int64_t end = clock_ns();
    relaxed_store(&next, end + (end - start));
}

/* What is pending, but for an end that it holds off. */
static inline uint8_t due(G *g) {
    uint8_t bits = atomic_load(&g->pending);
    return g->holds_end ? bits & (uint8_t)~P_KILL : bits;
}

/* A killed goroutine whose wait was served all the same ends at its next bytecode boundary. */
static void exit_soon(worker *w, G *g) {
    g->kills = 1;
    w->async_exit = true;
    ps_raise_async(w->ts, rt.errors.exit);
}

/* It is about to get its GoroutineExit in another way, or ends: the next goroutine must not get it. */
static void exit_now(worker *w) {
    w->async_exit = false;
    ps_forget_async(w->ts);
}

static void tidy(worker *w) {
    if (w->graveyard) reap(w);
    if (HOSTILE) hostile_moment(w);
}

void g_settle_slow(G *g) {
    uint8_t bits = due(g);
    if (UNLIKELY(bits & P_INTERRUPT)) interrupt_again();
    if (UNLIKELY(bits & P_KILL && !g->kills)) exit_soon(g->worker, g);
    tidy(g->worker);
}

/* --- what interferes with waiting ------------------------------------------------------------------ */
static int refuse_collector(void) {
    PyErr_SetString(PyExc_RuntimeError,
                    "a goroutine can not wait inside the garbage collector (a finalizer or gc callback): "
                    "nothing else could be collected until it went on; use go() to wait elsewhere");
    return -1;
}

/* Runs in the main thread between two bytecodes; goroutine 1 may not be the one that runs. */
static int deliver_interrupt(void *unused) {
    (void)unused;
    G *g = g_self_quick();
    if (!g || g != rt.main || !(relaxed_load(&g->pending) & P_INTERRUPT)) return 0;
    return raise_interrupt(g);
}

static void interrupt_again(void) { Py_AddPendingCall(deliver_interrupt, NULL); }

static int raise_interrupt(G *g) {
    lock_acquire(&rt.lock);
    PyObject *exc = rt.interrupt;
    rt.interrupt = NULL;
    word_clear_bits(&g->pending, P_INTERRUPT);
    lock_release(&rt.lock);
    if (!exc) return 0;
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    Py_DECREF(exc);
    return -1;
}

void g_interrupt_main(PyObject *exc) {
    G *g = rt.main;
    lock_acquire(&rt.lock);
    PyObject *old = rt.interrupt;
    rt.interrupt = exc;
    lock_release(&rt.lock);
    Py_XDECREF(old);
    if (!g) return;
    g_disturb(g, P_INTERRUPT, W_INTERRUPT);
    interrupt_again();
}

void g_disturb(G *g, uint8_t bits, enum wake why) {
    word_set_bits(&g->pending, bits);
    if (g_claim(g, why)) g_ready(g);
}

void g_cancel(G *g) {
    atomic_store(&g->cancelled, 1);
    if (atomic_load(&g->shielded)) return;       /* it looks when it leaves the shield */
    g_disturb(g, P_CANCEL, W_CANCEL);
}

/* It catches GoroutineExit again and again: leave it where it stands. */
static void abandon(G *g) {
    worker *w = g->worker;
    g->abandoned = true;
    if (g->locks) g_hooks.unlock(g);
    relaxed_add(&w->alive, -1);
    relaxed_store(&g->wait, W_ABANDONED);
    g_park(g, WHY_FOREVER, NULL);
    Py_FatalError("gofer: an abandoned goroutine was resumed");
}

/* One that catches Cancelled again and again lets others have a turn all the same, and is named once. */
enum { REFUSED_OFTEN = 64 };
static const int64_t REFUSED_LONG = 1000000000;

static int cancelled_error(G *g) {
    if (g->refused == 0) g->since = clock_coarse_ns();
    if (UNLIKELY(++g->refused == REFUSED_OFTEN)) {
        g->refused = 1;
        if (g->worker && !g_collecting) g_step_aside(g);
        if (!g->named && clock_coarse_ns() - g->since > REFUSED_LONG) {
            g->named = true;
            if (g_hooks.swallows(g) < 0) return -1;
        }
    }
    PyErr_SetNone(rt.errors.cancelled);
    return -1;
}

void g_before_wait(G *g, PyObject *fn) {
    PyObject *old = g->at_end_arg;
    g->at_end_arg = Py_XNewRef(fn);
    if (fn) word_set_bits(&g->pending, P_BEFORE);
    else word_clear_bits(&g->pending, P_BEFORE);
    Py_XDECREF(old);
}

static int call_before_wait(G *g) {
    PyObject *fn = g->at_end_arg;
    g->at_end_arg = NULL;
    word_clear_bits(&g->pending, P_BEFORE);
    PyObject *result = PyObject_CallNoArgs(fn);
    Py_DECREF(fn);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

static NOINLINE int pending_error(G *g) {
    if (UNLIKELY(relaxed_load(&g->pending) & P_BEFORE) && call_before_wait(g) < 0) return -1;
    uint8_t bits = due(g);
    if (bits & P_KILL) {
        if (g->worker->async_exit) exit_now(g->worker);
        if (++g->kills > KILLS) abandon(g);
        PyErr_SetNone(rt.errors.exit);
        return -1;
    }
    if ((bits & P_INTERRUPT) && raise_interrupt(g) < 0) return -1;
    if (bits & P_EXIT) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter is exiting: nobody is left to wait for");
        return -1;
    }
    return (bits & P_CANCEL) && g_hooks.is_cancelled(g) ? cancelled_error(g) : 0;
}

int g_hold_end(G *g) {
    worker *w = g->worker;
    if (w && UNLIKELY(w->async_exit) && ps_async_waits(w->ts) && pending_error(g) < 0) return -1;
    g->holds_end++;
    return 0;
}

void g_release_end(G *g) {
    if (--g->holds_end || !g->worker || g->kills) return;
    if (UNLIKELY(relaxed_load(&g->pending) & P_KILL)) exit_soon(g->worker, g);
}

int g_wait_check(G *g) {
    if (relaxed_load(&g->pending) && pending_error(g) < 0) return -1;
    return g->worker && g_collecting ? refuse_collector() : 0;
}

static PyObject *deadlock_error(G *g, enum wake why) {
    const char *text = why == W_ASLEEP ? "all goroutines of the bubble are asleep - deadlock!"
                     : why == W_OVER ? "the bubble's block has ended, its clock has stopped, and goroutines still "
                                       "wait - deadlock!"
                     : "all goroutines are asleep - deadlock!";
    PyObject *e = PyObject_CallFunction(rt.errors.deadlock, "s", text);
    if (!e || !rt.deadlock_notes) return e;
    relaxed_store(&g->state, G_WAITING);                /* as the notes are to show it */
    PyObject *notes = PyObject_CallNoArgs(rt.deadlock_notes);
    relaxed_store(&g->state, G_RUNNING);
    if (!notes || PyObject_SetAttrString(e, "__notes__", notes) < 0) PyErr_WriteUnraisable(e);
    Py_XDECREF(notes);
    return e;
}

int g_wake_error(G *g, enum wake why) {
    PyObject *e;
    if (why == W_KILL || why == W_CANCEL || why == W_INTERRUPT) {
        if (g->worker) tidy(g->worker);
        return pending_error(g);
    }
    g_settle(g);
    switch (why) {
    case W_SIGNAL:
        return ps_handle_signals(PyThreadState_Get());
    case W_DEADLOCK: case W_ASLEEP: case W_OVER:
        /* A signal was on its way to this thread when another one saw that all sleep. */
        if (g->worker && ps_signals_pending(g->worker->ts)) return ps_handle_signals(g->worker->ts);
        if ((e = deadlock_error(g, why))) {
            PyErr_SetObject(rt.errors.deadlock, e);
            Py_DECREF(e);
        }
        return -1;
    case W_NOMEM:
        PyErr_NoMemory();
        return -1;
    default:
        Py_FatalError("gofer: a goroutine was woken for no reason");
    }
}

/* --- parking --------------------------------------------------------------------------------------- */
static NOINLINE enum wake park_thread(G *g) {
    for (;;) {
        PyLockStatus s;
        Py_BEGIN_ALLOW_THREADS
        s = PyThread_acquire_lock_timed(g->thread, -1, 1);
        Py_END_ALLOW_THREADS
        if (s == PY_LOCK_ACQUIRED) break;
        if (word_move(&g->wait, W_WAITING, W_SIGNAL)) {         /* nobody will release the lock now */
            if (UNLIKELY(relaxed_load(&g->bubble))) g_hooks.woken(g);
            break;
        }
    }
    if (UNLIKELY(relaxed_load(&g->bubble))) g_hooks.resumed(g);
    enum wake why = relaxed_load(&g->wait);
    relaxed_store(&g->wait, W_NONE);
    relaxed_store(&g->state, G_RUNNING);
    return why;
}

/* No memory for the slice.  If nobody has claimed us, nobody will; if somebody has, we are on our way
   into our own queue. */
static NOINLINE enum wake park_in_place(worker *w, G *g, G *next) {
    unpick(w, next);
    if (word_move(&g->wait, W_WAITING, W_NOMEM)) {
        if (UNLIKELY(relaxed_load(&g->bubble))) g_hooks.woken(g);
        return W_NOMEM;
    }
    while (!g_unqueue(w, g)) {}
    return relaxed_load(&g->wait);
}

enum wake g_park(G *g, enum wait_reason reason, PyObject *on) {
    relaxed_store(&g->why, reason);
    g->on = on;
    relaxed_store(&g->state, G_WAITING);
    worker *w = g->worker;
#if GOFER_FREE_THREADED
    /* disturbed after the check and before we could be claimed: claim ourselves */
    if (UNLIKELY(due(g)) && word_move(&g->wait, W_WAITING, W_CANCEL)) {
        relaxed_store(&g->state, G_RUNNING);
        relaxed_store(&g->wait, W_NONE);
        return W_CANCEL;
    }
#endif
    if (UNLIKELY(relaxed_load(&g->bubble))) g_hooks.blocked(g);
    if (UNLIKELY(!w)) return park_thread(g);
    g->since = clock_coarse_ns();
    G *next = pick(w);
    enum wake why;
    if (UNLIKELY(next != g && !switch_to(w, g, next))) why = park_in_place(w, g, next);
    else why = relaxed_load(&g->wait);
    if (UNLIKELY(relaxed_load(&g->bubble))) g_hooks.resumed(g);
    relaxed_store(&g->state, G_RUNNING);
    g->on = NULL;
    relaxed_store(&g->wait, W_NONE);
    return why;
}

void g_step_aside(G *g) {
    worker *w = g->worker;
    queue_ready(w, g);
    G *next = pick(w);
    if (next != g && UNLIKELY(!switch_to(w, g, next))) {
        unpick(w, next);
        g_unqueue(w, g);
    }
    relaxed_store(&g->state, G_RUNNING);
    g_settle(g);
}

_Atomic(bool) g_exploring;

void g_switch_anyway(void) {
    worker *w = g_worker;
    if (w && !g_collecting && !PyErr_Occurred() && !ps_finalizing() && (relaxed_load(&w->choose) || (HOSTILE && rng_below(&w->rng, 2))))
        g_step_aside(w->cur);
}

int g_yield(G *g) {
    worker *w = g->worker;
    if (UNLIKELY(relaxed_load(&g->pending) && pending_error(g) < 0)) return -1;
    if (UNLIKELY(!w)) {
        Py_BEGIN_ALLOW_THREADS
        sched_yield();
        Py_END_ALLOW_THREADS
        return 0;
    }
    if (UNLIKELY(g_collecting)) return refuse_collector();
    if (UNLIKELY(relaxed_load(&g_exploring))) g_hooks.yields(g);
    g_step_aside(g);
    return UNLIKELY(relaxed_load(&g->pending)) ? pending_error(g) : 0;
}

/* --- ending ---------------------------------------------------------------------------------------- */
/* Everything that may run Python code, still as the goroutine itself. */
static void finish_call(G *g, PyObject *result) {
    if (UNLIKELY(!result)) g_hooks.failed(g);
    else if (g->kind == KIND_TASK) g->result = result;
    else Py_DECREF(result);
    if (g->kind == KIND_TASK && (g->exception || (g->result && PyObject_IS_GC(g->result))))
        PyObject_GC_Track(g);                /* from here on it can be part of a cycle of garbage */
    if (UNLIKELY(Py_REFCNT(g) > 1)) g_keep_name(g);
    drop_call(g);
    if (g->at_end) {
        void (*at_end)(G *, PyObject *) = g->at_end;
        PyObject *arg = g->at_end_arg;
        g->at_end = NULL;
        g->at_end_arg = NULL;
        at_end(g, arg);
    }
}

void g_wake_joiners(G *g) {
    lock_acquire(&g->lock);
    atomic_store_explicit(&g->state, G_DEAD, memory_order_release);
    waitq woken;
    waitq_init(&woken);
    for (waiter *x; (x = waitq_claim(&g->joiners)); ) waitq_push(&woken, x);
    lock_release(&g->lock);
    for (waiter *x; (x = waitq_first(&woken)); ) {
        waitq_remove(x);
        g_ready(x->g);
    }
}

void g_idle(G *g) {
    do {
        g_settle(g);
        if (ps_was_given_back(g->worker->ts) && ps_between_bytecodes(g->worker->ts) < 0)
            g_interrupt_main(ps_take_exception());
        g_wait_publish(g);
    } while (g_park(g, WHY_IDLE, NULL) != W_KILL);
}

bool g_idler_rests(worker *w) {
    G *idler = w->idler;
    if (!idler) return false;
    enum g_state state = relaxed_load(&idler->state);
    return state == G_NEW || (state == G_WAITING && relaxed_load(&idler->why) == WHY_IDLE);
}

G *g_take_idler(worker *w) {
    if (!g_idler_rests(w)) return NULL;
    return relaxed_load(&w->idler->state) == G_NEW || g_claim(w->idler, W_SIGNAL) ? w->idler : NULL;
}

/* Who goes on after one that has ended: the idler rather than nobody, so that a worker does not sleep with
   what may be the last reference to that one. */
static G *successor(worker *w) {
    if (UNLIKELY(relaxed_load(&w->choose) != NULL)) {
        G *g = relaxed_load(&w->choose)(w);
        if (g) return g;
    }
    if (!tick(w)) {
        G *next = g_pick(w);
        if (LIKELY(next != NULL)) return next;
    } else if (has_queued(w)) return g_hooks.find(w);    /* does not sleep */
    G *idler = g_take_idler(w);
    return idler ? idler : g_hooks.find(w);
}

/* Runs goroutines at the base of the stack, one after the other in the same C frame and on the same
   chunk while each next one has not started either. */
static void g_main(void) {
    switch_restore_depth(0);
    worker *w = g_worker;
    for (;;) {
        G *g = w->cur;
        PyObject *result;
        if (UNLIKELY(w->graveyard != NULL)) reap(w);
        if (UNLIKELY(relaxed_load(&g->pending) & P_KILL)) result = Py_NewRef(Py_None);
        else result = PyObject_Vectorcall(fnref_get(g->fn), g->args,
                                          g->nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, g->kwnames);
        if (UNLIKELY(g == rt.main)) g_hooks.main_ended(result);
        finish_call(g, result);
        if (UNLIKELY(w->async_exit)) exit_now(w);
        PyThreadState *ts = w->ts;
        if (UNLIKELY(ps_own_locals)) ps_end_locals(ts);
        while (UNLIKELY(ts->context != NULL)) Py_CLEAR(ts->context);
        if (UNLIKELY(g->root == NULL)) g->root = ts->datastack_chunk;
        assert(ts->datastack_chunk == g->root);

        ring_remove(&g->all);
        if (UNLIKELY(g->locks)) g_hooks.unlock(g);
        if (!g->abandoned) relaxed_add(&w->alive, -1);
        g_wake_joiners(g);
        if (UNLIKELY(g->scope != NULL)) g_hooks.left(g);
        _PyStackChunk *root = g->root;
        g->root = NULL;
        G *next = successor(w);
        if (LIKELY(relaxed_load(&next->state) == G_NEW)) {
            next->slice = g->slice;
            g->slice = (slice){ 0 };
            become(w, next, root);
            Py_DECREF(g);
            continue;
        }
        bury(w, g);
        w->from = NULL;
        become(w, next, NULL);
        if (root) chunk_drop(&w->pool, root);
        stack_release(&w->pool, &g->slice);
        switch_call(w, w->aux, transfer);
        Py_UNREACHABLE();
    }
}

/* --- threads --------------------------------------------------------------------------------------- */
G *g_thread_new(void) {
    G *g = g_alloc(NULL, KIND_THREAD);
    if (!g) return NULL;
    g->id = new_id(NULL);
    relaxed_store(&g->state, G_RUNNING);
    g->thread = PyThread_allocate_lock();
    if (!g->thread) { Py_DECREF(g); PyErr_NoMemory(); return NULL; }
    PyThread_acquire_lock(g->thread, 1);
    return g;
}

/* --- the thread's own stack as a goroutine --------------------------------------------------------- */
NOINLINE int g_adopt_thread(worker *w) {
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    G *g = g_alloc(NULL, KIND_HOST);
    if (!g) return -1;
    w->ts = PyThreadState_Get();
    w->ident = PyThread_get_thread_ident();
    w->base = (char *)((here - BASE_GAP) & ~(uintptr_t)63);
    w->c_depth = ps_c_depth(w->ts);
    w->control = switch_control();
    g->worker = w;
    relaxed_store(&g->state, G_RUNNING);
    ring_insert_before(&w->all, &g->all);
    w->host = w->cur = g;
    g_worker = w;
    pool_use(&w->pool);
    return 0;
}
