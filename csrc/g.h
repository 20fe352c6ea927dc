/* The goroutine: what it is, how it starts, parks, is made ready and ends.

   States, and who may change them:

       NEW ----start----> RUNNING <---pick--- RUNNABLE        its worker
                             |  \                 ^
                          (park) (yield)----------+           its worker
                             v                    |
                          WAITING ---ready--------+           whoever claimed the wait word
                          RUNNING ---end---> DEAD             its worker

   The wait word decides races.  A goroutine that is about to wait
     1. sets it to W_WAITING (g_wait_begin), 2. publishes a waiter under the object's lock,
     3. releases the lock and parks.
   Whoever wants to wake it (a sender, an unlock, a timer, a cancellation) first claims it: moves the
   word from W_WAITING to the reason.  Exactly one succeeds, and only that one may hand over a value and
   call g_ready, once.  A goroutine woken by anything but its object (W_READY) finds its waiter still
   published, or popped by somebody whose claim failed; it takes the object's lock and unlinks it.

   What must stay true:
   - A goroutine that has started never changes its worker.  Making it ready from another thread puts it
     into its worker's inbox, so nobody can resume one whose slice is not saved yet.
   - Each goroutine is in exactly one place: a fresh queue, a ready queue, an inbox, one or more wait
     queues, or a CPU.  Its runtime owns one reference to it until it is dead.
   - worker->cur and the PyThreadState change together, with nothing between that could detach.
   - A waiter lies on the heap, never in a slice.
   - A thread that is no worker waits through a G of its own (g->worker is NULL, g->thread is set). */
#ifndef GOFER_G_H
#define GOFER_G_H

#include "base.h"
#include "stack.h"
#include "pystate.h"

typedef struct G G;
typedef struct worker worker;
typedef struct scope scope;

enum g_state { G_NEW, G_RUNNABLE, G_RUNNING, G_WAITING, G_DEAD };

enum wake {                      /* the wait word */
    W_NONE, W_WAITING,
    W_READY,                     /* by the object waited for */
    W_CANCEL, W_KILL,            /* Cancelled, GoroutineExit */
    W_INTERRUPT,                 /* an exception for goroutine 1 lies in rt.interrupt */
    W_SIGNAL,                    /* goroutine 1: run the signal handlers, then wait on */
    W_DEADLOCK,                  /* goroutine 1 */
    W_ASLEEP, W_OVER,            /* who entered a bubble: deadlock in it; its clock stopped at its end */
    W_NOMEM,                     /* no memory for the slice: it could not park */
    W_ABANDONED,                 /* will never run again */
};

enum {                           /* what lies pending for a goroutine's next wait */
    P_CANCEL = 1,                /* perhaps cancelled: ask g_hooks.is_cancelled */
    P_KILL = 2, P_INTERRUPT = 4,
    P_EXIT = 8,                  /* the interpreter is exiting: nothing may wait any more */
    P_BEFORE = 16,               /* a thread: call at_end_arg before it waits, once */
};

enum g_kind { KIND_GO, KIND_TASK, KIND_HOST, KIND_THREAD };

enum wait_reason {
    WHY_NONE, WHY_SEND, WHY_RECV, WHY_SELECT, WHY_SELECT_EMPTY, WHY_SLEEP, WHY_JOIN, WHY_MUTEX,
    WHY_SEMAPHORE, WHY_WAITGROUP, WHY_FOREVER, WHY_UNWIND, WHY_IDLE, WHY_BUBBLE, WHY_IO,
    WHY_LOCK, WHY_QUEUE,
    WHY_COUNT
};
extern const char *const wait_reason_names[WHY_COUNT];

/* One entry of a wait queue. */
typedef struct waiter {
    node link;                   /* first; valid while queued */
    G *g;
    PyObject *value;             /* a sender's: owned until taken; a receiver's: put here by the sender */
    Py_ssize_t n;                /* select: the case; semaphore: how many */
    bool queued, ok;
} waiter;

typedef struct waitq { node ring; } waitq;      /* first come, first served */

static inline void waitq_init(waitq *q) { ring_init(&q->ring); }
static inline bool waitq_empty(const waitq *q) { return ring_alone(&q->ring); }
static inline void waitq_push(waitq *q, waiter *w) {
    w->queued = true;
    ring_insert_before(&q->ring, &w->link);
}
static inline void waitq_push_front(waitq *q, waiter *w) {
    w->queued = true;
    ring_insert_before(q->ring.next, &w->link);
}
static inline void waitq_remove(waiter *w) {
    if (w->queued) { ring_remove(&w->link); w->queued = false; }
}
static inline waiter *waitq_first(const waitq *q) {
    return waitq_empty(q) ? NULL : (waiter *)q->ring.next;
}

