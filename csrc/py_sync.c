/* WaitGroup, Mutex, Semaphore as Python sees them.  None holds a reference to another object, so none is
   of interest to the collector. */
#include "module.h"
#include "sema.h"
#include <structmember.h>

static PyObject *new_object(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    if (PyTuple_GET_SIZE(args) || (kwargs && PyDict_GET_SIZE(kwargs))) {
        const char *dot = strrchr(type->tp_name, '.');
        PyErr_Format(PyExc_TypeError, "%s() takes no arguments", dot + 1);
        return NULL;
    }
    return type->tp_alloc(type, 0);
}

/* n of an operation that takes n=1; -1 with an exception. */
static Py_ssize_t count_of(const char *what, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs == 0) return 1;
    if (one_arg(what, nargs) < 0) return -1;
    Py_ssize_t n = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
    if (n == -1 && PyErr_Occurred()) return -1;
    if (n >= 0) return n;
    PyErr_Format(PyExc_ValueError, "%s(%zd): it takes 0 or more", what, n);
    return -1;
}

/* --- WaitGroup ------------------------------------------------------------------------------------- */
typedef struct { PyObject_HEAD waitgroup wg; PyObject *weakrefs; } WaitGroup;

static PyObject *wg_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    WaitGroup *self = (WaitGroup *)new_object(type, args, kwargs);
    if (self) waitgroup_init(&self->wg);
    return (PyObject *)self;
}

static PyObject *wg_change(WaitGroup *self, const char *what, int64_t n) {
    if (UNLIKELY(!g_self())) return NULL;
    if (LIKELY(waitgroup_add(&self->wg, n))) Py_RETURN_NONE;
    PyErr_Format(PyExc_ValueError, "WaitGroup.%s would make its counter negative: it is %lld now; every "
                 "done() needs an add() before it", what, (long long)relaxed_load(&self->wg.n));
    return NULL;
}

static PyObject *wg_add(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    Py_ssize_t n = 1;
    if (nargs) {
        if (one_arg("WaitGroup.add", nargs) < 0) return NULL;
        n = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
        if (n == -1 && PyErr_Occurred()) return NULL;
    }
    return wg_change((WaitGroup *)self, "add()", n);
}

static PyObject *wg_done(PyObject *self, PyObject *unused) {
    return wg_change((WaitGroup *)self, "done()", -1);
}

