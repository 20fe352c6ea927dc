/* Goroutines that wait for signals: signal.sigwait and its kin, and signal.pause.

   A signal that the program blocks is taken from the kernel, which tells by a descriptor when it is there.
   One that it does not block would run its handler, in whichever thread: for as long as somebody waits for
   it, ours stands in its place, gives the signal to the first who takes it, and runs the other if there is
   nobody.

   Who waits has a watch.  Its state goes from FREE to OPEN and back by who waits; from OPEN to TAKING to
   GIVEN by the handler; from GIVEN to FREE by who waits.

   What must stay true:
   - The handler touches only atomics, `info` of a watch that it has moved to TAKING, and descriptors that
     are never closed.  It may run in any thread, also while another thread is in here.
   - No signal is lost: one that nobody could take, and that has no handler, is sent once more when ours has
     gone. */
#include "patch.h"
#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { WATCHES = 64, SIGNALS = 65 };
enum { FREE, OPEN, TAKING, GIVEN };

typedef struct watch {
    _Atomic(int) state;
    _Atomic(uint64_t) mask;
    _Atomic(bool) takes;         /* or only hears of it */
    _Atomic(int) fd;             /* readable when there is something; 0: not made yet */
    siginfo_t info;
} watch;
static watch watches[WATCHES];

typedef struct handler_of {
    int users;
    struct sigaction before;     /* set while there are any */
    _Atomic(bool) missed;
} handler_of;
static handler_of handlers[SIGNALS];
static lock_t lock;              /* who waits, against each other */

static uint64_t bit(int sig) { return (uint64_t)1 << (sig - 1); }

/* --- the handler ----------------------------------------------------------------------------------- */
static void ring(int fd) {
    uint64_t one = 1;
    ssize_t ignored = write(fd, &one, sizeof one);
    (void)ignored;
}

static bool give(watch *w, int sig, const siginfo_t *info) {
    int open = OPEN;
    if (!(atomic_load(&w->mask) & bit(sig)) || !atomic_load(&w->takes)) return false;
    if (!atomic_compare_exchange_strong(&w->state, &open, TAKING)) return false;
    w->info = *info;
    atomic_store(&w->state, GIVEN);
    ring(atomic_load(&w->fd));
    return true;
}

static void tell(watch *w, int sig) {
    if (atomic_load(&w->mask) & bit(sig) && !atomic_load(&w->takes) && atomic_load(&w->state) == OPEN)
        ring(atomic_load(&w->fd));
}

static void run_before(int sig, siginfo_t *info, void *context) {
    const struct sigaction *before = &handlers[sig].before;
    if (before->sa_flags & SA_SIGINFO) before->sa_sigaction(sig, info, context);
    else if (before->sa_handler == SIG_DFL) atomic_store(&handlers[sig].missed, true);
    else if (before->sa_handler != SIG_IGN) before->sa_handler(sig);
}

static void handle(int sig, siginfo_t *info, void *context) {
    int error = errno;
    bool taken = false;
    for (watch *w = watches; !taken && w < watches + WATCHES; w++) taken = give(w, sig, info);
    if (!taken) {
        for (watch *w = watches; w < watches + WATCHES; w++) tell(w, sig);
        run_before(sig, info, context);
    }
    errno = error;
}

static bool is_ours(const struct sigaction *a) {
    return a->sa_flags & SA_SIGINFO && a->sa_sigaction == handle;
}

/* Signals that can not be handled, or come from what the thread itself does, are left alone. */
static void put_handler(int sig) {
    handler_of *h = &handlers[sig];
    if (sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL || h->users++) return;
    struct sigaction ours = { .sa_sigaction = handle }, *before = &h->before;
    sigemptyset(&ours.sa_mask);
    if (sigaction(sig, NULL, before) < 0) return;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | (before->sa_flags & SA_RESTART);
    if (!(before->sa_flags & SA_SIGINFO) && (before->sa_handler == SIG_DFL || before->sa_handler == SIG_IGN))
        ours.sa_flags |= SA_RESTART;
    sigaction(sig, &ours, NULL);
}

