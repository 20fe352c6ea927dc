/* What interferes with a goroutine: it is cancelled, killed or interrupted, or may not wait where it is.

   What must stay true:
   - Who disturbs sets a bit of `pending` first and claims after it.  Who waits looks at the bits, becomes
     claimable, and without the GIL looks once more before it parks (g_park): one of the two sees the other.
   - P_KILL and P_EXIT are for ever.  P_INTERRUPT and rt.interrupt are cleared together, under rt.lock; the
     bit alone means nothing.  P_CANCEL is the scopes' hint (scope.c).  P_BEFORE is set and cleared by its own
     thread.
   - A GoroutineExit is raised where the goroutine waits, or at its next bytecode if its wait was served all
     the same.  In the second case it lies in the thread state, where any goroutine could get it:
     w->async_exit says so, and it is taken back before another one runs.
   - Who holds its end off gets no GoroutineExit in either way: what is pending is asked of g_due. */
#include "g_parts.h"

enum { KILLS = 1000 };     /* a killed goroutine that catches GoroutineExit so often is abandoned */

/* --- disturbing ------------------------------------------------------------------------------------ */
void g_disturb(G *g, uint8_t bits, enum wake why) {
    word_set_bits(&g->pending, bits);
    if (g_claim(g, why)) g_ready(g);
}

void g_cancel(G *g) {
    atomic_store(&g->cancelled, 1);
    if (atomic_load(&g->shielded)) return;       /* it looks when it leaves the shield */
    g_disturb(g, P_CANCEL, W_CANCEL);
}

/* --- an exception for goroutine 1 ------------------------------------------------------------------ */
static int raise_interrupt(G *g) {
    lock_acquire(&rt.lock);
    PyObject *exc = rt.interrupt;
    rt.interrupt = NULL;
    word_clear_bits(&g->pending, P_INTERRUPT);
    lock_release(&rt.lock);
    if (!exc) return 0;
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    Py_DECREF(exc);
    return -1;
}

/* Runs in the main thread between two bytecodes; goroutine 1 may not be the one that runs. */
static int deliver_interrupt(void *unused) {
    (void)unused;
    G *g = g_self_quick();
    if (!g || g != rt.main || !(relaxed_load(&g->pending) & P_INTERRUPT)) return 0;
    return raise_interrupt(g);
}

void g_interrupt_again(void) { Py_AddPendingCall(deliver_interrupt, NULL); }

void g_interrupt_main(PyObject *exc) {
    G *g = rt.main;
    lock_acquire(&rt.lock);
    PyObject *old = rt.interrupt;
    rt.interrupt = exc;
    lock_release(&rt.lock);
    Py_XDECREF(old);
    if (!g) return;
    g_disturb(g, P_INTERRUPT, W_INTERRUPT);
    g_interrupt_again();
}

/* --- an end ---------------------------------------------------------------------------------------- */
void g_exit_soon(worker *w, G *g) {
    g->kills = 1;
    w->async_exit = true;
    ps_raise_async(w->ts, rt.errors.exit);
}

void g_exit_now(worker *w) {
    w->async_exit = false;
    ps_forget_async(w->ts);
}

/* It catches GoroutineExit again and again: leave it where it stands. */
static void abandon(G *g) {
    worker *w = g->worker;
    g->abandoned = true;
    if (g->locks) g_hooks.unlock(g);
    relaxed_add(&w->alive, -1);
    relaxed_store(&g->wait, W_ABANDONED);
    g_park(g, WHY_FOREVER, NULL);
    Py_FatalError("gofer: an abandoned goroutine was resumed");
}

int g_hold_end(G *g) {
    worker *w = g->worker;
    if (w && UNLIKELY(w->async_exit) && ps_async_waits(w->ts) && g_pending_error(g) < 0) return -1;
    g->holds_end++;
    return 0;
}

void g_release_end(G *g) {
    if (--g->holds_end || !g->worker || g->kills) return;
    if (UNLIKELY(relaxed_load(&g->pending) & P_KILL)) g_exit_soon(g->worker, g);
}

/* --- a cancellation -------------------------------------------------------------------------------- */
/* One that catches Cancelled again and again lets others have a turn all the same, and is named once. */
enum { REFUSED_OFTEN = 64 };
static const int64_t REFUSED_LONG = 1000000000;

