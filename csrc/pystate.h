/* What of a PyThreadState belongs to a goroutine: out, in, fresh, and how to read the frames of one
   that is parked.  The only room that may ask which CPython this is.

   What must stay true:
   - Between ps_save of one goroutine and ps_load (or ps_start) of the next, nothing runs Python code.
   - While a goroutine is parked its C stack lies in a heap copy.  Whatever CPython left on that stack
     and others may walk to (entry frames from 3.12 on, references of C locals on free-threaded 3.14)
     is reached through the copy: ps_shift moves each such pointer out and back.
   - References in parked frames are read by the collector, never changed. */
#ifndef GOFER_PYSTATE_H
#define GOFER_PYSTATE_H

#include "base.h"
#if defined(Py_GIL_DISABLED) && defined(Py_REF_DEBUG)
/* CPython's inline functions call it by a name that is not exported. */
#  define _Py_IncRefTotal(ts) _Py_INCREF_IncRefTotal()
#endif
#include "internal/pycore_pystate.h"
#include "internal/pycore_frame.h"
#include "internal/pycore_ceval.h"
#include "internal/pycore_dict.h"
#include "internal/pycore_object.h"
#if PY_VERSION_HEX >= 0x030E0000
#  include "internal/pycore_interpframe.h"
#  include "internal/pycore_tstate.h"
#  include "internal/pycore_gc.h"
#  include "internal/pycore_lock.h"
#endif
#ifdef Py_GIL_DISABLED
#  include "internal/pycore_critical_section.h"
#endif

#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x03100000
#  error "gofer supports CPython 3.11 to 3.15"
#endif

/* 3.11 and 3.12 reach the current frame through a _PyCFrame that lies on the C stack */
#define PS_CFRAME (PY_VERSION_HEX < 0x030D0000)
/* 3.12 and 3.13 count C recursion apart from Python recursion; 3.14 compares the stack pointer */
#define PS_C_DEPTH (PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000)
/* from 3.12 on entry frames lie on the C stack, linked into the frame chain */
#define PS_ENTRY_FRAMES (PY_VERSION_HEX >= 0x030C0000)
/* free-threaded 3.14 on: frames hold deferred references, C locals hang in a list on the C stack */
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030E0000
#  define PS_DEFERRED 1
#else
#  define PS_DEFERRED 0
#endif

#if PY_VERSION_HEX >= 0x030C0000
#  define PS_PY_DEPTH py_recursion_remaining
#  define PS_PY_LIMIT py_recursion_limit
#else
#  define PS_PY_DEPTH recursion_remaining
#  define PS_PY_LIMIT recursion_limit
#endif

typedef struct _PyInterpreterFrame pyframe;

/* From 3.13 on threading.local finds a thread's values by these objects, before that in its dictionary. */
#define PS_LOCAL_KEYS (PY_VERSION_HEX >= 0x030D0000)
/* From 3.13 on asyncio keeps there which loop runs, from 3.14 on which task; before in the dictionary. */
#define PS_LOOP (PY_VERSION_HEX >= 0x030D0000)
#define PS_TASK (PY_VERSION_HEX >= 0x030E0000)

/* Added to the number of a thread state; CPython counts those from 1. */
#define PS_NEXT_ID ((uint64_t)1 << 32)

/* What the thread state keeps for those who ask for something of the thread's own. */
typedef struct ps_locals {
    PyObject *dict;
#if PS_LOCAL_KEYS
    PyObject *key, *sentinel;
#endif
#if PS_LOOP
    PyObject *loop;
#endif
#if PS_TASK
    PyObject *task;
#endif
    PyObject *agen_first, *agen_final;  /* sys.set_asyncgen_hooks */
    int origin_depth;                   /* sys.set_coroutine_origin_tracking_depth */
} ps_locals;

typedef struct pystate {
    pyframe *frame;                     /* innermost; also where readers of a parked goroutine begin */
    _PyStackChunk *chunk;
    PyObject **top;                     /* where the chunk ends is in the chunk */
    _PyErr_StackItem *exc_info;
    PyObject *context;                  /* before it has started: to start with */
    int py_depth, tracing;
    ps_locals locals;                   /* its own while it is parked, with ps_own_locals */
#if PS_C_DEPTH
    int c_depth;
#endif
#if PS_CFRAME
    _PyCFrame *cframe, first_cframe;
#endif
#ifdef Py_GIL_DISABLED
    uintptr_t critical_section;
#endif
#if PS_DEFERRED
    struct _PyCStackRef *c_refs;
#endif
    _PyErr_StackItem exc;               /* bottom of the goroutine's own exception stack */
} pystate;

