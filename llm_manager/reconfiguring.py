"""Other settings while it runs: what happens when a key, an address or anything else changes.

A second provider is made of the new settings, which checks them, and opens what they need.  Then
this one puts them on, all at once.  What was open before is closed when its last request has ended.

What this file must not do: know what any setting means.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Self

import msgspec

from .config import GivenSettings, Secret
from .emitter import EventEmitter
from .errors import ConfigurationError, InvalidParameterError, without_secrets
from .lease import Close
from .messages import LLMRequest
from .policy import Exchange, Stage, check_stage
from .redaction import redact
from .status import Reason
from .supervisor import Backoff

if TYPE_CHECKING:
    from .connection import Connection

# What makes this provider this one, whatever its settings are.
_IDENTITY = frozenset(vars(EventEmitter())) | {
    "id", "source_id", "publish", "config_revision", "_machine", "_connection", "_catalog",
    "_running", "_begun", "_active_model", "_policies", "_send_with_policies",
    "_with_given_policies", "_added", "_host",
}  # fmt: skip
_FORMER_SECRETS = 8
# Settings that concern requests only: a connection need not begin anew for them.
_OF_REQUESTS = frozenset({"name", "default_model", "default_options", "timeouts", "policies"})

_NOT_SHOWN = _OF_REQUESTS | {"id", "api_key", "reconnect", "probe_interval_s", "clock"}


class Reconfigurable(EventEmitter):
    """The part of `BaseLLMProvider` that keeps its settings, changes and pickles them."""

    kept_on_update: ClassVar[frozenset[str]] = frozenset()
    """Names of attributes that are no settings: `update_config` leaves them as they are."""
    _given: tuple[tuple[Any, ...], GivenSettings]
    _former: tuple[Secret, ...] = ()
    config_revision: int
    """Grows by one whenever `update_config` changes something."""
    id: str
    is_local: bool
    probe_interval_s: float | None
    _active_model: str | None
    _backoff: Backoff
    _connection: Connection
    _policies: tuple[Stage, ...]
    _added: tuple[Stage, ...] = ()
    _with_given_policies: Exchange
    _send_with_policies: Exchange

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        provider: Self = super().__new__(cls)
        # Kept as they were given, for `update_config` and for pickling.
        provider._given = args, GivenSettings(settings)
        return provider

    async def update_config(self, *, if_revision: int | None = None, **settings: Any) -> int:
        """Go on with other settings, without closing what runs.

        Takes what the constructor takes, all but ``id``; what is not given stays.  Everything is
        checked, and a new client is opened, before anything changes.  Running answers end on the
        old client, which is closed after the last of them; new requests use the new one.  A
        provider that is connected, reconnecting or failed goes through ``connecting`` and proves
        itself by a probe in the background; one that is not connected stays so.  Settings that
        concern only requests (``default_options``, ``timeouts``, ``default_model``, ``name``,
        ``policies``) do not touch the connection.

        Args:
            if_revision: change nothing unless `config_revision` is still this one.
            settings: the new ones; an ``api_key`` goes with its ``base_url``: to move to another
                server, give both.

        Returns:
            The new `config_revision`.  Announced as ``configChanged``, without the values.

        Raises:
            InvalidParameterError: there is no such setting, or its value is wrong.
            ConfigurationError: ``if_revision`` is not the present one; or a key that was given for
                one server would go to another.
            LLMError: what the constructor, or opening the new client, raises.
        """
        if "id" in settings:
            raise InvalidParameterError("the id of a provider cannot be changed")
        replaced = None
        while replaced is None:  # while somebody else was faster
            revision = self.config_revision
            if if_revision not in (None, revision):
                raise ConfigurationError(
                    f"the settings have been changed: revision {revision}, not {if_revision}",
                    code="revision_conflict",
                    provider_id=self.id,
                    hint="look at them again, then change them",
                )
            replaced = await self._replace_settings(settings, revision)
        return replaced

    def add_policy(self, stage: Stage) -> None:
        """Put a policy around those that there are; requests that run are not affected.

        The one that is added last is the outermost, except that those which only look, as tracing
        does, are around all others.
        The policies of the constructor keep their state.  Nothing happens if it was added before.

        Raises:
            InvalidParameterError: it is no policy.
        """
        check_stage(stage)
        with self.atomic():
            if not any(added is stage for added in self._added):
                self._add_policies((stage, *self._added))

    def remove_policy(self, stage: Stage) -> None:
        """Take away a policy that was added; nothing happens if it was not."""
        with self.atomic():
            self._add_policies(tuple(added for added in self._added if added is not stage))

    def _add_policies(self, added: tuple[Stage, ...]) -> None:
        # Who only looks sees everything: what the others answer themselves, or refuse.
        self._added = tuple(sorted(added, key=lambda stage: not getattr(stage, "outermost", False)))
        self._send_with_policies = self._with_added(self._with_given_policies)

    def _shown_settings(self) -> str:
        """The settings that were given, as JSON: no keys, none that concerns requests only."""
        args, settings = self._given
        given = {name: value for name, value in settings.items() if name not in _NOT_SHOWN}
        try:
            shown = json.dumps([type(self).__qualname__, _plain(args), _plain(given)])
        except Exception:  # noqa: BLE001 - of somebody's own setting, which holds itself, say
            shown = f"{type(self).__qualname__} {id(self)} {self.config_revision}"  # like no other
        return redact(shown, self._all_secrets())

    def __reduce__(self) -> tuple[Any, ...]:
        """A provider is pickled as its settings; the copy is not connected to anything.

        Raises:
            ConfigurationError: a key is among the settings.
        """
        args, settings = self._given
        if settings.hold(self._unpicklable()):
            raise ConfigurationError(
                f"{self.id} is not pickled, because its settings hold a key",
                provider_id=self.id,
                hint="give the key by its environment variable, which the other process has, too",
            )
        return _unpickled, (type(self), args, {**settings, "id": self.id})

    # ---- what a provider's author may supply -----------------------------------------------------

    @abstractmethod
    async def _open(self) -> None:
        """See `BaseLLMProvider`."""

    @abstractmethod
    async def _close(self) -> None:
        """See `BaseLLMProvider`."""

    @abstractmethod
    def _secrets(self) -> Iterable[str]:
        """See `BaseLLMProvider`."""

    @abstractmethod
    def _with_policies(self) -> Exchange:
        """See `BaseLLMProvider`."""

    @abstractmethod
    def _with_added(self, exchange: Exchange) -> Exchange:
        """``exchange`` with the policies that were added, and with what always is outermost."""

    @abstractmethod
    def set_active_model(self, model: str | None) -> None:
        """See `BaseLLMProvider`."""

    def _check_update(self, new: Self, changes: Mapping[str, Any]) -> None:
        """Refuse a change that cannot be meant."""

    def _all_secrets(self) -> list[str]:
        """Those of these settings and of earlier ones."""
        return [*self._secrets(), *(secret.reveal() for secret in self._former)]

    @contextmanager
    def _masked(self, request: LLMRequest | None = None) -> Iterator[None]:
        """Keep key and prompt out of errors: codecs do not know them, and servers repeat them."""
        try:
            yield
        except Exception as error:  # a provider's author may raise anything
            private = () if request is None else request.private_texts
            known = without_secrets(error, self._all_secrets(), private)
            if known is error:
                raise
            raise known from None

    async def _masked_open(self) -> None:
        with self._masked():
            await self._open()

    async def _masked_close(self) -> None:
        with self._masked():
            await self._close()

    def _unpicklable(self) -> Iterable[str]:
        """Texts that must not leave this process; the default is `_secrets`."""
        return self._secrets()

    async def _replace_settings(self, changes: Mapping[str, Any], revision: int) -> int | None:
        """Take other settings; returns their number, or None if ``revision`` is over."""
        twin = self._twin(changes)
        self._check_update(twin, changes)
        taken: int | None = None

        def take() -> Close | None:
            nonlocal taken
            with self.atomic():
                if self.config_revision != revision:
                    return None
                old = self._sealed()
                self._take_over(twin, changes)
                taken = self.config_revision = revision + 1
            return old._masked_close

        async def prepare(must_open: bool) -> Close | None:
            if must_open:
                try:
                    await twin._masked_open()
                except BaseException:  # also when cancelled: what is half open is closed
                    await twin._masked_close()
                    raise
            close = take()
            if close is None and must_open:
                await twin._masked_close()
            return close

        if changes.keys() <= _OF_REQUESTS:
            take()
            if taken is not None:
                self._connection.announce_settings(changes, taken)
        else:
            reason = (
                Reason.CREDENTIALS_CHANGED if changes.keys() == {"api_key"}
                else Reason.CONFIG_CHANGED
            )  # fmt: skip
            await self._connection.reconfigure(
                prepare, keys=changes, reason=reason, revision=revision + 1
            )
        return taken

    def _twin(self, changes: Mapping[str, Any]) -> Self:
        """A provider of the same kind with other settings, which acts in the place of this one."""
        args, given = self._given
        try:
            twin = type(self)(*args, **{**given, **changes, "id": self.id})
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            raise InvalidParameterError(f"settings of {self.id}: {error}") from None
        # A server may still complain about a key that it was sent before.
        twin._former = (*self._former, *map(Secret, self._secrets()))[-_FORMER_SECRETS:]
        # What it announces and finds out is announced and found out by this one.
        for name in ("_machine", "_connection", "_catalog", "_running", "publish"):
            setattr(twin, name, getattr(self, name))
        return twin

    def _sealed(self) -> Self:
        """A copy that keeps the settings of this moment, for what is opened with them."""
        copy: Self = object.__new__(type(self))
        vars(copy).update(vars(self))
        return copy

    def _take_over(self, twin: Self, changes: Mapping[str, Any]) -> None:
        """Put on the settings of ``twin``."""
        taken = vars(twin).keys() - _IDENTITY - self.kept_on_update
        if changes.keys() <= _OF_REQUESTS:
            taken &= _OF_REQUESTS | {"_given"}  # what is open stays open
        vars(self).update({name: vars(twin)[name] for name in taken})
        for name in vars(self).keys() - vars(twin).keys() - _IDENTITY - self.kept_on_update:
            if hasattr(type(self), name):
                delattr(self, name)  # the new settings leave it as the class has it
        if "policies" in changes:
            self._policies = twin._policies
            self._with_given_policies = self._with_policies()
            self._send_with_policies = self._with_added(self._with_given_policies)
        if "default_model" in changes:
            self.set_active_model(twin._active_model)
        self._connection.retune(
            backoff=twin._backoff,
            probe_interval_s=twin.probe_interval_s,
            survives_sleep=twin.is_local,
        )


def _unpickled(
    kind: type[Reconfigurable], args: tuple[Any, ...], settings: dict[str, Any]
) -> Reconfigurable:
    return kind(*args, **settings)


def _plain(value: object) -> object:
    """``value`` as JSON can tell it, in one order; what is no data is told by its type."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, Mapping):
        return sorted(([str(key), _plain(held)] for key, held in value.items()), key=itemgetter(0))
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    if isinstance(value, Enum):
        return str(value)
    return value if isinstance(value, str | int | float | None) else type(value).__qualname__