enum { ARGS_INLINE = 3 };

/* The Python object Goroutine (and Task, and the hidden host of a worker) is the goroutine itself. */
struct G {
    PyObject_HEAD
    /* hot: queueing and switching */
    G *next;                     /* in a run queue or inbox */
    worker *worker;              /* NULL until it starts, and for a thread */
    slice slice;
    pystate ps;
    _PyStackChunk *root;
    word_t wait, pending, state, why;
    uint8_t kind;
    word_t seen;
    bool abandoned;
    bool rests;                  /* a thread: it wakes nobody of its own accord */
    bool of_scope;               /* one of its scope's tasks */
    bool named;                  /* as one that swallows Cancelled */
    bool durable;                /* what it is about to wait for can only come from its own bubble */
    word_t cancelled;            /* Task.cancel */
    word_t shielded;             /* from that, by a shield of its own; only the goroutine changes it */
    bool deaf;                   /* it waits, and is not to hear of a cancellation yet */
    uint16_t kills;
    uint8_t holds_end;           /* how often g_hold_end: it has taken what nobody else could give back */
    uint8_t refused;             /* Cancelled that it got and was not ended by; begins again at 1 */
    uint16_t locks;              /* of its thread, that it has not unlocked yet */
    uint32_t stamp;              /* order among the queues of a worker */
    waiter w;                    /* for everything but select */
    waiter *woken;               /* select: which of its waiters was served */
    int64_t since;               /* when it began to wait, by the coarse clock */
    PyObject *on;                /* what it waits for: borrowed, its own frames hold it */
    node all;                    /* its worker's list of started goroutines */
    _Atomic(uint32_t) bubble;    /* it is in, 0 for none: scope_bubble.c; others look too, to join it */
    scope *scope;                /* the innermost cancel scope it is in, NULL for none: scope.c */
    node in_scope;
    /* what it runs */
    uint32_t nargs, run;         /* run: the call of run() it belongs to */
    PyObject *kwnames;
    fnref fn;
    PyObject **args;             /* args[-1] is free for the callee; points at inline_args or the heap */
    PyObject *inline_args[1 + ARGS_INLINE];
    void (*at_end)(G *, PyObject *);
    PyObject *at_end_arg;        /* owned; a thread's: what to call before it waits */
    /* who it is */
    uint64_t id, parent;
    const struct site *site;     /* where it was started; never freed */
    PyObject *name, *weakrefs;
    lock_t lock;                 /* guards name, the end of fn, and state == DEAD against joiners */
    waitq joiners;
    /* Task and thread only */
    PyObject *result, *exception;
    PyThread_type_lock thread;   /* where a foreign thread sleeps */
};

/* Where a go statement stands: one record each, kept for ever. */
typedef struct site { PyCodeObject *code; int lasti; bool ours; struct site *next; } site;

typedef struct gqueue { G *head, *tail; uint32_t n; } gqueue;

static inline void gqueue_push(gqueue *q, G *g) {
    g->next = NULL;
    if (q->tail) q->tail->next = g; else q->head = g;
    q->tail = g;
    relaxed_store((_Atomic(uint32_t) *)&q->n, q->n + 1);
}
static inline void gqueue_push_front(gqueue *q, G *g) {
    g->next = q->head;
    q->head = g;
    if (!q->tail) q->tail = g;
    relaxed_store((_Atomic(uint32_t) *)&q->n, q->n + 1);
}
static inline G *gqueue_pop(gqueue *q) {
    G *g = q->head;
    if (g) {
        if (!(q->head = g->next)) q->tail = NULL;
        relaxed_store((_Atomic(uint32_t) *)&q->n, q->n - 1);
    }
    return g;
}
static inline uint32_t gqueue_len(const gqueue *q) {       /* a hint, without the lock */
    return relaxed_load((_Atomic(uint32_t) *)&q->n);
}

struct timers;
struct poller;
struct fd_table;
struct bubble;

/* Every so many picks a worker looks at its timers and at the others first. */
enum { LOOK_AROUND = 61 };

typedef G *(*choose_fn)(worker *);

/* A thread that runs goroutines.  Other threads touch `fresh` (under its lock), `inbox`, `sleeping`,
   `stop` and the timers (under their lock), and read what is atomic; `ts` and `ident` while it is live.
   The rest is its own. */
