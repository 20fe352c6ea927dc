/* queue.Queue and queue.LifoQueue: their put, get and task_done are functions in Python, and this does in C
   what they do when they need not wait.  On free-threaded builds they stay as they are.

   All that is unusual is left to the function in Python: who has to wait, errors, an argument of its own
   type, a subclass, a class or an instance that somebody has changed, another lock or container.

   What must stay true:
   - Nobody can tell the difference.  The mutex is not taken, only looked at: nobody has it, and from the
     first look to the last change nothing of Python's runs, nor lets go of the GIL.
   - Nothing is changed before all has been looked at.
   - What is dropped is dropped when all is done, and is a number or a lock: but for that it holds borrowed
     references, which those of the instances keep alive. */
#include "patch.h"

/* --- what an instance is made of ------------------------------------------------------------------- */
enum { MUTEX, QUEUE, MAXSIZE, UNFINISHED, NOT_EMPTY, NOT_FULL, ALL_DONE, IS_SHUTDOWN };
enum { LOCK, WAITERS };
enum { N_FIELDS = 8, N_METHODS = 5 };

/* A class in Python, and where its instances have what. */
typedef struct shape {
    const char *module, *name;
    const char *fields[N_FIELDS];
    const char *methods[N_METHODS];
    PyTypeObject *type;
    PyObject *globals;                           /* of the module */
    PyObject *field_names[N_FIELDS], *method_names[N_METHODS];
    unsigned version;                            /* of the class, when it was looked at */
    Py_ssize_t names;                            /* and how many names its instances had */
    Py_ssize_t at[N_FIELDS];                     /* their places; -1: there is no such field */
    Py_ssize_t over[N_METHODS];                  /* places of what an instance has instead of a method */
    int n_over;
    bool plain;                                  /* methods are those of the module, and fields are fields */
} shape;

#define QUEUE(name) { "queue", name, { "mutex", "queue", "maxsize", "unfinished_tasks", "not_empty", \
                                       "not_full", "all_tasks_done", "is_shutdown" }, \
                      { "_put", "_get", "_qsize" } }
static shape fifo = QUEUE("Queue"), lifo = QUEUE("LifoQueue");
static shape condition = { "threading", "Condition", { "_lock", "_waiters" },
                           { "__enter__", "__exit__", "_is_owned", "notify", "notify_all" } };
static bool can_shut_down;                       /* from 3.13 on */

/* A method in Python that the class has from its module. */
static bool is_own(const shape *s, PyObject *f, const char *name) {
    char whole[40];
    if (!f || !PyFunction_Check(f) || PyFunction_GET_GLOBALS(f) != s->globals) return false;
    snprintf(whole, sizeof whole, "%s.%s", s->name, name);
    PyCodeObject *code = (PyCodeObject *)PyFunction_GET_CODE(f);
    return PyUnicode_CompareWithASCIIString(code->co_qualname, whole) == 0;
}

static bool look(shape *s) {
    PyTypeObject *t = s->type;
    bool plain = t->tp_getattro == PyObject_GenericGetAttr && t->tp_setattro == PyObject_GenericSetAttr;
    s->names = ps_names(t);
    s->n_over = 0;
    for (int i = 0; i < N_FIELDS; i++) {
        s->at[i] = s->field_names[i] ? ps_place(t, s->field_names[i]) : -1;
        if (s->field_names[i] && _PyType_Lookup(t, s->field_names[i])) plain = false;
    }
    for (int i = 0; i < N_METHODS; i++) {
        if (!s->method_names[i]) continue;
        Py_ssize_t over = ps_place(t, s->method_names[i]);
        if (over >= 0) s->over[s->n_over++] = over;
        if (!is_own(s, _PyType_Lookup(t, s->method_names[i]), s->methods[i])) plain = false;
    }
    s->version = t->tp_version_tag;
    return s->plain = plain && s->names;
}

