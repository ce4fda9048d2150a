"""The app's end of one worker process: start it, talk to it, notice its death, end it.

Three small threads keep blocking pipes away from event loops: one reads what the worker reports,
one writes commands, one collects what it prints.  Requests may come from several event loops.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from ... import errors
from ..._threads import reset_after_fork
from ...errors import (
    ConfigurationError,
    LLMError,
    ProviderConnectionError,
    RequestCancelledError,
)
from ...redaction import redact
from .protocol import (
    Cancel,
    Command,
    Count,
    Embed,
    Failed,
    Generate,
    Hello,
    Load,
    Loaded,
    Progress,
    Report,
    framed,
    read_message,
)

log = logging.getLogger("llm_manager.huggingface")

_PACKAGE_ROOT = Path(__file__).resolve().parents[3]
_MODULE = "llm_manager.providers.huggingface.worker"
# What the worker printed last is the best explanation of its death.
_KEPT_LINES = 20
_ENDS_WITHIN_S = 2.0

Asking = Generate | Count | Embed
_numbers = itertools.count(1)
_abandoned: list[subprocess.Popen[bytes]] = []


class Channel:
    """What the worker says about one request, on the loop that asked."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reports: collections.deque[Report | LLMError] = collections.deque()
        self._arrived = asyncio.Event()

    def put(self, report: Report | LLMError) -> None:
        """Add a report, or the error that ends everything; from any thread."""
        self._reports.append(report)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._arrived.set)

    async def get(self) -> Report:
        """The next report.

        Raises:
            LLMError: the request failed, or the worker has gone.
        """
        while not self._reports:
            self._arrived.clear()
            if not self._reports:
                await self._arrived.wait()
        report = self._reports.popleft()
        if isinstance(report, LLMError):
            raise report
        return report


