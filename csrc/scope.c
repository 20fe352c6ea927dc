/* Cancel scopes.

   Scopes form a tree.  A goroutine is a member of one scope at most, its innermost; entering a scope makes a
   child of that one.  What it starts becomes a member of the same scope.  Cancelling a scope marks it and
   everything below it that no shield holds it off from, and wakes the members that wait.

   What must stay true:
   - `cancelled` of a scope only ever becomes true.  Who joins a scope, as a member or as a child, reads it
     under the scope's lock, and who sets it walks the rings under that lock: each is told by one of the two.
   - Locks are taken from the parent down.  None is held when a timer is armed or stopped, or a reference
     dropped; a deadline calls scope_cancel from within the timers' lock.
   - P_CANCEL is a hint that others set and only the goroutine itself takes back.  The truth is in
     is_cancelled: the scope it is in, or its Task.cancel unless a shield of its own is in between.  Who
     changes the truth does so first and sets the hint after it; who takes the hint back looks again.
   - A scope is linked into its parent, which owns it, as long as anybody is in it or below it.
   - g->scope owns its scope.  It changes only by its goroutine, or by who makes or frees that.
   - A task of the scope's own counts in `tasks` until it is a member no more.
   - g->shielded says of its innermost scope what shields_task does, and Task.cancel leaves one alone that is.
     Who leaves a shield changes it and then looks at g->cancelled; who cancels does it the other way round.
   - `owner` is set exactly while its goroutine is in the with block.  At its end a goroutine leaves all. */
#include "scope.h"

/* --- what holds for a goroutine -------------------------------------------------------------------- */
static bool owns(G *g, scope *s) { return relaxed_load(&s->owner) == g; }

static bool truth(G *g) {
    scope *s = g->scope;
    if (UNLIKELY(g->deaf)) return false;         /* who stops being it sets the hint */
    if (s && atomic_load(&s->cancelled)) return true;
    return atomic_load(&g->cancelled) && !relaxed_load(&g->shielded);
}

/* Whether g, the caller, is cancelled; puts its hint right. */
static bool is_cancelled(G *g) {
    bool is = truth(g);
    if (!is) {
        word_clear_bits(&g->pending, P_CANCEL);
        is = truth(g);
    }
    if (is) word_set_bits(&g->pending, P_CANCEL);
    else g->refused = 0;
    return is;
}

/* --- joining and leaving the tree ------------------------------------------------------------------ */
/* Under its lock. */
static void join_locked(scope *s, G *g) {
    Py_INCREF(s);
    ring_insert_before(&s->members, &g->in_scope);
    g->scope = s;
    if (relaxed_load(&s->cancelled)) word_set_bits(&g->pending, P_CANCEL);
}

static void join(scope *s, G *g) {
    lock_acquire(&s->lock);
    join_locked(s, g);
    lock_release(&s->lock);
}

static bool is_used(scope *s) {
    return relaxed_load(&s->state) == SCOPE_ENTERED || !ring_alone(&s->members) || !ring_alone(&s->children);
}

/* Somebody has left s: takes it, and what is above it, out of the tree where nobody is left. */
static void prune(scope *s) {
    for (;;) {
        scope *parent = s->parent;
        if (!parent) return;
        lock_acquire(&parent->lock);
        lock_acquire(&s->lock);
        bool out = s->linked && !is_used(s);
        if (out) {
            ring_remove(&s->sibling);
            s->linked = false;
        }
        lock_release(&s->lock);
        lock_release(&parent->lock);
        if (!out) return;
        Py_DECREF(s);                        /* the parent's; the caller still holds what is below */
        s = parent;
    }
}

static void part(G *g) {
    scope *s = g->scope;
    lock_acquire(&s->lock);
    ring_remove(&g->in_scope);
    lock_release(&s->lock);
    g->scope = NULL;
}

static void move(G *g, scope *to) {
    scope *from = g->scope;
    if (from) part(g);
    if (to) join(to, g);
    if (!from) return;
    prune(from);
    Py_DECREF(from);
}

static void link_into_parent(scope *s) {
    scope *parent = s->parent;
    Py_INCREF(s);
    lock_acquire(&parent->lock);
    ring_insert_before(&parent->children, &s->sibling);
    s->linked = true;
    if (!s->is_shield && relaxed_load(&parent->cancelled)) atomic_store(&s->cancelled, 1);
    lock_release(&parent->lock);
}

/* --- entering and leaving -------------------------------------------------------------------------- */
static void deadline_passed(timer *t, int64_t now) {
    scope *s = (scope *)((char *)t - offsetof(scope, deadline));
    if (now == DROPPED) return;
    relaxed_store(&s->expired, 1);
    scope_cancel(s);
}

