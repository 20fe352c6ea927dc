/* os.read, os.write, io.FileIO and their like, which block on pipes, sockets, terminals, eventfds.

   A descriptor that is ready is used as before: files always are.  So is one that the program has made
   non-blocking or has not opened for this.  Another one is waited for.  What takes several steps is in Python
   (src/gofer/stdlib/_os.py, _io.py), made of these.

   What must stay true:
   - Whoever finds a descriptor ready uses it before another goroutine looks: the first of them may take all
     there is, and the second would block its worker.  A thread, or another process, may still come between.
   - Whose turn it is parks nowhere, unless it gives an argument with methods of its own in Python (__index__,
     __buffer__) and these do: then others that want this descriptor go round until it is back. */
#include "patch.h"
#include "netpoll.h"
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TURNS = 4096 };
static word_t turns[TURNS];              /* whether somebody looks and uses, by descriptor and direction */
static leaf *fileno_of_file;

void patch_forget_fds(void) { memset(turns, 0, sizeof turns); }

/* --- which they are -------------------------------------------------------------------------------- */
/* -1: the function that was there before will say what is wrong. */
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

static bool blocks(int fd, uint8_t event) {
    int flags = fcntl(fd, F_GETFL), useless = event == FD_READ ? O_WRONLY : O_RDONLY;
    return flags >= 0 && !(flags & O_NONBLOCK) && (flags & O_ACCMODE) != useless;
}

/* --- using one that is ready ----------------------------------------------------------------------- */
enum tried { USED, NOT_READY, NOT_OUR_TURN };

static enum tried try_to_use(const call *c, int fd, uint8_t event, PyObject **result) {
    struct pollfd p = { fd, event == FD_READ ? POLLIN : POLLOUT, 0 };
    word_t *turn = &turns[((unsigned)fd * 2 + (event == FD_WRITE)) % TURNS];
    uint8_t free = 0;
    if (!atomic_compare_exchange_strong(turn, &free, 1)) return NOT_OUR_TURN;
    bool ready = poll(&p, 1, 0) != 0;
    if (ready) *result = patch_as_before(c);
    atomic_store(turn, 0);
    return ready ? USED : NOT_READY;
}

static PyObject *when_ready(const call *c, int fd, uint8_t event) {
    G *g = g_worker->cur;
    PyObject *result = NULL;
    for (enum tried tried; (tried = try_to_use(c, fd, event, &result)) != USED; ) {
        if (tried == NOT_OUR_TURN && !is_file(fd)) g_step_aside(g);
        else if (tried == NOT_OUR_TURN || !blocks(fd, event)) return patch_as_before(c);
        else if (patch_wait_fd(g, fd, event, NEVER) < 0) return NULL;
    }
    g_could_switch();
    return result;
}

/* What takes several steps, and may have to wait in between.  To a terminal one writes at once. */
static PyObject *in_steps(const call *c, int fd, uint8_t event) {
    bool waits = !is_file(fd) && blocks(fd, event) && !(event == FD_WRITE && isatty(fd));
    return waits ? patch_in_python(c) : patch_as_before(c);
}

/* --- reading --------------------------------------------------------------------------------------- */
PyObject *patch_fd_read(const call *c) {
    int fd = patch_goroutine() ? fd_of(c) : -1;
    return fd < 0 ? patch_as_before(c) : when_ready(c, fd, FD_READ);
}

PyObject *patch_fd_read_all(const call *c) {
    int fd = patch_goroutine() ? fd_of(c) : -1;
    return fd < 0 ? patch_as_before(c) : in_steps(c, fd, FD_READ);
}

/* file.read(size): without one, or with a negative one, all. */
PyObject *patch_file_read(const call *c) {
    int overflow = 0;
    PyObject *size = c->n == 1 ? c->args[0] : NULL;
    bool some = size && PyLong_Check(size) && PyLong_AsLongAndOverflow(size, &overflow) >= 0 && !overflow;
    return some ? patch_fd_read(c) : patch_fd_read_all(c);
}

/* --- writing --------------------------------------------------------------------------------------- */
/* A pipe that has room takes so much at once. */
static bool is_short(PyObject *data) {
    Py_buffer b;
    if (PyObject_GetBuffer(data, &b, PyBUF_SIMPLE) < 0) { PyErr_Clear(); return false; }
    bool is = b.len <= PIPE_BUF;
    PyBuffer_Release(&b);
    return is;
}

PyObject *patch_fd_write_all(const call *c) {
    int fd = patch_goroutine() ? fd_of(c) : -1;
    return fd < 0 ? patch_as_before(c) : in_steps(c, fd, FD_WRITE);
}

PyObject *patch_fd_write(const call *c) {
    int fd = patch_goroutine() ? fd_of(c) : -1, n = c->leaf->type ? 1 : 2;
    if (fd < 0 || c->n != n || patch_nargs(c) != n) return patch_as_before(c);
    return is_short(c->args[n - 1]) ? when_ready(c, fd, FD_WRITE) : patch_fd_write_all(c);
}
