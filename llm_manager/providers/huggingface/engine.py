"""The worker's work: takes commands, computes, reports.  Runs in the worker's main thread.

Between two steps of the batch it looks at what has come in, so that a request can join, and one
that is not wanted any more leaves, while others are being answered.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path
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
            idle = not self._waiting and not (self._batch and self._batch.rows)
            for command in self._arrived(wait=idle):
                self._take(command)
            self._admit()
            self._step()

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

    def _admit(self) -> None:
        """Let waiting requests join as long as there is room."""
        while self._waiting and self._batch is not None and self._has_room(self._batch):
            command = self._waiting.pop(0)
            self._guarded(command.id, lambda command=command: self._begin(command))  # type: ignore[misc]
            for late in self._arrived(wait=False):  # reading a prompt takes a while
                self._take(late)
        if self._waiting and self._batch is None:
            for command in self._waiting:
                self._fail(command.id, ProviderAPIError("this model cannot write answers"))
            self._waiting.clear()

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
        )
        piece = batch.begin(row)
        self._send(Began(command.id, len(prompt), opening))
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
