"""Any server that speaks the OpenAI chat dialect: a row of data, or just an address."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import names_a_key
from ..errors import InvalidParameterError, ProviderError
from ..messages import LLMModelInfo
from ..tokens import IMAGE_RULES
from ..transport.http import HttpTransport
from ..wire.openai_chat import OpenAIChat
from ..wire.openai_embeddings import OpenAIEmbeddings
from ..wire.openai_models import decode_models, with_details
from .http import HttpProvider, same_host
from .rows import ROWS, Row, row_from

log = logging.getLogger("llm_manager.providers")

# How long reading a list may take, in seconds; the probe around it has its own limit.
_LIST_TIMEOUT_S = 30.0
# Connecting shall not wait long for what it can do without.
_DETAILS_TIMEOUT_S = 5.0


class OpenAICompatibleProvider(HttpProvider):
    """A server of the OpenAI dialect.

    Args:
        row: what is known about the service, as a `Row` or a mapping of its fields; default: a
            plain server without quirks.
        models: ids to offer where the server has no list of its own.
        more: see `HttpProvider` and `BaseLLMProvider`.
    """

    kind = "compatible"

    def __init__(
        self,
        *,
        row: Row | Mapping[str, Any] | None = None,
        models: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        if isinstance(models, str):
            raise InvalidParameterError(f"models must be a sequence of ids, got {models!r}")
        self.row = _row(row)
        self.kind = self.row.id
        self.capabilities = self.row.capabilities
        self.codec = OpenAIChat(self.row.dialect)
        if self.row.image_rule is not None:
            self.image_rule = IMAGE_RULES[self.row.image_rule]
        if self.row.fim is not None:
            # Loaded late, for few servers can do it.
            wire = importlib.import_module("llm_manager.wire.fim")
            self.fim_codec = wire.fim_codec(self.row.fim, self.row.dialect, self.row.fim_path)
        if "embeddings" in self.capabilities:
            self.embedding_codec = OpenAIEmbeddings(extra=self.row.embedding_extra)
        more.setdefault("name", self.row.name)
        super().__init__(
            headers={**_headers_for(more.get("base_url"), self.row), **(headers or {})},
            default_base_url=self.row.base_url,
            base_url_variables=self.row.base_url_variables,
            key_variables=self.row.key_variables,
            key_required=self.row.key_required,
            **more,
        )
        self._static_models = tuple(models) or self.row.models
        self._details: list[LLMModelInfo] = []

    async def _list_models(self) -> Sequence[LLMModelInfo]:
        if self.row.models_path is None:
            named = dict.fromkeys(
                [*self._static_models, *([self.active_model] if self.active_model else [])]
            )
            return [LLMModelInfo(id=model, provider_id=self.id) for model in named]
        data = await self.transport.get(self.row.models_path, timeout_s=_LIST_TIMEOUT_S)
        if self.row.details_path is not None:
            await self._read_details(self.row.details_path)
        return with_details(self._decoded(data), self._details)

    async def _read_details(self, path: str) -> None:
        """Read what another list of the server tells; what was read before stays otherwise."""
        try:
            self._details = self._decoded(await self._get_details(path))
        except ProviderError as error:
            log.debug("%s: no details of the models: %s", self.id, error)

    def _decoded(self, data: bytes) -> list[LLMModelInfo]:
        return decode_models(data, self.id, without_prefix=self.row.models_prefix)

    async def _get_details(self, path: str) -> bytes:
        header = self.row.details_key_header
        if header is None:
            return await self.transport.get(path, timeout_s=_DETAILS_TIMEOUT_S)
        # The key in two headers at once is refused; so this request has a transport of its own.
        transport = HttpTransport(
            self.base_url,
            headers=lambda: self._headers_with_key(header),
            secrets=self._secrets,
            **self._connect_with,
        )
        try:
            return await transport.get(path, timeout_s=_DETAILS_TIMEOUT_S)
        finally:
            await transport.aclose()

    def _request_headers(self) -> Mapping[str, str]:
        header = self.row.key_header
        return super()._request_headers() if header is None else self._headers_with_key(header)

    def _headers_with_key(self, header: str) -> Mapping[str, str]:
        key = self._key.resolve()
        return self._headers if key is None else {**self._headers, header: key}

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


def _row(given: Row | Mapping[str, Any] | None) -> Row:
    if given is None:
        return ROWS["compatible"]
    if isinstance(given, Row):
        return given
    return row_from(given.get("id", "compatible"), given)


def _headers_for(base_url: str | None, row: Row) -> dict[str, str]:
    """The headers of a row; at another address only those that hold no key of its server."""
    found = {header: os.environ.get(name) for header, name in row.header_variables.items()}
    headers = {**row.headers, **{header: value for header, value in found.items() if value}}
    if base_url is None or row.base_url is None or same_host(base_url, row.base_url):
        return headers
    of_a_key = {name for name in headers if names_a_key(name)}
    of_a_key |= {name for name, variable in row.header_variables.items() if names_a_key(variable)}
    return {name: value for name, value in headers.items() if name not in of_a_key}


class GroqProvider(OpenAICompatibleProvider):
    """Groq; the same as the kind ``"groq"``, for those who import a class."""

    kind = "groq"

    def __init__(self, **settings: Any) -> None:
        super().__init__(row=ROWS["groq"], **settings)
