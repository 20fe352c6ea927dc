"""Threads: one a connection."""

import threading

from servers import wire

handler = wire.HANDLERS[wire.kind()]
listener = wire.listen()
while True:
    conn, _ = listener.accept()
    threading.Thread(target=handler, args=(conn,), daemon=True).start()