static inline bool is_plain(shape *s) {
    unsigned version = s->type->tp_version_tag;   /* 0: CPython gives it none (any more) */
    bool known = LIKELY(version && s->version == version && s->names == ps_names(s->type));
    return known ? s->plain : look(s);
}

/* The attributes of an instance of a plain class; NULL: it has them elsewhere, or methods of its own. */
static inline PyObject **values_of(const shape *s, PyObject *o) {
    PyObject **values = ps_values(o);
    for (int i = 0; values && i < s->n_over; i++)
        if (values[s->over[i]]) return NULL;
    return values;
}

/* NULL: it has none. */
static inline PyObject *field(const shape *s, PyObject **values, int i) {
    return LIKELY(s->at[i] >= 0) ? values[s->at[i]] : NULL;
}

/* --- the containers -------------------------------------------------------------------------------- */
static PyTypeObject *deque;
static PyCFunction deque_append, deque_popleft;
static getter deque_maxlen;

static inline bool is_deque(PyObject *o) { return o && Py_IS_TYPE(o, deque); }

/* One that drops nothing when something is appended. */
static bool is_unbounded(PyObject *q) {
    PyObject *maxlen = deque_maxlen(q, NULL);
    Py_XDECREF(maxlen);
    if (!maxlen) PyErr_Clear();
    return maxlen == Py_None;
}

static int append(PyObject *q, PyObject *item) {
    if (PyList_CheckExact(q)) return PyList_Append(q, item);
    PyObject *none = deque_append(q, item);
    Py_XDECREF(none);
    return none ? 0 : -1;
}

static PyObject *pop(PyObject *q) {
    if (!PyList_CheckExact(q)) return deque_popleft(q, NULL);
    Py_ssize_t last = Py_SIZE(q) - 1;
    PyObject *item = Py_NewRef(PyList_GET_ITEM(q, last));
    if (PyList_SetSlice(q, last, last + 1, NULL) < 0) Py_CLEAR(item);
    return item;
}

/* --- a queue that is as usual ---------------------------------------------------------------------- */
typedef struct view { shape *s; PyObject **values, *mutex; } view;

static bool is_usual(view *v, PyObject *self) {
    v->s = Py_IS_TYPE(self, fifo.type) ? &fifo : Py_IS_TYPE(self, lifo.type) ? &lifo : NULL;
    v->values = v->s && is_plain(v->s) && is_plain(&condition) ? values_of(v->s, self) : NULL;
    if (!v->values || !(v->mutex = field(v->s, v->values, MUTEX))) return false;
    return patch_lock_is_free(v->mutex);
}

static bool is_open(const view *v) {
    return !can_shut_down || field(v->s, v->values, IS_SHUTDOWN) == Py_False;
}

/* NULL: it is none that we know. */
static PyObject *container_of(const view *v) {
    PyObject *q = field(v->s, v->values, QUEUE);
    return v->s == &lifo ? (q && PyList_CheckExact(q) ? q : NULL) : is_deque(q) ? q : NULL;
}

/* An integer of the queue; false: it is none, or too large. */
static bool number(const view *v, int i, long *n) {
    PyObject *o = field(v->s, v->values, i);
    int over;
    if (!o || !PyLong_CheckExact(o)) return false;
    *n = PyLong_AsLongAndOverflow(o, &over);
    return !over;
}

/* Who waits for a condition over the mutex; NULL: it is another one. */
static PyObject *waiters_of(const view *v, int i) {
    PyObject *c = field(v->s, v->values, i), **values;
    if (!c || !Py_IS_TYPE(c, condition.type) || !(values = values_of(&condition, c))) return NULL;
    PyObject *waiters = field(&condition, values, WAITERS);
    return field(&condition, values, LOCK) == v->mutex && is_deque(waiters) ? waiters : NULL;
}

