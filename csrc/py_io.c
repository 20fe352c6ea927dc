/* Waiting for descriptors, for the Python half of the package. */
#include "module.h"
#include "netpoll.h"
#include "timer.h"
#include "sched.h"

/* The calling goroutine, which must be on a worker: a plain thread can wait by itself. */
static G *waiting_goroutine(const char *what) {
    G *g = g_self();
    if (!g || g->worker) return g;
    PyErr_Format(PyExc_RuntimeError,
                 "%s() in a plain thread: only a goroutine can park; use select.poll() here", what);
    return NULL;
}

static int take_timeout(PyObject *timeout, const char *what, int64_t *ns) {
    *ns = NEVER;
    if (timeout == Py_None) return 0;
    if (duration_ns(timeout, what, ns) < 0) return -1;
    if (*ns < 0) *ns = 0;
    return 0;
}

static int take_events(long events, uint8_t *into) {
    *into = (uint8_t)events;
    if (events >= 0 && events <= (FD_READ | FD_WRITE | FD_URGENT)) return 0;
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError,
                     "a descriptor is waited for with FD_READ, FD_WRITE and FD_URGENT, not %ld", events);
    return -1;
}

/* wait_fd(fd, events, timeout) -> what is ready, 0 when the time is over */
static PyObject *py_wait_fd(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    int64_t ns;
    if (nargs != 3) {
        PyErr_Format(PyExc_TypeError, "wait_fd() takes exactly 3 arguments (%zd given)", nargs);
        return NULL;
    }
    uint8_t events;
    int fd = PyObject_AsFileDescriptor(args[0]);
    if (fd < 0 || take_events(PyLong_AsLong(args[1]), &events) < 0) return NULL;
    if (take_timeout(args[2], "wait_fd", &ns) < 0) return NULL;
    G *g = waiting_goroutine("wait_fd");
    fd_wait *wait = g ? mem_calloc(sizeof *wait) : NULL;
    if (!wait) return g ? PyErr_NoMemory() : NULL;
    wait->fd = fd;
    wait->events = events;
    Py_ssize_t n = fds_wait(g, wait, 1, ns);
    uint8_t ready = wait->ready;
    mem_free(wait);
    return n < 0 ? NULL : PyLong_FromLong(ready);
}

static int take_waits(PyObject *pairs, fd_wait *waits, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *pair = PyTuple_GET_ITEM(pairs, i);
        int events;
        if (!PyTuple_Check(pair)) {
            PyErr_SetString(PyExc_TypeError, "wait_fds() takes a list of (fd, events)");
            return -1;
        }
        if (!PyArg_ParseTuple(pair, "ii", &waits[i].fd, &events)) return -1;
        if (take_events(events, &waits[i].events) < 0) return -1;
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
    G *g = waiting_goroutine("wait_fds");
    PyObject *pairs = g ? PyList_AsTuple(args[0]) : NULL;        /* nobody can change that meanwhile */
    if (!pairs) return NULL;
    Py_ssize_t n = PyTuple_GET_SIZE(pairs);
    fd_wait *waits = mem_calloc((size_t)(n + !n) * sizeof *waits);
    PyObject *result = NULL;
    if (!waits) PyErr_NoMemory();
    else if (take_waits(pairs, waits, n) == 0 && fds_wait(g, waits, n, ns) >= 0) {
        result = PyList_New(n);
        for (Py_ssize_t i = 0; result && i < n; i++) {
            PyObject *ready = PyLong_FromLong(waits[i].ready);
            if (!ready) Py_CLEAR(result);
            else PyList_SET_ITEM(result, i, ready);
        }
    }
    mem_free(waits);
    Py_DECREF(pairs);
    return result;
}

static PyObject *tell(PyObject *fd, void (*what)(int)) {
    long n = PyLong_AsLong(fd);
    if (n == -1 && PyErr_Occurred()) return NULL;
    if (n >= 0 && n <= INT_MAX) what((int)n);
    Py_RETURN_NONE;
}
static PyObject *py_fd_closing(PyObject *module, PyObject *fd) { return tell(fd, sched_fd_closing); }
static PyObject *py_fd_closed(PyObject *module, PyObject *fd) { return tell(fd, sched_fd_closed); }

