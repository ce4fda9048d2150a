"""What the names of OpenAI's models say: which of them reason, how hard, and what they then refuse.

The service has no endpoint that tells, and refuses a request that has a field too many.  Source of
all rules: OpenAI's guide to reasoning models, the parameter compatibility in its guides to GPT-5.1
and later, and the pages of the models, as of November 2026.
"""

from __future__ import annotations

import re

import msgspec

from ..messages import LLMRequestOptions

# The o-series, and models for programming that are called nothing but that.
_ALWAYS_REASONS = re.compile(r"o\d|codex")
_GPT = re.compile(r"gpt-(\d+)(?:\.(\d+))?(.*)")
# What a model refuses while it reasons; "seed" is taken and makes no difference.
_REFUSED = ("temperature", "top_p", "presence_penalty", "frequency_penalty")


def is_reasoning_model(model: str) -> bool:
    """Whether a model of that name can reason: the o-series, Codex, GPT-5 and later.

    ``gpt-5-chat-latest`` is an ordinary model; the chat models of later versions reason.
    """
    version, variant = _version(model)
    if version is None:
        return _ALWAYS_REASONS.match(_plain(model)) is not None
    return version >= (5, 0) and not (version == (5, 0) and variant.startswith("-chat"))


def reasons(model: str, effort: str | None) -> bool:
    """Whether a model of that name reasons in a request with that effort; None: none is given.

    GPT-5.1 to GPT-5.4 do so only when they are asked to, the others unless they are asked not to.
    """
    if effort is not None:
        return effort != "none"
    return is_reasoning_model(model) and not _waits_to_be_asked(model)


def accepted_efforts(model: str) -> tuple[str, ...]:
    """The efforts that a model of that name takes, the weakest first; empty if it is not known."""
    version, variant = _version(model)
    if not is_reasoning_model(model):
        return ()
    if version is None:
        return ("low", "medium", "high")
    if variant.startswith("-chat"):
        return ("medium",)
    if version == (5, 0):
        if "-pro" in variant:
            return ("high",)
        return ("low", "medium", "high") if "codex" in variant else _FROM_MINIMAL
    efforts = ["medium", "high"] if "-pro" in variant else ["low", "medium", "high"]
    if version >= (5, 2) or "codex-max" in variant:
        efforts.append("xhigh")
    if version >= (5, 6):
        efforts.append("max")
    return tuple(efforts) if _cannot_stop(model) else ("none", *efforts)


def refused_options(model: str, options: LLMRequestOptions) -> tuple[str, ...]:
    """The names of those options that are given, and that the model refuses because it reasons."""
    if not reasons(model, options.reasoning_effort):
        return ()
    return given_of(options, _REFUSED)


def given_of(options: LLMRequestOptions, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``names`` that are set in ``options``."""
    return tuple(name for name in names if getattr(options, name) is not None)


def without(options: LLMRequestOptions, names: tuple[str, ...]) -> LLMRequestOptions:
    """``options`` without those that are called ``names``."""
    return msgspec.structs.replace(options, **dict.fromkeys(names)) if names else options


_FROM_MINIMAL = ("minimal", "low", "medium", "high")


def _waits_to_be_asked(model: str) -> bool:
    version, _ = _version(model)
    return version is not None and (5, 1) <= version <= (5, 4) and not _cannot_stop(model)


def _cannot_stop(model: str) -> bool:
    """Whether a GPT after the first GPT-5 reasons whatever it is asked."""
    version, variant = _version(model)
    if any(word in variant for word in ("-pro", "-chat", "-astra")):
        return True
    return version == (5, 1) and "codex" in variant


def _version(model: str) -> tuple[tuple[int, int] | None, str]:
    """Version of a GPT and what follows it in the name; None for another model."""
    match = _GPT.match(_plain(model))
    if match is None:
        return None, ""
    return (int(match[1]), int(match[2] or 0)), match[3]


def _plain(model: str) -> str:
    """The name without who offers it, and without the mark of a model tuned by a customer."""
    return model.lower().rpartition("/")[2].removeprefix("ft:")
