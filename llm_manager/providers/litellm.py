"""LiteLLM: every service that its library knows, as one provider.

The library runs in this process, on a thread of its own.  It is heavy (about two seconds and
180 MiB to import); where that matters, run its proxy and use the kind ``litellm-proxy``, which is
plain HTTP and imports nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self

import msgspec

from ..config import ApiKey, KeySource, check_base_url, names_a_key
from ..errors import InvalidParameterError
from ..messages import Capability, LLMModelInfo, LLMRequest, ModelPrice
from ..provider import BaseLLMProvider
from ..tokens import IMAGE_RULES
from ..transport.litellm_library import LiteLLMLibrary
from ..wire.openai_chat import OpenAIChat
from ..wire.openai_embeddings import OpenAIEmbeddings
from .http import not_elsewhere, place_of
from .rows import CHAT

_FEATURES: dict[str, Capability] = {
    "supports_function_calling": "tools",
    "supports_vision": "vision",
    "supports_pdf_input": "files",
    "supports_reasoning": "reasoning",
    "supports_response_schema": "json_schema",
}
_PER_MILLION = 1e6
_NO_KEY = "none"


class LiteLLMProvider(BaseLLMProvider):
    """Any model that the LiteLLM library can reach, under LiteLLM's names: ``"groq/llama-4"``.

    LiteLLM hides when an answer ends without a finish reason, and rewrites finish reasons; what it
    passes on as whole is taken for whole.

    Args:
        api_key: the key for all requests; default: LiteLLM finds the one of each service in the
            environment, unless all requests go to one address.
        base_url: send all requests there, for a server of one's own.
        models: ids to offer; default: those of the services whose keys are in the environment.
        arguments: given to LiteLLM with every request, e.g. ``{"vertex_project": "p"}``.
        common: see `BaseLLMProvider`.

    Raises:
        ConfigurationError: the address cannot be one.
        AuthenticationError: the given key cannot be sent.
    """

    kind = "litellm"
    capabilities = CHAT | {"embeddings"}
    codec = OpenAIChat()
    image_rule = IMAGE_RULES["by_model"]
    embedding_codec = OpenAIEmbeddings()

    def __init__(
        self,
        *,
        api_key: KeySource = None,
        base_url: str | None = None,
        models: Sequence[str] = (),
        arguments: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> None:
        if isinstance(models, str):
            raise InvalidParameterError(f"models must be a sequence of ids, got {models!r}")
        self.base_url = None if base_url is None else check_base_url(base_url)
        self._key = ApiKey(api_key, required=False)
        common.setdefault("name", "LiteLLM")
        super().__init__(**common)
        self._models = tuple(models)
        self._arguments = dict(arguments or {})
        self._library = LiteLLMLibrary(secrets=self._secrets)

    @property
    def key_origin(self) -> str:
        """Where the key comes from, for people; never the key."""
        return self._key.origin

    async def _open(self) -> None:
        await self._library.open()

    async def _close(self) -> None:
        pass  # the library keeps its connections for whoever asks next

    async def _list_models(self) -> Sequence[LLMModelInfo]:
        names = self._models or await self._library.get_models()
        return [LLMModelInfo(id=name) for name in dict.fromkeys(names)]

    async def _describe_model(self, model: LLMModelInfo) -> LLMModelInfo:
        info = await self._library.get_model_info(model.id)
        return model if info is None else described(model, info)

    async def _probe(self) -> bool | None:
        # An empty list says that no key is in the environment, not that no request would work.
        return await super()._probe() or None

    async def _send(self, body: bytes, request: LLMRequest) -> AsyncGenerator[bytes, None]:
        arguments = {**msgspec.json.decode(body), **self._arguments}
        arguments.pop("stream", None)
        key = await self._key.prepare()
        if key is not None:
            arguments["api_key"] = key
        elif self._address is not None and not _hold_key(self._arguments):
            # Without one, LiteLLM would send a key of the environment, which is for another server.
            arguments["api_key"] = _NO_KEY
        if self.base_url is not None:
            arguments["api_base"] = self.base_url
        if request.operation == "embed":
            yield await self._library.embed(arguments)
            return
        async with aclosing(self._library.stream(arguments)) as pieces:
            async for piece in pieces:
                yield piece

    def _secrets(self) -> Sequence[str]:
        return self._key.known

    @property
    def _address(self) -> str | None:
        """Where all requests go; None: to the service that the model names."""
        passed_on = (self._arguments.get(name) for name in ("api_base", "base_url"))
        return self.base_url or next((url for url in passed_on if isinstance(url, str)), None)

    def _check_update(self, new: Self, changes: Mapping[str, Any]) -> None:
        if place_of(self._address) == place_of(new._address):
            return
        for what, holds_key in (
            ("api_key", self._key.is_given),
            ("arguments", _hold_key(self._arguments)),
        ):
            if holds_key and what not in changes:
                raise not_elsewhere(what, self._address, new._address, self.id)

    def _rereads_key(self) -> bool:
        return self._key.is_function

    async def _reread_key(self) -> None:
        await self._key.refresh()


def _hold_key(arguments: Mapping[str, Any]) -> bool:
    return any(
        names_a_key(name) or (isinstance(value, Mapping) and _hold_key(value))
        for name, value in arguments.items()
    )


def described(model: LLMModelInfo, info: Mapping[str, Any]) -> LLMModelInfo:
    """``model`` with what LiteLLM's table says of it."""
    embeds = info.get("mode") == "embedding"
    able: set[Capability] = {"embeddings"} if embeds else {"chat", "completion", "json_object"}
    able |= {capability for field, capability in _FEATURES.items() if info.get(field)}
    return LLMModelInfo.known(
        "registry",
        id=model.id,
        name=model.name,
        provider_id=model.provider_id,
        context_window_tokens=info.get("max_input_tokens"),
        max_output_tokens=info.get("max_output_tokens"),
        capabilities=frozenset(able),
        price=ModelPrice(
            input_usd=_per_million(info.get("input_cost_per_token")),
            output_usd=_per_million(info.get("output_cost_per_token")),
            cached_input_usd=_per_million(info.get("cache_read_input_token_cost")),
        ),
    )


def _per_million(per_token_usd: object) -> float | None:
    if not isinstance(per_token_usd, int | float):
        return None
    return round(per_token_usd * _PER_MILLION, 6)
