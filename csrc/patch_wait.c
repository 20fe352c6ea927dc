/* Goroutines that wait for objects of CPython's, which know nothing of them.

   Who waits stands in a table by the object's address, and the leaf that frees an object looks there.

   What must stay true:
   - No wake-up is lost.  Who waits: enters the table, then looks at the object once more, then parks.  Who
     frees: frees it, then looks into the table.  Both in one order that all threads agree on.  Under the GIL
     nobody frees anything between a try that failed and the parking, and the look is left out: up to 3.12
     a lock that a thread has taken looks free until that thread has the GIL again.
   - Between g_wait_begin and g_park nothing of Python's runs: it might wait itself, with the same waiter.
   - A goroutine that was woken tries before it does anything else, also when it was cancelled: what was freed
     for it is taken, or was taken by another, who will free it again.
   - Who waits for a mutex hears of a cancellation only when it has waited for PATIENCE_NS.  Code that puts
     something right (returns a connection to its pool) takes mutexes, which others hold for a moment, and
     does not expect that to fail.
   - waiter.value is the object, borrowed: the frames of who waits hold it. */
#include "patch.h"
#include "sched.h"
#include "timer.h"
#include <sched.h>

enum { BUCKETS = 1024 };
static const int64_t LONG_NS = 1000000;          /* who has waited for so long is handed what he waits for */
static const int64_t PATIENCE_NS = 1000000000;

typedef struct bucket { lock_t lock; waitq waiters; } bucket;
static bucket table[BUCKETS];
static _Atomic(int) waiting;                     /* in the table, or about to be */

static bucket *bucket_of(PyObject *on) {
    uintptr_t a = (uintptr_t)on >> 4;
    bucket *b = &table[(a ^ a >> 10 ^ a >> 20) % BUCKETS];
    return b;
}

/* Under the bucket's lock; a ring that nobody has used yet is all zero. */
static waitq *queue_of(bucket *b) {
    if (!b->waiters.ring.next) waitq_init(&b->waiters);
    return &b->waiters;
}

static waiter *first_for(bucket *b, PyObject *on) {
    waitq *q = queue_of(b);
    for (node *x = q->ring.next; x != &q->ring; x = x->next)
        if (((waiter *)x)->value == on) return (waiter *)x;
    return NULL;
}

bool patch_anybody_waits(void) { return atomic_load(&waiting) != 0; }

void patch_forget_waiters(void) {
    memset(table, 0, sizeof table);
    atomic_store(&waiting, 0);
}

/* --- freeing --------------------------------------------------------------------------------------- */
void patch_freed(PyObject *on) {
    if (GOFER_FREE_THREADED) atomic_thread_fence(memory_order_seq_cst);
    if (LIKELY(!relaxed_load(&waiting))) return;
    bucket *b = bucket_of(on);
    G *woken = NULL;
    lock_acquire(&b->lock);
    for (waiter *x; !woken && (x = first_for(b, on)); ) {
        waitq_remove(x);
        if (g_claim(x->g, W_READY)) woken = x->g;
    }
    lock_release(&b->lock);
    if (woken) g_ready(woken);
}

bool patch_hand_over(PyObject *on, bool (*held)(PyObject *), void (*give)(PyObject *, G *)) {
    if (LIKELY(!relaxed_load(&waiting))) return false;
    bucket *b = bucket_of(on);
    G *to = NULL;
    int64_t now = clock_coarse_ns();
    lock_acquire(&b->lock);
    for (waiter *x; !to && (x = first_for(b, on)) && now - (int64_t)x->n > LONG_NS && held(on); ) {
        waitq_remove(x);
        if (!g_claim(x->g, W_READY)) continue;
        to = x->g;
        x->ok = true;
        if (give) give(on, to);
    }
    lock_release(&b->lock);
    if (to) g_ready(to);
    return to != NULL;
}

/* --- waiting --------------------------------------------------------------------------------------- */
typedef struct { timer t; G *g; bool over; } alarm_clock;

static void time_over(timer *t, int64_t now) {
    alarm_clock *a = (alarm_clock *)t;
    if (now == DROPPED || !g_claim(a->g, W_READY)) return;
    a->over = true;
    g_ready(a->g);
}

static void enter_table(G *g, want *w, int64_t since, bool again) {
    bucket *b = bucket_of(w->on);
    g->w.value = w->on;
    g->w.n = since;
    g->w.ok = false;
    lock_acquire(&b->lock);
    if (again) waitq_push_front(queue_of(b), &g->w);
    else waitq_push(queue_of(b), &g->w);
    lock_release(&b->lock);
}

