/* Channels: send, receive, close.  See chan.c for the invariants. */
#ifndef GOFER_CHAN_H
#define GOFER_CHAN_H

#include "base.h"
#include "g.h"

typedef struct chan {
    PyObject_HEAD
    lock_t lock;
    bool closed;
    uint32_t bubble;             /* in which it was made */
    Py_ssize_t cap, len, first;  /* ring[first], len of them */
    PyObject **ring;
    waitq receivers, senders;
    void *alarm;                 /* a timer's channel: what fires into it (py_time.c), stopped with it */
    PyObject *weakrefs;
} chan;

extern PyTypeObject Chan_Type;

/* Makes room for cap values; -1 with MemoryError. */
int chan_init(chan *c, Py_ssize_t cap);
/* Drops the values in the ring. */
void chan_clear(chan *c);
int chan_visit(chan *c, visitproc visit, void *arg);

/* 0, or -1 with an exception: Closed, or what ended the wait. */
int chan_send(chan *c, PyObject *value);
/* 1 and a new reference; 0 when closed and drained; -1 with an exception. */
int chan_recv(chan *c, PyObject **value);
/* 0, or -1 with Closed when it was closed already. */
int chan_close(chan *c);

/* What both do when it can be done at once, under the lock; the goroutine to make ready after the lock
   is released, if any, goes to *wake.  False: it would have to wait. */
bool chan_send_now(chan *c, PyObject *value, G **wake);
bool chan_recv_now(chan *c, PyObject **value, G **wake);   /* *value NULL: closed and drained */

/* Stops and frees what fires into c (py_time.c). */
void chan_drop_alarm(chan *c);

/* As it is at this moment. */
Py_ssize_t chan_len(chan *c);
bool chan_is_closed(chan *c);

int chan_closed_error(chan *c, const char *what);     /* raises Closed; -1 */

#endif