/* The first of them can be notified, or there is none. */
static bool can_notify(PyObject *waiters) {
    if (LIKELY(Py_SIZE(waiters) == 0)) return true;
    PyObject *first = PySequence_GetItem(waiters, 0);
    bool can = first && patch_lock_is_held(first);
    Py_XDECREF(first);
    return can;
}

/* As Condition.notify: 0, or -1 with an exception. */
static int notify(PyObject *waiters) {
    if (LIKELY(Py_SIZE(waiters) == 0)) return 0;
    PyObject *first = deque_popleft(waiters, NULL), *none = first ? patch_lock_let_go(first) : NULL;
    Py_XDECREF(first);
    Py_XDECREF(none);
    return none ? 0 : -1;
}

/* --- the operations: NULL without an exception: that is for Python --------------------------------- */
enum { ITEM, BLOCK, TIMEOUT, N_ARGS };                /* of put; get has the last two */
static PyObject *arg_names[N_ARGS];

/* From the first-th on, by position and by name. */
static bool read_args(PyObject *into[N_ARGS], int first, PyObject *const *args, Py_ssize_t n,
                      PyObject *kwnames) {
    if (n > N_ARGS - first) return false;
    for (Py_ssize_t i = 0; i < n; i++) into[first + i] = args[i];
    for (Py_ssize_t i = 0; kwnames && i < PyTuple_GET_SIZE(kwnames); i++) {
        int at = first;
        while (at < N_ARGS && arg_names[at] != PyTuple_GET_ITEM(kwnames, i)) at++;
        if (at == N_ARGS || into[at]) return false;
        into[at] = args[n + i];
    }
    return true;
}

/* No error, and not asked for more than to look at it. */
static bool is_timeout(PyObject *o) {
    int over;
    if (PyFloat_CheckExact(o)) return !(PyFloat_AS_DOUBLE(o) < 0);
    return o == Py_None || (PyLong_CheckExact(o) && PyLong_AsLongAndOverflow(o, &over) >= 0 && !over);
}
static bool are_usual(PyObject *block, PyObject *timeout) {
    return block == Py_False || ((!block || block == Py_True) && (!timeout || is_timeout(timeout)));
}

