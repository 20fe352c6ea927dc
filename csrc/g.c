/* Run queues, switching, parking and ending: how goroutines take turns on a worker.  The states, the wait
   word and what must stay true stand in g.h. */
#include "g_parts.h"

struct runtime rt;
struct g_hooks g_hooks;
__thread worker *g_worker;
__thread G *g_thread;
__thread bool g_collecting;

const char *const wait_reason_names[WHY_COUNT] = {
    [WHY_NONE] = "", [WHY_SEND] = "chan send", [WHY_RECV] = "chan receive", [WHY_SELECT] = "select",
    [WHY_SELECT_EMPTY] = "select (no cases)", [WHY_SLEEP] = "sleep", [WHY_JOIN] = "join",
    [WHY_MUTEX] = "mutex lock", [WHY_SEMAPHORE] = "semaphore acquire", [WHY_WAITGROUP] = "wait group",
    [WHY_FOREVER] = "for ever", [WHY_UNWIND] = "unwinding the others", [WHY_BUBBLE] = "bubble",
    [WHY_IO] = "IO wait", [WHY_LOCK] = "lock acquire", [WHY_QUEUE] = "queue get", [WHY_IDLE] = "idle",
};

enum { NEXT_STREAK = 32 };     /* so many picks of `next` in a row, then the queue has its turn */

/* --- who am I -------------------------------------------------------------------------------------- */
NOINLINE G *g_self_first(void) {
    if (ps_finalizing()) {
        PyErr_SetString(PyExc_RuntimeError, "gofer can not be used any more: the interpreter is exiting");
        return NULL;
    }
    return g_hooks.attach() < 0 ? NULL : g_self_quick();
}

/* --- starting -------------------------------------------------------------------------------------- */
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

void g_tidy(worker *w) {
    if (w->graveyard) reap(w);
    if (HOSTILE) hostile_moment(w);
}

void g_settle_slow(G *g) {
    uint8_t bits = g_due(g);
    if (UNLIKELY(bits & P_INTERRUPT)) g_interrupt_again();
    if (UNLIKELY(bits & P_KILL && !g->kills)) g_exit_soon(g->worker, g);
    g_tidy(g->worker);
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
    if (UNLIKELY(g_due(g)) && word_move(&g->wait, W_WAITING, W_CANCEL)) {
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
    if (!w || g_collecting || PyErr_Occurred() || ps_finalizing()) return;
    if (relaxed_load(&w->choose) || (HOSTILE && rng_below(&w->rng, 2))) g_step_aside(w->cur);
}

int g_yield(G *g) {
    worker *w = g->worker;
    if (UNLIKELY(relaxed_load(&g->pending) && g_pending_error(g) < 0)) return -1;
    if (UNLIKELY(!w)) {
        Py_BEGIN_ALLOW_THREADS
        sched_yield();
        Py_END_ALLOW_THREADS
        return 0;
    }
    if (UNLIKELY(g_collecting)) return g_refuse_collector();
    if (UNLIKELY(relaxed_load(&g_exploring))) g_hooks.yields(g);
    g_step_aside(g);
    return UNLIKELY(relaxed_load(&g->pending)) ? g_pending_error(g) : 0;
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
    g_drop_call(g);
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
        if (UNLIKELY(w->async_exit)) g_exit_now(w);
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
