/* Chan, its two one-way views, and select as Python sees them. */
#include "module.h"
#include "select.h"
#include <structmember.h>

/* A view is a channel that lacks half of the methods.  `c` is owned. */
typedef struct { PyObject_HEAD chan *c; } view;

static chan *chan_of(PyObject *o) {
    return Py_TYPE(o) == &Chan_Type ? (chan *)o : ((view *)o)->c;
}

static bool is_channel(PyObject *o) {
    PyTypeObject *t = Py_TYPE(o);
    return t == &Chan_Type || t == &SendChan_Type || t == &RecvChan_Type;
}

/* --- operations: self is a Chan or a view ---------------------------------------------------------- */
static PyObject *py_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (UNLIKELY(one_arg("send", nargs) < 0)) return NULL;
    if (UNLIKELY(chan_send(chan_of(self), args[0]) < 0)) return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (UNLIKELY(no_args("recv", nargs) < 0)) return NULL;
    chan *c = chan_of(self);
    PyObject *value;
    int got = chan_recv(c, &value);
    if (LIKELY(got > 0)) return value;
    if (got == 0) chan_closed_error(c, "recv");
    return NULL;
}

static PyObject *with_ok(PyObject *value) {          /* steals it; NULL: closed */
    PyObject *pair = PyTuple_New(2);
    if (!pair) { Py_XDECREF(value); return NULL; }
    PyTuple_SET_ITEM(pair, 0, value ? value : Py_NewRef(Py_None));
    PyTuple_SET_ITEM(pair, 1, Py_NewRef(value ? Py_True : Py_False));
    return pair;
}

static PyObject *py_recv_ok(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (UNLIKELY(no_args("recv_ok", nargs) < 0)) return NULL;
    PyObject *value;
    return chan_recv(chan_of(self), &value) < 0 ? NULL : with_ok(value);
}

static PyObject *py_next(PyObject *self) {
    PyObject *value;
    return chan_recv(chan_of(self), &value) > 0 ? value : NULL;      /* NULL without an exception: the end */
}

static PyObject *py_close(PyObject *self, PyObject *unused) {
    if (chan_close(chan_of(self)) < 0) return NULL;
    Py_RETURN_NONE;
}

/* A timer's channel holds a tick until it is taken, but is unbuffered to all who look (as in Go 1.23). */
static Py_ssize_t py_len(PyObject *self) {
    chan *c = chan_of(self);
    return c->alarm ? 0 : chan_len(c);
}
static PyObject *py_cap(PyObject *self, void *unused) {
    chan *c = chan_of(self);
    return PyLong_FromSsize_t(c->alarm ? 0 : c->cap);
}
static PyObject *py_closed(PyObject *self, void *unused) {
    return PyBool_FromLong(chan_is_closed(chan_of(self)));
}
static int py_bool(PyObject *self) { return 1; }

static PyObject *view_new(PyTypeObject *type, chan *c) {
    view *v = PyObject_GC_New(view, type);
    if (!v) return NULL;
    v->c = (chan *)Py_NewRef((PyObject *)c);
    PyObject_GC_Track(v);
    return (PyObject *)v;
}
static PyObject *py_sender(PyObject *self, void *unused) {
    return view_new(&SendChan_Type, chan_of(self));
}
static PyObject *py_get_receiver(PyObject *self, void *unused) {
    return view_new(&RecvChan_Type, chan_of(self));
}
PyObject *py_receiver(chan *c) { return view_new(&RecvChan_Type, c); }

/* --- Chan ------------------------------------------------------------------------------------------ */
static PyObject *chan_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"cap", NULL};
    Py_ssize_t cap = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|n:Chan", names, &cap)) return NULL;
    if (cap < 0) {
        PyErr_Format(PyExc_ValueError, "Chan(%zd): a channel can not hold fewer than 0 values; Chan() is "
                     "unbuffered, Chan(n) holds n", cap);
        return NULL;
    }
    chan *c = (chan *)type->tp_alloc(type, 0);
    if (c && chan_init(c, cap) < 0) Py_CLEAR(c);
    return (PyObject *)c;
}

static int chan_traverse(chan *c, visitproc visit, void *arg) {
    return c->ring ? chan_visit(c, visit, arg) : 0;
}
static int chan_tp_clear(chan *c) { chan_clear(c); return 0; }

