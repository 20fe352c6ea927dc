/* Which goroutine waits for which descriptor.

   Each worker has a table of the descriptors that its goroutines wait for, and asks its own poller for one
   event at a time: so readiness wakes a goroutine on its worker, with no thread between, and nothing has to be
   known about what happens to a descriptor meanwhile.

   What must stay true:
   - A table is touched under its lock; its own worker dispatches, any thread may wake who waits (fds_closing).
   - Each time something is asked for, the descriptor's serial moves on.  An event with another serial is an
     old one, perhaps of another file that had the same number, and is forgotten.
   - `armed` is what the poller was asked for and has not answered.  While it holds all that the waiters of a
     descriptor want, nobody need ask.
   - A wait is in the table from before its goroutine can be claimed until it has taken it out itself. */
#include "netpoll.h"
#include "timer.h"
#include <errno.h>

typedef struct entry {
    node waits;
    uint32_t serial;
    uint8_t armed;
} entry;

struct fd_table {
    lock_t lock;
    entry **entries;             /* by number; NULL: nobody has ever waited for it */
    int room;
    _Atomic(int) waiting;        /* goroutines parked here */
};

fd_table *fds_new(void) { return mem_calloc(sizeof(fd_table)); }

void fds_free(fd_table *t) {
    if (!t) return;
    for (int i = 0; i < t->room; i++) mem_free(t->entries[i]);
    mem_free(t->entries);
    mem_free(t);
}

bool fds_in_use(fd_table *t) { return relaxed_load(&t->waiting) != 0; }

/* Under the lock; NULL: no memory. */
static entry *entry_of(fd_table *t, int fd) {
    if (fd >= t->room) {
        int room = t->room ? t->room : 64;
        while (room <= fd) room *= 2;
        entry **p = mem_grow(t->entries, (size_t)room * sizeof *p);
        if (!p) return NULL;
        memset(p + t->room, 0, (size_t)(room - t->room) * sizeof *p);
        t->entries = p;
        t->room = room;
    }
    if (!t->entries[fd] && (t->entries[fd] = mem_calloc(sizeof(entry)))) ring_init(&t->entries[fd]->waits);
    return t->entries[fd];
}

static fd_wait *wait_at(node *x) { return (fd_wait *)x; }

/* Asks for what those who wait for fd still want.  Under the lock; 0 or an errno. */
static int arm(worker *w, entry *e, int fd) {
    uint8_t wanted = 0;
    for (node *x = e->waits.next; x != &e->waits; x = x->next)
        if (!wait_at(x)->ready) wanted |= wait_at(x)->events;
    if ((wanted & ~e->armed) == 0) return 0;
    int error = netpoll_arm(w->poller, fd, wanted, ++e->serial);
    e->armed = error ? 0 : wanted;
    return error;
}

/* Who waits for fd and is served by `ready` goes into `woken`.  Under the lock. */
static void serve(entry *e, uint8_t ready, waitq *woken) {
    for (node *x = e->waits.next; x != &e->waits; x = x->next) {
        fd_wait *f = wait_at(x);
        uint8_t hit = ready & (f->events | FD_BROKEN | FD_CLOSED);
        if (!hit) continue;
        f->ready |= hit;
        if (g_claim(f->g, W_READY)) waitq_push(woken, &f->g->w);
    }
}

static void ready_all(waitq *woken) {
    for (waiter *x; (x = waitq_first(woken)); ) {
        waitq_remove(x);
        g_ready(x->g);
    }
}

/* --- waiting ------------------------------------------------------------------------------------------- */
/* false: no memory. */
static bool put_in(worker *w, fd_wait *f, bool *at_once) {
    if (f->fd < 0) {
        f->ready = FD_CLOSED;
        *at_once = true;
        return true;
    }
    entry *e = entry_of(w->fds, f->fd);
    if (!e) return false;
    ring_insert_before(&e->waits, &f->link);
    f->queued = true;
    int error = arm(w, e, f->fd);
    if (!error) return true;
    if (error == ENOMEM || error == ENOSPC) return false;
    f->ready = error == EPERM ? f->events : FD_CLOSED;
    *at_once = true;
    return true;
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

/* One round: how many are ready, 0 when woken by something else than *why says, -1 without memory. */
static Py_ssize_t wait_once(G *g, fd_wait *waits, Py_ssize_t n, alarm_clock *a, timers *h, enum wake *why) {
    worker *w = g->worker;
    bool at_once = false, fits = true;
    for (Py_ssize_t i = 0; i < n; i++) {
        waits[i].g = g;
        waits[i].ready = 0;
        waits[i].queued = false;
    }
    lock_acquire(&w->fds->lock);
    for (Py_ssize_t i = 0; i < n && fits; i++) fits = put_in(w, &waits[i], &at_once);
    lock_release(&w->fds->lock);
    if (fits && !at_once && a) fits = timer_start(&a->t, h);
    if ((!fits || at_once) && g_claim(g, W_NONE)) {
        *why = W_READY;
        Py_ssize_t ready = take_out(w, waits, n);
        return fits ? ready : -1;
    }
    atomic_fetch_add(&w->fds->waiting, 1);
    *why = g_park(g, WHY_IO, NULL);
    atomic_fetch_sub(&w->fds->waiting, 1);
    if (a) timer_stop(&a->t);
    return take_out(w, waits, n);
}

Py_ssize_t fds_wait(G *g, fd_wait *waits, Py_ssize_t n, int64_t ns) {
    timers *h = NULL;
    alarm_clock *a = NULL;
    if (ns != NEVER) {
        if (!(h = timers_of(g))) return -1;
        if (!(a = mem_alloc(sizeof *a))) { PyErr_NoMemory(); return -1; }
        *a = (alarm_clock){ { .when = timers_clock(h) + ns, .fire = time_over }, g };
    }
    Py_ssize_t ready;
    for (;;) {
        enum wake why = W_READY;
        ready = g_wait_begin(g) < 0 ? -2 : wait_once(g, waits, n, a, h, &why);
        if (ready == -2) { ready = -1; break; }
        if (ready == -1) { PyErr_NoMemory(); break; }
        if (why == W_READY) { g_settle(g); break; }
        if (ready == 0 && g_wake_error(g, why) < 0) { ready = -1; break; }
        if (ready) { g_settle(g); break; }       /* what came first is told; the other comes again */
    }
    mem_free(a);
    return ready;
}

/* --- waking ------------------------------------------------------------------------------------------------ */
void fds_dispatch(worker *w) {
    int n;
    const fd_event *events = netpoll_events(w->poller, &n);
    if (!n) return;
    waitq woken;
    waitq_init(&woken);
    lock_acquire(&w->fds->lock);
    for (int i = 0; i < n; i++) {
        int fd = events[i].fd;
        entry *e = fd < w->fds->room ? w->fds->entries[fd] : NULL;
        if (!e || e->serial != events[i].serial) continue;
        e->armed = 0;
        serve(e, events[i].ready, &woken);
        if (arm(w, e, fd)) serve(e, FD_CLOSED, &woken);
    }
    lock_release(&w->fds->lock);
    ready_all(&woken);
}

void fds_closing(worker *w, int fd) {
    waitq woken;
    waitq_init(&woken);
    lock_acquire(&w->fds->lock);
    entry *e = fd >= 0 && fd < w->fds->room ? w->fds->entries[fd] : NULL;
    if (e) {
        e->serial++;
        e->armed = 0;
        serve(e, FD_CLOSED, &woken);
    }
    lock_release(&w->fds->lock);
    ready_all(&woken);
}