static PyObject *wg_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (no_args("WaitGroup.wait", nargs) < 0) return NULL;
    if (waitgroup_wait(&((WaitGroup *)self)->wg, self) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *wg_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (waitgroup_wait(&((WaitGroup *)self)->wg, self) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *return_self(PyObject *self, PyObject *unused) { return Py_NewRef(self); }

static void count_down(G *g, PyObject *self) {
    waitgroup_add(&((WaitGroup *)self)->wg, -1);     /* done() too often has taken it away: nothing to do */
    Py_DECREF(self);
}

static PyObject *wg_go(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    if (UNLIKELY(py_check_callable("WaitGroup.go", args, nargs) < 0)) return NULL;
    waitgroup_add(&((WaitGroup *)self)->wg, 1);
    PyObject *g = py_start(KIND_GO, args, nargs, kwnames, count_down, Py_NewRef(self));
    if (UNLIKELY(!g)) waitgroup_add(&((WaitGroup *)self)->wg, -1);
    return g;
}

static PyObject *wg_repr(WaitGroup *self) {
    return PyUnicode_FromFormat("<WaitGroup %lld at %p>", (long long)relaxed_load(&self->wg.n), self);
}

static void wg_dealloc(WaitGroup *self) {
    clear_weakrefs((PyObject *)self, &self->weakrefs);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef wg_methods[] = {
    {"add", FAST(wg_add), METH_FASTCALL,
     "add($self, n=1, /)\n--\n\n"
     "Add n, which may be negative, to the counter; at 0 all that wait go on. ValueError if it would become\n"
     "negative; it is as before then."},
    {"done", wg_done, METH_NOARGS, "done($self, /)\n--\n\nadd(-1)."},
    {"wait", FAST(wg_wait), METH_FASTCALL,
     "wait($self, /)\n--\n\nWait until the counter is 0. Raises Cancelled in a cancelled scope."},
    {"go", FAST(wg_go), METH_FASTCALL | METH_KEYWORDS,
     "go($self, fn, /, *args, **kwargs)\n--\n\n"
     "add(1), and start fn(*args, **kwargs) as a goroutine that calls done() when it\n"
     "has ended. Failures as for go()."},
    {"__enter__", return_self, METH_NOARGS, NULL},
    {"__exit__", FAST(wg_exit), METH_FASTCALL, NULL},
    {NULL},
};
PyTypeObject WaitGroup_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer.WaitGroup",
    .tp_doc = "WaitGroup()\n--\n\n"
              "A counter of what is still to be done; wait() until it is 0, as does the end of\n"
              "its with block.",
    .tp_basicsize = sizeof(WaitGroup),
    .tp_weaklistoffset = offsetof(WaitGroup, weakrefs),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = wg_new,
    .tp_dealloc = (destructor)wg_dealloc,
    .tp_repr = (reprfunc)wg_repr,
    .tp_methods = wg_methods,
};

/* --- Mutex ----------------------------------------------------------------------------------------- */
typedef struct { PyObject_HEAD mutex m; PyObject *weakrefs; } Mutex;

static PyObject *mx_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    Mutex *self = (Mutex *)new_object(type, args, kwargs);
    if (self) mutex_init(&self->m);
    return (PyObject *)self;
}

static PyObject *mx_lock(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (UNLIKELY(no_args("Mutex.lock", nargs) < 0 || mutex_lock(&((Mutex *)self)->m, self) < 0)) return NULL;
    Py_RETURN_NONE;
}

static PyObject *mx_unlock(PyObject *self, PyObject *unused) {
    if (UNLIKELY(!g_self())) return NULL;
    if (LIKELY(mutex_unlock(&((Mutex *)self)->m))) Py_RETURN_NONE;
    PyErr_SetString(PyExc_RuntimeError,
                    "Mutex.unlock() of one that is not locked: lock() it first, and unlock it once");
    return NULL;
}

static PyObject *mx_try_lock(PyObject *self, PyObject *unused) {
    return g_self() ? PyBool_FromLong(mutex_try_lock(&((Mutex *)self)->m)) : NULL;
}

static PyObject *mx_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    return mx_unlock(self, NULL);
}

static PyObject *mx_repr(Mutex *self) {
    return PyUnicode_FromFormat("<Mutex %s at %p>", mutex_locked(&self->m) ? "locked" : "unlocked", self);
}

static void mx_dealloc(Mutex *self) {
    clear_weakrefs((PyObject *)self, &self->weakrefs);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef mx_methods[] = {
    {"lock", FAST(mx_lock), METH_FASTCALL,
     "lock($self, /)\n--\n\n"
     "Wait until it is unlocked, and lock it. Not reentrant. Raises Cancelled in a cancelled scope; it\n"
     "is not locked then. As Go's: fast, and first come first served once somebody has waited for 1 ms."},
    {"unlock", mx_unlock, METH_NOARGS,
     "unlock($self, /)\n--\n\nUnlock it; any goroutine or thread may. RuntimeError if it is not locked."},
    {"try_lock", mx_try_lock, METH_NOARGS,
     "try_lock($self, /)\n--\n\nLock it if that needs no waiting; whether it was done."},
    {"__enter__", FAST(mx_lock), METH_FASTCALL, NULL},
    {"__exit__", FAST(mx_exit), METH_FASTCALL, NULL},
    {NULL},
};
PyTypeObject Mutex_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer.Mutex",
    .tp_doc = "Mutex()\n--\n\nA lock that one at a time can hold. It belongs to no one in particular.",
    .tp_basicsize = sizeof(Mutex),
    .tp_weaklistoffset = offsetof(Mutex, weakrefs),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = mx_new,
    .tp_dealloc = (destructor)mx_dealloc,
    .tp_repr = (reprfunc)mx_repr,
    .tp_methods = mx_methods,
};

/* --- Semaphore ------------------------------------------------------------------------------------- */
typedef struct { PyObject_HEAD semaphore s; PyObject *weakrefs; } Semaphore;

