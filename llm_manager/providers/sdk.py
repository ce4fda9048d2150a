"""What providers on an official SDK share: its client sends, our codec reads what comes back."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ..config import warn_if_key_is_readable
from ..errors import InvalidParameterError
from ..messages import LLMRequest
from ..transport.sdk import SdkTransport, address_of
from .http import HttpProvider


class SdkProvider(HttpProvider):
    """A service that its vendor's SDK authorises at and sends to.

    Args:
        base_url: where the service is.
        client: a ready asynchronous client of the SDK to use instead of an own one; its own
            address, key and connection settings count, and the caller closes it.
        models: ids to offer; what for, the provider says.
        key_variables: environment variables that may hold the key.
        more: see `HttpProvider` and `BaseLLMProvider`.

    Raises:
        InvalidParameterError: ``client`` is no such client, or ``models`` is one text.
    """

    library: str
    """Name of the SDK's module, and of the extra that installs it."""

    def __init__(
        self,
        *,
        base_url: str | None = None,
        client: Any = None,
        models: Sequence[str] = (),
        key_variables: Sequence[str] = (),
        **more: Any,
    ) -> None:
        if isinstance(models, str):
            raise InvalidParameterError(f"models must be a sequence of ids, got {models!r}")
        super().__init__(
            base_url=base_url if client is None else address_of(client, self.library),
            client=client,
            key_variables=key_variables if client is None else (),
            key_required=client is None,
            **more,
        )
        self._client = client
        self._named_models = tuple(models)

    @abstractmethod
    async def _new_client(self, sdk: Any, http_client: Any) -> Any:
        """A client of the SDK for one request, with the key of this moment."""

    def _left_out(self, request: LLMRequest) -> Sequence[str]:
        """Names of options that are given and not sent, because they would be refused."""
        return ()

    async def _open(self) -> None:
        if await self._key.ask() is not None:
            warn_if_key_is_readable(self.base_url, self.id)
        # Bound to these settings: a new key must not go where the old one belongs.
        sealed = self._sealed()
        self._transport = SdkTransport(
            self.library,
            self.base_url,
            new_client=sealed._new_client,
            headers=self._headers,
            secrets=sealed._all_secrets,
            connect_timeout_s=self._connect_timeout_s(),
            on_answer=self._note_rate_limits,
            **self._connect_with,
        )
        await self._transport.open()

    def _send(self, body: bytes, request: LLMRequest) -> AsyncGenerator[bytes, None]:
        if missing := self._left_out(request):
            logging.getLogger(f"llm_manager.providers.{self.library}").debug(
                "%s: %s is not sent, because %s does not take it while it reasons, or at all",
                request.id,
                ", ".join(missing),
                request.model,
            )
        return super()._send(body, request)

    def _secrets(self) -> Sequence[str]:
        of_client = getattr(self._client, "api_key", None)
        return (*super()._secrets(), *([of_client] if isinstance(of_client, str) else []))


def without_custom_headers(client: Any, *, but: str | None = None) -> None:
    """Take the headers out of an SDK's client that it read from a variable of the environment.

    They may hold a key, and belong to the server that the environment names.
    """
    kept = {name: value for name, value in client._custom_headers.items() if name == but}
    client._custom_headers = kept
