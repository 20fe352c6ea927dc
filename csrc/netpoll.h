/* What a poller must do; netpoll_epoll.c and netpoll_kqueue.c do it.  One a worker.

   - netpoll_wait sleeps until a descriptor is ready, the bell rings or the time is over.  It runs with
     the thread state detached, and touches nothing of Python's.
   - netpoll_ring may be called from any thread, also before the wait has begun: that wait then returns
     at once.  A bell rung several times may wake once.
   - With `signals`, a signal that arrives while the poller sleeps, or that netpoll_block had held back
     since, ends the wait with POLL_SIGNAL: between looking whether one is pending and sleeping, none
     is missed.  Without, no signal is delivered to the sleeping thread (macOS: it does not matter).
   - After a fork the child gives its poller up with netpoll_free and makes a new one: descriptors of
     the old one are the parent's as well, but closing ours does not disturb it. */
#ifndef GOFER_NETPOLL_H
#define GOFER_NETPOLL_H

#include "base.h"
#include "g.h"

typedef struct poller poller;
enum poll_result { POLL_TIMEOUT, POLL_BELL, POLL_SIGNAL };

/* NULL with an OSError or MemoryError. */
poller *netpoll_new(void);
void netpoll_free(poller *p);
void netpoll_ring(poller *p);
/* Holds back the signals of this thread until the wait with `signals`, or netpoll_unblock. */
void netpoll_block(poller *p);
void netpoll_unblock(poller *p);
/* Until `when` (clock_ns; NEVER: without end). */
enum poll_result netpoll_wait(poller *p, int64_t when, bool signals);

#endif
