/* Sockets of the module _ssl.

   Such an object refers weakly to the socket below it, whose mode it follows.  While what was there before is
   called, it refers to a double of that socket in non-blocking mode; it says then what it would wait for.

   What must stay true: nobody else uses the object while it is called.  OpenSSL would not allow it either. */
#include "patch.h"
#include "netpoll.h"

static Py_ssize_t socket_at;                     /* of the weak reference; 0: not known */
static PyTypeObject *double_type;
static PyObject *want_read, *want_write, *ssl_error;
static PyObject *own_context;                    /* an SSLContext that nobody else has */

int patch_know_ssl(PyObject *sample, PyObject *ref, PyObject *type) {
    if (socket_at) return 0;
    PyObject *module = PyImport_ImportModule("_ssl");
    want_read = module ? PyObject_GetAttrString(module, "SSLWantReadError") : NULL;
    want_write = want_read ? PyObject_GetAttrString(module, "SSLWantWriteError") : NULL;
    ssl_error = want_write ? PyObject_GetAttrString(module, "SSLError") : NULL;
    Py_XDECREF(module);
    own_context = ssl_error ? PyObject_GetAttrString(sample, "context") : NULL;
    if (!own_context || patch_know_sockets() < 0) return -1;
    double_type = (PyTypeObject *)Py_NewRef(type);
    for (Py_ssize_t at = sizeof(PyObject); at < Py_TYPE(sample)->tp_basicsize; at += sizeof(void *))
        if (*(PyObject **)((char *)sample + at) == ref) { socket_at = at; return 0; }
    PyErr_SetString(PyExc_RuntimeError, "patch() does not know the TLS sockets of this Python; exclude ssl");
    return -1;
}

static PyObject **ref_of(PyObject *ssl) { return (PyObject **)((char *)ssl + socket_at); }

/* The socket below; NULL, without an exception, when there is none, or none any more. */
static PyObject *socket_of(PyObject *ssl) {
    PyObject *ref = socket_at ? *ref_of(ssl) : NULL;
    PyObject *s = ref && PyWeakref_Check(ref) ? PyObject_CallNoArgs(ref) : NULL;
    if (s && patch_is_socket(s)) return s;
    PyErr_Clear();
    Py_XDECREF(s);
    return NULL;
}

static PyObject *call_double(const call *c, PyObject *s) {
    PyObject *twin = patch_double(s, double_type), *result = NULL;
    PyObject *ref = twin ? PyWeakref_NewRef(twin, NULL) : NULL;
    if (ref) {
        PyObject *before = *ref_of(c->self);
        *ref_of(c->self) = ref;
        result = patch_as_before(c);
        *ref_of(c->self) = before;
        if (result == twin) Py_SETREF(result, Py_NewRef(s));     /* shutdown() returns what it is above */
    }
    if (twin) patch_double_over(twin);
    Py_XDECREF(ref);
    return result;
}

/* What it has to wait for, which is taken off; 0: the exception is another. */
static uint8_t wanted(void) {
    uint8_t events = PyErr_ExceptionMatches(want_read) ? FD_READ
                   : PyErr_ExceptionMatches(want_write) ? FD_WRITE
                   : 0;
    if (events) PyErr_Clear();
    return events;
}

static PyObject *call_in_turns(const call *c, PyObject *s, G *g, const char *late) {
    limit l;
    if (g && patch_limit(&l, g, patch_socket_timeout(s)) < 0) return NULL;
    for (;;) {
        int fd = patch_socket_fd(s);
        if (fd < 0) return patch_as_before(c);
        patch_fd_unblock(fd);
        PyObject *result = call_double(c, s);
        if (result) return result;
        uint8_t events = wanted();
        if (!events) return NULL;
        if (!g) {
            if (patch_poll_fd(fd, events) < 0) return NULL;
            continue;
        }
        int64_t left = patch_limit_left(&l);
        int ready = left ? patch_wait_fd(g, fd, events, left) : 0;
        if (ready == 0) return patch_timed_out(late);
        if (ready < 0) return NULL;
    }
}

/* A call that the system has refused may leave that in OpenSSL's queue of errors (CPython 3.13.2 and
   later).  The queue is the thread's, and the next call, of another goroutine, would fail with it.  A wrong
   choice of ciphers is what empties it. */
static void forget_refusal(void) {
    if (!PyErr_ExceptionMatches(PyExc_OSError) || PyErr_ExceptionMatches(ssl_error)) return;
    PyObject *error = ps_take_exception();
    Py_XDECREF(PyObject_CallMethod(own_context, "set_ciphers", "s", "nosuch"));
    PyErr_Clear();
    ps_raise(error);
}

/* A thread on a descriptor that does not block any more would ask again and again. */
static PyObject *call_cooperatively(const call *c, const char *late) {
    G *g = patch_goroutine();
    PyObject *s = socket_of(c->self);
    int64_t timeout = s ? patch_socket_timeout(s) : 0;
    bool direct = g ? timeout == 0 : timeout >= 0 || patch_fd_blocks(patch_socket_fd(s));
    PyObject *result = direct ? patch_as_before(c) : call_in_turns(c, s, g, late);
    if (!result && s && g) forget_refusal();
    Py_XDECREF(s);
    return result;
}

PyObject *patch_ssl_read(const call *c) {
    return call_cooperatively(c, "The read operation timed out");
}
PyObject *patch_ssl_write(const call *c) {
    return call_cooperatively(c, "The write operation timed out");
}
PyObject *patch_ssl_handshake(const call *c) {
    return call_cooperatively(c, "The handshake operation timed out");
}
PyObject *patch_ssl_shutdown(const call *c) {
    return call_cooperatively(c, "The read operation timed out");
}