/* --- a function held for a goroutine that has not started ------------------------------------------ */
/* From free-threaded 3.14 on functions are counted like anything else, and two workers that spawn one
   function would fight over its count: a deferred reference does not touch it, but must be visited. */
#if PS_DEFERRED
typedef _PyStackRef fnref;
static inline fnref fnref_new(PyObject *fn) { return PyStackRef_FromPyObjectNew(fn); }
static inline PyObject *fnref_get(fnref r) { return PyStackRef_AsPyObjectBorrow(r); }
static inline void fnref_close(fnref r) { PyStackRef_CLOSE(r); }
#else
typedef PyObject *fnref;
static inline fnref fnref_new(PyObject *fn) { return Py_NewRef(fn); }
static inline PyObject *fnref_get(fnref r) { return r; }
static inline void fnref_close(fnref r) { Py_DECREF(r); }
#endif

/* --- pointers that are no references --------------------------------------------------------------- */
/* A new reference to what such a pointer leads to; false: it has none left and is about to go.  The caller
   sees to it that the memory is still there, and who made the object has said that this may happen. */
static inline bool ps_try_incref(PyObject *o) {
#if PY_VERSION_HEX >= 0x030E0000
    return PyUnstable_TryIncRef(o);
#elif defined(Py_GIL_DISABLED)
    return _Py_TryIncref(o);
#else
    return Py_REFCNT(o) > 0 ? (Py_INCREF(o), true) : false;
#endif
}
static inline void ps_allow_try_incref(PyObject *o) {
#if PY_VERSION_HEX >= 0x030E0000
    PyUnstable_EnableTryIncRef(o);
#elif defined(Py_GIL_DISABLED)
    _PyObject_SetMaybeWeakref(o);
#else
    (void)o;
#endif
}

/* --- once at import -------------------------------------------------------------------------------- */
/* 0, or -1 with ImportError when this interpreter's collector is not as we know it. */
int ps_init(void);

/* --- reading frames -------------------------------------------------------------------------------- */
/* Visits every reference that the frames of a parked goroutine hold, for tp_traverse. */
int ps_visit(const pystate *s, visitproc visit, void *arg);
int ps_visit_fn(fnref *r, visitproc visit, void *arg);

/* Innermost frame of a thread that runs; of a parked goroutine it is s->frame. */
static inline pyframe *ps_current_frame(PyThreadState *ts) {
#if PS_CFRAME
    return ts->cframe->current_frame;
#else
    return ts->current_frame;
#endif
}
/* The first complete Python frame at or below f: its code (borrowed) and the byte offset of its
   instruction; *next is where to go on.  NULL at the end. */
PyCodeObject *ps_read_frame(pyframe *f, int *lasti, pyframe **next);

/* Calls fn(arg) while every other thread stands at a safepoint, so that goroutines elsewhere and their
   frames can be looked at.  fn allocates no objects and runs nothing of Python's. */
void ps_in_stopped_world(void (*fn)(void *), void *arg);

/* In the child of a fork, the only thread there is. */
void ps_after_fork(void);

/* The exception that is set, with its traceback, taken off (NULL: none); and put back (steals it). */
PyObject *ps_take_exception(void);
void ps_raise(PyObject *exception);

/* Raises an exception of this class in the thread at its next bytecode boundary; also while the world stands
   still, when PyThreadState_SetAsyncExc would wait for a lock that the stop holds. */
void ps_raise_async(PyThreadState *ts, PyObject *class);

/* Takes back a ps_raise_async that has not been delivered. */
void ps_forget_async(PyThreadState *ts);
/* Whether it has not been delivered. */
static inline bool ps_async_waits(PyThreadState *ts) {
    return __atomic_load_n(&ts->async_exc, __ATOMIC_RELAXED) != NULL;
}

bool ps_finalizing(void);
bool ps_is_main_thread(void);

/* The thread is not running Python code now: in a call that let go of the interpreter.  Under the GIL that
   can not be told, and always said: there one that computes counts as well. */
static inline bool ps_is_blocked(PyThreadState *ts) {
#ifdef Py_GIL_DISABLED
    return _Py_atomic_load_int_relaxed(&ts->state) == _Py_THREAD_DETACHED;
#else
    (void)ts;
    return true;
#endif
}

