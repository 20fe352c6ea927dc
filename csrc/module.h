/* What the files of the module's room share: their types, and how each puts itself into the module. */
#ifndef GOFER_MODULE_H
#define GOFER_MODULE_H

#include "base.h"
#include "g.h"
#include "chan.h"

extern PyTypeObject SendChan_Type, RecvChan_Type, Timer_Type, WaitGroup_Type, Mutex_Type, Semaphore_Type;
extern PyTypeObject Branch_Type;

/* Each adds its types and functions; 0, or -1 with an exception. */
int py_g_add(PyObject *module);
int py_chan_add(PyObject *module);
int py_time_add(PyObject *module);
int py_sync_add(PyObject *module);
int py_scope_add(PyObject *module);
int py_branch_add(PyObject *module);
int py_explore_add(PyObject *module);
int py_io_add(PyObject *module);
int py_patch_add(PyObject *module);
int py_runtime_add(PyObject *module);

/* Checks what go() and its like are given: TypeError unless fn can be called and is no coroutine function. */
int py_check_callable(const char *what, PyObject *const *args, Py_ssize_t nargs);
/* go(): starts it; `at_end`, if any, is called with `arg` (stolen) when it has ended. */
PyObject *py_start(enum g_kind kind, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                   void (*at_end)(G *, PyObject *), PyObject *arg);
/* A task of the scope's own, named after its first argument: a Group wraps the function.  RuntimeError when
   the scope is closed. */
PyObject *py_start_task(scope *s, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
/* A new view of c. */
PyObject *py_receiver(chan *c);

#define FAST(f) ((PyCFunction)(void (*)(void))(f))

/* Blocking methods are METH_FASTCALL even without arguments: the caller's frame then tells where its
   stack ends (up to 3.13 it does not say so itself).  This refuses arguments. */
static inline int no_args(const char *what, Py_ssize_t nargs) {
    if (LIKELY(nargs == 0)) return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes no arguments (%zd given)", what, nargs);
    return -1;
}
static inline int one_arg(const char *what, Py_ssize_t nargs) {
    if (LIKELY(nargs == 1)) return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes exactly one argument (%zd given)", what, nargs);
    return -1;
}

#endif
