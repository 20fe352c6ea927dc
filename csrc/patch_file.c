/* Buffered files: io.BufferedReader, BufferedWriter and BufferedRandom.

   Such an object has a lock, which belongs to a thread; one that a thread wants and has already is an error.
   To two goroutines of one thread, of which one has parked in a read, that would be said wrongly.  So a
   goroutine makes the object its own before it calls what was there before, and who comes meanwhile waits.

   What must stay true:
   - A goroutine that calls what was there before does not find the lock taken: whoever may have it, or may
     wait for it, stands in the table here, threads too.
   - A goroutine that has the object may call it again, and is told what it was always told.
   - A record lies in the table while somebody has the object. */
#include "patch.h"

enum { BUCKETS = 256 };

typedef struct record {
    struct record *next;
    PyObject *on;
    G *owner;                    /* NULL: none, threads have it */
    uint32_t depth;              /* how often its owner has called it */
    uint32_t threads;            /* that have it or wait for its lock */
} record;
typedef struct bucket { lock_t lock; record *first, *spare; } bucket;
static bucket table[BUCKETS];

static bucket *bucket_of(PyObject *on) {
    uintptr_t a = (uintptr_t)on >> 4;
    return &table[(a ^ a >> 8) % BUCKETS];
}

/* Under the bucket's lock: where the pointer to its record is, or to NULL. */
static record **find(bucket *b, PyObject *on) {
    record **at = &b->first;
    while (*at && (*at)->on != on) at = &(*at)->next;
    return at;
}

/* --- having an object ------------------------------------------------------------------------------ */
enum entered { NOT_NOW, ENTERED, NO_RECORD };

/* For a goroutine, if nobody else has it; g is NULL for a thread, which waits for its lock then.  A new
   record is the spare one of the bucket, if there is one. */
static enum entered enter(PyObject *on, G *g) {
    bucket *b = bucket_of(on);
    lock_acquire(&b->lock);
    record **at = find(b, on), *r = *at;
    enum entered result = r && g && r->owner != g ? NOT_NOW : !r && !b->spare ? NO_RECORD : ENTERED;
    if (result == ENTERED && !r) {
        *at = r = b->spare;
        b->spare = NULL;
        *r = (record){ NULL, on, g, 0, 0 };
    }
    if (result == ENTERED && g) r->depth++;
    else if (result == ENTERED) r->threads++;
    lock_release(&b->lock);
    return result;
}

/* Puts by what is not needed now; what is too much is freed. */
static void put_by(bucket *b, record *r) {
    lock_acquire(&b->lock);
    if (!b->spare) { b->spare = r; r = NULL; }
    lock_release(&b->lock);
    mem_free(r);
}

/* 1, 0 not now, -1 with an exception. */
static int make_own(PyObject *on, G *g) {
    for (;;) {
        enum entered result = enter(on, g);
        if (result != NO_RECORD) return result == ENTERED;
        record *r = mem_alloc(sizeof *r);
        if (!r) { PyErr_NoMemory(); return -1; }
        put_by(bucket_of(on), r);
    }
}

static void leave(PyObject *on, G *g) {
    bucket *b = bucket_of(on);
    lock_acquire(&b->lock);
    record **at = find(b, on), *r = *at;
    if (r && g && --r->depth == 0) r->owner = NULL;
    else if (r && !g) r->threads--;
    bool last = r && !r->owner && !r->threads;   /* in the child of a fork there is none */
    if (last) *at = r->next;
    lock_release(&b->lock);
    if (!last) return;
    put_by(b, r);
    patch_freed(on);
}

static int take(want *w) { return make_own(w->on, g_worker->cur); }

static bool may_take(PyObject *on) {
    bucket *b = bucket_of(on);
    lock_acquire(&b->lock);
    bool free = !*find(b, on);
    lock_release(&b->lock);
    return free;
}

void patch_forget_files(void) { memset(table, 0, sizeof table); }

/* 0, or -1 with an exception. */
static int have(PyObject *on, const call *c, G *g) {
    want w = { on, c, WHY_LOCK, take, may_take };
    return (g ? patch_wait(g, &w, NEVER) : make_own(on, NULL)) < 0 ? -1 : 0;
}

PyObject *patch_file(const call *c) {
    G *g = patch_caller();
    PyObject *on = c->self;
    if (have(on, c, g) < 0) return NULL;
    PyObject *result = patch_as_before(c);
    leave(on, g);
    return result;
}

/* --- iterating over one ---------------------------------------------------------------------------- */
static iternextfunc next_before;

static PyObject *next_line(PyObject *on) {
    G *g = patch_caller();
    if (have(on, NULL, g) < 0) return NULL;
    PyObject *result = next_before(on);
    leave(on, g);
    return result;
}

void patch_lines(PyTypeObject *type, bool on) {
    if (on && !next_before) next_before = type->tp_iternext;
    if (type->tp_iternext == (on ? next_before : next_line)) type->tp_iternext = on ? next_line : next_before;
}
