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

static PyObject *py_patch_queues(PyObject *module, PyObject *on) {
    int yes = PyObject_IsTrue(on);
    if (yes < 0 || patch_queues(yes) < 0) return NULL;
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

/* patch_function(o, function, everywhere): whether o is a function or method in C, for which the other one
   stands */
static PyObject *py_patch_function(PyObject *module, PyObject *args) {
    PyObject *o, *function;
    int everywhere;
    if (!PyArg_ParseTuple(args, "OOp:patch_function", &o, &function, &everywhere)) return NULL;
    int added = patch_function(o, function, everywhere);
    return added < 0 ? NULL : PyBool_FromLong(added);
}

static PyObject *py_patch_function_back(PyObject *module, PyObject *o) {
    patch_function_back(o);
    Py_RETURN_NONE;
}

static PyObject *py_patch_waits(PyObject *module, PyObject *unused) {
    return PyBool_FromLong(patch_anybody_waits());
}

static PyObject *py_parks(PyObject *module, PyObject *unused) {
    return PyBool_FromLong(patch_caller() != NULL);
}

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
    if (patch_seconds(limit, &s) && s > 0 && s < 9.2e9)
        return patch_await_lock(lock, (int64_t)(s * 1e9 + 0.999));
    return PyObject_CallMethod(lock, "acquire", "OO", Py_True, limit);       /* it says what is wrong */
}

static PyObject *py_patch_lines(PyObject *module, PyObject *args) {
    PyTypeObject *type;
    int on;
    if (!PyArg_ParseTuple(args, "O!p:patch_lines", &PyType_Type, &type, &on)) return NULL;
    patch_lines(type, on);
    Py_RETURN_NONE;
}

static PyObject *py_patch_end(PyObject *module, PyObject *unused) {
    patch_end();
    Py_RETURN_NONE;
}

#ifdef __linux__
static PyObject *py_signals_begin(PyObject *module, PyObject *args) {
    unsigned long long mask;
    int takes, fd;
    if (!PyArg_ParseTuple(args, "Kp:signals_begin", &mask, &takes)) return NULL;
    int number = patch_signals_begin(mask, takes, &fd);
    return number < 0 ? NULL : Py_BuildValue("ii", number, fd);
}

/* signals_end(number) -> the fields of signal.struct_siginfo, or None */
static PyObject *py_signals_end(PyObject *module, PyObject *number) {
    siginfo_t i;
    long n = PyLong_AsLong(number);
    if (n == -1 && PyErr_Occurred()) return NULL;
    if (!patch_signals_end((int)n, &i)) Py_RETURN_NONE;
    return Py_BuildValue("iiiiiil", i.si_signo, i.si_code, i.si_errno, i.si_pid, i.si_uid, i.si_status,
                         i.si_band);
}

static PyObject *py_signal_fd(PyObject *module, PyObject *mask) {
    unsigned long long bits = PyLong_AsUnsignedLongLong(mask);
    int fd = PyErr_Occurred() ? -1 : patch_signal_fd(bits);
    return fd < 0 ? NULL : PyLong_FromLong(fd);
}
#endif

static PyMethodDef functions[] = {
#ifdef __linux__
    {"signals_begin", py_signals_begin, METH_VARARGS, NULL},
    {"signals_end", py_signals_end, METH_O, NULL},
    {"signal_fd", py_signal_fd, METH_O, NULL},
#endif
    {"patch_part", py_patch_part, METH_VARARGS, NULL},
    {"patch_leaf", py_patch_leaf, METH_VARARGS, NULL},
    {"patch_function", py_patch_function, METH_VARARGS, NULL},
    {"patch_function_back", py_patch_function_back, METH_O, NULL},
    {"patch_queues", py_patch_queues, METH_O, NULL},
    {"patch_locals", py_patch_locals, METH_O, NULL},
    {"patch_waits", py_patch_waits, METH_NOARGS, NULL},
    {"poll_registered", py_poll_registered, METH_O, NULL},
    {"parks", py_parks, METH_NOARGS, NULL},
    {"patch_know_ssl", py_patch_know_ssl, METH_VARARGS, NULL},
    {"await_lock", py_await_lock, METH_VARARGS, NULL},
    {"patch_lines", py_patch_lines, METH_VARARGS, NULL},
    {"patch_end", py_patch_end, METH_NOARGS, NULL},
    {NULL},
};

int py_patch_add(PyObject *module) { return PyModule_AddFunctions(module, functions); }
