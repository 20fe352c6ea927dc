/* Cancel scopes: what a goroutine is in, and may be cancelled with.  See scope.c for the invariants. */
#ifndef GOFER_SCOPE_H
#define GOFER_SCOPE_H

#include "base.h"
#include "g.h"
#include "timer.h"
#include "sema.h"

enum scope_state { SCOPE_NEW, SCOPE_ENTERED, SCOPE_LEFT };

/* The Python objects cancel_scope, timeout and shield are this. */
struct scope {
    PyObject_HEAD
    lock_t lock;                 /* guards the rings, linked, `closed`, and the moment of its cancellation */
    scope *parent;               /* owned; what the owner was in when it entered; NULL for nothing */
    node members;                /* goroutines whose innermost scope it is: G.in_scope */
    node children, sibling;      /* scopes entered in it; each owned while linked */
    _Atomic(G *) owner;          /* who is in its with block; NULL before and after */
    word_t state;
    word_t asked;                /* cancelled itself */
    word_t cancelled;            /* itself, or through its parent: holds for every member */
    word_t expired;              /* by its own deadline */
    bool is_shield;              /* its parent's cancellation does not reach it */
    bool shields_task;           /* neither does Task.cancel of its owner reach the owner in it */
    bool linked;
    bool closed;                 /* takes no more tasks */
    struct bubble *bubble;       /* it is in, or NULL */
    timer deadline;
    int64_t ns;                  /* timeout: how long; NEVER for no limit */
    waitgroup tasks;             /* started with scope_start_in that have not ended */
};

/* Supplies g_hooks.inherit, left, is_cancelled, after_fork and succeed. */
void scope_init(void);
/* Before anything else, in zeroed memory. */
void scope_prepare(scope *s);
/* tp_dealloc. */
void scope_dealloc(scope *s);

/* The calling goroutine is in it from now on; -1 with an exception. */
int scope_enter(scope *s);
/* Back to where it was; error: what ends the block, or NULL.  1: it is this scope's own Cancelled, which ends
   here; 0: it goes on; -1 with RuntimeError when the caller is not in this scope, or in one inside it (both
   are left then). */
int scope_leave(scope *s, PyObject *error);
/* From any thread. */
void scope_cancel(scope *s);
/* Whether an exception is Cancelled (or, with `exit`, GoroutineExit), or a group of nothing else as
   several except* make one. */
bool scope_is_cancellation(PyObject *error, bool exit);

/* A new goroutine, not queued yet, becomes a member, and one of the bubble that s is in. */
void scope_inherit(scope *s, G *g);
/* The same for a task of the scope's own: g, not queued yet, becomes a member; false when it is closed. */
bool scope_adopt(scope *s, G *g);
/* --- bubbles: scope_bubble.c ----------------------------------------------------------------------- */
/* The scope of a bubble, and the bubble: the Python object _core.bubble. */
typedef struct bubble {
    scope scope;                 /* first */
    uint32_t id;
    _Atomic(int) busy;           /* goroutines of it that are not durably blocked */
    _Atomic(int) members;
    word_t advancing;            /* somebody moves the clock, or wakes who waits for the others */
    timers *clock;
    G *root;                     /* who entered it, and has not left */
    lock_t lock;                 /* guards root, panic and the queues */
    waitq waiters;               /* bubble_wait: for the others to block */
    waitq joiner;                /* bubble_join: for the others to end */
    PyObject *panic;             /* called in place of a panic of its goroutines, or NULL */
    _Atomic(bool) ending;        /* the root waits for the others to end */
} bubble;

/* 0, or -1 with an exception: RuntimeError inside another one. */
int bubble_enter(bubble *b, PyObject *panic_hook);
/* What is to be called for a panic in it; NULL when it is over. */
PyObject *bubble_panic_hook(bubble *b);
/* By its root: waits until the other goroutines have ended; 0, or -1 with an exception. */
int bubble_join(bubble *b);
/* After that; as scope_leave. */
int bubble_leave(bubble *b, PyObject *error);
/* Its root is in it no more. */
void bubble_abandon(bubble *b, G *g);
/* Its root goes on as another one. */
void bubble_succeed(bubble *b, G *heir, G *g);
/* In the child of a fork, for each of its goroutines, the survivor first. */
void bubble_after_fork(bubble *b, G *g, bool survives);
/* Waits until the others are durably blocked; 0, or -1 with an exception. */
int bubble_wait(void);
void bubble_dealloc(bubble *b);
/* A goroutine that has not started is in it; one that was, has ended. */
void bubble_joined(bubble *b, G *g);
void bubble_left(bubble *b, G *g);
void bubble_init(void);

/* --- groups ---------------------------------------------------------------------------------------- */
/* Waits until all of its tasks have ended, and closes it; 0, or -1 with an exception. */
int scope_wait(scope *s);

#endif
