/* Locks, words that race, lists and memory: what every room of the core stands on.

   Under the GIL a lock is nothing and a racing word is a plain byte: whoever runs our C code holds the
   GIL, and no code between lock_acquire and lock_release may let go of it.  On a free-threaded build a
   lock is a PyMutex.  In both builds the same rule keeps us honest:

     while a lock is held, nothing may run Python code, drop a reference that could be the last one, or
     reach a safepoint of the collector.  */
#ifndef GOFER_BASE_H
#define GOFER_BASE_H

#define Py_BUILD_CORE_MODULE 1      /* CPython's internal headers, as its own extension modules see them */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define NOINLINE __attribute__((noinline))
#define TLS static __thread __attribute__((tls_model("initial-exec")))

/* --- locks ----------------------------------------------------------------------------------------- */
#ifdef Py_GIL_DISABLED
#  define GOFER_FREE_THREADED 1
typedef PyMutex lock_t;
static inline void lock_acquire(lock_t *l) { PyMutex_Lock(l); }
static inline void lock_release(lock_t *l) { PyMutex_Unlock(l); }
static inline void lock_reset(lock_t *l) { memset(l, 0, sizeof *l); }   /* in the child of a fork */
#else
#  define GOFER_FREE_THREADED 0
typedef struct { char none[0]; } lock_t;
static inline void lock_acquire(lock_t *l) { (void)l; }
static inline void lock_release(lock_t *l) { (void)l; }
static inline void lock_reset(lock_t *l) { (void)l; }
#endif

#ifndef Py_BEGIN_CRITICAL_SECTION          /* CPython has these from 3.13 on */
#  define Py_BEGIN_CRITICAL_SECTION(o) {
#  define Py_END_CRITICAL_SECTION() }
#endif

/* --- words that several threads change ------------------------------------------------------------- */
typedef _Atomic(uint8_t) word_t;

#define relaxed_load(p) atomic_load_explicit(p, memory_order_relaxed)
#define relaxed_store(p, v) atomic_store_explicit(p, v, memory_order_relaxed)

/* A number that one thread changes and others may read: as quick as one that nobody else reads. */
#define relaxed_add(p, n) relaxed_store(p, relaxed_load(p) + (n))

static inline void word_publish(word_t *p, uint8_t v) {
#if GOFER_FREE_THREADED
    atomic_store(p, v);              /* ordered before the reads that follow, as sleep and wake need */
#else
    relaxed_store(p, v);
#endif
}

/* Changes *p from `from` to `to`; false when it held something else. */
static inline bool word_move(word_t *p, uint8_t from, uint8_t to) {
#if GOFER_FREE_THREADED
    return atomic_compare_exchange_strong(p, &from, to);
#else
    if (relaxed_load(p) != from) return false;
    relaxed_store(p, to);
    return true;
#endif
}

static inline void word_set_bits(word_t *p, uint8_t bits) { atomic_fetch_or(p, bits); }
static inline void word_clear_bits(word_t *p, uint8_t bits) { atomic_fetch_and(p, (uint8_t)~bits); }

/* --- a doubly linked ring; a node alone points at itself ------------------------------------------- */
typedef struct node { struct node *next, *prev; } node;

static inline void ring_init(node *n) { n->next = n->prev = n; }
static inline bool ring_alone(const node *n) { return n->next == n; }
static inline void ring_insert_before(node *at, node *n) {
    n->next = at; n->prev = at->prev; at->prev->next = n; at->prev = n;
}
static inline void ring_remove(node *n) {
    n->prev->next = n->next; n->next->prev = n->prev;
}

/* --- memory: the raw domain, so that fault injection reaches every allocation of ours -------------- */
static inline void *mem_alloc(size_t n) { return PyMem_RawMalloc(n); }
static inline void *mem_calloc(size_t n) { return PyMem_RawCalloc(1, n); }
static inline void *mem_grow(void *p, size_t n) { return PyMem_RawRealloc(p, n); }
static inline void mem_free(void *p) { PyMem_RawFree(p); }

/* --- for tp_dealloc -------------------------------------------------------------------------------- */
/* Another thread may be dropping the last of them. */
static inline void clear_weakrefs(PyObject *o, PyObject **list) {
    if (UNLIKELY(relaxed_load((_Atomic(PyObject *) *)list) != NULL)) PyObject_ClearWeakRefs(o);
}

/* --- the monotonic clock, in nanoseconds ----------------------------------------------------------- */
static inline int64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
/* The same to some milliseconds, at a quarter of the price. */
static inline int64_t clock_coarse_ns(void) {
#ifdef CLOCK_MONOTONIC_COARSE
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
#else
    return clock_ns();
#endif
}
#define NEVER INT64_MAX

/* Between two looks at a word that another processor will change. */
static inline void cpu_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("yield");
#endif
}

/* xorshift64*: good enough to be fair between ready cases and victims */
static inline uint32_t rng_next(uint64_t *s) {
    uint64_t x = *s;
    x ^= x >> 12; x ^= x << 25; x ^= x >> 27;
    *s = x;
    return (uint32_t)((x * 0x2545F4914F6CDD1DULL) >> 32);
}
static inline uint32_t rng_below(uint64_t *s, uint32_t n) {
    return (uint32_t)(((uint64_t)rng_next(s) * n) >> 32);
}

/* The hostile build (meson -Dhostile=true) does at every legal point what usually happens rarely. */
#ifdef GOFER_HOSTILE
#  define HOSTILE 1
#else
#  define HOSTILE 0
#endif
#define POISON 0xDB

#endif
