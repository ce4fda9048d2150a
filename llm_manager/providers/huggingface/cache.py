"""The models on this machine's disk: list them, remove them, fetch new ones.

Everything that blocks runs in a thread or in a process of its own.

What it must not do: block the event loop, or show a token.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TypeAlias

from ...config import Secret, check_base_url, check_key
from ...errors import InvalidParameterError, LLMError, ProviderError, UnsupportedFeatureError
from ...events import ModelLoadProgress
from . import disk
from .disk import CachedModel, ClearedCache
from .download import download_error, reports
from .names import check_model_name

__all__ = ["CachedModel", "ClearedCache", "ModelCache", "ProgressCallback"]

ProgressCallback: TypeAlias = Callable[[ModelLoadProgress], object]


class ModelCache:
    """One cache folder.

    Args:
        folder: where it is; None: where Hugging Face's libraries have it (``HF_HUB_CACHE``,
            ``HF_HOME``, else the user's cache folder).
        provider_id: the provider that progress events are about.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, provider_id: str = ""
    ) -> None:
        self.folder = (
            disk.usual_folder() if folder is None else Path(folder).expanduser().absolute()
        )
        self._provider_id = provider_id

    async def list_cached_models(self) -> tuple[CachedModel, ...]:
        """The models that are there, by name; unfinished ones are marked as not complete.

        Raises:
            ConfigurationError: the folder cannot be read.
        """
        return await asyncio.to_thread(lambda: tuple(disk.models(self.folder)))

    async def clear_model_cache(
        self, name: str | None = None, *, dry_run: bool = False
    ) -> ClearedCache:
        """Remove one model, or all; other kinds of things in the cache stay.

        Args:
            name: which model; None: all of them.
            dry_run: only say what would be removed.

        Raises:
            ModelNotFoundError: no such model is there; the hint names similar ones.
            ConfigurationError: ``name`` is no model's name, or something could not be removed.
        """
        if name is not None:
            check_model_name(name)
        return await asyncio.to_thread(disk.clear, self.folder, name, dry_run=dry_run)

    async def download_model(
        self,
        name: str,
        *,
        revision: str | None = None,
        callback: ProgressCallback | None = None,
        allow_patterns: Sequence[str] | None = None,
        endpoint: str | None = None,
        token: str | Secret | None = None,
    ) -> Path:
        """Fetch a model into the cache; returns its folder, ready to be loaded.

        Files that are there already are not fetched again.  Cancelling the task ends the download;
        the files that had arrived whole are kept for the next time.

        Args:
            name: the model's name on the Hub.
            revision: branch, tag or commit; None: the main branch.
            callback: is called with the progress, at most about ten times a second.
            allow_patterns: fetch the files that match, e.g. ``["*.json"]``; None: what is needed
                to load the model.
            endpoint: another Hub than ``HF_ENDPOINT`` or the public one.
            token: for private and gated models; None: ``HF_TOKEN``, or the login of this user.

        Raises:
            ModelNotFoundError: no such model or revision.
            AuthenticationError: the model is gated, or the token is not accepted.
            ProviderConnectionError: no network, or ``HF_HUB_OFFLINE`` is set.
            ConfigurationError: the disk is full, or the folder cannot be written.
            DependencyMissingError: huggingface_hub is not installed.
            UnsupportedFeatureError: this program is frozen into one file.
        """
        check_model_name(name)
        if getattr(sys, "frozen", False):
            # The program's own file would be started, with all that it does, instead of Python.
            raise UnsupportedFeatureError(
                "a program frozen into one file cannot download models",
                hint=f"run `hf download {name}` before",
            )
        secret = _token(token)
        task = {
            "name": name,
            "folder": disk.folder_name(name),
            "revision": revision or "main",
            "cache": str(self.folder),
            "endpoint": None if endpoint is None else check_base_url(endpoint, "endpoint"),
            "token": secret,
            "patterns": _patterns(allow_patterns),
        }
        await asyncio.to_thread(disk.make, self.folder)
        path: Path | None = None
        failure: LLMError | None = None
        total_bytes: int | None = None
        try:
            async with aclosing(reports(task)) as lines:
                async for line in lines:
                    total_bytes = line.get("total", total_bytes)
                    if "path" in line:
                        path = Path(line["path"])
                    elif "error" in line:
                        failure = download_error(line, name, secret)
                    else:
                        await self._tell(callback, name, line.get("done", 0), total_bytes)
        finally:
            if path is None:
                await asyncio.to_thread(disk.tidy, self.folder, name)
        if path is None:
            raise failure or ProviderError(f"the process that was to fetch {name!r} has crashed")
        await self._tell(callback, name, total_bytes or 0, total_bytes)
        return path

    def snapshot(self, name: str, revision: str | None = None) -> Path | None:
        """The folder of a revision (None: the main branch) if it is there whole, else None.

        It reads a few small files: on an event loop, call it in a thread.

        Raises:
            ConfigurationError: ``name`` is no model's name.
        """
        return disk.snapshot(self.folder, name, revision)

    async def _tell(
        self, callback: ProgressCallback | None, name: str, done: int, total: int | None
    ) -> None:
        if callback is None:
            return
        event = ModelLoadProgress(
            provider_id=self._provider_id,
            model=name,
            phase="downloading",
            fraction=min(1.0, done / total) if total else 1.0 if total == 0 else None,
            completed_bytes=done,
            total_bytes=total,
        )
        result = callback(event)
        if inspect.isawaitable(result):
            await result


def _token(token: str | Secret | None) -> str | None:
    given = token.reveal() if isinstance(token, Secret) else token
    return None if given is None else check_key(given, "token")


def _patterns(patterns: Sequence[str] | None) -> list[str] | None:
    if isinstance(patterns, str):
        raise InvalidParameterError(f"allow_patterns must be a list of texts, got {patterns!r}")
    return None if patterns is None else list(patterns)
