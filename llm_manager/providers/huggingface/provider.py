"""`HuggingFaceProvider`: local models, each in a worker process of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
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
from ...supervisor import LOCAL_BACKOFF
from . import answers
from .cache import CachedModel, ClearedCache, ModelCache, ProgressCallback
from .facts import described
from .names import model_folder
from .process import Worker
from .protocol import Count, Counted, Load, Loaded, Progress
from .settings import load_settings
from .workers import Workers

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
    counts_as = "tokenizer"
    capabilities = frozenset({"chat", "completion", "tools", "reasoning", "embeddings"})
    default_timeouts: Timeouts | None = LOCAL_TIMEOUTS
    backoff = LOCAL_BACKOFF
    is_local = True
    # A probe may have to start a worker, which loads torch: 2 s, or 20 from a slow disk.
    probe_quick_s = 60.0

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
        given: dict[str, Any] = {
            "revision": revision, "device": device, "dtype": dtype, "quantization": quantization,
            "load_in_8bit": load_in_8bit, "load_in_4bit": load_in_4bit, "threads": threads,
            "attn_implementation": attn_implementation, "trust_remote_code": trust_remote_code,
            "local_files_only": local_files_only, "max_memory": max_memory,
            "check_memory": check_memory,
            "cache_folder": None if cache_folder is None else os.fspath(cache_folder),
        }  # fmt: skip
        self._load_with = {name: value for name, value in given.items() if value is not None}
        load_settings("any", self._load_with)  # a mistake is told now, not by the first request
        common.setdefault("name", "Hugging Face")
        super().__init__(**common)
        self.cache = ModelCache(cache_folder, provider_id=self.id)
        self._offered = tuple(models)
        self._max_batch = max_batch
        self._threads = threads or max(_usable_cores() // 2, 1)
        self._command = worker_command
        # The loop that was used last: there a worker's death is told.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = ("", "", 0.0)
        self._workers = Workers(
            self._start,
            files=self._files_of,
            command=self._load_command,
            max_loaded=max_loaded_models,
            on_loaded=self._was_loaded,
            on_unloaded=self._was_unloaded,
        )
        reset_after_fork(self)

    # ---- models ----------------------------------------------------------------------------------

    async def load_model(self, model: str) -> None:
        """Load a model into memory, so that the first request does not wait for it.

        Cancelling it ends the loading, if nobody else waits for it.

        Raises:
            ModelNotFoundError: it is not on this machine and cannot be fetched, or is no model.
            ConfigurationError: it does not fit into memory, or the settings cannot work.
        """
        async with self._connection.request(), self._holding(model):
            pass

    async def unload_model(self, model: str) -> None:
        """Give back the memory that a model takes; its running requests are broken off.

        Raises:
            ModelNotFoundError: it is not loaded.
        """
        await self._workers.unload(model)

    @property
    def loaded_models(self) -> tuple[str, ...]:
        """The models that are in memory."""
        return self._workers.loaded

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
        if missing and self._command is None:  # a command may run another Python
            raise DependencyMissingError(
                f"the package {missing[0]} is not installed", extra="huggingface"
            )
        self._loop = asyncio.get_running_loop()
        await self._workers.ready()

    async def _close(self) -> None:
        await self._workers.close()

    async def _probe(self) -> bool | None:
        await self._workers.ready()
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
        async with self._holding(request.model) as worker:
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
            self._holding(request.model) as worker,
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

    def _holding(self, model: str) -> AbstractAsyncContextManager[Worker]:
        self._loop = asyncio.get_running_loop()
        return self._workers.holding(model)

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
        return await self.download_model(model, revision=self._load_with.get("revision"))

    def _folder(self, model: str) -> Path | None:
        return model_folder(model) or self.cache.snapshot(model, self._load_with.get("revision"))

    def _load_command(self, model: str, folder: Path) -> Load:
        return Load(str(folder), load_settings(model, self._load_with), self._max_batch)

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
        try:
            if self._loop is not None and self._loop.is_running():
                self._loop.call_soon_threadsafe(self._lost, worker)
                return
        except RuntimeError:
            pass  # it was closed just now
        self._lost(worker)

    def _lost(self, worker: Worker) -> None:
        self._workers.lost(worker)
        if self.status.usable:
            self._connection.failed(worker.why_it_ended(), self.status.epoch)

    def _was_loaded(self, model: str, loaded: Loaded) -> None:
        self._progress(model, Progress("loaded", 1.0))
        self.publish(ModelLoaded(provider_id=self.id, model=model))
        self._remember(model, loaded=True, parameters=_written(loaded.parameters))

    def _was_unloaded(self, model: str) -> None:
        self.publish(ModelUnloaded(provider_id=self.id, model=model))
        self._remember(model, loaded=False)

    def _remember(self, model: str, **facts: Any) -> None:
        known = self._catalog.find(model)
        if known is not None:
            self._catalog.describe(msgspec.structs.replace(known, **facts))

    def _after_fork(self) -> None:
        """The workers belong to the parent process."""
        self._workers.forget()
        self._loop = None


def _usable_cores() -> int:
    """How many cores this process may use, which may be less than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 2


def _written(parameters: int) -> str:
    """A number of parameters as people write it."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.3g}{unit}"
    return str(parameters)
