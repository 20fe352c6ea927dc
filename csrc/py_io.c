/* Waiting for descriptors, for the Python half of the package. */
#include "module.h"
#include "netpoll.h"
#include "timer.h"
#include "sched.h"

/* The calling goroutine, which must be on a worker: a plain thread can wait by itself. */
static G *waiting_goroutine(const char *what) {
    G *g = g_self();
    if (!g || g->worker) return g;
    PyErr_Format(PyExc_RuntimeError, "%s() in a plain thread: only a goroutine can park; use select.poll() here", what);
    return NULL;
}

static int take_timeout(PyObject *timeout, const char *what, int64_t *ns) {
    *ns = NEVER;
    if (timeout == Py_None) return 0;
    if (duration_ns(timeout, what, ns) < 0) return -1;
    if (*ns < 0) *ns = 0;
    return 0;
}

/* wait_fd(fd, events, timeout) -> what is ready, 0 when the time is over */
static PyObject *py_wait_fd(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    int64_t ns;
    if (nargs != 3) {
        PyErr_Format(PyExc_TypeError, "wait_fd() takes exactly 3 arguments (%zd given)", nargs);
        return NULL;
    }
    int fd = PyObject_AsFileDescriptor(args[0]);
    long events = fd < 0 ? -1 : PyLong_AsLong(args[1]);
    if (PyErr_Occurred() || take_timeout(args[2], "wait_fd", &ns) < 0) return NULL;
    G *g = waiting_goroutine("wait_fd");
    fd_wait *wait = g ? mem_calloc(sizeof *wait) : NULL;
    if (!wait) return g ? PyErr_NoMemory() : NULL;
    wait->fd = fd;
    wait->events = (uint8_t)events;
    Py_ssize_t n = fds_wait(g, wait, 1, ns);
    uint8_t ready = wait->ready;
    mem_free(wait);
    return n < 0 ? NULL : PyLong_FromLong(ready);
}

static int take_waits(PyObject *list, fd_wait *waits, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) {
        int events;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(list, i), "ii", &waits[i].fd, &events)) return -1;
        waits[i].events = (uint8_t)events;
    }
    return 0;
}

/* wait_fds([(fd, events)], timeout) -> [what is ready of each] */
static PyObject *py_wait_fds(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    int64_t ns;
    if (nargs != 2 || !PyList_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "wait_fds() takes a list of (fd, events) and a timeout");
        return NULL;
    }
    if (take_timeout(args[1], "wait_fds", &ns) < 0) return NULL;
    Py_ssize_t n = PyList_GET_SIZE(args[0]);
    G *g = waiting_goroutine("wait_fds");
    fd_wait *waits = g ? mem_calloc((size_t)(n + !n) * sizeof *waits) : NULL;
    if (!waits) return g ? PyErr_NoMemory() : NULL;
    PyObject *result = NULL;
    if (take_waits(args[0], waits, n) == 0 && fds_wait(g, waits, n, ns) >= 0) {
        result = PyList_New(n);
        for (Py_ssize_t i = 0; result && i < n; i++) {
            PyObject *ready = PyLong_FromLong(waits[i].ready);
            if (!ready) Py_CLEAR(result);
            else PyList_SET_ITEM(result, i, ready);
        }
    }
    mem_free(waits);
    return result;
}

static PyObject *py_fd_closing(PyObject *module, PyObject *fd) {
    int n = (int)PyLong_AsLong(fd);
    if (n == -1 && PyErr_Occurred()) return NULL;
    sched_fd_closing(n);
    Py_RETURN_NONE;
}

/* --- threads that make blocking calls ------------------------------------------------------------------- */
static PyObject *py_on_worker(PyObject *module, PyObject *unused) {
    G *g = g_self();
    return g ? PyBool_FromLong(g->worker != NULL) : NULL;
}

static PyObject *py_thread_rests(PyObject *module, PyObject *rests) {
    int yes = PyObject_IsTrue(rests);
    if (yes < 0) return NULL;
    sched_thread_rests(yes);
    Py_RETURN_NONE;
}

/* chan.recv(), where a thread is going to send. */
static PyObject *py_wait_for_call(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (one_arg("wait_for_call", nargs) < 0) return NULL;
    if (!PyObject_TypeCheck(args[0], &Chan_Type)) {
        PyErr_SetString(PyExc_TypeError, "wait_for_call() takes a Chan");
        return NULL;
    }
    PyObject *value = NULL;
    sched_call(1);
    int result = chan_recv((chan *)args[0], &value);
    sched_call(-1);
    if (result == 0) chan_closed_error((chan *)args[0], "recv");
    return result > 0 ? value : NULL;
}

static PyObject *py_outside_chan(PyObject *module, PyObject *cap) {
    PyObject *c = PyObject_CallOneArg((PyObject *)&Chan_Type, cap);
    if (c) ((chan *)c)->bubble = UINT32_MAX;
    return c;
}

static PyMethodDef functions[] = {
    {"on_worker", py_on_worker, METH_NOARGS, NULL},
    {"thread_rests", py_thread_rests, METH_O, NULL},
    {"wait_for_call", FAST(py_wait_for_call), METH_FASTCALL, NULL},
    {"outside_chan", py_outside_chan, METH_O, NULL},
    {"wait_fd", FAST(py_wait_fd), METH_FASTCALL, NULL},
    {"wait_fds", FAST(py_wait_fds), METH_FASTCALL, NULL},
    {"fd_closing", py_fd_closing, METH_O, NULL},
    {NULL},
};

int py_io_add(PyObject *module) {
    static const struct { const char *name; int value; } events[] = {
        {"FD_READ", FD_READ}, {"FD_WRITE", FD_WRITE}, {"FD_URGENT", FD_URGENT}, {"FD_BROKEN", FD_BROKEN},
        {"FD_CLOSED", FD_CLOSED},
    };
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (PyModule_AddIntConstant(module, events[i].name, events[i].value) < 0) return -1;
    return PyModule_AddFunctions(module, functions);
}
