"""As many processes as workers, each with one worker; they share the listener and nothing else."""

import os

import gofer
from gofer.runtime import gomaxprocs

import probe
from servers import wire

gofer.patch()
gomaxprocs(1)
listener = wire.listen()
for _ in range(probe.WORKERS - 1):
    if os.fork() == 0:
        break


def main():
    handler = wire.HANDLERS[wire.kind()]
    while True:
        conn, _ = listener.accept()
        gofer.go(handler, conn)


gofer.run(main)
