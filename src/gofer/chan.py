"""Channels, and waiting for several of them.

`Chan(cap=0)` makes a channel; `Chan[int](10)` is the same with a type for checkers. Without a
buffer a send and a receive meet: each waits for the other. With one, a send waits only while `cap`
values are queued. Values are any Python object, `None` included. Waiters are served in order of
arrival. Goroutines of any worker and plain threads may share a channel.

    send(value)     waits until the value is taken or buffered; `Closed` if the channel is closed or
                    becomes so meanwhile: the value was not delivered then
    recv()          waits for a value; `Closed` once the channel is closed and drained
    recv_ok()       `(value, True)`, or `(None, False)` once it is closed and drained
    close()         no more values: wakes all that wait; a second close raises `Closed`
    for v in ch     until the channel is closed and drained
    len(ch)         how many values are queued
    ch.cap          how many fit
    ch.closed       whether it has been closed; values may still be queued
    ch.sender       a `SendChan`: only `send` and `close`
    ch.receiver     a `RecvChan`: only the receiving half

A channel is always true, also an empty one. `Chan(-1)` is a `ValueError`.

`select(*cases, default=False) -> (index, value)` waits until one of the cases can be done, does
it, and returns its position and what the call would have returned:

    match select(jobs.recv, (results.send, out), done.recv_ok, after(1.0).recv):
        case 0, job: ...
        case 1, _: ...
        case 2, (_, ok): ...
        case 3, _: raise TimeoutError

A case is a bound `recv`, a bound `recv_ok`, or the pair `(ch.send, value)`. Of several that are
ready one is chosen at random, each as likely as the other. A `None` case is never ready (Go's nil
channel); `default=True` returns `(-1, None)` at once when none is ready; `select()` waits for
ever. A chosen case whose channel is closed raises `Closed` with `.index` set, except `recv_ok`. A
malformed case is a `TypeError` at the call, before anything is done.

Whatever waits here raises `Cancelled` in a cancelled scope, and nothing was sent or received then.
As in Go, except that using a closed channel is an exception where Go panics, and `recv` tells the
end by `Closed` where Go returns a zero value."""

from gofer._core import Chan, RecvChan, SendChan, select
from gofer.errors import Closed

__all__ = ["Chan", "Closed", "RecvChan", "SendChan", "select"]
