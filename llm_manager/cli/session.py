"""One run of a command: its arguments, its manager, the signals that end it, its exit code.

::

    SIGINT   -> what `Session.on_interrupt` says at the moment, else the end with 130
    SIGTERM  -> the end with 143
    the end  -> the command is cancelled, the manager is closed, and nothing is left running
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from llm_manager import (
    AuthenticationError,
    BaseLLMProvider,
    ConfigurationError,
    DependencyMissingError,
    Discovered,
    InvalidParameterError,
    LLMError,
    LLMProviderManager,
    ModelNotFoundError,
    ProviderNotFoundError,
    UnsupportedFeatureError,
    discover,
    register_configured,
)
from llm_manager.registry import get_settings, kinds

from .exit_codes import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from .output import Output

Command = Callable[["Session"], Awaitable[int]]
Find = Callable[[], Awaitable[list[Discovered]]]

# Who types --base-url without --provider means a server of the OpenAI dialect.
_KIND_OF_A_URL = "compatible"
# A running answer may end when the work is done; who pressed Ctrl-C does not want to wait.
_DRAIN_S = 2.0
_DRAIN_WHEN_STOPPED_S = 0.2

_MISTAKES = (
    ConfigurationError,
    DependencyMissingError,
    InvalidParameterError,
    ModelNotFoundError,
    ProviderNotFoundError,
    UnsupportedFeatureError,
)

_OPTION_OF_SETTING = {"base_url": "--base-url", "api_key": "--key-env"}

# What the library says to programmers, in the words of this program.
_HINTS = (
    (", or pass api_key=", ", or name another variable with --key-env"),
    ("pass api_key=", "name the variable that holds the key with --key-env"),
    ("pass base_url=, e.g. ", "pass --base-url, e.g. "),
    ("pass the id of a model, or set default_model", "name one with --model"),
)


class Session:
    """What a command works with.

    Attributes:
        arguments: what was typed.
        output: where to write.
        manager: holds the providers of this run.
        find: tells what this machine offers.
    """

    def __init__(self, arguments: argparse.Namespace, output: Output, find: Find) -> None:
        self.arguments = arguments
        self.output = output
        self.find = find
        self.manager = LLMProviderManager()
        self._stopped_by: signal.Signals | None = None
        self._on_interrupt: Callable[[], object] | None = None

    @contextmanager
    def on_interrupt(self, instead: Callable[[], object]) -> Iterator[None]:
        """Inside, Ctrl-C calls ``instead`` and ends nothing else."""
        before, self._on_interrupt = self._on_interrupt, instead
        try:
            yield
        finally:
            self._on_interrupt = before

    def report(self, error: LLMError) -> int:
        """Write an error and its hint; returns the exit code that it means."""
        self.output.error(error_text(error), hint_text(error.hint))
        return exit_code_of(error)

    # ---- which providers -------------------------------------------------------------------------

    async def add_providers(self) -> list[BaseLLMProvider]:
        """Register what the arguments name, else what this machine offers.

        Raises:
            LLMError: what they name does not exist or cannot be built.
        """
        if self.named:
            return [await self.add_named()]
        return await self.add_found()

    @property
    def named(self) -> bool:
        """Whether the arguments say which provider is meant."""
        return self.arguments.provider is not None or self.arguments.base_url is not None

    async def add_named(self) -> BaseLLMProvider:
        """Register the provider that the arguments name.

        Raises:
            LLMError: it does not exist or cannot be built.
        """
        kind = self.arguments.provider
        if kind is None:
            kind = _KIND_OF_A_URL
        settings = self._settings()
        if kind not in (*kinds(), *get_settings().provider_ids):
            found = next((f for f in await self.find() if _id_of(f) == kind), None)
            if found is not None:
                kind, settings = found.kind, {**found.settings, **settings}
        try:
            provider: BaseLLMProvider = self.manager.register_provider(kind, **settings)
            return provider
        except InvalidParameterError as error:
            for setting, option in _OPTION_OF_SETTING.items():
                if error.message.endswith(f"{setting}: unknown setting"):
                    error.message = f"the provider {kind!r} takes no {option}"
                    error.hint = None
            raise

    async def add_found(self) -> list[BaseLLMProvider]:
        """Register what the settings name, then what else this machine offers.

        What cannot be built is a failed provider if the settings name it, else only mentioned.
        """
        added = await self._add_configured()
        for found in await self.find():
            if found.available and _id_of(found) not in self.manager.providers:
                try:
                    added.append(self.manager.register_provider(found.kind, **found.settings))
                except LLMError as error:
                    self.output.warning(f"{found.kind} ({found.origin}): {error_text(error)}")
        return added

    async def _add_configured(self) -> list[BaseLLMProvider]:
        try:
            return await asyncio.to_thread(register_configured, self.manager, plugins=False)
        except LLMError as error:
            self.output.warning(error_text(error))
            return []

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        if self.arguments.base_url is not None:
            settings["base_url"] = self.arguments.base_url
        variable = self.arguments.key_env
        if variable is not None:
            key = os.environ.get(variable)
            if not key:
                raise InvalidParameterError(
                    f"the environment variable {variable!r} is not set",
                    hint="--key-env takes the name of a variable, not the key itself",
                )
            settings["api_key"] = key
        return settings

    # ---- the end ---------------------------------------------------------------------------------

    async def supervise(self, command: Command) -> int:
        """Run the command until it ends or a signal ends it; closes the manager in either case."""
        task = asyncio.current_task()
        assert task is not None
        self.output.reader_left = task.cancel
        try:
            with self._signals(task):
                try:
                    return await command(self)
                except LLMError as error:
                    return self.report(error)
                finally:
                    stopped = task.cancelling() > 0
                    await self.manager.close(_DRAIN_WHEN_STOPPED_S if stopped else _DRAIN_S)
        except asyncio.CancelledError:
            self.output.end_of_text()
            return EXIT_OK if self._stopped_by is None else 128 + self._stopped_by

    def _signalled(self, number: signal.Signals, task: asyncio.Task[Any]) -> None:
        if number == signal.SIGINT and self._on_interrupt is not None:
            self._on_interrupt()
            return
        self._stopped_by = self._stopped_by or number
        task.cancel()

    @contextmanager
    def _signals(self, task: asyncio.Task[Any]) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # somebody else's process: signals are theirs
            return
        loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            _handle(loop, number, self._signalled, task)
        try:
            yield
        finally:
            for number in numbers:
                if sys.platform != "win32":
                    loop.remove_signal_handler(number)
                signal.signal(number, before[number])


def run(
    command: Command, arguments: argparse.Namespace, output: Output, *, find: Find = discover
) -> int:
    """Run ``command`` on an event loop of its own; returns the exit code."""

    async def supervised() -> int:
        return await Session(arguments, output, find).supervise(command)

    with _logging(output, verbose=arguments.verbose):
        return asyncio.run(supervised())


def report_nothing_found(session: Session) -> int:
    """Say that this machine offers nothing; returns the exit code."""
    session.output.error(
        "no provider was found: no API key in the environment, no server on this machine",
        "'llm-manager doctor' tells what to do; '--provider echo' needs neither",
    )
    return EXIT_FAILED


def screen() -> ModuleType:
    """The module that draws on a terminal.

    Raises:
        DependencyMissingError: rich is not installed.
    """
    try:
        return importlib.import_module(f"{__package__}.screen")
    except ImportError as error:
        missing = error.name
    raise DependencyMissingError(
        f"drawing on a terminal needs the package {missing or 'rich'}, which is not installed",
        extra="cli",
    )


def error_text(error: LLMError) -> str:
    """What went wrong, on which provider, without the hint."""
    text = error.message or error.code
    return text if error.provider_id is None else f"{error.provider_id}: {text}"


def hint_text(hint: str | None) -> str | None:
    """A hint of the library in the words of this program."""
    if hint is None:
        return None
    for theirs, ours in _HINTS:
        if theirs in hint:
            return hint.replace(theirs, ours)
    return hint


def exit_code_of(error: LLMError) -> int:
    """2 for what the user has to correct, 1 for what a provider did."""
    # Without an answer it was found out here: the key is missing or cannot be sent.
    local = isinstance(error, AuthenticationError) and error.http_status is None
    return EXIT_USAGE if local or isinstance(error, _MISTAKES) else EXIT_FAILED


def _id_of(found: Discovered) -> str:
    return str(found.settings.get("id", found.kind))


def _handle(
    loop: asyncio.AbstractEventLoop, number: signal.Signals, call: Callable[..., None], task: Any
) -> None:
    if sys.platform == "win32":
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(call, number, task))
    else:
        loop.add_signal_handler(number, call, number, task)


@contextmanager
def _logging(output: Output, *, verbose: bool) -> Iterator[None]:
    """Warnings of the library as remarks; with ``verbose`` everything that it logs."""
    log = logging.getLogger("llm_manager")
    handler = _LogToOutput(output, verbose)
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.WARNING)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


class _LogToOutput(logging.Handler):
    def __init__(self, output: Output, verbose: bool) -> None:
        super().__init__()
        self._output = output
        self._verbose = verbose

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if not self._verbose:
            # What is said about listeners concerns programmers; errors are told as events.
            if record.name != "llm_manager.events":
                self._output.warning(text)
            return
        self._output.remark(f"{record.levelname.lower()} {record.name}: {text}")
        if record.exc_info is not None:
            for line in logging.Formatter().formatException(record.exc_info).splitlines():
                self._output.remark(f"  {line}")
