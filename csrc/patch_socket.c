/* Sockets.

   A socket of Python's is in one of three modes: without a limit, with a time-out, or non-blocking; the
   last is left alone.  A goroutine calls what was there before, so that it can not block, and waits when it
   would have to:
   - With a time-out, Python has made the descriptor non-blocking, and polls before each call.  So what is
     called gets a double of the object instead, in non-blocking mode: the same descriptor, gone when the
     call returns.
   - Without a limit the descriptor is made non-blocking here, and Python's mode stays.  A thread that then
     meets EAGAIN, which it did not before, polls and tries again.

   What must stay true:
   - A double never closes the descriptor.
   - A call that has sent part of its bytes says how many, or goes on; it does
     not fail when it is cancelled. */
#include "patch.h"
#include "netpoll.h"
#include "sched.h"
#include "timer.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

/* --- the object of the module _socket -------------------------------------------------------------- */
static PyTypeObject *socket_type;
static Py_ssize_t fd_at, timeout_at;             /* found by trying, see patch_know_sockets */

static int *fd_of(PyObject *s) { return (int *)((char *)s + fd_at); }
static int64_t *timeout_of(PyObject *s) { return (int64_t *)((char *)s + timeout_at); }
int patch_socket_fd(PyObject *s) { return *fd_of(s); }
int64_t patch_socket_timeout(PyObject *s) { return *timeout_of(s); }
bool patch_is_socket(PyObject *o) { return socket_type && PyObject_TypeCheck(o, socket_type); }

static int find_fields(PyObject *s) {
    PyObject *fd = PyObject_CallMethod(s, "fileno", NULL), *none = NULL;
    int64_t probe = 0;
    long number = fd ? PyLong_AsLong(fd) : -1;
    Py_XDECREF(fd);
    fd_at = sizeof(PyObject);
    if (number < 0 || *fd_of(s) != number) return -1;
    for (timeout_at = fd_at; timeout_at < socket_type->tp_basicsize; timeout_at += 8) {
        bool is = true;
        for (probe = 1; probe < 4 && is; probe++) {
            none = PyObject_CallMethod(s, "settimeout", "d", (double)probe * 1000.5);
            if (!none) return -1;
            Py_DECREF(none);
            is = *timeout_of(s) == probe * 1000500000000;
        }
        if (is) return 0;
    }
    return -1;
}

int patch_know_sockets(void) {
    if (socket_type) return 0;
    PyObject *module = PyImport_ImportModule("_socket");
    if (!module) return -1;
    PyTypeObject *type = (PyTypeObject *)PyObject_GetAttrString(module, "socket");
    Py_DECREF(module);
    if (!type) return -1;
    socket_type = type;
    PyObject *s = PyObject_CallFunction((PyObject *)type, "ii", AF_UNIX, SOCK_STREAM);
    int found = s ? find_fields(s) : -1;
    if (s) Py_XDECREF(PyObject_CallMethod(s, "close", NULL));
    Py_XDECREF(s);
    if (found == 0) return 0;
    socket_type = NULL;
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_RuntimeError,
                        "patch() does not know the sockets of this Python; exclude socket and ssl");
    return -1;
}

/* --- calling without blocking ---------------------------------------------------------------------- */
PyObject *patch_double(PyObject *s, PyTypeObject *type) {
    if (!type) type = socket_type;
    PyObject *twin = type->tp_alloc(type, 0);
    if (!twin) return NULL;
    size_t head = sizeof(PyObject);
    memcpy((char *)twin + head, (char *)s + head, (size_t)socket_type->tp_basicsize - head);
    *timeout_of(twin) = 0;
    return twin;
}

void patch_double_over(PyObject *twin) {
    PyObject *error = PyErr_Occurred() ? ps_take_exception() : NULL;
    *fd_of(twin) = -1;
    Py_DECREF(twin);
    if (error) ps_raise(error);
}

static PyObject *call_double(const call *c) {
    PyObject *twin = patch_double(c->self, NULL);
    if (!twin) return NULL;
    call again = *c;
    again.self = twin;
    PyObject *result = patch_as_before(&again);
    patch_double_over(twin);
    return result;
}

bool patch_fd_blocks(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && !(flags & O_NONBLOCK);
}

