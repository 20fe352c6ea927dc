/* time.sleep, who a thread is, and the locks of the module _thread.

   threading.RLock belongs to a thread by its number.  A goroutine has a number of its own, an odd one, which
   no thread has; only what a thread did before it ran goroutines (goroutine 1) keeps the thread's.

   What must stay true:
   - CPython's own functions compare an RLock's owner with the number of the thread.  They are called for
     one that is free, or made to look as if the thread owned it, and nothing can be switched to before that
     is put right.
   - A lock that is handed over is never free meanwhile. */
#include "patch.h"
#include "sched.h"
#include "timer.h"
#include <pthread.h>

/* --- time.sleep ------------------------------------------------------------------------------------ */
static const double LONGEST = 9.2e9;     /* seconds: more than that is an error, or as good as for ever */

PyObject *patch_sleep(const call *c) {
    G *g = patch_goroutine();
    double s;
    if (!g || !patch_seconds(c->args[0], &s) || !(s >= 0 && s < LONGEST)) return patch_as_before(c);
    if ((s == 0 ? g_yield(g) : timer_sleep(g, (int64_t)(s * 1e9 + 0.999))) < 0) return NULL;
    Py_RETURN_NONE;
}

/* --- who one is ------------------------------------------------------------------------------------ */
static unsigned long own_number(G *g) { return (unsigned long)(uintptr_t)g | 1; }

unsigned long patch_ident(G *g) { return g == g->worker->host ? g->worker->ident : own_number(g); }

static unsigned long ident_here(void) {
    worker *w = g_worker;
    return w && w->cur ? patch_ident(w->cur) : PyThread_get_thread_ident();
}

/* In the child of a fork the calling goroutine is what its thread does, before
   any Python code is told of it. */
static void forked(void) {
    worker *w = g_worker;
    if (w && w->cur) { w->host = w->cur; relaxed_store(&patch_forked, true); }
#ifdef __linux__
    patch_signals_forked();
#endif
}

int patch_watch_forks(void) {
    static bool done;
    if (!done && pthread_atfork(NULL, NULL, forked)) { PyErr_NoMemory(); return -1; }
    done = true;
    return 0;
}

PyObject *patch_get_ident(const call *c) {
    worker *w = g_worker;
    return w && w->cur ? PyLong_FromUnsignedLong(patch_ident(w->cur)) : patch_as_before(c);
}

typedef struct { unsigned long ident, thread; } search;

static bool is_it(G *g, worker *w, bool current, void *arg) {
    search *s = arg;
    if (!w || !g->worker || patch_ident(g) != s->ident) return true;
    s->thread = w->ident;
    return false;
}

/* The C library would take the number of a goroutine for an address. */
PyObject *patch_of_thread(const call *c) {
    unsigned long ident = c->n && PyLong_Check(c->args[0]) ? PyLong_AsUnsignedLong(c->args[0]) : 0;
    if (c->n > 2 || !(ident & 1) || PyErr_Occurred()) { PyErr_Clear(); return patch_as_before(c); }
    search s = { ident, 0 };
    sched_each(is_it, &s);
    if (!s.thread) {
        PyErr_SetString(PyExc_ProcessLookupError, "there is no goroutine of that number any more");
        return NULL;
    }
    PyObject *thread = PyLong_FromUnsignedLong(s.thread);
    PyObject *args[] = { thread, c->n > 1 ? c->args[1] : NULL };
    PyObject *result = thread ? PyObject_Vectorcall(c->leaf->original, args, (size_t)c->n, NULL) : NULL;
    Py_XDECREF(thread);
    return result;
}

/* --- what acquire(blocking=True, timeout=-1) asks for ---------------------------------------------- */
enum asks { WRONG, NOW, WAIT };                  /* WRONG: what was there before knows how to say so */

