"""Anthropic's Messages API.

The official SDK authorises and sends; what comes back is read by our own codec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from ..errors import InvalidParameterError
from ..messages import LLMModelInfo, LLMRequest
from ..tokens import IMAGE_RULES
from ..wire.anthropic_messages import AnthropicMessages
from ..wire.anthropic_models import ModelTraits, decode_models, traits_of_name
from ..wire.anthropic_request import decode_count, encode_count, left_out
from .sdk import SdkProvider, without_custom_headers

DEFAULT_BASE_URL = "https://api.anthropic.com"
_ASK_TIMEOUT_S = 30.0
_MODELS_PER_PAGE = 1000


class AnthropicProvider(SdkProvider):
    """Claude, from Anthropic or from another cloud.

    Args:
        base_url: where the service is; default: ``ANTHROPIC_BASE_URL``, else Anthropic.
        api_key: the key, or a function or coroutine function that returns it; default:
            ``ANTHROPIC_API_KEY``.
        client: an asynchronous client of the SDK to use instead of an own one, e.g.
            ``AsyncAnthropicBedrock`` or ``AsyncAnthropicVertex``; its own address and key count,
            and the caller closes it.
        betas: features in preview to switch on, by their names in the header ``anthropic-beta``.
        models: ids to offer where there is no list of models to read, as with other clouds.
        more: see `HttpProvider` and `BaseLLMProvider`.

    Raises:
        ConfigurationError: the address cannot be one.
        AuthenticationError: the given key cannot be sent.
        InvalidParameterError: ``client`` is none.
    """

    kind = "anthropic"
    library = "anthropic"
    capabilities = frozenset(
        {"chat", "completion", "tools", "vision", "files", "reasoning", "json_schema"}
    )

    codec: AnthropicMessages = AnthropicMessages()
    image_rule = IMAGE_RULES["anthropic"]

    def __init__(
        self,
        *,
        base_url: str | None = None,
        client: Any = None,
        headers: Mapping[str, str] | None = None,
        betas: Sequence[str] = (),
        **more: Any,
    ) -> None:
        if isinstance(betas, str):
            raise InvalidParameterError(f"betas must be a sequence of names, got {betas!r}")
        switches = {"anthropic-beta": ",".join(betas)} if betas else {}
        more.setdefault("name", "Anthropic")
        super().__init__(
            base_url=base_url,
            headers={**switches, **(headers or {})},
            client=client,
            default_base_url=DEFAULT_BASE_URL,
            base_url_variables=("ANTHROPIC_BASE_URL",),
            key_variables=("ANTHROPIC_API_KEY",),
            **more,
        )
        self._traits: dict[str, ModelTraits] = {}
        self.codec = AnthropicMessages(self._traits_of)

    async def _new_client(self, sdk: Any, http_client: Any) -> Any:
        client = sdk.AsyncAnthropic(
            api_key=await self._key.ask(),
            base_url=self.base_url,
            http_client=http_client,
            max_retries=0,
            # What a request did is told by our events, once.
            open_telemetry=False,
        )
        if not self._takes_from_environment:
            without_custom_headers(client)
        return client

    def _left_out(self, request: LLMRequest) -> Sequence[str]:
        return left_out(request, self._traits_of(request.model))

    async def _list_models(self) -> Sequence[LLMModelInfo]:
        if not self._has_own_endpoints:
            named = dict.fromkeys([*self._named_models, *filter(None, [self.active_model])])
            return [LLMModelInfo(id=model, provider_id=self.id) for model in named]
        models: dict[str, LLMModelInfo] = {}
        query: dict[str, Any] = {"limit": _MODELS_PER_PAGE}
        while True:
            path = f"/v1/models?{urlencode(query)}"
            page = decode_models(await self.transport.get(path, timeout_s=_ASK_TIMEOUT_S), self.id)
            self._traits |= page.traits
            is_new = not models.keys() >= page.traits.keys()
            models |= {model.id: model for model in page.models}
            if page.next_after is None or not is_new:
                return list(models.values())
            query["after_id"] = page.next_after

    async def _probe(self) -> bool | None:
        if self._has_own_endpoints:
            return await super()._probe()
        # Nothing there can be asked at no cost.
        self._catalog.accept(self._owned(await self._list_models()))
        return None

    async def _count_tokens(self, request: LLMRequest) -> int | None:
        if not self._has_own_endpoints:
            return None
        body = encode_count(request, self._traits_of(request.model))
        path = f"{self.codec.path}/count_tokens"
        return decode_count(await self.transport.post(path, body, timeout_s=_ASK_TIMEOUT_S))

    @property
    def _has_own_endpoints(self) -> bool:
        """Whether there is more than the endpoint of messages, as on Anthropic's own service."""
        return self._client is None or getattr(self._client, "models", None) is not None

    def _traits_of(self, model: str) -> ModelTraits:
        return self._traits.get(model) or traits_of_name(model)
