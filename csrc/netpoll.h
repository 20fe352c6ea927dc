/* How a worker sleeps, is woken, and waits for descriptors.

   netpoll_epoll.c and netpoll_kqueue.c are what a system must do, one poller a worker:

   - netpoll_wait sleeps until a descriptor is ready, the bell rings or the time is over.  It runs with
     the thread state detached, and touches nothing of Python's.  What is ready is there for netpoll_events.
   - netpoll_ring may be called from any thread, also before the wait has begun: that wait then returns
     at once.  A bell rung several times may wake once.
   - With `signals`, a signal that arrives while the poller sleeps, or that netpoll_block had held back
     since, ends the wait with POLL_SIGNAL: between looking whether one is pending and sleeping, none
     is missed.  Without, no signal is delivered to the sleeping thread (macOS: it does not matter).
   - netpoll_arm asks for one event of a descriptor, which then comes with the serial given.  It takes the
     place of what was asked for before.  From any thread.
   - After a fork the child gives its poller up with netpoll_free and makes a new one: descriptors of
     the old one are the parent's as well, but closing ours does not disturb it.

   netpoll_fds.c stands on that: which goroutine waits for which descriptor. */
#ifndef GOFER_NETPOLL_H
#define GOFER_NETPOLL_H

#include "base.h"
#include "g.h"

typedef struct poller poller;
enum poll_result { POLL_TIMEOUT, POLL_BELL, POLL_SIGNAL, POLL_READY };

/* What a descriptor is waited for, and what it is. */
enum { FD_READ = 1, FD_WRITE = 2, FD_URGENT = 4, FD_BROKEN = 8, FD_CLOSED = 16 };

typedef struct fd_event { int fd; uint32_t serial; uint8_t ready; } fd_event;

/* NULL with an OSError or MemoryError. */
poller *netpoll_new(void);
void netpoll_free(poller *p);
void netpoll_ring(poller *p);
/* Holds back the signals of this thread until the wait with `signals`, or netpoll_unblock. */
void netpoll_block(poller *p);
void netpoll_unblock(poller *p);
/* Until `when` (clock_ns; NEVER: without end; 0: does not sleep, and needs no detaching). */
enum poll_result netpoll_wait(poller *p, int64_t when, bool signals);
/* What the last wait found; *n of them. */
const fd_event *netpoll_events(poller *p, int *n);
/* 0, or an errno: EBADF for none that is open, EPERM for one that is always ready (a file).  *anew is set
   when it was never asked for this file under this number before (where the system tells). */
int netpoll_arm(poller *p, int fd, uint8_t events, uint32_t serial, bool *anew);

/* --- waiting for descriptors: netpoll_fds.c -------------------------------------------------------- */
/* One descriptor that a goroutine waits for.  On the heap. */
typedef struct fd_wait {
    node link;                   /* first; valid while queued */
    G *g;
    int fd;
    uint8_t events, ready;       /* `ready` under the table's lock while queued; FD_BROKEN comes unasked */
    bool queued;
} fd_wait;

typedef struct fd_table fd_table;
fd_table *fds_new(void);
void fds_free(fd_table *t);
/* Whether anybody waits here. */
bool fds_in_use(fd_table *t);
/* Parks the calling goroutine, which is on a worker, until one of the n is ready or ns are over (NEVER: they
   are not); how many are, or -1 with an exception.  One that is not open is ready at once, as FD_CLOSED.
   With no time (0) it lets the others run once; who is cancelled gets what is ready already. */
Py_ssize_t fds_wait(G *g, fd_wait *waits, Py_ssize_t n, int64_t ns);
/* Wakes those whose descriptors the last netpoll_wait of their worker found ready. */
void fds_dispatch(worker *w);
/* fd is about to be closed: wakes those of worker w that wait for it, with FD_CLOSED. */
void fds_closing(worker *w, int fd);
/* fd was closed, and may have been opened again since: wakes those that have come between fds_closing and
   that.  On macOS only if it is not open. */
void fds_closed(worker *w, int fd);
/* Supplied by the scheduler: fds_closed for every worker. */
extern void (*fds_changed)(int fd);

#endif
