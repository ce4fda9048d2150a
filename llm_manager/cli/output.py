"""The one place that writes: results to stdout, remarks and errors to stderr.

What it must not do: raise because of a terminal.  A reader that goes away (``| head``), a full
disk, a character that the terminal cannot show - none of them is worth a traceback.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from .exit_codes import EXIT_FAILED, EXIT_OK

# Terminals obey these; a model or a server must not command the user's terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_DIM, _RED, _GREEN, _YELLOW, _BOLD, _PLAIN = (f"\x1b[{n}m" for n in (2, 31, 32, 33, 1, 0))
STYLES = {"dim": _DIM, "red": _RED, "green": _GREEN, "yellow": _YELLOW, "bold": _BOLD}


class Overlay(Protocol):
    """Something that stands on the last line of the terminal and must be drawn again."""

    def clear(self) -> str: ...
    def redraw(self) -> str: ...


class Output:
    """stdout and stderr of one run.

    Attributes:
        reader_left: called once when nobody reads stdout any more, so that work can stop.
        overlay: the input line, while there is one.
    """

    def __init__(self) -> None:
        self.reader_left: Callable[[], object] = lambda: None
        self.overlay: Overlay | None = None
        self._lost: OSError | None = None
        self._line_is_open = False
        self._reasoning_is_open = False
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="replace")

    @property
    def is_terminal(self) -> bool:
        """Whether a person sees stdout."""
        return _is_terminal(sys.stdout)

    @property
    def may_style(self) -> bool:
        """Whether stdout is a terminal that understands styles, and the user wants them."""
        return _may_style(sys.stdout)

    def can_show(self, characters: str) -> bool:
        """Whether stdout's encoding has these characters."""
        try:
            characters.encode(getattr(sys.stdout, "encoding", None) or "ascii")
        except UnicodeEncodeError:
            return False
        return True

    # ---- results ---------------------------------------------------------------------------------

    def line(self, text: str = "") -> None:
        """One line of the result."""
        self._close_line()
        self._write_result(f"{text}\n")

    def item(self, mark: str, text: str, *, style: str, level: int = 1, indent: int = 0) -> None:
        """One entry of a list; on a terminal folded, with ``indent`` spaces under its text."""
        text, margin = harmless(text), "  " * level
        if self.is_terminal:
            before = " " * len(f"{margin}{mark} ")
            lines = textwrap.wrap(
                text,
                width=max(shutil.get_terminal_size().columns, 40),
                initial_indent=before,
                subsequent_indent=before + " " * indent,
            )
            text = "\n".join(lines).lstrip()
        self.line(f"{margin}{self.styled(mark, style)} {text}")

    def piece(self, text: str) -> None:
        """The next piece of a running text."""
        if not text:
            return
        if self._reasoning_is_open:
            self._reasoning_is_open = False
            self._write(sys.stderr, "\n\n" if _is_terminal(sys.stderr) else "\n")
        self._write_result(self._shown(text, sys.stdout))
        self._line_is_open = not text.endswith("\n")

    def end_of_text(self) -> None:
        """The running text is complete."""
        if self._reasoning_is_open:
            self._reasoning_is_open = False
            self._write(sys.stderr, "\n")
        self._close_line()

    def record(self, record: Any) -> None:
        """One line of JSON."""
        self._write_result(json.dumps(record, ensure_ascii=not self._is_utf8) + "\n")

    def document(self, document: Any) -> None:
        """One JSON document, for people and programs."""
        self._write_result(json.dumps(document, indent=2, ensure_ascii=not self._is_utf8) + "\n")

    def styled(self, text: str, style: str) -> str:
        """``text`` for a line of the result, in a style if the terminal has it."""
        return f"{STYLES[style]}{text}{_PLAIN}" if self.may_style else text

    # ---- beside the result -----------------------------------------------------------------------

    def remark(self, text: str) -> None:
        """One dim line for the person at the terminal."""
        self._aside(text, _DIM)

    def reasoning(self, text: str) -> None:
        """The next piece of what the model thinks aloud."""
        shown = self._shown(text, sys.stderr)
        dim = _may_style(sys.stderr)
        self._write(sys.stderr, f"{_DIM}{shown}{_PLAIN}" if dim else shown)
        self._reasoning_is_open = True

    def warning(self, text: str) -> None:
        """One line that should not be overlooked."""
        self._aside(f"warning: {text}", _YELLOW)

    def error(self, text: str, hint: str | None = None) -> None:
        """What went wrong, and what to do about it."""
        self._aside(f"error: {text}", _RED)
        if hint:
            self._aside(f"hint: {hint}", "")

    def finish(self, code: int) -> int:
        """Write what is still in a buffer; returns ``code`` if all could be written."""
        self._write(sys.stdout, "")
        self._write(sys.stderr, "")
        if self._lost is None:
            return code
        if isinstance(self._lost, BrokenPipeError):
            return EXIT_OK  # the reader had enough; that is no failure of ours
        self.error(f"cannot write the output: {self._lost.strerror}")
        return EXIT_FAILED

    # ---- inside ----------------------------------------------------------------------------------

    @property
    def _is_utf8(self) -> bool:
        return (getattr(sys.stdout, "encoding", "") or "").lower().replace("-", "") == "utf8"

    def _shown(self, text: str, stream: TextIO | None) -> str:
        return harmless(text) if _is_terminal(stream) else text

    def _close_line(self) -> None:
        if self._line_is_open:
            self._line_is_open = False
            self._write_result("\n")

    def _aside(self, text: str, style: str) -> None:
        if self._line_is_open and _is_terminal(sys.stdout) and _is_terminal(sys.stderr):
            self._close_line()
        shown = one_line(text)
        if style and _may_style(sys.stderr):
            shown = f"{style}{shown}{_PLAIN}"
        if self.overlay is not None and _is_terminal(sys.stderr):
            shown = f"{self.overlay.clear()}{shown}\n{self.overlay.redraw()}"
            self._write(sys.stderr, shown)
        else:
            self._write(sys.stderr, f"{shown}\n")

    def _write_result(self, text: str) -> None:
        error = self._write(sys.stdout, text)
        if error is not None and self._lost is None:
            self._lost = error
            self.reader_left()

    def _write(self, stream: TextIO | None, text: str) -> OSError | None:
        if stream is None or stream.closed:
            return None
        try:
            stream.write(text)
            stream.flush()
        except OSError as error:
            _discard_the_rest(stream)
            return error
        return None


def harmless(text: str) -> str:
    """``text`` without control characters, line breaks and tabs apart."""
    return _CONTROL.sub("", text)


def one_line(text: str) -> str:
    """``text`` without control characters and line breaks."""
    return harmless(" ".join(text.split()))


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _may_style(stream: TextIO | None) -> bool:
    return (
        _is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def _discard_the_rest(stream: TextIO) -> None:
    """Let what is still buffered go nowhere: the interpreter flushes once more when it ends."""
    try:
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except (OSError, ValueError):
        return
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