struct worker {
    G *cur;
    PyThreadState *ts;
    G *from;                     /* during a switch: whose slice to save */
    char *base, *aux;
    /* run queues: `next`, then by stamp */
    G *next;
    gqueue ready;                /* started goroutines */
    uint32_t stamp, streak;
    _Atomic(uint32_t) tick;
    gqueue fresh;                /* not started: may be stolen */
    gqueue hand;                 /* stolen, on their way into fresh */
    lock_t fresh_lock;
    _Atomic(G *) inbox;          /* made ready by other threads, newest first */
    _Atomic(uint8_t) sleeping;   /* in its poller, or about to be: ring the bell */
    _Atomic(uint8_t) stop;       /* request: end this thread */
    _Atomic(uint8_t) live;       /* it has its thread */
    _Atomic(uint32_t) locked;    /* goroutines that have locked its thread: with any, it starts none */
    int64_t now;                 /* clock, as of the last look at the timers */
    int64_t called;              /* when a goroutine here last began a call on a thread; 0: we had our wait */
    uint32_t late;               /* how many in a row had not come back when we stopped waiting awake */
    struct timers *timers;
    struct poller *poller;
    struct fd_table *fds;        /* who waits for which descriptor */
    PyObject *spare;             /* bytes to read into, see patch_recv.c; or NULL */
    pool pool;
    G *graveyard;                /* ended, reference not dropped yet */
    G *free;                     /* dead Goroutine objects */
    uint32_t n_free;
    node all;
    G *idler;                    /* frees what has ended or was given back; NULL: nobody does */
    G *host;                     /* what the thread did before: goroutine 1, or the thread's own bottom */
    uint64_t next_id, last_id;   /* ids come in blocks */
    site *sites;
    const site *last_site, *last_ours;
    uint64_t rng;
    _Atomic(choose_fn) choose;   /* explore.c: takes the next one out of the queues, or NULL */
    uint64_t control;            /* how goroutines round at their start, see switch.h */
    int c_depth;
    int index;
    unsigned long ident;         /* of its thread, as Python numbers them */
    bool is_main_thread;
    bool async_exit;             /* we have set an asynchronous GoroutineExit that is not delivered yet */
    /* counters, which others read: relaxed_add */
    _Atomic(int64_t) alive;      /* started minus ended here; only the sum over workers means something */
    _Atomic(uint64_t) switches, spawned, stolen, sleeps;
    uint32_t watched;            /* the keeper's: tick at its last look */
    _Atomic(uint32_t) stuck_at;  /* tick at which the keeper found it stuck */
};

/* What the rooms above supply to this one, sched.c where nothing else is said. */
extern struct g_hooks {
    G *(*find)(worker *);                  /* look around; nothing to run here: sleep; never NULL */
    void (*spawned)(worker *);             /* something was put where others may take it */
    void (*ring)(worker *);                /* wake a sleeping worker */
    int (*attach)(void);                   /* this thread uses the runtime for the first time */
    int (*attached)(void);                 /* the main thread has done so */
    int (*spawn_foreign)(G *);             /* from a thread that is no worker, or is about to block */
    void (*failed)(G *);                   /* an exception escaped; it is set */
    void (*main_ended)(PyObject *);        /* in the child of a fork goroutine 1 may be any; not to return */
    worker *(*keeper)(void);               /* whose timers foreign threads use; NULL with an exception */
    void (*start_quietly)(G *);            /* g_spawn for a timer's callback: allocates nothing */
    void (*armed)(worker *, int64_t when); /* a timer was put into its heap before all others */
    void (*unlock)(G *);                   /* one that has locked its thread will not run any more */
    /* scope.c: */
    void (*inherit)(G *, G *from);         /* a new goroutine joins the scope of `from`, which is in one */
    void (*left)(G *);                     /* one that is in a scope has ended */
    bool (*is_cancelled)(G *);             /* the calling goroutine; puts P_CANCEL right */
    void (*after_fork)(G *);               /* in the child, before `left`, for one that is lost */
    void (*succeed)(G *heir, G *);         /* the caller is another one from now on, and in the same scopes */
    /* scope_bubble.c, for one that is in a bubble: */
    void (*blocked)(G *);                  /* the calling goroutine is about to wait */
    void (*woken)(G *);                    /* one that has waited, or is about to, can run */
    void (*resumed)(G *);                  /* the calling goroutine has waited */
    struct timers *(*bubble_timers)(G *);
    void (*join_bubble)(G *, struct bubble *);   /* a new goroutine, from a timer */
    /* explore.c, while it explores: */
    void (*yields)(G *);                   /* of its own accord */
    uint32_t (*chooses)(uint32_t n);       /* which of n that are ready a select carries out */
    /* module.c: */
    int (*swallows)(G *);                  /* it is cancelled and goes on; -1: with another exception */
} g_hooks;

