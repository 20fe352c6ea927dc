"""http.server with a goroutine for each connection, with TLS or without.

It replies with the path, or what was posted, and a `PADDING`. Those who ask for /wait... wait until
it is told to release them.
"""

import contextlib
import http.server
import socket
import threading

from gofer import go

PADDING = "x" * 3000


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/wait"):
            with self.server.arrived:
                self.server.waiting += 1
                self.server.arrived.wait_for(lambda: self.server.released)
        self.reply(self.path)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.reply(body.decode())

    def reply(self, text):
        body = f"{text} {PADDING}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1000

    def __init__(self, context):
        super().__init__(("127.0.0.1", 0), Handler)
        self.context = context
        self.arrived = threading.Condition()
        self.waiting, self.released = 0, False
        self.connections = set()

    @property
    def url(self):
        return f"http{'s' if self.context else ''}://localhost:{self.server_port}"

    def process_request(self, request, client_address):
        go(self.process_request_thread, request, client_address)

    def finish_request(self, request, client_address):
        self.connections.add(request)
        try:
            secure = self.context and self.context.wrap_socket(request, server_side=True)
            super().finish_request(secure or request, client_address)
        except (OSError, ValueError):
            pass  # the client has been called off
        finally:
            self.connections.discard(request)

    def hang_up(self):
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def release(self):
        with self.arrived:
            self.released = True
            self.arrived.notify_all()
