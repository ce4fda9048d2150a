"""OpenAI, on both of its APIs for conversations.

The official SDK authorises and sends, to other clouds as well; what comes back is read by our own
codecs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, get_args

from ..errors import InvalidParameterError
from ..messages import LLMModelInfo, LLMRequest
from ..redaction import redact
from ..tokens import IMAGE_RULES
from ..wire import Codec
from ..wire.openai_chat import ChatDialect, OpenAIChat
from ..wire.openai_embeddings import OpenAIEmbeddings
from ..wire.openai_models import decode_models
from ..wire.openai_names import is_reasoning_model
from ..wire.openai_responses import OpenAIResponses
from ..wire.openai_responses_request import Summary
from .row import CHAT, EMBEDDINGS
from .sdk import SdkProvider, without_custom_headers

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


class OpenAIProvider(SdkProvider):
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
    library = "openai"
    capabilities = CHAT | EMBEDDINGS
    codec = OpenAIChat(DIALECT)
    image_rule = IMAGE_RULES["openai"]
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
        **more: Any,
    ) -> None:
        _check_choice("api", api, get_args(Api))
        _check_choice("reasoning_summary", reasoning_summary, (None, *get_args(Summary)))
        if client is not None:
            own = {"base_url": base_url, "organization": organization, "project": project, **more}
            _refuse_beside_client(own)
        of_environment = (
            base_url is None and client is None and more.get("environment_address", True)
        )
        self.organization = organization or (
            os.environ.get("OPENAI_ORG_ID") if of_environment else None
        )
        self.project = project or (os.environ.get("OPENAI_PROJECT_ID") if of_environment else None)
        more.setdefault("name", "OpenAI")
        super().__init__(
            base_url=base_url,
            client=client,
            default_base_url=DEFAULT_BASE_URL,
            base_url_variables=("OPENAI_BASE_URL",),
            key_variables=("OPENAI_API_KEY",),
            **more,
        )
        self._api = api
        self._responses = OpenAIResponses(summary=reasoning_summary)

    async def _new_client(self, sdk: Any, http_client: Any) -> Any:
        key = await self._key.ask()
        client = sdk.AsyncOpenAI(
            api_key=key,
            base_url=self.base_url,
            http_client=http_client,
            max_retries=0,
            # Said here, it wins over one in OPENAI_CUSTOM_HEADERS, which may be of another key.
            default_headers={"Authorization": f"Bearer {key}"},
        )
        if not self._takes_from_environment:
            without_custom_headers(client, but="Authorization")
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

    def _left_out(self, request: LLMRequest) -> Sequence[str]:
        codec = self._codec_for(request)
        return codec.left_out(request) if isinstance(codec, OpenAIChat | OpenAIResponses) else ()

    async def _list_models(self) -> Sequence[LLMModelInfo]:
        listed = await self.transport.get("/models", timeout_s=_LIST_TIMEOUT_S)
        models = decode_models(listed, self.id)
        if not self._named_models:
            return models
        known = {model.id: model for model in models}
        return [known.get(id) or LLMModelInfo(id=id) for id in dict.fromkeys(self._named_models)]


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        words = ", ".join(map(repr, choices))
        got = redact(f"{value!r:.60}")
        raise InvalidParameterError(f"{name} must be one of {words}, got {got}")


def _refuse_beside_client(settings: dict[str, Any]) -> None:
    """Refuse settings that a ready client brings along, and that would count for nothing."""
    names = ("base_url", "api_key", "organization", "project", "ca_file", "proxy")
    if given := [name for name in names if settings.get(name) is not None]:
        raise InvalidParameterError(
            f"{given[0]} cannot be given beside client, which has its own",
            hint=f"give {given[0]} to the client",
        )
