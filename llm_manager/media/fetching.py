"""Fetches a file by its URL, from public addresses unless the caller says otherwise."""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import re
from urllib.parse import unquote

from ..errors import InvalidParameterError
from . import kinds
from .sources import File, scheme_of, shown

# A port of the host that virtual machines of Azure run on; its number looks public.
_NEVER_PUBLIC = frozenset({ipaddress.ip_address("168.63.129.16")})
# Addresses of IPv6 that carry one of IPv4 in their last 32 bits (RFC 6052, RFC 4291).
_CARRIERS = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96")))
# Called global by `ipaddress`: protocol assignments, 6to4, and what was once site-local.
_RESERVED = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "fec0::/10")))


async def fetched(url: str, *, max_bytes: int, timeout_s: float, allow_private: bool) -> File:
    """The file at ``url``; see `MediaFactory.fetch`.

    Raises:
        InvalidParameterError, ProviderError: see there.
    """
    if not isinstance(url, str) or scheme_of(url) not in ("http", "https"):
        raise InvalidParameterError(
            f"{shown(str(url))} is no URL with http or https",
            hint="for anything else use MediaFactory.from_source or load",
        )
    # It brings the HTTP library along, which takes a while.
    module = await asyncio.to_thread(importlib.import_module, "llm_manager.transport.download")
    got = await module.download(
        url.strip(),
        max_bytes=max_bytes,
        timeout_s=timeout_s,
        permits=_any_address if allow_private else is_public,
    )
    return File(
        data=got.data,
        shown=shown(got.url),
        name=file_name_in(got.url),
        claimed=kinds.family_claimed(got.media_type),
    )


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the internet at large, and to no network behind it."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        for inner in _carried(ip):
            if not is_public(str(inner)):
                return False
        if ip.ipv4_mapped is not None:
            return True
    if ip in _NEVER_PUBLIC or any(ip in network for network in _RESERVED):
        return False
    return ip.is_global and not ip.is_multicast


def file_name_in(url: str) -> str | None:
    """The last part of a URL's path, or None if there is none."""
    path = re.sub(r"^[^:]*://[^/?#]*|[?#].*", "", url, flags=re.DOTALL)
    return unquote(path.rpartition("/")[2]) or None


def _carried(ip: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The addresses of IPv4 to which what is sent to ``ip`` may go."""
    carried = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if any(ip in network for network in _CARRIERS):
        carried.append(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF))
    return [inner for inner in carried if inner is not None]


def _any_address(address: str) -> bool:
    return True
