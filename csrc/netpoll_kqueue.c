/* netpoll.h on macOS: a kqueue with a user event for a bell, and one event a signal, since kevent can not
   change the signal mask while it waits. */
#include "netpoll.h"
#include <errno.h>
#include <signal.h>
#include <sys/event.h>
#include <sys/time.h>
#include <unistd.h>

enum { BELL = 1, EVENTS = 64 };

struct poller {
    int queue;
    sigset_t before;             /* signal mask while signals are held back */
    int n;                       /* of `events`, which the last wait found */
    fd_event events[EVENTS];
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

/* What was asked for before and is not wanted now may still come: with an old serial, or as one more that
   is ready. */
int netpoll_arm(poller *p, int fd, uint8_t events, uint32_t serial, bool *anew) {
    (void)anew;                  /* a kqueue does not tell */
    struct kevent e[2];
    int n = 0;
    void *data = (void *)(uintptr_t)serial;
    if (events & (FD_READ | FD_URGENT)) {
        EV_SET(&e[n], fd, EVFILT_READ, EV_ADD | EV_ONESHOT, 0, 0, data);
        n++;
    }
    if (events & FD_WRITE) {
        EV_SET(&e[n], fd, EVFILT_WRITE, EV_ADD | EV_ONESHOT, 0, 0, data);
        n++;
    }
    return kevent(p->queue, e, n, NULL, 0, NULL) < 0 ? errno : 0;
}

static uint8_t what_is_ready(const struct kevent *e) {
    uint8_t ready = e->filter == EVFILT_WRITE ? FD_WRITE : FD_READ;
    if (e->flags & EV_OOBAND) ready |= FD_URGENT;
    return e->flags & (EV_EOF | EV_ERROR) ? ready | FD_BROKEN : ready;
}

enum poll_result netpoll_wait(poller *p, int64_t when, bool signals) {
    struct kevent e[EVENTS];
    struct timespec t, *limit = NULL;
    enum poll_result result = POLL_TIMEOUT;
    if (signals) netpoll_unblock(p);
    if (when != NEVER) {
        int64_t ns = when ? when - clock_ns() : 0;
        if (ns < 0) ns = 0;
        t = (struct timespec){ ns / 1000000000, ns % 1000000000 };
        limit = &t;
    }
    int n = kevent(p->queue, NULL, 0, e, EVENTS, limit);
    p->n = 0;
    if (n < 0) return errno == EINTR ? POLL_SIGNAL : POLL_TIMEOUT;
    for (int i = 0; i < n; i++) {
        if (e[i].filter == EVFILT_SIGNAL) result = POLL_SIGNAL;
        else if (e[i].filter == EVFILT_USER) { if (result != POLL_SIGNAL) result = POLL_BELL; }
        else {
            uint32_t serial = (uint32_t)(uintptr_t)e[i].udata;
            p->events[p->n++] = (fd_event){ (int)e[i].ident, serial, what_is_ready(&e[i]) };
            if (result == POLL_TIMEOUT) result = POLL_READY;
        }
    }
    return result;
}

const fd_event *netpoll_events(poller *p, int *n) {
    *n = p->n;
    p->n = 0;
    return p->events;
}
