/* The cooperative standard library: functions of CPython's own C modules, exchanged in place.

   A leaf is one such function: a builtin, or a method of a builtin type.  Its PyMethodDef is a static table
   that everything reads at each call: the function, bound methods taken long ago, call sites the interpreter
   has specialised.  So exchanging ml_meth there changes what every reference does, and what objects that
   exist already do.

   What must stay true:
   - The calling convention is kept: ml_flags never change.  It differs between versions of CPython, so each
     leaf has an entry for each (patch.c), and a handler sees none of that.
   - In a thread that runs no goroutines a leaf does what it did before, but that whoever frees something
     looks whether goroutines wait for it.
   - The tables belong to the process: in another interpreter than the main one, too, all is as before.
   - A handler parks its goroutine only, and not any more at the program's end.
   - In a finalizer that the collector runs nobody parks.  Who waits there for something outside, a
     descriptor, a child or time, holds up the thread, as without us; who waits for what a goroutine may
     have is refused. */
#ifndef GOFER_PATCH_H
#define GOFER_PATCH_H

#include "base.h"
#include "g.h"
#include <signal.h>

typedef struct leaf leaf;

/* A call on its way; `args` without self. */
typedef struct call {
    leaf *leaf;
    PyObject *self;              /* the module, for a function */
    PyObject *const *args;
    Py_ssize_t n;
    PyObject *kwnames, *kwargs;  /* names of the arguments after the n, or a dict, or neither */
    void *a, *b;                 /* as it came */
} call;

/* NULL with an exception, as what it stands for. */
typedef PyObject *(*handler)(const call *c);

struct leaf {
    const char *part, *module, *type, *name;       /* type: NULL for a function */
    handler handle;              /* NULL: it is only called by the others, and stays */
    PyMethodDef *def;            /* CPython's; NULL: not found yet */
    PyMethodDef before;          /* what stood there */
    PyObject *original;          /* a callable that does what it did before; a method takes self first */
    PyObject *python;            /* handle_in_python: called with original, then as it was called */
    bool exchanged;
};

/* Exchanges the leaves of a part, or puts them back; those that this version of CPython does not have are
   left out.  How many there are, or -1 with an exception. */
int patch_part(const char *part, bool on);
/* The leaf of that name ("_thread.RLock.acquire"); NULL when there is none. */
leaf *patch_leaf(const char *name);
/* Another function of a module, or method of a type, in C: `function` stands for it in goroutines, or
   everywhere, called as a leaf's is, until patch_function_back.  1; 0 for what is none; -1 with an
   exception. */
int patch_function(PyObject *o, PyObject *function, bool everywhere);
void patch_function_back(PyObject *o);
/* threading.local, too, is the goroutine's, or the thread's again. */
void patch_locals(bool on);
/* queue.Queue and LifoQueue do in C what need not wait, or not any more; 0, or -1 with an exception. */
int patch_queues(bool on);
/* The program has come to its end: everything is as before, in all goroutines. */
void patch_end(void);

/* Before anything is patched, and before sockets are; 0, or -1 with an exception. */
int patch_watch_forks(void);
int patch_know_sockets(void);
int patch_know_semlocks(void);
/* Sockets of the module _ssl: a sample, a weak reference to the socket it was made for, and a type of sockets
   that can be referred to weakly. */
int patch_know_ssl(PyObject *sample, PyObject *ref, PyObject *type);

/* --- for handlers ---------------------------------------------------------------------------------- */
extern word_t patch_ended;
extern word_t patch_forked;                      /* in the child, and the runtime does not know it yet */

/* The calling goroutine; NULL where all is to be as it was. */
static inline G *patch_caller(void) {
    worker *w = g_worker;
    G *g = w ? w->cur : NULL;
    bool ended = relaxed_load(&patch_ended) | relaxed_load(&patch_forked);
    return g && LIKELY(!ended && !(relaxed_load(&g->pending) & P_EXIT)) ? g : NULL;
}
/* The same, for what waits for something outside. */
static inline G *patch_goroutine(void) { return LIKELY(!g_collecting) ? patch_caller() : NULL; }