static PyObject *put(PyObject *self, PyObject *item) {
    view v;
    long maxsize, unfinished;
    if (!is_usual(&v, self) || !is_open(&v)) return NULL;
    PyObject *q = container_of(&v), *waiters = waiters_of(&v, NOT_EMPTY);
    if (!q || !waiters || !waiters_of(&v, NOT_FULL)) return NULL;
    if (!number(&v, MAXSIZE, &maxsize) || !number(&v, UNFINISHED, &unfinished)) return NULL;
    if (unfinished == LONG_MAX || (maxsize > 0 && Py_SIZE(q) >= maxsize)) return NULL;
    if (v.s == &fifo && !is_unbounded(q)) return NULL;
    PyObject **count = &v.values[v.s->at[UNFINISHED]], *more = NULL;
    if (!can_notify(waiters) || !(more = PyLong_FromLong(unfinished + 1))) return NULL;
    if (append(q, item) < 0) { Py_DECREF(more); return NULL; }
    Py_SETREF(*count, more);
    return notify(waiters) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *get(PyObject *self) {
    view v;
    if (!is_usual(&v, self) || !is_open(&v)) return NULL;
    PyObject *q = container_of(&v), *waiters = waiters_of(&v, NOT_FULL);
    if (!q || !waiters || !waiters_of(&v, NOT_EMPTY) || Py_SIZE(q) == 0 || !can_notify(waiters)) return NULL;
    PyObject *item = pop(q);
    if (item && notify(waiters) < 0) Py_CLEAR(item);
    return item;
}

static PyObject *quick_put(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames) {
    PyObject *a[N_ARGS] = { NULL };
    if (!read_args(a, ITEM, args, n, kwnames) || !a[ITEM] || !are_usual(a[BLOCK], a[TIMEOUT])) return NULL;
    return put(self, a[ITEM]);
}

static PyObject *quick_get(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames) {
    PyObject *a[N_ARGS] = { NULL };
    return read_args(a, BLOCK, args, n, kwnames) && are_usual(a[BLOCK], a[TIMEOUT]) ? get(self) : NULL;
}

static PyObject *quick_task_done(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames) {
    view v;
    long unfinished;
    if (n || kwnames || !is_usual(&v, self) || !number(&v, UNFINISHED, &unfinished)) return NULL;
    PyObject *waiters = waiters_of(&v, ALL_DONE);
    if (!waiters || unfinished <= 0 || (unfinished == 1 && Py_SIZE(waiters))) return NULL;
    PyObject *fewer = PyLong_FromLong(unfinished - 1);
    if (!fewer) return NULL;
    Py_SETREF(v.values[v.s->at[UNFINISHED]], fewer);
    Py_RETURN_NONE;
}

/* --- in their place -------------------------------------------------------------------------------- */
typedef struct method {
    const char *name;
    PyObject *(*quick)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
    vectorcallfunc entry, before;
    PyMethodDef def;                             /* to stand in the class */
    PyObject *function;                          /* in Python; NULL: not to be exchanged */
    PyObject *in_class;                          /* made of def, if need be */
} method;

/* Called as the function is. */
static PyObject *enter(method *m, PyObject *f, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    Py_ssize_t n = PyVectorcall_NARGS(nargsf);
    PyObject *result = n ? m->quick(args[0], args + 1, n - 1, kwnames) : NULL;
    if (!result) return PyErr_Occurred() ? NULL : m->before(f, args, nargsf, kwnames);
    g_could_switch();
    return result;
}

/* Called as a method in C. */
static PyObject *enter_method(method *m, PyObject *self, PyObject *const *args, Py_ssize_t n,
                              PyObject *kwnames) {
    PyObject *result = m->quick(self, args, n, kwnames);
    if (result) g_could_switch();
    if (result || PyErr_Occurred()) return result;
    PyObject *bound = PyMethod_New(m->function, self);
    if (bound) result = PyObject_Vectorcall(bound, args, n, kwnames);
    Py_XDECREF(bound);
    return result;
}

#define METHODS(X) X(put, "$self, item, block=True, timeout=None") X(get, "$self, block=True, timeout=None") \
    X(task_done, "$self")
#define INDEX(id, takes) M_##id,
enum { METHODS(INDEX) N_QUICK };
static method methods[N_QUICK];
#define ENTRIES(id, takes) \
    static PyObject *id##_called(PyObject *f, PyObject *const *args, size_t n, PyObject *kwnames) { \
        return enter(&methods[M_##id], f, args, n, kwnames); } \
    static PyObject *id##_method(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames) { \
        return enter_method(&methods[M_##id], self, args, n, kwnames); }
METHODS(ENTRIES)
#define ENTRY(id, takes) \
    [M_##id] = { #id, quick_##id, id##_called, \
                 .def = { #id, (PyCFunction)(void (*)(void))id##_method, METH_FASTCALL | METH_KEYWORDS, \
                          #id "(" takes ")\n--\n\n" } },
static method methods[N_QUICK] = { METHODS(ENTRY) };

/* Where calls can not be led elsewhere, a method in C stands in the class; for any object, as a function
   does. */
static int exchange(method *m, bool on) {
    if (ps_set_vectorcall(m->function, on ? m->entry : m->before)) return 0;
    if (!m->in_class) {
        m->in_class = PyDescr_NewMethod(&PyBaseObject_Type, &m->def);
        PyObject *name = m->in_class ? PyUnicode_FromFormat("Queue.%s", m->name) : NULL;
        if (!name) { Py_CLEAR(m->in_class); return -1; }
        Py_XSETREF(((PyDescrObject *)m->in_class)->d_qualname, name);
    }
    return PyObject_SetAttrString((PyObject *)fifo.type, m->name, on ? m->in_class : m->function);
}

/* --- what is where --------------------------------------------------------------------------------- */
static int find_class(shape *s) {
    PyObject *module = PyImport_ImportModule(s->module);
    s->globals = module ? Py_XNewRef(PyModule_GetDict(module)) : NULL;
    s->type = module ? (PyTypeObject *)PyObject_GetAttrString(module, s->name) : NULL;
    Py_XDECREF(module);
    for (int i = 0; i < N_FIELDS && s->fields[i]; i++)
        if (!(s->field_names[i] = PyUnicode_InternFromString(s->fields[i]))) return -1;
    for (int i = 0; i < N_METHODS && s->methods[i]; i++)
        if (!(s->method_names[i] = PyUnicode_InternFromString(s->methods[i]))) return -1;
    return s->type ? 0 : -1;
}

/* A method of deque in C, called so; NULL: it has none. */
static PyCFunction method_of_deque(const char *name, int flags) {
    PyObject *o = PyObject_GetAttrString((PyObject *)deque, name);
    PyMethodDef *def = o && Py_IS_TYPE(o, &PyMethodDescr_Type) ? ((PyMethodDescrObject *)o)->d_method : NULL;
    PyCFunction f = def && def->ml_flags == flags ? def->ml_meth : NULL;
    Py_XDECREF(o);
    PyErr_Clear();
    return f;
}

/* 1; 0: this is another deque than CPython's; -1 with an exception. */
static int find_deque(void) {
    PyObject *module = PyImport_ImportModule("_collections");
    deque = module ? (PyTypeObject *)PyObject_GetAttrString(module, "deque") : NULL;
    Py_XDECREF(module);
    if (!deque || !PyType_Check(deque)) return deque ? 0 : -1;
    deque_append = method_of_deque("append", METH_O);
    deque_popleft = method_of_deque("popleft", METH_NOARGS);
    PyObject *maxlen = PyObject_GetAttrString((PyObject *)deque, "maxlen");
    if (maxlen && Py_IS_TYPE(maxlen, &PyGetSetDescr_Type))
        deque_maxlen = ((PyGetSetDescrObject *)maxlen)->d_getset->get;
    Py_XDECREF(maxlen);
    PyErr_Clear();
    return deque_append && deque_popleft && deque_maxlen;
}

static void find_methods(void) {
    for (method *m = methods; m < methods + N_QUICK; m++) {
        PyObject *f = PyObject_GetAttrString((PyObject *)fifo.type, m->name);
        if (!f) PyErr_Clear();
        if (is_own(&fifo, f, m->name)) m->function = Py_NewRef(f);
        if (m->function) m->before = ((PyFunctionObject *)f)->vectorcall;
        Py_XDECREF(f);
    }
}

/* Once: 1; 0: they are not as we know them; -1 with an exception. */
static int find(void) {
    static int found = -1;
    if (found >= 0) return found;
    int is = find_deque();
    if (is <= 0) return found = is;
    static const char *const names[N_ARGS] = { "item", "block", "timeout" };
    for (int i = 0; i < N_ARGS; i++)
        if (!(arg_names[i] = PyUnicode_InternFromString(names[i]))) return -1;
    if (find_class(&fifo) < 0 || find_class(&lifo) < 0 || find_class(&condition) < 0) return -1;
    find_methods();
    can_shut_down = PyObject_HasAttrString((PyObject *)fifo.type, "shutdown");
    return found = PyType_Check(fifo.type) && PyType_Check(lifo.type) && PyType_Check(condition.type);
}

int patch_queues(bool on) {
    static bool exchanged;
    if (GOFER_FREE_THREADED || on == exchanged) return 0;
    int known = find();
    if (known <= 0) return known;
    for (method *m = methods; m < methods + N_QUICK; m++)
        if (m->function && exchange(m, on) < 0) return -1;
    exchanged = on;
    return 0;
}
