/* Which goroutine waits for which descriptor.

   Each worker has a table of the descriptors that its goroutines wait for, and asks its own poller for one
   event at a time: so readiness wakes a goroutine on its worker, with no thread between, and nothing has to
   be known about what happens to a descriptor meanwhile.

   What must stay true:
   - A table is touched under its lock; its own worker dispatches, any thread
     may wake who waits (fds_closing).
   - Each time something is asked for, the descriptor's serial moves on.  An event with another serial is an
     old one, perhaps of another file that had the same number, and is forgotten.
   - Nothing is remembered of what the poller was asked for: a file that was closed has taken that with it,
     and who closes one in C does not tell.  So who comes asks for all that wait for the descriptor.
   - Who comes and is told that the poller does not know the file (`anew`) finds the number in other hands:
     those that wait for it already wait for a file that is gone, and are woken.  The other workers' tables
     are asked to look as well (fds_changed).
   - A wait is in the table, and counted, from before its goroutine can be claimed until it has taken it out
     itself. */
#include "netpoll.h"
#include "timer.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>

typedef struct entry {
    node waits;
    uint32_t serial;
} entry;

struct fd_table {
    lock_t lock;
    entry **entries;             /* by number; NULL: nobody has ever waited for it */
    size_t room;
    _Atomic(int) waiting;        /* goroutines that wait here, or are about to */
};

fd_table *fds_new(void) { return mem_calloc(sizeof(fd_table)); }

void fds_free(fd_table *t) {
    if (!t) return;
    for (size_t i = 0; i < t->room; i++) mem_free(t->entries[i]);
    mem_free(t->entries);
    mem_free(t);
}

bool fds_in_use(fd_table *t) { return relaxed_load(&t->waiting) != 0; }

/* Under the lock; NULL: nobody has ever waited for it. */
static entry *entry_at(fd_table *t, int fd) {
    return fd >= 0 && (size_t)fd < t->room ? t->entries[fd] : NULL;
}

/* The same, made for a descriptor that is open; NULL: no memory. */
static entry *entry_for(fd_table *t, int fd) {
    if ((size_t)fd >= t->room) {
        size_t room = t->room ? t->room : 64;
        while (room <= (size_t)fd) room *= 2;
        entry **p = mem_grow(t->entries, room * sizeof *p);
        if (!p) return NULL;
        memset(p + t->room, 0, (room - t->room) * sizeof *p);
        t->entries = p;
        t->room = room;
    }
    if (!t->entries[fd] && (t->entries[fd] = mem_calloc(sizeof(entry)))) ring_init(&t->entries[fd]->waits);
    return t->entries[fd];
}

void (*fds_changed)(int fd);

static fd_wait *wait_at(node *x) { return (fd_wait *)x; }

/* Who waits for the descriptor and is served by `ready` goes into `woken`.  Under the lock. */
static void serve(entry *e, uint8_t ready, const fd_wait *but, waitq *woken) {
    for (node *x = e->waits.next; x != &e->waits; x = x->next) {
        fd_wait *f = wait_at(x);
        uint8_t hit = ready & (f->events | FD_BROKEN | FD_CLOSED);
        if (!hit || f == but) continue;
        if (f->ready & FD_CLOSED) continue;              /* what comes now is another file's */
        f->ready |= hit;
        if (g_claim(f->g, W_READY)) waitq_push(woken, &f->g->w);
    }
}

/* Asks for what those who wait for fd still want; `newest` is the one that has just come, if any.  Under the
   lock; 0 or an errno.  *anew: who has waited for it before waits for something else, and has been told. */
static int ask(worker *w, entry *e, int fd, const fd_wait *newest, waitq *woken, bool *anew) {
    uint8_t wanted = 0;
    bool anybody = false;
    *anew = false;
    for (node *x = e->waits.next; x != &e->waits; x = x->next) {
        if (wait_at(x)->ready) continue;
        wanted |= wait_at(x)->events;
        anybody = true;
    }
    if (!anybody) return 0;
    int error = netpoll_arm(w->poller, fd, wanted, e->serial + 1, anew);
    if (!error) e->serial++;
    if (error && error != ENOMEM) *anew = true;
    if (*anew) serve(e, FD_CLOSED, newest, woken);
    return error;
}

