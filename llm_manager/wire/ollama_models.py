"""Reads what an Ollama server tells about itself, its models, and a download."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..errors import InvalidResponseError, ProviderError, StreamInterruptedError
from ..messages import Capability, Data, LLMModelInfo
from .failures import read_json, unreadable
from .framing import DEFAULT_MAX_LINE_BYTES, NDJSONFramer, ThenError
from .loose import document, field, first_number, text, whole_number

# What Ollama calls the abilities of a model.  Any model that completes text can be held to a
# format: the server does that, by a grammar.
_ABILITIES: dict[str, frozenset[Capability]] = {
    "completion": frozenset({"chat", "completion", "json_object", "json_schema"}),
    "tools": frozenset({"tools"}),
    "vision": frozenset({"vision"}),
    "thinking": frozenset({"reasoning"}),
    "insert": frozenset({"fim"}),
    "embedding": frozenset({"embeddings"}),
    "audio": frozenset({"audio"}),
}


def decode_tags(data: bytes, provider_id: str) -> list[LLMModelInfo]:
    """The models on the server's disk, from ``GET /api/tags``.

    Raises:
        InvalidResponseError: it is no list of models.
        ProviderError: it is an error object.
    """
    models = []
    for entry in _entries(data):
        abilities = _abilities(entry)
        models.append(
            LLMModelInfo.known(
                "endpoint",
                id=_name(entry),
                provider_id=provider_id,
                size_bytes=first_number(entry, "size") or None,
                parameters=text(field(entry, "details", "parameter_size")) or None,
                quantization=text(field(entry, "details", "quantization_level")) or None,
                capabilities=abilities,
                input_modalities=_modalities(abilities),
            )
        )
    return models


def apply_show(model: LLMModelInfo, data: bytes) -> LLMModelInfo:
    """``model`` with what ``POST /api/show`` tells about it.

    The window of a loaded model stays the one that it is loaded with.

    Raises:
        InvalidResponseError: it is no description of a model.
        ProviderError: it is an error object.
    """
    answer = read_json(data, "a description of a model")
    if not isinstance(answer, dict):
        raise unreadable(data, "a description of a model")
    facts = answer.get("model_info")
    architecture = text(field(facts, "general.architecture"))
    window = first_number(facts, f"{architecture}.context_length") or None
    abilities = _abilities(answer)
    loaded_window = model.context_window_tokens if model.loaded else None
    return _with_facts(
        model,
        context_window_tokens=loaded_window or window,
        capabilities=abilities,
        input_modalities=_modalities(abilities),
        parameters=text(field(answer, "details", "parameter_size")) or None,
        quantization=text(field(answer, "details", "quantization_level")) or None,
    )


def apply_loaded(models: Iterable[LLMModelInfo], data: bytes) -> list[LLMModelInfo]:
    """``models`` with what ``GET /api/ps`` tells: which are in memory, and with which window.

    The window that a model is loaded with is usually smaller than what the model could read, and
    it is the one that counts for the next request.

    Raises:
        InvalidResponseError: it is no list of models.
        ProviderError: it is an error object.
    """
    windows = {_name(entry): first_number(entry, "context_length") for entry in _entries(data)}
    return [
        _with_facts(
            model,
            loaded=model.id in windows,
            context_window_tokens=windows.get(model.id) or None,
        )
        for model in models
    ]


def decode_version(data: bytes) -> str:
    """The version of the server, from ``GET /api/version``.

    Raises:
        InvalidResponseError: it is no answer of Ollama.
    """
    version = text(field(read_json(data, "a version"), "version"))
    if not version:
        raise unreadable(data, "a version")
    return version


def _entries(data: bytes) -> list[dict[str, Any]]:
    entries = field(read_json(data, "a list of models"), "models")
    # The server's language writes an empty list as null.
    if entries is None and b'"models"' in data:
        return []
    if not isinstance(entries, list):
        raise unreadable(data, "a list of models", why="models is no list")
    return [entry for entry in entries if isinstance(entry, dict) and _name(entry)]


def _name(entry: dict[str, Any]) -> str:
    return text(entry.get("name")) or text(entry.get("model"))


def _abilities(entry: dict[str, Any]) -> frozenset[Capability] | None:
    given = entry.get("capabilities")
    if not isinstance(given, list) or not given:
        return None
    none: frozenset[Capability] = frozenset()
    return none.union(*(_ABILITIES.get(text(word), none) for word in given))


def _modalities(abilities: frozenset[Capability] | None) -> frozenset[str] | None:
    if abilities is None:
        return None
    senses = {"vision": "image", "audio": "audio"}
    return frozenset({"text", *(senses[a] for a in abilities if a in senses)})


def _with_facts(model: LLMModelInfo, **facts: Any) -> LLMModelInfo:
    """``model`` with those of ``facts`` that are not None, all of them told by the endpoint."""
    given = {name: fact for name, fact in facts.items() if fact is not None}
    sources = {**dict(model.sources), **dict.fromkeys(given, "endpoint")}
    return msgspec.structs.replace(model, **given, sources=tuple(sources.items()))


# ---- downloads -----------------------------------------------------------------------------------


class PullProgress(Data, frozen=True, kw_only=True):
    """One step of a download.

    Attributes:
        status: what the server is doing, in its words; ``success`` is the last.
        digest: the piece that is being fetched, or None.
        completed: bytes of that piece that are there, or None.
        total: size of that piece in bytes, or None.
    """

    status: str
    digest: str | None = None
    completed: int | None = None
    total: int | None = None

    @property
    def fraction(self) -> float | None:
        """How much of the piece is there, from 0 to 1; None if that is not known."""
        if not self.total:
            return None
        return min(1.0, (self.completed or 0) / self.total)


class PullDecoder:
    """Reads the progress of ``POST /api/pull``, wherever the bytes are cut."""

    def __init__(self, *, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        self._framer = NDJSONFramer(max_line_bytes=max_line_bytes)
        self._succeeded = False

    def feed(self, data: bytes) -> Sequence[PullProgress]:
        """The steps that ``data`` completes.

        Raises:
            ProviderError: the server reports an error, or cannot be understood.  If steps precede
                it in ``data``, these are returned, and iterating raises it behind the last.
        """
        return self._steps(self._framer.feed(data))

    def close(self) -> Sequence[PullProgress]:
        """The last steps.

        Raises:
            StreamInterruptedError: the download has not come to its end.
            ProviderError: as in `feed`.
        """
        # Half an object is the mark of a broken connection, not of a server that sends no JSON.
        rest = self._framer.close()
        steps = self._steps([line for line in rest if document(line) is not None])
        if self._succeeded:
            return steps
        failure = StreamInterruptedError("the download broke off", hint="pull again; it goes on")
        if not steps:
            raise failure
        return ThenError(steps, failure)

    def _steps(self, lines: list[bytes]) -> list[PullProgress]:
        steps: list[PullProgress] = []
        try:
            for line in lines:
                steps.append(self._step(line))
        except ProviderError as error:
            failure = error
        else:
            return steps
        if not steps:
            raise failure
        return ThenError(steps, failure)

    def _step(self, line: bytes) -> PullProgress:
        answer = read_json(line, "a line of progress")
        status = text(field(answer, "status"))
        if not status:
            raise InvalidResponseError("a line of progress has no status")
        self._succeeded = self._succeeded or status == "success"
        return PullProgress(
            status=status,
            digest=text(field(answer, "digest")) or None,
            completed=whole_number(field(answer, "completed")),
            total=whole_number(field(answer, "total")),
        )
