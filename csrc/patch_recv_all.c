/* recv and recv_into of a socket with MSG_WAITALL.

   On a descriptor that blocks the system waits until all bytes are there.  One that has been made
   non-blocking for the sake of goroutines would return what there is: it is asked for the rest here, for
   threads too.

   What must stay true: what has been read is not lost when the goroutine is cancelled. */
#include "patch.h"
#include "netpoll.h"
#include <errno.h>
#include <sys/socket.h>

/* Whether it asks for all bytes, of a socket that would wait for them and has been made non-blocking. */
static bool wants_all(const call *c, G *g, PyObject *flags) {
    long f = flags && PyLong_Check(flags) ? PyLong_AsLong(flags) : 0;
    if (f == -1) PyErr_Clear();
    if (f <= 0 || !(f & MSG_WAITALL) || f & (MSG_PEEK | MSG_DONTWAIT)) return false;
    int fd = patch_socket_fd(c->self), type;
    socklen_t size = sizeof type;
    return fd >= 0 && patch_socket_timeout(c->self) < 0 && (g || !patch_fd_blocks(fd))
        && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

static Py_ssize_t recv_all(PyObject *s, G *g, char *to, Py_ssize_t size, int flags) {
    Py_ssize_t got = 0;
    while (got < size) {
        ssize_t n;
        int error, fd = patch_socket_fd(s);
        Py_BEGIN_ALLOW_THREADS
        n = recv(fd, to + got, (size_t)(size - got), (flags & ~MSG_WAITALL) | MSG_DONTWAIT);
        error = errno;
        Py_END_ALLOW_THREADS
        if (n == 0) break;
        if (n > 0) { got += n; continue; }
        if (error == EINTR) { if (PyErr_CheckSignals() < 0) return -1; continue; }
        if (error != EAGAIN) {
            if (got) break;                      /* it will be told the next time */
            errno = error;
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        int ready = g ? patch_wait_fd(g, fd, FD_READ, NEVER) : patch_poll_fd(fd, FD_READ);
        if (ready < 0) return patch_part_of(got);
    }
    g_could_switch();
    return got;
}

PyObject *patch_recv_all(const call *c) {
    G *g = patch_goroutine();
    PyObject *flags = patch_arg(c, 1, NULL);
    if (!wants_all(c, g, flags)) return patch_socket_read(c);
    Py_ssize_t size = PyLong_Check(c->args[0]) ? PyLong_AsSsize_t(c->args[0]) : -1;
    if (size < 0) { PyErr_Clear(); return patch_as_before(c); }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, size);
    if (!bytes) return NULL;
    Py_ssize_t got = recv_all(c->self, g, PyBytes_AS_STRING(bytes), size, (int)PyLong_AsLong(flags));
    if (got < 0) Py_CLEAR(bytes);
    else if (got < size) _PyBytes_Resize(&bytes, got);
    return bytes;
}

PyObject *patch_recv_all_into(const call *c) {
    G *g = patch_goroutine();
    PyObject *flags = patch_arg(c, 2, "flags"), *nbytes = patch_arg(c, 1, "nbytes");
    PyObject *buffer = patch_arg(c, 0, "buffer");
    Py_buffer to;
    if (!buffer || !wants_all(c, g, flags)) return patch_socket_read(c);
    Py_ssize_t size = !nbytes ? 0 : PyLong_Check(nbytes) ? PyLong_AsSsize_t(nbytes) : -1;
    if (size < 0 || PyObject_GetBuffer(buffer, &to, PyBUF_WRITABLE) < 0) {
        PyErr_Clear();
        return patch_as_before(c);
    }
    PyObject *result = NULL;
    if (size > to.len) result = patch_as_before(c);
    else {
        Py_ssize_t got = recv_all(c->self, g, to.buf, size ? size : to.len, (int)PyLong_AsLong(flags));
        if (got >= 0) result = PyLong_FromSsize_t(got);
    }
    PyBuffer_Release(&to);
    return result;
}