static void chan_dealloc(chan *c) {
    PyObject_GC_UnTrack(c);
    clear_weakrefs((PyObject *)c, &c->weakrefs);
    if (c->alarm) chan_drop_alarm(c);
    if (c->ring) chan_clear(c);
    mem_free(c->ring);
    Py_TYPE(c)->tp_free(c);
}

static PyObject *chan_repr(chan *c) {
    const char *closed = chan_is_closed(c) ? " closed" : "";
    return PyUnicode_FromFormat("<Chan %zd/%zd%s at %p>", chan_len(c), c->cap, closed, c);
}

#define DOC_SEND \
    "send($self, value, /)\n--\n\n" \
    "Wait until somebody takes the value or there is room for it. Closed if the channel is or becomes\n" \
    "closed. Raises Cancelled in a cancelled scope; the value is not sent then."
#define DOC_RECV \
    "recv($self, /)\n--\n\n" \
    "Wait for a value and return it. Closed once the channel is closed and drained. Raises Cancelled in a\n" \
    "cancelled scope; nothing is taken then."
#define DOC_RECV_OK \
    "recv_ok($self, /)\n--\n\n" \
    "Wait for a value and return (value, True), or (None, False) once the channel is closed and drained.\n" \
    "Raises Cancelled in a cancelled scope; nothing is taken then."
#define DOC_CLOSE \
    "close($self, /)\n--\n\n" \
    "No more values: receivers get what is left and then the end, senders that wait raise Closed, as does\n" \
    "a second close. Does not wait."

#define METHOD_SEND {"send", FAST(py_send), METH_FASTCALL, DOC_SEND}
#define METHOD_RECV {"recv", FAST(py_recv), METH_FASTCALL, DOC_RECV}
#define METHOD_RECV_OK {"recv_ok", FAST(py_recv_ok), METH_FASTCALL, DOC_RECV_OK}
#define METHOD_CLOSE {"close", py_close, METH_NOARGS, DOC_CLOSE}
#define METHOD_GENERIC {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, \
                        "The type with that of its values, for checkers."}
#define GET_CAP {"cap", py_cap, NULL, "How many values it can hold; 0 when unbuffered.", NULL}
#define GET_CLOSED {"closed", py_closed, NULL, "Whether it has been closed.", NULL}

static PyMethodDef chan_methods[] = {
    METHOD_SEND, METHOD_RECV, METHOD_RECV_OK, METHOD_CLOSE, METHOD_GENERIC, {NULL},
};
static PyMethodDef sender_methods[] = { METHOD_SEND, METHOD_CLOSE, METHOD_GENERIC, {NULL} };
static PyMethodDef receiver_methods[] = { METHOD_RECV, METHOD_RECV_OK, METHOD_GENERIC, {NULL} };
static PyGetSetDef chan_getset[] = {
    GET_CAP, GET_CLOSED,
    {"sender", py_sender, NULL, "The half that can send and close.", NULL},
    {"receiver", py_get_receiver, NULL, "The half that can receive.", NULL},
    {NULL},
};
static PyGetSetDef view_getset[] = { GET_CAP, GET_CLOSED, {NULL} };
static PySequenceMethods as_sequence = { .sq_length = py_len };
static PyNumberMethods as_number = { .nb_bool = py_bool };

PyTypeObject Chan_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer.Chan",
    .tp_doc = "Chan(cap=0)\n--\n\n"
              "A channel for up to cap values; with 0 a send waits for its receiver. Who waits is served\n"
              "in order of arrival. ValueError if cap is negative.",
    .tp_basicsize = sizeof(chan),
    .tp_weaklistoffset = offsetof(chan, weakrefs),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = chan_new,
    .tp_dealloc = (destructor)chan_dealloc,
    .tp_traverse = (traverseproc)chan_traverse,
    .tp_clear = (inquiry)chan_tp_clear,
    .tp_repr = (reprfunc)chan_repr,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = py_next,
    .tp_methods = chan_methods,
    .tp_getset = chan_getset,
    .tp_as_sequence = &as_sequence,
    .tp_as_number = &as_number,
};