static void ready_all(waitq *woken) {
    for (waiter *x; (x = waitq_first(woken)); ) {
        waitq_remove(x);
        g_ready(x->g);
    }
}

/* --- waiting --------------------------------------------------------------------------------------- */
/* Under the lock; 0 or an errno.  It may be ready at once. */
static int put_in(worker *w, fd_wait *f, waitq *woken, bool *anew) {
    if (f->fd < 0 || ((size_t)f->fd >= w->fds->room && fcntl(f->fd, F_GETFD) < 0)) {
        f->ready = FD_CLOSED;
        *anew = f->fd >= 0;
        return 0;
    }
    entry *e = entry_for(w->fds, f->fd);
    if (!e) return ENOMEM;
    ring_insert_before(&e->waits, &f->link);
    f->queued = true;
    int error = ask(w, e, f->fd, f, woken, anew);
    if (error == EPERM) f->ready = f->events ? f->events : FD_BROKEN;
    else if (error == EBADF) f->ready = FD_CLOSED;
    else return error;
    return 0;
}

static Py_ssize_t take_out(worker *w, fd_wait *waits, Py_ssize_t n) {
    Py_ssize_t ready = 0;
    lock_acquire(&w->fds->lock);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (waits[i].queued) { ring_remove(&waits[i].link); waits[i].queued = false; }
        ready += waits[i].ready != 0;
    }
    lock_release(&w->fds->lock);
    return ready;
}

typedef struct { timer t; G *g; } alarm_clock;

static void time_over(timer *t, int64_t now) {
    G *g = ((alarm_clock *)t)->g;
    if (now != DROPPED && g_claim(g, W_READY)) g_ready(g);
}

/* 0 or an errno; *at_once: there is nothing to wait for. */
static int put_in_all(worker *w, fd_wait *waits, Py_ssize_t n, bool *at_once) {
    waitq woken;
    waitq_init(&woken);
    int error = 0;
    for (Py_ssize_t i = 0; i < n && !error; i++) {
        bool anew = false;
        lock_acquire(&w->fds->lock);
        error = put_in(w, &waits[i], &woken, &anew);
        *at_once = *at_once || waits[i].ready;
        lock_release(&w->fds->lock);
        if (anew) fds_changed(waits[i].fd);
    }
    ready_all(&woken);
    return error;
}

/* One round: how many are ready, 0 when woken by something else than *why says, -1 with *error. */
static Py_ssize_t wait_once(G *g, fd_wait *waits, Py_ssize_t n, alarm_clock *a, enum wake *why, int *error) {
    worker *w = g->worker;
    bool at_once = false;
    for (Py_ssize_t i = 0; i < n; i++) {
        waits[i].g = g;
        waits[i].ready = 0;
        waits[i].queued = false;
    }
    if (n) atomic_fetch_add(&w->fds->waiting, 1);
    *error = put_in_all(w, waits, n, &at_once);
    if (!*error && !at_once && a && !timer_start(&a->t, w->timers)) *error = ENOMEM;
    bool stays = (*error || at_once) && g_claim(g, W_NONE);
    g->durable = false;          /* the last wait may have left it set */
    *why = stays ? W_READY : g_park(g, WHY_IO, NULL);
    if (a) timer_stop(&a->t);
    Py_ssize_t ready = take_out(w, waits, n);
    if (n) atomic_fetch_sub(&w->fds->waiting, 1);
    return stays && *error ? -1 : ready;
}

static short as_poll_has_it(uint8_t events) {
    return (short)((events & FD_READ ? POLLIN : 0) | (events & FD_WRITE ? POLLOUT : 0)
                   | (events & FD_URGENT ? POLLPRI : 0));
}

