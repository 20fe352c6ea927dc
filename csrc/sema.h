/* What locks are made of: semaphore, mutex, wait group.  See sema.c for their invariants. */
#ifndef GOFER_SEMA_H
#define GOFER_SEMA_H

#include "base.h"
#include "g.h"

typedef struct semaphore {
    lock_t lock;
    uint32_t bubble;             /* in which it was made; so of the others */
    Py_ssize_t size, free;
    waitq waiters;               /* waiter.n: how many it wants */
} semaphore;

void sema_init(semaphore *s, Py_ssize_t n);
Py_ssize_t sema_free(semaphore *s);                             /* at this moment */
bool sema_try(semaphore *s, Py_ssize_t n);
int sema_acquire(semaphore *s, Py_ssize_t n, PyObject *self);   /* 0, or -1 with an exception */
bool sema_release(semaphore *s, Py_ssize_t n);                  /* false: more than were taken */

typedef struct mutex {
    word_t state;                /* MUTEX_LOCKED | MUTEX_WAITERS */
    bool starving;
    uint32_t bubble;
    lock_t lock;                 /* guards waiters, and state while there are any */
    waitq waiters;               /* waiter.n: since when (ns) */
} mutex;

void mutex_init(mutex *m);
bool mutex_try_lock(mutex *m);
int mutex_lock(mutex *m, PyObject *self);                       /* 0, or -1 with an exception */
bool mutex_unlock(mutex *m);                                    /* false: it was not locked */
bool mutex_locked(const mutex *m);

typedef struct waitgroup {
    _Atomic(int64_t) n;
    uint32_t bubble;
    lock_t lock;                 /* guards waiters */
    waitq waiters;
} waitgroup;

void waitgroup_init(waitgroup *g);
bool waitgroup_add(waitgroup *g, int64_t n);                    /* false: would become negative */
int waitgroup_wait(waitgroup *g, PyObject *self);               /* 0, or -1 with an exception */

/* Waits until g is dead; 0, or -1 with an exception. */
int sema_join(G *g);

#endif
