/* Goroutine and Task as Python sees them; go, fork, current, gosched; what becomes of a failure. */
#include "module.h"
#include "sema.h"
#include "scope.h"
#include <structmember.h>
#include <unistd.h>

/* --- starting -------------------------------------------------------------------------------------- */
static PyObject *inner_function(PyObject *fn) {
    if (PyMethod_Check(fn)) fn = PyMethod_GET_FUNCTION(fn);
    return fn;
}

/* functools.partial objects may be nested; a borrowed reference to what they call in the end. */
static PyObject *without_partial(PyObject *fn) {
    while (!strcmp(Py_TYPE(fn)->tp_name, "functools.partial")) {
        PyObject *inner = PyObject_GetAttrString(fn, "func");
        if (!inner) { PyErr_Clear(); break; }
        fn = inner;
        Py_DECREF(inner);                /* the partial holds it */
    }
    return fn;
}

static int refuse_coroutine_function(const char *what, PyObject *fn) {
    if (!PyFunction_Check(fn) && !PyMethod_Check(fn)) fn = without_partial(fn);
    fn = inner_function(fn);
    if (LIKELY(!PyFunction_Check(fn)
               || !(((PyCodeObject *)PyFunction_GET_CODE(fn))->co_flags & CO_COROUTINE))) return 0;
    PyErr_Format(PyExc_TypeError,
                 "%s() of the coroutine function %U: calling it would not run it; use gofer.aio "
                 "(aio.await_(%U(...)) in a plain function)",
                 what, ((PyFunctionObject *)fn)->func_qualname, ((PyFunctionObject *)fn)->func_qualname);
    return -1;
}

int py_check_callable(const char *what, PyObject *const *args, Py_ssize_t nargs) {
    if (UNLIKELY(nargs == 0)) {
        PyErr_Format(PyExc_TypeError, "%s() needs a function to call", what);
        return -1;
    }
    if (UNLIKELY(!PyCallable_Check(args[0]))) {
        PyErr_Format(PyExc_TypeError, "%s() of %R: it can not be called; pass a function and its arguments "
                     "(%s(f, x), not %s(f(x)))", what, args[0], what, what);
        return -1;
    }
    return refuse_coroutine_function(what, args[0]);
}

PyObject *py_start(enum g_kind kind, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                   void (*at_end)(G *, PyObject *), PyObject *arg) {
    G *g = g_new(kind, args, nargs, kwnames);
    if (UNLIKELY(!g)) { Py_XDECREF(arg); return NULL; }
    g->at_end = at_end;
    g->at_end_arg = arg;
    G *self = g_self_quick();
    if (UNLIKELY(self->scope != NULL)) g_hooks.inherit(g, self);
    if (UNLIKELY(g_spawn(g) < 0)) { Py_DECREF(g); return NULL; }
    return (PyObject *)g;
}

static PyObject *name_of(PyObject *fn) {
    fn = without_partial(fn);
    PyObject *name = PyFunction_Check(fn) ? Py_NewRef(((PyFunctionObject *)fn)->func_qualname)
                                          : PyObject_GetAttrString(fn, "__qualname__");
    if (name && PyUnicode_Check(name)) return name;
    Py_XDECREF(name);
    PyErr_Clear();
    return PyUnicode_FromString(Py_TYPE(fn)->tp_name);
}

PyObject *py_start_task(scope *s, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    G *g = g_new(KIND_TASK, args, nargs, kwnames);
    if (UNLIKELY(!g)) return NULL;
    if (UNLIKELY(!(g->name = name_of(args[1])))) { Py_DECREF(g); return NULL; }
    if (UNLIKELY(!scope_adopt(s, g))) {
        Py_DECREF(g);
        PyErr_SetString(PyExc_RuntimeError, "Group.go() outside of its with: nobody would wait for this one");
        return NULL;
    }
    if (UNLIKELY(g_spawn(g) < 0)) { Py_DECREF(g); return NULL; }
    return (PyObject *)g;
}

