/* Making and unmaking goroutines: the objects, what they own, and where they were started.

   What must stay true:
   - From `next` on a new one is zero: so are those in a worker's free list, which is its own.
   - A Task is an object of the collector and is never kept for later.  It is tracked when it has ended
     (finish_call in g.c): what it holds before counts as held from outside.
   - The function and its arguments belong to it until it ends.  Others may ask for its name meanwhile, so
     they go under g->lock, and the name is kept before if anybody is there to ask.
   - A site is a worker's own and is never freed: goroutines that outlive their worker refer to it. */
#include "g_parts.h"

enum {
    ID_BLOCK = 64,
    BASE_GAP = 16 * 1024,  /* main parks in about the same depth as it was found: nothing to copy */
};

/* --- numbers --------------------------------------------------------------------------------------- */
static uint64_t new_id(worker *w) {
    if (!w) return atomic_fetch_add(&rt.ids, 1) + 1;
    if (UNLIKELY(w->next_id == w->last_id)) {
        w->next_id = atomic_fetch_add(&rt.ids, ID_BLOCK) + 1;
        w->last_id = w->next_id + ID_BLOCK;
    }
    return w->next_id++;
}

/* --- where a go statement stands ------------------------------------------------------------------- */
static bool is_ours(PyCodeObject *code) {
    return rt.home && PyUnicode_Tailmatch(code->co_filename, rt.home, 0, PY_SSIZE_T_MAX, -1) == 1;
}

static NOINLINE const site *site_find(worker *w, PyCodeObject *code, int lasti) {
    site *s;
    for (s = w->sites; s; s = s->next)
        if (s->code == code && s->lasti == lasti) return s;
    if (!(s = mem_alloc(sizeof *s))) return NULL;
    *s = (site){ (PyCodeObject *)Py_NewRef(code), lasti, is_ours(code), w->sites };
    return w->sites = s;
}

static inline bool is_site(const site *s, PyCodeObject *code, int lasti) {
    return LIKELY(s && s->code == code && s->lasti == lasti);
}

const site *g_site_here(worker *w) {
    int lasti;
    pyframe *f = ps_current_frame(w->ts);
    for (PyCodeObject *code; (code = ps_read_frame(f, &lasti, &f)); ) {
        if (is_site(w->last_site, code, lasti)) return w->last_site;
        const site *s = is_site(w->last_ours, code, lasti) ? w->last_ours : site_find(w, code, lasti);
        if (!s || !s->ours) return w->last_site = s;
        w->last_ours = s;
    }
    return NULL;
}

/* --- making and unmaking --------------------------------------------------------------------------- */
static void init_references(G *g) {
#ifdef Py_GIL_DISABLED
    /* Goroutines end on other threads than they were made on.  Counting them without an owner from the
       start is one atomic operation each; giving the reference back to its owner is a queue. */
    g->ob_base.ob_tid = 0;
    g->ob_base.ob_ref_local = 0;
    g->ob_base.ob_ref_shared = _Py_REF_SHARED(1, _Py_REF_MERGED);
#else
    (void)g;
#endif
}

static G *g_alloc(worker *w, enum g_kind kind) {
    G *g;
    if (kind == KIND_TASK) {
        if (!(g = PyObject_GC_New(G, &Task_Type))) return NULL;
        memset((char *)g + offsetof(G, next), 0, sizeof *g - offsetof(G, next));
    } else if (w && LIKELY((g = w->free) != NULL)) {
        w->free = g->next;
        w->n_free--;
        PyObject_Init((PyObject *)g, &Goroutine_Type);
    } else {
        if (!(g = PyObject_Malloc(sizeof *g))) { PyErr_NoMemory(); return NULL; }
        PyObject_Init((PyObject *)g, &Goroutine_Type);
        memset((char *)g + offsetof(G, next), 0, sizeof *g - offsetof(G, next));
    }
    init_references(g);
    g->kind = (uint8_t)kind;
    relaxed_store(&g->state, G_NEW);
    g->w.g = g;
    waitq_init(&g->joiners);
    return g;
}

/* tp_dealloc of Goroutine and Task, after their own fields: it is dead, or was never queued. */
void g_free(G *g) {
    worker *w = g_worker;
    if (g->kind == KIND_TASK) { PyObject_GC_Del(g); return; }
    if (!w || w->n_free >= POOL_KEEP) { PyObject_Free(g); return; }
    if (HOSTILE) memset((char *)g + offsetof(G, next), POISON, sizeof *g - offsetof(G, next));
    memset((char *)g + offsetof(G, next), 0, sizeof *g - offsetof(G, next));
    g->next = w->free;
    w->free = g;
    w->n_free++;
}