/* What both rooms know of the program. */
extern struct runtime {
    _Atomic(G *) main;           /* goroutine 1; NULL before the first use */
    PyObject *interrupt;         /* exception for goroutine 1 */
    lock_t lock;                 /* guards interrupt */
    _Atomic(uint32_t) run;       /* serial of the call of run() in progress, 0 without */
    uint32_t runs;               /* the last given */
    _Atomic(uint64_t) ids;       /* last id given out */
    PyObject *deadlock_notes;    /* called with whether threads might have helped; or NULL */
    PyObject *home;              /* gofer's folder, or NULL: who called it started what it starts */
    struct { PyObject *closed, *deadlock, *cancelled, *canceled, *exit; } errors;
} rt;

extern PyTypeObject Goroutine_Type, Task_Type;

/* --- who am I -------------------------------------------------------------------------------------- */
extern __thread worker *g_worker __attribute__((tls_model("initial-exec"), visibility("hidden")));
extern __thread G *g_thread __attribute__((tls_model("initial-exec"), visibility("hidden")));
/* This thread is inside a collection: in a finalizer or a gc callback. */
extern __thread bool g_collecting __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* The running goroutine, or this thread's G; NULL before the thread's first use. */
static inline G *g_self_quick(void) {
    worker *w = g_worker;
    return LIKELY(w != NULL) ? w->cur : g_thread;
}
/* The same, made when needed (the main thread becomes a worker); NULL with an exception.  Every operation
   begins with it, also when it need not wait: a thread that has used the library counts as one that may
   wake somebody. */
G *g_self_first(void);
static inline G *g_self(void) {
    G *g = g_self_quick();
    return LIKELY(g != NULL) ? g : g_self_first();
}

/* What can be waited for in every bubble as if it had been made there. */
#define EVERY_BUBBLE UINT32_MAX

/* In which bubble what the caller makes is. */
static inline uint32_t g_bubble_here(void) {
    G *g = g_self_quick();
    return g ? relaxed_load(&g->bubble) : 0;
}
/* Whether only g's own bubble can end a wait for something of that one. */
static inline bool g_is_of(const G *g, uint32_t bubble) {
    return bubble == relaxed_load(&g->bubble) || bubble == EVERY_BUBBLE;
}

