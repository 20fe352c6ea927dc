/* netpoll.h on Linux: an epoll with an eventfd for a bell. */
#define _GNU_SOURCE
#include "netpoll.h"
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct poller {
    int epoll, bell;
    bool no_pwait2;              /* the kernel is older than 5.11: milliseconds must do */
    sigset_t before;             /* signal mask while signals are held back */
    sigset_t all;
};

poller *netpoll_new(void) {
    poller *p = mem_calloc(sizeof *p);
    if (!p) { PyErr_NoMemory(); return NULL; }
    sigfillset(&p->all);
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event e = { .events = EPOLLIN };
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

static int wait_ns(poller *p, struct epoll_event *e, int64_t ns, const sigset_t *mask) {
    if (!p->no_pwait2) {
        struct timespec t = { ns / 1000000000, ns % 1000000000 };
        int n = epoll_pwait2(p->epoll, e, 1, ns == NEVER ? NULL : &t, mask);
        if (n >= 0 || errno != ENOSYS) return n;
        p->no_pwait2 = true;
    }
    int64_t ms = ns == NEVER ? -1 : (ns + 999999) / 1000000;
    return epoll_pwait(p->epoll, e, 1, ms > INT32_MAX ? INT32_MAX : (int)ms, mask);
}

enum poll_result netpoll_wait(poller *p, int64_t when, bool signals) {
    struct epoll_event e;
    int64_t ns = NEVER;
    if (when != NEVER && (ns = when - clock_ns()) < 0) ns = 0;
    int n = wait_ns(p, &e, ns, signals ? &p->before : &p->all);
    int error = errno;
    if (signals) netpoll_unblock(p);
    if (n < 0) return error == EINTR ? POLL_SIGNAL : POLL_TIMEOUT;
    if (n == 0) return POLL_TIMEOUT;
    uint64_t rings;
    ssize_t ignored = read(p->bell, &rings, sizeof rings);
    (void)ignored;
    return POLL_BELL;
}
