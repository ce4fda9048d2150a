"""`UnusableProvider`: stands where a provider should be that could not be made."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, NoReturn

from ..asking import Options
from ..errors import ConfigurationError, LLMError
from ..messages import LLMModelInfo, LLMRequest, Operation
from ..provider import BaseLLMProvider
from ..status import ErrorInfo, ProviderStatus, Reason, is_permanent, reason_of

# Requests go their usual way until the error is raised, and on that way they have a model.
_NO_MODEL = "none"


class UnusableProvider(BaseLLMProvider):
    """A provider that could not be made: ``failed`` from the beginning, and it says why.

    It keeps its place in lists and its id, so that a user interface can show what is wrong and
    other providers are not affected.  All that it can do is to raise its error; `reload_settings`
    puts the real one in its place once that can be made.

    Args:
        error: why it could not be made.
        kind: what it should have been.
        id: its id; default: the kind.
    """

    capabilities = frozenset()

    def __init__(self, error: LLMError, *, kind: str, id: str | None = None) -> None:
        self.kind = kind
        self.error = error if is_permanent(error) else _as_permanent(error)
        super().__init__(id=id, policies=())
        self._machine.begin_epoch()
        self._machine.change(ProviderStatus.CONNECTING, Reason.STARTUP)
        self._machine.change(
            ProviderStatus.FAILED, reason_of(self.error), error=ErrorInfo.of(self.error)
        )

    async def update_config(self, *, if_revision: int | None = None, **settings: Any) -> int:
        """Raises why it could not be made: there is nothing that could take settings."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        # A copy: one that is raised again and again would keep the traces of all its readers.
        raise copy(self.error).in_context(provider_id=self.id)

    async def _open(self) -> None:
        self._refuse()

    async def _close(self) -> None:
        pass

    async def _list_models(self) -> Sequence[LLMModelInfo]:
        self._refuse()

    async def _count_tokens(self, request: LLMRequest) -> int | None:
        self._refuse()

    def _request(
        self, model: str | None, options: Options, operation: Operation, **content: Any
    ) -> LLMRequest:
        return super()._request(model or _NO_MODEL, options, operation, **content)

    def _check(self, request: LLMRequest) -> None:
        """Whatever was asked for: it is not what is wrong here."""


def _as_permanent(error: LLMError) -> ConfigurationError:
    """``error`` as one that does not pass by itself; to make it took no network."""
    return ConfigurationError(error.message, hint=error.hint, original=error.original)
