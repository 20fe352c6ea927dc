/* Channels, as in Go's chan.c.

   What must stay true, whenever the lock is free:
   - At least one of the two queues holds no goroutine that could be claimed, except for a select that
     waits on both sides.
   - A buffered channel with values has no waiting receiver; one with room has no waiting sender.
   - A closed channel has no waiters.
   - Each value is owned by exactly one place: the ring, a sender's waiter, a receiver's waiter.
   - Values pass directly between goroutines: whoever claims a receiver puts the value into its waiter;
     whoever claims a sender takes the value out of its waiter.  A claim that fails leaves the value
     where it is, with the goroutine that lost interest. */
#include "chan.h"

int chan_init(chan *c, Py_ssize_t cap) {
    waitq_init(&c->receivers);
    waitq_init(&c->senders);
    c->cap = cap;
    c->bubble = g_bubble_here();
    if (cap == 0) return 0;
    if ((size_t)cap <= PTRDIFF_MAX / sizeof *c->ring) c->ring = mem_alloc((size_t)cap * sizeof *c->ring);
    if (c->ring) return 0;
    PyErr_NoMemory();
    return -1;
}

static PyObject *ring_pop(chan *c) {
    PyObject *v = c->ring[c->first];
    if (++c->first == c->cap) c->first = 0;
    c->len--;
    return v;
}

static void ring_push(chan *c, PyObject *v) {
    Py_ssize_t i = c->first + c->len++;
    c->ring[i >= c->cap ? i - c->cap : i] = v;
}

void chan_clear(chan *c) {
    for (;;) {
        lock_acquire(&c->lock);
        PyObject *v = c->len ? ring_pop(c) : NULL;
        lock_release(&c->lock);
        if (!v) return;
        Py_DECREF(v);
    }
}

int chan_visit(chan *c, visitproc visit, void *arg) {
    for (Py_ssize_t n = 0, i = c->first; n < c->len; n++) {
        Py_VISIT(c->ring[i]);
        if (++i == c->cap) i = 0;
    }
    return 0;
}

Py_ssize_t chan_len(chan *c) {
    lock_acquire(&c->lock);
    Py_ssize_t n = c->len;
    lock_release(&c->lock);
    return n;
}

bool chan_is_closed(chan *c) {
    lock_acquire(&c->lock);
    bool closed = c->closed;
    lock_release(&c->lock);
    return closed;
}

int chan_closed_error(chan *c, const char *what) {
    PyErr_Format(rt.errors.closed, "%s on closed channel <Chan %zd/%zd at %p>", what, chan_len(c), c->cap, c);
    return -1;
}

/* --- what can be done at once ---------------------------------------------------------------------- */
bool chan_send_now(chan *c, PyObject *value, G **wake) {
    waiter *r = waitq_claim(&c->receivers);
    if (r) {
        r->value = Py_NewRef(value);
        r->ok = true;
        r->g->woken = r;
        *wake = r->g;
        return true;
    }
    if (c->len >= c->cap) return false;
    ring_push(c, Py_NewRef(value));
    return true;
}

bool chan_recv_now(chan *c, PyObject **value, G **wake) {
    *value = NULL;
    if (c->len) *value = ring_pop(c);
    else if (c->closed) return true;
    waiter *s = waitq_claim(&c->senders);
    if (s) {
        PyObject *offered = s->value;
        s->value = NULL;
        s->ok = true;
        s->g->woken = s;
        *wake = s->g;
        if (*value) ring_push(c, offered);       /* the room we made is the sender's */
        else *value = offered;
    }
    return *value != NULL;
}

/* --- send, receive --------------------------------------------------------------------------------- */
int chan_send(chan *c, PyObject *value) {
    G *g = g_self();
    if (UNLIKELY(!g)) return -1;
    for (;;) {
        G *wake = NULL;
        lock_acquire(&c->lock);
        if (UNLIKELY(c->closed)) {
            lock_release(&c->lock);
            return chan_closed_error(c, "send");
        }
        if (chan_send_now(c, value, &wake)) {
            lock_release(&c->lock);
            if (wake) g_ready(wake);
            g_could_switch();
            return 0;
        }
        if (g_wait_doubtful(g)) {
            lock_release(&c->lock);
            if (g_wait_check(g) < 0) return -1;
            continue;
        }
        g_wait_publish(g);
        g->w.value = Py_NewRef(value);
        g->w.ok = false;
        waitq_push(&c->senders, &g->w);
        lock_release(&c->lock);
        g->durable = g_is_of(g, c->bubble);
        enum wake why = g_park(g, WHY_SEND, (PyObject *)c);
        PyObject *unsent = g->w.value;
        if (LIKELY(why == W_READY)) {
            bool ok = g->w.ok;
            g->w.value = NULL;
            g_settle(g);
            Py_XDECREF(unsent);
            return ok ? 0 : chan_closed_error(c, "send");
        }
        lock_acquire(&c->lock);
        waitq_remove(&g->w);
        g->w.value = NULL;
        lock_release(&c->lock);
        Py_XDECREF(unsent);
        if (g_wake_error(g, why) < 0) return -1;
    }
}

int chan_recv(chan *c, PyObject **value) {
    G *g = g_self();
    if (UNLIKELY(!g)) return -1;
    for (;;) {
        G *wake = NULL;
        lock_acquire(&c->lock);
        if (chan_recv_now(c, value, &wake)) {
            lock_release(&c->lock);
            if (wake) g_ready(wake);
            g_could_switch();
            return *value != NULL;
        }
        if (g_wait_doubtful(g)) {
            lock_release(&c->lock);
            if (g_wait_check(g) < 0) return -1;
            continue;
        }
        g_wait_publish(g);
        g->w.value = NULL;
        g->w.ok = false;
        waitq_push(&c->receivers, &g->w);
        lock_release(&c->lock);
        g->durable = g_is_of(g, c->bubble);
        enum wake why = g_park(g, WHY_RECV, (PyObject *)c);
        if (LIKELY(why == W_READY)) {
            *value = g->w.value;
            g->w.value = NULL;
            g_settle(g);
            return *value != NULL;
        }
        lock_acquire(&c->lock);
        waitq_remove(&g->w);
        lock_release(&c->lock);
        if (g_wake_error(g, why) < 0) return -1;
    }
}

/* --- close ----------------------------------------------------------------------------------------- */
/* Receivers find no value and ok false; senders keep theirs and find ok false. */
static void close_queue(waitq *q, waitq *woken) {
    for (waiter *x; (x = waitq_claim(q)); ) {
        x->ok = false;
        x->g->woken = x;
        waitq_push(woken, x);
    }
}

int chan_close(chan *c) {
    if (UNLIKELY(!g_self())) return -1;
    waitq woken;
    waitq_init(&woken);
    lock_acquire(&c->lock);
    if (c->closed) {
        lock_release(&c->lock);
        return chan_closed_error(c, "close");
    }
    c->closed = true;
    close_queue(&c->receivers, &woken);
    close_queue(&c->senders, &woken);
    lock_release(&c->lock);
    for (waiter *x; (x = waitq_first(&woken)); ) {
        G *g = x->g;
        waitq_remove(x);
        g_ready(g);
    }
    return 0;
}
