/* cancel_scope, timeout, shield as Python sees them, and the scope of a Group. */
#include "module.h"
#include "scope.h"
#include <structmember.h>

static scope *new_scope(PyTypeObject *type) {
    scope *s = (scope *)type->tp_alloc(type, 0);
    if (s) scope_prepare(s);
    return s;
}

static PyObject *scope_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    if (PyTuple_GET_SIZE(args) || (kwargs && PyDict_GET_SIZE(kwargs))) {
        PyErr_Format(PyExc_TypeError, "%s() takes no arguments", strrchr(type->tp_name, '.') + 1);
        return NULL;
    }
    return (PyObject *)new_scope(type);
}

/* The object that a call of the type makes: the fast way to it. */
static PyObject *scope_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    PyTypeObject *cls = (PyTypeObject *)type;
    if (LIKELY(PyVectorcall_NARGS(nargsf) == 0 && !kwnames)) return (PyObject *)new_scope(cls);
    PyErr_Format(PyExc_TypeError, "%s() takes no arguments", strrchr(cls->tp_name, '.') + 1);
    return NULL;
}

static PyObject *enter(PyObject *self, PyObject *unused) {
    return scope_enter((scope *)self) < 0 ? NULL : Py_NewRef(self);
}

static int leave(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs == 3) return scope_leave((scope *)self, args[1] == Py_None ? NULL : args[1]);
    PyErr_Format(PyExc_TypeError, "__exit__() takes exactly 3 arguments (%zd given)", nargs);
    return -1;
}

static PyObject *exit_scope(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    int ours = leave(self, args, nargs);
    return ours < 0 ? NULL : PyBool_FromLong(ours);
}

static PyObject *cancel(PyObject *self, PyObject *unused) {
    scope_cancel((scope *)self);
    Py_RETURN_NONE;
}

static PyObject *is_cancelled(scope *s, void *unused) { return PyBool_FromLong(relaxed_load(&s->asked)); }

static const char *state_of(const scope *s) {
    static const char *const names[] = { "new", "entered", "left" };
    return names[relaxed_load(&((scope *)s)->state)];
}

static PyObject *repr(scope *s) {
    return PyUnicode_FromFormat("<%s %s%s at %p>", strrchr(Py_TYPE(s)->tp_name, '.') + 1, state_of(s),
                                relaxed_load(&s->asked) ? " cancelled" : "", s);
}

/* --- cancel_scope ---------------------------------------------------------------------------------- */
static PyMethodDef cancel_scope_methods[] = {
    {"__enter__", enter, METH_NOARGS, NULL},
    {"__exit__", FAST(exit_scope), METH_FASTCALL, NULL},
    {"cancel", cancel, METH_NOARGS,
     "cancel($self, /)\n--\n\n"
     "Cancel what is inside: every operation there that would have to wait raises Cancelled from now\n"
     "on, those that wait already too. From any goroutine or thread, any number of times, also\n"
     "before the with block (which is then cancelled from its start) and after it (for what was\n"
     "started inside). Does not wait."},
    {NULL},
};
static PyGetSetDef cancel_scope_getset[] = {
    {"cancelled", (getter)is_cancelled, NULL, "Whether cancel() was called.", NULL},
    {NULL},
};
PyTypeObject CancelScope_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer.cancel_scope",
    .tp_doc = "cancel_scope()\n--\n\n"
              "A with block that can be cancelled, with all goroutines that are started inside\n"
              "and their blocks.\n\n"
              "    with cancel_scope() as scope:\n"
              "        ...  # somewhere: scope.cancel()\n\n"
              "Every operation inside that would have to wait then raises Cancelled, again and again\n"
              "until the block is left; an operation that can be done at once is done. The block\n"
              "stops its own Cancelled at its end.",
    .tp_basicsize = sizeof(scope),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = scope_new,
    .tp_vectorcall = scope_vectorcall,
    .tp_dealloc = (destructor)scope_dealloc,
    .tp_repr = (reprfunc)repr,
    .tp_methods = cancel_scope_methods,
    .tp_getset = cancel_scope_getset,
};

/* --- shield ---------------------------------------------------------------------------------------- */
static PyObject *as_shield(PyObject *self) {
    if (self) ((scope *)self)->is_shield = true;
    return self;
}

static PyObject *shield_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    return as_shield(scope_new(type, args, kwargs));
}

