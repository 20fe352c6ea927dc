/* Slices of the thread's C stack, data-stack chunks, and the pool behind both.

   A slice is what a parked goroutine used of its worker's C stack: [sp, base), copied to a heap buffer
   when it parks and back to the same addresses when it goes on.

        goroutine A parked            B runs                       A goes on
        heap: [A's slice]             heap: [A's slice]            heap: [B's slice]
        base ---------------          base ---------------         base ---------------
             (B's frames)                  B's frames                   A's frames, at
                                           ...                          the addresses they had

   What must stay true:
   - A slice whose goroutine's stack lies above the base (main, the host of a worker) is empty.
   - Copying runs on the worker's auxiliary stack, never on the stack that it overwrites.
   - Room for a slice is found before the switch (stack_reserve), so that a switch can not fail.
   - Every pool belongs to one worker and is touched by its thread alone. */
#ifndef GOFER_STACK_H
#define GOFER_STACK_H

#include "base.h"
#include "switch.h"
#include "pystate.h"

typedef struct slice {
    char *sp;                  /* where to go on; NULL before the start */
    char *buffer;
    uint32_t room, size;       /* of the buffer; of the slice in it */
} slice;

enum {
    SLICE_STEP = 16, SLICE_CLASSES = 256,  /* buffers below 4 KB are pooled by size class */
    MALLOC_HEAD = 8,                       /* what malloc adds: with it a buffer fills a step */
    CHUNK_PAYLOAD = 1008,                  /* what a goroutine's first data-stack chunk holds */
    POOL_KEEP = 4096,                      /* at most so many of each are kept */
    SMALL_CHUNK = offsetof(_PyStackChunk, data) + CHUNK_PAYLOAD,
    ARENA_BLOCK = 16384,                   /* CPython's own chunk */
};

typedef struct pool {
    _PyStackChunk *chunks;
    void *buffers[SLICE_CLASSES];
    void *arena;                           /* 16 KB blocks */
    uint32_t n_chunks, n_arena, n_buffers[SLICE_CLASSES];
} pool;

/* Recycles CPython's 16 KB chunks on this thread through `p` from now on (NULL: no more). */
void pool_use(pool *p);
/* Puts our filter before CPython's arena allocator; once, at import. */
void pool_install(void);
void pool_clear(pool *p);

/* NULL when memory is short: the goroutine then starts without a chunk (see ps_start). */
_PyStackChunk *chunk_take(pool *p);
/* Frees what a goroutine that ended left as its root chunk, ours or CPython's. */
void chunk_drop(pool *p, _PyStackChunk *c);
static inline bool chunk_is_ours(const _PyStackChunk *c) {
    return c->size == SMALL_CHUNK;
}

/* The auxiliary stack: NULL when it can not be had; its end otherwise. */
char *stack_aux_new(void);
void stack_aux_free(char *end);

/* Makes room for all of the stack from the caller's frame up to base; false when memory is short. */
bool stack_reserve(pool *p, slice *s, const char *base, const char *sp);
void stack_release(pool *p, slice *s);
/* Both run on the auxiliary stack. */
void stack_save(slice *s, pystate *ps, char *base, char *sp);
void stack_restore(slice *s, pystate *ps);

#endif
