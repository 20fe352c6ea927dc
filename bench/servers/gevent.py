"""gevent: patched sockets, a greenlet a connection."""

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402

from servers import wire  # noqa: E402

handler = wire.HANDLERS[wire.kind()]
listener = wire.listen()
while True:
    conn, _ = listener.accept()
    gevent.spawn(handler, conn)
