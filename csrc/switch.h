/* Leaving one C stack position and going on at another: the only assembly of the project, one .S a
   processor (switch_x86_64.S, switch_aarch64.S).

   switch_call(arg, aux, fn)
       pushes the callee-saved registers, moves to the auxiliary stack that ends at `aux`, and calls
       fn(arg, sp), sp being the stack pointer it left.  fn returns the stack pointer to go on from:
       one that an earlier switch_call handed to its fn, or one that switch_start made.  switch_call
       returns when somebody goes on from the sp it handed out.

   switch_start(base, entry, control)
       writes at the top of the stack that ends at `base` what switch_call expects to find, so that
       going on from the returned sp calls entry() with an aligned, fresh stack.  entry must not return.
       `control` is what switch_control returned at a time when nobody had changed how this thread
       rounds: whoever was left may have.

   A parked stack, low addresses on top:

         sp ->  saved registers                    SWITCH_FRAME bytes with the return address
                return address into switch_call's caller
                frames of the goroutine ...
       base ->  (the first byte above)

   Both processors: the stack pointer handed out is SWITCH_FRAME below the caller's at the call. */
#ifndef GOFER_SWITCH_H
#define GOFER_SWITCH_H

#include <stdint.h>

typedef char *(*switch_fn)(void *arg, char *sp);

__attribute__((visibility("hidden")))
void gofer_switch_call(void *arg, char *aux, switch_fn fn);
__attribute__((visibility("hidden")))
void gofer_switch_enter(void);          /* first return address of a fresh stack: calls the entry */

#define switch_call gofer_switch_call

#if defined(__x86_64__)
enum { SWITCH_FRAME = 8 * 8 };          /* mxcsr and x87 word, 6 registers, return address */

static inline char *switch_sp(void) {
    char *sp;
    __asm__ volatile("movq %%rsp, %0" : "=r"(sp));
    return sp;
}

static inline uint64_t switch_control(void) {
    uint32_t mxcsr; uint16_t fpu;
    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(fpu));
    return mxcsr | ((uint64_t)fpu << 32);
}

static inline char *switch_start(char *base, void (*entry)(void), uint64_t control) {
    uintptr_t *p = (uintptr_t *)((uintptr_t)base & ~(uintptr_t)15);
    *--p = 0; *--p = 0;                  /* keeps the stack aligned; a zero return address ends unwinding */
    *--p = (uintptr_t)gofer_switch_enter;
    *--p = 0;                            /* rbp */
    *--p = (uintptr_t)entry;             /* rbx */
    for (int i = 0; i < 4; i++) *--p = 0;    /* r12 to r15 */
    *--p = control;
    return (char *)p;
}

#elif defined(__aarch64__)
enum { SWITCH_FRAME = 22 * 8 };         /* x19 to x30, d8 to d15, fpcr, a word of padding */

static inline char *switch_sp(void) {
    char *sp;
    __asm__ volatile("mov %0, sp" : "=r"(sp));
    return sp;
}

static inline uint64_t switch_control(void) {
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
}

static inline char *switch_start(char *base, void (*entry)(void), uint64_t control) {
    uintptr_t *p = (uintptr_t *)((uintptr_t)base & ~(uintptr_t)15) - 22;
    for (int i = 0; i < 22; i++) p[i] = 0;
    p[0] = (uintptr_t)entry;             /* x19 */
    p[11] = (uintptr_t)gofer_switch_enter;   /* x30, the link register */
    p[20] = control;
    return (char *)p;
}

#else
#  error "gofer supports x86-64 and aarch64 only"
#endif

/* ThreadSanitizer notes every call and return of a thread on a stack of its own, which a switch would leave
   out of step until it overflows.  So who leaves takes along how deep it was, and who goes on restores that;
   a fresh stack begins at 0.  Reports are right but for one thing: of a goroutine that was parked, the frames
   that it had then may bear the names of others. */
#if defined(__SANITIZE_THREAD__)
#  define SWITCH_TSAN 1
#elif defined(__has_feature)
#  if __has_feature(thread_sanitizer)
#    define SWITCH_TSAN 1
#  endif
#endif

#ifdef SWITCH_TSAN
#  include <stddef.h>
void __tsan_func_entry(void *pc);
void __tsan_func_exit(void);
size_t __tsan_testonly_shadow_stack_current_size(void);

#  define INSIDE static inline __attribute__((always_inline))     /* a call would be noted itself */
INSIDE size_t switch_depth(void) { return __tsan_testonly_shadow_stack_current_size(); }
INSIDE void switch_restore_depth(size_t depth) {
    size_t now = switch_depth();
    for (; now > depth; now--) __tsan_func_exit();
    for (; now < depth; now++) __tsan_func_entry(__builtin_return_address(0));
}
#else
#  define switch_depth() 0
#  define switch_restore_depth(depth) ((void)(depth))
#endif

#endif
