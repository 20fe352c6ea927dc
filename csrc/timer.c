/* See timer.h. */
#include "timer.h"
#include <datetime.h>

enum { ARITY = 4 };

timers *timers_new(worker *w) {
    timers *h = mem_calloc(sizeof *h);
    if (h) { h->owner = w; h->first = NEVER; }
    return h;
}

void timers_free(timers *h) {
    if (!h) return;
    for (size_t i = 0; i < h->n; i++) h->heap[i].t->slot = 0;
    mem_free(h->heap);
    mem_free(h);
}

/* --- the heap -------------------------------------------------------------------------------------- */
static void put(timers *h, size_t i, int64_t when, timer *t) {
    h->heap[i].when = when;
    h->heap[i].t = t;
    t->slot = i + 1;
}

static void sift_up(timers *h, size_t i, int64_t when, timer *t) {
    while (i) {
        size_t parent = (i - 1) / ARITY;
        if (h->heap[parent].when <= when) break;
        put(h, i, h->heap[parent].when, h->heap[parent].t);
        i = parent;
    }
    put(h, i, when, t);
}

static void sift_down(timers *h, size_t i, int64_t when, timer *t) {
    for (;;) {
        size_t child = i * ARITY + 1, least = child;
        if (child >= h->n) break;
        for (size_t c = child + 1; c < child + ARITY && c < h->n; c++)
            if (h->heap[c].when < h->heap[least].when) least = c;
        if (h->heap[least].when >= when) break;
        put(h, i, h->heap[least].when, h->heap[least].t);
        i = least;
    }
    put(h, i, when, t);
}

static void note_first(timers *h) { relaxed_store(&h->first, h->n ? h->heap[0].when : NEVER); }

static void take_out(timers *h, timer *t) {
    size_t i = t->slot - 1;
    t->slot = 0;
    h->n--;
    if (i < h->n) {
        int64_t when = h->heap[h->n].when;
        timer *last = h->heap[h->n].t;
        if (i && h->heap[(i - 1) / ARITY].when > when) sift_up(h, i, when, last);
        else sift_down(h, i, when, last);
    }
    note_first(h);
}

/* --- arming ---------------------------------------------------------------------------------------- */
static bool put_in(timers *h, timer *t) {
    if (h->n == h->room) {
        size_t room = h->room ? h->room * 2 : 64;
        void *p = mem_grow(h->heap, room * sizeof *h->heap);
        if (!p) return false;
        h->heap = p;
        h->room = room;
    }
    t->heap = h;
    t->era = relaxed_load(&h->era) - 1;
    sift_up(h, h->n++, t->when, t);
    note_first(h);
    return true;
}

timers *timers_of(G *g) {
    return UNLIKELY(relaxed_load(&g->bubble)) ? g_hooks.bubble_timers(g) : timers_outside(g);
}

timers *timers_outside(G *g) {
    worker *w = g->worker ? g->worker : g_hooks.keeper();
    return w ? w->timers : NULL;
}

bool timer_start(timer *t, timers *h) {
    worker *w = h->owner;
    lock_acquire(&h->lock);
    bool done = put_in(h, t), earliest = done && t->slot == 1;
    lock_release(&h->lock);
    if (!done) return false;
    if (earliest && w) g_hooks.armed(w, t->when);
    return true;
}

bool timer_stop(timer *t) {
    timers *h = t->heap;
    if (!h) return false;
    lock_acquire(&h->lock);
    bool armed = t->slot != 0;
    if (armed) take_out(h, t);
    lock_release(&h->lock);
    return armed;
}

bool timer_armed(timer *t) {
    timers *h = t->heap;
    if (!h) return false;
    lock_acquire(&h->lock);
    bool armed = t->slot != 0;
    lock_release(&h->lock);
    return armed;
}

void timer_after_fork(timer *t) {
    if (t->heap) lock_reset(&t->heap->lock);
}

void timers_move(timers *from, timers *to) {
    for (size_t i = 0; i < from->n; i++) {
        from->heap[i].t->slot = 0;
        put_in(to, from->heap[i].t);             /* without memory it is lost */
    }
    from->n = 0;
    note_first(from);
}