/* --- the views ------------------------------------------------------------------------------------- */
static int view_traverse(view *v, visitproc visit, void *arg) { Py_VISIT(v->c); return 0; }
static int view_clear(view *v) { (void)v; return 0; }     /* a cycle is broken in the channel */
static void view_dealloc(view *v) {
    PyObject_GC_UnTrack(v);
    Py_DECREF(v->c);
    PyObject_GC_Del(v);
}
static PyObject *view_repr(PyObject *self) {
    PyObject *inner = chan_repr(chan_of(self));
    if (!inner) return NULL;
    const char *type = Py_TYPE(self) == &SendChan_Type ? "SendChan" : "RecvChan";
    PyObject *r = PyUnicode_FromFormat("<%s of %U>", type, inner);
    Py_DECREF(inner);
    return r;
}
/* Two views of one half of one channel are equal. */
static PyObject *view_compare(PyObject *a, PyObject *b, int op) {
    if (Py_TYPE(a) != Py_TYPE(b) || (op != Py_EQ && op != Py_NE)) Py_RETURN_NOTIMPLEMENTED;
    return PyBool_FromLong((chan_of(a) == chan_of(b)) == (op == Py_EQ));
}
static Py_hash_t view_hash(PyObject *self) { return PyObject_Hash((PyObject *)chan_of(self)) ^ 1; }

PyTypeObject SendChan_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer.SendChan",
    .tp_doc = "The sending half of a channel: Chan.sender.",
    .tp_basicsize = sizeof(view),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)view_dealloc,
    .tp_traverse = (traverseproc)view_traverse,
    .tp_clear = (inquiry)view_clear,
    .tp_repr = view_repr,
    .tp_richcompare = view_compare,
    .tp_hash = view_hash,
    .tp_methods = sender_methods,
    .tp_getset = view_getset,
    .tp_as_sequence = &as_sequence,
    .tp_as_number = &as_number,
};

PyTypeObject RecvChan_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer.RecvChan",
    .tp_doc = "The receiving half of a channel: Chan.receiver.",
    .tp_basicsize = sizeof(view),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)view_dealloc,
    .tp_traverse = (traverseproc)view_traverse,
    .tp_clear = (inquiry)view_clear,
    .tp_repr = view_repr,
    .tp_richcompare = view_compare,
    .tp_hash = view_hash,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = py_next,
    .tp_methods = receiver_methods,
    .tp_getset = view_getset,
    .tp_as_sequence = &as_sequence,
    .tp_as_number = &as_number,
};

/* --- select ---------------------------------------------------------------------------------------- */
/* The channel of a bound method of ours; NULL when it is something else. */
static chan *bound_to(PyObject *o, PyCFunction *fn) {
    if (!PyCFunction_Check(o)) return NULL;
    PyObject *self = PyCFunction_GET_SELF(o);
    if (!self || !is_channel(self)) return NULL;
    *fn = PyCFunction_GET_FUNCTION(o);
    return chan_of(self);
}

static bool parse_case(PyObject *arg, select_case *k) {
    PyCFunction fn;
    *k = (select_case){ .kind = CASE_NONE };
    if (arg == Py_None) return true;
    if ((k->c = bound_to(arg, &fn))) {
        k->kind = fn == FAST(py_recv) ? CASE_RECV : fn == FAST(py_recv_ok) ? CASE_RECV_OK : CASE_NONE;
    } else if (PyTuple_CheckExact(arg) && PyTuple_GET_SIZE(arg) == 2
               && (k->c = bound_to(PyTuple_GET_ITEM(arg, 0), &fn)) && fn == FAST(py_send)) {
        k->kind = CASE_SEND;
        k->value = PyTuple_GET_ITEM(arg, 1);
    }
    return k->kind != CASE_NONE;
}

static PyObject *malformed(Py_ssize_t i, PyObject *arg) {
    PyErr_Format(PyExc_TypeError, "select() case %zd is %R: a case is ch.recv, ch.recv_ok (not called), the "
                 "pair (ch.send, value), or None", i, arg);
    return NULL;
}

static PyObject *closed_in_case(const select_case *k, Py_ssize_t i) {
    chan_closed_error(k->c, k->kind == CASE_SEND ? "select: send" : "select: recv");
    PyObject *exc = ps_take_exception(), *index = PyLong_FromSsize_t(i);
    bool told = index && PyObject_SetAttrString(exc, "index", index) == 0;
    Py_XDECREF(index);
    if (told) ps_raise(exc);
    else Py_DECREF(exc);
    return NULL;
}

static PyObject *outcome(const select_case *cases, Py_ssize_t i, PyObject *value, bool closed) {
    const select_case *k = &cases[i];
    if (k->kind == CASE_RECV_OK) value = with_ok(value);
    else if (closed) return closed_in_case(k, i);
    else if (k->kind == CASE_SEND) value = Py_NewRef(Py_None);
    if (!value) return NULL;
    PyObject *index = PyLong_FromSsize_t(i), *pair = index ? PyTuple_New(2) : NULL;
    if (!pair) { Py_XDECREF(index); Py_DECREF(value); return NULL; }
    PyTuple_SET_ITEM(pair, 0, index);
    PyTuple_SET_ITEM(pair, 1, value);
    return pair;
}

