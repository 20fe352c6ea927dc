"""gofer: patched sockets, a goroutine a connection."""

import gofer
from gofer.runtime import gomaxprocs

import probe
from servers import wire

gofer.patch()
gomaxprocs(probe.WORKERS)


def main():
    handler = wire.HANDLERS[wire.kind()]
    listener = wire.listen()
    while True:
        conn, _ = listener.accept()
        gofer.go(handler, conn)


gofer.run(main)
