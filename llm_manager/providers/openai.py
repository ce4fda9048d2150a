"""OpenAI, on both of its APIs for conversations.

The official SDK authorises and sends, to other clouds as well; what comes back is read by our own
codecs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal, get_args

from ..config import warn_if_key_is_readable
from ..errors import InvalidParameterError
from ..messages import LLMModelInfo, LLMRequest
from ..transport.sdk import SdkTransport, address_of
from ..wire import Codec
from ..wire.openai_chat import ChatDialect, OpenAIChat
from ..wire.openai_embeddings import OpenAIEmbeddings
from ..wire.openai_models import decode_models
from ..wire.openai_names import is_reasoning_model
from ..wire.openai_responses import OpenAIResponses
from ..wire.openai_responses_request import Summary
from .http import HttpProvider
from .row import CHAT, EMBEDDINGS

log = logging.getLogger("llm_manager.providers.openai")

Api = Literal["auto", "chat", "responses"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"
# `max_tokens` is refused by models that reason; of stop texts there may be four.
DIALECT = ChatDialect(
    max_tokens_name="max_completion_tokens",
    stop_limit=4,
    strict_tools=True,
    openai_models=True,
)

_LIST_TIMEOUT_S = 30.0


class OpenAIProvider(HttpProvider):
    """OpenAI, or OpenAI's models in another cloud.

    Args:
        base_url: where the service is; default: ``OPENAI_BASE_URL``, else OpenAI.
        api_key: the key, or a function or coroutine function that returns it; default:
            ``OPENAI_API_KEY``.
        organization, project: whom the requests are for; default: ``OPENAI_ORG_ID`` and
            ``OPENAI_PROJECT_ID``, unless ``base_url`` is given.
        client: an asynchronous client of the SDK to use instead of an own one, e.g.
            ``AsyncAzureOpenAI``; its own address, key and connection settings count, and the
            caller closes it.
        api: which API conversations take: ``chat`` completions, ``responses``, or ``auto``:
            Responses for models that can reason (by their name, see `is_reasoning_model`) and
            wherever an effort is asked for, chat completions for the rest.
        reasoning_summary: how the reasoning is shown on the Responses API: ``auto``, ``concise``,
            ``detailed``, or None: not at all, for organisations that OpenAI has not verified.
        models: ids to offer instead of the service's list, e.g. names of deployments on Azure.
        more: see `HttpProvider` and `BaseLLMProvider`.

    Raises:
        ConfigurationError: the address cannot be one.
        AuthenticationError: the given key cannot be sent.
        InvalidParameterError: ``client`` is none, or stands beside what it brings along.
    """

    kind = "openai"
    capabilities = CHAT | EMBEDDINGS
    codec = OpenAIChat(DIALECT)
    embedding_codec = OpenAIEmbeddings()

    def __init__(
        self,
        *,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        client: Any = None,
        api: Api = "auto",
        reasoning_summary: Summary | None = "auto",
        models: Sequence[str] = (),
        **more: Any,
    ) -> None:
        _check_choice("api", api, get_args(Api))
        _check_choice("reasoning_summary", reasoning_summary, (None, *get_args(Summary)))
        if isinstance(models, str):
            raise InvalidParameterError(f"models must be a sequence of ids, got {models!r}")
        if client is not None:
            own = {"base_url": base_url, "organization": organization, "project": project, **more}
            _refuse_beside_client(own)
        of_environment = base_url is None and client is None
        self.organization = organization or (
            os.environ.get("OPENAI_ORG_ID") if of_environment else None
        )
        self.project = project or (os.environ.get("OPENAI_PROJECT_ID") if of_environment else None)
        more.setdefault("name", "OpenAI")
        super().__init__(
            base_url=base_url if client is None else address_of(client, "openai"),
            client=client,
            default_base_url=DEFAULT_BASE_URL,
            base_url_variables=("OPENAI_BASE_URL",),
            key_variables=("OPENAI_API_KEY",) if client is None else (),
            key_required=client is None,
            **more,
        )
        self._client = client
        self._api = api
        self._named_models = tuple(models)
        self._responses = OpenAIResponses(summary=reasoning_summary)

    async def _open(self) -> None:
        if await self._key.ask() is not None:
            warn_if_key_is_readable(self.base_url, self.id)
        self._transport = SdkTransport(
            "openai",
            self.base_url,
            new_client=self._new_client,
            headers=self._headers,
            secrets=self._secrets,
            **self._connect_with,
        )
        await self._transport.open()

    async def _new_client(self, sdk: Any, http_client: Any) -> Any:
        key = await self._key.ask()
        client = sdk.AsyncOpenAI(
            api_key=key,
            base_url=self.base_url,
            http_client=http_client,
            max_retries=0,
            # Said here, it wins over one in OPENAI_CUSTOM_HEADERS, which is for another server.
            default_headers={"Authorization": f"Bearer {key}"},
        )
        # The SDK would take those of the environment for any server.
        client.organization, client.project = self.organization, self.project
        return client

    def _codec_for(self, request: LLMRequest) -> Codec:
        return self._responses if self._takes_responses(request) else super()._codec_for(request)

    def _takes_responses(self, request: LLMRequest) -> bool:
        if request.operation not in ("chat", "completion") or self._api == "chat":
            return False
        asked = request.options.reasoning_effort not in (None, "none")
        return self._api == "responses" or asked or is_reasoning_model(request.model)

    def _send(self, body: bytes, request: LLMRequest) -> AsyncGenerator[bytes, None]:
        codec = self._codec_for(request)
        if isinstance(codec, OpenAIChat | OpenAIResponses) and (missing := codec.left_out(request)):
            log.debug(
                "%s: %s is not sent, because %s does not take it while it reasons, or at all",
                request.id,
                ", ".join(missing),
                request.model,
            )
        return super()._send(body, request)

    async def _list_models(self) -> Sequence[LLMModelInfo]:
        listed = await self.transport.get("/models", timeout_s=_LIST_TIMEOUT_S)
        models = decode_models(listed, self.id)
        if not self._named_models:
            return models
        known = {model.id: model for model in models}
        return [known.get(id) or LLMModelInfo(id=id) for id in dict.fromkeys(self._named_models)]

    def _secrets(self) -> Sequence[str]:
        of_client = getattr(self._client, "api_key", None)
        return (*self._key.known, *([of_client] if isinstance(of_client, str) else []))


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        words = ", ".join(map(repr, choices))
        raise InvalidParameterError(f"{name} must be one of {words}, got {value!r:.60}")


def _refuse_beside_client(settings: dict[str, Any]) -> None:
    """Refuse settings that a ready client brings along, and that would count for nothing."""
    names = ("base_url", "api_key", "organization", "project", "ca_file", "proxy")
    if given := [name for name in names if settings.get(name) is not None]:
        raise InvalidParameterError(
            f"{given[0]} cannot be given beside client, which has its own",
            hint=f"give {given[0]} to the client",
        )