static int cancelled_error(G *g) {
    if (g->refused == 0) g->since = clock_coarse_ns();
    if (UNLIKELY(++g->refused == REFUSED_OFTEN)) {
        g->refused = 1;
        if (g->worker && !g_collecting) g_step_aside(g);
        if (!g->named && clock_coarse_ns() - g->since > REFUSED_LONG) {
            g->named = true;
            if (g_hooks.swallows(g) < 0) return -1;
        }
    }
    PyErr_SetNone(rt.errors.cancelled);
    return -1;
}

/* --- before a thread waits ------------------------------------------------------------------------- */
void g_before_wait(G *g, PyObject *fn) {
    PyObject *old = g->at_end_arg;
    g->at_end_arg = Py_XNewRef(fn);
    if (fn) word_set_bits(&g->pending, P_BEFORE);
    else word_clear_bits(&g->pending, P_BEFORE);
    Py_XDECREF(old);
}

static int call_before_wait(G *g) {
    PyObject *fn = g->at_end_arg;
    g->at_end_arg = NULL;
    word_clear_bits(&g->pending, P_BEFORE);
    PyObject *result = PyObject_CallNoArgs(fn);
    Py_DECREF(fn);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* --- what a wait raises ---------------------------------------------------------------------------- */
int g_refuse_collector(void) {
    PyErr_SetString(PyExc_RuntimeError,
                    "a goroutine can not wait inside the garbage collector (a finalizer or gc callback): "
                    "nothing else could be collected until it went on; use go() to wait elsewhere");
    return -1;
}

int g_pending_error(G *g) {
    if (UNLIKELY(relaxed_load(&g->pending) & P_BEFORE) && call_before_wait(g) < 0) return -1;
    uint8_t bits = g_due(g);
    if (bits & P_KILL) {
        if (g->worker->async_exit) g_exit_now(g->worker);
        if (++g->kills > KILLS) abandon(g);
        PyErr_SetNone(rt.errors.exit);
        return -1;
    }
    if ((bits & P_INTERRUPT) && raise_interrupt(g) < 0) return -1;
    if (bits & P_EXIT) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter is exiting: nobody is left to wait for");
        return -1;
    }
    return (bits & P_CANCEL) && g_hooks.is_cancelled(g) ? cancelled_error(g) : 0;
}

int g_wait_check(G *g) {
    if (relaxed_load(&g->pending) && g_pending_error(g) < 0) return -1;
    return g->worker && g_collecting ? g_refuse_collector() : 0;
}

/* NULL with an exception: it could not be made, or Ctrl-C has come meanwhile. */
static PyObject *deadlock_error(G *g, enum wake why) {
    const char *text = why == W_ASLEEP ? "all goroutines of the bubble are asleep - deadlock!"
                     : why == W_OVER ? "the bubble's block has ended, its clock has stopped, and goroutines "
                                       "still wait - deadlock!"
                     : "all goroutines are asleep - deadlock!";
    PyObject *e = PyObject_CallFunction(rt.errors.deadlock, "s", text);
    if (!e || !rt.deadlock_notes) return e;
    relaxed_store(&g->state, G_WAITING);                /* as the notes are to show it */
    PyObject *notes = PyObject_CallOneArg(rt.deadlock_notes, why == W_DEADLOCK ? Py_True : Py_False);
    relaxed_store(&g->state, G_RUNNING);
    if (!notes && !PyErr_ExceptionMatches(PyExc_Exception)) { Py_DECREF(e); return NULL; }
    if (!notes || PyObject_SetAttrString(e, "__notes__", notes) < 0) PyErr_WriteUnraisable(e);
    Py_XDECREF(notes);
    return e;
}

int g_wake_error(G *g, enum wake why) {
    PyObject *e;
    if (why == W_KILL || why == W_CANCEL || why == W_INTERRUPT) {
        if (g->worker) g_tidy(g->worker);
        return g_pending_error(g);
    }
    g_settle(g);
    switch (why) {
    case W_SIGNAL:
        return ps_handle_signals(PyThreadState_Get());
    case W_DEADLOCK: case W_ASLEEP: case W_OVER:
        /* A signal was on its way to this thread when another one saw that all sleep. */
        if (g->worker && ps_signals_pending(g->worker->ts)) return ps_handle_signals(g->worker->ts);
        if ((e = deadlock_error(g, why))) {
            PyErr_SetObject(rt.errors.deadlock, e);
            Py_DECREF(e);
        }
        return -1;
    case W_NOMEM:
        PyErr_NoMemory();
        return -1;
    default:
        Py_FatalError("gofer: a goroutine was woken for no reason");
    }
}
