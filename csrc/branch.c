/* Branches.

   They form a tree.  Each holds its parent, and the parent knows its children without holding them: what
   nobody uses any more goes, also below a root that lives for ever.

   What must stay true:
   - A branch has an outcome at most once, and keeps it.
   - Whether a new branch is told of its parent's outcome by its parent or finds it there is decided under
     the parent's lock: who ends a branch sets the outcome and looks at the children under it.
   - Likewise `watched`: who ends a branch sees it, or who watches sees the outcome.
   - A child takes itself out of the parent's ring before its memory goes, so who holds the parent's lock may
     look at those in the ring; what it wants to use later it must be able to refer to (ps_try_incref).
   - Locks are taken from the parent down.
   - Ending may be repeated, by several at a time, and each returns when all is done.  So a branch leaves the
     ring only when it has been told, and one whose end was interrupted can be ended again. */
#include "branch.h"

/* --- joining and leaving --------------------------------------------------------------------------- */
/* Under its lock. */
static void settle(branch *b, PyObject *outcome) {
    if (!relaxed_load(&b->outcome)) atomic_store(&b->outcome, Py_NewRef(outcome));
}

void branch_init(branch *b, branch *parent) {
    ring_init(&b->children);
    if (!parent) return;
    b->parent = (branch *)Py_NewRef(parent);
    b->above = (branch *)Py_XNewRef(parent->pins ? parent : parent->above);
    ps_allow_try_incref((PyObject *)b);
    lock_acquire(&parent->lock);
    PyObject *outcome = relaxed_load(&parent->outcome);
    if (outcome) settle(b, outcome);
    else {
        ring_insert_before(&parent->children, &b->sibling);
        b->linked = true;
    }
    lock_release(&parent->lock);
}

static void leave(branch *b) {
    branch *parent = b->parent;
    if (!parent) return;
    lock_acquire(&parent->lock);
    if (b->linked) ring_remove(&b->sibling);
    b->linked = false;
    lock_release(&parent->lock);
}

void branch_watch(branch *b) {
    lock_acquire(&b->lock);
    b->watched = true;
    lock_release(&b->lock);
}

/* --- ending ---------------------------------------------------------------------------------------- */
/* Those that end: each is referred to. */
typedef struct { branch **at; size_t n, room; branch *first[16]; } ending;

static bool has_room(ending *e) {
    if (e->n < e->room) return true;
    branch **more = mem_grow(e->at == e->first ? NULL : e->at, 2 * e->room * sizeof *more);
    if (!more) return false;
    if (e->at == e->first) memcpy(more, e->first, sizeof e->first);
    e->at = more;
    e->room *= 2;
    return true;
}

/* Gives b's children its outcome; false: no memory. */
static bool spread(ending *e, branch *b) {
    bool room = true;
    lock_acquire(&b->lock);
    for (node *x = b->children.next; x != &b->children && (room = has_room(e)); x = x->next) {
        branch *child = (branch *)((char *)x - offsetof(branch, sibling));
        if (!ps_try_incref((PyObject *)child)) continue;
        e->at[e->n++] = child;
        lock_acquire(&child->lock);
        settle(child, relaxed_load(&b->outcome));
        lock_release(&child->lock);
    }
    lock_release(&b->lock);
    return room;
}

static bool is_watched(branch *b) {
    lock_acquire(&b->lock);
    bool is = b->watched;
    lock_release(&b->lock);
    return is;
}

/* Everything has its outcome: now what follows from that. */
static int tell_all(ending *e, int (*tell)(branch *)) {
    for (size_t i = 0; i < e->n; i++)
        if (is_watched(e->at[i]) && tell(e->at[i]) < 0) return -1;
    for (size_t i = 0; i < e->n; i++) {
        atomic_store(&e->at[i]->ended, 1);
        leave(e->at[i]);
    }
    return 0;
}

int branch_end(branch *b, PyObject *outcome, int (*tell)(branch *)) {
    ending e = { .at = e.first, .n = 1, .room = 16, .first = { (branch *)Py_NewRef(b) } };
    lock_acquire(&b->lock);
    settle(b, outcome);
    lock_release(&b->lock);
    bool room = true;
    for (size_t i = 0; i < e.n && room; i++) room = spread(&e, e.at[i]);   /* it grows meanwhile */
    int result = room ? tell_all(&e, tell) : (PyErr_NoMemory(), -1);
    while (e.n) Py_DECREF(e.at[--e.n]);
    if (e.at != e.first) mem_free(e.at);
    return result;
}

/* --- what it holds --------------------------------------------------------------------------------- */
int branch_visit(branch *b, visitproc visit, void *arg) {
    Py_VISIT(b->parent);
    Py_VISIT(b->above);
    Py_VISIT(relaxed_load(&b->outcome));
    Py_VISIT(b->pins);
    return 0;
}

void branch_clear(branch *b) {
    leave(b);
    Py_CLEAR(b->parent);
    Py_CLEAR(b->above);
    Py_CLEAR(b->pins);
    Py_XDECREF(atomic_exchange(&b->outcome, NULL));
}
