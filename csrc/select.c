/* select, as in Go's select.go.

   What must stay true:
   - All channels are locked, in address order, while the cases are looked at and while the waiters are
     put into or taken out of the queues.
   - Among the cases that are ready each is as likely as any other, also when one channel stands in
     several of them.
   - A select waits through one goroutine and many waiters: the wait word lets exactly one of them be
     served.  g->woken says which; the others are taken out before select returns. */
#include "select.h"

#if GOFER_FREE_THREADED
/* Each distinct channel once, by address: insertion sort, since cases are few. */
static Py_ssize_t lock_order(select_case *cases, Py_ssize_t n, chan **order) {
    Py_ssize_t m = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        chan *c = cases[i].c;
        if (!c) continue;
        Py_ssize_t at = m;
        while (at && order[at - 1] > c) at--;
        if (at && order[at - 1] == c) continue;
        memmove(order + at + 1, order + at, (size_t)(m - at) * sizeof *order);
        order[at] = c;
        m++;
    }
    return m;
}
static void lock_all(chan **order, Py_ssize_t m) {
    for (Py_ssize_t i = 0; i < m; i++) lock_acquire(&order[i]->lock);
}
static void unlock_all(chan **order, Py_ssize_t m) {
    while (m) lock_release(&order[--m]->lock);
}
#else
static Py_ssize_t lock_order(select_case *cases, Py_ssize_t n, chan **order) { return 0; }
static void lock_all(chan **order, Py_ssize_t m) {}
static void unlock_all(chan **order, Py_ssize_t m) {}
#endif

/* Carries out case k if it is ready.  Under the locks. */
static bool try_case(select_case *k, PyObject **value, bool *closed, G **wake) {
    chan *c = k->c;
    switch (k->kind) {
    case CASE_SEND:
        if ((*closed = c->closed)) return true;
        return chan_send_now(c, k->value, wake);
    case CASE_RECV: case CASE_RECV_OK:
        if (!chan_recv_now(c, value, wake)) return false;
        *closed = *value == NULL;
        return true;
    default:
        return false;
    }
}

/* In the random order of the look before: of several cases of one channel any may be the first in line. */
static void enqueue(select_case *cases, Py_ssize_t n, G *g) {
    for (Py_ssize_t i = 0; i < n; i++) {
        select_case *k = &cases[cases[i].order];
        if (k->kind == CASE_NONE) continue;
        k->w.g = g;
        k->w.n = cases[i].order;
        k->w.ok = false;
        k->w.value = k->kind == CASE_SEND ? Py_NewRef(k->value) : NULL;
        waitq_push(k->kind == CASE_SEND ? &k->c->senders : &k->c->receivers, &k->w);
    }
}

static bool is_durable(select_case *cases, Py_ssize_t n, const G *g) {
    for (Py_ssize_t i = 0; i < n; i++)
        if (cases[i].kind != CASE_NONE && !g_is_of(g, cases[i].c->bubble)) return false;
    return true;
}

/* --- while schedules are explored: who may be chosen is part of the schedule ----------------------- */
static bool anybody_in(const waitq *q) {
    for (node *x = q->ring.next; x != &q->ring; x = x->next)
        if (relaxed_load(&((waiter *)x)->g->wait) == W_WAITING) return true;
    return false;
}

static bool is_ready(const select_case *k) {
    chan *c = k->c;
    if (k->kind == CASE_SEND) return c->closed || c->len < c->cap || anybody_in(&c->receivers);
    return k->kind != CASE_NONE && (c->closed || c->len || anybody_in(&c->senders));
}

/* The case to be carried out; -1: there is no choice. */
static NOINLINE Py_ssize_t explored(select_case *cases, Py_ssize_t n) {
    uint32_t ready = 0;
    for (Py_ssize_t i = 0; i < n; i++) ready += is_ready(&cases[i]);
    if (ready < 2) return -1;
    uint32_t k = g_hooks.chooses(ready);
    for (Py_ssize_t i = 0;; i++)
        if (is_ready(&cases[i]) && k-- == 0) return i;
}

static void dequeue(select_case *cases, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) waitq_remove(&cases[i].w);
}

/* After the locks are released: values that were offered and not taken. */
static void drop_offers(select_case *cases, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++)
        if (cases[i].kind == CASE_SEND) Py_CLEAR(cases[i].w.value);
}

static Py_ssize_t select_locked(select_case *cases, Py_ssize_t n, bool wait, PyObject **value,
                                bool *closed, chan **order) {
    Py_ssize_t m = lock_order(cases, n, order);
    G *g = g_self();
    if (!g) return -2;
    static __thread uint64_t foreign_rng;
    if (!foreign_rng) foreign_rng = ((uint64_t)(uintptr_t)&foreign_rng ^ (uint64_t)clock_ns()) * 2 + 1;
    uint64_t *rng = g_worker ? &g_worker->rng : &foreign_rng;
    for (;;) {
        G *wake = NULL;
        *value = NULL;
        *closed = false;
        lock_all(order, m);
        Py_ssize_t found = -1;
        if (UNLIKELY(relaxed_load(&g_exploring)) && g_worker && relaxed_load(&g_worker->choose)) {
            found = explored(cases, n);
            if (found >= 0) try_case(&cases[found], value, closed, &wake);
        }
        for (Py_ssize_t i = 0; i < n && found < 0; i++) {
            /* a random permutation: with a rotation, the case after a run of unready ones would win
               more often than the others */
            Py_ssize_t j = i + rng_below(rng, (uint32_t)(n - i)), t = cases[j].order;
            cases[j].order = cases[i].order;
            cases[i].order = t;
            if (try_case(&cases[t], value, closed, &wake)) found = t;
        }
        if (found >= 0 || !wait) {
            unlock_all(order, m);
            if (wake) g_ready(wake);
            g_could_switch();
            return found;
        }
        if (g_wait_doubtful(g)) {
            unlock_all(order, m);
            if (g_wait_check(g) < 0) return -2;
            continue;
        }
        g_wait_publish(g);
        enqueue(cases, n, g);
        unlock_all(order, m);
        g->durable = is_durable(cases, n, g);
        enum wake why = g_park(g, n ? WHY_SELECT : WHY_SELECT_EMPTY, NULL);
        lock_all(order, m);
        dequeue(cases, n);
        unlock_all(order, m);
        if (why == W_READY) {
            select_case *k = (select_case *)g->woken;
            g->woken = NULL;
            if (k->kind != CASE_SEND) *value = k->w.value;
            *closed = !k->w.ok;
            drop_offers(cases, n);
            g_settle(g);
            return k->w.n;
        }
        drop_offers(cases, n);
        if (g_wake_error(g, why) < 0) return -2;
    }
}

Py_ssize_t select_run(select_case *cases, Py_ssize_t n, bool wait, PyObject **value, bool *closed) {
    chan **order = NULL;
#if GOFER_FREE_THREADED
    if (n && !(order = mem_alloc((size_t)n * sizeof *order))) { PyErr_NoMemory(); return -2; }
#endif
    for (Py_ssize_t i = 0; i < n; i++) cases[i].order = i;
    Py_ssize_t k = select_locked(cases, n, wait, value, closed, order);
    mem_free(order);
    return k;
}
