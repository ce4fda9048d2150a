"""Runs the command line as a person would: as a process, in a pipe or on a terminal."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_S = 30.0

# Makes the terminal on stdin the controlling one, so that a typed Ctrl-C becomes a signal.
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "llm_manager.cli", *arguments]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of whoever runs the tests: no keys, no proxies, no settings."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "huggingface"),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TERM": "xterm",
        **more,
    }


class Terminal:
    """The command line on a terminal of 80 columns and 24 lines."""

    def __init__(self, home: Path, *arguments: str, **more_environment: str) -> None:
        self.seen = ""
        # A read may end in the middle of a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._modes_before = termios.tcgetattr(slave)
        self._slave = slave
        self._process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *command(*arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(home, **more_environment),
            cwd=home,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)
        os.close(self._slave)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, text: str, times: int = 1) -> str:
        """Everything seen so far, once ``text`` is among it (so many times)."""
        deadline = time.monotonic() + TIMEOUT_S
        while self.seen.count(text) < times:
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.seen}"
            self._read(0.2)
        return self.seen

    def ended(self) -> int:
        """The exit code, once the process has ended by itself; reads all that it writes."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end:\n{self.seen}"
            self._read(0.05)
        while self._read(0.05):
            pass
        return self._process.returncode

    @property
    def is_as_before(self) -> bool:
        """Whether echo, line editing and all other modes of the terminal are as at the start."""
        return termios.tcgetattr(self._slave) == self._modes_before

    def _read(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], timeout_s)
        if ready:
            self.seen += self._decoder.decode(os.read(self._master, 65536))
        return bool(ready)


def openai_stream(*words: str) -> list[Any]:
    """The events of an answer in the OpenAI dialect."""
    chunks: list[Any] = [
        {"id": "c", "model": "tiny", "choices": [{"index": 0, "delta": {"content": word}}]}
        for word in words
    ]
    end = {
        "id": "c",
        "model": "tiny",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    }
    return [*chunks, end, "[DONE]"]
