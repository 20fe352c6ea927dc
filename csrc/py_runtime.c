/* The runtime as Python sees it: workers, the picture of all goroutines, run(), signals, the end. */
#include "module.h"
#include "sched.h"
#include "patch.h"
#include <stdio.h>
#include <unistd.h>

extern PyObject *py_panic_hook, *py_child_ended_hook, *py_swallows_hook;

/* --- numbers --------------------------------------------------------------------------------------- */
static PyObject *py_gomaxprocs(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    long n = 0;
    if (nargs > 1 && one_arg("gomaxprocs", nargs) < 0) return NULL;
    if (nargs == 1 && args[0] != Py_None) {
        n = PyLong_AsLong(args[0]);
        if (n == -1 && PyErr_Occurred()) return NULL;
        if (n < 1) {
            PyErr_Format(PyExc_ValueError, "gomaxprocs(%ld): at least 1 worker must run", n);
            return NULL;
        }
        if (!GOFER_FREE_THREADED) n = 1;
    }
    return PyLong_FromLong(sched_procs((int)(n < INT16_MAX ? n : INT16_MAX)));
}

static PyObject *py_num_goroutine(PyObject *module, PyObject *unused) {
    return PyLong_FromLongLong(sched_count().goroutines);
}

static PyObject *py_stats(PyObject *module, PyObject *unused) {
    sched_stats s = sched_count();
    return Py_BuildValue("{sLsisKsKsKsK}", "goroutines", (long long)s.goroutines, "workers", s.workers,
                         "switches", (unsigned long long)s.switches, "spawned", (unsigned long long)s.spawned,
                         "stolen", (unsigned long long)s.stolen, "sleeps", (unsigned long long)s.sleeps);
}