static uint8_t what_poll_found(const struct pollfd *p) {
    if (p->fd < 0 || p->revents & POLLNVAL) return FD_CLOSED;
    return (uint8_t)((p->revents & POLLIN ? FD_READ : 0) | (p->revents & POLLOUT ? FD_WRITE : 0)
                     | (p->revents & POLLPRI ? FD_URGENT : 0)
                     | (p->revents & (POLLERR | POLLHUP) ? FD_BROKEN : 0));
}

/* How many are ready this moment; -1 with an exception. */
static Py_ssize_t look_once(fd_wait *waits, Py_ssize_t n) {
    struct pollfd *p = mem_alloc((size_t)(n + !n) * sizeof *p);
    if (!p) { PyErr_NoMemory(); return -1; }
    for (Py_ssize_t i = 0; i < n; i++)
        p[i] = (struct pollfd){ waits[i].fd, as_poll_has_it(waits[i].events), 0 };
    Py_ssize_t ready = 0;
    if (poll(p, (nfds_t)n, 0) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        ready = -1;
    }
    for (Py_ssize_t i = 0; i < n && ready >= 0; i++) ready += (waits[i].ready = what_poll_found(&p[i])) != 0;
    mem_free(p);
    return ready;
}

static Py_ssize_t wait_long(G *g, fd_wait *waits, Py_ssize_t n, alarm_clock *a) {
    for (;;) {
        enum wake why;
        int error;
        if (g_wait_begin(g) < 0) return -1;
        Py_ssize_t ready = wait_once(g, waits, n, a, &why, &error);
        if (ready < 0) {
            errno = error;
            if (error == ENOMEM) PyErr_NoMemory();
            else PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (ready || why == W_READY) {           /* what came first is told; the other comes again */
            g_settle(g);
            return ready;
        }
        if (g_wake_error(g, why) < 0) return -1;
    }
}

Py_ssize_t fds_wait(G *g, fd_wait *waits, Py_ssize_t n, int64_t ns) {
    /* Who is cancelled, or has no time, may have what is there. */
    if (ns == 0 || relaxed_load(&g->pending)) {
        Py_ssize_t ready = look_once(waits, n);
        if (ready) return ready;
        if (ns == 0) return g_yield(g) < 0 ? -1 : look_once(waits, n);
    }
    if (ns == NEVER) return wait_long(g, waits, n, NULL);
    alarm_clock *a = mem_alloc(sizeof *a);
    if (!a) { PyErr_NoMemory(); return -1; }
    /* By the world's clock, in a bubble too: the descriptor belongs to the world. */
    *a = (alarm_clock){ { .when = clock_ns() + ns, .fire = time_over }, g };
    Py_ssize_t ready = wait_long(g, waits, n, a);
    mem_free(a);
    return ready;
}

/* --- waking ---------------------------------------------------------------------------------------- */
void fds_dispatch(worker *w) {
    int n;
    const fd_event *events = netpoll_events(w->poller, &n);
    if (!n) return;
    waitq woken;
    waitq_init(&woken);
    lock_acquire(&w->fds->lock);
    for (int i = 0; i < n; i++) {
        entry *e = entry_at(w->fds, events[i].fd);
        if (!e || e->serial != events[i].serial) continue;
        bool anew;
        serve(e, events[i].ready, NULL, &woken);
        ask(w, e, events[i].fd, NULL, &woken, &anew);
    }
    lock_release(&w->fds->lock);
    ready_all(&woken);
}

void fds_closing(worker *w, int fd) {
    waitq woken;
    waitq_init(&woken);
    lock_acquire(&w->fds->lock);
    entry *e = entry_at(w->fds, fd);
    if (e) serve(e, FD_CLOSED, NULL, &woken);
    lock_release(&w->fds->lock);
    ready_all(&woken);
}

void fds_closed(worker *w, int fd) {
    waitq woken;
    waitq_init(&woken);
    lock_acquire(&w->fds->lock);
    entry *e = entry_at(w->fds, fd);
    bool anew;
    if (e) ask(w, e, fd, NULL, &woken, &anew);
    lock_release(&w->fds->lock);
    ready_all(&woken);
}