static PyObject *py_go(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    if (UNLIKELY(py_check_callable("go", args, nargs) < 0)) return NULL;
    return py_start(KIND_GO, args, nargs, kwnames, NULL, NULL);
}

static PyObject *py_fork(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    if (UNLIKELY(py_check_callable("fork", args, nargs) < 0)) return NULL;
    return py_start(KIND_TASK, args, nargs, kwnames, NULL, NULL);
}

/* Whatever it ended by, somebody hears of it.  One that is killed while it runs may
   get its GoroutineExit here. */
static void tell_end(G *g, PyObject *told) {
    PyObject *r;
    int tries = 3;
    (void)g;
    while (!(r = PyObject_CallNoArgs(told)) && PyErr_ExceptionMatches(rt.errors.exit) && --tries)
        PyErr_Clear();
    if (!r) PyErr_WriteUnraisable(told);
    Py_XDECREF(r);
    Py_DECREF(told);
}

/* fork_apart(told, run, fn): fork(run, fn) for somebody who may be about to block the calling thread: any
   other worker is to start it, told() is called at its end, and it bears the name of fn. */
static PyObject *py_fork_apart(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 3) {
        PyErr_Format(PyExc_TypeError, "fork_apart() takes exactly 3 arguments (%zd given)", nargs);
        return NULL;
    }
    G *g = g_new(KIND_TASK, args + 1, 2, NULL);
    if (!g) return NULL;
    if (!(g->name = name_of(args[2]))) { Py_DECREF(g); return NULL; }
    g->at_end = tell_end;
    g->at_end_arg = Py_NewRef(args[0]);
    G *self = g_self_quick();
    if (self->scope) g_hooks.inherit(g, self);
    if (g_spawn_apart(g) < 0) { Py_DECREF(g); return NULL; }
    return (PyObject *)g;
}

static PyObject *py_current(PyObject *module, PyObject *unused) {
    return Py_XNewRef((PyObject *)g_self());
}

static PyObject *py_gosched(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (UNLIKELY(no_args("gosched", nargs) < 0)) return NULL;
    G *g = g_self();
    if (UNLIKELY(!g || g_yield(g) < 0)) return NULL;
    Py_RETURN_NONE;
}

/* --- what becomes of a failure --------------------------------------------------------------------- */
PyObject *py_panic_hook, *py_child_ended_hook, *py_swallows_hook;       /* set_hooks */

/* Ends the process.  The hook prints and exits; what follows it here is for when it can not. */
static void panic(G *g, PyObject *exc) {
    PyObject *hook = py_panic_hook;
    PyObject *test = g->bubble ? bubble_panic_hook(g->scope->bubble) : NULL;
    if (test) {                          /* which goes on */
        PyObject *r = PyObject_CallFunctionObjArgs(test, (PyObject *)g, exc, NULL);
        if (!r) PyErr_WriteUnraisable((PyObject *)g);
        Py_XDECREF(r);
        Py_DECREF(test);
        return;
    }
    if (hook) {
        PyObject *r = PyObject_CallFunctionObjArgs(hook, (PyObject *)g, exc, NULL);
        if (!r && relaxed_load(&g->pending) & P_KILL) {      /* another one panics, or run() is over */
            PyErr_Clear();
            return;
        }
        Py_XDECREF(r);
        if (!r) PyErr_Print();
    } else {
        ps_raise(Py_NewRef(exc));
        PyErr_Print();
    }
    _exit(2);
}

/* Ended by being cancelled: a join says so, without being a failure that wants to be seen. */
static void note_cancelled(G *g) {
    if (g->kind != KIND_TASK) return;
    g->exception = PyObject_CallFunction(rt.errors.canceled, "s",
                                         "join of a task that was cancelled: it has no result");
    if (!g->exception) g->exception = ps_take_exception();
    relaxed_store(&g->seen, true);
}

