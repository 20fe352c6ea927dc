/* The module gofer._core: what is set up once, and in which order. */
#include "module.h"
#include "sched.h"

/* A tracked object through which the collector sees what parked and unstarted goroutines hold.  Needed where
   frames hold references that are not counted (PS_DEFERRED); the hostile build has it on every version. */
static int frames_traverse(PyObject *self, visitproc visit, void *arg) { return sched_visit(visit, arg); }
static PyTypeObject Frames_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gofer._core._Frames",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_traverse = frames_traverse,
    .tp_dealloc = (destructor)PyObject_GC_Del,
};

static int show_frames_to_collector(void) {
    if (!PS_DEFERRED && !HOSTILE) return 0;
    if (PyType_Ready(&Frames_Type) < 0) return -1;
    PyObject *frames = PyObject_GC_New(PyObject, &Frames_Type);
    if (!frames) return -1;
    PyObject_GC_Track(frames);               /* for ever: the reference is not given up */
    return 0;
}

static int take_errors(void) {
    PyObject *errors = PyImport_ImportModule("gofer.errors");
    if (!errors) return -1;
    static const struct { const char *name; PyObject **to; } wanted[] = {
        {"Closed", &rt.errors.closed}, {"Deadlock", &rt.errors.deadlock}, {"Cancelled", &rt.errors.cancelled},
        {"Canceled", &rt.errors.canceled}, {"GoroutineExit", &rt.errors.exit},
    };
    int result = 0;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted && result == 0; i++)
        if (!(*wanted[i].to = PyObject_GetAttrString(errors, wanted[i].name))) result = -1;
    Py_DECREF(errors);
    return result;
}

static int exec(PyObject *module) {
    static bool done;
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError,
                        "gofer can only be used in the main interpreter, not in a sub-interpreter: import it "
                        "in the main one");
        return -1;
    }
    if (done) {
        PyErr_SetString(PyExc_ImportError,
                        "gofer._core is loaded already and can not be loaded a second time; do not remove it "
                        "from sys.modules");
        return -1;
    }
    done = true;
    if (ps_init() < 0 || take_errors() < 0) return -1;
    pool_install();
    return sched_init() < 0 || py_g_add(module) < 0 || py_chan_add(module) < 0 || py_time_add(module) < 0
        || py_sync_add(module) < 0 || py_scope_add(module) < 0 || py_branch_add(module) < 0
        || py_explore_add(module) < 0 || py_io_add(module) < 0 || py_patch_add(module) < 0
        || py_runtime_add(module) < 0
        || show_frames_to_collector() < 0 ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, exec},
#ifdef Py_mod_multiple_interpreters          /* loads there, and then refuses with a message of its own */
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "gofer._core", .m_doc = "The C core of gofer.", .m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&definition); }
