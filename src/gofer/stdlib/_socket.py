"""Name resolution, on the pool of threads; the sockets themselves are in csrc/patch_socket.c."""

import gc
import re
import socket
from _socket import getaddrinfo  # programs replace that of `socket`, and C code knows nothing of it
from collections.abc import Callable
from typing import Any, Final

from gofer.blocking import blocking

__all__ = ["STAND_INS", "end"]

_ADDRESS: Final = re.compile(r"[0-9.]*|.*:.*")  # nobody need be asked for these


def _is_address(host: Any) -> bool:
    if isinstance(host, (bytes, bytearray)):
        host = host.decode("latin-1")
    return host is None or (isinstance(host, str) and _ADDRESS.fullmatch(host) is not None)


def _getaddrinfo(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    host = args[0] if args else kwargs.get("host")
    if _is_address(host):
        return original(*args, **kwargs)
    return blocking(original, *args, **kwargs)


def _by_name(original: Callable[..., Any], *args: Any) -> Any:
    return original(*args) if args and _is_address(args[0]) else blocking(original, *args)


def _on_pool(original: Callable[..., Any], *args: Any) -> Any:
    return blocking(original, *args)


def _without_names(sock: Any, address: Any) -> Any:
    """An address that has a name, with the number that the name stands for."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return address
    found = getaddrinfo(address[0], None, sock.family)
    return (found[0][4][0], *address[1:])


STAND_INS: Final[dict[str, Callable[..., Any]]] = {
    "_socket.socket.connect": _without_names,  # and of bind and sendto
    "_socket.getaddrinfo": _getaddrinfo,
    "_socket.gethostbyname": _by_name,
    "_socket.gethostbyname_ex": _by_name,
    "_socket.gethostbyaddr": _on_pool,
    "_socket.getnameinfo": _on_pool,
}


def end() -> None:
    """Descriptors that goroutines have made non-blocking block again, as Python has them do."""
    for sock in gc.get_objects():
        is_socket = issubclass(type(sock), socket.socket)  # isinstance() would ask the object
        if is_socket and sock.gettimeout() is None and sock.fileno() >= 0:
            sock.settimeout(None)