static PyObject *shield_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    return as_shield(scope_vectorcall(type, args, nargsf, kwnames));
}

static PyMethodDef shield_methods[] = {
    {"__enter__", enter, METH_NOARGS, NULL},
    {"__exit__", FAST(exit_scope), METH_FASTCALL, NULL},
    {NULL},
};
PyTypeObject Shield_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer.shield",
    .tp_doc = "shield()\n--\n\n"
              "A with block inside which no cancellation from outside arrives, nor in what is started\n"
              "there: for cleaning up. What was held off arrives at the first operation after it that\n"
              "would have to wait. Scopes and time-outs of its own work inside; Ctrl-C, the end of\n"
              "run() and Deadlock come through.",
    .tp_basicsize = sizeof(scope),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = shield_new,
    .tp_vectorcall = shield_vectorcall,
    .tp_dealloc = (destructor)scope_dealloc,
    .tp_repr = (reprfunc)repr,
    .tp_methods = shield_methods,
};

/* --- timeout --------------------------------------------------------------------------------------- */
static PyObject *timeout_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    int64_t ns = NEVER;
    if (UNLIKELY(kwnames != NULL)) {
        PyErr_SetString(PyExc_TypeError, "timeout() takes no keyword arguments");
        return NULL;
    }
    if (one_arg("timeout", PyVectorcall_NARGS(nargsf)) < 0) return NULL;
    if (args[0] != Py_None && duration_ns(args[0], "timeout", &ns) < 0) return NULL;
    scope *s = new_scope((PyTypeObject *)type);
    /* Beyond that it is as good as none, and Deadlock is to see it so. */
    if (s && ns < NEVER / 2) s->ns = ns;
    return (PyObject *)s;
}

static PyObject *timeout_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *names = kwargs && PyDict_GET_SIZE(kwargs) ? kwargs : NULL;
    PyObject **items = ((PyTupleObject *)args)->ob_item;
    return timeout_vectorcall((PyObject *)type, items, (size_t)PyTuple_GET_SIZE(args), names);
}

static PyObject *seconds(const scope *s) { return PyFloat_FromDouble(s->ns > 0 ? (double)s->ns / 1e9 : 0); }

static PyObject *timeout_repr(scope *s) {
    PyObject *d = s->ns == NEVER ? Py_NewRef(Py_None) : seconds(s);
    PyObject *r = d ? PyUnicode_FromFormat("<timeout(%R) %s%s at %p>", d, state_of(s),
                                           relaxed_load(&s->expired) ? " expired" : "", s) : NULL;
    Py_XDECREF(d);
    return r;
}

/* In place of the Cancelled that ended the block, which is its cause. */
static void raise_timeout(scope *s, PyObject *cancelled) {
    PyObject *d = seconds(s);
    PyObject *text = d ? PyUnicode_FromFormat("timeout(%R) expired", d) : NULL;
    PyObject *error = text ? PyObject_CallOneArg(PyExc_TimeoutError, text) : NULL;
    Py_XDECREF(d);
    Py_XDECREF(text);
    if (!error) return;
    PyException_SetCause(error, Py_NewRef(cancelled));
    PyErr_SetObject(PyExc_TimeoutError, error);
    Py_DECREF(error);
}

static PyObject *timeout_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    int ours = leave(self, args, nargs);
    if (ours < 0) return NULL;
    if (!ours) Py_RETURN_FALSE;
    raise_timeout((scope *)self, args[1]);
    return NULL;
}

static PyObject *timeout_expired(scope *s, void *unused) {
    return PyBool_FromLong(relaxed_load(&s->expired));
}

static PyMethodDef timeout_methods[] = {
    {"__enter__", enter, METH_NOARGS, NULL},
    {"__exit__", FAST(timeout_exit), METH_FASTCALL, NULL},
    {NULL},
};
static PyGetSetDef timeout_getset[] = {
    {"expired", (getter)timeout_expired, NULL, "Whether the time was over before the block had ended.", NULL},
    {NULL},
};
PyTypeObject Timeout_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer.timeout",
    .tp_doc = "timeout(d, /)\n--\n\n"
              "A with block that is cancelled d seconds (float or timedelta; None: never) after\n"
              "it was entered.\n\n"
              "    with timeout(2.5):\n"
              "        reply = replies.recv()\n\n"
              "Every operation inside that would have to wait then raises Cancelled, as do those in\n"
              "goroutines that were started inside; the end of the block makes it a TimeoutError. Of\n"
              "blocks in each other the one whose time is over first comes first. One that has nothing\n"
              "more to wait for raises nothing.",
    .tp_basicsize = sizeof(scope),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = timeout_new,
    .tp_vectorcall = timeout_vectorcall,
    .tp_dealloc = (destructor)scope_dealloc,
    .tp_repr = (reprfunc)timeout_repr,
    .tp_methods = timeout_methods,
    .tp_getset = timeout_getset,
};

