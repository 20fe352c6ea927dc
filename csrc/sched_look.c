/* Looking at workers and goroutines: how many there are, and each of them while the world stands still. */
#define _GNU_SOURCE
#include "sched_table.h"
#include <sched.h>
#include <unistd.h>

int sched_cores(void) {
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

sched_stats sched_count(void) {
    sched_stats s = { .goroutines = gqueue_len(&sched.shared) };
    for (int i = 0; i < n_workers(); i++) {
        worker *w = sched.all[i];
        if (!w) continue;
        s.workers += relaxed_load(&w->stop) != 2;
        s.goroutines += relaxed_load(&w->alive);
        s.switches += relaxed_load(&w->switches);
        s.spawned += relaxed_load(&w->spawned);
        s.stolen += relaxed_load(&w->stolen);
        s.sleeps += relaxed_load(&w->sleeps);
    }
    return s;
}

static bool each_in_queue(gqueue *q, worker *w, sched_each_fn fn, void *arg) {
    for (G *g = q->head; g; g = g->next)
        if (!fn(g, w, false, arg)) return false;
    return true;
}

static bool each_of_worker(worker *w, sched_each_fn fn, void *arg) {
    for (node *x = w->all.next; x != &w->all; x = x->next) {
        G *g = (G *)((char *)x - offsetof(G, all));
        if (g_is_dead(g) || (g->kind == KIND_HOST && g != rt.main)) continue;
        if (!fn(g, w, g == w->cur, arg)) return false;
    }
    return each_in_queue(&w->hand, w, fn, arg) && each_in_queue(&w->fresh, w, fn, arg);
}

typedef struct { sched_each_fn fn; void *arg; } each_order;

static void each(void *arg) {
    each_order *e = arg;
    bool on = each_in_queue(&sched.shared, NULL, e->fn, e->arg);
    for (int i = 0; i < n_workers() && on; i++)
        if (sched.all[i]) on = each_of_worker(sched.all[i], e->fn, e->arg);
}

void sched_each(sched_each_fn fn, void *arg) {
    each_order e = { fn, arg };
    ps_in_stopped_world(each, &e);
}

typedef struct { void (*fn)(worker *, void *); void *arg; } worker_order;

static void each_worker(void *arg) {
    worker_order *o = arg;
    for (int i = 0; i < n_workers(); i++)
        if (live_worker(i)) o->fn(sched.all[i], o->arg);
}

void sched_each_worker(void (*fn)(worker *, void *), void *arg) {
    worker_order o = { fn, arg };
    ps_in_stopped_world(each_worker, &o);
}

typedef struct { visitproc visit; void *arg; int result; } visitor;

static bool visit_one(G *g, worker *w, bool current, void *arg) {
    visitor *v = arg;
    (void)w;
    if (g->args) v->result = ps_visit_fn(&g->fn, v->visit, v->arg);
    if (!v->result && !current && relaxed_load(&g->state) != G_NEW)
        v->result = ps_visit(&g->ps, v->visit, v->arg);
    return v->result == 0;
}

int sched_visit(visitproc visit, void *arg) {
    visitor v = { visit, arg, 0 };
    each_order e = { visit_one, &v };
    each(&e);                                    /* the collector has stopped the world already */
    return v.result;
}
