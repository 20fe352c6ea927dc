"""gofer: patched sockets, a goroutine a connection.

As `processes` it is as many processes as workers, each with one; they share only the listener.
"""

import os
import sys

import gofer
from gofer.runtime import gomaxprocs

import probe
from servers import wire

gofer.patch()
listener = wire.listen()
workers = probe.WORKERS
if sys.argv[2:] == ["processes"]:
    while workers > 1 and os.fork():
        workers -= 1
    workers = 1
gomaxprocs(workers)


def main():
    handler = wire.HANDLERS[wire.kind()]
    while True:
        conn, _ = listener.accept()
        gofer.go(handler, conn)


gofer.run(main)
