/* The exchanging of CPython's functions, for the Python half of the package. */
#include "module.h"
#include "patch.h"

/* patch_part(part, on) -> how many functions there are of it */
static PyObject *py_patch_part(PyObject *module, PyObject *args) {
    const char *part;
    int on;
    if (!PyArg_ParseTuple(args, "sp:patch_part", &part, &on)) return NULL;
    int n = patch_part(part, on);
    return n < 0 ? NULL : PyLong_FromLong(n);
}

static PyObject *py_patch_locals(PyObject *module, PyObject *on) {
    int yes = PyObject_IsTrue(on);
    if (yes < 0) return NULL;
    patch_locals(yes);
    Py_RETURN_NONE;
}

/* patch_leaf(name, function): what stands for it in goroutines, called with the original and its arguments */
static PyObject *py_patch_leaf(PyObject *module, PyObject *args) {
    const char *name;
    PyObject *function;
    if (!PyArg_ParseTuple(args, "sO:patch_leaf", &name, &function)) return NULL;
    leaf *l = patch_leaf(name);
    if (!l) return PyErr_Format(PyExc_ValueError, "patch_leaf(%s): there is none of that name", name);
    Py_XSETREF(l->python, Py_NewRef(function));
    Py_RETURN_NONE;
}

static PyObject *py_patch_waits(PyObject *module, PyObject *unused) { return PyBool_FromLong(patch_anybody_waits()); }
static PyObject *py_parks(PyObject *module, PyObject *unused) { return PyBool_FromLong(patch_goroutine() != NULL); }

/* poll_registered(poll object) -> {fd: events}, its own */
static PyObject *py_poll_registered(PyObject *module, PyObject *poll) {
    PyObject *registered = *(PyObject **)((char *)poll + sizeof(PyObject));
    if (strcmp(Py_TYPE(poll)->tp_name, "select.poll") || !registered || !PyDict_CheckExact(registered)) {
        PyErr_SetString(PyExc_TypeError, "poll_registered() takes an object of select.poll()");
        return NULL;
    }
    return PyDict_Copy(registered);
}

static PyObject *py_patch_know_ssl(PyObject *module, PyObject *args) {
    PyObject *sample, *ref, *type;
    if (!PyArg_ParseTuple(args, "OOO!:patch_know_ssl", &sample, &ref, &PyType_Type, &type)
            || patch_know_ssl(sample, ref, type) < 0) return NULL;
    Py_RETURN_NONE;
}

/* await_lock(lock, seconds, or None) */
static PyObject *py_await_lock(PyObject *module, PyObject *args) {
    PyObject *lock, *limit;
    double s = 0;
    if (!PyArg_ParseTuple(args, "OO:await_lock", &lock, &limit)) return NULL;
    if (limit == Py_None) return patch_await_lock(lock, NEVER);
    if (patch_seconds(limit, &s) && s > 0 && s < 9.2e9) return patch_await_lock(lock, (int64_t)(s * 1e9 + 0.999));
    return PyObject_CallMethod(lock, "acquire", "OO", Py_True, limit);       /* it says what is wrong */
}

static PyObject *py_patch_end(PyObject *module, PyObject *unused) {
    patch_end();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"patch_part", py_patch_part, METH_VARARGS, NULL},
    {"patch_leaf", py_patch_leaf, METH_VARARGS, NULL},
    {"patch_locals", py_patch_locals, METH_O, NULL},
    {"patch_waits", py_patch_waits, METH_NOARGS, NULL},
    {"poll_registered", py_poll_registered, METH_O, NULL},
    {"parks", py_parks, METH_NOARGS, NULL},
    {"patch_know_ssl", py_patch_know_ssl, METH_VARARGS, NULL},
    {"await_lock", py_await_lock, METH_VARARGS, NULL},
    {"patch_end", py_patch_end, METH_NOARGS, NULL},
    {NULL},
};

int py_patch_add(PyObject *module) { return PyModule_AddFunctions(module, functions); }
