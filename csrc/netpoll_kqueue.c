/* netpoll.h on macOS: a kqueue with a user event for a bell, and one event a signal, since kevent can not
   change the signal mask while it waits. */
#include "netpoll.h"
#include <errno.h>
#include <signal.h>
#include <sys/event.h>
#include <sys/time.h>
#include <unistd.h>

enum { BELL = 1 };

struct poller {
    int queue;
    sigset_t before;             /* signal mask while signals are held back */
};

static int change(poller *p, uintptr_t what, int16_t filter, uint16_t flags, uint32_t more) {
    struct kevent e;
    EV_SET(&e, what, filter, flags, more, 0, NULL);
    return kevent(p->queue, &e, 1, NULL, 0, NULL);
}

poller *netpoll_new(void) {
    poller *p = mem_calloc(sizeof *p);
    if (!p) { PyErr_NoMemory(); return NULL; }
    p->queue = kqueue();
    if (p->queue >= 0 && change(p, BELL, EVFILT_USER, EV_ADD | EV_CLEAR, 0) == 0) return p;
    PyErr_SetFromErrno(PyExc_OSError);
    netpoll_free(p);
    return NULL;
}

void netpoll_free(poller *p) {
    if (p->queue >= 0) close(p->queue);
    mem_free(p);
}

void netpoll_ring(poller *p) { change(p, BELL, EVFILT_USER, 0, NOTE_TRIGGER); }

/* EVFILT_SIGNAL records deliveries, also of signals whose handler runs before kevent: those are forgotten
   here, and every one after this ends the wait. */
void netpoll_block(poller *p) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &p->before);
    for (int s = 1; s < NSIG; s++) change(p, (uintptr_t)s, EVFILT_SIGNAL, EV_ADD | EV_CLEAR, 0);
}

void netpoll_unblock(poller *p) { pthread_sigmask(SIG_SETMASK, &p->before, NULL); }

enum poll_result netpoll_wait(poller *p, int64_t when, bool signals) {
    struct kevent e;
    struct timespec t, *limit = NULL;
    if (signals) netpoll_unblock(p);
    if (when != NEVER) {
        int64_t ns = when - clock_ns();
        if (ns < 0) ns = 0;
        t = (struct timespec){ ns / 1000000000, ns % 1000000000 };
        limit = &t;
    }
    int n = kevent(p->queue, NULL, 0, &e, 1, limit);
    if (n < 0) return errno == EINTR ? POLL_SIGNAL : POLL_TIMEOUT;
    if (n == 0) return POLL_TIMEOUT;
    return e.filter == EVFILT_SIGNAL ? POLL_SIGNAL : POLL_BELL;
}
