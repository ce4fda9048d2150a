"""What log lines look like: without keys, and as JSON if wanted."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..redaction import MASK, redact

LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_OF_EVERY_RECORD = frozenset(
    {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}
)
_SECRET_NAME = re.compile(
    r"api[_-]?key|authorization|password|passwd|secret|credential|cookie"
    r"|(?:^|[_-])(?:access|auth|bearer|refresh)[_-]?token$|^token$",
    re.IGNORECASE,
)
_DEPTH = 8

_exceptions = logging.Formatter()


class RedactionFilter(logging.Filter):
    """Masks keys in the message, the arguments, the extra fields and the traceback of log records.

    Masked is whatever looks like a key, the values of fields and dictionary entries that are named
    like one (``api_key``, ``authorization`` ...), and the texts in ``secrets``.  A record without
    any stays as it is; one that is masked already stays so.

    Put it on a handler: a filter on a logger does not see what its children log.  A record is
    shared by all handlers, so those that come later get it masked, too; where its traceback had to
    be masked, only the text of that is left.

    Args:
        secrets: texts to mask, however they look.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = tuple(secrets)

    def filter(self, record: logging.LogRecord) -> bool:
        self._mask_message(record)
        self._mask_traceback(record)
        for name, value in extra_of(record).items():
            masked = MASK if _is_secret(name, value) else self._masked(value)
            if masked is not value:
                setattr(record, name, masked)
        return True

    def _mask_message(self, record: logging.LogRecord) -> None:
        if record.args:
            record.args = self._masked(record.args)
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit; the handler will complain
            record.msg = redact(str(record.msg), self._secrets)
            return
        masked = redact(message, self._secrets)
        if masked != message:
            record.msg, record.args = masked, ()

    def _mask_traceback(self, record: logging.LogRecord) -> None:
        if record.exc_info and not record.exc_text:
            text = _exceptions.formatException(record.exc_info)
        else:
            text = record.exc_text or ""
        masked = redact(text, self._secrets)
        if masked != text:
            record.exc_text, record.exc_info = masked, None
        if record.stack_info:
            record.stack_info = redact(record.stack_info, self._secrets)

    def _masked(self, value: Any, depth: int = _DEPTH) -> Any:
        """``value`` without keys; the object itself if there are none in it."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            masked = redact(value, self._secrets)
            return value if masked == value else masked
        if depth and isinstance(value, Mapping):
            entries = {
                key: MASK if _is_secret(key, entry) else self._masked(entry, depth - 1)
                for key, entry in value.items()
            }
            return value if all(entries[key] is value[key] for key in value) else entries
        if depth and type(value) in (list, tuple, set, frozenset):
            items = [self._masked(item, depth - 1) for item in value]
            same = all(a is b for a, b in zip(items, value, strict=True))
            return value if same else type(value)(items)
        return self._masked_object(value)

    def _masked_object(self, value: object) -> Any:
        try:
            text, shown = str(value), repr(value)
        except Exception:  # noqa: BLE001 - somebody else's object, which nobody could print either
            return f"<{type(value).__name__}>"
        if redact(shown, self._secrets) == shown and redact(text, self._secrets) == text:
            return value
        return redact(text, self._secrets)


class JsonFormatter(logging.Formatter):
    """One JSON object in one line for each record.

    Its keys are ``time`` (UTC), ``level``, ``logger``, ``message``, those of the extra fields, and
    ``exception`` and ``stack`` if there are any.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **extra_of(record),
        }
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            fields["exception"] = record.exc_text
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return _json(fields)


def extra_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as ``extra`` with a record."""
    return {key: v for key, v in record.__dict__.items() if key not in _OF_EVERY_RECORD}


def _is_secret(name: object, value: object) -> bool:
    hidden = isinstance(value, str | bytes) and value != MASK
    return hidden and isinstance(name, str) and _SECRET_NAME.search(name) is not None


def _json(fields: Mapping[str, Any]) -> str:
    try:
        return msgspec.json.encode(fields, enc_hook=str).decode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        # Keys that are no texts, a list that contains itself, half of a character pair.
        texts = {str(key): _encodable(str(value)) for key, value in fields.items()}
        return msgspec.json.encode(texts).decode()


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