static void failed(G *g) {
    PyObject *exc = ps_take_exception();
    if (!exc) return;
    bool killed = relaxed_load(&g->pending) & P_KILL;
    if (PyErr_GivenExceptionMatches(exc, rt.errors.exit)) {}
    else if (scope_is_cancellation(exc, false)) note_cancelled(g);
    else if (scope_is_cancellation(exc, true)) {}
    else if (killed) {
        ps_raise(Py_NewRef(exc));
        PyErr_WriteUnraisable((PyObject *)g);
    } else {
        bool exits = PyErr_GivenExceptionMatches(exc, PyExc_SystemExit);
        if (exits) g_interrupt_main(Py_NewRef(exc));
        if (g->kind == KIND_TASK) {
            g->exception = Py_NewRef(exc);
            relaxed_store(&g->seen, exits);
        } else if (!exits) panic(g, exc);
    }
    Py_DECREF(exc);
    if (PyErr_Occurred()) PyErr_WriteUnraisable((PyObject *)g);
}

static int swallows(G *g) {
    if (!py_swallows_hook) return 0;
    PyObject *r = PyObject_CallOneArg(py_swallows_hook, (PyObject *)g);
    if (!r && !PyErr_ExceptionMatches(PyExc_Exception)) return -1;       /* Ctrl-C while it was printed */
    if (!r) PyErr_WriteUnraisable((PyObject *)g);
    Py_XDECREF(r);
    return 0;
}

/* In the child of a fork that was made in this goroutine: the program ends with it.  Not as Py_Exit ends it:
   that wants the thread state of the process's first thread, which a child need not have. */
static void main_ended(PyObject *result) {
    PyObject *exc = result ? Py_NewRef(Py_None) : ps_take_exception();
    if (py_child_ended_hook) PyObject_CallOneArg(py_child_ended_hook, exc);
    _exit(1);
}

/* --- Goroutine ------------------------------------------------------------------------------------- */
static const char *const state_names[] = {
    [G_NEW] = "runnable", [G_RUNNABLE] = "runnable", [G_RUNNING] = "running", [G_WAITING] = "waiting",
    [G_DEAD] = "dead",
};
static PyObject *states[G_DEAD + 1];     /* the same as str */

static int make_states(void) {
    for (int i = 0; i <= G_DEAD; i++)
        if (!(states[i] = PyUnicode_InternFromString(state_names[i]))) return -1;
    return 0;
}

static PyObject *goroutine_id(G *g, void *unused) { return PyLong_FromUnsignedLongLong(g->id); }
static PyObject *goroutine_state(G *g, void *unused) { return Py_NewRef(states[g_seen_state(g)]); }
static PyObject *goroutine_done(G *g, void *unused) { return PyBool_FromLong(g_is_dead(g)); }

static PyObject *goroutine_name(G *g, void *unused) {
    lock_acquire(&g->lock);
    PyObject *name = Py_XNewRef(g->name);
    PyObject *fn = g->args ? Py_NewRef(fnref_get(g->fn)) : NULL;     /* it may be about to end */
    lock_release(&g->lock);
    if (!name) {
        if (g == rt.main) name = PyUnicode_FromString("main");
        else if (g_is_foreign(g)) name = PyUnicode_FromString("thread");
        else if (fn) name = name_of(fn);
        else name = PyUnicode_FromFormat("goroutine %llu", (unsigned long long)g->id);
    }
    Py_XDECREF(fn);
    return name;
}

static int goroutine_set_name(G *g, PyObject *value, void *unused) {
    if (!value || !PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "the name of a goroutine is a str%s%.200s", value ? ", not " : "",
                     value ? Py_TYPE(value)->tp_name : ": it can not be deleted");
        return -1;
    }
    lock_acquire(&g->lock);
    PyObject *old = g->name;
    g->name = Py_NewRef(value);
    lock_release(&g->lock);
    Py_XDECREF(old);
    return 0;
}

