"""The one writer of a provider's state.

A change and its announcement happen under one lock, so every listener sees every step, in the
order in which the state took them.  Reading `StatusMachine.state` takes no lock.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import uuid4

import msgspec

from ._threads import reset_after_fork
from .emitter import EventEmitter
from .events import StatusChanged
from .status import LEGAL_TRANSITIONS, LLMProviderStatus, ProviderStatus, Reason

log = logging.getLogger("llm_manager.status")


_OPEN_TO_EVIDENCE = frozenset(
    {
        ProviderStatus.CONNECTING,
        ProviderStatus.CONNECTED,
        ProviderStatus.DEGRADED,
        ProviderStatus.RECONNECTING,
    }
)


class IllegalTransitionError(RuntimeError):
    """A step that the table of legal transitions does not have; a defect of the program."""


class StatusMachine:
    """Holds the snapshot of one provider, and moves it along legal transitions only.

    Attributes:
        state: the present snapshot.
        stale_evidence: how many changes were dropped because they belonged to an older epoch.
        strict: raise `IllegalTransitionError` instead of logging it; on in tests.
    """

    strict: ClassVar[bool] = False

    def __init__(self, emitter: EventEmitter, provider_id: str) -> None:
        self.state = LLMProviderStatus(provider_id=provider_id, instance_id=_new_instance_id())
        self.stale_evidence = 0
        self._emitter = emitter
        reset_after_fork(self)

    def change(
        self,
        status: ProviderStatus | None = None,
        reason: Reason | None = None,
        *,
        epoch: int | None = None,
        **fields: Any,
    ) -> bool:
        """Take one step and announce it; says whether anything changed.

        Args:
            status: the new word, or None to keep it.
            reason: why, or None to keep the reason.
            epoch: to which epoch the evidence belongs; it changes nothing if that is over, or if
                the provider has failed or was stopped: what comes late cannot wake it.
            fields: other fields of the snapshot.

        Raises:
            IllegalTransitionError: in strict mode, if the table has no such step.
        """
        try:
            with self._emitter.atomic():
                if epoch is not None and self._is_stale(epoch):
                    self.stale_evidence += 1
                    return False
                return self._step(status or self.state.status, reason or self.state.reason, fields)
        except IllegalTransitionError as error:
            if self.strict:
                raise
            # Not before the lock is free: a log handler may wait for another thread that emits.
            log.error("%s; ignored", error)  # noqa: TRY400 - the way here is of no interest
            return False

    def measure(self, **fields: Any) -> None:
        """Update measurements, which are no change of the state."""
        with self._emitter.atomic():
            self.state = msgspec.structs.replace(self.state, **fields)

    def begin_epoch(self) -> int:
        """Make all evidence gathered so far void; returns the new epoch."""
        with self._emitter.atomic():
            self.state = msgspec.structs.replace(self.state, epoch=self.state.epoch + 1)
            return self.state.epoch

    def _is_stale(self, epoch: int) -> bool:
        return epoch != self.state.epoch or self.state.status not in _OPEN_TO_EVIDENCE

    def _step(self, word: ProviderStatus, reason: Reason, fields: dict[str, Any]) -> bool:
        previous, now = self.state, datetime.now(UTC)
        moved = word is not previous.status
        if moved:
            if word not in LEGAL_TRANSITIONS[previous.status]:
                raise IllegalTransitionError(
                    f"{previous.provider_id}: no step from {previous.status} to {word}"
                )
            fields["since"] = now
        current = msgspec.structs.replace(
            previous, status=word, reason=reason, seq=previous.seq + 1, **fields
        )
        if current.same_state(previous):
            self.state = msgspec.structs.replace(current, seq=previous.seq)
            return False
        self.state = current
        event = StatusChanged(
            provider_id=current.provider_id, at=now, previous=previous, current=current
        )
        self._emitter.publish(event)
        if moved:
            self._emitter.emit(word.value, event)
        return True

    def _after_fork(self) -> None:
        """In a child process nothing is connected, and what the parent knows is no evidence."""
        state = self.state
        if state.status in (ProviderStatus.DISCONNECTED, ProviderStatus.CLOSED):
            self.state = msgspec.structs.replace(state, instance_id=_new_instance_id())
            return
        self.state = LLMProviderStatus(
            provider_id=state.provider_id,
            instance_id=_new_instance_id(),
            reason=Reason.FORKED,
            seq=state.seq + 1,
            epoch=state.epoch + 1,
            since=datetime.now(UTC),
            models_revision=state.models_revision,
            models_stale=state.models_stale,
        )


def _new_instance_id() -> str:
    return uuid4().hex[:12]
