/* See stack.h. */
#include "stack.h"
#include <sys/mman.h>

/* --- pools of equal blocks, linked through their first word ---------------------------------------- */
static void *block_pop(void **list, uint32_t *n) {
    void *b = *list;
    if (b) { *list = *(void **)b; --*n; }
    return b;
}

static bool block_push(void **list, uint32_t *n, void *b) {
    if (*n >= POOL_KEEP) return false;
    *(void **)b = *list;
    *list = b;
    ++*n;
    return true;
}

static void poison(void *p, size_t n) {
    if (HOSTILE) memset(p, POISON, n);
}

/* --- data-stack chunks ----------------------------------------------------------------------------- */
_PyStackChunk *chunk_take(pool *p) {
    _PyStackChunk *c = p->chunks;
    if (LIKELY(c != NULL)) {
        p->chunks = c->previous;
        p->n_chunks--;
    } else {
        c = mem_alloc(SMALL_CHUNK);
        if (!c) return NULL;
        c->size = SMALL_CHUNK;
    }
    c->previous = NULL;
    c->top = 0;
    return c;
}

void chunk_drop(pool *p, _PyStackChunk *c) {
    if (!chunk_is_ours(c)) {
        PyObjectArenaAllocator a;
        PyObject_GetArenaAllocator(&a);
        a.free(a.ctx, c, c->size);
        return;
    }
    poison(c->data, CHUNK_PAYLOAD);
    if (p->n_chunks >= POOL_KEEP) { mem_free(c); return; }
    c->previous = p->chunks;
    p->chunks = c;
    p->n_chunks++;
}

/* --- the arena allocator --------------------------------------------------------------------------- */
/* A call that crosses the end of the small chunk makes CPython map 16 KB, and unmap it when it returns:
   7 us each time.  Blocks of that size are kept instead, by the worker that runs on this thread.
   When C code ends the program in a goroutine, its small chunk comes here as well: CPython frees what the
   thread state has then, and takes it for one of its own. */
static PyObjectArenaAllocator arena_below;
TLS pool *arena_pool;

static void *arena_alloc(void *ctx, size_t n) {
    if (n == ARENA_BLOCK && arena_pool) {
        void *b = block_pop(&arena_pool->arena, &arena_pool->n_arena);
        if (b) return b;
    }
    return arena_below.alloc(arena_below.ctx, n);
}

static void arena_free(void *ctx, void *b, size_t n) {
    if (UNLIKELY(n == SMALL_CHUNK)) { mem_free(b); return; }
    if (n == ARENA_BLOCK && arena_pool && b) {
        poison(b, n);
        if (block_push(&arena_pool->arena, &arena_pool->n_arena, b)) return;
    }
    arena_below.free(arena_below.ctx, b, n);
}

void pool_install(void) {
    PyObject_GetArenaAllocator(&arena_below);
    PyObjectArenaAllocator ours = { NULL, arena_alloc, arena_free };
    PyObject_SetArenaAllocator(&ours);
}

void pool_use(pool *p) { arena_pool = p; }

void pool_clear(pool *p) {
    void *b;
    for (_PyStackChunk *c; (c = p->chunks); mem_free(c)) p->chunks = c->previous;
    for (int i = 0; i < SLICE_CLASSES; i++)
        while ((b = block_pop(&p->buffers[i], &p->n_buffers[i]))) mem_free(b);
    while ((b = block_pop(&p->arena, &p->n_arena))) arena_below.free(arena_below.ctx, b, ARENA_BLOCK);
    p->n_chunks = 0;
}

/* --- the auxiliary stack --------------------------------------------------------------------------- */
enum { AUX_SIZE = 64 * 1024 };

char *stack_aux_new(void) {
    char *p = mmap(NULL, AUX_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p + AUX_SIZE;
}

void stack_aux_free(char *end) { munmap(end - AUX_SIZE, AUX_SIZE); }

/* --- slices ---------------------------------------------------------------------------------------- */
void stack_release(pool *p, slice *s) {
    if (!s->room) return;
    poison(s->buffer, s->room);
    uint32_t class = (s->room + MALLOC_HEAD) / SLICE_STEP;
    if (class >= SLICE_CLASSES || !block_push(&p->buffers[class], &p->n_buffers[class], s->buffer))
        mem_free(s->buffer);
    s->buffer = NULL;
    s->room = 0;
}

static NOINLINE bool buffer_change(pool *p, slice *s, size_t need) {
    uint32_t class = (uint32_t)((need + MALLOC_HEAD + SLICE_STEP - 1) / SLICE_STEP);
    char *b = class < SLICE_CLASSES ? block_pop(&p->buffers[class], &p->n_buffers[class]) : NULL;
    if (!b && !(b = mem_alloc((size_t)class * SLICE_STEP - MALLOC_HEAD))) return false;
    stack_release(p, s);
    s->buffer = b;
    s->room = class * SLICE_STEP - MALLOC_HEAD;
    return true;
}

/* The switch itself will push SWITCH_FRAME bytes below the stack pointer that the caller has now. */
bool stack_reserve(pool *p, slice *s, const char *base, const char *sp) {
    ptrdiff_t need = base - sp + SWITCH_FRAME;
    if (need <= 0) return true;
    if (LIKELY((size_t)need <= s->room && (size_t)need + 512 >= s->room)) return true;
    return buffer_change(p, s, (size_t)need) || (size_t)need <= s->room;
}

void stack_save(slice *s, pystate *ps, char *base, char *sp) {
    s->sp = sp;
    s->size = 0;
    if (sp >= base) return;
    size_t n = s->size = (uint32_t)(base - sp);
    memcpy(s->buffer, sp, n);
    ps_shift(ps, sp, s->buffer, n, s->buffer);
    poison(sp, n);
}

void stack_restore(slice *s, pystate *ps) {
    if (!s->size) return;
    ps_shift(ps, s->buffer, s->sp, s->size, s->buffer);
    memcpy(s->sp, s->buffer, s->size);
}