/* --- the scope of a Group -------------------------------------------------------------------------- */
static PyObject *group_go(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    if (UNLIKELY(nargs < 2)) { PyErr_BadArgument(); return NULL; }
    if (UNLIKELY(py_check_callable("Group.go", args, nargs) < 0)) return NULL;
    return py_start_task((scope *)self, args, nargs, kwnames);
}

static PyObject *group_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (no_args("wait", nargs) < 0 || scope_wait((scope *)self) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *group_leave(PyObject *self, PyObject *error) {
    int ours = scope_leave((scope *)self, error == Py_None ? NULL : error);
    return ours < 0 ? NULL : PyBool_FromLong(ours);
}

static PyMethodDef group_methods[] = {
    {"enter", enter, METH_NOARGS, NULL},
    {"leave", group_leave, METH_O, NULL},
    {"cancel", cancel, METH_NOARGS, NULL},
    {"go", FAST(group_go), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"wait", FAST(group_wait), METH_FASTCALL, NULL},
    {NULL},
};
static PyGetSetDef group_getset[] = {
    {"cancelled", (getter)is_cancelled, NULL, NULL, NULL},
    {NULL},
};
PyTypeObject GroupScope_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer._core.group_scope",
    .tp_basicsize = sizeof(scope),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = scope_new,
    .tp_dealloc = (destructor)scope_dealloc,
    .tp_repr = (reprfunc)repr,
    .tp_methods = group_methods,
    .tp_getset = group_getset,
};

/* --- bubble ---------------------------------------------------------------------------------------- */
static PyObject *none_or_null(int result) {
    if (result < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_bubble_enter(PyObject *self, PyObject *panic_hook) {
    return none_or_null(bubble_enter((bubble *)self, panic_hook));
}

static PyObject *py_bubble_leave(PyObject *self, PyObject *error) {
    int ours = bubble_leave((bubble *)self, error == Py_None ? NULL : error);
    return ours < 0 ? NULL : PyBool_FromLong(ours);
}

static PyObject *py_bubble_join(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    return no_args("join", nargs) < 0 ? NULL : none_or_null(bubble_join((bubble *)self));
}

static PyObject *py_bubble_wait(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    return no_args("wait", nargs) < 0 ? NULL : none_or_null(bubble_wait());
}

static PyMethodDef bubble_methods[] = {
    {"enter", py_bubble_enter, METH_O, NULL},
    {"leave", py_bubble_leave, METH_O, NULL},
    {"cancel", cancel, METH_NOARGS, NULL},
    {"join", FAST(py_bubble_join), METH_FASTCALL, NULL},
    {NULL},
};
PyTypeObject Bubble_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer._core.bubble",
    .tp_basicsize = sizeof(bubble),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = scope_new,
    .tp_dealloc = (destructor)bubble_dealloc,
    .tp_repr = (reprfunc)repr,
    .tp_methods = bubble_methods,
};

/* --- functions ------------------------------------------------------------------------------------- */
static PyObject *is_cancellation(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (UNLIKELY(nargs != 2)) { PyErr_BadArgument(); return NULL; }
    return PyBool_FromLong(scope_is_cancellation(args[0], args[1] == Py_True));
}

static PyMethodDef functions[] = {
    {"is_cancellation", FAST(is_cancellation), METH_FASTCALL, NULL},
    {"bubble_wait", FAST(py_bubble_wait), METH_FASTCALL, NULL},
    {NULL},
};

int py_scope_add(PyObject *module) {
    scope_init();
    return PyModule_AddType(module, &CancelScope_Type) < 0 || PyModule_AddType(module, &Shield_Type) < 0
        || PyModule_AddType(module, &Timeout_Type) < 0 || PyModule_AddType(module, &GroupScope_Type) < 0
        || PyModule_AddType(module, &Bubble_Type) < 0
        || PyModule_AddFunctions(module, functions) < 0 ? -1 : 0;
}
