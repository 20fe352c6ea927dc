/* queue.SimpleQueue. */
#include "patch.h"

static PyObject *try_get, *is_empty, *empty_error;

static int know_queues(void) {
    if (empty_error) return 0;
    if (!try_get && !(try_get = patch_method("_queue", "SimpleQueue", "get_nowait"))) return -1;
    if (!is_empty && !(is_empty = patch_method("_queue", "SimpleQueue", "empty"))) return -1;
    PyObject *module = PyImport_ImportModule("_queue");
    empty_error = module ? PyObject_GetAttrString(module, "Empty") : NULL;
    Py_XDECREF(module);
    return empty_error ? 0 : -1;
}

static bool has_some(PyObject *on) {
    PyObject *empty = PyObject_CallOneArg(is_empty, on);
    Py_XDECREF(empty);                           /* True or False */
    return empty == Py_False;
}

static int get_now(want *w) {
    if (!has_some(w->on)) return 0;
    if ((w->taken = PyObject_CallOneArg(try_get, w->on))) return 1;
    if (!PyErr_ExceptionMatches(empty_error)) return -1;
    PyErr_Clear();                               /* another has been quicker */
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

PyObject *patch_queue_get(const call *c) {
    G *g = patch_goroutine();
    int64_t ns;
    if (!g || !waits(c, &ns)) return patch_as_before(c);
    if (know_queues() < 0) return NULL;
    want w = { c->self, WHY_QUEUE, get_now, has_some };
    int taken = patch_wait(g, &w, ns);
    if (taken == 0) PyErr_SetNone(empty_error);
    return taken > 0 ? w.taken : NULL;
}

PyObject *patch_queue_put(const call *c) {
    PyObject *result = patch_as_before(c);
    if (result) patch_freed(c->self);
    return result;
}