/* A signal has arrived whose Python handler has not run. */
bool ps_signals_pending(PyThreadState *ts);
/* Runs the handlers; 0, or -1 with what one of them raised.  In the main thread
   nothing is pending after a 0. */
int ps_handle_signals(PyThreadState *ts);

/* How many threads the module _thread has started that live. */
static inline long ps_thread_count(PyThreadState *ts) {
    return (long)relaxed_load((_Atomic(Py_ssize_t) *)&ts->interp->threads.count);
}

/* --- what threading.local, asyncio and the like keep for a thread ---------------------------------- */
/* Each goroutine has its own. */
extern bool ps_own_locals;

/* Takes all of it out of the thread state.  CPython remembers things by the number of a thread state: what it
   remembers of this one must not be found by the next goroutine. */
static inline void ps_save_locals(pystate *s, PyThreadState *ts) {
    ps_locals *l = &s->locals;
    l->dict = ts->dict;
    l->agen_first = ts->async_gen_firstiter;
    l->agen_final = ts->async_gen_finalizer;
    l->origin_depth = ts->coroutine_origin_tracking_depth;
    ts->dict = ts->async_gen_firstiter = ts->async_gen_finalizer = NULL;
    ts->coroutine_origin_tracking_depth = 0;
#if PS_LOCAL_KEYS
    l->key = ts->threading_local_key;
    l->sentinel = ts->threading_local_sentinel;
    ts->threading_local_key = ts->threading_local_sentinel = NULL;
#endif
#if PS_LOOP
    l->loop = ((_PyThreadStateImpl *)ts)->asyncio_running_loop;
    ((_PyThreadStateImpl *)ts)->asyncio_running_loop = NULL;
#endif
#if PS_TASK
    l->task = ((_PyThreadStateImpl *)ts)->asyncio_running_task;
    ((_PyThreadStateImpl *)ts)->asyncio_running_task = NULL;
#endif
    ts->id += PS_NEXT_ID;
}
static inline void ps_load_locals(pystate *s, PyThreadState *ts) {
    ps_locals *l = &s->locals;
    ts->dict = l->dict;
    ts->async_gen_firstiter = l->agen_first;
    ts->async_gen_finalizer = l->agen_final;
    ts->coroutine_origin_tracking_depth = l->origin_depth;
#if PS_LOCAL_KEYS
    ts->threading_local_key = l->key;
    ts->threading_local_sentinel = l->sentinel;
#endif
#if PS_LOOP
    ((_PyThreadStateImpl *)ts)->asyncio_running_loop = l->loop;
#endif
#if PS_TASK
    ((_PyThreadStateImpl *)ts)->asyncio_running_task = l->task;
#endif
    *l = (ps_locals){ 0 };
}
/* Those of the goroutine that runs are dropped; may run Python code. */
void ps_end_locals(PyThreadState *ts);
/* Those of one that does not. */
void ps_drop_locals(pystate *s);

/* --- objects that others have dropped -------------------------------------------------------------- */
/* Without the GIL an object whose last reference another thread drops is given back to the thread that made
   it, which frees it at its next bytecode. */
static inline bool ps_was_given_back(PyThreadState *ts) {
#ifdef Py_GIL_DISABLED
    return (_Py_atomic_load_uintptr_relaxed(&ts->eval_breaker) & _PY_EVAL_EXPLICIT_MERGE_BIT) != 0;
#else
    (void)ts;
    return false;
#endif
}
/* Does what is done between bytecodes, but for the signals that are pending now.  -1 with an exception that
   belongs to nobody in particular. */
int ps_between_bytecodes(PyThreadState *ts);

/* --- threading.RLock ------------------------------------------------------------------------------- */
#if PY_VERSION_HEX >= 0x030E0000
typedef struct { PyObject_HEAD _PyRecursiveMutex lock; } ps_rlock;
/* Whose it is; 0: nobody's. */
static inline unsigned long ps_rlock_owner(PyObject *r) {
    return (unsigned long)_Py_atomic_load_ullong_relaxed(&((ps_rlock *)r)->lock.thread);
}
static inline unsigned long ps_rlock_count(PyObject *r) {
    return (unsigned long)((ps_rlock *)r)->lock.level + 1;
}
/* While it is held. */
static inline void ps_rlock_set(PyObject *r, unsigned long owner, unsigned long count) {
    ((ps_rlock *)r)->lock.level = count - 1;
    _Py_atomic_store_ullong_relaxed(&((ps_rlock *)r)->lock.thread, owner);
}
#else
typedef struct { PyObject_HEAD PyThread_type_lock lock; unsigned long owner, count; } ps_rlock;
static inline unsigned long ps_rlock_owner(PyObject *r) {
    _Atomic(unsigned long) *owner = (_Atomic(unsigned long) *)&((ps_rlock *)r)->owner;
    _Atomic(unsigned long) *count = (_Atomic(unsigned long) *)&((ps_rlock *)r)->count;
    return relaxed_load(count) ? relaxed_load(owner) : 0;
}
static inline unsigned long ps_rlock_count(PyObject *r) { return ((ps_rlock *)r)->count; }
static inline void ps_rlock_set(PyObject *r, unsigned long owner, unsigned long count) {
    relaxed_store((_Atomic(unsigned long) *)&((ps_rlock *)r)->owner, owner);
    relaxed_store((_Atomic(unsigned long) *)&((ps_rlock *)r)->count, count);
}
#endif

