/* What gofer.testing needs to explore schedules. */
#include "module.h"
#include "explore.h"

static int take_prefix(PyObject *list, explore_plan *plan) {
    Py_ssize_t n = PyList_GET_SIZE(list);
    if (n == 0) return 0;
    if (!(plan->prefix = mem_alloc((size_t)n * sizeof *plan->prefix))) { PyErr_NoMemory(); return -1; }
    plan->n_prefix = (size_t)n;
    for (Py_ssize_t i = 0; i < n; i++) {
        long k = PyLong_AsLong(PyList_GET_ITEM(list, i));
        if (k == -1 && PyErr_Occurred()) return -1;
        plan->prefix[i] = (uint16_t)k;
    }
    return 0;
}

static PyObject *py_begin(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"mode", "seed", "depth", "length", "bound", "max_choices", "prefix", NULL};
    int mode;
    unsigned long long seed;
    unsigned int depth, length, bound;
    Py_ssize_t most;
    PyObject *prefix;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$iKIIInO!:explore_begin", names, &mode, &seed, &depth,
                                     &length, &bound, &most, &PyList_Type, &prefix)) return NULL;
    explore_plan plan = { .mode = (enum explore_mode)mode, .seed = seed, .depth = depth, .length = length,
                          .bound = bound, .max_choices = (size_t)most };
    if (take_prefix(prefix, &plan) < 0 || explore_begin(&plan) < 0) {
        mem_free(plan.prefix);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *tell(const explore_result *r) {
    if (r->short_of_memory) return PyErr_NoMemory();
    PyObject *list = PyList_New((Py_ssize_t)r->n);
    for (size_t i = 0; list && i < r->n; i++) {
        PyObject *item = Py_BuildValue("ii", (int)r->choices[i].of, (int)r->choices[i].chosen);
        if (!item) { Py_CLEAR(list); break; }
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    PyObject *answer = list ? Py_BuildValue("OO", list, r->overran ? Py_True : Py_False) : NULL;
    Py_XDECREF(list);
    return answer;
}

static PyObject *py_end(PyObject *module, PyObject *unused) {
    explore_result result = explore_end();
    PyObject *answer = tell(&result);
    mem_free(result.choices);
    return answer;
}

/* --- tracing ---------------------------------------------------------------------------------------------
   Not by a function of Python's: one that raises is not called any more. */

/* Whether the program's lines are in that file; -1 with an exception. */
static int is_known(PyObject *known, PyObject *ask, PyObject *name) {
    PyObject *answer = PyDict_GetItemWithError(known, name);         /* True or False */
    if (answer || PyErr_Occurred()) return answer ? answer == Py_True : -1;
    if (!(answer = PyObject_CallOneArg(ask, name))) return -1;
    int result = PyDict_SetItem(known, name, answer) < 0 ? -1 : answer == Py_True;
    Py_DECREF(answer);
    return result;
}

static int record(PyObject *lines, PyObject *code, int line) {
    G *g = g_self_quick();
    PyObject *name = PyObject_GetAttrString((PyObject *)g, "name");
    PyObject *item = name ? Py_BuildValue("KNOi", (unsigned long long)g->id, name, code, line) : NULL;
    int result = item ? PyList_Append(lines, item) : -1;
    Py_XDECREF(item);
    return result;
}

/* self: what start_tracing makes. */
static int trace(PyObject *self, PyFrameObject *frame, int what, PyObject *unused) {
    if (what != PyTrace_LINE) return 0;
    PyObject *known, *ask, *lines;
    if (!PyArg_ParseTuple(PyCFunction_GET_SELF(self), "OOO", &known, &ask, &lines)) return -1;
    PyCodeObject *code = PyFrame_GetCode(frame);
    int result = is_known(known, ask, code->co_filename);
    if (result > 0) {
        result = explore_point();
        if (result == 0 && lines != Py_None)
            result = record(lines, (PyObject *)code, PyFrame_GetLineNumber(frame));
    }
    Py_DECREF(code);
    return result;
}

/* sys.gettrace() gives it, and it can be set again with sys.settrace(): then it is called once. */
static PyObject *start_tracing(PyObject *args, PyObject *unused) {
    static PyMethodDef again = { "explore", start_tracing, METH_VARARGS, NULL };
    PyObject *self = PyCFunction_New(&again, args);
    if (!self) return NULL;
    PyEval_SetTrace(trace, self);
    Py_DECREF(self);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_trace(PyObject *module, PyObject *args) { return start_tracing(args, NULL); }

static PyMethodDef functions[] = {
    {"explore_begin", (PyCFunction)(void (*)(void))py_begin, METH_VARARGS | METH_KEYWORDS, NULL},
    {"explore_end", py_end, METH_NOARGS, NULL},
    {"explore_trace", py_trace, METH_VARARGS, NULL},
    {NULL},
};

int py_explore_add(PyObject *module) {
    explore_init();
    return PyModule_AddFunctions(module, functions);
}
