"""wsgiref as a server, urllib.request as its client; both sides in goroutines."""

import threading
import urllib.request
import wsgiref.simple_server
import wsgiref.validate

import pytest

from gofer import go

from shared import calls
from shared.goroutine_servers import InGoroutines


class Application:
    def __init__(self):
        self.arrived = threading.Condition()
        self.waiting, self.released = 0, False

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"].startswith("/wait"):
            with self.arrived:
                self.waiting += 1
                self.arrived.wait_for(lambda: self.released)
        size = int(environ["CONTENT_LENGTH"] or 0)
        body = environ["wsgi.input"].read(size)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([environ["PATH_INFO"].encode(), b"\n", body])

    def release(self):
        with self.arrived:
            self.released = True
            self.arrived.notify_all()


class Handler(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args):
        pass


class Server(InGoroutines, wsgiref.simple_server.WSGIServer):
    pass


@pytest.fixture
def application():
    return Application()


@pytest.fixture
def url(application, until):
    checked = wsgiref.validate.validator(application)
    make = wsgiref.simple_server.make_server
    with make("127.0.0.1", 0, checked, Server, Handler) as server:
        serving = go(server.serve_forever, 0.01)
        yield f"http://127.0.0.1:{server.server_port}"
        until(lambda: not server.requests)
        server.shutdown()
        serving.join()


def check(url, path, body=None):
    with urllib.request.urlopen(url + path, body) as reply:
        assert reply.read() == path.encode() + b"\n" + (body or b"")


def test_all_at_once(url):
    def call(n):
        check(url, f"/{n}")
        check(url, f"/{n}", b"%d " % n * 10_000)

    calls.all_at_once(call)


def test_all_waiting(url, application, one_worker):
    def call(n):
        check(url, f"/wait/{n}")

    calls.all_waiting(call, calls.MANY, lambda: application.waiting, application.release)


def test_called_off(url, rng):
    def call(n):
        check(url, f"/{n}", b"%d " % n * 10_000)

    calls.CallingOff(rng)(call)
    calls.all_at_once(call)