void scope_prepare(scope *s) {
    ring_init(&s->members);
    ring_init(&s->children);
    waitgroup_init(&s->tasks);
    s->deadline.fire = deadline_passed;
    s->ns = NEVER;
}

static int arm(scope *s, G *g) {
    if (s->ns == NEVER) return 0;
    if (s->ns <= 0) {
        relaxed_store(&s->expired, 1);
        scope_cancel(s);
        return 0;
    }
    timers *h = timers_of(g);
    if (!h) return -1;
    s->deadline.when = timers_clock(h) + s->ns;
    if (timer_start(&s->deadline, h)) return 0;
    PyErr_NoMemory();
    return -1;
}

int scope_enter(scope *s) {
    G *g = g_self();
    if (!g) return -1;
    if (!word_move(&s->state, SCOPE_NEW, SCOPE_ENTERED)) {
        PyErr_Format(PyExc_RuntimeError, "with %R: it is good for one with block; make a new one", s);
        return -1;
    }
    scope *parent = g->scope;
    s->shields_task = s->is_shield || (parent && owns(g, parent) && parent->shields_task);
    relaxed_store(&s->owner, g);
    s->tasks.bubble = g->bubble;
    if (parent) {
        if (!s->bubble) s->bubble = parent->bubble;
        Py_INCREF(parent);
        s->parent = parent;
        link_into_parent(s);
    }
    if (atomic_load(&s->asked)) atomic_store(&s->cancelled, 1);      /* before it was entered */
    move(g, s);
    atomic_store(&g->shielded, s->shields_task);
    if (relaxed_load(&g->pending) & P_CANCEL) is_cancelled(g);
    return arm(s, g) == 0 ? 0 : (scope_leave(s, NULL), -1);
}

/* The innermost scope of g, which g owns, ends. */
static void step_out(G *g) {
    scope *s = g->scope, *parent = s->parent;
    if (s->ns != NEVER) timer_stop(&s->deadline);
    relaxed_store(&s->owner, NULL);
    Py_XINCREF(parent);
    relaxed_store(&s->state, SCOPE_LEFT);
    if (UNLIKELY(s->bubble && s == &s->bubble->scope)) bubble_abandon(s->bubble, g);
    move(g, parent);
    atomic_store(&g->shielded, parent && owns(g, parent) && parent->shields_task);
    Py_XDECREF(parent);
}

static bool is_in(G *g, scope *s) {
    scope *at = g->scope;
    while (at && at != s && owns(g, at)) at = at->parent;
    return at == s && owns(g, s);
}

int scope_leave(scope *s, PyObject *error) {
    G *g = g_self();
    if (!g) return -1;
    if (UNLIKELY(!is_in(g, s))) {
        PyErr_Format(PyExc_RuntimeError, "%R is left by a goroutine that is not in it: a with block ends in "
                     "the goroutine that began it, and only once", s);
        return -1;
    }
    bool crossed = g->scope != s;
    Py_INCREF(s);
    while (g->scope != s) step_out(g);
    step_out(g);
    bool ours = error && relaxed_load(&s->asked) && scope_is_cancellation(error, false);
    if (relaxed_load(&g->pending) & P_CANCEL || atomic_load(&g->cancelled)) ours = !is_cancelled(g) && ours;
    if (UNLIKELY(crossed))
        PyErr_Format(PyExc_RuntimeError, "%R is left before a scope that was entered inside it: with blocks "
                     "end in the reverse order in which they began", s);
    Py_DECREF(s);
    return crossed ? -1 : ours;
}

static bool is_one_of(PyObject *error, bool exit) {
    return PyErr_GivenExceptionMatches(error, rt.errors.cancelled)
        || (exit && PyErr_GivenExceptionMatches(error, rt.errors.exit));
}

bool scope_is_cancellation(PyObject *error, bool exit) {
    if (LIKELY(!PyObject_TypeCheck(error, (PyTypeObject *)PyExc_BaseExceptionGroup)))
        return is_one_of(error, exit);
    PyObject *parts = ((PyBaseExceptionGroupObject *)error)->excs;
    if (Py_EnterRecursiveCall(" in a group of exceptions")) { PyErr_Clear(); return false; }
    bool all = parts && PyTuple_Check(parts);
    for (Py_ssize_t i = 0; all && i < PyTuple_GET_SIZE(parts); i++)
        all = scope_is_cancellation(PyTuple_GET_ITEM(parts, i), exit);
    Py_LeaveRecursiveCall();
    return all;
}

/* --- cancelling ------------------------------------------------------------------------------------ */
static void mark(scope *s) {
    atomic_store(&s->cancelled, 1);
    for (node *x = s->members.next; x != &s->members; x = x->next)
        g_disturb((G *)((char *)x - offsetof(G, in_scope)), P_CANCEL, W_CANCEL);
}

