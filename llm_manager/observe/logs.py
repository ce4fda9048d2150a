"""Logging: quiet until asked for, and without keys, prompts and answers unless told.

Everything goes to the logger ``llm_manager`` and its children.  An application that configures
logging itself needs none of this: it gets the records there, and may put a `RedactionFilter` on its
own handler.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidParameterError
from ..redaction import redact
from .log_records import LINE_FORMAT, JsonFormatter, RedactionFilter

log = logging.getLogger("llm_manager.requests")

_package_log = logging.getLogger("llm_manager")

# Parameters that hold what was said, by the names that services and guides have for them.
_CONTENT_NAMES = frozenset(
    {"prompt", "system_prompt", "system", "messages", "input", "prefix", "suffix", "texts", "files"}
)
_SHORT_CHARACTERS = 100


class _Setup:
    """What `setup_logging` has set up; logging is one for the whole process, too."""

    handler: logging.Handler | None = None
    content = False


_setup = _Setup()


def setup_logging(
    level: int | str = "INFO",
    *,
    handler: logging.Handler | None = None,
    json: bool = False,
    content: bool = False,
) -> logging.Handler:
    """Show what the library logs.  Called again, it replaces what it has set up before.

    Lines go to this handler only, not to those of the root logger as well.  `stop_logging` undoes
    it.

    Args:
        level: the least level that is shown, e.g. ``"DEBUG"`` or ``logging.DEBUG``.
        handler: where lines go; default: to stderr.  It gets a `RedactionFilter`, and a format if
            it has none.
        json: one JSON object for each line, with the extra fields.
        content: let `log_request` and `log_response` show texts, at level DEBUG.

    Returns:
        The handler.

    Raises:
        InvalidParameterError: there is no such level, or ``handler`` is none.
    """
    number = _level(level)
    if handler is None:
        handler = logging.StreamHandler()
    elif not isinstance(handler, logging.Handler):
        raise InvalidParameterError(f"handler must be a logging.Handler, got {handler!r:.60}")
    if json:
        handler.setFormatter(JsonFormatter())
    elif handler.formatter is None:
        handler.setFormatter(logging.Formatter(LINE_FORMAT))
    if not any(isinstance(f, RedactionFilter) for f in handler.filters):
        handler.addFilter(RedactionFilter())
    stop_logging()
    _setup.handler, _setup.content = handler, content
    _package_log.addHandler(handler)
    _package_log.setLevel(number)
    _package_log.propagate = False
    return handler


def stop_logging() -> None:
    """Undo `setup_logging`; nothing happens if nothing is set up."""
    if _setup.handler is None:
        return
    _package_log.removeHandler(_setup.handler)
    _package_log.setLevel(logging.NOTSET)
    _package_log.propagate = True
    _setup.handler, _setup.content = None, False


def log_request(provider: str, prompt: str, parameters: Mapping[str, Any] | None = None) -> None:
    """Log at DEBUG that ``prompt`` is sent: its length, and its text if content was asked for.

    Args:
        provider: id of the provider.
        prompt: what is asked.
        parameters: with what; texts, messages and files in it are content as well.
    """
    if not log.isEnabledFor(logging.DEBUG):
        return
    shown = {name: _shown(name, value) for name, value in (parameters or {}).items()}
    listed = "".join(f", {name}={value!r}" for name, value in shown.items())
    log.debug(
        "request to %s: %s%s",
        provider,
        _said(prompt),
        redact(listed),
        extra={
            "event": "request",
            "provider_id": provider,
            "model": shown.get("model"),
            "characters": len(prompt),
        },
    )


def log_response(provider: str, response: str | None) -> None:
    """Log at DEBUG that ``response`` has come: its length, and its text if content was asked for.

    Args:
        provider: id of the provider.
        response: what it answered; None if it answered with no text.
    """
    if not log.isEnabledFor(logging.DEBUG):
        return
    log.debug(
        "response of %s: %s",
        provider,
        _said(response),
        extra={"event": "response", "provider_id": provider, "characters": len(response or "")},
    )


def _said(text: str | None) -> str:
    return redact(text or "") if _setup.content else f"{len(text or '')} characters"


def _shown(name: str, value: Any) -> Any:
    """A parameter as it may be logged: what may be content only by its size."""
    if _setup.content or value is None or isinstance(value, bool | int | float):
        return value
    # Words with a space between them may be what somebody said, whatever the parameter's name.
    word = isinstance(value, str) and len(value) <= _SHORT_CHARACTERS and len(value.split()) <= 1
    if word and name not in _CONTENT_NAMES:
        return value
    size = f", {len(value)} long" if hasattr(value, "__len__") else ""
    return f"<{type(value).__name__}{size}>"


def _level(level: int | str) -> int:
    known = logging.getLevelNamesMapping()
    if isinstance(level, str) and level.upper() in known:
        return known[level.upper()]
    if isinstance(level, int) and not isinstance(level, bool) and level >= 0:
        return level
    raise InvalidParameterError(
        f"level must be the name or the number of a level, got {level!r:.60}",
        hint="use DEBUG, INFO, WARNING, ERROR or CRITICAL",
    )
