"""What the core (csrc/patch_ssl.c) must know of TLS sockets, found from one that is made for it."""

import _socket
import socket
import weakref
from contextlib import suppress
from importlib import import_module
from typing import Any

from gofer import _core

ssl: Any = None
with suppress(ImportError):  # a Python without OpenSSL
    ssl = import_module("ssl")

__all__ = ["begin"]


class _Double(_socket.socket):
    """A socket that can be referred to weakly."""

    __slots__ = ("__weakref__",)


def begin() -> None:
    if ssl is None:
        return
    a, b = socket.socketpair()
    with b:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        with context.wrap_socket(a, do_handshake_on_connect=False) as sample:
            _core.patch_know_ssl(vars(sample)["_sslobj"], weakref.ref(sample), _Double)
