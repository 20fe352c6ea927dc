/* Reading the frames of parked goroutines: for the collector, for dumps.  See pystate.h. */
#include "pystate.h"

/* --- one reference --------------------------------------------------------------------------------- */
#if PY_VERSION_HEX >= 0x030F0000

static int visit_ref(_PyStackRef *r, visitproc visit, void *arg) {
    return PyStackRef_IsNullOrInt(*r) ? 0 : _PyGC_VisitStackRef(r, visit, arg);
}
int ps_init(void) { return 0; }

#elif PY_VERSION_HEX >= 0x030E0000

/* 3.14 does not export its visitor.  What that one does: while the collector subtracts references, a
   deferred reference (which was never counted) is passed over; in every other pass it is visited.  So
   the two subtracting visitors must be known.  They are learned once, from one collection over two
   probes: a live object is first visited by visit_decref; an unreachable one that holds itself by
   visit_decref and then by visit_decref_unreachable.  Any other order means that this collector is not
   the one we know, and the import fails. */
#  ifdef Py_GIL_DISABLED
static visitproc subtracting[2];

typedef struct { PyObject_HEAD PyObject *self; } probe;
static visitproc seen_live[8], seen_dead[8];
static int n_live, n_dead;

static int probe_traverse(probe *p, visitproc visit, void *arg) {
    if (p->self) {
        if (n_dead < 8) seen_dead[n_dead++] = visit;
        Py_VISIT(p->self);
    } else if (n_live < 8) seen_live[n_live++] = visit;
    return 0;
}
static int probe_clear(probe *p) { Py_CLEAR(p->self); return 0; }
static void probe_dealloc(probe *p) {
    PyObject_GC_UnTrack(p);
    Py_XDECREF(p->self);
    PyObject_GC_Del(p);
}
static PyTypeObject Probe_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer._core._Probe", .tp_basicsize = sizeof(probe),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_traverse = (traverseproc)probe_traverse, .tp_clear = (inquiry)probe_clear,
    .tp_dealloc = (destructor)probe_dealloc,
};

int ps_init(void) {
    if (PyType_Ready(&Probe_Type) < 0) return -1;
    probe *live = PyObject_GC_New(probe, &Probe_Type);
    if (!live) return -1;
    probe *dead = PyObject_GC_New(probe, &Probe_Type);
    if (!dead) { live->self = NULL; Py_DECREF(live); return -1; }
    live->self = NULL;
    dead->self = (PyObject *)dead;       /* the cycle takes over the only reference */
    PyObject_GC_Track(live);
    PyObject_GC_Track(dead);
    n_live = n_dead = 0;
    PyGC_Collect();
    Py_DECREF(live);
    if (!n_live || n_dead < 2 || seen_dead[0] != seen_live[0]) {
        PyErr_SetString(PyExc_ImportError, "gofer does not know this interpreter's garbage collector; "
                                           "use another build of Python, or report this one");
        return -1;
    }
    subtracting[0] = seen_dead[0];
    subtracting[1] = seen_dead[1];
    return 0;
}
static int visit_ref(_PyStackRef *r, visitproc visit, void *arg) {
    if (PyStackRef_IsNullOrInt(*r)) return 0;
    if (PyStackRef_IsDeferred(*r) && (visit == subtracting[0] || visit == subtracting[1])) return 0;
    Py_VISIT(PyStackRef_AsPyObjectBorrow(*r));
    return 0;
}
#  else
int ps_init(void) { return 0; }
static int visit_ref(_PyStackRef *r, visitproc visit, void *arg) {
    /* a borrowed reference has its owner in the same frame */
    if (PyStackRef_IsNullOrInt(*r) || !PyStackRef_RefcountOnObject(*r)) return 0;
    Py_VISIT(PyStackRef_AsPyObjectBorrow(*r));
    return 0;
}
#  endif

#else
int ps_init(void) { return 0; }
#endif

int ps_visit_fn(fnref *r, visitproc visit, void *arg) {
#if PS_DEFERRED
    return visit_ref(r, visit, arg);
#else
    Py_VISIT(*r);
    return 0;
#endif
}

/* --- one frame ------------------------------------------------------------------------------------- */
/* A generator's frame belongs to the generator, which visits it.  Up to 3.13 a frame in the middle of
   a C call does not say how much of its value stack is live: only the locals are visited then, and
   what lies above counts as held from outside, which errs on the safe side. */
