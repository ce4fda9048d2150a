"""The way to a server: through which proxy, and whose certificates count.

All of it is found out at the first use, in a thread: an environment that cannot work is an error
with a hint then, never a crash while a provider is being built.
"""

from __future__ import annotations

import importlib.util
import os
import re
import ssl
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..config import check_base_url, is_loopback
from ..errors import ConfigurationError, DependencyMissingError
from ..redaction import Reserved
from . import pool

_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")

_tls_contexts: dict[tuple[str | None, ...], ssl.SSLContext] = {}
_tls_lock = threading.Lock()


class Route(Reserved, frozen=True):
    """How to reach a server.

    Attributes:
        tls: for an ``https:`` server or proxy, otherwise None.
        proxy: URL of the proxy, with its password, or None for a direct connection.
        layers: how many layers of TLS a connection has.
    """

    shown = ("tls", "layers")

    tls: ssl.SSLContext | None
    proxy: str | None
    layers: int

    def client(self, max_connections: int) -> tuple[pool.Client, pool.Pool]:
        """A new client for this route, and its pool of connections."""
        return pool.new_client(
            tls=self.tls, proxy=self.proxy, layers=self.layers, max_connections=max_connections
        )


def find_route(
    base_url: str,
    *,
    ca_file: str | os.PathLike[str] | None,
    proxy: str | None,
    use_environment_proxies: bool,
) -> Route:
    """The route to ``base_url``.  Takes a while (certificates, imports): call it in a thread.

    Raises:
        ConfigurationError: the address, the proxy or the certificate file cannot work.
        DependencyMissingError: a SOCKS proxy needs a package that is not installed.
    """
    check_base_url(base_url)
    if proxy is not None:
        proxy = _checked_proxy(proxy, "proxy")
    elif use_environment_proxies:
        proxy = _environment_proxy(base_url)
    layers = sum(url.lower().startswith("https:") for url in (base_url, proxy or ""))
    return Route(tls=_tls_context(ca_file) if layers else None, proxy=proxy, layers=layers)


# ---- proxies -------------------------------------------------------------------------------------


def _environment_proxy(base_url: str) -> str | None:
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if is_loopback(base_url) or proxy_bypass(f"{host}:{parts.port}" if parts.port else host):
        return None
    proxies = getproxies()
    kind = parts.scheme if proxies.get(parts.scheme) else "all"
    address = proxies.get(kind)
    return _checked_proxy(address, _variable(f"{kind}_proxy")) if address else None


def _variable(name: str) -> str:
    """The environment variable of that name as it is spelt, or words for the system's settings."""
    # Of both spellings the one in lower case counts, and it is the last one of them in order.
    spelt = [each for each in sorted(os.environ) if each.lower() == name]
    return spelt[-1] if spelt else "the proxy in the system's network settings"


def _checked_proxy(address: str, where: str) -> str:
    """``address`` as a URL that the HTTP library takes."""
    url = address.strip()
    url = url if "://" in url else f"http://{url}"
    # What desktops write for "some SOCKS proxy"; all that still run speak version 5.
    url = re.sub(r"^socks://", "socks5://", url, flags=re.IGNORECASE)
    shown = re.sub(r"//.*@", "//***@", url)
    problem = None
    try:
        parts = urlsplit(url)
        if parts.scheme not in _PROXY_SCHEMES:
            problem = f"the scheme must be one of {', '.join(_PROXY_SCHEMES)}"
        elif not parts.hostname:
            problem = "it names no host"
        elif parts.port == 0:
            problem = "port 0 is none"
        elif re.search(r"\s", url):
            problem = "it contains a space"
    except ValueError as error:
        problem = str(error)
    problem = problem or pool.proxy_problem(url)
    if problem is not None:
        raise ConfigurationError(
            f"{where} {shown!r} cannot be used as a proxy: {problem}",
            hint=f"correct or unset {where}",
        )
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise DependencyMissingError(
            f"{where} names the SOCKS proxy {shown!r}, which needs the package socksio",
            hint="pip install 'httpx2[socks]'",
        )
    return url


# ---- certificates --------------------------------------------------------------------------------


def _tls_context(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext:
    """The one context of this process for these certificates; building one takes 20 to 80 ms."""
    named = None if ca_file is None else os.path.expanduser(os.fspath(ca_file))
    environment = (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    key = (named, *(environment if named is None else ()))
    problem = None
    with _tls_lock:
        if key in _tls_contexts:
            return _tls_contexts[key]
        try:
            context = _tls_contexts[key] = pool.new_tls_context(named)
        except OSError as error:  # ssl.SSLError is one of them
            problem = error.strerror or str(error)
        else:
            return context
    where = "SSL_CERT_FILE" if environment[0] else "SSL_CERT_DIR"
    where, path = ("ca_file", named) if named is not None else (where, os.environ.get(where))
    raise ConfigurationError(
        f"no certificates can be read from {where} {path!r}: {problem}",
        hint=f"let {where} name a PEM file of certificates",
    )


def _after_fork() -> None:
    global _tls_lock
    _tls_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
