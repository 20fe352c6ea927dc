/* Bubbles: time under control, as Go's testing/synctest.

   A bubble is a scope whose goroutines live by a clock of its own.  The clock stands still while any of them
   runs or could run.  When the last one is durably blocked (waits for something that only the bubble itself
   can bring about: what was made inside it, its timers), the one that blocked moves on what comes next:
   whoever waits for just that (bubble_wait), else the clock, to the next timer; and when there is none, or
   the block has ended, where the clock stops as in Go, the bubble's root is told that it is a deadlock.  If
   it cancels the others then, the clock goes on for what they do on their way out.

   What must stay true:
   - `busy` counts its goroutines that are not durably blocked.  Whoever starts or readies one adds it before
     it can run; one that is about to wait durably takes itself off after that, so `busy` may count a
     goroutine twice for a moment and never too few.  One that waits, but not durably, stays counted: readied,
     it is counted twice until it has resumed and takes one off.
   - Only who brings `busy` to 0 may advance, and one at a time (`advancing`); who stops looks again.
   - What was made outside of the bubble may be touched by others at any time:
     waiting for it is not durable. */
#include "scope.h"

static void advance(bubble *b);

static bubble *bubble_of(G *g) { return g->scope->bubble; }

/* --- counting -------------------------------------------------------------------------------------- */
static void not_busy(bubble *b) {
    if (atomic_fetch_sub(&b->busy, 1) == 1) advance(b);
}

static void blocked(G *g) {
    if (g->durable) not_busy(bubble_of(g));
}

static void busier(bubble *b) {
    atomic_fetch_add(&b->clock->era, 1);
    atomic_fetch_add(&b->busy, 1);
}

static void woken(G *g) { busier(bubble_of(g)); }

static void resumed(G *g) {
    if (!g->durable) atomic_fetch_sub(&bubble_of(g)->busy, 1);
    g->durable = false;
}

void bubble_joined(bubble *b, G *g) {
    g->bubble = b->id;
    atomic_fetch_add(&b->members, 1);
    busier(b);
}

static bool wake_first(bubble *b, waitq *q) {
    lock_acquire(&b->lock);
    waiter *x = waitq_claim(q);
    lock_release(&b->lock);
    if (x) g_ready(x->g);
    return x != NULL;
}

void bubble_left(bubble *b, G *g) {
    g->bubble = 0;
    if (atomic_fetch_sub(&b->members, 1) == 2) wake_first(b, &b->joiner);
    not_busy(b);
}

/* --- when all are durably blocked ------------------------------------------------------------------ */
/* When the next timer is due that has something to say: a ticker that has ticked since anybody last ran has
   not, for the next tick would be dropped. */
static int64_t next_moment(timers *h) {
    int64_t first = NEVER;
    lock_acquire(&h->lock);
    for (size_t i = 0; i < h->n; i++) {
        timer *t = h->heap[i].t;
        bool said = t->period && t->era == relaxed_load(&h->era);
        if (!said && t->when < first) first = t->when;
    }
    lock_release(&h->lock);
    return first;
}

static bool wake_root(bubble *b, enum wake why) {
    lock_acquire(&b->lock);
    G *root = b->root && g_claim(b->root, why) ? b->root : NULL;
    lock_release(&b->lock);
    if (root) g_ready(root);
    return root != NULL;
}

/* false: nothing can ever happen again, and nobody could be told. */
static bool step(bubble *b) {
    if (wake_first(b, &b->waiters)) return true;
    bool over = atomic_load(&b->ending) && !atomic_load(&b->scope.cancelled);
    timers *h = b->clock;
    int64_t next = over ? NEVER : next_moment(h);
    if (next == NEVER) return wake_root(b, over ? W_OVER : W_ASLEEP);
    if (next > relaxed_load(&h->now)) relaxed_store(&h->now, next);
    timers_run(h, relaxed_load(&h->now));
    return true;
}

static void advance(bubble *b) {
    bool going = true;
    while (going && atomic_load(&b->busy) == 0 && word_move(&b->advancing, 0, 1)) {
        going = atomic_load(&b->busy) != 0 || step(b);
        atomic_store(&b->advancing, 0);
    }
}

/* --- entering, waiting, leaving -------------------------------------------------------------------- */
/* Timers remember their heap, so the heaps of bubbles that are over are used again and never freed. */
static lock_t spare_lock;
static struct spare { struct spare *next; timers *heap; } *spares;

static timers *clock_take(bubble *b) {
    lock_acquire(&spare_lock);
    struct spare *spare = spares;
    if (spare) spares = spare->next;
    lock_release(&spare_lock);
    timers *h = spare ? spare->heap : timers_new(NULL);
    mem_free(spare);
    if (!h) { PyErr_NoMemory(); return NULL; }
    h->bubble = b;
    relaxed_store(&h->now, (clock_ns() / 1000000000 + 1) * 1000000000);  /* whole: sums are exact floats */
    return h;
}

