/* Branches: what ends together, and what gofer.context is made of.  See branch.c for the invariants. */
#ifndef GOFER_BRANCH_H
#define GOFER_BRANCH_H

#include "base.h"
#include "pystate.h"

/* The Python object _core.Branch, which `_cancel.Node` is derived from. */
typedef struct branch {
    PyObject_HEAD
    lock_t lock;                 /* guards outcome, watched, the ring of children and `linked` of those */
    struct branch *parent;       /* owned; NULL for a root */
    struct branch *above;        /* owned: the nearest one on the way to the root that has pins */
    node children;               /* not owned */
    node sibling;                /* in the parent's ring while linked */
    bool linked;
    bool watched;                /* has something to do when it ends */
    word_t ended;                /* has done it, and so have all below */
    uint32_t bubble;             /* it was made in */
    _Atomic(PyObject *) outcome; /* owned; NULL until it ends, then always the same */
    PyObject *pins;              /* what the owner keeps with it, or NULL */
    PyObject *weakrefs;
} branch;

/* A new one, in zeroed memory, ends with its parent from now on: with it at once, if that has an outcome. */
void branch_init(branch *b, branch *parent);
/* From now on it is told when it ends; whoever calls this looks at the outcome afterwards. */
void branch_watch(branch *b);
/* Gives it and everything below it that outcome, unless they have one, and then calls tell for each that is
   watched.  0, or -1 with an exception; then it may be called again. */
int branch_end(branch *b, PyObject *outcome, int (*tell)(branch *));
int branch_visit(branch *b, visitproc visit, void *arg);
/* Out of the tree; drops what it holds. */
void branch_clear(branch *b);

#endif