/* Whether the signal must be sent once more. */
static bool take_handler_away(int sig) {
    struct sigaction now;
    if (!handlers[sig].users || --handlers[sig].users) return false;
    if (sigaction(sig, NULL, &now) == 0 && is_ours(&now)) sigaction(sig, &handlers[sig].before, NULL);
    return atomic_exchange(&handlers[sig].missed, false);
}

/* --- who waits ------------------------------------------------------------------------------------- */
static watch *free_watch(void) {
    for (watch *w = watches; w < watches + WATCHES; w++)
        if (atomic_load(&w->state) == FREE) return w;
    return NULL;
}

/* Its descriptor, with nothing to read; -1: there are no more of them. */
static int descriptor_of(watch *w) {
    uint64_t n;
    int fd = atomic_load(&w->fd);
    if (!fd) {
        if ((fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0) atomic_store(&w->fd, fd);
        return fd;
    }
    ssize_t ignored = read(fd, &n, sizeof n);
    (void)ignored;
    return fd;
}

static void open_watch(watch *w, uint64_t mask, bool takes) {
    atomic_store(&w->mask, mask);
    atomic_store(&w->takes, takes);
    atomic_store(&w->state, OPEN);
    for (int sig = 1; sig < SIGNALS; sig++) {
        if (!(mask & bit(sig))) continue;
        put_handler(sig);
        if (takes && atomic_exchange(&handlers[sig].missed, false)) kill(getpid(), sig);
    }
}

int patch_signals_begin(uint64_t mask, bool takes, int *fd) {
    lock_acquire(&lock);
    watch *w = free_watch();
    *fd = w ? descriptor_of(w) : -1;
    if (*fd >= 0) open_watch(w, mask, takes);
    lock_release(&lock);
    if (*fd >= 0) return (int)(w - watches);
    if (w) PyErr_SetFromErrno(PyExc_OSError);
    else PyErr_Format(PyExc_RuntimeError, "%d goroutines wait for signals already: have one wait for all of "
                      "them, and tell the others by a channel", WATCHES);
    return -1;
}

bool patch_signals_end(int index, siginfo_t *info) {
    watch *w = &watches[index];
    int open = OPEN;
    uint64_t again = 0;
    lock_acquire(&lock);
    bool given = !atomic_compare_exchange_strong(&w->state, &open, FREE);
    while (given && atomic_load(&w->state) != GIVEN) {}      /* another thread is about to */
    if (given) *info = w->info;
    uint64_t mask = atomic_load(&w->mask);
    for (int sig = 1; sig < SIGNALS; sig++)
        if (mask & bit(sig) && take_handler_away(sig)) again |= bit(sig);
    atomic_store(&w->state, FREE);
    lock_release(&lock);
    for (int sig = 1; sig < SIGNALS; sig++)
        if (again & bit(sig)) kill(getpid(), sig);
    return given;
}

int patch_signal_fd(uint64_t mask) {
    sigset_t set;
    sigemptyset(&set);
    for (int sig = 1; sig < SIGNALS; sig++)
        if (mask & bit(sig)) sigaddset(&set, sig);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) PyErr_SetFromErrno(PyExc_OSError);
    return fd;
}

/* In the child of a fork nobody waits. */
void patch_signals_forked(void) {
    for (int sig = 1; sig < SIGNALS; sig++) {
        handlers[sig].users = handlers[sig].users != 0;
        if (handlers[sig].users) take_handler_away(sig);
    }
    for (watch *w = watches; w < watches + WATCHES; w++) {
        int fd = atomic_exchange(&w->fd, 0);
        if (fd) close(fd);
        atomic_store(&w->state, FREE);
    }
    lock_reset(&lock);
}