static PyObject *py_lock_os_thread(PyObject *module, PyObject *unused) {
    if (sched_lock_thread() < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_unlock_os_thread(PyObject *module, PyObject *unused) {
    sched_unlock_thread();
    Py_RETURN_NONE;
}

/* --- the picture of all goroutines ----------------------------------------------------------------- */
/* While the world stands still nothing of Python's may be allocated: what is seen is noted in raw memory, and
   told afterwards. */
enum { MOST_FRAMES = 100 };
typedef struct { PyCodeObject *code; int lasti; } place;
typedef struct { G *g; PyObject *on; int64_t since; uint8_t state, why; uint32_t first, n; } row;
typedef struct {
    row *rows; size_t n, room;
    place *places; size_t n_places, room_places;
    bool short_of_memory;
} picture;

static bool grow(void **p, size_t n, size_t *room, size_t size) {
    if (n < *room) return true;
    size_t more = *room ? *room * 2 : 64;
    void *q = mem_grow(*p, more * size);
    if (!q) return false;
    *p = q;
    *room = more;
    return true;
}

static bool note_place(picture *p, PyCodeObject *code, int lasti) {
    if (!grow((void **)&p->places, p->n_places, &p->room_places, sizeof *p->places)) return false;
    p->places[p->n_places++] = (place){ (PyCodeObject *)Py_NewRef(code), lasti };
    return true;
}

static bool note_frames(picture *p, row *r, pyframe *f) {
    int lasti;
    r->first = (uint32_t)p->n_places;
    for (PyCodeObject *code; r->n < MOST_FRAMES && (code = ps_read_frame(f, &lasti, &f)); r->n++)
        if (!note_place(p, code, lasti)) return false;
    return true;
}

static bool note_goroutine(G *g, worker *w, bool current, void *arg) {
    picture *p = arg;
    p->short_of_memory = true;
    if (!grow((void **)&p->rows, p->n, &p->room, sizeof *p->rows)) return false;
    row *r = &p->rows[p->n];
    *r = (row){ (G *)Py_NewRef((PyObject *)g), NULL, g->since, .state = (uint8_t)g_seen_state(g),
                .why = relaxed_load(&g->why) };
    p->n++;
    if (r->state == G_WAITING) r->on = Py_XNewRef(g->on);
    if (relaxed_load(&g->state) != G_NEW) {
        if (!note_frames(p, r, current ? ps_current_frame(w->ts) : g->ps.frame)) return false;
    }
    p->short_of_memory = false;
    return true;
}

static PyObject *tell_place(PyCodeObject *code, int lasti) {
    return Py_BuildValue("Oi", code, PyCode_Addr2Line(code, lasti));
}

static PyObject *tell_frames(const picture *p, const row *r) {
    PyObject *list = PyList_New(r->n);
    for (uint32_t i = 0; list && i < r->n; i++) {
        place at = p->places[r->first + i];
        PyObject *item = tell_place(at.code, at.lasti);
        if (!item) Py_CLEAR(list);
        else PyList_SET_ITEM(list, i, item);
    }
    return list;
}

static PyObject *tell_row(const picture *p, const row *r) {
    static const char *const states[] = { "runnable", "runnable", "running", "waiting", "dead" };
    G *g = r->g;
    PyObject *on = r->on ? PyObject_Repr(r->on) : PyUnicode_FromString("");
    PyObject *frames = on ? tell_frames(p, r) : NULL;
    PyObject *site = !frames ? NULL
                   : g->site ? tell_place(g->site->code, g->site->lasti)
                   : Py_NewRef(Py_None);
    const char *reason = r->state == G_WAITING ? wait_reason_names[r->why] : "";
    PyObject *result = NULL;
    if (site)
        result = Py_BuildValue("OssOdOOK", g, states[r->state], reason, on, (double)r->since * 1e-9,
                               frames, site, (unsigned long long)g->parent);
    Py_XDECREF(on);
    Py_XDECREF(frames);
    Py_XDECREF(site);
    return result;
}

static PyObject *py_origin(PyObject *module, PyObject *o) {
    if (!PyObject_TypeCheck(o, &Goroutine_Type)) {
        PyErr_Format(PyExc_TypeError, "a Goroutine is needed, not %.200s", Py_TYPE(o)->tp_name);
        return NULL;
    }
    G *g = (G *)o;
    if (!g->site) Py_RETURN_NONE;
    PyObject *place = tell_place(g->site->code, g->site->lasti);
    PyObject *result = place ? Py_BuildValue("OOK", PyTuple_GET_ITEM(place, 0), PyTuple_GET_ITEM(place, 1),
                                             (unsigned long long)g->parent) : NULL;
    Py_XDECREF(place);
    return result;
}

static PyObject *py_snapshot(PyObject *module, PyObject *unused) {
    if (!g_self()) return NULL;
    picture p = { 0 };
    sched_each(note_goroutine, &p);
    PyObject *list = p.short_of_memory ? PyErr_NoMemory() : PyList_New(0);
    for (size_t i = 0; list && i < p.n; i++) {
        PyObject *item = tell_row(&p, &p.rows[i]);
        if (!item || PyList_Append(list, item) < 0) Py_CLEAR(list);
        Py_XDECREF(item);
    }
    for (size_t i = 0; i < p.n_places; i++) Py_DECREF(p.places[i].code);
    for (size_t i = 0; i < p.n; i++) { Py_XDECREF(p.rows[i].on); Py_DECREF(p.rows[i].g); }
    mem_free(p.places);
    mem_free(p.rows);
    return list;
}

/* --- run() ----------------------------------------------------------------------------------------- */
static PyObject *py_begin_run(PyObject *module, PyObject *unused) {
    uint32_t outer;
    return sched_begin_run(&outer) < 0 ? NULL : PyLong_FromUnsignedLong(outer);
}

static PyObject *py_end_run(PyObject *module, PyObject *outer) {
    unsigned long n = PyLong_AsUnsignedLong(outer);
    if (n == (unsigned long)-1 && PyErr_Occurred()) return NULL;
    sched_end_run((uint32_t)n);
    Py_RETURN_NONE;
}

static PyObject *py_park_forever(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    G *g = g_self();
    if (!g) return NULL;
    for (;;) {
        if (g_wait_begin(g) < 0) return NULL;
        g->durable = true;
        if (g_wake_error(g, g_park(g, WHY_FOREVER, NULL)) < 0) return NULL;
    }
}

static PyObject *py_set_hooks(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"panic", "child_ended", "deadlock_notes", "swallows", "home", NULL};
    PyObject *panic, *child_ended, *notes, *swallows, *home;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$OOOOU:set_hooks", names, &panic, &child_ended, &notes,
                                     &swallows, &home)) return NULL;
    Py_XSETREF(rt.home, Py_NewRef(home));
    Py_XSETREF(py_panic_hook, Py_NewRef(panic));
    Py_XSETREF(py_child_ended_hook, Py_NewRef(child_ended));
    Py_XSETREF(rt.deadlock_notes, Py_NewRef(notes));
    Py_XSETREF(py_swallows_hook, Py_NewRef(swallows));
    Py_RETURN_NONE;
}

/* --- Ctrl-C ---------------------------------------------------------------------------------------- */
/* In place of Python's own handler: KeyboardInterrupt is for goroutine 1, and the handler runs in whichever
   goroutine the main thread is at.  That one steps aside, so that goroutine 1 has its turn also when
   nobody would wait. */
static PyObject *py_interrupted(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    G *g = g_self_quick();
    PyObject *exc = PyObject_CallNoArgs(PyExc_KeyboardInterrupt);
    if (!exc) return NULL;
    if (!g || !g->worker || g == rt.main) {
        ps_raise(exc);
        return NULL;
    }
    g_interrupt_main(exc);
    if (!g_collecting) g_step_aside(g);
    Py_RETURN_NONE;
}