#if PY_VERSION_HEX >= 0x030E0000
static int visit_frame(pyframe *f, visitproc visit, void *arg) {
    if (f->owner >= FRAME_OWNED_BY_INTERPRETER || f->owner == FRAME_OWNED_BY_GENERATOR) return 0;
    if (!f->stackpointer) return 0;
    Py_VISIT(f->frame_obj);
    Py_VISIT(f->f_locals);
    int e;
    if (!PyStackRef_IsNull(f->f_funcobj) && (e = visit_ref(&f->f_funcobj, visit, arg))) return e;
    if ((e = visit_ref(&f->f_executable, visit, arg))) return e;
    for (_PyStackRef *r = f->localsplus; r < f->stackpointer; r++)
        if ((e = visit_ref(r, visit, arg))) return e;
    return 0;
}
#else
static int visit_frame(pyframe *f, visitproc visit, void *arg) {
    if (f->owner == FRAME_OWNED_BY_GENERATOR) return 0;
#  if PS_ENTRY_FRAMES
    if (f->owner == FRAME_OWNED_BY_CSTACK) return 0;
#  endif
    Py_VISIT(f->frame_obj);
    Py_VISIT(f->f_locals);
#  if PY_VERSION_HEX >= 0x030D0000
    Py_VISIT(f->f_funcobj);
    Py_VISIT(f->f_executable);
    PyCodeObject *code = (PyCodeObject *)f->f_executable;
#  elif PY_VERSION_HEX >= 0x030C0000
    Py_VISIT(f->f_funcobj);
    Py_VISIT(f->f_code);
    PyCodeObject *code = f->f_code;
#  else
    Py_VISIT(f->f_func);
    Py_VISIT(f->f_code);
    PyCodeObject *code = f->f_code;
#  endif
    int n = code->co_nlocalsplus;
    if (f->stacktop > n) n = f->stacktop;
    for (int i = 0; i < n; i++) Py_VISIT(f->localsplus[i]);
    return 0;
}
#endif

int ps_visit(const pystate *s, visitproc visit, void *arg) {
    int e;
    for (pyframe *f = s->frame; f; f = f->previous)
        if ((e = visit_frame(f, visit, arg))) return e;
#if PS_DEFERRED
    for (struct _PyCStackRef *r = s->c_refs; r; r = r->next)
        if ((e = visit_ref(&r->ref, visit, arg))) return e;
#endif
    return 0;
}

PyCodeObject *ps_read_frame(pyframe *f, int *lasti, pyframe **next) {
    for (; f; f = f->previous) {
#if PY_VERSION_HEX >= 0x030E0000
        if (f->owner >= FRAME_OWNED_BY_INTERPRETER) continue;
#elif PS_ENTRY_FRAMES
        if (f->owner == FRAME_OWNED_BY_CSTACK) continue;
#endif
        if (_PyFrame_IsIncomplete(f)) continue;
        *lasti = _PyInterpreterFrame_LASTI(f) * (int)sizeof(_Py_CODEUNIT);
        *next = f->previous;
#if PY_VERSION_HEX >= 0x030D0000
        return _PyFrame_GetCode(f);
#else
        return f->f_code;
#endif
    }
    *next = NULL;
    return NULL;
}

/* --- which threads there are ----------------------------------------------------------------------- */
typedef struct { bool (*known)(PyThreadState *); int n; } census;

static void count_threads(void *arg) {
    census *c = arg;
    PyThreadState *ts = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    for (; ts; ts = PyThreadState_Next(ts)) c->n += !c->known(ts);
}

int ps_other_threads(bool (*known)(PyThreadState *)) {
    census c = { known, 0 };
    ps_in_stopped_world(count_threads, &c);
    return c.n;
}

/* --- what belongs to a thread ---------------------------------------------------------------------- */
bool ps_own_locals;

/* Dropping one may run code that makes another. */
static bool drop_locals(ps_locals *l) {
    bool any = l->dict || l->agen_first || l->agen_final;
    Py_CLEAR(l->dict);
    Py_CLEAR(l->agen_first);
    Py_CLEAR(l->agen_final);
#if PS_LOCAL_KEYS
    any |= l->key || l->sentinel;
    Py_CLEAR(l->key);
    Py_CLEAR(l->sentinel);
#endif
#if PS_LOOP
    any |= l->loop != NULL;
    Py_CLEAR(l->loop);
#endif
#if PS_TASK
    any |= l->task != NULL;
    Py_CLEAR(l->task);
#endif
    return any;
}

void ps_end_locals(PyThreadState *ts) {
    pystate last = { 0 };
    do ps_save_locals(&last, ts);
    while (drop_locals(&last.locals));
}

void ps_drop_locals(pystate *s) { drop_locals(&s->locals); }

/* --- other threads, signals ------------------------------------------------------------------------ */
#ifdef Py_GIL_DISABLED
/* Stopping the world is not public on every version; looking at the collector's objects is, and does it:
   the first object is one too many already. */
typedef struct { void (*fn)(void *); void *arg; bool done; } errand;

