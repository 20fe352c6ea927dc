/* os.read, os.write, io.FileIO and their like: which of their calls may block the thread for long.

   A call on a pipe, a socket, a terminal, an eventfd and the like that blocks goes to the function in Python
   that stands for it (src/gofer/stdlib/_os.py, _io.py).  Files stay direct: so does all that the program has
   made non-blocking, or has not opened for this, and what is wrong. */
#include "patch.h"
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

static leaf *fileno_of_file;

/* -1: the original will say what is wrong. */
static int as_fd(PyObject *o) {
    int overflow = 1;
    long n = o && PyLong_Check(o) ? PyLong_AsLongAndOverflow(o, &overflow) : -1;
    return overflow || n > INT_MAX ? -1 : (int)n;
}

static int fd_of(const call *c) {
    if (!c->leaf->type) return as_fd(patch_arg(c, 0, !strcmp(c->leaf->name, "sendfile") ? "out_fd" : "fd"));
    if (!fileno_of_file) fileno_of_file = patch_leaf("_io.FileIO.fileno");
    PyObject *number = patch_call(fileno_of_file, c->self, NULL, NULL);
    int fd = as_fd(number);
    PyErr_Clear();                               /* it is closed */
    Py_XDECREF(number);
    return fd;
}

/* A file system may be slow to tell. */
static bool is_file(int fd) {
    struct stat st;
    bool failed;
    Py_BEGIN_ALLOW_THREADS
    failed = fstat(fd, &st) < 0;
    Py_END_ALLOW_THREADS
    return failed || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode);
}

static bool blocks(int fd, int opened_for_the_other) {
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && !(flags & O_NONBLOCK) && (flags & O_ACCMODE) != opened_for_the_other;
}

static PyObject *may_wait(const call *c, int opened_for_the_other) {
    int fd = patch_goroutine() ? fd_of(c) : -1;
    bool waits = fd >= 0 && !is_file(fd) && blocks(fd, opened_for_the_other);
    return waits ? patch_in_python(c) : patch_as_before(c);
}

PyObject *patch_fd_read(const call *c) { return may_wait(c, O_WRONLY); }
PyObject *patch_fd_write(const call *c) { return may_wait(c, O_RDONLY); }