/* default=: nothing else may be named. */
static int wants_default(PyObject *const *values, PyObject *kwnames) {
    Py_ssize_t n = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    if (LIKELY(n == 0)) return 0;
    PyObject *name = PyTuple_GET_ITEM(kwnames, 0);
    if (n == 1 && PyUnicode_CompareWithASCIIString(name, "default") == 0) return PyObject_IsTrue(values[0]);
    PyErr_Format(PyExc_TypeError, "select() takes cases and default=, not %R", n == 1 ? name : kwnames);
    return -1;
}

static PyObject *py_select(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *kwnames) {
    int has_default = wants_default(args + n, kwnames);
    if (has_default < 0) return NULL;
    select_case *cases = mem_alloc((size_t)(n ? n : 1) * sizeof *cases);
    if (!cases) return PyErr_NoMemory();
    PyObject *value, *result = NULL;
    bool closed;
    Py_ssize_t i = 0;
    while (i < n && parse_case(args[i], &cases[i])) i++;
    if (i < n) malformed(i, args[i]);
    else if ((i = select_run(cases, n, !has_default, &value, &closed)) >= 0)
        result = outcome(cases, i, value, closed);
    else if (i == -1) result = Py_BuildValue("iO", -1, Py_None);
    mem_free(cases);
    return result;
}

/* Channels that are made late: for an object that was made before, perhaps in another bubble. */
static PyObject *py_here(PyObject *module, PyObject *unused) {
    return PyLong_FromUnsignedLong(g_bubble_here());
}

static chan *new_in(uint32_t bubble, Py_ssize_t cap) {
    chan *c = (chan *)Chan_Type.tp_alloc(&Chan_Type, 0);
    if (c && chan_init(c, cap) < 0) Py_CLEAR(c);
    if (c) c->bubble = bubble;
    return c;
}

static PyObject *py_chan_in(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2) { PyErr_BadArgument(); return NULL; }
    unsigned long bubble = PyLong_AsUnsignedLong(args[0]);
    Py_ssize_t cap = PyLong_AsSsize_t(args[1]);
    return PyErr_Occurred() ? NULL : (PyObject *)new_in((uint32_t)bubble, cap);
}

/* Two for modules to have: nobody can wait for the one, or send on the other.  To make them is no use of the
   library yet, and as good inside a bubble as outside. */
static PyObject *py_closed_chan(PyObject *module, PyObject *unused) {
    chan *c = new_in(EVERY_BUBBLE, 0);
    if (c) c->closed = true;
    return (PyObject *)c;
}

static PyObject *py_never(PyObject *module, PyObject *unused) {
    chan *c = new_in(EVERY_BUBBLE, 0);
    PyObject *receiver = c ? py_receiver(c) : NULL;
    Py_XDECREF(c);
    return receiver;
}

static PyMethodDef functions[] = {
    {"here", py_here, METH_NOARGS, NULL},
    {"chan_in", FAST(py_chan_in), METH_FASTCALL, NULL},
    {"never", py_never, METH_NOARGS, NULL},
    {"closed", py_closed_chan, METH_NOARGS, NULL},
    {"select", FAST(py_select), METH_FASTCALL | METH_KEYWORDS,
     "select($module, /, *cases, default=False)\n--\n\n"
     "Wait until one of the cases can be done, do it, and return (index, value).\n\n"
     "A case is ch.recv, ch.recv_ok, the pair (ch.send, value), or None, which is never ready. The value\n"
     "is what the call would return. Among ready cases one is chosen at random, each as likely as any\n"
     "other. With default=True it returns (-1, None) at once when none is ready; without a case that can\n"
     "be it waits for ever. Raises Closed, with its index, where the call would; Cancelled in a\n"
     "cancelled scope, with nothing done; TypeError for anything else that is no case. As Go's select."},
    {NULL},
};

int py_chan_add(PyObject *module) {
    return PyModule_AddType(module, &Chan_Type) < 0 || PyModule_AddType(module, &SendChan_Type) < 0
        || PyModule_AddType(module, &RecvChan_Type) < 0
        || PyModule_AddFunctions(module, functions) < 0 ? -1 : 0;
}