static PyObject *interrupted;            /* the function above */
static PyObject *first_use_hook;         /* when_used */

static PyObject *py_when_used(PyObject *module, PyObject *fn) {
    PyObject *before = first_use_hook;
    first_use_hook = fn == Py_None ? NULL : Py_NewRef(fn);
    return before ? before : Py_NewRef(Py_None);
}

static int tell_of_first_use(void) {
    if (!first_use_hook) return 0;
    PyObject *r = PyObject_CallNoArgs(first_use_hook);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

static int attached(void) {
    PyObject *signal = PyImport_ImportModule("_signal"), *now = NULL, *usual = NULL, *done = NULL;
    if (!signal) return -1;
    now = PyObject_CallMethod(signal, "getsignal", "i", 2);
    usual = now ? PyObject_GetAttrString(signal, "default_int_handler") : NULL;
    done = !usual ? NULL : now != usual ? Py_NewRef(Py_None)
         : PyObject_CallMethod(signal, "signal", "iO", 2, interrupted);
    Py_DECREF(signal);
    Py_XDECREF(now);
    Py_XDECREF(usual);
    Py_XDECREF(done);
    return done ? tell_of_first_use() : -1;
}

/* --- the collector --------------------------------------------------------------------------------- */
/* gc.callbacks: whoever waited inside a collection would keep the collector from everybody.  Ours is the
   first callback that is told of a start, and the last that is told of an end. */
static PyObject *gc_callbacks, *gc_started, *gc_stopped;

static int keep_last(PyObject *list, PyObject *fn) {
    Py_ssize_t n = PyList_GET_SIZE(list);
    if (n && PyList_GET_ITEM(list, n - 1) == fn) return 0;
    Py_ssize_t i = PySequence_Index(list, fn);
    if (i < 0) PyErr_Clear();
    else if (PySequence_DelItem(list, i) < 0) return -1;
    return PyList_Append(list, fn);
}

static bool is_phase(PyObject *const *args, Py_ssize_t nargs, const char *phase) {
    return nargs && PyUnicode_Check(args[0]) && PyUnicode_CompareWithASCIIString(args[0], phase) == 0;
}

static PyObject *py_gc_started(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (!is_phase(args, nargs, "start")) Py_RETURN_NONE;
    g_collecting = true;
    if (keep_last(gc_callbacks, gc_stopped) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_gc_stopped(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (is_phase(args, nargs, "stop")) g_collecting = false;
    Py_RETURN_NONE;
}

/* --- the end --------------------------------------------------------------------------------------- */
static int exit_status;

static void exit_with_status(void) {
    fflush(NULL);
    _exit(exit_status);
}

static PyObject *py_set_exit_status(PyObject *module, PyObject *status) {
    long n = PyLong_AsLong(status);
    if (n == -1 && PyErr_Occurred()) return NULL;
    bool first = exit_status == 0;
    exit_status = (int)n;
    if (first && Py_AtExit(exit_with_status) < 0) {
        PyErr_SetString(PyExc_RuntimeError, "there are too many exit functions");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *py_exiting(PyObject *module, PyObject *unused) {
    sched_exit();
    Py_RETURN_NONE;
}

static PyObject *py_forked(PyObject *module, PyObject *unused) {
    sched_after_fork();
    patch_forget_waiters();
    patch_forget_files();
    patch_forget_fds();
    relaxed_store(&patch_forked, false);
    Py_RETURN_NONE;
}

/* --- the module ------------------------------------------------------------------------------------ */
static PyMethodDef functions[] = {
    {"gomaxprocs", FAST(py_gomaxprocs), METH_FASTCALL,
     "gomaxprocs($module, n=None, /)\n--\n\n"
     "How many workers may run goroutines at one time; n, if given, is the number from now on (at least\n"
     "1, ValueError), and the former one is returned. Under the GIL it is always 1; else at first the\n"
     "number of cores, or what the environment variable GOFER_MAXPROCS says. Does not wait: a worker too\n"
     "many finishes what it has started."},
    {"num_goroutine", py_num_goroutine, METH_NOARGS,
     "num_goroutine($module, /)\n--\n\nHow many goroutines there are, main included."},
    {"stats", py_stats, METH_NOARGS,
     "stats($module, /)\n--\n\n"
     "Counters since the start: goroutines (now), workers (now), switches, spawned, stolen, sleeps."},
    {"lock_os_thread", py_lock_os_thread, METH_NOARGS,
     "lock_os_thread($module, /)\n--\n\n"
     "Keep the thread of the calling goroutine to itself: no other goroutine starts on it until\n"
     "unlock_os_thread() was called as often as this, or the goroutine ends. For C libraries\n"
     "that tie something to a thread.\n\n"
     "What this goroutine starts, and whatever else has not started, starts on another worker; under the\n"
     "GIL too, where others then may run between any two bytecodes. A goroutine never leaves its thread,\n"
     "so those that had started there before still take their turns: lock it before anything else is\n"
     "started. The thread does not end with a goroutine that ends locked, as it would in Go; it is\n"
     "unlocked. The child of a fork is unlocked too. In a plain thread it does nothing. Does not wait.\n"
     "RuntimeError if the system has no thread for the others."},
    {"unlock_os_thread", py_unlock_os_thread, METH_NOARGS,
     "unlock_os_thread($module, /)\n--\n\n"
     "Take back one lock_os_thread(); nothing, as in Go, if there is none. Does not wait."},
    {"snapshot", py_snapshot, METH_NOARGS, NULL},
    {"begin_run", py_begin_run, METH_NOARGS, NULL},
    {"end_run", py_end_run, METH_O, NULL},
    {"park_forever", FAST(py_park_forever), METH_FASTCALL, NULL},
    {"origin", py_origin, METH_O, NULL},
    {"when_used", py_when_used, METH_O, NULL},
    {"set_hooks", FAST(py_set_hooks), METH_VARARGS | METH_KEYWORDS, NULL},
    {"set_exit_status", py_set_exit_status, METH_O, NULL},
    {NULL},
};

static PyMethodDef interrupted_def = {"interrupted", FAST(py_interrupted), METH_FASTCALL, NULL};
static PyMethodDef gc_started_def = {"gc_started", FAST(py_gc_started), METH_FASTCALL, NULL};
static PyMethodDef gc_stopped_def = {"gc_stopped", FAST(py_gc_stopped), METH_FASTCALL, NULL};
static PyMethodDef exiting_def = {"exiting", py_exiting, METH_NOARGS, NULL};
static PyMethodDef forked_def = {"forked", py_forked, METH_NOARGS, NULL};

/* module.method(function); 0, or -1 with an exception */
static int hand_to(const char *module, const char *method, PyMethodDef *def) {
    PyObject *m = PyImport_ImportModule(module), *fn = m ? PyCFunction_New(def, NULL) : NULL, *r = NULL;
    if (fn) r = PyObject_CallMethod(m, method, "O", fn);
    Py_XDECREF(m);
    Py_XDECREF(fn);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

static int watch_collector(void) {
    PyObject *gc = PyImport_ImportModule("gc");
    gc_callbacks = gc ? PyObject_GetAttrString(gc, "callbacks") : NULL;
    Py_XDECREF(gc);
    if (!gc_callbacks || !PyList_Check(gc_callbacks)) return -1;
    if (!(gc_started = PyCFunction_New(&gc_started_def, NULL))) return -1;
    if (!(gc_stopped = PyCFunction_New(&gc_stopped_def, NULL))) return -1;
    return PyList_Insert(gc_callbacks, 0, gc_started) < 0 ? -1 : PyList_Append(gc_callbacks, gc_stopped);
}

static int watch_forks(void) {
    PyObject *os = PyImport_ImportModule("os");
    PyObject *hook = os ? PyObject_GetAttrString(os, "register_at_fork") : NULL;
    PyObject *fn = hook ? PyCFunction_New(&forked_def, NULL) : NULL;
    PyObject *none = fn ? PyTuple_New(0) : NULL;
    PyObject *named = none ? Py_BuildValue("{sO}", "after_in_child", fn) : NULL;
    PyObject *r = named ? PyObject_Call(hook, none, named) : NULL;
    Py_XDECREF(os);
    Py_XDECREF(hook);
    Py_XDECREF(fn);
    Py_XDECREF(none);
    Py_XDECREF(named);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

/* GOFER_MAXPROCS, or the cores this process may use. */
static int first_procs(void) {
    if (!GOFER_FREE_THREADED) return 1;
    const char *wanted = Py_GETENV("GOFER_MAXPROCS");
    long n = wanted ? strtol(wanted, NULL, 10) : 0;
    return n > 0 ? (int)(n < INT16_MAX ? n : INT16_MAX) : sched_cores();
}

int py_runtime_add(PyObject *module) {
    g_hooks.attached = attached;
    interrupted = PyCFunction_New(&interrupted_def, NULL);
    if (!interrupted || PyModule_AddObjectRef(module, "interrupted", interrupted) < 0) return -1;
    if (PyModule_AddFunctions(module, functions) < 0 || watch_collector() < 0 || watch_forks() < 0
            || hand_to("atexit", "register", &exiting_def) < 0) return -1;
    sched_procs(first_procs());
    return 0;
}