static int first_object(PyObject *unused, void *arg) {
    errand *e = arg;
    (void)unused;
    if (!e->done) e->fn(e->arg);
    e->done = true;
    return 0;
}

void ps_in_stopped_world(void (*fn)(void *), void *arg) {
    errand e = { fn, arg, false };
    PyUnstable_GC_VisitObjects(first_object, &e);
}

/* Another thread that was about to stop the world when ours forked has left its lock locked in the child:
   nobody here holds it. */
void ps_after_fork(void) { memset(&PyInterpreterState_Get()->stoptheworld.mutex, 0, sizeof(PyMutex)); }
#else
void ps_in_stopped_world(void (*fn)(void *), void *arg) { fn(arg); }
void ps_after_fork(void) {}
#endif

bool ps_signals_pending(PyThreadState *ts) {
#if PY_VERSION_HEX >= 0x030D0000
    return (_Py_atomic_load_uintptr_relaxed(&ts->eval_breaker) & _PY_SIGNALS_PENDING_BIT) != 0;
#else
    (void)ts;
    return _Py_atomic_load_relaxed(&_PyRuntime.ceval.signals_pending) != 0;
#endif
}

/* The mark is taken back before the handlers are looked for, since who sets it has tripped one before.
   PyErr_CheckSignals leaves that to the evaluation loop, which may have nothing to run here. */
static void mark_signals(PyThreadState *ts, bool pending) {
#if PY_VERSION_HEX >= 0x030D0000
    if (pending) _Py_set_eval_breaker_bit(ts, _PY_SIGNALS_PENDING_BIT);
    else _Py_unset_eval_breaker_bit(ts, _PY_SIGNALS_PENDING_BIT);
#else
    (void)ts;
    _Py_atomic_store(&_PyRuntime.ceval.signals_pending, pending);
#endif
}

int ps_between_bytecodes(PyThreadState *ts) {
#ifdef Py_GIL_DISABLED
    bool signals = ps_signals_pending(ts);
    if (signals) mark_signals(ts, false);
    int result = _Py_HandlePending(ts);
    if (signals) mark_signals(ts, true);
    return result;
#else
    (void)ts;
    return 0;
#endif
}

int ps_handle_signals(PyThreadState *ts) {
    if (!ps_is_main_thread()) return 0;
    mark_signals(ts, false);
    if (PyErr_CheckSignals() == 0) return 0;
    mark_signals(ts, true);                  /* there may be more */
    return -1;
}

#ifdef Py_GIL_DISABLED
static void set_async(PyThreadState *ts, PyObject *class) {
    Py_XDECREF(_Py_atomic_exchange_ptr(&ts->async_exc, Py_XNewRef(class)));
}
void ps_raise_async(PyThreadState *ts, PyObject *class) {
    set_async(ts, class);
    _Py_set_eval_breaker_bit(ts, _PY_ASYNC_EXCEPTION_BIT);
}
void ps_forget_async(PyThreadState *ts) { set_async(ts, NULL); }
#else
void ps_raise_async(PyThreadState *ts, PyObject *class) { PyThreadState_SetAsyncExc(ts->thread_id, class); }

#  if PY_VERSION_HEX < 0x030D0000
static int nothing(void *unused) { (void)unused; return 0; }
#  endif

/* Up to 3.12 a forgotten one leaves "look for an asynchronous exception" set for ever: every bytecode
   boundary would take the slow path, and 3.11 would never get past one that is traced.  A pending call
   makes CPython work out anew whether there is anything to look for. */
void ps_forget_async(PyThreadState *ts) {
    PyThreadState_SetAsyncExc(ts->thread_id, NULL);
#  if PY_VERSION_HEX < 0x030D0000
    ts->interp->ceval.pending.async_exc = 0;
    Py_AddPendingCall(nothing, NULL);
#  endif
}
#endif

bool ps_finalizing(void) {
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}

bool ps_is_main_thread(void) { return PyThread_get_thread_ident() == _PyRuntime.main_thread; }

#if PY_VERSION_HEX >= 0x030C0000
PyObject *ps_take_exception(void) { return PyErr_GetRaisedException(); }
void ps_raise(PyObject *exception) { PyErr_SetRaisedException(exception); }
#else
PyObject *ps_take_exception(void) {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (!type) return NULL;
    PyErr_NormalizeException(&type, &value, &trace);
    if (trace) PyException_SetTraceback(value, trace);
    Py_DECREF(type);
    Py_XDECREF(trace);
    return value;
}
void ps_raise(PyObject *exception) {
    PyErr_Restore(Py_NewRef(Py_TYPE(exception)), exception, PyException_GetTraceback(exception));
}
#endif