/* --- instances of classes in Python ---------------------------------------------------------------- */
/* The names of the attributes that instances of a class have ever had: each keeps its place.  0: they are
   not kept in places. */
static inline Py_ssize_t ps_names(PyTypeObject *type) {
#if PY_VERSION_HEX >= 0x030D0000
    unsigned long kept = Py_TPFLAGS_INLINE_VALUES;
#else
    unsigned long kept = Py_TPFLAGS_MANAGED_DICT;
#endif
    PyDictKeysObject *keys = type->tp_flags & kept ? ((PyHeapTypeObject *)type)->ht_cached_keys : NULL;
    return keys ? keys->dk_nentries : 0;
}
/* The place of an interned name; -1: it has none. */
static inline Py_ssize_t ps_place(PyTypeObject *type, PyObject *name) {
    for (Py_ssize_t i = ps_names(type); --i >= 0; )
        if (DK_UNICODE_ENTRIES(((PyHeapTypeObject *)type)->ht_cached_keys)[i].me_key == name) return i;
    return -1;
}
/* The attributes of an instance of such a class, by their places (NULL: not set), to be read and set under
   the GIL; NULL: this one keeps them otherwise, since somebody has asked for its __dict__. */
static inline PyObject **ps_values(PyObject *o) {
#if PY_VERSION_HEX >= 0x030D0000
    PyDictValues *v = _PyObject_InlineValues(o);
    return LIKELY(v->valid && !_PyObject_GetManagedDict(o)) ? v->values : NULL;
#elif PY_VERSION_HEX >= 0x030C0000
    PyDictOrValues v = *_PyObject_DictOrValuesPointer(o);
    return LIKELY(_PyDictOrValues_IsValues(v)) ? _PyDictOrValues_GetValues(v)->values : NULL;
#else
    PyDictValues *v = *_PyObject_ValuesPointer(o);
    return LIKELY(v != NULL) ? v->values : NULL;
#endif
}

/* Has calls of a function in Python go to f; false: this version of CPython does not look. */
static inline bool ps_set_vectorcall(PyObject *function, vectorcallfunc f) {
#if PY_VERSION_HEX >= 0x030C0000
    PyFunction_SetVectorcall((PyFunctionObject *)function, f);
    return true;
#else
    return false;
#endif
}

/* How many threads the interpreter knows for which `known` is false.  It runs nothing of Python's. */
int ps_other_threads(bool (*known)(PyThreadState *));

/* --- out and in ------------------------------------------------------------------------------------ */
static inline void ps_save(pystate *s, PyThreadState *ts) {
#ifdef Py_GIL_DISABLED
    if (UNLIKELY(ts->critical_section != 0)) _PyCriticalSection_SuspendAll(ts);
    s->critical_section = ts->critical_section;
#endif
    s->frame = ps_current_frame(ts);
#if PS_CFRAME
    s->cframe = ts->cframe;
#endif
    s->chunk = ts->datastack_chunk;
    s->top = ts->datastack_top;
    s->exc_info = ts->exc_info;
    s->context = ts->context;
    s->py_depth = ts->PS_PY_DEPTH;
    s->tracing = ts->tracing;
    if (UNLIKELY(ps_own_locals)) ps_save_locals(s, ts);
#if PS_C_DEPTH
    s->c_depth = ts->c_recursion_remaining;
#endif
#if PS_DEFERRED
    s->c_refs = ((_PyThreadStateImpl *)ts)->c_stack_refs;
    ((_PyThreadStateImpl *)ts)->c_stack_refs = NULL;
#endif
}

