"""Reads what a person types, or a pipe brings, in a thread: the event loop never waits for it.

Editing and history come from `readline` where there is one.  Nothing is written to disk.
"""

from __future__ import annotations

import asyncio
import getpass
import importlib
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Prompt:
    """The input line of a conversation.

    The terminal is left as it was found, even if a line was being typed at the end.
    """

    def __init__(self, text: str = "> ") -> None:
        self._text = text
        self._readline = _optional("readline")
        self._termios = _optional("termios")
        self._modes: Any = None
        self._typing = False

    def __enter__(self) -> Self:
        if self._termios is not None:
            with suppress(self._termios.error):
                self._modes = self._termios.tcgetattr(sys.stdin)
        return self

    def __exit__(self, *error: object) -> None:
        if self._typing:
            sys.stdout.write("\n")
            sys.stdout.flush()
        if self._termios is not None and self._modes is not None:
            with suppress(self._termios.error):
                self._termios.tcsetattr(sys.stdin, self._termios.TCSADRAIN, self._modes)

    async def line(self) -> str | None:
        """The next line without its end; None at the end of the input."""
        self._typing = True
        typed = await _in_a_daemon(lambda: _read_line(self._text))
        # Not so when the waiting is cancelled: then the line stays open until `__exit__`.
        self._typing = False
        return typed

    async def hidden_line(self, text: str) -> str | None:
        """A line that does not show while it is typed, asked for with ``text``."""
        return await _in_a_daemon(lambda: _read_hidden(text))

    def clear(self) -> str:
        """What to write to make room for a line."""
        return "\r\x1b[K" if self._typing else ""

    def redraw(self) -> str:
        """What to write afterwards."""
        if not self._typing:
            return ""
        typed = self._readline.get_line_buffer() if self._readline is not None else ""
        return f"{self._text}{typed}"


async def standard_input() -> str:
    """Everything that comes on stdin until its end."""
    if sys.stdin is None or sys.stdin.closed:
        return ""
    descriptor = sys.stdin.fileno()
    return (await _in_a_daemon(lambda: _read_all(descriptor))).decode("utf-8", "replace")


async def _in_a_daemon(read: Callable[[], T]) -> T:
    """What ``read`` returns; a process can end without waiting for it."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def deliver(value: T) -> None:
        if not result.done():
            result.set_result(value)

    def run() -> None:
        value = read()
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(deliver, value)

    threading.Thread(target=run, name="llm-manager-input", daemon=True).start()
    return await result


def _read_line(text: str) -> str | None:
    try:
        return input(text)
    except UnicodeDecodeError:
        return ""  # bytes that are no text in this terminal's encoding
    except (EOFError, KeyboardInterrupt, OSError, ValueError):
        return None


def _read_hidden(text: str) -> str | None:
    try:
        return getpass.getpass(text)
    except (EOFError, KeyboardInterrupt, OSError, ValueError):
        return None


def _read_all(descriptor: int) -> bytes:
    # Not through `sys.stdin`: its lock, held by a thread that waits, would block the exit.
    pieces = []
    with suppress(OSError):
        while piece := os.read(descriptor, 65536):
            pieces.append(piece)
    return b"".join(pieces)


def _optional(module: str) -> ModuleType | None:
    """A module that not every system has."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
