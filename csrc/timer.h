/* Deadlines: a heap of timers a worker, each firing a callback.

   What must stay true:
   - A heap, and `slot` of the timers in it, are touched under its lock only.  Its memory is never given
     back while a timer remembers it.
   - A callback runs under that lock, with the thread state attached: on the worker's thread, or on the
     keeper's when the worker is stuck.  It may claim and ready goroutines and take the locks of channels and
     scopes; it must not touch timers or run Python code.
   - The heap of a bubble (scope_bubble.c) lives by the bubble's own clock and is run by the bubble.
   - So once timer_stop has returned, the callback is not running and will not run: its owner may go. */
#ifndef GOFER_TIMER_H
#define GOFER_TIMER_H

#include "base.h"
#include "g.h"

typedef struct timer timer;
struct timer {
    int64_t when;                 /* clock_ns */
    int64_t period;               /* 0: once */
    void (*fire)(timer *, int64_t now);    /* now DROPPED, without the lock: it will never fire */
    struct timers *heap;          /* where it is, or was last */
    size_t slot;                  /* index in the heap + 1; 0 when not armed */
    uint32_t era;                 /* of the heap, when it last fired */
};

typedef struct timers {
    lock_t lock;
    struct { int64_t when; timer *t; } *heap;     /* four children a node: shallow, and kind to the cache */
    size_t n, room;
    _Atomic(int64_t) first;       /* when of the earliest; NEVER when there is none */
    worker *owner;                /* who runs it */
    struct bubble *bubble;        /* or whose it is */
    _Atomic(int64_t) now;         /* the bubble's clock */
    _Atomic(uint32_t) era;        /* changes whenever a goroutine of the bubble can run again */
} timers;

#define DROPPED INT64_MIN

timers *timers_new(worker *w);
void timers_free(timers *h);

/* The timers that g lives by: its bubble's, its worker's, or the keeper's for a foreign thread; NULL with an
   exception. */
timers *timers_of(G *g);
/* The same, as if it were in no bubble. */
timers *timers_outside(G *g);
static inline int64_t timers_clock(const timers *h) { return h->bubble ? relaxed_load(&h->now) : clock_ns(); }

/* Arms t, to fire at t->when.  false: no memory. */
bool timer_start(timer *t, timers *h);
/* true when it was armed and will now not fire. */
bool timer_stop(timer *t);
bool timer_armed(timer *t);
/* In the child of a fork nobody holds the lock of the heap where t is. */
void timer_after_fork(timer *t);
/* The same, for all: everything that is armed in `from` goes on in `to`. */
void timers_move(timers *from, timers *to);
/* Fires all that are due; how many. */
int timers_run(timers *h, int64_t now);
/* None of them will fire. */
void timers_drop(timers *h);

/* Seconds as int, float or timedelta to nanoseconds; -1 with an exception.  what: for the message. */
int duration_ns(PyObject *d, const char *what, int64_t *ns);
int timer_init_types(void);

/* Parks g for that long; 0, or -1 with an exception. */
int timer_sleep(G *g, int64_t ns);

#endif