/* The keeper may have fired earlier ones: what it woke is to run before what we wake now.  Under the lock. */
static bool line_up(worker *w) {
    if (!w || w != g_worker || !relaxed_load(&w->inbox)) return false;
    g_drain(w);
    if (w->next) return false;
    w->next = w->cur;                    /* so that nobody is put there */
    return true;
}

int timers_run(timers *h, int64_t now) {
    int fired = 0;
    if (relaxed_load(&h->first) > now) return 0;
    lock_acquire(&h->lock);
    bool lined_up = line_up(h->owner);
    while (h->n && h->heap[0].when <= now) {
        timer *t = h->heap[0].t;
        t->era = relaxed_load(&h->era);
        if (t->period > 0) {             /* as Go: the next tick that lies ahead, on the same grid */
            t->when += t->period * (1 + (now - t->when) / t->period);
            sift_down(h, 0, t->when, t);
            note_first(h);
        } else take_out(h, t);
        t->fire(t, now);
        fired++;
    }
    if (lined_up) h->owner->next = NULL;
    lock_release(&h->lock);
    return fired;
}

void timers_drop(timers *h) {
    for (;;) {
        lock_acquire(&h->lock);
        timer *t = h->n ? h->heap[0].t : NULL;
        if (t) take_out(h, t);
        lock_release(&h->lock);
        if (!t) return;
        t->fire(t, DROPPED);
    }
}

/* --- durations ------------------------------------------------------------------------------------- */
int timer_init_types(void) {
    PyDateTime_IMPORT;
    return PyDateTimeAPI ? 0 : -1;
}

int duration_ns(PyObject *d, const char *what, int64_t *ns) {
    double s;
    if (PyFloat_Check(d)) s = PyFloat_AS_DOUBLE(d);
    else if (PyDelta_Check(d))
        s = PyDateTime_DELTA_GET_DAYS(d) * 86400.0 + PyDateTime_DELTA_GET_SECONDS(d)
            + PyDateTime_DELTA_GET_MICROSECONDS(d) * 1e-6;
    else {
        s = PyFloat_AsDouble(d);
        if (s == -1.0 && PyErr_Occurred()) {
            if (PyErr_ExceptionMatches(PyExc_TypeError))
                PyErr_Format(PyExc_TypeError, "%s takes seconds as a number or a timedelta, not %.200s",
                             what, Py_TYPE(d)->tp_name);
            return -1;
        }
    }
    if (s != s) {
        PyErr_Format(PyExc_ValueError, "%s takes seconds, not nan", what);
        return -1;
    }
    *ns = s <= 0 ? 0 : s >= 9e9 ? NEVER / 2 : (int64_t)(s * 1e9 + 0.5);
    if (s < 0) *ns = -1;
    return 0;
}

/* --- sleep ----------------------------------------------------------------------------------------- */
typedef struct { timer t; G *g; } sleeper;

static void sleep_over(timer *t, int64_t now) {
    (void)now;
    G *g = ((sleeper *)t)->g;
    if (g_claim(g, W_READY)) g_ready(g);
}

int timer_sleep(G *g, int64_t ns) {
    timers *h = timers_of(g);
    if (!h) return -1;
    int64_t until = timers_clock(h) + ns;
    sleeper *s = mem_alloc(sizeof *s);   /* not on the stack: that will be elsewhere when it fires */
    if (!s) { PyErr_NoMemory(); return -1; }
    *s = (sleeper){ { .when = until, .fire = sleep_over }, g };
    int result = -1;
    for (;;) {
        if (g_wait_begin(g) < 0) break;
        if (!timer_start(&s->t, h)) { g_wait_cancel(g); PyErr_NoMemory(); break; }
        g->durable = true;
        enum wake why = g_park(g, WHY_SLEEP, NULL);
        if (why == W_READY) { g_settle(g); result = 0; break; }
        timer_stop(&s->t);
        if (g_wake_error(g, why) < 0) break;
    }
    mem_free(s);
    return result;
}
