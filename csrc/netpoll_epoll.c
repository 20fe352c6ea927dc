/* netpoll.h on Linux: an epoll with an eventfd for a bell. */
#define _GNU_SOURCE
#include "netpoll.h"
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { EVENTS = 64 };

struct poller {
    int epoll, bell;
    bool no_pwait2;              /* the kernel is older than 5.11: milliseconds must do */
    sigset_t before;             /* signal mask while signals are held back */
    sigset_t all;
    int n;                       /* of `events`, which the last wait found */
    fd_event events[EVENTS];
};

static const uint64_t BELL = UINT64_MAX;

poller *netpoll_new(void) {
    poller *p = mem_calloc(sizeof *p);
    if (!p) { PyErr_NoMemory(); return NULL; }
    sigfillset(&p->all);
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event e = { .events = EPOLLIN, .data.u64 = BELL };
    if (p->epoll >= 0 && p->bell >= 0 && epoll_ctl(p->epoll, EPOLL_CTL_ADD, p->bell, &e) == 0) return p;
    PyErr_SetFromErrno(PyExc_OSError);
    netpoll_free(p);
    return NULL;
}

void netpoll_free(poller *p) {
    if (p->epoll >= 0) close(p->epoll);
    if (p->bell >= 0) close(p->bell);
    mem_free(p);
}

void netpoll_ring(poller *p) {
    uint64_t one = 1;
    while (write(p->bell, &one, sizeof one) < 0 && errno == EINTR) {}
}

void netpoll_block(poller *p) {
    pthread_sigmask(SIG_BLOCK, &p->all, &p->before);
}

void netpoll_unblock(poller *p) { pthread_sigmask(SIG_SETMASK, &p->before, NULL); }

int netpoll_arm(poller *p, int fd, uint8_t events, uint32_t serial, bool *anew) {
    struct epoll_event e = { .events = EPOLLONESHOT, .data.u64 = (uint64_t)serial << 32 | (uint32_t)fd };
    if (events & FD_READ) e.events |= EPOLLIN;
    if (events & FD_WRITE) e.events |= EPOLLOUT;
    if (events & FD_URGENT) e.events |= EPOLLPRI;
    for (;;) {
        if (epoll_ctl(p->epoll, EPOLL_CTL_MOD, fd, &e) == 0) return 0;
        if (errno != ENOENT) return errno;
        *anew = true;
        if (epoll_ctl(p->epoll, EPOLL_CTL_ADD, fd, &e) == 0) return 0;
        if (errno != EEXIST) return errno;       /* else the number has become that of a file known before */
    }
}

/* --- waiting --------------------------------------------------------------------------------------- */
static int wait_ns(poller *p, struct epoll_event *e, int64_t ns, const sigset_t *mask) {
    if (ns == 0) return epoll_wait(p->epoll, e, EVENTS, 0);
    if (!p->no_pwait2) {
        struct timespec t = { ns / 1000000000, ns % 1000000000 };
        int n = epoll_pwait2(p->epoll, e, EVENTS, ns == NEVER ? NULL : &t, mask);
        if (n >= 0 || errno != ENOSYS) return n;
        p->no_pwait2 = true;
    }
    int64_t ms = ns == NEVER ? -1 : (ns + 999999) / 1000000;
    return epoll_pwait(p->epoll, e, EVENTS, ms > INT32_MAX ? INT32_MAX : (int)ms, mask);
}

static uint8_t what_is_ready(uint32_t events) {
    return (events & EPOLLIN ? FD_READ : 0) | (events & EPOLLOUT ? FD_WRITE : 0)
        | (events & EPOLLPRI ? FD_URGENT : 0) | (events & (EPOLLERR | EPOLLHUP) ? FD_BROKEN : 0);
}

/* Whether the bell was among them; the others are noted. */
static bool sort_out(poller *p, const struct epoll_event *e, int n) {
    bool rang = false;
    p->n = 0;
    for (int i = 0; i < n; i++) {
        if (e[i].data.u64 == BELL) { rang = true; continue; }
        p->events[p->n++] = (fd_event){ (int)(uint32_t)e[i].data.u64, (uint32_t)(e[i].data.u64 >> 32),
                                        what_is_ready(e[i].events) };
    }
    if (!rang) return false;
    uint64_t rings;
    ssize_t ignored = read(p->bell, &rings, sizeof rings);
    (void)ignored;
    return true;
}

enum poll_result netpoll_wait(poller *p, int64_t when, bool signals) {
    struct epoll_event e[EVENTS];
    int64_t ns = when;
    if (when != NEVER && when != 0 && (ns = when - clock_ns()) < 0) ns = 0;
    int n = wait_ns(p, e, ns, signals ? &p->before : &p->all);
    int error = errno;
    if (signals) netpoll_unblock(p);
    bool rang = sort_out(p, e, n);
    if (n < 0) return error == EINTR ? POLL_SIGNAL : POLL_TIMEOUT;
    return rang ? POLL_BELL : n ? POLL_READY : POLL_TIMEOUT;
}

const fd_event *netpoll_events(poller *p, int *n) {
    *n = p->n;
    p->n = 0;
    return p->events;
}