static enum asks what_is_asked(const call *c, int64_t *ns) {
    PyObject *blocking = patch_arg(c, 0, "blocking"), *timeout = patch_arg(c, 1, "timeout");
    double s = -1;
    *ns = NEVER;
    if ((blocking != NULL) + (timeout != NULL) != patch_nargs(c)) return WRONG;
    if (timeout && !patch_seconds(timeout, &s)) return WRONG;
    int waits = blocking ? PyObject_IsTrue(blocking) : 1;
    if (waits < 0) { PyErr_Clear(); return WRONG; }
    if (s == -1) return waits ? WAIT : NOW;
    if (!waits || !(s >= 0 && s < LONGEST)) return WRONG;
    *ns = (int64_t)(s * 1e9 + 0.999);
    return s == 0 ? NOW : WAIT;
}

static PyObject *took(int taken) { return taken < 0 ? NULL : PyBool_FromLong(taken); }

/* --- threading.Lock -------------------------------------------------------------------------------- */
static leaf *plain_acquire, *plain_release, *plain_locked;

static void know_locks(void) {
    if (!plain_locked) plain_acquire = patch_leaf("_thread.LockType.acquire");
    if (!plain_locked) plain_release = patch_leaf("_thread.LockType.release");
    if (!plain_locked) plain_locked = patch_leaf("_thread.LockType.locked");
}

static bool lock_held(PyObject *on) { return patch_says(plain_locked, on); }
static bool lock_free(PyObject *on) { return !lock_held(on); }
static int lock_take(want *w) { return patch_ask(plain_acquire, w->on, NULL, Py_False); }

PyObject *patch_lock_acquire(const call *c) {
    G *g = patch_caller();
    int64_t ns;
    if (!g || what_is_asked(c, &ns) != WAIT) return patch_as_before(c);
    know_locks();
    want w = { c->self, c, WHY_LOCK, lock_take, lock_free, .patient = true };
    return took(patch_wait(g, &w, ns));
}

PyObject *patch_await_lock(PyObject *lock, int64_t ns) {
    G *g = patch_caller();
    if (!g) return PyErr_Format(PyExc_RuntimeError, "this is for goroutines");
    know_locks();
    want w = { lock, NULL, WHY_LOCK, lock_take, lock_free };
    return took(patch_wait(g, &w, ns));
}

PyObject *patch_lock_release(const call *c) {
    know_locks();
    if (patch_hand_over(c->self, lock_held, NULL)) Py_RETURN_NONE;
    PyObject *result = patch_as_before(c);
    if (result) patch_freed(c->self);
    return result;
}

/* One, while they are cooperative. */
static inline bool is_lock(PyObject *o) {
    know_locks();
    return plain_release->exchanged && Py_IS_TYPE(o, PyDescr_TYPE(plain_locked->original));
}

bool patch_lock_is_held(PyObject *o) { return is_lock(o) && lock_held(o); }
bool patch_lock_is_free(PyObject *o) { return is_lock(o) && lock_free(o); }

PyObject *patch_lock_let_go(PyObject *lock) {
    call c = { .leaf = plain_release, .self = lock };
    return patch_lock_release(&c);
}

/* --- threading.RLock ------------------------------------------------------------------------------- */
static leaf *rlock_acquire, *rlock_release;

static void know_rlocks(void) {
    if (!rlock_release) rlock_acquire = patch_leaf("_thread.RLock.acquire");
    if (!rlock_release) rlock_release = patch_leaf("_thread.RLock.release");
}

static bool rlock_held(PyObject *on) { return ps_rlock_owner(on) != 0; }
static bool rlock_is_free(PyObject *on) { return !rlock_held(on); }
static void rlock_give(PyObject *on, G *g) { ps_rlock_set(on, patch_ident(g), 1); }

/* The owner of an RLock.  One that a goroutine had when it forked is still its own. */
static unsigned long owner_of(PyObject *on, unsigned long me) {
    unsigned long owner = ps_rlock_owner(on);
    worker *w = g_worker;
    if (LIKELY(!(owner & 1) || owner == me) || !w || !w->cur || owner != own_number(w->cur)) return owner;
    ps_rlock_set(on, me, ps_rlock_count(on));
    return me;
}

