"""Downloads of models: one process each, watched from here.

The event loop only passes on what a thread reads from the process.  Cancelling the task that waits
ends the process, whatever it is waiting for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from ...errors import (
    AuthenticationError,
    ConfigurationError,
    DependencyMissingError,
    LLMError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderAPIError,
    ProviderConnectionError,
    ProviderError,
    ProviderOverloadedError,
    RateLimitError,
)
from ...redaction import redact

_SCRIPT = Path(__file__).with_name("_download_process.py")
_END = object()


async def reports(task: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
    """Run a download and yield what its process reports, line by line.

    Closing the generator ends the process and waits for the thread.
    """
    loop = asyncio.get_running_loop()
    news: asyncio.Queue[Any] = asyncio.Queue()
    process = _Process(task)

    def tell(item: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(news.put_nowait, item)

    thread = threading.Thread(
        target=process.run, args=(tell,), name="llm_manager-download", daemon=True
    )
    thread.start()
    try:
        while (item := await news.get()) is not _END:
            yield item
    finally:
        process.end()
        await _joined(thread)


async def _joined(thread: threading.Thread) -> None:
    """Wait until the thread has ended, even if the waiting task is cancelled again."""
    waiting = asyncio.ensure_future(asyncio.to_thread(thread.join))
    cancelled = False
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


class _Process:
    """The process and the thread's work: start it, read its lines, take note of its end."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        self._task = json.dumps({**task, "path": sys.path}).encode() + b"\n"
        self._lock = threading.Lock()
        self._ended = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, tell: Any) -> None:
        """The thread: ends when the process has ended."""
        try:
            process = self._start()
            if process is None:
                return
            with process:
                assert process.stdin is not None
                assert process.stdout is not None
                with contextlib.suppress(OSError):  # it has ended already
                    process.stdin.write(self._task)
                    process.stdin.flush()
                for line in process.stdout:
                    tell(json.loads(line))
        except OSError as error:
            tell({"error": "builtins.OSError", "text": str(error), "bases": ["OSError"]})
        finally:
            tell(_END)

    def end(self) -> None:
        """Kill the process if it runs; it does not start any more."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._ended:
                return None
            self._process = subprocess.Popen(
                # -P: the folder of the script holds modules with everyday names.
                [sys.executable, "-P", str(_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
            return self._process


# ---- errors --------------------------------------------------------------------------------------


def download_error(report: Mapping[str, Any], name: str, token: str | None) -> LLMError:
    """What a process reported as an error, as one of ours; nothing in it shows the token."""
    secrets = [token or "", os.environ.get("HF_TOKEN", "")]
    text = redact(str(report["text"]), secrets).strip()
    bases, status = set(report["bases"]), report.get("status")
    facts: dict[str, Any] = {
        "http_status": status,
        "provider_request_id": report.get("request"),
        "original": f"{report['error']}: {text}",
    }
    brief = text.partition("\n")[0] or report["error"]
    if "OfflineModeIsEnabled" in bases or "outgoing traffic has been disabled" in text:
        hint = "unset HF_HUB_OFFLINE to download"
        return ProviderConnectionError(
            f"{name!r} cannot be downloaded offline", retryable=False, hint=hint, **facts
        )
    if "GatedRepoError" in bases:
        return _gated(name, token, facts)
    if "RevisionNotFoundError" in bases:
        return ModelNotFoundError(f"{name!r} has no such revision", **facts)
    if "RepositoryNotFoundError" in bases or status == 404:
        hint = "check the spelling; a private model needs token="
        return ModelNotFoundError(f"the Hub has no model {name!r}", hint=hint, **facts)
    if "DisabledRepoError" in bases:
        return PermissionDeniedError(f"the Hub has disabled {name!r}", **facts)
    if status in (401, 403):
        hint = "check the name, and the token (token=, HF_TOKEN, or `hf auth login`)"
        return AuthenticationError(f"the Hub refuses access to {name!r}", hint=hint, **facts)
    if status == 429:
        wait_s = _seconds(report.get("retry_after"))
        return RateLimitError(f"the Hub asks to wait: {brief}", retry_after_s=wait_s, **facts)
    if status is not None:
        kind = ProviderOverloadedError if status in (502, 503, 504, 529) else ProviderAPIError
        return kind(f"the Hub answered {status}: {brief}", **facts)
    return _without_an_answer(report, bases, name, brief, facts)


def _gated(name: str, token: str | None, facts: dict[str, Any]) -> AuthenticationError:
    given = token or os.environ.get("HF_TOKEN")
    return AuthenticationError(
        f"{name!r} is gated: its owner has to allow access first",
        code="auth_invalid" if given else "auth_missing",
        hint=f"ask for access at https://huggingface.co/{name}"
        + ("" if given else " and pass token=, or set HF_TOKEN"),
        **facts,
    )


def _without_an_answer(
    report: Mapping[str, Any], bases: set[str], name: str, brief: str, facts: dict[str, Any]
) -> LLMError:
    if bases & {"ModuleNotFoundError", "ImportError"}:
        return DependencyMissingError(
            f"downloading needs huggingface_hub: {brief}", extra="huggingface", **facts
        )
    if "DiskFullError" in bases or "No space left" in brief:
        hint = "free some space, or choose another folder"
        return ConfigurationError(f"the disk is too full for {name!r}: {brief}", hint=hint, **facts)
    if bases & {"HTTPError", "TransportError", "LocalEntryNotFoundError", "TimeoutError"} or (
        "XetDownloadError" in bases
    ):
        return ProviderConnectionError(f"the Hub cannot be reached: {brief}", **facts)
    if "OSError" in bases:
        return ConfigurationError(f"{name!r} cannot be stored: {brief}", **facts)
    return ProviderError(f"{name!r} could not be downloaded: {brief}", **facts)


def _seconds(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