static void leave_table(G *g, want *w) {
    bucket *b = bucket_of(w->on);
    lock_acquire(&b->lock);
    waitq_remove(&g->w);
    lock_release(&b->lock);
    g->w.value = NULL;
}

/* Parks, unless it can be taken by now.  W_NONE: it can. */
static enum wake wait_once(G *g, want *w, int64_t since, bool again, alarm_clock *a, timers *h) {
    enum wake why = W_NONE;
    enter_table(g, w, since, again);
    atomic_thread_fence(memory_order_seq_cst);
    bool armed = !a || timer_start(&a->t, h);
    bool must_park = armed && !(GOFER_FREE_THREADED && w->may_take(w->on));
    if (!must_park && g_claim(g, W_NONE)) why = armed ? W_NONE : W_NOMEM;
    else {
        g->durable = true;
        sched_outside(1);
        why = g_park(g, w->why, w->on);
        sched_outside(-1);
    }
    if (a) timer_stop(&a->t);
    leave_table(g, w);
    return why;
}

/* It looked free, and was not: somebody has taken it and not said so yet, and
   may have to stop before that. */
static void look_away(void) {
    Py_BEGIN_ALLOW_THREADS
    sched_yield();
    Py_END_ALLOW_THREADS
}

/* --- patience -------------------------------------------------------------------------------------- */
typedef struct bounds {
    int64_t limit, deaf;         /* until when it waits; until when it is deaf, 0: it never was */
    timers *clock;
    alarm_clock *alarm;
} bounds;

static int need_clock(bounds *b, G *g) {
    if (!b->clock) b->clock = timers_of(g);
    return b->clock ? 0 : -1;
}

static int need_alarm(bounds *b, G *g) {
    if (b->alarm) return 0;
    if (!(b->alarm = mem_alloc(sizeof *b->alarm))) { PyErr_NoMemory(); return -1; }
    *b->alarm = (alarm_clock){ { .fire = time_over }, g };
    return 0;
}

static void hear_again(G *g) {
    if (!g->deaf) return;
    g->deaf = false;
    word_set_bits(&g->pending, P_CANCEL);        /* a hint */
}

/* Whether it hears of a cancellation that has come.  0, or -1 with an exception. */
static int be_patient(G *g, want *w, bounds *b, int64_t since) {
    if (w->patient && !b->deaf && relaxed_load(&g->pending) & P_CANCEL) {
        if (need_clock(b, g) < 0) return -1;
        b->deaf = timers_clock(b->clock) + since + PATIENCE_NS - clock_coarse_ns();
        g->deaf = true;
    }
    if (g->deaf && timers_clock(b->clock) >= b->deaf) hear_again(g);
    return 0;
}

/* When it is to be woken. */
static int set_alarm(G *g, bounds *b) {
    int64_t when = g->deaf && b->deaf < b->limit ? b->deaf : b->limit;
    if (when == NEVER) return 0;
    if (need_alarm(b, g) < 0) return -1;
    b->alarm->t.when = when;
    b->alarm->over = false;
    return 0;
}

static int wait_in_turns(G *g, want *w, bounds *b) {
    int64_t since = clock_coarse_ns();
    for (bool again = false;; again = true) {
        if (be_patient(g, w, b, since) < 0 || set_alarm(g, b) < 0 || g_wait_begin(g) < 0) return -1;
        alarm_clock *a = b->limit != NEVER || g->deaf ? b->alarm : NULL;
        enum wake why = wait_once(g, w, since, again, a, b->clock);
        bool handed = g->w.ok, over = a && a->over && a->t.when == b->limit;
        if (why == W_READY && handed) { g_settle(g); return 1; }
        int taken = w->take(w);
        if (taken) { g_settle(g); return taken; }
        if (why == W_NONE) look_away();
        else if (why == W_READY) {
            g_settle(g);
            if (over) return 0;
        } else if (be_patient(g, w, b, since) < 0 || g_wake_error(g, why) < 0) return -1;
    }
}

int patch_wait(G *g, want *w, int64_t ns) {
    int taken = w->take(w);
    if (taken) { if (taken > 0) g_could_switch(); return taken; }
    bounds b = { NEVER };
    bool outer = g->deaf;                        /* a signal handler waits, while its goroutine does */
    if (ns != NEVER) {
        if (need_clock(&b, g) < 0) return -1;
        b.limit = timers_clock(b.clock) + ns;
    }
    g->deaf = false;
    atomic_fetch_add(&waiting, 1);
    taken = wait_in_turns(g, w, &b);
    atomic_fetch_sub(&waiting, 1);
    hear_again(g);
    g->deaf = outer;
    mem_free(b.alarm);
    return taken;
}
