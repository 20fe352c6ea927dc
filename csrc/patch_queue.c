/* queue.SimpleQueue. */
#include "patch.h"

static leaf *queue_empty;

static bool has_some(PyObject *on) { return !patch_says(queue_empty, on); }

static bool is_empty_error(void) {
    PyObject *type = PyErr_Occurred();               /* of whichever import */
    return type && PyType_Check(type) && !strcmp(((PyTypeObject *)type)->tp_name, "Empty");
}

static int get_now(want *w) {
    if (!has_some(w->on)) return 0;
    if ((w->taken = patch_call(w->call->leaf, w->on, w->call->a, Py_False))) return 1;
    if (!is_empty_error()) return -1;
    PyErr_Clear();                                   /* another has been quicker */
    return 0;
}

/* get(block=True, timeout=None); false: it does not wait, or is wrong. */
static bool waits(const call *c, int64_t *ns) {
    PyObject *block = patch_arg(c, 0, "block"), *timeout = patch_arg(c, 1, "timeout");
    double s;
    if ((block != NULL) + (timeout != NULL) != patch_nargs(c)) return false;
    int is = block ? PyObject_IsTrue(block) : 1;
    if (is < 0) PyErr_Clear();
    if (is != 1) return false;
    *ns = NEVER;
    if (!timeout || timeout == Py_None) return true;
    if (!patch_seconds(timeout, &s) || !(s > 0 && s < 9.2e9)) return false;
    *ns = (int64_t)(s * 1e9 + 0.999);
    return true;
}

/* Under the GIL nobody takes it meanwhile. */
static PyObject *get_what_is_there(const call *c) {
    PyObject *item = patch_as_before(c);
    if (item) g_could_switch();
    return item;
}

PyObject *patch_queue_get(const call *c) {
    G *g = patch_caller();
    int64_t ns;
    if (!g) return patch_as_before(c);
    if (!queue_empty) queue_empty = patch_leaf("_queue.SimpleQueue.empty");
    if (!GOFER_FREE_THREADED && has_some(c->self)) return get_what_is_there(c);
    if (!waits(c, &ns)) return patch_as_before(c);
    want w = { c->self, c, WHY_QUEUE, get_now, has_some };
    int taken = patch_wait(g, &w, ns);
    return taken > 0 ? w.taken : taken < 0 ? NULL : patch_call(c->leaf, c->self, c->a, Py_False);
}

PyObject *patch_queue_put(const call *c) {
    PyObject *result = patch_as_before(c);
    if (result) patch_freed(c->self);
    return result;
}