void g_drop_call(G *g) {
    if (!g->args) return;
    PyObject **args = g->args;
    Py_ssize_t n = g->nargs + (g->kwnames ? PyTuple_GET_SIZE(g->kwnames) : 0);
    fnref fn = g->fn;
    bool known = UNLIKELY(Py_REFCNT(g) > 1);         /* somebody may be asking for its name */
    if (known) lock_acquire(&g->lock);
    g->args = NULL;
    if (known) lock_release(&g->lock);
    for (Py_ssize_t i = 0; i < n; i++) Py_DECREF(args[i]);
    fnref_close(fn);
    Py_CLEAR(g->kwnames);
    if (args != g->inline_args + 1) mem_free(args - 1);
}

void g_keep_name(G *g) {
    if (!g->args) return;
    PyObject *fn = fnref_get(g->fn);
    if (PyMethod_Check(fn)) fn = PyMethod_GET_FUNCTION(fn);
    if (!PyFunction_Check(fn)) return;
    lock_acquire(&g->lock);
    if (!g->name) g->name = Py_NewRef(((PyFunctionObject *)fn)->func_qualname);
    lock_release(&g->lock);
}

G *g_new(enum g_kind kind, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    G *self = g_self();
    if (!self) return NULL;
    worker *w = g_worker;
    G *g = g_alloc(w, kind);
    if (!g) return NULL;
    PyObject *fn = args[0];
    Py_ssize_t n = nargs - 1 + (kwnames ? PyTuple_GET_SIZE(kwnames) : 0);
    PyObject **copy = g->inline_args + 1;
    if (UNLIKELY(n > ARGS_INLINE)) {
        copy = mem_alloc((size_t)(n + 1) * sizeof *copy);
        if (!copy) { Py_DECREF(g); PyErr_NoMemory(); return NULL; }
        copy++;
    }
    for (Py_ssize_t i = 0; i < n; i++) copy[i] = Py_NewRef(args[1 + i]);
    g->args = copy;
    g->nargs = (uint32_t)(nargs - 1);
    g->kwnames = Py_XNewRef(kwnames);
    g->fn = fnref_new(fn);
    PyThreadState *ts = w ? w->ts : PyThreadState_Get();
    if (UNLIKELY(ts->context != NULL) && !(g->ps.context = PyContext_CopyCurrent())) {
        Py_DECREF(g);
        return NULL;
    }
    g->id = new_id(w);
    g->parent = self->id;
    g->run = g_is_foreign(self) ? rt.run : self->run;
    if (w) {
        g->site = g_site_here(w);
        if (UNLIKELY(relaxed_load(&self->pending) & P_KILL)) relaxed_store(&g->pending, P_KILL);
    }
    return g;
}

/* tp_dealloc's first half: what a goroutine still owns. */
void g_clear(G *g) {
    clear_weakrefs((PyObject *)g, &g->weakrefs);
    if (UNLIKELY(g->scope != NULL)) g_hooks.left(g);
    g_drop_call(g);
    Py_CLEAR(g->ps.context);
    ps_drop_locals(&g->ps);
    Py_CLEAR(g->at_end_arg);
    Py_CLEAR(g->name);
    Py_CLEAR(g->result);
    Py_CLEAR(g->exception);
    if (g->thread) { PyThread_free_lock(g->thread); g->thread = NULL; }
}

void g_discard(G *g) { Py_DECREF(g); }

/* --- threads --------------------------------------------------------------------------------------- */
G *g_thread_new(void) {
    G *g = g_alloc(NULL, KIND_THREAD);
    if (!g) return NULL;
    g->id = new_id(NULL);
    relaxed_store(&g->state, G_RUNNING);
    g->thread = PyThread_allocate_lock();
    if (!g->thread) { Py_DECREF(g); PyErr_NoMemory(); return NULL; }
    PyThread_acquire_lock(g->thread, 1);
    return g;
}

/* --- the thread's own stack as a goroutine --------------------------------------------------------- */
NOINLINE int g_adopt_thread(worker *w) {
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    G *g = g_alloc(NULL, KIND_HOST);
    if (!g) return -1;
    w->ts = PyThreadState_Get();
    w->ident = PyThread_get_thread_ident();
    w->base = (char *)((here - BASE_GAP) & ~(uintptr_t)63);
    w->c_depth = ps_c_depth(w->ts);
    w->control = switch_control();
    g->worker = w;
    relaxed_store(&g->state, G_RUNNING);
    ring_insert_before(&w->all, &g->all);
    w->host = w->cur = g;
    g_worker = w;
    pool_use(&w->pool);
    return 0;
}