static PyObject *goroutine_repr(G *g) {
    PyObject *name = goroutine_name(g, NULL);
    if (!name) return NULL;
    const char *kind = g->kind == KIND_TASK ? "Task" : "Goroutine";
    enum g_state state = g_seen_state(g);
    const char *why = state == G_WAITING ? wait_reason_names[relaxed_load(&g->why)] : "";
    PyObject *r = PyUnicode_FromFormat("<%s %llu %R %s%s%s%s>", kind, (unsigned long long)g->id, name,
                                       state_names[state], *why ? " (" : "", why, *why ? ")" : "");
    Py_DECREF(name);
    return r;
}

static PyObject *goroutine_join(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (no_args("join", nargs) < 0 || sema_join((G *)self) < 0) return NULL;
    Py_RETURN_NONE;
}

static void goroutine_dealloc(G *g) {
    g_clear(g);
    g_free(g);
}

static PyGetSetDef goroutine_getset[] = {
    {"id", (getter)goroutine_id, NULL, "1 for main; never given twice in a process.", NULL},
    {"name", (getter)goroutine_name, (setter)goroutine_set_name,
     "For people: what it runs, unless set to another string.", NULL},
    {"state", (getter)goroutine_state, NULL, "\"runnable\", \"running\", \"waiting\" or \"dead\".", NULL},
    {"done", (getter)goroutine_done, NULL, "Whether it has ended.", NULL},
    {NULL},
};
static PyMethodDef goroutine_methods[] = {
    {"join", FAST(goroutine_join), METH_FASTCALL,
     "join($self, /)\n--\n\n"
     "Wait until it has ended; raise nothing of its own failure. Raises Cancelled in a cancelled scope,\n"
     "and RuntimeError when a goroutine joins itself."},
    {NULL},
};
PyTypeObject Goroutine_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer.Goroutine",
    .tp_doc = "A function that runs on its own, started by go(). It can not be made in another way.",
    .tp_basicsize = sizeof(G),
    .tp_weaklistoffset = offsetof(G, weakrefs),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)goroutine_dealloc,
    .tp_repr = (reprfunc)goroutine_repr,
    .tp_methods = goroutine_methods,
    .tp_getset = goroutine_getset,
};

/* --- Task ------------------------------------------------------------------------------------------ */
static PyObject *task_join(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    G *g = (G *)self;
    if (no_args("join", nargs) < 0 || sema_join(g) < 0) return NULL;
    if (g->exception) {
        relaxed_store(&g->seen, true);
        ps_raise(Py_NewRef(g->exception));
        return NULL;
    }
    if (g->result) return Py_NewRef(g->result);
    if (!g->abandoned) Py_RETURN_NONE;
    PyErr_Format(PyExc_RuntimeError, "join of task %llu, which has not survived os.fork(): in the child only "
                 "the goroutine that called it goes on", (unsigned long long)g->id);
    return NULL;
}

static PyObject *task_exception(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    G *g = (G *)self;
    if (no_args("exception", nargs) < 0 || sema_join(g) < 0) return NULL;
    relaxed_store(&g->seen, true);
    return Py_NewRef(g->exception ? g->exception : Py_None);
}

static PyObject *task_cancel(PyObject *self, PyObject *unused) {
    g_cancel((G *)self);
    Py_RETURN_NONE;
}

static int task_traverse(G *g, visitproc visit, void *arg) {
    Py_VISIT(g->result);
    Py_VISIT(g->exception);
    return 0;
}

static int task_clear(G *g) {
    Py_CLEAR(g->result);
    Py_CLEAR(g->exception);
    return 0;
}

/* A failure that nobody has seen is reported when the task goes. */
static void task_finalize(G *g) {
    if (!g->exception || relaxed_load(&g->seen)) return;
    relaxed_store(&g->seen, true);
    PyObject *before = ps_take_exception();
    ps_raise(Py_NewRef(g->exception));
    PyErr_WriteUnraisable((PyObject *)g);
    if (before) ps_raise(before);
}

