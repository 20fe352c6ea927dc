/* Branches as `_cancel.py` sees them, which derives its nodes from them. */
#include "module.h"
#include "branch.h"
#include <structmember.h>

static PyObject *new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *parent = Py_None;
    if (!PyArg_UnpackTuple(args, "Branch", 0, 1, &parent)) return NULL;
    if (parent != Py_None && !PyObject_TypeCheck(parent, &Branch_Type)) {
        PyErr_BadArgument();
        return NULL;
    }
    branch *b = (branch *)type->tp_alloc(type, 0);
    if (!b) return NULL;
    b->bubble = g_bubble_here();
    branch_init(b, parent == Py_None ? NULL : (branch *)parent);
    if (parent == Py_None && !(b->pins = PyDict_New())) Py_CLEAR(b);
    return (PyObject *)b;
}

static void dealloc(branch *b) {
    PyObject_GC_UnTrack(b);
    clear_weakrefs((PyObject *)b, &b->weakrefs);
    branch_clear(b);
    Py_TYPE(b)->tp_free(b);
}

static int clear(branch *b) { branch_clear(b); return 0; }

static int tell(branch *b) {
    PyObject *result = PyObject_CallMethod((PyObject *)b, "tell", NULL);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

static PyObject *end(branch *b, PyObject *outcome) {
    if (branch_end(b, outcome, tell) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *watch(branch *b, PyObject *unused) {
    branch_watch(b);
    Py_RETURN_NONE;
}

static PyObject *get_outcome(branch *b, void *unused) {
    PyObject *outcome = atomic_load(&b->outcome);
    return Py_NewRef(outcome ? outcome : Py_None);
}

static PyObject *has_ended(branch *b, void *unused) { return PyBool_FromLong(atomic_load(&b->ended)); }

static PyMethodDef methods[] = {
    {"end", (PyCFunction)end, METH_O, NULL},
    {"watch", (PyCFunction)watch, METH_NOARGS, NULL},
    {NULL},
};
static PyGetSetDef getset[] = {
    {"outcome", (getter)get_outcome, NULL, NULL, NULL},
    {"ended", (getter)has_ended, NULL, NULL, NULL},
    {NULL},
};
static PyMemberDef members[] = {
    {"above", T_OBJECT, offsetof(branch, above), READONLY, NULL},
    {"bubble", T_UINT, offsetof(branch, bubble), READONLY, NULL},
    {"pins", T_OBJECT, offsetof(branch, pins), 0, NULL},
    {NULL},
};
PyTypeObject Branch_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer._core.Branch",
    .tp_basicsize = sizeof(branch),
    .tp_weaklistoffset = offsetof(branch, weakrefs),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = new,
    .tp_traverse = (traverseproc)branch_visit,
    .tp_clear = (inquiry)clear,
    .tp_dealloc = (destructor)dealloc,
    .tp_methods = methods,
    .tp_getset = getset,
    .tp_members = members,
};

int py_branch_add(PyObject *module) { return PyModule_AddType(module, &Branch_Type); }