static PyObject *sm_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    Py_ssize_t n;
    if (kwargs && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Semaphore() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "n:Semaphore", &n)) return NULL;
    if (n < 0) {
        PyErr_Format(PyExc_ValueError, "Semaphore(%zd): it can not have fewer than 0 permits", n);
        return NULL;
    }
    Semaphore *self = (Semaphore *)type->tp_alloc(type, 0);
    if (self) sema_init(&self->s, n);
    return (PyObject *)self;
}

static Py_ssize_t permits(Semaphore *self, const char *what, PyObject *const *args, Py_ssize_t nargs) {
    Py_ssize_t n = count_of(what, args, nargs);
    if (LIKELY(n <= self->s.size)) return n;
    PyErr_Format(PyExc_ValueError, "%s(%zd) of a semaphore with %zd permits would wait for ever", what, n,
                 self->s.size);
    return -1;
}

static PyObject *sm_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    Py_ssize_t n = permits((Semaphore *)self, "Semaphore.acquire", args, nargs);
    if (n < 0 || sema_acquire(&((Semaphore *)self)->s, n, self) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *sm_try_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    Py_ssize_t n = permits((Semaphore *)self, "Semaphore.try_acquire", args, nargs);
    return n < 0 || !g_self() ? NULL : PyBool_FromLong(sema_try(&((Semaphore *)self)->s, n));
}

static PyObject *give_back(Semaphore *self, Py_ssize_t n) {
    if (UNLIKELY(!g_self())) return NULL;
    if (LIKELY(sema_release(&self->s, n))) Py_RETURN_NONE;
    PyErr_Format(PyExc_RuntimeError,
                 "Semaphore.release(%zd) of more permits than were acquired: %zd of %zd are free",
                 n, sema_free(&self->s), self->s.size);
    return NULL;
}

static PyObject *sm_release(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    Py_ssize_t n = count_of("Semaphore.release", args, nargs);
    return n < 0 ? NULL : give_back((Semaphore *)self, n);
}

static PyObject *sm_enter(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    return sm_acquire(self, NULL, 0);
}

static PyObject *sm_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    return give_back((Semaphore *)self, 1);
}

static PyObject *sm_repr(Semaphore *self) {
    return PyUnicode_FromFormat("<Semaphore %zd of %zd free at %p>", sema_free(&self->s), self->s.size, self);
}

static void sm_dealloc(Semaphore *self) {
    clear_weakrefs((PyObject *)self, &self->weakrefs);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef sm_methods[] = {
    {"acquire", FAST(sm_acquire), METH_FASTCALL,
     "acquire($self, n=1, /)\n--\n\n"
     "Take n permits; wait until there are so many and all who came before have theirs. ValueError if it\n"
     "never has so many. Raises Cancelled in a cancelled scope; nothing is taken then."},
    {"release", FAST(sm_release), METH_FASTCALL,
     "release($self, n=1, /)\n--\n\n"
     "Give n permits back. RuntimeError if fewer were taken; nothing is given then."},
    {"try_acquire", FAST(sm_try_acquire), METH_FASTCALL,
     "try_acquire($self, n=1, /)\n--\n\nTake n permits if that needs no waiting; whether it was done."},
    {"__enter__", FAST(sm_enter), METH_FASTCALL, NULL},
    {"__exit__", FAST(sm_exit), METH_FASTCALL, NULL},
    {NULL},
};
PyTypeObject Semaphore_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer.Semaphore",
    .tp_doc = "Semaphore(n, /)\n--\n\nn permits that are taken and given back; first come, first served.",
    .tp_basicsize = sizeof(Semaphore),
    .tp_weaklistoffset = offsetof(Semaphore, weakrefs),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = sm_new,
    .tp_dealloc = (destructor)sm_dealloc,
    .tp_repr = (reprfunc)sm_repr,
    .tp_methods = sm_methods,
};

int py_sync_add(PyObject *module) {
    return PyModule_AddType(module, &WaitGroup_Type) < 0 || PyModule_AddType(module, &Mutex_Type) < 0
        || PyModule_AddType(module, &Semaphore_Type) < 0 ? -1 : 0;
}
