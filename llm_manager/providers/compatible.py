"""Any server that speaks the OpenAI chat dialect: a row of data, or just an address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidParameterError, ProviderError
from ..messages import LLMModelInfo
from ..wire.openai_chat import OpenAIChat
from ..wire.openai_models import decode_models
from .http import HttpProvider
from .rows import ROWS, Row

# How long reading a list may take, in seconds; the probe around it has its own limit.
_LIST_TIMEOUT_S = 30.0


class OpenAICompatibleProvider(HttpProvider):
    """A server of the OpenAI dialect.

    Args:
        row: what is known about the service; default: a plain server without quirks.
        models: ids to offer where the server has no list of its own.
        more: see `HttpProvider` and `BaseLLMProvider`.
    """

    kind = "compatible"

    def __init__(
        self,
        *,
        row: Row | None = None,
        models: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        if isinstance(models, str):
            raise InvalidParameterError(f"models must be a sequence of ids, got {models!r}")
        self.row = row or ROWS["compatible"]
        self.kind = self.row.id
        self.capabilities = self.row.capabilities
        self.codec = OpenAIChat(self.row.dialect)
        more.setdefault("name", self.row.name)
        super().__init__(
            headers={**dict(self.row.headers), **(headers or {})},
            default_base_url=self.row.base_url,
            base_url_variables=self.row.base_url_variables,
            key_variables=self.row.key_variables,
            key_required=self.row.key_required,
            **more,
        )
        self._static_models = tuple(models) or self.row.models

    async def _list_models(self) -> Sequence[LLMModelInfo]:
        if self.row.models_path is None:
            named = dict.fromkeys(
                [*self._static_models, *([self.active_model] if self.active_model else [])]
            )
            return [LLMModelInfo(id=model, provider_id=self.id) for model in named]
        data = await self.transport.get(self.row.models_path, timeout_s=_LIST_TIMEOUT_S)
        return decode_models(data, self.id)

    async def _probe(self) -> bool | None:
        if self.row.models_path is not None:
            return await super()._probe()
        # Without a list, a request that cannot be one tells as much, at no cost: a wrong key is
        # refused first, and with a right one the server complains about the body.
        try:
            await self.transport.post(self.codec.path, b"[]", timeout_s=_LIST_TIMEOUT_S)
        except ProviderError as error:
            if error.http_status not in (400, 422):
                raise
        self._catalog.accept(self._owned(await self._list_models()))
        return None


class GroqProvider(OpenAICompatibleProvider):
    """Groq; the same as the kind ``"groq"``, for those who import a class."""

    kind = "groq"

    def __init__(self, **settings: Any) -> None:
        super().__init__(row=ROWS["groq"], **settings)
