"""`HuggingFaceProvider`: local models, each in a worker process of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from ..._threads import reset_after_fork
from ...errors import (
    DependencyMissingError,
    InvalidParameterError,
    ModelNotFoundError,
    UnsupportedFeatureError,
)
from ...events import ModelLoaded, ModelLoadProgress, ModelUnloaded
from ...messages import Delta, LLMModelInfo, LLMRequest, Timeouts
from ...policy.deadline import LOCAL_TIMEOUTS
from ...provider import BaseLLMProvider
from ...shared import SharedCall
from ...supervisor import LOCAL_BACKOFF
from . import answers
from .cache import CachedModel, ClearedCache, ModelCache, ProgressCallback
from .facts import described
from .names import model_folder
from .process import Worker
from .protocol import Count, Counted, Load, Progress
from .settings import LoadSettings, load_settings

_PACKAGES = ("torch", "transformers")
# Progress is for eyes: a big model has hundreds of weights.
_PROGRESS_EVERY_S = 0.1


class HuggingFaceProvider(BaseLLMProvider):
    """Models of the Hugging Face Hub, or folders, run on this machine.

    A model runs in a worker process: importing, loading and computing leave the event loop alone,
    a crash ends the worker only, and unloading gives all memory back.  The worker is started when
    the provider connects; a model is loaded with the first request for it, or by `load_model`.

    Args:
        models: models to offer besides ``default_model`` and those in the cache.
        max_loaded_models: how many models stay in memory; the one that was not used for longest
            is unloaded for another, unless it is busy.
        max_batch: how many requests one model answers together.
        threads: CPU threads for computing; default: half of the machine's.
        worker_command: what to run as the worker, for apps that are frozen into one file; it has
            to call `llm_manager.providers.huggingface.worker.main`.
        revision, device, dtype, quantization, load_in_8bit, load_in_4bit, attn_implementation,
            trust_remote_code, local_files_only, cache_folder, max_memory, check_memory: how models
            are loaded; see `settings.LoadSettings`.
        common: see `BaseLLMProvider`.

    Raises:
        InvalidParameterError: a setting is wrong.
    """

    kind = "huggingface"
    capabilities = frozenset({"chat", "completion", "tools", "reasoning", "embeddings"})
    default_timeouts: Timeouts | None = LOCAL_TIMEOUTS
    backoff = LOCAL_BACKOFF

    def __init__(
        self,
        *,
        models: Sequence[str] = (),
        max_loaded_models: int = 1,
        max_batch: int = 8,
        threads: int | None = None,
        worker_command: Sequence[str] | None = None,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        quantization: str | dict[str, Any] | None = None,
        load_in_8bit: bool = False,
        load_in_4bit: bool = False,
        attn_implementation: str | None = None,
        trust_remote_code: bool = False,
        local_files_only: bool = False,
        cache_folder: str | os.PathLike[str] | None = None,
        max_memory: dict[str, str | int] | None = None,
        check_memory: bool = True,
        **common: Any,
    ) -> None:
        if isinstance(models, str):
            raise InvalidParameterError(f"models must be a sequence of names, got {models!r}")
        for name, value in (("max_loaded_models", max_loaded_models), ("max_batch", max_batch)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidParameterError(f"{name} must be a whole number from 1, got {value!r}")
        self._load_with: dict[str, Any] = {
            "revision": revision, "device": device, "dtype": dtype, "quantization": quantization,
            "load_in_8bit": load_in_8bit, "load_in_4bit": load_in_4bit, "threads": threads,
            "attn_implementation": attn_implementation, "trust_remote_code": trust_remote_code,
            "local_files_only": local_files_only, "max_memory": max_memory,
            "check_memory": check_memory,
            "cache_folder": None if cache_folder is None else os.fspath(cache_folder),
        }  # fmt: skip
        load_settings("any", self._load_with)  # a mistake is told now, not by the first request
        common.setdefault("name", "Hugging Face")
        super().__init__(**common)
        self.cache = ModelCache(cache_folder, provider_id=self.id)
        self._offered = tuple(models)
        self._max_loaded = max_loaded_models
        self._max_batch = max_batch
        self._threads = threads or max((os.cpu_count() or 2) // 2, 1)
        self._command = worker_command
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = ("", "", 0.0)
        self._spare: Worker | None = None
        self._loaded: dict[str, _Slot] = {}
        reset_after_fork(self)

    # ---- models ----------------------------------------------------------------------------------

    async def load_model(self, model: str) -> None:
        """Load a model into memory, so that the first request does not wait for it.

        Cancelling it ends the loading, if nobody else waits for it.

        Raises:
            ModelNotFoundError: it is not on this machine and cannot be fetched, or is no model.
            ConfigurationError: it does not fit into memory, or the settings cannot work.
        """
        async with self._connection.request():
            await self._slot(model).ready.join()

    async def unload_model(self, model: str) -> None:
        """Give back the memory that a model takes; its running requests are broken off.

        Raises:
            ModelNotFoundError: it is not loaded.
        """
        slot = self._loaded.get(model)
        if slot is None:
            raise ModelNotFoundError(f"the model {model!r} is not loaded", provider_id=self.id)
        await self._unload(slot)

    @property
    def loaded_models(self) -> tuple[str, ...]:
        """The models that are in memory."""
        return tuple(name for name, slot in self._loaded.items() if slot.worker is not None)

    async def list_cached_models(self) -> tuple[CachedModel, ...]:
        """The models on this machine's disk, with size and last use; see `ModelCache`."""
        return await self.cache.list_cached_models()

    async def clear_model_cache(
        self, name: str | None = None, *, dry_run: bool = False
    ) -> ClearedCache:
        """Remove one model from the disk, or all; ``dry_run`` only says what would go."""
        return await self.cache.clear_model_cache(name, dry_run=dry_run)

    async def download_model(
        self, name: str, callback: ProgressCallback | None = None, **how: Any
    ) -> Path:
        """Fetch a model to the disk; see `ModelCache.download_model`.

        Progress is announced as ``modelLoadProgress``.
        """

        def progress(event: ModelLoadProgress) -> object:
            self.publish(event)
            return None if callback is None else callback(event)

        folder = await self.cache.download_model(name, callback=progress, **how)
        self.publish(ModelLoaded(provider_id=self.id, model=name, phase="pulled"))
        return folder

    # ---- the provider ----------------------------------------------------------------------------

    async def _open(self) -> None:
        missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise DependencyMissingError(
                f"the package {missing[0]} is not installed", extra="huggingface"
            )
        self._loop = asyncio.get_running_loop()
        await self._ready_worker()

    async def _close(self) -> None:
        slots, self._loaded = list(self._loaded.values()), {}
        spare, self._spare = self._spare, None
        for slot in slots:
            await slot.ready.cancel()
        ending = [slot.worker for slot in slots] + [spare]
        await asyncio.gather(
            *(asyncio.to_thread(worker.end) for worker in ending if worker is not None)
        )

    async def _probe(self) -> bool | None:
        if not any(worker.alive for worker in self._workers()):
            await self._ready_worker()
        return await super()._probe()

    async def _list_models(self) -> Sequence[LLMModelInfo]:
        cached = {m.name: m for m in await self.cache.list_cached_models() if m.complete}
        first = [self.active_model] if self.active_model else []
        return [
            LLMModelInfo.known(
                "endpoint",
                id=name,
                size_bytes=cached[name].size_bytes if name in cached else None,
                loaded=name in self.loaded_models,
            )
            for name in dict.fromkeys([*first, *self._offered, *cached])
        ]

    async def _describe_model(self, model: LLMModelInfo) -> LLMModelInfo:
        def look() -> LLMModelInfo:
            folder = self._folder(model.id)
            return model if folder is None else described(model, folder)

        return await asyncio.to_thread(look)

    async def _count_tokens(self, request: LLMRequest) -> int | None:
        async with self._worker(request.model) as worker:
            reports = worker.ask(Count(request.id, answers.prompt(request)))
            async with aclosing(reports) as told:
                async for report in told:
                    if isinstance(report, Counted):
                        return report.tokens
        return None

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        embeds = request.operation == "embed"
        command = answers.embedding(request) if embeds else answers.generation(request)
        await self._check_model(request)
        async with (
            self._worker(request.model) as worker,
            aclosing(worker.ask(command)) as reports,
            aclosing(answers.answer(request, reports)) as deltas,
        ):
            async for delta in deltas:
                yield delta

    async def _check_model(self, request: LLMRequest) -> None:
        """Refuse what the model's files say it cannot do, before it is loaded for that."""
        model = self._catalog.find(request.model) or LLMModelInfo(id=request.model)
        if model.capabilities is None:
            model = await self._describe_model(model)
            self._catalog.describe(model)
        self._check(request)
        able = model.capabilities
        if request.operation == "chat" and able is not None and "chat" not in able:
            raise UnsupportedFeatureError(
                f"model {request.model!r} has no chat template",
                hint="it completes texts: use generate_completion"
                if "completion" in able
                else "it only makes embeddings",
            )

    # ---- workers ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def _worker(self, model: str) -> AsyncIterator[Worker]:
        """The worker that has ``model`` loaded; it is not unloaded while it is used."""
        slot = self._slot(model)
        slot.users += 1
        slot.used_s = monotonic()
        try:
            yield await slot.ready.join()
        finally:
            slot.users -= 1
            slot.used_s = monotonic()

    def _slot(self, model: str) -> _Slot:
        known = self._loaded.get(model)
        if known is None:
            known = self._loaded[model] = _Slot(model, self._load)
        return known

    async def _load(self, slot: _Slot) -> Worker:
        """A worker with the model in memory; the same one if there is one."""
        if slot.worker is not None and slot.worker.alive:
            return slot.worker
        slot.worker = None
        folder = await self._files_of(slot.model)
        await self._make_room(slot)
        worker = await self._ready_worker()
        self._spare = None
        worker.model = slot.model
        try:
            command = Load(str(folder), self._settings(slot.model), self._max_batch)
            loaded = await worker.load(command)
        except BaseException:
            # A load cannot be stopped, and a worker that failed may still hold memory.
            await asyncio.shield(asyncio.to_thread(worker.end))
            raise
        slot.worker = worker
        self._progress(slot.model, Progress("loaded", 1.0))
        self.publish(ModelLoaded(provider_id=self.id, model=slot.model))
        self._remember(slot.model, loaded=True, parameters=_written(loaded.parameters))
        return worker

    async def _files_of(self, model: str) -> Path:
        """The folder with the model's files, fetched from the Hub if need be."""
        folder = await asyncio.to_thread(self._folder, model)
        if folder is not None:
            return folder
        if self._load_with["local_files_only"]:
            raise ModelNotFoundError(
                f"the model {model!r} is not on this machine",
                provider_id=self.id,
                hint="fetch it with download_model(), or leave local_files_only out",
            )
        return await self.download_model(model, revision=self._load_with["revision"])

    def _folder(self, model: str) -> Path | None:
        return model_folder(model) or self.cache.snapshot(model, self._load_with["revision"])

    async def _make_room(self, slot: _Slot) -> None:
        """Unload what has not been used for longest, as long as too much is loaded."""
        others = [s for s in self._loaded.values() if s.worker is not None and s is not slot]
        others.sort(key=lambda other: other.used_s)
        surplus = len(others) + 1 - self._max_loaded
        for other in [s for s in others if not s.users][: max(surplus, 0)]:
            await self._unload(other)

    async def _unload(self, slot: _Slot) -> None:
        self._loaded.pop(slot.model, None)
        worker, slot.worker = slot.worker, None
        await slot.ready.cancel()
        if worker is not None:
            await asyncio.to_thread(worker.end)
            self.publish(ModelUnloaded(provider_id=self.id, model=slot.model))
            self._remember(slot.model, loaded=False)

    async def _ready_worker(self) -> Worker:
        """A worker with its libraries imported and no model yet."""
        worker = self._spare
        if worker is None or not worker.alive:
            worker = self._spare = await asyncio.to_thread(self._start)
        try:
            await worker.greeted()
        except asyncio.CancelledError:
            self._spare = None
            await asyncio.shield(asyncio.to_thread(worker.end))
            raise
        return worker

    def _start(self) -> Worker:
        worker: Worker | None = None

        def progress(step: Progress) -> None:
            self._progress(worker.model if worker is not None else "", step)

        worker = Worker(
            command=self._command,
            threads=self._threads,
            on_progress=progress,
            on_death=self._died,
        )
        return worker

    def _progress(self, model: str, step: Progress) -> None:
        now_s = monotonic()
        if (model, step.phase) == self._told[:2] and now_s - self._told[2] < _PROGRESS_EVERY_S:
            return
        self._told = model, step.phase, now_s
        self.publish(
            ModelLoadProgress(
                provider_id=self.id, model=model, phase=step.phase, fraction=step.fraction
            )
        )

    def _died(self, worker: Worker) -> None:
        """A worker has ended unasked: say so, even if nobody asks anything of it."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._lost, worker)

    def _lost(self, worker: Worker) -> None:
        if self._spare is worker:
            self._spare = None
        for slot in self._loaded.values():
            if slot.worker is worker:
                slot.worker = None
                self.publish(ModelUnloaded(provider_id=self.id, model=slot.model))
                self._remember(slot.model, loaded=False)
        if self.status.usable:
            self._connection.failed(worker.why_it_ended(), self.status.epoch)

    def _workers(self) -> list[Worker]:
        slots = (slot.worker for slot in self._loaded.values())
        return [worker for worker in (*slots, self._spare) if worker is not None]

    def _settings(self, model: str) -> LoadSettings:
        return load_settings(model, self._load_with)

    def _remember(self, model: str, **facts: Any) -> None:
        known = self._catalog.find(model)
        if known is not None:
            self._catalog.describe(msgspec.structs.replace(known, **facts))

    def _after_fork(self) -> None:
        """The workers belong to the parent process."""
        self._spare, self._loaded, self._loop = None, {}, None


def _written(parameters: int) -> str:
    """A number of parameters as people write it."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.3g}{unit}"
    return str(parameters)


class _Slot:
    """One model that is loaded, or being loaded."""

    def __init__(self, model: str, load: Callable[[_Slot], Coroutine[Any, Any, Worker]]) -> None:
        self.model = model
        self.ready: SharedCall[Worker] = SharedCall(lambda: load(self))
        self.worker: Worker | None = None
        self.users = 0
        self.used_s = monotonic()
