"""What the soak looks at: events, what goes wrong unseen, and what the process holds."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import sys
import threading
import warnings
from collections import Counter, defaultdict
from typing import Any, Self

from llm_manager import Event, LLMProviderManager, StatusChanged

from ..helpers import EVENTS


class Numbers:
    """Running numbers: each must come once, and none may be missing."""

    def __init__(self) -> None:
        self._seen = bytearray(1)

    def take(self, number: int) -> bool:
        """Whether it comes for the first time."""
        if number >= len(self._seen):
            self._seen.extend(bytes(number + 1 - len(self._seen)))
        self._seen[number] = min(self._seen[number] + 1, 2)
        return self._seen[number] == 1

    @property
    def missing(self) -> list[int]:
        return [number for number, seen in enumerate(self._seen) if number and not seen]

    @property
    def last(self) -> int:
        return len(self._seen) - 1


class Ledger:
    """Every event of the manager, counted where it is emitted.

    It keeps what is open, and of the rest only numbers: it must not look like a leak itself.
    """

    def __init__(self, manager: LLMProviderManager) -> None:
        self.problems: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.gseq = Numbers()
        self.seq: defaultdict[str, Numbers] = defaultdict(Numbers)
        self.running: set[str] = set()
        self._requests: defaultdict[str, Numbers] = defaultdict(Numbers)
        self._lock = threading.Lock()
        self._newest = 0
        for name in EVENTS:
            manager.on(name, self._take, delivery="inline")
        manager.subscribe(self._in_order)

    def _take(self, event: Any) -> None:
        with self._lock:
            self.events[event.name] += 1
            if not self.gseq.take(event.gseq):
                self.problems.append(f"gseq {event.gseq} came twice: {event.name}")
            if isinstance(event, StatusChanged):
                self._step(event)
            elif event.name == "requestStarted":
                self._started(event.request_id)
            elif event.name == "requestFinished":
                self._finished(event)
            elif event.name == "listenerError":
                self.problems.append(f"a listener failed: {event}")

    def _step(self, event: StatusChanged) -> None:
        new = self.seq[event.provider_id].take(event.current.seq)
        if not new or event.current.seq != event.previous.seq + 1:
            # The first one tells where it stands, and is no step.
            if event.previous.seq == event.current.seq == 0:
                return
            self.problems.append(f"seq {event.previous.seq} -> {event.current.seq}: {event}")

    def _started(self, request_id: str) -> None:
        run, number = request_id.rsplit("-", 1)
        if not self._requests[run].take(int(number)):
            self.problems.append(f"{request_id} started twice")
        self.running.add(request_id)

    def _finished(self, event: Any) -> None:
        if event.request_id not in self.running:
            self.problems.append(f"{event.request_id} finished without having started, or twice")
        self.running.discard(event.request_id)
        code = f" {event.error.code}" if event.error is not None else ""
        self.outcomes[f"{event.outcome}{code}"] += 1

    def _in_order(self, event: Event) -> None:
        """A listener on the loop sees the events in their order."""
        if event.gseq is not None and not getattr(event, "replayed", False):
            if event.gseq <= self._newest:
                self.problems.append(f"gseq {event.gseq} was delivered after {self._newest}")
            self._newest = event.gseq

    def conclude(self) -> None:
        """Find what only the end can tell."""
        self.problems += [f"{request} never finished" for request in sorted(self.running)]
        for what, numbers in (("gseq", self.gseq), *self.seq.items()):
            if numbers.missing:
                self.problems.append(f"{what} has gaps: {numbers.missing[:10]}")


class Noise(logging.Handler):
    """Collects what nobody handled: exceptions, warnings, errors in the log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(f"log {record.name}: {record.getMessage()}")

    def on_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_exception_handler(self._from_loop)

    def _from_loop(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.heard.append(f"loop: {context.get('message')}: {context!r}")

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        warnings.simplefilter("error")
        threading.excepthook = lambda args: self.heard.append(f"thread: {args.exc_value!r}")
        sys.unraisablehook = lambda args: self.heard.append(
            f"unraisable: {args.exc_value!r} in {args.object!r}"
        )
        return self

    def __exit__(self, *error: object) -> None:
        gc.collect()
        logging.getLogger().removeHandler(self)
        threading.excepthook = threading.__excepthook__
        sys.unraisablehook = sys.__unraisablehook__


def rss_bytes() -> int:
    """What of this process lies in memory, after what can be given back was given back."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


async def settled_rss_bytes() -> int:
    """The least of three looks: what a moment needs for itself does not count."""
    looks = []
    for _ in range(3):
        looks.append(rss_bytes())
        await asyncio.sleep(0.4)
    return min(looks)


def descriptors() -> Counter[str]:
    """What the open descriptors of this process lead to."""
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the one that lists the others
            continue
        found[target.partition(":[")[0]] += 1
    return found


def threads() -> list[str]:
    """The names of the running threads."""
    return sorted(thread.name for thread in threading.enumerate())
