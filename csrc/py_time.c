/* sleep, after, after_func, Timer as Python sees them.

   What must stay true:
   - A channel alarm belongs to its channel (chan->alarm) and is stopped before that is freed: a timer
     that nothing references goes away.  Its channel holds one tick; one that is not taken is dropped.
   - Stopping first takes the timer out of the heap (after which its callback does not run), then takes a
     tick out of the channel: nothing stale is delivered.
   - A function alarm is its Timer.  While it is armed the heap owns a reference to it, and `next` is the
     goroutine that will be started: firing allocates nothing.  Whoever takes it out of the heap takes over
     that reference.
   - `guard` orders stop and reset of one timer among threads; firing takes the heap's lock only. */
#include "module.h"
#include "timer.h"
#include <structmember.h>

/* --- channel alarms -------------------------------------------------------------------------------- */
typedef struct { timer t; chan *c; } chan_alarm;    /* c borrowed: it owns us */

static void ring_alarm(timer *t, int64_t now) {
    chan *c = ((chan_alarm *)t)->c;
    if (now == DROPPED) return;
    PyObject *seconds = PyFloat_FromDouble((double)now / 1e9);
    if (!seconds) { PyErr_Clear(); return; }         /* no memory: this tick is lost */
    G *wake = NULL;
    lock_acquire(&c->lock);
    chan_send_now(c, seconds, &wake);
    lock_release(&c->lock);
    if (wake) g_ready(wake);
    Py_DECREF(seconds);
}

void chan_drop_alarm(chan *c) {
    chan_alarm *a = c->alarm;
    timer_stop(&a->t);
    c->alarm = NULL;
    mem_free(a);
}

/* NULL with an exception. */
static timers *timers_of_caller(void) {
    G *g = g_self();
    return g ? timers_of(g) : NULL;
}

static bool arm(timer *t, timers *h, int64_t ns, int64_t period) {
    t->when = timers_clock(h) + (ns > 0 ? ns : 0);
    t->period = period;
    if (!timer_start(t, h)) return false;
    /* Who polls for it keeps the clock of a bubble still. */
    if (UNLIKELY(h->bubble && ns <= 0)) timers_run(h, timers_clock(h));
    return true;
}

/* A new channel on which the time arrives once, or every `period`. */
static chan *alarm_chan(int64_t ns, int64_t period) {
    timers *h = timers_of_caller();
    chan *c = h ? (chan *)Chan_Type.tp_alloc(&Chan_Type, 0) : NULL;
    if (!c) return NULL;
    if (chan_init(c, 1) < 0) { Py_DECREF(c); return NULL; }
    chan_alarm *a = c->alarm = mem_calloc(sizeof *a);
    if (a) {
        a->t.fire = ring_alarm;
        a->c = c;
        if (arm(&a->t, h, ns, period)) return c;
    }
    PyErr_NoMemory();
    Py_DECREF(c);
    return NULL;
}

/* A tick that has not been taken; NULL when there is none. */
static PyObject *untaken(chan *c) {
    PyObject *tick = NULL;
    G *wake = NULL;                          /* nobody sends on it but its timer */
    lock_acquire(&c->lock);
    chan_recv_now(c, &tick, &wake);
    lock_release(&c->lock);
    return tick;
}

/* --- Timer ----------------------------------------------------------------------------------------- */
typedef struct Timer {
    PyObject_HEAD
    timer t;                     /* function alarm */
    chan *c;                     /* channel alarm, else NULL */
    bool periodic;
    uint32_t bubble;             /* in which it was made */
    lock_t guard;
    PyObject *call;              /* (fn, *args) */
    G *next;                     /* owned */
    PyObject *weakrefs;
} Timer;

static void timer_ended(G *g, PyObject *timer_object) { Py_DECREF(timer_object); }

static void start_function(timer *t, int64_t now) {
    Timer *self = (Timer *)((char *)t - offsetof(Timer, t));
    G *g = self->next;
    self->next = NULL;
    if (now == DROPPED) {
        g_discard(g);
        Py_DECREF(self);                     /* the heap's reference */
        return;
    }
    g->at_end = timer_ended;
    g->at_end_arg = (PyObject *)self;        /* the heap's reference */
    if (t->heap->bubble) g_hooks.join_bubble(g, t->heap->bubble);
    g_hooks.start_quietly(g);                /* our reference is the runtime's from here on */
}

