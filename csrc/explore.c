/* Schedules under control.

   While a bubble is explored, its goroutines stay on the worker on which that began, and at each point where
   they could switch (an operation that waits or could have, the start or the end of one, a traced line) the
   next one is chosen from all that can run.  So a run of a program depends on the choices alone, and can be
   had again.

   The choice by priority is the one of Burckhardt, Kothari, Musuvathi, Nagarakatte, "A Randomized Scheduler
   with Probabilistic Guarantees of Finding Bugs" (ASPLOS 2010): of n goroutines and k choices, a bug that
   needs d of them in a certain order is found with a probability of at least 1 / (n * k^(d-1)).  The bound on
   how often one that could go on has to wait is that of Musuvathi and Qadeer, "Iterative Context Bounding"
   (PLDI 2007).

   What must stay true:
   - Who can run is looked at in the order of the goroutines' ids, so that a number means the same one again.
   - choose() runs in the middle of a park, as g_hooks.find does.
   - One that yields of its own accord is not chosen while another can run, of the bubble or not: it waits for
     somebody.
   - One exploration is under way at a time.  It belongs to the worker ex.w; others look at `busy` only. */
#include "explore.h"
#include "scope.h"

enum { MAX_DEPTH = 16 };

typedef struct { uint64_t id; uint32_t priority; } rank;

static struct {
    worker *w;
    bubble *b;
    explore_plan plan;
    explore_result result;
    size_t room;
    uint32_t waits;              /* FIRST: how often one that could go on had to wait */
    uint32_t changes[MAX_DEPTH]; /* PCT: at which choices the running one falls behind */
    rank *ranks;
    size_t n_ranks, ranks_room;
    uint32_t lowest;             /* counts down from the priorities of `changes` */
    G **can_run;
    size_t n_can_run, can_run_room;
    G *yields;
    size_t in_vain;              /* yields while nobody else could run */
    uint64_t rng, rng_before;
} ex;
static word_t busy;              /* there is one */

static bool grow(void *array, size_t n, size_t *room, size_t size) {
    if (n < *room) return true;
    size_t more = *room ? 2 * *room : 64;
    void *p = mem_grow(*(void **)array, more * size);
    if (!p) { ex.result.short_of_memory = true; return false; }
    *(void **)array = p;
    *room = more;
    return true;
}

/* --- who can run ----------------------------------------------------------------------------------- */
static void note(G *g) {
    if (!g || g->bubble != ex.b->id) return;
    if (!grow(&ex.can_run, ex.n_can_run, &ex.can_run_room, sizeof *ex.can_run)) return;
    size_t at = ex.n_can_run++;
    for (; at && ex.can_run[at - 1]->id > g->id; at--) ex.can_run[at] = ex.can_run[at - 1];
    ex.can_run[at] = g;
}

static void look_who_can_run(worker *w) {
    ex.n_can_run = 0;
    if (relaxed_load(&w->inbox)) g_drain(w);
    note(w->next);
    for (G *g = w->ready.head; g; g = g->next) note(g);
    lock_acquire(&w->fresh_lock);
    for (G *g = w->fresh.head; g; g = g->next) note(g);
    lock_release(&w->fresh_lock);
}

static size_t place_of(G *g) {
    size_t i = 0;
    while (i < ex.n_can_run && ex.can_run[i] != g) i++;
    return i;
}

static void leave_out(size_t i) {
    ex.n_can_run--;
    memmove(ex.can_run + i, ex.can_run + i + 1, (ex.n_can_run - i) * sizeof *ex.can_run);
}

/* --- by priority ----------------------------------------------------------------------------------- */
static rank *rank_of(const G *g) {
    for (size_t i = 0; i < ex.n_ranks; i++)
        if (ex.ranks[i].id == g->id) return &ex.ranks[i];
    if (!grow(&ex.ranks, ex.n_ranks, &ex.ranks_room, sizeof *ex.ranks)) return NULL;
    rank *r = &ex.ranks[ex.n_ranks++];
    *r = (rank){ g->id, MAX_DEPTH + UINT32_MAX / 2 + rng_next(&ex.rng) / 4 };
    return r;
}

static void fall_behind(const G *g) {
    rank *r = rank_of(g);
    if (r && ex.lowest) r->priority = --ex.lowest;
}

static size_t highest(void) {
    size_t best = 0;
    uint32_t most = 0;
    for (size_t i = 0; i < ex.n_can_run; i++) {
        rank *r = rank_of(ex.can_run[i]);
        if (r && r->priority >= most) { most = r->priority; best = i; }
    }
    return best;
}

static size_t by_priority(void) {
    for (uint32_t i = 0; i + 1 < ex.plan.depth; i++)
        if (ex.changes[i] == ex.result.n) fall_behind(ex.can_run[highest()]);
    return highest();
}

