"""Which models are in memory, and the workers that hold them: one process for each model.

A worker is started before it is needed and kept as a spare until a model is loaded into it, because
importing the libraries takes seconds.  Callers may be on several event loops.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from ...errors import LLMError, ModelNotFoundError, ProviderConnectionError
from ...shared import SharedCall
from .process import Worker
from .protocol import Load, Loaded

Files = Callable[[str], Coroutine[Any, Any, Path]]


class Workers:
    """The workers of one provider.

    Args:
        start: starts a worker; blocks, and is called on another thread.
        files: the folder with a model's files.
        command: the command that loads a model from its folder.
        max_loaded: how many models stay in memory.
        on_loaded, on_unloaded: are told what has changed.
    """

    def __init__(
        self,
        start: Callable[[], Worker],
        *,
        files: Files,
        command: Callable[[str, Path], Load],
        max_loaded: int,
        on_loaded: Callable[[str, Loaded], object],
        on_unloaded: Callable[[str], object],
    ) -> None:
        self._start = start
        self._files = files
        self._command = command
        self._max_loaded = max_loaded
        self._on_loaded = on_loaded
        self._on_unloaded = on_unloaded
        # Guards which slots there are, and who uses them; the rest belongs to their shared calls.
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}
        self._spare: Worker | None = None
        # Whoever waited for it may go; the next one finds it further on.
        self._starting: SharedCall[Worker] = SharedCall(self._started, keep_running=True)

    @property
    def loaded(self) -> tuple[str, ...]:
        """The models that are in memory."""
        return tuple(name for name, slot in list(self._slots.items()) if slot.holds)

    def of(self, model: str) -> Worker | None:
        """The worker that holds ``model``, if it is in memory."""
        slot = self._slots.get(model)
        return None if slot is None else slot.worker

    async def ready(self) -> None:
        """Have a worker that lives, its libraries imported.

        Raises:
            LLMError: none can be started.
        """
        slots = list(self._slots.values())
        if not any(slot.holds or (slot.is_loading and slot.ready.running) for slot in slots):
            await self._starting.join()

    @asynccontextmanager
    async def holding(self, model: str) -> AsyncIterator[Worker]:
        """The worker that holds ``model``, which is loaded first, and not unloaded meanwhile.

        Raises:
            LLMError: it cannot be loaded.
        """
        with self._lock:
            slot = self._slots.get(model)
            if slot is None:
                slot = self._slots[model] = _Slot(model, self._load)
            slot.users += 1
            slot.used_s = monotonic()
        try:
            yield await slot.ready.join()
        finally:
            with self._lock:
                slot.users -= 1
                slot.used_s = monotonic()
                if not slot.users and slot.worker is None:
                    self._drop(slot)

    async def unload(self, model: str) -> None:
        """End the worker that holds ``model``, or that is loading it.

        Raises:
            ModelNotFoundError: there is none.
        """
        slot = self._slots.get(model)
        if slot is None or not (slot.holds or slot.ready.running):
            raise ModelNotFoundError(f"the model {model!r} is not loaded")
        with self._lock:
            self._drop(slot)
        await self._unload(slot)

    async def close(self) -> None:
        """End all workers, and whatever is under way."""
        slots, self._slots = list(self._slots.values()), {}
        for slot in slots:
            await slot.ready.cancel()
        await self._starting.cancel()
        spare, self._spare = self._spare, None
        held = [slot.worker for slot in slots]
        await asyncio.gather(
            *(asyncio.to_thread(worker.end) for worker in (*held, spare) if worker is not None)
        )

    def lost(self, worker: Worker) -> None:
        """A worker has died: forget it."""
        if self._spare is worker:
            self._spare = None
        for slot in list(self._slots.values()):
            if slot.worker is worker:
                slot.worker = None
                self._on_unloaded(slot.model)

    def forget(self) -> None:
        """Forget all workers without ending them: they are another process's."""
        self._slots, self._spare = {}, None
        self._lock = threading.Lock()

    # ---- loading ---------------------------------------------------------------------------------

    async def _load(self, slot: _Slot) -> Worker:
        """A worker with the model in memory; the same one if there is one."""
        if slot.worker is not None and slot.worker.alive:
            return slot.worker
        slot.worker = None
        folder = await self._files(slot.model)
        await self._turn_of(slot)
        slot.is_loading = True
        try:
            await self._make_room(slot)
            worker = await self._taken()
            worker.model = slot.model
            loaded = await _loaded(worker, self._command(slot.model, folder))
        finally:
            slot.is_loading = False
        slot.worker = worker
        self._on_loaded(slot.model, loaded)
        return worker

    async def _turn_of(self, slot: _Slot) -> None:
        """Wait until no other model is being loaded: what is free must not be counted twice."""
        while others := [s for s in list(self._slots.values()) if s.is_loading and s is not slot]:
            running = [other for other in others if other.ready.running]
            if not running:
                return
            await running[0].ready.settled()

    async def _make_room(self, slot: _Slot) -> None:
        """Unload what has not been used for longest, as long as too much is loaded."""
        with self._lock:
            others = [s for s in self._slots.values() if s.worker is not None and s is not slot]
            others.sort(key=lambda other: other.used_s)
            surplus = max(len(others) + 1 - self._max_loaded, 0)
            leaving = [other for other in others if not other.users][:surplus]
            for other in leaving:
                self._drop(other)
        for other in leaving:
            await self._unload(other)

    def _drop(self, slot: _Slot) -> None:
        if self._slots.get(slot.model) is slot:
            del self._slots[slot.model]

    async def _unload(self, slot: _Slot) -> None:
        worker, slot.worker = slot.worker, None
        await slot.ready.cancel()
        if worker is not None:
            await asyncio.to_thread(worker.end)
            self._on_unloaded(slot.model)

    # ---- starting --------------------------------------------------------------------------------

    async def _taken(self) -> Worker:
        """A worker without a model, which nobody else gets."""
        while True:
            worker = await self._starting.join()
            if self._spare is worker:  # others may have waited for the same one
                self._spare = None
                if worker.alive:
                    return worker

    async def _started(self) -> Worker:
        """The spare worker, its libraries imported; a new one if there is none."""
        if self._spare is not None and self._spare.alive:
            return self._spare
        starting = asyncio.ensure_future(asyncio.to_thread(self._start))
        try:
            worker = await asyncio.shield(starting)
            await worker.greeted()
        except BaseException:  # also when cancelled, no process may stay behind
            await asyncio.shield(_end(starting))
            raise
        self._spare = worker
        return worker


