/* recv and recv_into of a socket: the two that a server spends its time in.

   Done here, with MSG_DONTWAIT: what was there before would need a descriptor that does not block, which
   takes a call of the system to know, and an exception each time there is nothing to read.  Only calls of the
   plain form, without flags; all others go the way of patch_recv_all.c and patch_socket.c.

   What must stay true:
   - Nothing is held for a connection that waits: what is read goes into spare bytes of the worker, which are
     copied, or given away when that is much.  They are the goroutine's until it may switch.
   - The interpreter is not released for what is short: to take it up again costs more. */
#include "patch.h"
#include "netpoll.h"
#include <errno.h>
#include <sys/socket.h>

enum { SHORT = 64 * 1024 };

/* Bytes, as recv(2), or -1 with an errno. */
static ssize_t receive_now(int fd, char *into, size_t n) {
    if (n <= SHORT) return recv(fd, into, n, MSG_DONTWAIT);
    ssize_t got;
    int error;
    Py_BEGIN_ALLOW_THREADS
    got = recv(fd, into, n, MSG_DONTWAIT);
    error = errno;
    Py_END_ALLOW_THREADS
    errno = error;
    return got;
}

/* What to do about an errno: 0 try again, -1 with an exception. */
static int after(int error, PyObject *s, G *g, const limit *l) {
    if (error == EINTR) return PyErr_CheckSignals();
    if (error != EAGAIN || patch_socket_timeout(s) == 0) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    int64_t left = patch_limit_left(l);
    int ready = left ? patch_wait_fd(g, patch_socket_fd(s), FD_READ, left) : 0;
    if (ready == 0) patch_timed_out("timed out");
    return ready > 0 ? 0 : -1;
}

/* Into memory of the caller's, which may switch meanwhile; how many bytes, or -1 with an exception. */
static Py_ssize_t receive(PyObject *s, G *g, char *into, size_t n, const limit *l) {
    for (;;) {
        ssize_t got = receive_now(patch_socket_fd(s), into, n);
        if (got >= 0) return got;
        if (after(errno, s, g, l) < 0) return -1;
    }
}

/* The worker's spare bytes, at least n of them; borrowed, NULL with an exception. */
static PyObject *spare_of(worker *w, Py_ssize_t n) {
    if (!w->spare || PyBytes_GET_SIZE(w->spare) < n) Py_XSETREF(w->spare, PyBytes_FromStringAndSize(NULL, n));
    return w->spare;
}

/* The first `got` of the spare bytes: a copy, or if they are many themselves. */
static PyObject *out_of_spare(worker *w, Py_ssize_t got) {
    if (got < PyBytes_GET_SIZE(w->spare) / 4)
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(w->spare), got);
    PyObject *bytes = w->spare;
    w->spare = NULL;
    if (got != PyBytes_GET_SIZE(bytes)) _PyBytes_Resize(&bytes, got);
    return bytes;
}

static PyObject *receive_short(PyObject *s, G *g, Py_ssize_t n, const limit *l) {
    for (;;) {
        worker *w = g->worker;
        PyObject *spare = spare_of(w, n);
        if (!spare) return NULL;
        ssize_t got = receive_now(patch_socket_fd(s), PyBytes_AS_STRING(spare), (size_t)n);
        if (got >= 0) return out_of_spare(w, got);
        if (after(errno, s, g, l) < 0) return NULL;
    }
}

static PyObject *receive_long(PyObject *s, G *g, Py_ssize_t n, const limit *l) {
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, n);
    if (!bytes) return NULL;
    Py_ssize_t got = receive(s, g, PyBytes_AS_STRING(bytes), (size_t)n, l);
    if (got < 0) Py_CLEAR(bytes);
    else if (got != n) _PyBytes_Resize(&bytes, got);
    return bytes;
}

/* Whether it is a goroutine's call that may wait. */
static G *caller(const call *c) {
    bool plain = patch_nargs(c) == 1 && c->n == 1;
    bool may_wait = plain && patch_socket_timeout(c->self) != 0 && patch_socket_fd(c->self) >= 0;
    return may_wait ? patch_goroutine() : NULL;
}

PyObject *patch_socket_recv(const call *c) {
    G *g = caller(c);
    Py_ssize_t n = g && PyLong_CheckExact(c->args[0]) ? PyLong_AsSsize_t(c->args[0]) : 0;
    if (n <= 0) {
        if (n < 0) PyErr_Clear();
        return patch_recv_all(c);
    }
    limit l;
    if (patch_limit(&l, g, patch_socket_timeout(c->self)) < 0) return NULL;
    PyObject *bytes = n <= SHORT ? receive_short(c->self, g, n, &l) : receive_long(c->self, g, n, &l);
    if (bytes) g_could_switch();
    return bytes;
}

PyObject *patch_socket_recv_into(const call *c) {
    G *g = caller(c);
    Py_buffer into;
    if (!g) return patch_recv_all_into(c);
    if (PyObject_GetBuffer(c->args[0], &into, PyBUF_WRITABLE) < 0 || !into.len) {
        if (!PyErr_Occurred()) PyBuffer_Release(&into);
        PyErr_Clear();
        return patch_socket_read(c);             /* it says what is wrong */
    }
    limit l;
    int64_t timeout = patch_socket_timeout(c->self);
    Py_ssize_t got = -1;
    if (patch_limit(&l, g, timeout) == 0) got = receive(c->self, g, into.buf, (size_t)into.len, &l);
    PyBuffer_Release(&into);
    if (got < 0) return NULL;
    g_could_switch();
    return PyLong_FromSsize_t(got);
}
