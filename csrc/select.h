/* Waiting for several channels at once. */
#ifndef GOFER_SELECT_H
#define GOFER_SELECT_H

#include "base.h"
#include "g.h"
#include "chan.h"

enum case_kind { CASE_NONE, CASE_RECV, CASE_RECV_OK, CASE_SEND };

typedef struct select_case {
    waiter w;                    /* first; w.n is its index among the cases */
    chan *c;                     /* borrowed from the caller; NULL for CASE_NONE */
    PyObject *value;             /* CASE_SEND: borrowed from the caller */
    enum case_kind kind;
    Py_ssize_t order;            /* scratch: a permutation of the indices */
} select_case;

/* Carries out one of n cases (on the heap, not on the stack) and returns its index; -1 when none is ready
   and `wait` is false; -2 with an exception.  *value: what was received (a new reference), NULL when
   the channel is closed (for a send: that it was closed is told by *closed). */
Py_ssize_t select_run(select_case *cases, Py_ssize_t n, bool wait, PyObject **value, bool *closed);

#endif