static inline PyObject **ps_limit_of(_PyStackChunk *chunk) {
    return LIKELY(chunk != NULL) ? (PyObject **)((char *)chunk + chunk->size) : NULL;
}

static inline void ps_load(pystate *s, PyThreadState *ts) {
#if PS_CFRAME
    ts->cframe = s->cframe;
#else
    ts->current_frame = s->frame;
#endif
    ts->datastack_chunk = s->chunk;
    ts->datastack_top = s->top;
    ts->datastack_limit = ps_limit_of(s->chunk);
    ts->exc_info = s->exc_info;
    ts->context = s->context;
    s->context = NULL;                                  /* the thread state has it now */
    ts->context_ver++;
    ts->PS_PY_DEPTH = s->py_depth;
    ts->tracing = s->tracing;
    if (UNLIKELY(ps_own_locals)) ps_load_locals(s, ts);
#if PS_C_DEPTH
    ts->c_recursion_remaining = s->c_depth;
#endif
#ifdef Py_GIL_DISABLED
    ts->critical_section = s->critical_section;
#endif
}

/* After the slice is back as well: lists that live on it, and critical sections (may block, detach
   and let a collection run). */
static inline void ps_resumed(pystate *s, PyThreadState *ts) {
#if PS_DEFERRED
    ((_PyThreadStateImpl *)ts)->c_stack_refs = s->c_refs;
    s->c_refs = NULL;
#endif
#ifdef Py_GIL_DISABLED
    if (UNLIKELY(ts->critical_section != 0)) _PyCriticalSection_Resume(ts);
#endif
    (void)s; (void)ts;
}

/* Makes ts that of a goroutine about to begin, on `root` (NULL: CPython maps a chunk of its own, and
   raises MemoryError in the goroutine when it can not). */
static inline void ps_start(pystate *s, PyThreadState *ts, _PyStackChunk *root, int c_depth) {
#if PS_CFRAME
    s->first_cframe = *ts->cframe;
    s->first_cframe.current_frame = NULL;
    s->first_cframe.previous = NULL;
    s->cframe = ts->cframe = &s->first_cframe;
#elif PY_VERSION_HEX >= 0x030F0000
    ts->current_frame = ts->base_frame;
#else
    ts->current_frame = NULL;
#endif
    ts->datastack_chunk = root;
    /* Not at data[0]: CPython frees a chunk when a frame there ends. */
    ts->datastack_top = root ? &root->data[1] : NULL;
    ts->datastack_limit = ps_limit_of(root);
    s->exc.exc_value = NULL;
    s->exc.previous_item = NULL;
    ts->exc_info = &s->exc;
    ts->context = s->context;
    s->context = NULL;
    ts->context_ver++;
    ts->tracing = 0;
#if PY_VERSION_HEX < 0x030C0000
    _PyThreadState_UpdateTracingState(ts);     /* who parked may have done so in its trace function */
#endif
    ts->PS_PY_DEPTH = ts->PS_PY_LIMIT;
#if PS_C_DEPTH
    ts->c_recursion_remaining = c_depth;
#endif
#ifdef Py_GIL_DISABLED
    ts->critical_section = 0;
#endif
#if PS_DEFERRED
    ((_PyThreadStateImpl *)ts)->c_stack_refs = NULL;
    s->c_refs = NULL;
#endif
    (void)c_depth;
}

static inline int ps_c_depth(PyThreadState *ts) {
#if PS_C_DEPTH
    return ts->c_recursion_remaining;
#else
    (void)ts;
    return 0;
#endif
}

/* Links of s that point into the n bytes at `from` will point as far into `to`.  `heap` is whichever of
   the two is the heap copy: the walk goes on through it, since only there all links may be changed. */
static inline void ps_shift(pystate *s, char *from, char *to, size_t n, char *heap) {
    ptrdiff_t delta = to - from, on = heap - from;
#if PS_ENTRY_FRAMES
    for (pyframe **link = &s->frame; *link; ) {
        char *at = (char *)*link;
        if ((size_t)(at - from) < n) {
            *link = (pyframe *)(at + delta);
            at += on;
        }
        link = &((pyframe *)at)->previous;
    }
#endif
#if PS_DEFERRED
    for (struct _PyCStackRef **link = &s->c_refs; *link; ) {
        char *at = (char *)*link;
        if ((size_t)(at - from) < n) {
            *link = (struct _PyCStackRef *)(at + delta);
            at += on;
        }
        link = &((struct _PyCStackRef *)at)->next;
    }
#endif
    (void)s; (void)n; (void)delta; (void)on;
}

#endif