static Timer *timer_object(chan *c, PyObject *call, bool periodic) {
    Timer *self = PyObject_GC_New(Timer, &Timer_Type);
    if (!self) { Py_XDECREF(c); Py_XDECREF(call); return NULL; }
    memset((char *)self + offsetof(Timer, t), 0, sizeof *self - offsetof(Timer, t));
    self->t.fire = start_function;
    self->c = c;
    self->call = call;
    self->periodic = periodic;
    self->bubble = g_bubble_here();
    PyObject_GC_Track(self);
    return self;
}

static timer *timer_of(Timer *self) { return self->c ? &((chan_alarm *)self->c->alarm)->t : &self->t; }

/* The goroutine that it will start; NULL with an exception. */
static G *to_start(Timer *self) {
    PyObject **items = ((PyTupleObject *)self->call)->ob_item;
    return g_new(KIND_GO, items, PyTuple_GET_SIZE(self->call), NULL);
}

static PyObject *py_stop(Timer *self, PyObject *unused) {
    lock_acquire(&self->guard);
    bool armed = timer_stop(timer_of(self));
    PyObject *tick = self->c ? untaken(self->c) : NULL;
    G *unstarted = self->next;               /* it may lead back to us, which the collector could not see */
    self->next = NULL;
    lock_release(&self->guard);
    if (unstarted) g_discard(unstarted);
    if (armed && !self->c) Py_DECREF(self);  /* the heap's; the caller has one */
    bool prevented = armed || tick;
    Py_XDECREF(tick);
    return PyBool_FromLong(prevented);
}

/* It stays with the clock that it was made for. */
static timers *timers_to_reset(Timer *self) {
    G *g = g_self();
    if (!g) return NULL;
    if (LIKELY(self->bubble == relaxed_load(&g->bubble))) return timers_of(g);
    if (!self->bubble) return timers_outside(g);
    PyErr_SetString(PyExc_RuntimeError, "reset() of a timer outside of the bubble in which it was made: "
                                        "it lives by the clock of that one");
    return NULL;
}

static PyObject *py_reset(Timer *self, PyObject *d) {
    int64_t ns;
    if (duration_ns(d, "Timer.reset", &ns) < 0) return NULL;
    timers *h = timers_to_reset(self);
    G *spare = NULL;
    if (!h || (!self->c && !(spare = to_start(self)))) return NULL;
    if (!self->c) Py_INCREF(self);           /* for the heap */
    lock_acquire(&self->guard);
    bool armed = timer_stop(timer_of(self));
    PyObject *tick = self->c ? untaken(self->c) : NULL;
    if (!self->next) { self->next = spare; spare = NULL; }
    bool done = arm(timer_of(self), h, ns, self->periodic ? (ns > 0 ? ns : 1) : 0);
    lock_release(&self->guard);
    if (!self->c && armed) Py_DECREF(self);
    if (!self->c && !done) Py_DECREF(self);
    bool prevented = armed || tick;
    Py_XDECREF(tick);
    if (spare) g_discard(spare);
    return done ? PyBool_FromLong(prevented) : PyErr_NoMemory();
}

static PyObject *timer_c(Timer *self, void *unused) {
    if (self->c) return py_receiver(self->c);
    PyErr_SetString(PyExc_AttributeError,
                    "the Timer of after_func has no channel .c: it calls its function instead");
    return NULL;
}

static PyObject *timer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *d;
    int64_t ns;
    if (kwargs && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Timer() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O:Timer", &d) || duration_ns(d, "Timer", &ns) < 0) return NULL;
    chan *c = alarm_chan(ns, 0);
    return c ? (PyObject *)timer_object(c, NULL, false) : NULL;
}

static PyObject *timer_repr(Timer *self) {
    lock_acquire(&self->guard);
    bool armed = timer_armed(timer_of(self));
    lock_release(&self->guard);
    return PyUnicode_FromFormat("<Timer %s at %p>", armed ? "running" : "stopped", self);
}

static int timer_traverse(Timer *self, visitproc visit, void *arg) {
    Py_VISIT(self->c);
    Py_VISIT(self->call);
    return 0;
}

static int timer_clear(Timer *self) {
    Py_CLEAR(self->call);
    return 0;
}

static void timer_dealloc(Timer *self) {
    PyObject_GC_UnTrack(self);
    clear_weakrefs((PyObject *)self, &self->weakrefs);
    Py_XDECREF(self->c);
    Py_XDECREF(self->call);
    if (self->next) g_discard(self->next);
    PyObject_GC_Del(self);
}