PyObject *patch_as_before(const call *c);
/* Calls what a method was before with one argument (NULL: none).  Whose type `self` is has been looked at
   when this was entered, and is not again: there may be several of that name, in other interpreters or from a
   second import.  class: as given to who was entered, for METH_METHOD. */
PyObject *patch_call(leaf *l, PyObject *self, PyTypeObject *class, PyObject *arg);
/* The same: 1 when it returns true, 0 otherwise, -1 with an exception. */
int patch_ask(leaf *l, PyObject *self, PyTypeObject *class, PyObject *arg);
/* The same of one that takes no arguments, in all versions, and never fails. */
static inline bool patch_says(const leaf *l, PyObject *self) {
    PyObject *answer = l->before.ml_meth(self, NULL);
    Py_XDECREF(answer);
    return answer == Py_True;
}
/* Calls the Python function that stands for it, in a goroutine. */
PyObject *patch_in_python(const call *c);
/* An argument by its position or its name (NULL: it has none); borrowed, NULL when it is not given. */
PyObject *patch_arg(const call *c, Py_ssize_t position, const char *name);
static inline Py_ssize_t patch_nargs(const call *c) {
    return c->n + (c->kwnames ? PyTuple_GET_SIZE(c->kwnames) : c->kwargs ? PyDict_GET_SIZE(c->kwargs) : 0);
}
/* Seconds as the interpreter takes them (float, or integer); false: something else, without an exception. */
bool patch_seconds(PyObject *o, double *seconds);
/* Whom threading takes the caller for. */
unsigned long patch_ident(G *g);

/* --- waiting for an object of CPython's: patch_wait.c ---------------------------------------------- */
typedef struct want {
    PyObject *on;
    const call *call;
    enum wait_reason why;
    int (*take)(struct want *);            /* without waiting: 1 done, 0 not now, -1 with an exception */
    bool (*may_take)(PyObject *on);        /* worth trying; runs nothing of Python's */
    bool patient;                          /* a mutex, held for a moment: see patch_wait.c */
    PyObject *taken;                       /* for take */
} want;

/* Parks g until it is taken, or ns (NEVER: without limit) are over: 1, 0, or -1 with an exception. */
int patch_wait(G *g, want *w, int64_t ns);
/* `on` was freed: the first that waits for it tries again.  Costs nothing when nobody waits for anything. */
void patch_freed(PyObject *on);
/* `on` is about to be freed: if the first that waits has waited for long, it is handed over, by give(on, g),
   and stays as it is; true then. */
bool patch_hand_over(PyObject *on, bool (*held)(PyObject *), void (*give)(PyObject *, G *));
bool patch_anybody_waits(void);
void patch_forget_waiters(void);

/* --- sockets: patch_socket.c ----------------------------------------------------------------------- */
bool patch_is_socket(PyObject *o);
int patch_socket_fd(PyObject *s);                      /* -1: closed */
int64_t patch_socket_timeout(PyObject *s);             /* ns; 0: non-blocking; negative: without limit */
bool patch_fd_blocks(int fd);
void patch_fd_unblock(int fd);
/* Another object for the same descriptor, in non-blocking mode, of a type derived from the socket's (NULL: of
   that); to be given to patch_double_over, with any exception set or none. */
PyObject *patch_double(PyObject *s, PyTypeObject *type);
void patch_double_over(PyObject *twin);

typedef struct limit { int64_t until; struct timers *clock; } limit;
int patch_limit(limit *l, G *g, int64_t timeout);      /* as a socket has it; 0, or -1 with an exception */
int64_t patch_limit_left(const limit *l);

/* Parks until it is ready: 1, 0 when the time is over, -1 with an exception; that it was closed is one. */
int patch_wait_fd(G *g, int fd, uint8_t events, int64_t ns);
/* The same for a thread, without limit; 0, or -1 with an exception. */
int patch_poll_fd(int fd, uint8_t events);
/* An exception is set, and so many bytes have gone through.  -1, or for a cancellation how many, if there are
   any: it comes again where the goroutine waits next. */