/* --- threads that make blocking calls -------------------------------------------------------------- */
static PyObject *py_may_wait(PyObject *module, PyObject *unused) {
    G *g = g_self();
    if (!g || (g->worker && g_wait_check(g) < 0)) return NULL;
    return PyBool_FromLong(g->worker != NULL);
}

static PyObject *py_expect_threads(PyObject *module, PyObject *unused) {
    if (!g_hooks.keeper()) return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_thread_rests(PyObject *module, PyObject *unused) {
    if (!g_self()) return NULL;
    sched_thread_rests();
    Py_RETURN_NONE;
}

static PyObject *py_before_wait(PyObject *module, PyObject *fn) {
    G *g = g_self();
    if (!g) return NULL;
    if (g->worker) {
        PyErr_SetString(PyExc_RuntimeError, "before_wait() in a goroutine: it is for plain threads");
        return NULL;
    }
    g_before_wait(g, fn == Py_None ? NULL : fn);
    Py_RETURN_NONE;
}

/* Counts as a call under way as long as it lives; the epoch lies in its context. */
static void call_over(PyObject *capsule) {
    sched_call_over((uint32_t)(uintptr_t)PyCapsule_GetContext(capsule));
}

static PyObject *py_call_under_way(PyObject *module, PyObject *unused) {
    static char something;
    PyObject *call = PyCapsule_New(&something, NULL, NULL);
    if (!call) return NULL;
    PyCapsule_SetContext(call, (void *)(uintptr_t)sched_call_begin());
    PyCapsule_SetDestructor(call, call_over);
    return call;
}

/* Now: the last reference is given back to the thread that made it, which may be asleep. */
static PyObject *py_call_over(PyObject *module, PyObject *call) {
    if (!PyCapsule_CheckExact(call)) {
        PyErr_SetString(PyExc_TypeError, "call_over() takes what call_under_way() returned");
        return NULL;
    }
    if (PyCapsule_GetDestructor(call)) {
        PyCapsule_SetDestructor(call, NULL);
        call_over(call);
    }
    Py_RETURN_NONE;
}

/* The same for a worker that starts no goroutines meanwhile; the capsule stands for it. */
static void give_back(PyObject *capsule) {
    sched_give_back(PyCapsule_GetPointer(capsule, NULL), (uint32_t)(uintptr_t)PyCapsule_GetContext(capsule));
}

static PyObject *py_reserve(PyObject *module, PyObject *unused) {
    if (!g_self()) return NULL;
    if (!g_worker) Py_RETURN_NONE;
    uint32_t epoch;
    PyObject *reserved = PyCapsule_New(g_worker, NULL, NULL);
    if (!reserved) return NULL;
    if (!sched_reserve(&epoch)) {
        Py_DECREF(reserved);
        return NULL;
    }
    PyCapsule_SetContext(reserved, (void *)(uintptr_t)epoch);
    PyCapsule_SetDestructor(reserved, give_back);
    return reserved;
}

static PyObject *py_look_for_deadlock(PyObject *module, PyObject *unused) {
    sched_look_for_deadlock();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"may_wait", py_may_wait, METH_NOARGS, NULL},
    {"expect_threads", py_expect_threads, METH_NOARGS, NULL},
    {"thread_rests", py_thread_rests, METH_NOARGS, NULL},
    {"before_wait", py_before_wait, METH_O, NULL},
    {"call_over", py_call_over, METH_O, NULL},
    {"call_under_way", py_call_under_way, METH_NOARGS, NULL},
    {"reserve", py_reserve, METH_NOARGS, NULL},
    {"look_for_deadlock", py_look_for_deadlock, METH_NOARGS, NULL},
    {"wait_fd", FAST(py_wait_fd), METH_FASTCALL, NULL},
    {"wait_fds", FAST(py_wait_fds), METH_FASTCALL, NULL},
    {"fd_closing", py_fd_closing, METH_O, NULL},
    {"fd_closed", py_fd_closed, METH_O, NULL},
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
