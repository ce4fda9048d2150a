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

from .events import EventEmitter, StatusChanged
from .status import LEGAL_TRANSITIONS, LLMProviderStatus, ProviderStatus, Reason

log = logging.getLogger("llm_manager.status")


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
        self.state = LLMProviderStatus(provider_id=provider_id, instance_id=uuid4().hex[:12])
        self.stale_evidence = 0
        self._emitter = emitter

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
            epoch: to which epoch the evidence belongs; from an older one it changes nothing.
            fields: other fields of the snapshot.

        Raises:
            IllegalTransitionError: in strict mode, if the table has no such step.
        """
        with self._emitter.atomic():
            previous = self.state
            if epoch is not None and epoch != previous.epoch:
                self.stale_evidence += 1
                return False
            word = previous.status if status is None else status
            if word is not previous.status:
                if word not in LEGAL_TRANSITIONS[previous.status]:
                    return self._refuse(previous, word)
                fields["since"] = datetime.now(UTC)
            current = msgspec.structs.replace(
                previous, status=word, reason=reason or previous.reason, **fields
            )
            if current.same_state(previous):
                self.state = current
                return False
            current = msgspec.structs.replace(current, seq=previous.seq + 1)
            self.state = current
            event = StatusChanged(
                provider_id=current.provider_id, previous=previous, current=current
            )
            self._emitter.publish(event)
            if word is not previous.status:
                self._emitter.emit(word.value, event)
            return True

    def measure(self, **fields: Any) -> None:
        """Update measurements, which are no change of the state."""
        with self._emitter.atomic():
            self.state = msgspec.structs.replace(self.state, **fields)

    def begin_epoch(self) -> int:
        """Make all evidence gathered so far void; returns the new epoch."""
        with self._emitter.atomic():
            self.state = msgspec.structs.replace(self.state, epoch=self.state.epoch + 1)
            return self.state.epoch

    def _refuse(self, previous: LLMProviderStatus, word: ProviderStatus) -> bool:
        text = f"{previous.provider_id}: no step from {previous.status} to {word}"
        if self.strict:
            raise IllegalTransitionError(text)
        log.error("%s; ignored", text)
        return False
