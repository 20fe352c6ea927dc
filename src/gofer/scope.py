"""Cancel scopes: with blocks in which every operation that would wait can be called off.

    with timeout(2.5):
        reply = replies.recv()

    with cancel_scope() as scope:
        go(watch, scope)  # may call scope.cancel()
        serve()

    try:
        serve()
    finally:
        with shield():
            goodbye.send("done")

A scope holds for the goroutine that enters it and for all that is started inside, for as long as
they run; scopes lie in each other. Cancelling one cancels all inside it that no `shield` protects:
there, every operation that would have to wait raises `Cancelled`, again and again until the scope
is left, and one that can be done at once is done. Nothing is raised between two bytecodes.

They differ from trio's, whose model this is, in that an operation which needs no waiting is no
checkpoint; from gevent's `Timeout` and from asyncio's, in that a `Cancelled` which somebody
swallows comes again. `docs/cancellation.md` is the contract, `csrc/scope.c` how it works.
"""

from gofer._core import cancel_scope, shield, timeout

__all__ = ["cancel_scope", "shield", "timeout"]
