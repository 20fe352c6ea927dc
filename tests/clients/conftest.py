"""Real clients, unmodified, in goroutines against real servers.

Run by scripts/client-tests; a client or a server that is not there skips its tests. The servers
run in processes of their own, but those that are made of the standard library: these run in
goroutines as well.
"""

import gc
import ssl

import pytest

from gofer import go, gosched, patch, unpatch

from shared import http_server as web
from shared.certificates import certificate


@pytest.fixture(autouse=True)
def cooperative(nothing_left):
    patch()
    yield
    unpatch()


@pytest.fixture
def until():
    """As elsewhere, and collects: who was called off may leave a connection in a cycle.

    Free-threaded, so does whatever goroutines of another worker have made, if that is idle.
    """

    def wait_until(condition):
        while not condition():
            gc.collect()
            gosched()

    return wait_until


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def authority(certificates):
    return str(certificates[1])


@pytest.fixture(params=["http", "https"])
def http_server(request, certificates, until):
    context = None
    if request.param == "https":
        key, public = certificates
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(public, key)
    with web.Server(context) as server:
        serving = go(server.serve_forever, 0.01)
        yield server
        server.hang_up()
        until(lambda: not server.connections)
        server.shutdown()
        serving.join()
