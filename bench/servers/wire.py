"""What the servers have in common: a port, an answer, and handlers for sockets that block.

In the folder bench, `python -m servers.NAME KIND` serves on a free port of the loopback, which it
prints, until it is killed.  KIND is `echo` (sends back what comes) or `http` (a small handler).
"""

import socket
import sys

CHUNK = 65_536
END = b"\r\n\r\n"


def kind() -> str:
    return sys.argv[1]


def listen() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    announce(listener.getsockname()[1])
    return listener


def announce(port: int) -> None:
    print(port, flush=True)


def answer(head: bytes) -> tuple[bytes, bool]:
    """The answer to a request, and whether the connection stays open."""
    first, *fields = head.decode("latin-1").split("\r\n")
    _, path, _ = first.split(" ")
    headers = dict(field.split(": ", 1) for field in fields)
    body = f"hello from {path}\n"
    stays = headers.get("Connection") != "close"
    text = (
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Connection: {'keep-alive' if stays else 'close'}\r\n\r\n{body}"
    )
    return text.encode(), stays


def echo(conn) -> None:
    with conn:
        while data := conn.recv(CHUNK):
            conn.sendall(data)


def http(conn) -> None:
    with conn:
        data = b""
        stays = True
        while stays:
            while END not in data:
                more = conn.recv(CHUNK)
                if not more:
                    return
                data += more
            head, _, data = data.partition(END)
            response, stays = answer(head)
            conn.sendall(response)


HANDLERS = {"echo": echo, "http": http}
