/* The leaves: which there are, how they are found and exchanged, and an entry for each calling convention. */
#include "patch.h"
#include "sched.h"

/* part, module, type or NULL, name, handler */
#define LEAVES(X) \
    X(sleep, "time", "time", NULL, "sleep", patch_sleep) \
    X(get_ident, "threading", "_thread", NULL, "get_ident", patch_get_ident) \
    X(lock_acquire, "threading", "_thread", "LockType", "acquire", patch_lock_acquire) \
    X(lock_acquire_lock, "threading", "_thread", "LockType", "acquire_lock", patch_lock_acquire) \
    X(lock_locked, "threading", "_thread", "LockType", "locked", NULL) \
    X(lock_enter, "threading", "_thread", "LockType", "__enter__", patch_lock_acquire) \
    X(lock_release, "threading", "_thread", "LockType", "release", patch_lock_release) \
    X(lock_release_lock, "threading", "_thread", "LockType", "release_lock", patch_lock_release) \
    X(lock_exit, "threading", "_thread", "LockType", "__exit__", patch_lock_release) \
    X(rlock_acquire, "threading", "_thread", "RLock", "acquire", patch_rlock_acquire) \
    X(rlock_enter, "threading", "_thread", "RLock", "__enter__", patch_rlock_acquire) \
    X(rlock_release, "threading", "_thread", "RLock", "release", patch_rlock_release) \
    X(rlock_exit, "threading", "_thread", "RLock", "__exit__", patch_rlock_release) \
    X(rlock_is_owned, "threading", "_thread", "RLock", "_is_owned", patch_rlock_is_owned) \
    X(rlock_count, "threading", "_thread", "RLock", "_recursion_count", patch_rlock_recursion_count) \
    X(rlock_save, "threading", "_thread", "RLock", "_release_save", patch_rlock_release_save) \
    X(rlock_restore, "threading", "_thread", "RLock", "_acquire_restore", patch_rlock_acquire_restore) \
    X(thread_join, "threading", "_thread", "_ThreadHandle", "join", patch_join) \
    X(pthread_kill, "threading", "_signal", NULL, "pthread_kill", patch_of_thread) \
    X(thread_clock, "threading", "time", NULL, "pthread_getcpuclockid", patch_of_thread) \
    X(queue_get, "queue", "_queue", "SimpleQueue", "get", patch_queue_get) \
    X(queue_empty, "queue", "_queue", "SimpleQueue", "empty", NULL) \
    X(queue_put, "queue", "_queue", "SimpleQueue", "put", patch_queue_put) \
    X(queue_put_nowait, "queue", "_queue", "SimpleQueue", "put_nowait", patch_queue_put) \
    X(sock_accept, "socket", "_socket", "socket", "_accept", patch_socket_read) \
    X(sock_recv, "socket", "_socket", "socket", "recv", patch_socket_recv) \
    X(sock_recv_into, "socket", "_socket", "socket", "recv_into", patch_socket_recv_into) \
    X(sock_recvfrom, "socket", "_socket", "socket", "recvfrom", patch_socket_read) \
    X(sock_recvfrom_into, "socket", "_socket", "socket", "recvfrom_into", patch_socket_read) \
    X(sock_recvmsg, "socket", "_socket", "socket", "recvmsg", patch_socket_read) \
    X(sock_recvmsg_into, "socket", "_socket", "socket", "recvmsg_into", patch_socket_recvmsg_into) \
    X(sock_send, "socket", "_socket", "socket", "send", patch_socket_send) \
    X(sock_sendall, "socket", "_socket", "socket", "sendall", patch_socket_sendall) \
    X(sock_sendto, "socket", "_socket", "socket", "sendto", patch_socket_sendto) \
    X(sock_sendmsg, "socket", "_socket", "socket", "sendmsg", patch_socket_sendmsg) \
    X(sock_sendmsg_afalg, "socket", "_socket", "socket", "sendmsg_afalg", patch_socket_sendmsg) \
    X(sock_bind, "socket", "_socket", "socket", "bind", patch_socket_bind) \
    X(sock_connect, "socket", "_socket", "socket", "connect", patch_socket_connect) \
    X(sock_connect_ex, "socket", "_socket", "socket", "connect_ex", patch_socket_connect_ex) \
    X(sock_close, "socket", "_socket", "socket", "close", patch_socket_close) \
    X(sock_detach, "socket", "_socket", "socket", "detach", patch_socket_detach) \
    X(ssl_handshake, "ssl", "_ssl", "_SSLSocket", "do_handshake", patch_ssl_handshake) \
    X(ssl_read, "ssl", "_ssl", "_SSLSocket", "read", patch_ssl_read) \
    X(ssl_write, "ssl", "_ssl", "_SSLSocket", "write", patch_ssl_write) \
    X(ssl_shutdown, "ssl", "_ssl", "_SSLSocket", "shutdown", patch_ssl_shutdown) \
    X(getaddrinfo, "socket", "_socket", NULL, "getaddrinfo", patch_in_python) \
    X(getnameinfo, "socket", "_socket", NULL, "getnameinfo", patch_in_python) \
    X(gethostbyname, "socket", "_socket", NULL, "gethostbyname", patch_in_python) \
    X(gethostbyname_ex, "socket", "_socket", NULL, "gethostbyname_ex", patch_in_python) \
    X(gethostbyaddr, "socket", "_socket", NULL, "gethostbyaddr", patch_in_python) \
    X(select, "select", "select", NULL, "select", patch_in_python) \
    X(poll, "select", "select", "poll", "poll", patch_in_python) \
    X(epoll, "select", "select", "epoll", "poll", patch_in_python) \
    X(os_read, "os", "posix", NULL, "read", patch_fd_read) \
    X(os_write, "os", "posix", NULL, "write", patch_fd_write) \
    X(os_eventfd_read, "os", "posix", NULL, "eventfd_read", patch_fd_read) \
    X(os_readv, "os", "posix", NULL, "readv", patch_fd_read) \
    X(os_writev, "os", "posix", NULL, "writev", patch_fd_write_all) \
    X(os_sendfile, "os", "posix", NULL, "sendfile", patch_fd_write_all) \
    X(os_close, "os", "posix", NULL, "close", patch_os_close) \
    X(file_fileno, "io", "_io", "FileIO", "fileno", NULL) \
    X(file_readinto, "io", "_io", "FileIO", "readinto", patch_fd_read) \
    X(file_read, "io", "_io", "FileIO", "read", patch_file_read) \
    X(file_readall, "io", "_io", "FileIO", "readall", patch_fd_read_all) \
    X(file_write, "io", "_io", "FileIO", "write", patch_fd_write) \
    X(reader_read, "io", "_io", "BufferedReader", "read", patch_file) \
    X(reader_read1, "io", "_io", "BufferedReader", "read1", patch_file) \
    X(reader_peek, "io", "_io", "BufferedReader", "peek", patch_file) \
    X(reader_readinto, "io", "_io", "BufferedReader", "readinto", patch_file) \
    X(reader_readinto1, "io", "_io", "BufferedReader", "readinto1", patch_file) \
    X(reader_readline, "io", "_io", "BufferedReader", "readline", patch_file) \
    X(reader_seek, "io", "_io", "BufferedReader", "seek", patch_file) \
    X(reader_close, "io", "_io", "BufferedReader", "close", patch_file) \
    X(writer_write, "io", "_io", "BufferedWriter", "write", patch_file) \
    X(writer_flush, "io", "_io", "BufferedWriter", "flush", patch_file) \
    X(writer_seek, "io", "_io", "BufferedWriter", "seek", patch_file) \
    X(writer_truncate, "io", "_io", "BufferedWriter", "truncate", patch_file) \
    X(writer_close, "io", "_io", "BufferedWriter", "close", patch_file) \
    X(random_read, "io", "_io", "BufferedRandom", "read", patch_file) \
    X(random_read1, "io", "_io", "BufferedRandom", "read1", patch_file) \
    X(random_peek, "io", "_io", "BufferedRandom", "peek", patch_file) \
    X(random_readinto, "io", "_io", "BufferedRandom", "readinto", patch_file) \
    X(random_readinto1, "io", "_io", "BufferedRandom", "readinto1", patch_file) \
    X(random_readline, "io", "_io", "BufferedRandom", "readline", patch_file) \
    X(random_write, "io", "_io", "BufferedRandom", "write", patch_file) \
    X(random_flush, "io", "_io", "BufferedRandom", "flush", patch_file) \
    X(random_seek, "io", "_io", "BufferedRandom", "seek", patch_file) \
    X(random_truncate, "io", "_io", "BufferedRandom", "truncate", patch_file) \
    X(random_close, "io", "_io", "BufferedRandom", "close", patch_file) \
    X(input, "io", "builtins", NULL, "input", patch_in_python) \
    X(os_system, "os", "posix", NULL, "system", patch_in_python) \
    X(waitpid, "os", "posix", NULL, "waitpid", patch_in_python) \
    X(waitid, "os", "posix", NULL, "waitid", patch_in_python) \
    X(wait, "os", "posix", NULL, "wait", patch_in_python) \
    X(wait3, "os", "posix", NULL, "wait3", patch_in_python) \
    X(wait4, "os", "posix", NULL, "wait4", patch_in_python) \
    X(sem_acquire, "multiprocessing", "_multiprocessing", "SemLock", "acquire", patch_semlock_acquire) \
    X(sem_enter, "multiprocessing", "_multiprocessing", "SemLock", "__enter__", patch_semlock_acquire) \
    X(sem_release, "multiprocessing", "_multiprocessing", "SemLock", "release", patch_semlock_release) \
    X(sem_exit, "multiprocessing", "_multiprocessing", "SemLock", "__exit__", patch_semlock_release) \
    X(sem_is_mine, "multiprocessing", "_multiprocessing", "SemLock", "_is_mine", patch_semlock_is_mine) \
    X(sigwait, "signal", "_signal", NULL, "sigwait", patch_in_python) \
    X(sigwaitinfo, "signal", "_signal", NULL, "sigwaitinfo", patch_in_python) \
    X(sigtimedwait, "signal", "_signal", NULL, "sigtimedwait", patch_in_python) \
    X(pause, "signal", "_signal", NULL, "pause", patch_in_python) \
    SLOTS(X)

