/* Workers: the threads that run goroutines.  See sched.c for the invariants. */
#ifndef GOFER_SCHED_H
#define GOFER_SCHED_H

#include "base.h"
#include "g.h"

/* Supplies g_hooks.find, spawned, ring, attach, spawn_foreign, keeper, start_quietly and armed; the
   others are not its.  0, or -1 with an exception. */
int sched_init(void);

/* How many workers may take unstarted goroutines; sets it to n unless n is 0; what it was before. */
int sched_procs(int n);
/* The cores this process may use. */
int sched_cores(void);

/* --- threads for one goroutine --------------------------------------------------------------------- */
/* The calling goroutine locks its thread: what has not started starts on others, until it has unlocked it as
   often or ends.  -1 with an exception when there is no thread for the others. */
int sched_lock_thread(void);
/* Nothing when it has not locked it. */
void sched_unlock_thread(void);

/* --- run() ----------------------------------------------------------------------------------------- */
/* Begins a run inside the one in progress, whose serial goes to *outer; -1 with RuntimeError when the
   caller is not goroutine 1. */
int sched_begin_run(uint32_t *outer);
/* Unwinds every goroutine that was started in this run, and goes back to the outer one.  May wait. */
void sched_end_run(uint32_t outer);

/* --- the end --------------------------------------------------------------------------------------- */
/* The interpreter is about to exit: ends the other workers' threads where they will, and lets nobody
   wait any more. */
void sched_exit(void);
/* In the child of a fork: only the calling goroutine is left, and becomes goroutine 1. */
void sched_after_fork(void);

/* --- descriptors ----------------------------------------------------------------------------------- */
/* Who closes a descriptor says so before and after: whoever waits for it, on any worker, goes on.  In between
   somebody may have begun to wait. */
void sched_fd_closing(int fd);
void sched_fd_closed(int fd);

/* --- threads --------------------------------------------------------------------------------------- */
/* The calling thread, which runs no goroutines, does only what it is given: by itself it does
   not stand against a deadlock. */
void sched_thread_rests(void);
/* A call is under way on some thread, which may wake somebody: no deadlock until it is over.  Returns what
   sched_call_over is to be told. */
uint32_t sched_call_begin(void);
void sched_call_over(uint32_t epoch);
/* The calling worker is about to block again and again (an event loop): until it is given back it starts no
   goroutines.  NULL with an exception; *epoch: what sched_give_back is to be told. */
worker *sched_reserve(uint32_t *epoch);
void sched_give_back(worker *w, uint32_t epoch);
/* Something that stood against a deadlock is over and has woken nobody. */
void sched_look_for_deadlock(void);
/* So many more (or fewer) goroutines wait for what any thread may do that has never heard of us: no deadlock
   while there is one. */
void sched_outside(int n);

/* --- looking --------------------------------------------------------------------------------------- */
typedef struct sched_stats {
    int64_t goroutines;
    uint64_t switches, spawned, stolen, sleeps;
    int workers;
} sched_stats;
sched_stats sched_count(void);

/* Calls fn for every goroutine that has not ended, and for none else, while the world stands still: fn
   must neither run Python code nor wait.  `current`: its frames are those of the thread w->ts. */
typedef bool (*sched_each_fn)(G *g, worker *w, bool current, void *arg);
void sched_each(sched_each_fn fn, void *arg);

/* Calls fn for every worker that has its thread, while the world stands still. */
void sched_each_worker(void (*fn)(worker *, void *), void *arg);

/* Visits what parked and unstarted goroutines hold, for a tp_traverse. */
int sched_visit(visitproc visit, void *arg);

#endif
