/* What the files of the goroutine's room share: g.c, g_new.c and g_pending.c.  The contract with the other
   rooms is g.h. */
#ifndef GOFER_G_PARTS_H
#define GOFER_G_PARTS_H

#include "g.h"

/* --- g.c: ------------------------------------------------------------------------------------------ */
/* As the goroutine that runs on w: drops those that have ended.  May run Python code. */
void g_tidy(worker *w);

/* --- g_new.c: -------------------------------------------------------------------------------------- */
/* Gives up the function and its arguments; nothing, when that has been done.  May run Python code. */
void g_drop_call(G *g);

/* --- g_pending.c: ---------------------------------------------------------------------------------- */
/* What is pending, but for an end that it holds off. */
static inline uint8_t g_due(G *g) {
    uint8_t bits = atomic_load(&g->pending);
    return g->holds_end ? bits & (uint8_t)~P_KILL : bits;
}
/* Raises what is due; 0 when that is nothing. */
int g_pending_error(G *g);
/* Asks once more for the interrupt of goroutine 1, which may be running. */
void g_interrupt_again(void);
/* It is about to get its GoroutineExit in another way, or ends: the next goroutine must not get it. */
void g_exit_now(worker *w);
/* -1 with the exception for a goroutine that would wait inside the collector. */
int g_refuse_collector(void);

#endif
