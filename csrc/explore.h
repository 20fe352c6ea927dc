/* Schedules under control: who runs next in a bubble is chosen here.  See explore.c. */
#ifndef GOFER_EXPLORE_H
#define GOFER_EXPLORE_H

#include "base.h"
#include "g.h"

enum explore_mode {
    EXPLORE_RANDOM,              /* any of those that can run, each as likely */
    EXPLORE_PCT,                 /* the one of the highest priority; priorities change `depth` - 1 times */
    EXPLORE_FIRST,               /* whoever runs goes on as long as it can; else the oldest */
};

typedef struct explore_plan {
    enum explore_mode mode;
    uint64_t seed;
    uint32_t depth, length;      /* PCT: and how many choices to expect */
    uint32_t bound;              /* FIRST: how often one that could go on may be made to wait */
    size_t max_choices;          /* more than these, or yields in vain, are a livelock */
    uint16_t *prefix;            /* FIRST: what to choose first; owned */
    size_t n_prefix;
} explore_plan;

typedef struct explore_choice { uint16_t of, chosen; } explore_choice;

typedef struct explore_result {
    explore_choice *choices;     /* those where there was one; the caller frees them */
    size_t n;
    bool overran, short_of_memory;
} explore_result;

/* Supplies g_hooks.yields and chooses. */
void explore_init(void);
/* From here on, of the goroutines of the caller's bubble one at a time runs, and the plan says which; the
   plan is taken over.  -1 with RuntimeError when one is under way, or the caller is in no bubble or on no
   worker. */
int explore_begin(const explore_plan *plan);
/* By who began it, on the same worker. */
explore_result explore_end(void);
/* Before a line: here another one may go on.  -1 with Cancelled when there have been too many choices. */
int explore_point(void);

#endif