class _Slot:
    """One model that is loaded, or being loaded."""

    def __init__(self, model: str, load: Callable[[_Slot], Coroutine[Any, Any, Worker]]) -> None:
        self.model = model
        self.ready: SharedCall[Worker] = SharedCall(lambda: load(self))
        self.worker: Worker | None = None
        self.is_loading = False
        self.users = 0
        self.used_s = monotonic()

    @property
    def holds(self) -> bool:
        """Whether the model is in memory."""
        return self.worker is not None and self.worker.alive


async def _loaded(worker: Worker, command: Load) -> Loaded:
    """Load a model into ``worker``, which is ended if that fails or is cancelled."""
    try:
        return await worker.load(command)
    except ProviderConnectionError as error:
        died = error
    except BaseException:  # also when cancelled
        # A load cannot be stopped, and a worker that failed may still hold memory.
        await asyncio.shield(asyncio.to_thread(worker.end))
        raise
    # The next attempt would most likely die of the same: retrying is for people to decide.
    raise ProviderConnectionError(
        f"{died.message}, while it loaded {command.settings.model!r}",
        code=died.code,
        retryable=False,
        hint=died.hint,
        original=died.original,
    )


async def _end(starting: asyncio.Future[Worker]) -> None:
    """End a worker that is perhaps still being started."""
    with contextlib.suppress(LLMError):
        worker = await starting
        await asyncio.to_thread(worker.end)
