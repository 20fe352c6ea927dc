"""examples/gunicorn_worker.py: gunicorn with a goroutine for each request."""

import signal
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from gofer import fork

from shared import calls, servers

pytest.importorskip("gunicorn")

EXAMPLES = Path(__file__).parents[2] / "examples"
APP = f"""
import socket
import threading
import time

arrivals = threading.Condition()
arrived = 0
worker = None  # it will be told


def app(environ, start_response):
    global arrived
    path = environ["PATH_INFO"]
    if path.startswith("/together"):
        with arrivals:
            arrived += 1
            arrivals.notify_all()
            arrivals.wait_for(lambda: arrived == {calls.MANY})
    if path.startswith("/last"):
        with socket.create_connection(("127.0.0.1", int(path.rpartition("/")[2]))):
            while worker.alive:
                time.sleep(0.001)
    if path.startswith("/fail"):
        1 / 0
    start_response("200 OK", [("content-type", "text/plain")])
    return [path.encode()]
"""
CONFIGURATION = """
def post_worker_init(worker):
    import app

    app.worker = worker
"""


@pytest.fixture
def gunicorn(tmp_path):
    """The process and its port."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "configuration.py").write_text(CONFIGURATION)
    port = servers.free_port()
    where = ["--bind", f"127.0.0.1:{port}", "--chdir", tmp_path, "--pythonpath", EXAMPLES]
    options = ["--config", tmp_path / "configuration.py", "--no-control-socket"]
    command = [sys.executable, "-m", "gunicorn", "--worker-class", "gunicorn_worker.Worker"]
    with servers.serving(port, *command, *where, *options, "app:app") as process:
        yield process, port


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as reply:
        return reply.read().decode()


def test_requests_wait_together(gunicorn):
    _, port = gunicorn

    def call(n):
        assert get(port, f"/together/{n}") == f"/together/{n}"

    calls.all_at_once(call)


def test_a_request_that_fails_is_one_of_many(gunicorn):
    _, port = gunicorn
    with pytest.raises(urllib.error.HTTPError, match="500"):
        get(port, "/fail")
    assert get(port, "/again") == "/again"


def test_what_is_under_way_ends_before_the_server(gunicorn):
    process, port = gunicorn
    with socket.create_server(("127.0.0.1", 0)) as listener:
        path = f"/last/{listener.getsockname()[1]}"
        last = fork(get, port, path)
        with listener.accept()[0]:
            process.send_signal(signal.SIGTERM)
            assert last.join() == path
    assert process.wait() == 0
