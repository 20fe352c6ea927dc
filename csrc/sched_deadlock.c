/* Deadlock: nobody is left who could wake anybody.

   What must stay true:
   - It is declared by a worker about to sleep, under sched.lock, when every worker sleeps, no queue holds
     anything, no timer is armed, nobody waits for a descriptor, no foreign thread that has used the library
     lives, no other Python thread lives that a program would wait for at its end, and goroutine 1 waits.
   - It looks at one worker after the other; meanwhile one that it has not reached yet could wake one that it
     has passed, and fall asleep in time.  So if anybody fell asleep meanwhile, it leaves the question to that
     one.
   - A thread may wake somebody and then count no more: it has ended, or has begun and is a daemon.  So the
     workers are looked at after the threads; before them only because that is cheaper.
   - It happens in the middle of a goroutine's park: what sched.c says of looking for work holds here. */
#include "sched_table.h"
#include <unistd.h>

static bool is_ours(long ident) {
    for (int i = 0; i < n_workers(); i++) {
        worker *w = live_worker(i);
        if (w && (long)w->ident == ident) return true;
    }
    return false;
}

static bool dict_tells_of_threads(PyObject *active) {
    PyObject *key, *thread;
    Py_ssize_t at = 0;
    bool found = false;
    Py_BEGIN_CRITICAL_SECTION(active);
    while (!found && PyDict_Next(active, &at, &key, &thread)) {
        unsigned long ident = PyLong_Check(key) ? PyLong_AsUnsignedLong(key) : 0;
        if (ident & 1 || is_ours((long)ident)) continue;         /* odd: a goroutine's, see patch_thread.c */
        PyObject *daemon = PyObject_GetAttrString(thread, "_daemonic");
        found = daemon != Py_True;
        Py_XDECREF(daemon);
        PyErr_Clear();
    }
    Py_END_CRITICAL_SECTION();
    return found;
}

/* A thread of the program that does not end with it: it might wake somebody.  Reads two dictionaries of the
   module threading; runs nothing of it. */
static bool other_threads(void) {
    PyObject *modules = PyImport_GetModuleDict();        /* borrowed, as all of these */
    PyObject *threading = modules ? PyDict_GetItemString(modules, "threading") : NULL;
    PyObject *names = threading && PyModule_Check(threading) ? PyModule_GetDict(threading) : NULL;
    if (!names) return false;
    PyObject *starting = PyDict_GetItemString(names, "_limbo");
    PyObject *active = PyDict_GetItemString(names, "_active");
    if (starting && PyDict_Check(starting) && PyDict_GET_SIZE(starting)) return true;
    return active && PyDict_Check(active) && dict_tells_of_threads(active);
}

static bool all_quiet(void) {
    if (sched.shared.n || atomic_load(&sched.threads) || atomic_load(&sched.calls)) return false;
    for (int i = 0; i < n_workers(); i++) {
        worker *w = sched.all[i];
        if (HOSTILE) usleep(20);                 /* the others need not wait for us */
        if (!w || relaxed_load(&w->stop) == 2) continue;
        if (atomic_load(&w->sleeping) != 1 || atomic_load(&w->inbox) || gqueue_len(&w->fresh)) return false;
        if (atomic_load(&w->timers->first) != NEVER || fds_in_use(w->fds)) return false;
    }
    worker *k = atomic_load(&sched.keeper);
    return !k || (atomic_load(&k->sleeping) == 1 && atomic_load(&k->timers->first) == NEVER);
}

static bool is_of_ours(PyThreadState *ts) {
    worker *k = atomic_load(&sched.keeper);
    if (k && k->ts == ts) return true;
    for (int i = 0; i < n_workers(); i++) {
        worker *w = live_worker(i);
        if (w && w->ts == ts) return true;
    }
    return false;
}

/* Somebody waits for a lock of CPython's, and any thread may free it, also one that has not begun. */
static bool threads_outside(void) {
    return atomic_load(&sched.outside) && ps_other_threads(is_of_ours) > atomic_load(&sched.resting);
}

static bool nobody_is_up(void) {
    lock_acquire(&sched.lock);
    uint32_t before = atomic_load(&sched.fallen_asleep);
    bool quiet = rt.main && all_quiet() && atomic_load(&sched.fallen_asleep) == before;
    lock_release(&sched.lock);
    return quiet;
}

enum verdict check_deadlock(void) {
    if (!nobody_is_up()) return BUSY;
    if (other_threads() || threads_outside()) return PERHAPS;
    if (!nobody_is_up() || !g_claim(rt.main, W_DEADLOCK)) return BUSY;
    g_ready(rt.main);
    return DEADLOCK;
}