/* For functions that are named while the program runs, see patch_function. */
#define SLOTS(X) SLOT(X, 0) SLOT(X, 1) SLOT(X, 2) SLOT(X, 3) SLOT(X, 4) SLOT(X, 5) SLOT(X, 6) SLOT(X, 7) \
    SLOT(X, 8) SLOT(X, 9) SLOT(X, 10) SLOT(X, 11) SLOT(X, 12) SLOT(X, 13) SLOT(X, 14) SLOT(X, 15)
#define SLOT(X, n) \
    X(slot_##n##a, "", "", NULL, "", patch_in_python) X(slot_##n##b, "", "", NULL, "", patch_in_python) \
    X(slot_##n##c, "", "", NULL, "", patch_in_python) X(slot_##n##d, "", "", NULL, "", patch_in_python) \
    X(slot_##n##e, "", "", NULL, "", patch_in_python) X(slot_##n##f, "", "", NULL, "", patch_in_python) \
    X(slot_##n##g, "", "", NULL, "", patch_in_python) X(slot_##n##h, "", "", NULL, "", patch_in_python)

#define INDEX(id, part, module, type, name, handle) L_##id,
enum { LEAVES(INDEX) N_LEAVES };

#define ENTRY(id, part, module, type, name, handle) [L_##id] = { part, module, type, name, handle },
static leaf leaves[N_LEAVES] = { LEAVES(ENTRY) };

word_t patch_ended, patch_forked;

/* --- calling conventions --------------------------------------------------------------------------- */
typedef PyObject *(*two)(PyObject *, PyObject *);                    /* METH_NOARGS, METH_O, METH_VARARGS */
typedef PyObject *(*three)(PyObject *, PyObject *, PyObject *);      /* METH_VARARGS | METH_KEYWORDS */
typedef PyObject *(*fast)(PyObject *, PyObject *const *, Py_ssize_t);
typedef PyObject *(*fast_names)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
typedef PyObject *(*with_class)(PyObject *, PyTypeObject *, PyObject *const *, size_t, PyObject *);

#define KINDS (METH_VARARGS | METH_KEYWORDS | METH_NOARGS | METH_O | METH_FASTCALL | METH_METHOD)

PyObject *patch_as_before(const call *c) {
    void (*fn)(void) = (void (*)(void))c->leaf->before.ml_meth;
    switch (c->leaf->before.ml_flags & KINDS) {
    case METH_VARARGS | METH_KEYWORDS: return ((three)fn)(c->self, c->a, c->b);
    case METH_FASTCALL: return ((fast)fn)(c->self, c->args, c->n);
    case METH_FASTCALL | METH_KEYWORDS: return ((fast_names)fn)(c->self, c->args, c->n, c->kwnames);
    case METH_METHOD | METH_FASTCALL | METH_KEYWORDS:
        return ((with_class)fn)(c->self, c->a, c->args, (size_t)c->n, c->kwnames);
    default: return ((two)fn)(c->self, c->a);
    }
}

static PyInterpreterState *main_interpreter;

static PyObject *enter(leaf *l, PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
                       PyObject *kwargs, void *a, void *b) {
    call c = { l, self, args, n, kwnames, kwargs, a, b };
    return LIKELY(PyThreadState_Get()->interp == main_interpreter) ? l->handle(&c) : patch_as_before(&c);
}

static PyObject *only_false;                     /* (False,), which acquire and get are given so often */

PyObject *patch_call(leaf *l, PyObject *self, PyTypeObject *class, PyObject *arg) {
    call c = { l, self, &arg, arg != NULL, NULL, NULL, arg, NULL };
    int flags = l->before.ml_flags & KINDS;
    if (flags & METH_METHOD) c.a = class;
    if (!(flags & METH_VARARGS) || (arg == Py_False && (c.a = only_false))) return patch_as_before(&c);
    PyObject *args = c.a = PyTuple_New(c.n);
    if (!args) return NULL;
    if (arg) PyTuple_SET_ITEM(args, 0, Py_NewRef(arg));
    PyObject *result = patch_as_before(&c);
    Py_DECREF(args);
    return result;
}

int patch_ask(leaf *l, PyObject *self, PyTypeObject *class, PyObject *arg) {
    PyObject *answer = patch_call(l, self, class, arg);
    if (!answer) return -1;
    int is = answer == Py_True;
    Py_DECREF(answer);
    return is;
}

static PyObject *enter_tuple(leaf *l, PyObject *self, PyObject *args, PyObject *kwargs) {
    PyObject **items = ((PyTupleObject *)args)->ob_item;
    return enter(l, self, items, PyTuple_GET_SIZE(args), NULL, kwargs, args, kwargs);
}

#define CONVENTIONS(id, part, module, type, name, handle) \
    static PyObject *id##_none(PyObject *self, PyObject *unused) { \
        return enter(&leaves[L_##id], self, NULL, 0, NULL, NULL, unused, NULL); } \
    static PyObject *id##_one(PyObject *self, PyObject *o) { \
        return enter(&leaves[L_##id], self, &o, 1, NULL, NULL, o, NULL); } \
    static PyObject *id##_two(PyObject *self, PyObject *args) { \
        return enter_tuple(&leaves[L_##id], self, args, NULL); } \
    static PyObject *id##_three(PyObject *self, PyObject *args, PyObject *kwargs) { \
        return enter_tuple(&leaves[L_##id], self, args, kwargs); } \
    static PyObject *id##_fast(PyObject *self, PyObject *const *args, Py_ssize_t n) { \
        return enter(&leaves[L_##id], self, args, n, NULL, NULL, NULL, NULL); } \
    static PyObject *id##_names(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames) { \
        return enter(&leaves[L_##id], self, args, n, kwnames, NULL, NULL, NULL); } \
    static PyObject *id##_class(PyObject *self, PyTypeObject *class, PyObject *const *args, size_t n, \
                                PyObject *kwnames) { \
        return enter(&leaves[L_##id], self, args, PyVectorcall_NARGS(n), kwnames, NULL, class, NULL); }
LEAVES(CONVENTIONS)

typedef void (*any)(void);
typedef struct entries { any none, one, two, three, fast, names, class; } entries;
#define ENTRIES(id, part, module, type, name, handle) \
    [L_##id] = { (any)id##_none, (any)id##_one, (any)id##_two, (any)id##_three, (any)id##_fast, \
                 (any)id##_names, (any)id##_class },
static const entries entry_of[N_LEAVES] = { LEAVES(ENTRIES) };

/* NULL: a convention we do not know. */
static PyCFunction entry_for(const leaf *l) {
    const entries *e = &entry_of[l - leaves];
    switch (l->before.ml_flags & KINDS) {
    case METH_NOARGS: return (PyCFunction)e->none;
    case METH_O: return (PyCFunction)e->one;
    case METH_VARARGS: return (PyCFunction)e->two;
    case METH_VARARGS | METH_KEYWORDS: return (PyCFunction)e->three;
    case METH_FASTCALL: return (PyCFunction)e->fast;
    case METH_FASTCALL | METH_KEYWORDS: return (PyCFunction)e->names;
    case METH_METHOD | METH_FASTCALL | METH_KEYWORDS: return (PyCFunction)e->class;
    default: return NULL;
    }
}

/* --- finding them ---------------------------------------------------------------------------------- */
/* Of a function of a module or a method of a type, in C; NULL for anything else. */
static PyMethodDef *def_of(PyObject *o) {
    if (Py_IS_TYPE(o, &PyMethodDescr_Type)) return ((PyMethodDescrObject *)o)->d_method;
    if (!PyCFunction_Check(o)) return NULL;
    PyObject *self = PyCFunction_GET_SELF(o);
    return !self || PyModule_Check(self) ? ((PyCFunctionObject *)o)->m_ml : NULL;
}

/* 0, also when it can not stand for that; -1 with an exception. */
static int take_from(leaf *l, PyObject *o) {
    if (!(l->def = def_of(o))) return 0;
    l->before = *l->def;
    if (!entry_for(l)) { l->def = NULL; return 0; }
    l->original = Py_IS_TYPE(o, &PyMethodDescr_Type)
                ? PyDescr_NewMethod(PyDescr_TYPE(o), &l->before)
                : PyCFunction_NewEx(&l->before, PyCFunction_GET_SELF(o), NULL);
    if (l->original) return 0;
    l->def = NULL;
    return -1;
}

/* The type of poll objects has no name in the module, only a function that makes one. */
static PyObject *type_of(const leaf *l, PyObject *module) {
    PyObject *o = PyObject_GetAttrString(module, l->type);
    if (!o || PyType_Check(o)) return o;
    Py_SETREF(o, PyObject_CallNoArgs(o));
    if (o) Py_SETREF(o, Py_NewRef(Py_TYPE(o)));
    return o;
}

static int take(leaf *l) {
    if (l->def) return 0;
    PyObject *owner = PyImport_ImportModule(l->module), *o = NULL;
    if (!owner && !PyErr_ExceptionMatches(PyExc_ImportError)) return -1;
    if (owner && l->type) Py_SETREF(owner, type_of(l, owner));
    if (owner) o = PyObject_GetAttrString(owner, l->name);
    PyErr_Clear();
    int result = o ? take_from(l, o) : 0;        /* somebody may have put another function there: not ours */
    Py_XDECREF(o);
    Py_XDECREF(owner);
    return result;
}

static void exchange(leaf *l, bool on) {
    if (l->exchanged == on) return;
    atomic_store((_Atomic(void *) *)&l->def->ml_meth, (void *)(on ? entry_for(l) : l->before.ml_meth));
    l->exchanged = on;
}

/* What handlers must know beforehand; 0, or -1 with an exception. */
static int prepare(const char *part) {
    main_interpreter = PyInterpreterState_Main();
    if (!only_false && !(only_false = PyTuple_Pack(1, Py_False))) return -1;
    if (patch_watch_forks() < 0) return -1;
    if (!strcmp(part, "socket")) return patch_know_sockets();
    return strcmp(part, "multiprocessing") ? 0 : patch_know_semlocks();
}

int patch_part(const char *part, bool on) {
    int n = 0;
    if (on && prepare(part) < 0) return -1;
    for (leaf *l = leaves; l < leaves + N_LEAVES; l++)
        if (!strcmp(l->part, part) && on && take(l) < 0) return -1;
    for (leaf *l = leaves; l < leaves + N_LEAVES; l++) {
        if (strcmp(l->part, part) || !l->def || !l->handle) continue;
        if (l->handle == patch_in_python && !l->python) continue;
        n++;
        exchange(l, on);
    }
    return n;
}

leaf *patch_leaf(const char *name) {
    char whole[100];
    for (leaf *l = leaves; l < leaves + N_LEAVES; l++) {
        const char *type = l->type ? l->type : "";
        snprintf(whole, sizeof whole, "%s%s%s.%s", l->module, l->type ? "." : "", type, l->name);
        if (!strcmp(whole, name)) return l;
    }
    return NULL;
}

void patch_end(void) { relaxed_store(&patch_ended, true); }

/* --- threading.local ------------------------------------------------------------------------------- */
/* What the thread has so far is that of what it did before it ran goroutines. */
static void part_locals(worker *w, void *unused) {
    if (w->cur != w->host) ps_save_locals(&w->host->ps, w->ts);
}
static void unite_locals(worker *w, void *unused) {
    if (w->cur == w->host) return;
    ps_save_locals(&w->cur->ps, w->ts);
    ps_load_locals(&w->host->ps, w->ts);
}

void patch_locals(bool on) {
    if (on == ps_own_locals) return;
    sched_each_worker(on ? part_locals : unite_locals, NULL);
    ps_own_locals = on;
}

/* --- for handlers ---------------------------------------------------------------------------------- */
PyObject *patch_arg(const call *c, Py_ssize_t position, const char *name) {
    if (position < c->n) return c->args[position];
    if (!name) return NULL;
    if (c->kwargs) return PyDict_GetItemString(c->kwargs, name);
    for (Py_ssize_t i = 0; c->kwnames && i < PyTuple_GET_SIZE(c->kwnames); i++) {
        PyObject *one = PyTuple_GET_ITEM(c->kwnames, i);
        if (PyUnicode_CompareWithASCIIString(one, name) == 0) return c->args[c->n + i];
    }
    return NULL;
}

bool patch_seconds(PyObject *o, double *seconds) {
    if (PyFloat_Check(o)) { *seconds = PyFloat_AS_DOUBLE(o); return true; }
    PyObject *n = PyIndex_Check(o) ? PyNumber_Index(o) : NULL;
    *seconds = n ? PyLong_AsDouble(n) : -1.0;
    Py_XDECREF(n);
    bool is = n && !PyErr_Occurred();
    PyErr_Clear();
    return is;
}

/* fn(original, self, *args, **kwargs), without self where that is the module. */
static PyObject *in_python(const call *c) {
    PyObject *args = PyTuple_New(c->n + (c->leaf->type ? 2 : 1)), *kwargs = Py_XNewRef(c->kwargs);
    if (!args) { Py_XDECREF(kwargs); return NULL; }
    Py_ssize_t at = 0;
    PyTuple_SET_ITEM(args, at++, Py_NewRef(c->leaf->original));
    if (c->leaf->type) PyTuple_SET_ITEM(args, at++, Py_NewRef(c->self));
    for (Py_ssize_t i = 0; i < c->n; i++) PyTuple_SET_ITEM(args, at++, Py_NewRef(c->args[i]));
    int failed = 0;
    if (c->kwnames) {
        kwargs = PyDict_New();
        failed = !kwargs;
        for (Py_ssize_t i = 0; !failed && i < PyTuple_GET_SIZE(c->kwnames); i++)
            failed = PyDict_SetItem(kwargs, PyTuple_GET_ITEM(c->kwnames, i), c->args[c->n + i]) < 0;
    }
    PyObject *result = failed ? NULL : PyObject_Call(c->leaf->python, args, kwargs);
    Py_DECREF(args);
    Py_XDECREF(kwargs);
    return result;
}

PyObject *patch_in_python(const call *c) { return patch_goroutine() ? in_python(c) : patch_as_before(c); }
PyObject *patch_join(const call *c) { return patch_caller() ? in_python(c) : patch_as_before(c); }

/* --- functions that are named while the program runs ----------------------------------------------- */
static bool is_slot(const leaf *l) { return !*l->module; }

/* The one that has stood for it before, or a free slot; NULL: there is none. */
static leaf *leaf_for(const PyMethodDef *def) {
    leaf *free = NULL;
    for (leaf *l = leaves; l < leaves + N_LEAVES; l++) {
        if (l->def == def) return l;
        if (!free && !l->def && is_slot(l)) free = l;
    }
    return free;
}

int patch_function(PyObject *o, PyObject *function, bool everywhere) {
    if (!def_of(o)) return 0;
    leaf *l = leaf_for(def_of(o));
    if (l && !l->def && take_from(l, o) < 0) return -1;
    if (!l)
        PyErr_SetString(PyExc_RuntimeError,
                        "there is no room for more functions in C that are sent to threads");
    else if (!l->def) PyErr_Format(PyExc_TypeError, "%R is called in a way that is not known", o);
    else if (l->exchanged || !is_slot(l)) PyErr_Format(PyExc_ValueError, "%R is cooperative already", o);
    if (PyErr_Occurred()) return -1;
    main_interpreter = PyInterpreterState_Main();
    l->type = Py_IS_TYPE(o, &PyMethodDescr_Type) ? "" : NULL;
    Py_XSETREF(l->python, Py_NewRef(function));
    l->handle = everywhere ? in_python : patch_in_python;
    exchange(l, true);
    return 1;
}

void patch_function_back(PyObject *o) {
    leaf *l = def_of(o) ? leaf_for(def_of(o)) : NULL;
    if (l && l->def && is_slot(l)) exchange(l, false);
}
