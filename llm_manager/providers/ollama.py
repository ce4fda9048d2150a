"""Ollama's own API, which tells and does more than its OpenAI-compatible one.

Context windows, capabilities, what is loaded, pulling with progress - and a prompt that does not
fit is an error instead of a conversation that silently lost its beginning.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any

import msgspec

from ..config import check_base_url
from ..errors import InvalidParameterError, UnsupportedFeatureError
from ..events import ModelLoaded, ModelLoadProgress, ModelUnloaded
from ..messages import Capability, Delta, LLMModelInfo, LLMRequest
from ..tokens import IMAGE_RULES
from ..wire import ollama_models as wire
from ..wire.ollama_chat import OllamaChat
from ..wire.ollama_embed import OllamaEmbed
from ..wire.ollama_generate import OllamaGenerate
from .http import HttpProvider

DEFAULT_BASE_URL = "http://127.0.0.1:11434"
_ASK_TIMEOUT_S = 30.0
_LOAD_TIMEOUT_S = 600.0
_PULL_LIMIT_BYTES = 64 * 1024**3
# Progress is for eyes: a pull reports hundreds of steps a second.
_PROGRESS_EVERY_S = 0.1


class OllamaProvider(HttpProvider):
    """A server of Ollama.

    Args:
        base_url: where it listens; default: ``OLLAMA_BASE_URL``, ``OLLAMA_HOST`` in any of the
            forms that Ollama itself takes, else this machine.
        truncate: let the server drop the oldest messages when the prompt is too long, and the end
            of a text that is too long to embed.
        context_tokens: context window to load models with; None leaves it to the server, which
            may choose less than the model can.
        keep_alive: how long a model stays in memory after a request, e.g. ``"10m"`` or ``-1``.
        more: see `HttpProvider` and `BaseLLMProvider`.
    """

    kind = "ollama"
    capabilities: frozenset[Capability] = frozenset(
        {"chat", "completion", "tools", "vision", "reasoning", "json_object", "json_schema",
         "fim", "embeddings"}
    )  # fmt: skip
    codec = OllamaChat()
    image_rule = IMAGE_RULES["open_models"]

    def __init__(
        self,
        *,
        base_url: str | None = None,
        truncate: bool = False,
        context_tokens: int | None = None,
        keep_alive: str | int | None = None,
        **more: Any,
    ) -> None:
        if context_tokens is not None and not context_tokens > 0:
            raise InvalidParameterError(f"context_tokens must be above 0, got {context_tokens!r}")
        settings: dict[str, Any] = {
            "truncate": truncate, "num_ctx": context_tokens, "keep_alive": keep_alive,
        }  # fmt: skip
        self.codec = OllamaChat(**settings)
        self.fim_codec = OllamaGenerate(**settings)
        self.embedding_codec = OllamaEmbed(**settings)
        host = os.environ.get("OLLAMA_HOST") if more.get("environment_address", True) else None
        super().__init__(
            base_url=base_url,
            default_base_url=base_url_of_host(host) if host else DEFAULT_BASE_URL,
            base_url_variables=("OLLAMA_BASE_URL",),
            key_variables=("OLLAMA_API_KEY",),
            key_required=False,
            **more,
        )

    # ---- the server ------------------------------------------------------------------------------

    async def get_version(self) -> str:
        """Version of the server.

        Raises:
            ProviderError: it cannot be asked.
        """
        async with self._connection.request():
            answer = await self.transport.get("/api/version", timeout_s=_ASK_TIMEOUT_S)
            return wire.decode_version(answer)

    async def pull_model(
        self, model: str, callback: Callable[[ModelLoadProgress], object] | None = None
    ) -> LLMModelInfo:
        """Fetch a model to the server's disk; progress is announced as ``modelLoadProgress``.

        Cancelling the task stops the transfer; the server keeps what it has and goes on from
        there the next time.

        Args:
            model: its name, e.g. ``"llama3.2:1b"``.
            callback: gets each progress event as well.

        Returns:
            What is known about the model now.

        Raises:
            ModelNotFoundError: there is no such model to fetch.
            StreamInterruptedError: the transfer broke off.
        """
        last_phase, last_s = "", 0.0
        async with self._connection.request(), aclosing(self._pull_steps(model)) as steps:
            async for step in steps:
                now_s = monotonic()
                if step.status == last_phase and now_s - last_s < _PROGRESS_EVERY_S:
                    continue
                last_phase, last_s = step.status, now_s
                event = ModelLoadProgress(
                    provider_id=self.id,
                    model=model,
                    phase=step.status,
                    fraction=step.fraction,
                    completed_bytes=step.completed,
                    total_bytes=step.total,
                )
                self.publish(event)
                if callback is not None:
                    callback(event)
        self.publish(ModelLoaded(provider_id=self.id, model=model, phase="pulled"))
        await self.get_available_models(refresh=True)
        return await self.get_model_info(model if ":" in model else f"{model}:latest")

    async def _pull_steps(self, model: str) -> AsyncGenerator[wire.PullProgress, None]:
        decoder = wire.PullDecoder()
        body = msgspec.json.encode({"model": model})
        # Steps are reported for hours, and none of them is kept.
        reported = self.transport.stream("/api/pull", body, limit_bytes=_PULL_LIMIT_BYTES)
        async with aclosing(reported) as pieces:
            async for piece in pieces:
                for step in decoder.feed(piece):
                    yield step
        for step in decoder.close():
            yield step

    async def load_model(self, model: str) -> None:
        """Load a model into memory, so that the first request does not wait for it.

        Raises:
            ModelNotFoundError: the server does not have it.
        """
        await self._set_residency(model, {})
        self.publish(ModelLoaded(provider_id=self.id, model=model))
        await self.get_available_models(refresh=True)

    async def unload_model(self, model: str) -> None:
        """Free the memory that a model takes.

        Raises:
            ModelNotFoundError: the server does not have it.
        """
        await self._set_residency(model, {"keep_alive": 0})
        self.publish(ModelUnloaded(provider_id=self.id, model=model))
        await self.get_available_models(refresh=True)

    async def _set_residency(self, model: str, change: dict[str, Any]) -> None:
        body = msgspec.json.encode({"model": model, "messages": [], "stream": False, **change})
        async with self._connection.request():
            await self.transport.post("/api/chat", body, timeout_s=_LOAD_TIMEOUT_S)

    # ---- the provider ----------------------------------------------------------------------------

    async def _list_models(self) -> Sequence[LLMModelInfo]:
        listed = wire.decode_tags(
            await self.transport.get("/api/tags", timeout_s=_ASK_TIMEOUT_S), self.id
        )
        running = await self.transport.get("/api/ps", timeout_s=_ASK_TIMEOUT_S)
        return wire.apply_loaded(listed, running)

    async def _describe_model(self, model: LLMModelInfo) -> LLMModelInfo:
        if model.capabilities is not None and model.context_window_tokens is not None:
            return model
        body = msgspec.json.encode({"model": model.id})
        shown = await self.transport.post("/api/show", body, timeout_s=_ASK_TIMEOUT_S)
        return wire.apply_show(model, shown)

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        async with aclosing(super()._exchange(await self._thinking_if_it_can(request))) as deltas:
            async for delta in deltas:
                yield delta

    async def _thinking_if_it_can(self, request: LLMRequest) -> LLMRequest:
        """``request`` without a reasoning effort if the model cannot reason anyway.

        The server refuses ``think`` for such a model.

        Raises:
            UnsupportedFeatureError: reasoning was asked for, and the model cannot.
        """
        effort = request.options.reasoning_effort
        if effort is None or request.operation in ("fim", "embed"):
            return request
        model = self._catalog.find(request.model) or LLMModelInfo(id=request.model)
        described = await self._describe_model(model)
        self._catalog.describe(described)
        if described.capabilities is None or "reasoning" in described.capabilities:
            return request
        if effort != "none":
            raise UnsupportedFeatureError(
                f"model {request.model!r} cannot reason", hint="leave reasoning_effort out"
            )
        return msgspec.structs.replace(
            request, options=msgspec.structs.replace(request.options, reasoning_effort=None)
        )


def base_url_of_host(host: str) -> str:
    """A URL from what Ollama takes as ``OLLAMA_HOST``: a host, a port, both, or a URL.

    A server that listens on all addresses is reached on this machine.

    Raises:
        ConfigurationError: no address can be made of it.
    """
    text = host.strip().rstrip("/")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    name, colon, port = rest.rpartition(":")
    if not colon or "]" in port:
        name, port = rest, ""
    if name in ("", "0.0.0.0", "[::]"):
        name = "127.0.0.1"
    if not port:
        port = "443" if scheme == "https" else "11434"
    return check_base_url(f"{scheme}://{name}:{port}", "OLLAMA_HOST")