/* --- starting -------------------------------------------------------------------------------------- */
/* A new goroutine for fn(*args), not queued; NULL with an exception.  args as in a vectorcall. */
G *g_new(enum g_kind kind, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
/* Queues it.  The caller's reference is left alone. */
int g_spawn(G *g);
/* The same, for any worker to take that is not busy. */
int g_spawn_apart(G *g);
/* Gives up one that was never queued. */
void g_discard(G *g);

/* --- waiting --------------------------------------------------------------------------------------- */
/* Something may forbid g to wait: ask g_wait_check, without a lock held. */
static inline bool g_wait_doubtful(G *g) {
    return UNLIKELY(relaxed_load(&g->pending) || (g->worker && g_collecting));
}
/* 0, or -1 with an exception when the goroutine may not wait (cancelled, killed, interrupted, inside
   the collector). */
int g_wait_check(G *g);
/* From here on it can be claimed.  Under the lock of the object, after the check. */
static inline void g_wait_publish(G *g) { word_publish(&g->wait, W_WAITING); }
/* Both, where no lock is held. */
static inline int g_wait_begin(G *g) {
    if (g_wait_doubtful(g) && g_wait_check(g) < 0) return -1;
    g_wait_publish(g);
    return 0;
}
/* Undoes g_wait_begin when the object turned out to be ready before anything was published. */
static inline void g_wait_cancel(G *g) { relaxed_store(&g->wait, W_NONE); }
/* Parks until claimed.  Never fails: returns what the claimer wrote, or W_NOMEM. */
enum wake g_park(G *g, enum wait_reason why, PyObject *on);
/* After every g_park, once the waiter is unlinked and what it brought is in safe hands: does what had to
   wait for that (may run Python code, and so park again). */
void g_settle_slow(G *g);
static inline void g_settle(G *g) {
    if (g->worker && UNLIKELY(HOSTILE || g->worker->graveyard || relaxed_load(&g->pending)))
        g_settle_slow(g);
}
/* For a wake other than W_READY, after the waiter has been unlinked (settles as well): 0 to wait again
   (signals were handled), -1 with the exception to raise. */
int g_wake_error(G *g, enum wake why);

/* Until g_release_end no GoroutineExit reaches the calling goroutine, wherever it is; 0, or -1 with one that
   was on its way. */
int g_hold_end(G *g);
void g_release_end(G *g);

/* Claims a waiting goroutine. */
static inline bool g_claim(G *g, enum wake why) { return word_move(&g->wait, W_WAITING, why); }
/* Makes a goroutine that the caller has claimed runnable, on its own worker or thread. */
void g_ready(G *g);

/* Takes the first waiter whose goroutine can be claimed; NULL when there is none. */
static inline waiter *waitq_claim(waitq *q) {
    for (waiter *w; (w = waitq_first(q)); ) {
        waitq_remove(w);
        if (g_claim(w->g, W_READY)) return w;
    }
    return NULL;
}

/* Lets others run; 0, or -1 with an exception (cancelled, killed). */
int g_yield(G *g);
/* The same for a worker's goroutine, whatever is pending. */
void g_step_aside(G *g);
/* Where an operation that may wait did not have to: the hostile build switches all the same, and so does
   who explores schedules. */
extern _Atomic(bool) g_exploring __attribute__((visibility("hidden")));
void g_switch_anyway(void);
static inline void g_could_switch(void) {
    if (UNLIKELY(HOSTILE || relaxed_load(&g_exploring))) g_switch_anyway();
}

/* The calling thread, no worker: fn is called before it next waits, and not again.  NULL: never mind. */
void g_before_wait(G *g, PyObject *fn);

/* --- ending others --------------------------------------------------------------------------------- */
/* Marks it killed or interrupted and wakes it if it waits.  From any thread. */
void g_disturb(G *g, uint8_t pending, enum wake why);
/* Every operation of its own that would wait raises Cancelled from now on.  From any thread. */
void g_cancel(G *g);
/* g, which runs on w and has been killed, ends at its next bytecode boundary. */
void g_exit_soon(worker *w, G *g);
/* Raises exc (stolen) in goroutine 1 at its next chance. */
void g_interrupt_main(PyObject *exc);

/* --- for the scheduler ----------------------------------------------------------------------------- */
/* Takes over the calling thread: w->host becomes its running goroutine.  -1 with MemoryError. */
int g_adopt_thread(worker *w);
/* The next goroutine of this worker's own queues and inbox; NULL when there is none. */
G *g_pick(worker *w);
/* Whether it takes fresh goroutines out of queues; when not, those in its own are for others. */
static inline bool g_may_start(worker *w) {
    return LIKELY(!relaxed_load(&w->locked)) || relaxed_load(&w->choose);
}
/* Puts a fresh goroutine into the worker's queue. */
void g_queue_fresh(worker *w, G *g);
/* Moves everything from the inbox to the ready queue. */
void g_drain(worker *w);
/* Takes g out of the queues of w; true when it was there. */
bool g_unqueue(worker *w, G *g);
void g_wake_joiners(G *g);
/* What w->idler does for ever: waits until there is something to reap or to free.  Returns when killed. */
void g_idle(G *g);
/* Not what has become of its work: a destructor may wait. */
bool g_idler_rests(worker *w);
/* The idler, to be run next; NULL when it does not rest. */
G *g_take_idler(worker *w);
void g_clear(G *g);
/* Remembers the function's name, when somebody may ask for it after the function is gone. */
void g_keep_name(G *g);
void g_free(G *g);
/* The G of a thread that is no worker; NULL with MemoryError. */
G *g_thread_new(void);
const site *g_site_here(worker *w);

/* As others are to see it: one whose wait has been claimed will run, though it may still be on its way. */
static inline enum g_state g_seen_state(const G *g) {
    enum g_state state = relaxed_load(&((G *)g)->state);
    enum wake wait = relaxed_load(&((G *)g)->wait);
    return state == G_WAITING && wait > W_WAITING && wait != W_ABANDONED ? G_RUNNABLE : state;
}
/* What it left behind may be read then. */
static inline bool g_is_dead(const G *g) {
    return atomic_load_explicit(&((G *)g)->state, memory_order_acquire) == G_DEAD;
}
static inline bool g_is_foreign(const G *g) { return g->kind == KIND_THREAD; }

#endif
