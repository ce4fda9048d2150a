"""Checks of keys: they go into one header, and nowhere else."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

import pytest

from ...errors import LLMError
from ...provider import BaseLLMProvider
from ..peer import Request
from .base import KEY, HttpKit
from .expect import expect
from .stage import Stage, check
from .wire import WORDS, with_steps_behind


class SecretChecks(HttpKit):
    """What a provider does with its key."""

    @check
    async def test_the_key_goes_into_its_header_and_nowhere_else(self, stage: Stage) -> None:
        provider = stage.make()
        stage.plays(provider, self.wanted)
        await provider.connect()
        await provider.generate_completion(self.model, self.prompt)
        for request in stage.server.requests:
            where = f"{request.method} {request.path.partition('?')[0]}"
            places = _places_of_key(request)
            header = self.key_header_of(request)
            allowed = set() if header is None else {f"header {header}"}
            expect(
                places <= allowed,
                f"{where}: the key belongs into {sorted(allowed) or 'nothing'} and is in "
                f"{sorted(places)}",
            )
        question = stage.server.questions[0]
        if self.key_header is not None:
            expect(
                question.headers.get(self.key_header) == f"{self.key_prefix}{KEY}",
                f"the question lacks the key in the header {self.key_header!r} behind "
                f"{self.key_prefix!r}",
            )

    @check
    async def test_the_key_is_in_no_error_event_log_or_text(self, stage: Stage) -> None:
        if self.key_header is None:
            pytest.skip("the provider takes no key")
        provider = stage.make()
        with _log_records() as records:
            errors = await self._failures(stage, provider, f"Incorrect key provided: {KEY}")
            plain_errors = await self._failures(stage, provider, "Incorrect key provided")
        expect(len(errors) >= 3, f"of the failures of the server only {errors} became errors")
        events = stage.events_of(provider)
        shown = {
            "its repr": [repr(provider), repr(provider.status)],
            "repr(vars()) of it; keep it in a Secret or an ApiKey": [repr(vars(provider))],
            "an event": [f"{event!r} {json.dumps(event.to_dict())}" for event in events],
            "a log record": [_shown_record(record) for record in records],
            "an error": [text for error in errors for text in _texts_of(error)],
            "a traceback": ["".join(traceback.format_exception(error)) for error in errors],
            "a local variable, which error reporters show": [
                _with_local_variables(error) for error in plain_errors
            ],
            "a pickled error": [pickle.dumps(error).decode("latin-1") for error in errors],
        }
        for place, texts in shown.items():
            leaks = [text for text in texts if KEY in text]
            expect(not leaks, f"the key is in {place}: {'; '.join(map(_around_key, leaks[:3]))}")
        for error in errors:
            foreign = [each for each in _chain(error) if not _is_harmless(each)]
            expect(
                not foreign,
                f"{error!r} drags along {foreign}, whose objects may hold the request with its "
                "key; leave the except block before raising, and keep the text in original=",
            )

    async def _failures(
        self, stage: Stage, provider: BaseLLMProvider, message: str
    ) -> list[LLMError]:
        """The errors of a server that says ``message`` in every way it can."""
        errors: list[LLMError] = []
        stage.server.refuses(self.error(401, message))
        await _collect(errors, provider.connect())
        stage.server.accepts()
        for status in (400, 401, 500):
            stage.server.plays(self.error(status, message))
            await _collect(errors, self._asking(provider))
        inside = self.error_inside(message)
        if inside is not None:
            stage.server.plays(with_steps_behind(self.stream(self.wanted), WORDS[0], inside.body))
            await _collect(errors, self._asking(provider))
        await stage.server.goes_away()
        await _collect(errors, self._asking(provider))
        await stage.server.comes_back()
        return errors

    async def _asking(self, provider: BaseLLMProvider) -> None:
        await provider.generate_completion(
            self.model, self.prompt, options={"retries": {"attempts": 1}}
        )


async def _collect(errors: list[LLMError], work: Awaitable[object]) -> None:
    try:
        await work
    except LLMError as error:
        errors.append(error)


def _places_of_key(request: Request) -> set[str]:
    places = {f"header {name}" for name, value in request.headers.items() if KEY in value}
    if KEY in request.path:
        places.add("the URL")
    if KEY.encode() in request.body:
        places.add("the body")
    return places


@contextmanager
def _log_records() -> Iterator[list[logging.LogRecord]]:
    """All records of all loggers while the block runs."""
    handler = _Keeper()
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler.records
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


class _Keeper(logging.Handler):
    """Keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def _shown_record(record: logging.LogRecord) -> str:
    return f"{logging.Formatter().format(record)} {record.args!r}"


def _chain(error: BaseException) -> list[BaseException]:
    """What an error drags along."""
    found: list[BaseException] = []
    waiting = [error.__cause__, error.__context__]
    while waiting:
        each = waiting.pop()
        if each is not None and each not in found:
            found.append(each)
            waiting += [each.__cause__, each.__context__]
    return found


def _is_harmless(error: BaseException) -> bool:
    """Whether it is an error of ours or of Python's own, which hold no requests."""
    return isinstance(error, LLMError) or type(error).__module__ == "builtins"


def _texts_of(error: LLMError) -> list[str]:
    return [f"{each!s} {each!r} {vars(each)!r}" for each in (error, *_chain(error))]


def _with_local_variables(error: LLMError) -> str:
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(shown.format())


def _around_key(text: str) -> str:
    place = text.index(KEY)
    return repr(text[max(0, place - 80) : place + len(KEY) + 20])
