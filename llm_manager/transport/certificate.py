"""Who issued a certificate that was not accepted.

A company whose network looks into encrypted connections does so with certificates of its own, and
whoever reads its name knows at once whom to ask.  The standard library verifies certificates and
does not show the ones that it refuses.  So, and only then, one more connection is opened: without
verification, and for nothing but the handshake.

What this module must not do: send anything over such a connection, or know anything that could be
sent.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, TypeAlias

TIME_LIMIT_S = 2.0
"""A look at a certificate takes no longer than this."""

_MAX_NAME_CHARACTERS = 100

_Element: TypeAlias = tuple[int, bytes]
"""One value of DER: its tag and its content."""

_VERSION = 0xA0
_COMMON_NAME, _ORGANIZATION = b"\x55\x04\x03", b"\x55\x04\x0a"
_ENCODINGS = {0x0C: "utf-8", 0x14: "latin-1", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}


async def issuer_shown_by(address: tuple[Any, ...], host_name: str | None) -> str | None:
    """Who issued the certificate that the server at ``address`` shows; None if that fails.

    Args:
        address: of the socket of the server, a number in it, not a name.
        host_name: the name to ask for.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    family = socket.AF_INET6 if ":" in str(address[0]) else socket.AF_INET
    loop = asyncio.get_running_loop()
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            async with asyncio.timeout(TIME_LIMIT_S):
                await loop.sock_connect(connection, address)
                transport, _ = await loop.create_connection(
                    asyncio.Protocol, sock=connection, ssl=trusting, server_hostname=host_name or ""
                )
            shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            transport.abort()
            # The socket is given back one turn of the loop later.
            await asyncio.sleep(0)
    except (OSError, ValueError):  # time-outs are among them
        return None
    return None if shown is None else issuer_in(shown)


def issuer_in(certificate: bytes) -> str | None:
    """The name of the issuer of a certificate in DER, for people; None if it cannot be read."""
    try:
        fields = _elements(_elements(_elements(certificate)[0][1])[0][1])
        _, _, issuer, _, owner = fields[1:6] if fields[0][0] == _VERSION else fields[:5]
        names = _names(issuer[1])
    except (ValueError, IndexError):
        return None
    if issuer == owner:
        return "itself"
    common, organization = names.get(_COMMON_NAME), names.get(_ORGANIZATION)
    if common and organization and common != organization:
        return f"{common!r} of {organization!r}"
    name = common or organization
    return repr(name) if name else None


def _names(distinguished_name: bytes) -> dict[bytes, str]:
    """The parts of a distinguished name by their kind; of several of a kind the last."""
    parts = [part for _, parts in _elements(distinguished_name) for _, part in _elements(parts)]
    return {kind: _text(value) for (_, kind), value in map(_elements, parts)}


def _text(value: _Element) -> str:
    tag, content = value
    text = content.decode(_ENCODINGS.get(tag, "ascii"), errors="replace")
    printable = "".join(letter for letter in text if letter.isprintable())
    return printable[:_MAX_NAME_CHARACTERS].strip()


def _elements(der: bytes) -> list[_Element]:
    """The values that stand one after the other in ``der``.

    Raises:
        ValueError, IndexError: it is no DER, or cut off.
    """
    elements, place = [], 0
    while place < len(der):
        tag, length, place = der[place], der[place + 1], place + 2
        if length > 0x7F:
            size = length & 0x7F
            if not 1 <= size <= 4:
                raise ValueError("a length that no certificate has")
            length, place = int.from_bytes(der[place : place + size]), place + size
        if place + length > len(der):
            raise ValueError("it ends too early")
        elements.append((tag, der[place : place + length]))
        place += length
    return elements