/* Goes down, holding the locks of the path from `top`, whose lock the caller holds. */
static void spread(scope *top) {
    mark(top);
    scope *s = top;
    for (node *x = s->children.next;; ) {
        if (x == &s->children) {
            if (s == top) return;
            x = s->sibling.next;
            scope *done = s;
            s = s->parent;
            lock_release(&done->lock);
            continue;
        }
        scope *child = (scope *)((char *)x - offsetof(scope, sibling));
        lock_acquire(&child->lock);
        if (child->is_shield || relaxed_load(&child->cancelled)) {
            lock_release(&child->lock);
            x = x->next;
            continue;
        }
        mark(child);
        s = child;
        x = s->children.next;
    }
}

void scope_cancel(scope *s) {
    lock_acquire(&s->lock);
    atomic_store(&s->asked, 1);
    if (atomic_load(&s->state) != SCOPE_NEW && !relaxed_load(&s->cancelled)) spread(s);
    lock_release(&s->lock);
}

/* --- the goroutines in it -------------------------------------------------------------------------- */
/* A new goroutine joins s, and the bubble that s is in. */
void scope_inherit(scope *s, G *g) {
    join(s, g);
    if (UNLIKELY(s->bubble != NULL)) bubble_joined(s->bubble, g);
}

static void inherit(G *g, G *from) { scope_inherit(from->scope, g); }

/* It has ended, or will never start. */
static void left(G *g) {
    scope *innermost = g->scope;
    bubble *b = g->bubble ? innermost->bubble : NULL;
    Py_INCREF(innermost);
    while (g->scope && owns(g, g->scope)) step_out(g);
    scope *s = g->scope;
    if (s) {
        bool is_task = g->of_scope;
        g->of_scope = false;
        Py_INCREF(s);
        move(g, NULL);
        if (is_task) waitgroup_add(&s->tasks, -1);
        Py_DECREF(s);
    }
    if (UNLIKELY(b && g->bubble)) bubble_left(b, g);
    Py_DECREF(innermost);
}

bool scope_adopt(scope *s, G *g) {
    lock_acquire(&s->lock);
    bool open = !s->closed && relaxed_load(&s->state) == SCOPE_ENTERED;
    if (open) {
        waitgroup_add(&s->tasks, 1);
        g->of_scope = true;
        join_locked(s, g);
    }
    lock_release(&s->lock);
    if (open && UNLIKELY(s->bubble != NULL)) bubble_joined(s->bubble, g);
    return open;
}

static bool close_if_empty(scope *s) {
    lock_acquire(&s->lock);
    bool empty = s->closed = relaxed_load(&s->tasks.n) == 0;
    lock_release(&s->lock);
    return empty;
}

int scope_wait(scope *s) {
    do if (waitgroup_wait(&s->tasks, (PyObject *)s) < 0) return -1;
    while (!close_if_empty(s));
    return 0;
}

/* --- the end of a scope ---------------------------------------------------------------------------- */
/* One after the other: the last reference to a scope may be the last to the one above it, and so on. */
void scope_dealloc(scope *s) {
    TLS scope *dying;
    TLS bool busy;
    s->sibling.next = (node *)dying;
    dying = s;
    if (busy) return;
    busy = true;
    while ((s = dying)) {
        dying = (scope *)s->sibling.next;
        scope *parent = s->parent;
        PyObject_Free(s);
        Py_XDECREF(parent);
    }
    busy = false;
}

/* In the child of a fork nobody holds the locks of what g is in. */
static void after_fork(G *g) {
    if (g->bubble) bubble_after_fork(g->scope->bubble, g, g == g_self_quick());
    for (scope *s = g->scope; s; s = s->parent) {
        lock_reset(&s->lock);
        lock_reset(&s->tasks.lock);
        timer_after_fork(&s->deadline);
    }
}

static void succeed(G *heir, G *g) {
    scope *innermost = g->scope;
    if (!innermost) return;
    for (scope *s = innermost; s && owns(g, s); s = s->parent) relaxed_store(&s->owner, heir);
    if (g->bubble) bubble_succeed(innermost->bubble, heir, g);
    part(g);
    join(innermost, heir);
    atomic_store(&heir->shielded, relaxed_load(&g->shielded));
    Py_DECREF(innermost);                        /* g's */
}

void scope_init(void) {
    g_hooks.inherit = inherit;
    g_hooks.left = left;
    g_hooks.is_cancelled = is_cancelled;
    g_hooks.after_fork = after_fork;
    g_hooks.succeed = succeed;
    bubble_init();
}