static PyMethodDef timer_methods[] = {
    {"stop", (PyCFunction)py_stop, METH_NOARGS,
     "stop($self, /)\n--\n\n"
     "Prevent it from firing; whether that was in time. Nothing is delivered on .c after it. Does not wait:\n"
     "the function of after_func may be running."},
    {"reset", (PyCFunction)py_reset, METH_O,
     "reset($self, d, /)\n--\n\n"
     "Fire d seconds from now; whether it was still running before. Nothing of the former setting is\n"
     "delivered on .c after it."},
    {NULL},
};
static PyGetSetDef timer_getset[] = {
    {"c", (getter)timer_c, NULL, "Delivers the time.monotonic() at which it fired.", NULL},
    {NULL},
};
PyTypeObject Timer_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer.Timer",
    .tp_doc = "Timer(d, /)\n--\n\n"
              "Delivers the time on .c once, d seconds (float or timedelta) from now.",
    .tp_basicsize = sizeof(Timer),
    .tp_weaklistoffset = offsetof(Timer, weakrefs),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = timer_new,
    .tp_dealloc = (destructor)timer_dealloc,
    .tp_traverse = (traverseproc)timer_traverse,
    .tp_clear = (inquiry)timer_clear,
    .tp_repr = (reprfunc)timer_repr,
    .tp_methods = timer_methods,
    .tp_getset = timer_getset,
};

/* --- functions ------------------------------------------------------------------------------------- */
static PyObject *py_sleep(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    int64_t ns;
    if (one_arg("sleep", nargs) < 0 || duration_ns(args[0], "sleep", &ns) < 0) return NULL;
    G *g = g_self();
    if (!g || (ns <= 0 ? g_yield(g) : timer_sleep(g, ns)) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_now(PyObject *module, PyObject *unused) {
    timers *h = timers_of_caller();
    return h ? PyFloat_FromDouble((double)timers_clock(h) / 1e9) : NULL;
}

static PyObject *py_after(PyObject *module, PyObject *d) {
    int64_t ns;
    if (duration_ns(d, "after", &ns) < 0) return NULL;
    chan *c = alarm_chan(ns, 0);
    if (!c) return NULL;
    PyObject *receiver = py_receiver(c);
    Py_DECREF(c);
    return receiver;
}

static PyObject *py_after_func(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    int64_t ns;
    if (nargs < 2) {
        PyErr_Format(PyExc_TypeError,
                     "after_func() takes a duration, a function and its arguments (%zd given)", nargs);
        return NULL;
    }
    if (duration_ns(args[0], "after_func", &ns) < 0) return NULL;
    if (py_check_callable("after_func", args + 1, nargs - 1) < 0) return NULL;
    PyObject *call = PyTuple_New(nargs - 1);
    if (!call) return NULL;
    for (Py_ssize_t i = 1; i < nargs; i++) PyTuple_SET_ITEM(call, i - 1, Py_NewRef(args[i]));
    timers *h = timers_of_caller();
    Timer *self = timer_object(NULL, call, false);
    if (!h || !self || !(self->next = to_start(self))) { Py_XDECREF(self); return NULL; }
    Py_INCREF(self);                         /* for the heap */
    if (arm(&self->t, h, ns, 0)) return (PyObject *)self;
    Py_DECREF(self);
    Py_DECREF(self);
    return PyErr_NoMemory();
}

static PyObject *py_ticker(PyObject *module, PyObject *d) {
    int64_t ns;
    if (duration_ns(d, "Ticker", &ns) < 0) return NULL;
    if (ns < 1) ns = 1;
    chan *c = alarm_chan(ns, ns);
    return c ? (PyObject *)timer_object(c, NULL, true) : NULL;
}

static PyMethodDef functions[] = {
    {"sleep", FAST(py_sleep), METH_FASTCALL,
     "sleep($module, d, /)\n--\n\n"
     "Wait for d seconds (float or timedelta); d <= 0 lets the others run once. Raises Cancelled in a\n"
     "cancelled scope."},
    {"now", py_now, METH_NOARGS,
     "now($module, /)\n--\n\n"
     "time.monotonic(), as the caller lives by it: inside a bubble of gofer.testing\n"
     "the clock of the bubble."},
    {"after", py_after, METH_O,
     "after($module, d, /)\n--\n\n"
     "A RecvChan that delivers the time.monotonic() once, d seconds (float or timedelta) from now."},
    {"after_func", FAST(py_after_func), METH_FASTCALL,
     "after_func($module, d, fn, /, *args)\n--\n\n"
     "Call fn(*args) in a goroutine of its own, d seconds (float or timedelta) from now. Returns the Timer,\n"
     "whose stop() prevents it and whose reset() moves it or has it called again."},
    {"ticker", py_ticker, METH_O, NULL},
    {NULL},
};

int py_time_add(PyObject *module) {
    return timer_init_types() < 0 || PyModule_AddType(module, &Timer_Type) < 0
        || PyModule_AddFunctions(module, functions) < 0 ? -1 : 0;
}
