/* multiprocessing's locks: _multiprocessing.SemLock, a semaphore that processes share.

   Another process that frees one tells nobody.  So a goroutine that waits for one asks again and again,
   after longer and longer pauses; when it is freed in this process, the first that waits is told.

   What must stay true: a recursive one belongs to a goroutine, by the number that it has as a thread.  What
   was there before compares that with the number of the thread: it is called for one that is not this
   thread's, or made to look as if it were, and nothing can be switched to before that is put right. */
#include "patch.h"
#include "timer.h"
#include <semaphore.h>
#include <structmember.h>

static const int64_t FIRST_NS = 200000, LONGEST_NS = 10000000;
static const double LONGEST = 9.2e9;             /* seconds: more than that is for ever */

/* As CPython has it; patch_know_semlocks sees whether it is so. */
typedef struct semlock {
    PyObject_HEAD
    void *handle;
    unsigned long owner;         /* whoever took it last */
    int count, maxvalue, kind;   /* count: how often this process has it; kind 0: recursive */
    char *name;
} semlock;

static leaf *acquire, *release;

static bool lies_at(PyObject *type, const char *name, size_t offset) {
    PyObject *member = PyObject_GetAttrString(type, name);
    bool is = member && Py_IS_TYPE(member, &PyMemberDescr_Type)
        && ((PyMemberDescrObject *)member)->d_member->offset == (Py_ssize_t)offset;
    Py_XDECREF(member);
    return is;
}

int patch_know_semlocks(void) {
    PyObject *module = PyImport_ImportModule("_multiprocessing");
    PyObject *type = module ? PyObject_GetAttrString(module, "SemLock") : NULL;
    Py_XDECREF(module);
    if (!type) { PyErr_Clear(); return 0; }      /* a Python without */
    bool known = lies_at(type, "handle", offsetof(semlock, handle))
        && lies_at(type, "maxvalue", offsetof(semlock, maxvalue))
        && lies_at(type, "kind", offsetof(semlock, kind)) && lies_at(type, "name", offsetof(semlock, name));
    Py_DECREF(type);
    acquire = patch_leaf("_multiprocessing.SemLock.acquire");
    release = patch_leaf("_multiprocessing.SemLock.release");
    if (known) return 0;
    PyErr_SetString(PyExc_RuntimeError,
                    "patch() does not know multiprocessing's locks of this Python; exclude multiprocessing");
    return -1;
}

static bool is_recursive(const semlock *s) { return s->kind == 0; }
static bool is_owned_by(const semlock *s, unsigned long who) { return s->count > 0 && s->owner == who; }
static unsigned long me(void) { return patch_ident(g_worker->cur); }

static int take_now(want *w) {
    semlock *s = (semlock *)w->on;
    unsigned long thread = PyThread_get_thread_ident();
    if (is_recursive(s) && is_owned_by(s, me())) { s->count++; return 1; }
    if (is_recursive(s) && is_owned_by(s, thread)) return 0;         /* that is goroutine 1 */
    int taken = patch_ask(acquire, w->on, NULL, Py_False);
    if (taken > 0) s->owner = me();
    return taken;
}

static bool may_take(PyObject *on) {
    int value;
    return sem_getvalue(((semlock *)on)->handle, &value) == 0 && value > 0;
}

static PyObject *wait_in_turns(const call *c, G *g, int64_t ns) {
    want w = { c->self, c, WHY_LOCK, take_now, may_take };
    limit l;
    int taken = patch_limit(&l, g, ns == NEVER ? -1 : ns) < 0 ? -1 : take_now(&w);
    for (int64_t pause = FIRST_NS; !taken; pause = pause < LONGEST_NS ? 2 * pause : LONGEST_NS) {
        int64_t left = patch_limit_left(&l);
        if (left == 0) break;
        taken = patch_wait(g, &w, left < pause ? left : pause);
    }
    return taken < 0 ? NULL : PyBool_FromLong(taken);
}

/* acquire(block=True, timeout=None) */
PyObject *patch_semlock_acquire(const call *c) {
    PyObject *block = patch_arg(c, 0, "block"), *timeout = patch_arg(c, 1, "timeout");
    int waits = block && c->leaf == acquire ? PyObject_IsTrue(block) : 1;
    double s = LONGEST;
    G *g = patch_caller();
    bool limited = timeout && timeout != Py_None && c->leaf == acquire;
    if (waits < 0) PyErr_Clear();
    if (!g || waits < 0 || (limited && !patch_seconds(timeout, &s))) return patch_as_before(c);
    if (waits && s > 0) return wait_in_turns(c, g, s < LONGEST ? (int64_t)(s * 1e9 + 0.999) : NEVER);
    want w = { c->self, c, WHY_LOCK, take_now, may_take };
    int taken = take_now(&w);
    return taken < 0 ? NULL : PyBool_FromLong(taken);
}

static PyObject *release_recursive(const call *c, semlock *s) {
    unsigned long owner = s->owner;
    if (!is_owned_by(s, me())) {
        PyErr_SetString(PyExc_AssertionError, "attempt to release recursive lock not owned by thread");
        return NULL;
    }
    s->owner = PyThread_get_thread_ident();
    PyObject *result = patch_call(release, c->self, NULL, NULL);
    s->owner = owner;
    return result;
}

PyObject *patch_semlock_release(const call *c) {
    semlock *s = (semlock *)c->self;
    PyObject *result = g_worker && is_recursive(s) ? release_recursive(c, s) : patch_as_before(c);
    if (result) patch_freed(c->self);
    return result;
}

PyObject *patch_semlock_is_mine(const call *c) {
    return g_worker ? PyBool_FromLong(is_owned_by((semlock *)c->self, me())) : patch_as_before(c);
}