Py_ssize_t patch_part_of(Py_ssize_t done);
/* NULL with TimeoutError. */
PyObject *patch_timed_out(const char *text);

/* --- signals: patch_signal.c, Linux only ----------------------------------------------------------- */
/* A signal of `mask` (bit sig - 1) is given to the caller from now on, or, without `takes`, only makes *fd
   readable: so does one that is given.  Its number, for patch_signals_end; -1 with an exception. */
int patch_signals_begin(uint64_t mask, bool takes, int *fd);
/* Not any more; whether one has been given. */
bool patch_signals_end(int number, siginfo_t *info);
/* A new descriptor that is readable while one of them is there and blocked; -1 with an exception. */
int patch_signal_fd(uint64_t mask);
void patch_signals_forked(void);

/* --- descriptors: patch_fd.c ----------------------------------------------------------------------- */
void patch_forget_fds(void);

/* --- buffered files: patch_file.c ------------------------------------------------------------------ */
/* Iterating over files of that type, the first time BufferedReader itself. */
void patch_lines(PyTypeObject *type, bool on);
void patch_forget_files(void);

/* --- handlers -------------------------------------------------------------------------------------- */
PyObject *patch_sleep(const call *c);
PyObject *patch_join(const call *c);
PyObject *patch_get_ident(const call *c);
/* lock.acquire() of a threading.Lock, or with a limit, by a goroutine that has no patience: True or False. */
PyObject *patch_await_lock(PyObject *lock, int64_t ns);
/* It is a threading.Lock, and these are cooperative; and whether somebody has it.  Nothing of Python's
   runs. */
bool patch_lock_is_held(PyObject *o);
bool patch_lock_is_free(PyObject *o);
/* lock.release() of one that is held. */
PyObject *patch_lock_let_go(PyObject *lock);
PyObject *patch_of_thread(const call *c);
PyObject *patch_lock_acquire(const call *c);
PyObject *patch_lock_release(const call *c);
PyObject *patch_rlock_acquire(const call *c);
PyObject *patch_rlock_release(const call *c);
PyObject *patch_rlock_is_owned(const call *c);
PyObject *patch_rlock_recursion_count(const call *c);
PyObject *patch_rlock_release_save(const call *c);
PyObject *patch_rlock_acquire_restore(const call *c);
PyObject *patch_socket_read(const call *c);
PyObject *patch_socket_sendto(const call *c);
PyObject *patch_socket_bind(const call *c);
PyObject *patch_socket_recvmsg_into(const call *c);
PyObject *patch_socket_sendmsg(const call *c);
PyObject *patch_socket_recv(const call *c);
PyObject *patch_socket_recv_into(const call *c);
/* Those that are not of the plain form. */
PyObject *patch_recv_all(const call *c);
PyObject *patch_recv_all_into(const call *c);
PyObject *patch_socket_send(const call *c);
PyObject *patch_socket_sendall(const call *c);
PyObject *patch_socket_connect(const call *c);
PyObject *patch_socket_connect_ex(const call *c);
PyObject *patch_socket_close(const call *c);
PyObject *patch_socket_detach(const call *c);
PyObject *patch_os_close(const call *c);
PyObject *patch_ssl_read(const call *c);
PyObject *patch_ssl_write(const call *c);
PyObject *patch_ssl_handshake(const call *c);
PyObject *patch_ssl_shutdown(const call *c);
PyObject *patch_semlock_acquire(const call *c);
PyObject *patch_semlock_release(const call *c);
PyObject *patch_semlock_is_mine(const call *c);
PyObject *patch_fd_read(const call *c);
PyObject *patch_fd_read_all(const call *c);
PyObject *patch_fd_write(const call *c);
PyObject *patch_fd_write_all(const call *c);
PyObject *patch_file_read(const call *c);
PyObject *patch_file(const call *c);
PyObject *patch_queue_get(const call *c);
PyObject *patch_queue_put(const call *c);

#endif