class Worker:
    """One worker process.

    Args:
        command: what to run instead of this Python, e.g. in a frozen app.
        threads: CPU threads for computing.
        on_progress: is told the phases of starting and loading; called on another thread.
        on_death: is called once when it has ended unasked; on another thread.

    Raises:
        ConfigurationError: the process cannot be started.
    """

    def __init__(
        self,
        *,
        command: Sequence[str] | None = None,
        threads: int,
        on_progress: Callable[[Progress], object],
        on_death: Callable[[Worker], object],
    ) -> None:
        self.model = ""
        self.loaded: Loaded | None = None
        self.hello: Hello | None = None
        self._on_progress = on_progress
        self._on_death = on_death
        self._channels: dict[str | None, Channel] = {}
        self._lock = threading.Lock()
        self._ended: LLMError | None = None
        self._unasked = True
        self._printed: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._process = _started(command or (sys.executable, "-P", "-m", _MODULE), threads)
        self._collector = _thread(self._collect)
        _thread(self._write)
        _thread(self._read)
        reset_after_fork(self)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._ended is None

    async def greeted(self) -> Hello:
        """Wait until its libraries are imported.

        Raises:
            LLMError: it ended instead.
        """
        async with self._channel(None) as channel:
            while self.hello is None:
                await channel.get()
        return self.hello

    async def load(self, command: Load) -> Loaded:
        """Load its model.

        Raises:
            LLMError: it cannot be loaded, or the worker ended.
        """
        async with self._channel(None) as channel:
            self._send(command)
            while self.loaded is None:
                await channel.get()
        return self.loaded

    async def ask(self, command: Asking) -> AsyncGenerator[Report, None]:
        """Send a request; yields what the worker says about it, without an end of its own.

        Closing the iterator cancels the request.

        Raises:
            LLMError: the request failed, or the worker ended.
        """
        # A request that is tried again must not read what is still said about the first attempt.
        command = msgspec.structs.replace(command, id=f"{command.id}/{next(_numbers)}")
        async with self._channel(command.id) as channel:
            try:
                self._send(command)
                while True:
                    yield await channel.get()
            finally:
                self._send(Cancel(command.id))

    def end(self) -> None:
        """End the process, at once; its memory is free when this returns.  Blocks shortly."""
        self._unasked = False
        self._die(RequestCancelledError("the model was unloaded", code="model_unloaded"))
        self._outbox.put(None)
        with contextlib.suppress(OSError):
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDS_WITHIN_S)

    def why_it_ended(self) -> LLMError:
        """The error of its end, as an object of its own for each who gets it."""
        known = self._ended or ProviderConnectionError("the worker process runs")
        return type(known)(known.message, code=known.code, hint=known.hint, original=known.original)

    # ---- requests --------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _channel(self, id: str | None) -> AsyncIterator[Channel]:
        channel = Channel()
        with self._lock:
            if self._ended is not None:
                raise self.why_it_ended()
            self._channels[id] = channel
        try:
            yield channel
        finally:
            with self._lock:
                self._channels.pop(id, None)

    def _send(self, command: Command) -> None:
        self._outbox.put(framed(command))

    def _tell(self, id: str | None, report: Report | LLMError) -> None:
        with self._lock:
            channel = self._channels.get(id)
        if channel is not None:
            channel.put(report)

    # ---- threads ---------------------------------------------------------------------------------

    def _read(self) -> None:
        decoder = msgspec.msgpack.Decoder(Report)
        source = self._process.stdout
        assert source is not None
        try:
            while (report := read_message(source, decoder)) is not None:
                self._take(report)
            reason = "it closed its pipe"
        except (ValueError, OSError, msgspec.MsgspecError) as error:
            reason = f"it cannot be understood: {error}"
        with contextlib.suppress(OSError):
            self._process.kill()
        source.close()
        self._died(self._process.wait(), reason)

    def _take(self, report: Report) -> None:
        if isinstance(report, Progress):
            self._on_progress(report)
        elif isinstance(report, Failed):
            self._tell(report.id, _error_of(report))
        else:
            if isinstance(report, Hello):
                self.hello = report
            elif isinstance(report, Loaded):
                self.loaded = report
            self._tell(getattr(report, "id", None), report)

    def _write(self) -> None:
        target = self._process.stdin
        assert target is not None
        with contextlib.suppress(OSError):  # it has died, which the reading thread notices
            while (data := self._outbox.get()) is not None:
                target.write(data)
                target.flush()
        with contextlib.suppress(OSError):
            target.close()

    def _collect(self) -> None:
        source = self._process.stderr
        assert source is not None
        with source, contextlib.suppress(OSError, ValueError):
            for line in source:
                text = redact(line.decode(errors="replace").rstrip())
                self._printed.append(text)
                log.debug("worker %s: %s", self.pid, text)

    # ---- the end ---------------------------------------------------------------------------------

    def _died(self, code: int, reason: str) -> None:
        self._outbox.put(None)
        self._collector.join(_ENDS_WITHIN_S)  # its last words may still be on their way
        last = next((line for line in reversed(self._printed) if line.strip()), "")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._die(
            ProviderConnectionError(
                f"the worker process ended ({how}){': ' + last if last else ''}",
                code="worker_died",
                hint="the system may have ended it for want of memory" if code == -9 else None,
                original=f"{reason}\n" + "\n".join(self._printed) if self._printed else reason,
            )
        )
        if self._unasked:
            self._on_death(self)

    def _die(self, error: LLMError) -> None:
        with self._lock:
            if self._ended is not None:
                return
            self._ended = error
            channels = list(self._channels.values())
        for channel in channels:
            channel.put(self.why_it_ended())

    def _after_fork(self) -> None:
        """The process belongs to the parent; the child must neither use nor end it.

        Nor may it keep the pipes open: their end tells the worker that the app has gone.
        """
        self._lock = threading.Lock()
        self._channels = {}
        self._unasked = False
        self._ended = ProviderConnectionError("the worker belongs to the parent process")
        # Never collected: other threads of the parent may have held the locks of the pipes.
        _abandoned.append(self._process)
        self._process.returncode = 0
        nothing = os.open(os.devnull, os.O_RDWR)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None and not pipe.closed:
                os.dup2(nothing, pipe.fileno(), inheritable=False)
        os.close(nothing)


def _thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, name="llm_manager-worker", daemon=True)
    thread.start()
    return thread


def _started(command: Sequence[str], threads: int) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(
            [p for p in (os.environ.get("PYTHONPATH"),) if p] + [str(_PACKAGE_ROOT)]
        ),
    }
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
    except OSError as error:
        reason = str(error)
    raise ConfigurationError(f"the worker process cannot be started: {reason}")


def _error_of(report: Failed) -> LLMError:
    kind = getattr(errors, report.error, ProviderConnectionError)
    failure: LLMError = kind(report.message, hint=report.hint)
    if report.code is not None:
        failure.code = report.code
    failure.retryable = False
    return failure
