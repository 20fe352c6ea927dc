"""Servers of socketserver that have a goroutine for each request."""

import socketserver

from gofer import go


class InGoroutines(socketserver.ThreadingMixIn):
    """`requests` are those that are being answered."""

    request_queue_size = 1000

    def __init__(self, *args):
        super().__init__(*args)
        self.requests = set()

    def process_request(self, request, client_address):
        go(self.process_request_thread, request, client_address)

    def process_request_thread(self, request, client_address):
        self.requests.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.requests.discard(request)

    def handle_error(self, request, client_address):
        pass  # the client has been called off