static void clock_give_back(timers *h) {
    struct spare *spare = mem_alloc(sizeof *spare);
    h->bubble = NULL;
    if (!spare) return;                      /* then it is lost */
    spare->heap = h;
    lock_acquire(&spare_lock);
    spare->next = spares;
    spares = spare;
    lock_release(&spare_lock);
}

int bubble_enter(bubble *b, PyObject *panic_hook) {
    static _Atomic(uint32_t) ids;
    G *g = g_self();
    if (!g) return -1;
    if (g->bubble) {
        PyErr_SetString(PyExc_RuntimeError,
                        "bubble() inside of a bubble: a goroutine lives by one clock; use the bubble that "
                        "is there");
        return -1;
    }
    timers *clock = clock_take(b);
    if (!clock) return -1;
    if (scope_enter(&b->scope) < 0) {
        clock_give_back(clock);
        return -1;
    }
    b->scope.bubble = b;
    b->clock = clock;
    b->id = atomic_fetch_add(&ids, 1) + 1;
    b->panic = Py_NewRef(panic_hook);
    waitq_init(&b->waiters);
    waitq_init(&b->joiner);
    b->root = g;
    bubble_joined(b, g);
    return 0;
}

PyObject *bubble_panic_hook(bubble *b) {
    lock_acquire(&b->lock);
    PyObject *hook = Py_XNewRef(b->panic);
    lock_release(&b->lock);
    return hook;
}

static int wait_in(bubble *b, G *g, waitq *q, bool for_end) {
    for (;;) {
        if (g_wait_begin(g) < 0) return -1;
        lock_acquire(&b->lock);
        waitq_push(q, &g->w);
        if (for_end && atomic_load(&b->members) == 1 && g_claim(g, W_NONE)) {
            waitq_remove(&g->w);
            lock_release(&b->lock);
            return 0;
        }
        lock_release(&b->lock);
        g->durable = true;
        enum wake why = g_park(g, WHY_BUBBLE, (PyObject *)b);
        if (why == W_READY) { g_settle(g); return 0; }
        lock_acquire(&b->lock);
        waitq_remove(&g->w);
        lock_release(&b->lock);
        if (g_wake_error(g, why) < 0) return -1;
    }
}

int bubble_wait(void) {
    G *g = g_self();
    if (!g) return -1;
    if (g->bubble) return wait_in(bubble_of(g), g, &bubble_of(g)->waiters, false);
    PyErr_SetString(PyExc_RuntimeError,
                    "wait() outside of a bubble: it waits for the other goroutines of one; use it inside "
                    "`with bubble():`");
    return -1;
}

int bubble_join(bubble *b) {
    G *g = g_self();
    if (!g) return -1;
    atomic_store(&b->ending, true);
    int result = wait_in(b, g, &b->joiner, true);
    atomic_store(&b->ending, false);
    return result;
}

void bubble_abandon(bubble *b, G *g) {
    lock_acquire(&b->lock);
    b->root = NULL;
    lock_release(&b->lock);
    if (!g->bubble) return;
    g->bubble = 0;
    bool alone = atomic_fetch_sub(&b->members, 1) == 1;
    if (alone) atomic_fetch_sub(&b->busy, 1);           /* the clock stands for ever */
    else not_busy(b);
}

void bubble_succeed(bubble *b, G *heir, G *g) {
    heir->bubble = g->bubble;
    g->bubble = 0;
    lock_acquire(&b->lock);
    if (b->root == g) b->root = heir;
    lock_release(&b->lock);
}

void bubble_after_fork(bubble *b, G *g, bool survives) {
    lock_reset(&spare_lock);
    lock_reset(&b->lock);
    lock_reset(&b->clock->lock);
    relaxed_store(&b->advancing, 0);
    if (!survives) {
        g->bubble = 0;                       /* it is not to be taken off again at its end */
        return;
    }
    if (b->root != g) b->root = NULL;
    relaxed_store(&b->members, 1);
    relaxed_store(&b->busy, 1);
    waitq_init(&b->waiters);
    waitq_init(&b->joiner);
}

int bubble_leave(bubble *b, PyObject *error) {
    int result = scope_leave(&b->scope, error);
    if (relaxed_load(&b->scope.state) == SCOPE_LEFT) {
        timers_drop(b->clock);
        lock_acquire(&b->lock);
        PyObject *hook = b->panic;
        b->panic = NULL;
        lock_release(&b->lock);
        Py_XDECREF(hook);
    }
    return result;
}

void bubble_dealloc(bubble *b) {
    if (b->clock) {
        timers_drop(b->clock);
        clock_give_back(b->clock);
    }
    Py_CLEAR(b->panic);
    scope_dealloc(&b->scope);
}

static timers *bubble_timers(G *g) { return bubble_of(g)->clock; }

static void join_bubble(G *g, bubble *b) { scope_inherit(&b->scope, g); }

void bubble_init(void) {
    g_hooks.blocked = blocked;
    g_hooks.woken = woken;
    g_hooks.resumed = resumed;
    g_hooks.bubble_timers = bubble_timers;
    g_hooks.join_bubble = join_bubble;
}
