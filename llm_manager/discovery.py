"""What this machine offers: keys in the environment, servers on their usual ports, cached models.

It looks only at this machine: environment variables, short probes of the loopback interface, one
folder.  It sends no key anywhere and registers nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from .config import ApiKey, is_loopback
from .errors import ConfigurationError, LLMError
from .messages import Data
from .providers.huggingface.disk import usual_folder
from .providers.ollama import DEFAULT_BASE_URL as OLLAMA_URL
from .providers.ollama import base_url_of_host
from .providers.rows import ROWS, Row
from .registry import is_installed
from .transport.http import HttpTransport

log = logging.getLogger("llm_manager.discovery")


class Discovered(Data, frozen=True, kw_only=True):
    """Something that a provider can be made of.

    Attributes:
        kind: what to register.
        origin: where it was found, for people; never a key.
        settings: for ``manager.register_provider(found.kind, **found.settings)``.
        source: ``environment``, ``server`` or ``cache``.
        models: ids of models, as far as looking showed them.
        available: whether the libraries are installed that this kind of provider needs.
    """

    kind: str
    origin: str
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    source: Literal["environment", "server", "cache"]
    models: tuple[str, ...] = ()
    available: bool = True


async def discover(*, timeout_s: float = 0.5) -> list[Discovered]:
    """What this machine offers, local servers first.

    Args:
        timeout_s: how long to wait for a local server; all are asked at the same time.
    """
    servers = await asyncio.gather(
        _ollama(timeout_s), *(_server(r, timeout_s) for r in _one_row_per_address())
    )
    cache = await asyncio.to_thread(_hugging_face_cache)
    return [found for found in (*servers, *_keys(), cache) if found is not None]


def key_variables() -> dict[str, tuple[str, ...]]:
    """The environment variables that are looked at, by kind."""
    named = {kind: row.key_variables for kind, row in ROWS.items() if row.key_variables}
    return {"openai": ("OPENAI_API_KEY",), **named, "anthropic": ("ANTHROPIC_API_KEY",)}


def _keys() -> Iterable[Discovered]:
    for kind, variables in key_variables().items():
        row = ROWS.get(kind)
        if row is not None and not row.key_required:
            continue  # a local server: its key alone says nothing
        key = ApiKey(variables=variables)
        try:
            key.resolve()
        except LLMError:
            continue  # missing, or unusable; `llm-manager doctor` says which
        yield Discovered(
            kind=kind, origin=key.origin, source="environment", available=is_installed(kind)
        )


def _one_row_per_address() -> list[Row]:
    """Local rows by address: several servers have the same usual port, only one can be there."""
    return list({row.base_url: row for row in reversed(ROWS.values()) if row.local}.values())


async def _server(row: Row, timeout_s: float) -> Discovered | None:
    assert row.base_url is not None
    listed = await _asked(row.base_url, "/models", timeout_s)
    entries = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(entries, list):
        return None
    owners = {str(e.get("owned_by", "")).lower() for e in entries if isinstance(e, dict)}
    neighbours = [r for r in ROWS.values() if r.base_url == row.base_url]
    named = next((r for r in neighbours if r.owner and r.owner in owners), None)
    kind = (named or row).id if named or len(neighbours) == 1 else "compatible"
    named_by_port = {"base_url": row.base_url, "id": f"local-{_port(row)}"}
    return Discovered(
        kind=kind,
        origin=f"server at {row.base_url}",
        settings=named_by_port if kind == "compatible" else {},
        source="server",
        models=tuple(str(e["id"]) for e in entries if isinstance(e, dict) and "id" in e),
    )


async def _ollama(timeout_s: float) -> Discovered | None:
    host = os.environ.get("OLLAMA_BASE_URL") or os.environ.get("OLLAMA_HOST")
    try:
        url = base_url_of_host(host) if host else OLLAMA_URL
    except ConfigurationError as error:
        log.info("%s; Ollama is left out", error)
        return None
    if not is_loopback(url):
        # Somebody's setting: worth an entry, but nothing to probe from here.
        return Discovered(
            kind="ollama", origin=f"environment OLLAMA_HOST {url}", source="environment"
        )
    listed = await _asked(url, "/api/tags", timeout_s)
    entries = listed.get("models") if isinstance(listed, dict) else None
    if not isinstance(entries, list):
        return None
    return Discovered(
        kind="ollama",
        origin=f"server at {url}",
        source="server",
        models=tuple(str(e["name"]) for e in entries if isinstance(e, dict) and "name" in e),
    )


async def _asked(base_url: str, path: str, timeout_s: float) -> Any:
    """The JSON answer of a local server, or None if there is no such server."""
    transport = HttpTransport(base_url, connect_timeout_s=timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            return msgspec.json.decode(await transport.get(path, timeout_s=timeout_s))
    except (LLMError, TimeoutError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    finally:
        await transport.aclose()


def _hugging_face_cache() -> Discovered | None:
    """Models in the cache folder of the Hugging Face libraries, found by their folders' names."""
    folder = usual_folder()
    try:
        names = sorted(p.name for p in folder.iterdir() if p.name.startswith("models--"))
    except OSError:
        return None
    if not names:
        return None
    return Discovered(
        kind="huggingface",
        origin=f"cache in {folder}",
        source="cache",
        models=tuple(n.removeprefix("models--").replace("--", "/") for n in names),
        available=is_installed("huggingface"),
    )


def _port(row: Row) -> str:
    return (row.base_url or "").split("://")[-1].split("/")[0].rpartition(":")[2]
