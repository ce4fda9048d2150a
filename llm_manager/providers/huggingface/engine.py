"""The worker's work: takes commands, computes, reports.  Runs in the worker's main thread.

Between two steps of the batch, and two parts of a prompt, it looks at what has come in, so that a
request can join, and one that is not wanted any more leaves, while others are being answered.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from ...errors import LLMError, ProviderAPIError
from .batch import Batch, Row
from .model import LocalModel
from .protocol import (
    Began,
    Cancel,
    Command,
    Count,
    Counted,
    Done,
    Embed,
    Failed,
    Generate,
    Load,
    Progress,
    Report,
    Text,
    Vectors,
)

# How long prompts are read before answers get their next token, in seconds.
_READS_FOR_S = 0.1


class Engine:
    """Answers the app's requests with one model.

    Args:
        torch, transformers: the modules.
        commands: what comes from the app.
        send: reports to the app.
    """

    def __init__(
        self,
        torch: Any,
        transformers: Any,
        commands: queue.SimpleQueue[Command],
        send: Callable[[Report], None],
    ) -> None:
        self._torch = torch
        self._transformers = transformers
        self._commands = commands
        self._send = send
        self._model: LocalModel | None = None
        self._batch: Batch | None = None
        self._max_batch = 1
        self._waiting: list[Generate] = []

    def run(self) -> None:
        """Work for ever; the process ends with the app's end of the pipe."""
        while True:
            for command in self._arrived(wait=self._is_idle):
                self._take(command)
            self._read()
            self._step()

    @property
    def _is_idle(self) -> bool:
        batch = self._batch
        return not self._waiting and (batch is None or not (batch.rows or batch.reading))

    def _arrived(self, *, wait: bool) -> Iterator[Command]:
        if wait:
            yield self._commands.get()
        while True:
            try:
                yield self._commands.get_nowait()
            except queue.Empty:
                return

    def _take(self, command: Command) -> None:
        match command:
            case Load():
                self._guarded(None, lambda: self._load(command))
            case Generate():
                if self._batch is None:
                    self._fail(command.id, ProviderAPIError("this model cannot write answers"))
                    return
                self._waiting.append(command)
                # Sorting is stable: who came first goes first among equals.
                self._waiting.sort(key=lambda waiting: waiting.rank)
            case Cancel():
                self._waiting = [each for each in self._waiting if each.id != command.id]
                if self._batch is not None:
                    self._batch.remove(command.id)
            case Count():
                self._guarded(command.id, lambda: self._count(command))
            case Embed():
                self._guarded(command.id, lambda: self._embed(command))

    def _load(self, command: Load) -> None:
        self._model = model = LocalModel(
            self._torch,
            self._transformers,
            Path(command.folder),
            command.settings,
            lambda phase, fraction: self._send(Progress(phase, fraction)),
        )
        if model.is_generative:
            self._batch = Batch(self._torch, model.model)
            self._max_batch = command.max_batch
        self._send(model.described)

    def _read(self) -> None:
        """Read prompts that wait, as long as there is room; not for so long that answers falter."""
        ends_s = monotonic() + _READS_FOR_S
        while monotonic() < ends_s and (row := self._next_to_read()) is not None:
            self._guarded(row.id, lambda row=row: self._read_part(row))  # type: ignore[misc]

    def _next_to_read(self) -> Row | None:
        """The row whose prompt is to be read: the one that is begun, or the first that waits."""
        batch = self._batch
        while batch is not None and batch.reading is None and self._waiting:
            if not self._has_room(batch):
                return None
            command = self._waiting.pop(0)
            self._guarded(command.id, lambda command=command: self._begin(command))  # type: ignore[misc]
        return None if batch is None else batch.reading

    def _has_room(self, batch: Batch) -> bool:
        if not batch.rows:
            return True
        return len(batch.rows) < self._max_batch and batch.can_hold_several(batch.cache)

    def _begin(self, command: Generate) -> None:
        model, batch = self._model, self._batch
        assert model is not None
        assert batch is not None
        prompt, opening = model.tokens_of(command.prompt)
        row = Row(
            command.id,
            prompt,
            limit=model.room(len(prompt), command.sampling.max_tokens),
            ends=model.ends,
            sampler=model.sampler(command.sampling),
            text=model.text(command.sampling),
            opening=opening,
        )
        batch.begin(row)

    def _read_part(self, row: Row) -> None:
        assert self._batch is not None
        piece = self._batch.read()
        if piece is not None:
            self._send(Began(row.id, len(row.prompt), row.opening))
            self._tell(row, piece)

    def _step(self) -> None:
        batch = self._batch
        if batch is None or not batch.rows:
            return
        try:
            pieces = batch.step()
        except Exception as error:  # noqa: BLE001 - torch raises anything; the rows must be told
            for row in batch.clear():
                self._fail(row.id, _known(error))
            return
        for row, piece in pieces:
            self._tell(row, piece)

    def _tell(self, row: Row, piece: str) -> None:
        if piece:
            self._send(Text(row.id, piece))
        if row.failure is not None:
            self._fail(row.id, _known(row.failure))
        elif row.reason is not None:
            self._send(Done(row.id, row.reason, len(row.answer)))

    def _count(self, command: Count) -> None:
        assert self._model is not None
        tokens, _ = self._model.tokens_of(command.prompt)
        self._send(Counted(command.id, len(tokens)))

    def _embed(self, command: Embed) -> None:
        assert self._model is not None
        vectors, tokens = self._model.vectors(command.texts)
        self._send(Vectors(command.id, vectors, tokens))

    def _guarded(self, id: str | None, work: Callable[[], None]) -> None:
        """Do ``work``; what goes wrong is told to whoever asked, and the worker lives on."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - models and torch raise anything
            self._fail(id, _known(error))

    def _fail(self, id: str | None, error: LLMError) -> None:
        self._send(
            Failed(
                id=id,
                error=type(error).__name__,
                message=error.message,
                code=error.code,
                hint=error.hint,
            )
        )


def _known(error: Exception) -> LLMError:
    if isinstance(error, LLMError):
        return error
    if "out of memory" in str(error).lower():
        return ProviderAPIError(
            f"there was not enough memory: {str(error).splitlines()[0]}",
            code="out_of_memory",
            retryable=False,
            hint="send a shorter prompt, or load the model with max_batch=1",
        )
    return ProviderAPIError(f"{type(error).__name__}: {error}", retryable=False)
