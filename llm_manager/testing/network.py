"""Keeps tests on this machine: whoever tries to reach another one gets a clear error."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class RealNetworkError(AssertionError):
    """A test tried to reach another machine."""


@contextmanager
def no_real_network() -> Iterator[None]:
    """Refuse connections of this process to other machines, and questions for their addresses.

    Loopback addresses and Unix sockets work as ever.  Other processes are not affected.
    """
    saved = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")}
    look_up = socket.getaddrinfo
    for name, original in saved.items():
        setattr(socket.socket, name, _guarded(original))
    socket.getaddrinfo = _guarded_look_up(look_up)
    try:
        yield
    finally:
        socket.getaddrinfo = look_up
        for name, original in saved.items():
            setattr(socket.socket, name, original)


def _guarded(original: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, *arguments: Any) -> Any:
        # The address is the last argument of each of them; of a Unix socket it is a path.
        address = arguments[-1] if arguments else None
        if isinstance(address, tuple) and not _is_here(address[0]):
            raise _refused(address[0], address[1])
        return original(self, *arguments)

    return guarded


def _guarded_look_up(original: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host is not None and not _is_here(host) and not _needs_no_question(host):
            raise _refused(host, port)
        return original(host, port, *rest, **more)

    return guarded


def _refused(host: object, port: object) -> RealNetworkError:
    return RealNetworkError(
        f"a test tried to reach {_text(host)}:{port}; tests must not use a real network. "
        "Let a ScriptedPeer answer instead, or ask for the fixture allow_real_network"
    )


def _is_here(host: object) -> bool:
    name = _text(host)
    if name in ("", "localhost") or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _needs_no_question(host: object) -> bool:
    """Whether it is an address in any of its forms, or a name that no machine can have."""
    name = _text(host)
    try:
        socket.inet_aton(name)
    except OSError:
        return ":" in name or name.endswith((".invalid", ".test", ".example"))
    return True


def _text(host: object) -> str:
    return host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