static void task_dealloc(G *g) {
    if (PyObject_CallFinalizerFromDealloc((PyObject *)g) < 0) return;
    PyObject_GC_UnTrack(g);
    g_clear(g);
    g_free(g);
}

static PyMethodDef task_methods[] = {
    {"join", FAST(task_join), METH_FASTCALL,
     "join($self, /)\n--\n\n"
     "Wait until it has ended; return its value or raise its exception (Canceled if it was cancelled).\n"
     "None if it ended by goexit(). Raises Cancelled in a cancelled scope."},
    {"exception", FAST(task_exception), METH_FASTCALL,
     "exception($self, /)\n--\n\n"
     "Wait until it has ended; return its exception, or None if there was none. It then counts as seen\n"
     "and is not reported. Raises Cancelled in a cancelled scope."},
    {"cancel", task_cancel, METH_NOARGS,
     "cancel($self, /)\n--\n\n"
     "Every operation in it that would have to wait raises Cancelled from now on. Does not wait."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "Task[T]: a task whose value is a T."},
    {NULL},
};
PyTypeObject Task_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer.Task",
    .tp_doc = "A goroutine that keeps its result or failure for who joins it; started by fork() or\n"
              "Group.go().",
    .tp_base = &Goroutine_Type,
    .tp_basicsize = sizeof(G),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)task_dealloc,
    .tp_traverse = (traverseproc)task_traverse,
    .tp_clear = (inquiry)task_clear,
    .tp_finalize = (destructor)task_finalize,
    .tp_methods = task_methods,
};

static PyObject *py_hold_end(PyObject *module, PyObject *unused) {
    G *g = g_self();
    if (!g || g_hold_end(g) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_release_end(PyObject *module, PyObject *unused) {
    G *g = g_self_quick();
    if (g && g->holds_end) g_release_end(g);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"hold_end", py_hold_end, METH_NOARGS, NULL},
    {"release_end", py_release_end, METH_NOARGS, NULL},
    {"go", FAST(py_go), METH_FASTCALL | METH_KEYWORDS,
     "go($module, fn, /, *args, **kwargs)\n--\n\n"
     "Start fn(*args, **kwargs) as a goroutine and return its Goroutine.\n\n"
     "An exception that it lets escape is a panic and ends the program with status 2, as in Go; ending by\n"
     "Cancelled or goexit() is none. Does not wait. TypeError if fn can not be called or is a coroutine\n"
     "function."},
    {"fork", FAST(py_fork), METH_FASTCALL | METH_KEYWORDS,
     "fork($module, fn, /, *args, **kwargs)\n--\n\n"
     "Start fn(*args, **kwargs) as a goroutine and return its Task, whose join() returns its value or\n"
     "raises its exception. A failure that nobody joins is reported through sys.unraisablehook when the\n"
     "task is dropped. Does not wait. TypeError as for go()."},
    {"fork_apart", FAST(py_fork_apart), METH_FASTCALL, NULL},
    {"current", py_current, METH_NOARGS,
     "current($module, /)\n--\n\n"
     "The Goroutine that calls this; in a plain thread an object that stands for the thread."},
    {"gosched", FAST(py_gosched), METH_FASTCALL,
     "gosched($module, /)\n--\n\n"
     "Let other goroutines run. Raises Cancelled in a cancelled scope."},
    {NULL},
};

int py_g_add(PyObject *module) {
    g_hooks.failed = failed;
    g_hooks.main_ended = main_ended;
    g_hooks.swallows = swallows;
    return make_states() < 0 || PyModule_AddType(module, &Goroutine_Type) < 0
        || PyModule_AddType(module, &Task_Type) < 0 || PyModule_AddFunctions(module, functions) < 0 ? -1 : 0;
}