static int rlock_take(want *w) {
    unsigned long me = ident_here(), owner = owner_of(w->on, me), thread = PyThread_get_thread_ident();
    if (owner == me && ps_rlock_count(w->on) == ULONG_MAX) {
        PyErr_SetString(PyExc_OverflowError, "Internal lock count overflowed");
        return -1;
    }
    if (owner == me) { ps_rlock_set(w->on, me, ps_rlock_count(w->on) + 1); return 1; }
    if (owner == thread) return 0;               /* that is goroutine 1 */
    int taken = patch_ask(rlock_acquire, w->on, NULL, Py_False);
    if (taken > 0) ps_rlock_set(w->on, me, 1);
    return taken;
}

static want for_rlock(PyObject *on) {
    return (want){ on, NULL, WHY_LOCK, rlock_take, rlock_is_free, .patient = true };
}

PyObject *patch_rlock_acquire(const call *c) {
    int64_t ns;
    enum asks asked = g_worker ? what_is_asked(c, &ns) : WRONG;
    if (asked == WRONG) return patch_as_before(c);
    know_rlocks();
    want w = for_rlock(c->self);
    G *g = patch_caller();
    if (asked == WAIT && g) return took(patch_wait(g, &w, ns));
    int taken = rlock_take(&w);
    if (taken || asked == NOW || ps_rlock_owner(c->self) == PyThread_get_thread_ident()) return took(taken);
    PyObject *result = patch_as_before(c);
    if (result == Py_True) ps_rlock_set(c->self, ident_here(), 1);
    return result;
}

/* Frees one that is held, by whomever; 0, or -1 with an exception. */
static int rlock_free_now(PyObject *on) {
    if (patch_hand_over(on, rlock_held, rlock_give)) return 0;
    unsigned long owner = ps_rlock_owner(on), count = ps_rlock_count(on);
    ps_rlock_set(on, PyThread_get_thread_ident(), 1);
    PyObject *none = patch_call(rlock_release, on, NULL, NULL);
    if (!none) { ps_rlock_set(on, owner, count); return -1; }
    Py_DECREF(none);
    patch_freed(on);
    return 0;
}

PyObject *patch_rlock_release(const call *c) {
    unsigned long me = ident_here();
    know_rlocks();
    if (owner_of(c->self, me) != me) {
        PyErr_SetString(PyExc_RuntimeError, "cannot release un-acquired lock");
        return NULL;
    }
    unsigned long count = ps_rlock_count(c->self);
    if (count > 1) ps_rlock_set(c->self, me, count - 1);
    else if (rlock_free_now(c->self) < 0) return NULL;
    Py_RETURN_NONE;
}

PyObject *patch_rlock_is_owned(const call *c) {
    unsigned long me = ident_here();
    return PyBool_FromLong(owner_of(c->self, me) == me);
}

PyObject *patch_rlock_recursion_count(const call *c) {
    unsigned long me = ident_here();
    return PyLong_FromUnsignedLong(owner_of(c->self, me) == me ? ps_rlock_count(c->self) : 0);
}

/* For threading.Condition: frees it entirely, and takes it as often again. */
PyObject *patch_rlock_release_save(const call *c) {
    unsigned long owner = ps_rlock_owner(c->self);
    if (!owner) return patch_as_before(c);
    know_rlocks();
    PyObject *state = Py_BuildValue("kk", ps_rlock_count(c->self), owner);
    if (state && rlock_free_now(c->self) < 0) Py_CLEAR(state);
    return state;
}

PyObject *patch_rlock_acquire_restore(const call *c) {
    G *g = patch_caller();
    PyObject *state = c->n == 1 ? c->args[0] : NULL;
    unsigned long count, owner;
    if (!g || !state || !PyTuple_Check(state)) return patch_as_before(c);
    know_rlocks();
    if (!PyArg_ParseTuple(state, "kk:_acquire_restore", &count, &owner)) return NULL;
    want w = for_rlock(c->self);
    if (patch_wait(g, &w, NEVER) < 0) return NULL;
    ps_rlock_set(c->self, owner, count);
    Py_RETURN_NONE;
}