void patch_fd_unblock(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && !(flags & O_NONBLOCK)) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static PyObject *call_now(const call *c) {
    if (*timeout_of(c->self) > 0) return call_double(c);
    patch_fd_unblock(*fd_of(c->self));
    return patch_as_before(c);
}

/* The exception that is set says that it would have blocked: it is taken off then. */
static bool would_block(void) {
    if (!PyErr_ExceptionMatches(PyExc_BlockingIOError)) return false;
    PyErr_Clear();
    return true;
}

/* A Unix socket may be ready to send, and still have no room: in whom it sends
   to.  Nothing tells when it has. */
static const int64_t FULL_NS = 5000000;

/* --- waiting --------------------------------------------------------------------------------------- */
PyObject *patch_timed_out(const char *text) {
    PyErr_SetString(PyExc_TimeoutError, text);
    return NULL;
}

int patch_limit(limit *l, G *g, int64_t timeout) {
    *l = (limit){ NEVER, NULL };
    if (timeout < 0) return 0;
    if (!(l->clock = timers_of(g))) return -1;
    l->until = timers_clock(l->clock) + timeout;
    return 0;
}

int64_t patch_limit_left(const limit *l) {
    if (l->until == NEVER) return NEVER;
    int64_t left = l->until - timers_clock(l->clock);
    return left > 0 ? left : 0;
}