/* --- choosing -------------------------------------------------------------------------------------- */
/* What the prefix says, or else. */
static size_t as_told(size_t of, size_t otherwise) {
    size_t k = ex.result.n < ex.plan.n_prefix ? ex.plan.prefix[ex.result.n] : otherwise;
    return k < of ? k : 0;
}

static size_t by_plan(size_t current) {
    if (ex.plan.mode == EXPLORE_PCT) return by_priority();
    if (ex.plan.mode == EXPLORE_RANDOM) return rng_below(&ex.rng, (uint32_t)ex.n_can_run);
    return as_told(ex.n_can_run, current);
}

static void check_steps(void) {
    if (ex.result.overran || ex.result.n + ex.in_vain <= ex.plan.max_choices) return;
    ex.result.overran = true;
    scope_cancel(&ex.b->scope);
}

static void remember(size_t of, size_t chosen) {
    if (ex.result.overran) return;
    if (!grow(&ex.result.choices, ex.result.n, &ex.room, sizeof *ex.result.choices)) return;
    ex.result.choices[ex.result.n++] = (explore_choice){ (uint16_t)of, (uint16_t)chosen };
    check_steps();
}

/* Under the locks of the channels of a select. */
static uint32_t chooses(uint32_t n) {
    if (ex.plan.mode != EXPLORE_FIRST) return rng_below(&ex.rng, n);
    size_t chosen = as_told(n, 0);
    remember(n, chosen);
    return (uint32_t)chosen;
}

static G *choose(worker *w) {
    look_who_can_run(w);
    size_t yielding = place_of(ex.yields);
    if (ex.yields && yielding < ex.n_can_run) {
        if (ex.n_can_run == 1) {
            ex.in_vain++;
            check_steps();
        } else if (ex.plan.mode == EXPLORE_PCT) fall_behind(ex.yields);
        leave_out(yielding);
    }
    ex.yields = NULL;
    if (!ex.n_can_run) return NULL;          /* others than the bubble's may have a turn */
    size_t current = place_of(w->cur), chosen = current;
    bool goes_on = current < ex.n_can_run;
    bool settled = goes_on && ex.plan.mode == EXPLORE_FIRST && ex.waits >= ex.plan.bound;
    if (ex.n_can_run == 1) chosen = 0;
    else if (!settled) {
        chosen = by_plan(current);
        remember(ex.n_can_run, chosen);
    }
    G *g = ex.can_run[chosen];
    if (goes_on && g != w->cur) ex.waits++;
    g_unqueue(w, g);
    return g;
}

static void yields(G *g) {
    if (g->worker && relaxed_load(&g->worker->choose)) ex.yields = g;
}

int explore_point(void) {
    worker *w = g_worker;
    if (!w || !relaxed_load(&w->choose) || w->cur->bubble != ex.b->id) return 0;
    g_could_switch();
    if (!ex.result.overran) return 0;
    PyErr_SetNone(rt.errors.cancelled);
    return -1;
}

/* Seeds that follow each other are to have nothing in common (splitmix64). */
static uint64_t spread(uint64_t x) {
    x += 0x9E3779B97F4A7C15;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return (x ^ x >> 31) | 1;
}

/* --- beginning and ending -------------------------------------------------------------------------- */
int explore_begin(const explore_plan *plan) {
    G *g = g_self();
    if (!g) return -1;
    const char *why = !g->worker ? "this is a plain thread: begin it in a goroutine"
                    : !g->bubble ? "the caller is in no bubble"
                    : !word_move(&busy, 0, 1) ? "another one is under way: they come one after the other"
                    : NULL;
    if (why) {
        PyErr_Format(PyExc_RuntimeError, "explore: %s", why);
        return -1;
    }
    memset(&ex, 0, sizeof ex);
    ex.w = g->worker;
    ex.b = (bubble *)Py_NewRef((PyObject *)g->scope->bubble);
    ex.plan = *plan;
    if (ex.plan.depth > MAX_DEPTH) ex.plan.depth = MAX_DEPTH;
    ex.rng = spread(plan->seed);
    ex.lowest = MAX_DEPTH + UINT32_MAX / 2;
    for (uint32_t i = 0; i + 1 < ex.plan.depth; i++)
        ex.changes[i] = rng_below(&ex.rng, plan->length ? plan->length : 1);
    ex.rng_before = ex.w->rng;
    ex.w->rng = spread(~plan->seed);         /* whatever else is left to chance */
    relaxed_store(&ex.w->choose, choose);
    relaxed_store(&g_exploring, true);
    return 0;
}

explore_result explore_end(void) {
    explore_result result = ex.result;
    relaxed_store(&g_exploring, false);
    relaxed_store(&ex.w->choose, NULL);
    ex.w->rng = ex.rng_before;
    mem_free(ex.plan.prefix);
    mem_free(ex.ranks);
    mem_free(ex.can_run);
    Py_DECREF(ex.b);
    atomic_store(&busy, 0);
    return result;
}

void explore_init(void) {
    g_hooks.yields = yields;
    g_hooks.chooses = chooses;
}
