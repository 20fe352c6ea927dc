/* The table of workers, and what the files of the scheduler's room share: sched.c, sched_deadlock.c,
   sched_keeper.c, sched_look.c and sched_ends.c.  The invariants stand in sched.c. */
#ifndef GOFER_SCHED_TABLE_H
#define GOFER_SCHED_TABLE_H

#include "sched.h"
#include "timer.h"
#include "netpoll.h"

enum { MAX_WORKERS = 256 };

/* Threads that end, and signals that others received, do not ring: look again after so long. */
static const int64_t RECHECK_NS = 40000000;

extern struct sched_table {
    _Atomic(worker *) all[MAX_WORKERS];
    _Atomic(int) n;                /* places in use, counting the main thread's */
    _Atomic(int) procs;
    _Atomic(int) locked;           /* workers whose thread is locked: for each, one more may start some */
    _Atomic(int) idle, searching;
    _Atomic(uint32_t) fallen_asleep;   /* how often anybody did */
    _Atomic(int) threads;          /* foreign threads that have used the library, live and do not rest */
    _Atomic(int) calls;            /* under way on threads */
    _Atomic(uint32_t) epoch;       /* of calls and reserved workers: a fork begins the next */
    _Atomic(int) outside;          /* goroutines that any thread at all may wake */
    _Atomic(int) resting;          /* threads that wait to be given something */
    lock_t lock;                   /* guards the table, the shared queue and the deadlock check */
    _Atomic(bool) exiting;         /* under the lock: no more threads are started */
    gqueue shared;                 /* unstarted, from foreign threads */
    _Atomic(worker *) keeper;      /* NULL until it is needed */
    _Atomic(int) keeper_rests;     /* nobody waits for a worker: the next spawn is to ring */
    _Atomic(int64_t) keeper_looks; /* until when it sleeps at most, for the sake of stuck workers' timers */
} sched;

static inline int n_workers(void) { return atomic_load(&sched.n); }

/* So many may start goroutines, counting those that are locked. */
static inline int n_starters(void) { return relaxed_load(&sched.procs) + relaxed_load(&sched.locked); }

/* Those that exist and have their thread. */
static inline worker *live_worker(int i) {
    worker *w = sched.all[i];
    return w && atomic_load(&w->live) ? w : NULL;
}

/* From here on it has to be rung, until it sets `sleeping` to 0. */
static inline void fall_asleep(worker *w) {
    atomic_fetch_add(&sched.fallen_asleep, 1);
    atomic_store(&w->sleeping, 1);
}

/* --- sched.c --------------------------------------------------------------------------------------- */
/* NULL with MemoryError or OSError. */
worker *worker_new(void);
void worker_free(worker *w);
/* One more thread; NULL with an exception.  Counts as searching until it has started. */
worker *worker_start(void);
/* NULL, with the exception for why there is none. */
void *no_thread(void);
int worker_make_idler(worker *w);
void worker_ring(worker *w);
/* Rings one of the first `among` that sleeps and would take unstarted
   goroutines; false when there is none. */
bool wake_one(int among);

/* --- sched_deadlock.c ------------------------------------------------------------------------------ */
/* BUSY: somebody may wake somebody; PERHAPS: only a thread may, which does not ring when it ends; DEADLOCK:
   goroutine 1 has been told. */
enum verdict { BUSY, PERHAPS, DEADLOCK };
enum verdict check_deadlock(void);

/* --- sched_keeper.c -------------------------------------------------------------------------------- */
/* The keeper, started when it is first needed; NULL with an exception. */
worker *keeper(void);
/* Work was put where it may wait behind somebody who is stuck. */
void keeper_wake(void);
/* A timer was put into w's heap before all others. */
void keeper_armed(worker *w, int64_t when);

#endif