int patch_wait_fd(G *g, int fd, uint8_t events, int64_t ns) {
    fd_wait *w = mem_calloc(sizeof *w);
    if (!w) { PyErr_NoMemory(); return -1; }
    w->fd = fd;
    w->events = events;
    int result = fds_wait(g, w, 1, ns) < 0 ? -1 : w->ready != 0;
    bool closed = w->ready & FD_CLOSED;
    mem_free(w);
    if (result < 0 || !closed) return result;
    errno = EBADF;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

int patch_poll_fd(int fd, uint8_t events) {
    struct pollfd p = { fd, events == FD_READ ? POLLIN : POLLOUT, 0 };
    int n, error;
    Py_BEGIN_ALLOW_THREADS
    n = poll(&p, 1, -1);
    error = errno;
    Py_END_ALLOW_THREADS
    return n < 0 && error == EINTR ? PyErr_CheckSignals() : 0;
}

/* A thread calls, on a descriptor that may have been made non-blocking here. */
static PyObject *call_in_thread(const call *c, uint8_t events) {
    for (;;) {
        PyObject *result = patch_as_before(c);
        if (result || !socket_type || *timeout_of(c->self) >= 0) return result;
        int fd = *fd_of(c->self);
        if (!PyErr_ExceptionMatches(PyExc_BlockingIOError) || patch_fd_blocks(fd)) return NULL;
        PyErr_Clear();
        if (patch_poll_fd(fd, events) < 0) return NULL;
    }
}

static PyObject *call_cooperatively(const call *c, uint8_t events) {
    G *g = patch_goroutine();
    limit l;
    if (!g) return call_in_thread(c, events);
    if (*timeout_of(c->self) == 0 || *fd_of(c->self) < 0) return patch_as_before(c);
    if (patch_limit(&l, g, *timeout_of(c->self)) < 0) return NULL;
    for (int round = 1;; round++) {
        PyObject *result = call_now(c);
        if (result) { g_could_switch(); return result; }
        if (!would_block()) return NULL;
        int64_t left = patch_limit_left(&l);
        if (left == 0) return patch_timed_out("timed out");
        if (events == FD_WRITE && round % 4 == 0) {
            if (timer_sleep(g, left < FULL_NS ? left : FULL_NS) < 0) return NULL;
        }
        int ready = patch_wait_fd(g, *fd_of(c->self), events, left);
        if (ready < 0) return NULL;
        if (ready == 0) return patch_timed_out("timed out");
        if (*timeout_of(c->self) == 0) return patch_as_before(c);
    }
}

PyObject *patch_socket_read(const call *c) { return call_cooperatively(c, FD_READ); }

/* The same, where iterators are among the first n arguments: a second attempt would find them empty. */
static PyObject *call_with_lists(const call *c, Py_ssize_t n, uint8_t events) {
    bool iterators = false;
    for (Py_ssize_t i = 0; i < n && i < c->n; i++) iterators |= PyIter_Check(c->args[i]);
    PyObject *args = iterators ? PyTuple_New(c->n) : NULL, *result = NULL;
    if (!args) return iterators ? NULL : call_cooperatively(c, events);
    Py_ssize_t i = 0;
    for (; i < c->n; i++) {
        PyObject *o = c->args[i];
        o = i < n && PyIter_Check(o) ? PySequence_List(o) : Py_NewRef(o);
        if (!o) break;
        PyTuple_SET_ITEM(args, i, o);
    }
    if (i == c->n) {
        call again = *c;
        again.args = ((PyTupleObject *)args)->ob_item;
        again.a = args;
        result = call_cooperatively(&again, events);
    }
    Py_DECREF(args);
    return result;
}

/* recvmsg_into(buffers[, ...]), sendmsg(buffers[, ancillary data[, ...]]) */
PyObject *patch_socket_recvmsg_into(const call *c) { return call_with_lists(c, 1, FD_READ); }
PyObject *patch_socket_sendmsg(const call *c) { return call_with_lists(c, 2, FD_WRITE); }

Py_ssize_t patch_part_of(Py_ssize_t done) {
    if (!done || !PyErr_ExceptionMatches(rt.errors.cancelled)) return -1;
    PyErr_Clear();
    return done;
}

static PyObject *close_and_tell(const call *c, int fd) {
    sched_fd_closing(fd);
    PyObject *result = patch_as_before(c);
    sched_fd_closed(fd);
    return result;
}

PyObject *patch_socket_close(const call *c) {
    int fd = *fd_of(c->self);
    return fd >= 0 ? close_and_tell(c, fd) : patch_as_before(c);
}

/* Who uses the bare descriptor from now on expects it to be in the mode that the object shows. */
PyObject *patch_socket_detach(const call *c) {
    int fd = *fd_of(c->self), flags = fd >= 0 && *timeout_of(c->self) < 0 ? fcntl(fd, F_GETFL) : -1;
    if (flags >= 0 && flags & O_NONBLOCK) fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    return patch_as_before(c);
}

PyObject *patch_os_close(const call *c) {
    PyObject *fd = patch_arg(c, 0, "fd");
    long n = fd && PyLong_Check(fd) ? PyLong_AsLong(fd) : -1;
    if (n == -1) PyErr_Clear();
    return n >= 0 && n <= INT_MAX ? close_and_tell(c, (int)n) : patch_as_before(c);
}

/* --- send, sendall --------------------------------------------------------------------------------- */
enum { SHORT = 16 * 1024 };
typedef struct { Py_buffer data; int flags; } message;

/* false, without an exception: wrong, as what was there before will say. */
static bool take_message(const call *c, message *m) {
    m->flags = 0;
    if (patch_nargs(c) != c->n || c->n < 1 || c->n > 2) return false;
    if (c->n == 2) {
        long flags = PyLong_Check(c->args[1]) ? PyLong_AsLong(c->args[1]) : -1;
        if (flags < 0 || flags > INT_MAX) { PyErr_Clear(); return false; }
        m->flags = (int)flags;
    }
    if (PyObject_GetBuffer(c->args[0], &m->data, PyBUF_SIMPLE) == 0) return true;
    PyErr_Clear();
    return false;
}

/* As send(2) with MSG_DONTWAIT.  The interpreter is not released for what is short, see patch_recv.c. */
static ssize_t send_some(int fd, const char *data, size_t n, int flags) {
    if (n <= SHORT) return send(fd, data, n, flags | MSG_DONTWAIT);
    ssize_t sent;
    int error;
    Py_BEGIN_ALLOW_THREADS
    sent = send(fd, data, n, flags | MSG_DONTWAIT);
    error = errno;
    Py_END_ALLOW_THREADS
    errno = error;
    return sent;
}

/* How many bytes have gone, -1 with an exception.  `whole`: all, or it fails. */
static Py_ssize_t send_now(PyObject *s, G *g, const message *m, bool whole, limit *l) {
    bool all = whole || l->until == NEVER;       /* as send(2) does on a descriptor that blocks */
    Py_ssize_t sent = 0;
    do {
        ssize_t n = send_some(*fd_of(s), (char *)m->data.buf + sent, (size_t)(m->data.len - sent), m->flags);
        int error = errno;
        if (n >= 0) {
            sent += n;
            if (PyErr_CheckSignals() < 0) return -1;
            continue;
        }
        if (error == EINTR) { if (PyErr_CheckSignals() < 0) return -1; continue; }
        if (error != EAGAIN) {
            errno = error;
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        int64_t left = patch_limit_left(l);
        int ready = left ? patch_wait_fd(g, *fd_of(s), FD_WRITE, left) : 0;
        if (ready == 0) patch_timed_out("timed out");
        if (ready <= 0) return whole ? -1 : patch_part_of(sent);
    } while ((all || sent == 0) && sent < m->data.len);
    return sent;
}

static PyObject *send_cooperatively(const call *c, bool whole, PyObject *(*in_thread)(const call *)) {
    G *g = patch_goroutine();
    message m;
    limit l;
    int64_t timeout = *timeout_of(c->self);
    if (!g || timeout == 0 || *fd_of(c->self) < 0) return in_thread(c);
    if (!take_message(c, &m)) return patch_as_before(c);
    Py_ssize_t sent = patch_limit(&l, g, timeout) < 0 ? -1 : send_now(c->self, g, &m, whole, &l);
    PyBuffer_Release(&m.data);
    if (sent < 0) return NULL;
    g_could_switch();
    return whole ? Py_NewRef(Py_None) : PyLong_FromSsize_t(sent);
}

static PyObject *send_in_thread(const call *c) { return call_in_thread(c, FD_WRITE); }

/* In a thread, on a descriptor that does not block any more: what was there before would stop half-way. */
static PyObject *sendall_in_thread(const call *c) {
    int fd = *fd_of(c->self);
    if (*timeout_of(c->self) >= 0 || fd < 0 || patch_fd_blocks(fd)) return patch_as_before(c);
    message m;
    if (!take_message(c, &m)) return patch_as_before(c);
    Py_ssize_t sent = 0;
    while (sent < m.data.len || !sent) {
        ssize_t n;
        int error = 0;
        Py_BEGIN_ALLOW_THREADS
        n = send(fd, (char *)m.data.buf + sent, (size_t)(m.data.len - sent), m.flags);
        if (n < 0 && (error = errno) == EAGAIN) {
            struct pollfd p = { fd, POLLOUT, 0 };
            error = poll(&p, 1, -1) < 0 ? errno : 0;
        }
        Py_END_ALLOW_THREADS
        if (n > 0) sent += n;
        if (PyErr_CheckSignals() < 0) { sent = -1; break; }
        if (error && error != EINTR) {
            errno = error;
            PyErr_SetFromErrno(PyExc_OSError);
            sent = -1;
            break;
        }
        if (m.data.len == 0 && n == 0) break;
    }
    PyBuffer_Release(&m.data);
    return sent < 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *patch_socket_send(const call *c) { return send_cooperatively(c, false, send_in_thread); }
PyObject *patch_socket_sendall(const call *c) { return send_cooperatively(c, true, sendall_in_thread); }

/* --- addresses that have names --------------------------------------------------------------------- */
static bool is_number(PyObject *host) {
    Py_ssize_t n;
    const char *text = PyUnicode_AsUTF8AndSize(host, &n);
    if (!text) { PyErr_Clear(); return false; }
    return strspn(text, "0123456789.") == (size_t)n || strchr(text, ':') || !strcmp(text, "<broadcast>");
}

/* The address with numbers for names, for which the C library would ask; a new reference, or NULL with an
   exception. */
static PyObject *without_names(const call *c, PyObject *address) {
    PyObject *resolve = patch_leaf("_socket.socket.connect")->python, *args[] = { c->self, address };
    bool pair = PyTuple_Check(address) && PyTuple_GET_SIZE(address);
    PyObject *host = pair ? PyTuple_GET_ITEM(address, 0) : NULL;
    if (!resolve || !host || !PyUnicode_Check(host) || is_number(host)) return Py_NewRef(address);
    return PyObject_Vectorcall(resolve, args, 2, NULL);
}

PyObject *patch_socket_bind(const call *c) {
    if (!patch_goroutine() || c->n != 1) return patch_as_before(c);
    PyObject *address = without_names(c, c->args[0]);
    if (!address) return NULL;
    call again = *c;
    again.args = &address;
    again.a = address;
    PyObject *result = patch_as_before(&again);
    Py_DECREF(address);
    return result;
}

/* sendto(data[, flags], address) */
PyObject *patch_socket_sendto(const call *c) {
    if (!patch_goroutine() || patch_nargs(c) != c->n || c->n < 2 || c->n > 3)
        return call_cooperatively(c, FD_WRITE);
    PyObject *address = without_names(c, c->args[c->n - 1]);
    if (!address) return NULL;
    PyObject *args = address == c->args[c->n - 1] ? NULL : PyTuple_New(c->n), *result = NULL;
    if (args) {
        for (Py_ssize_t i = 0; i < c->n; i++)
            PyTuple_SET_ITEM(args, i, Py_NewRef(i < c->n - 1 ? c->args[i] : address));
        call again = *c;
        again.args = ((PyTupleObject *)args)->ob_item;
        again.a = args;
        result = call_cooperatively(&again, FD_WRITE);
        Py_DECREF(args);
    } else if (!PyErr_Occurred()) result = call_cooperatively(c, FD_WRITE);
    Py_DECREF(address);
    return result;
}

/* --- connect, connect_ex --------------------------------------------------------------------------- */
/* 0, or the errno; -1 with an exception. */
static int wait_connected(PyObject *s, G *g, const limit *l) {
    int ready = patch_wait_fd(g, *fd_of(s), FD_WRITE, patch_limit_left(l)), error = 0;
    socklen_t size = sizeof error;
    if (ready < 0) return -1;
    if (ready == 0) return EAGAIN;               /* as connect_ex says it of a time-out */
    if (getsockopt(*fd_of(s), SOL_SOCKET, SO_ERROR, &error, &size) < 0) return errno;
    return error == EISCONN ? 0 : error;
}

/* The errno that an attempt has failed with, taken off; 0: it has not failed, -1: another exception. */
static int errno_of(PyObject *result, bool ex) {
    if (result) return ex ? (int)PyLong_AsLong(result) : 0;
    if (!PyErr_ExceptionMatches(PyExc_BlockingIOError)) return -1;
    PyObject *error = ps_take_exception(), *number = PyObject_GetAttrString(error, "errno");
    int n = number ? (int)PyLong_AsLong(number) : -1;
    Py_XDECREF(number);
    Py_DECREF(error);
    return n;
}

static PyObject *connect_as_before(const call *c) {
    int fd = *fd_of(c->self), flags = fcntl(fd, F_GETFL);
    if (*timeout_of(c->self) < 0 && flags >= 0 && flags & O_NONBLOCK) fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    return patch_as_before(c);
}

static PyObject *connect_in_turns(const call *c, G *g, bool ex) {
    limit l;
    int64_t timeout = *timeout_of(c->self);
    if (patch_limit(&l, g, timeout) < 0) return NULL;
    for (;;) {
        PyObject *result = call_now(c);
        int error = errno_of(result, ex);
        if (error != EINPROGRESS && error != EAGAIN) {
            if (result || error < 0) return result;
            errno = error;
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        Py_XDECREF(result);
        if (error == EAGAIN && timeout < 0) {    /* a Unix socket: there is no room in the other */
            if (timer_sleep(g, FULL_NS) < 0) return NULL;
            continue;
        }
        if (error == EINPROGRESS && (error = wait_connected(c->self, g, &l)) < 0) return NULL;
        else if (error == EAGAIN && !ex) return patch_timed_out("timed out");
        if (ex) return PyLong_FromLong(error);
        if (!error) Py_RETURN_NONE;
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
}

static PyObject *connect_cooperatively(const call *c, bool ex) {
    G *g = patch_goroutine();
    if (!g || c->n != 1 || *fd_of(c->self) < 0) return connect_as_before(c);
    PyObject *address = without_names(c, c->args[0]);
    if (!address) return NULL;
    call again = *c;
    again.args = &address;
    again.a = address;
    PyObject *result = *timeout_of(c->self) == 0 ? patch_as_before(&again) : connect_in_turns(&again, g, ex);
    Py_DECREF(address);
    return result;
}

PyObject *patch_socket_connect(const call *c) { return connect_cooperatively(c, false); }
PyObject *patch_socket_connect_ex(const call *c) { return connect_cooperatively(c, true); }
