"""What a scenario file may say.

A file is one story about one provider and one server, told in steps::

    {
      "shows": "A server that is down at the start is found when it comes up.",
      "server": "down",
      "provider": {"reconnect": {"first_s": 0.05, "max_s": 0.1}},
      "steps": [
        {"call": "connect", "raises": {"type": "ProviderConnectionError", "code": "refused"}},
        {"expect": {"status": "reconnecting", "reason": "refused"}},
        {"server": "up"},
        {"until": {"status": "connected"}}
      ],
      "events": ["connecting (user)", "reconnecting (refused)", "reconnectScheduled",
                 "modelsChanged", "connected (recovered)"]
    }

Each step does one thing, and is named after it: ``server``, ``clock``, ``call``, ``heard``,
``end``, ``until``, ``expect`` or ``saw``.  The events are all that listeners are told, in order;
left out are the heartbeat (``healthCheck``), a status that only counts, and any
``reconnectScheduled`` after the first one of an outage.

A key or a value that is not meant is an error that names its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

STEP_KINDS = ("server", "clock", "call", "heard", "end", "until", "expect", "saw")


class Behaviour(Struct, forbid_unknown_fields=True, frozen=True):
    """How a server answers one kind of question; by default as it should.

    Attributes:
        status: the HTTP status; another one than 200 comes with an error in the body.
        says: the text of that error.
        retry_after: the header of that name.
        body: ``html`` is what the sign-in page of a hotel sends, ``no_models`` an empty list.
        after_s: it thinks for so many seconds before it answers.
        hang: it takes the question and never answers.
        hold: it sends the first word and waits for ``{"server": "release"}``.
        break_off: it sends the first word and breaks the connection.
        times: so often; after that it answers as it should.
    """

    status: int = 200
    says: str | None = None
    retry_after: str | None = None
    body: Literal["answer", "html", "no_models"] = "answer"
    after_s: float = 0.0
    hang: bool = False
    hold: bool = False
    break_off: bool = False
    times: int | None = None


class Server(Struct, forbid_unknown_fields=True, frozen=True):
    """How the server behaves from now on.

    Attributes:
        all: whatever it is asked.
        models: when it is asked for its models, which is how a provider is probed.
        chat: when it is asked to answer.
        key: the one key that it takes; with any other the answer is 401.
    """

    all: Behaviour | None = None
    models: Behaviour | None = None
    chat: Behaviour | None = None
    key: str | None = None


class Clock(Struct, forbid_unknown_fields=True, frozen=True):
    """The computer sleeps, time passes, or somebody sets the time of day; in seconds."""

    suspend: float | None = None
    advance: float | None = None
    set_wall: float | None = None


class State(Struct, forbid_unknown_fields=True, frozen=True):
    """Facts of the provider's snapshot; what is not given does not matter.

    Attributes:
        error: the code of the error, or null.
        retry_at, cooldown_until: ``"set"`` or null.
        attempt_at_least: so many attempts to reconnect have been announced.
        probes_done: so many probes have had a result, good or bad, since the beginning.
    """

    status: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    error: str | UnsetType | None = UNSET
    circuit: Literal["closed", "open", "half_open"] | UnsetType = UNSET
    usable: bool | UnsetType = UNSET
    attempt: int | UnsetType = UNSET
    attempt_at_least: int | UnsetType = UNSET
    retry_at: Literal["set"] | UnsetType | None = UNSET
    cooldown_until: Literal["set"] | UnsetType | None = UNSET
    models_stale: bool | UnsetType = UNSET
    in_flight: int | UnsetType = UNSET
    queued: int | UnsetType = UNSET
    probes_done: int | UnsetType = UNSET


class Failure(Struct, forbid_unknown_fields=True, frozen=True):
    """An error that has to come.

    Attributes:
        type: its class.
        code: its code.
        partial: the text that had arrived.
        retry_at: ``"set"`` if it says when to try again.
    """

    type: str
    code: str | UnsetType = UNSET
    partial: str | UnsetType = UNSET
    retry_at: Literal["set"] | UnsetType | None = UNSET


class Seen(Struct, forbid_unknown_fields=True, frozen=True):
    """What has arrived at the server; waited for.

    Attributes:
        chats: how many requests to answer since the beginning.
        probes: how many requests for its models since the beginning.
        last_key: the key of the last request.
        open_connections: how many connections are open.
    """

    chats: int | UnsetType = UNSET
    probes: int | UnsetType = UNSET
    last_key: str | UnsetType = UNSET
    open_connections: int | UnsetType = UNSET


Verb = Literal[
    "connect", "disconnect", "close", "is_available", "reconnect_now", "update_config", "request",
    "cancel",
]  # fmt: skip


class Step(Struct, forbid_unknown_fields=True, frozen=True, rename={"as_": "as", "with_": "with"}):
    """One step; exactly one of the first eight is given.

    Attributes:
        server: the server is ``up``, ``down``, lets held answers go on (``release``), closes the
            connections that wait (``drop_idle``), forgets them without a word (``mute_idle``), or
            behaves as described.
        clock: moves the clocks of the provider.
        call: a verb of the provider; ``request`` asks it something, ``cancel`` stops such a request
            from outside.
        heard: wait until the first word of this request has come.
        end: wait for the end of what was begun under this name, and look at its outcome.
        until: wait until the snapshot says so.
        expect: the snapshot says so now.
        saw: wait until the server has seen so much.
        with_: arguments of a call; for a request its options.
        as_: do not wait for the call, and remember it under this name.
        of: the request to cancel.
        raises: the error of a call.
        returns: the result of a call.
        text: the text of an answer.
        attempts: how often a request was sent.
        note: why, for people.
    """

    server: Literal["up", "down", "release", "drop_idle", "mute_idle"] | Server | None = None
    clock: Clock | None = None
    call: Verb | None = None
    heard: str | None = None
    end: str | None = None
    until: State | None = None
    expect: State | None = None
    saw: Seen | None = None
    with_: dict[str, Any] = {}
    as_: str | None = None
    of: str | None = None
    raises: Failure | None = None
    returns: Any = UNSET
    text: str | None = None
    attempts: int | None = None
    note: str | None = None


class Scenario(Struct, forbid_unknown_fields=True, frozen=True):
    """A whole file.

    Attributes:
        shows: what it is about, in a sentence.
        server: how the server is at the beginning.
        provider: settings of the provider; ``{server}`` stands for ``http://host:port``,
            and ``policies`` are given by their names, with what makes them, outermost first.
        steps, events: see above.
    """

    shows: str
    steps: tuple[Step, ...]
    events: tuple[str, ...]
    server: Literal["up", "down"] | Server = "up"
    provider: dict[str, Any] = {}


class ScenarioError(Exception):
    """A scenario file is wrong."""


def read(path: Path) -> Scenario:
    """The scenario in a file.

    Raises:
        ScenarioError: it is not what this module describes; the text names the place.
    """
    return parse(path.read_bytes(), path.name)


def parse(text: bytes, name: str) -> Scenario:
    try:
        scenario = msgspec.json.decode(text, type=Scenario)
    except msgspec.DecodeError as error:
        raise ScenarioError(f"{name}: {error}") from None
    begun: set[str] = set()
    for number, step in enumerate(scenario.steps):
        if problem := _problem(step, begun):
            raise ScenarioError(f"{name}: {problem} - at `$.steps[{number}]`")
        if step.as_ is not None:
            begun.add(step.as_)
    return scenario


def _problem(step: Step, begun: set[str]) -> str | None:
    """What is wrong with a step, beyond what the types say."""
    kinds = [kind for kind in STEP_KINDS if kind in _given(step)]
    if len(kinds) != 1:
        return f"a step does one of {', '.join(STEP_KINDS)}; this one does {kinds or 'nothing'}"
    for name in (step.heard, step.end, step.of):
        if name is not None and name not in begun:
            return f"nothing was begun as {name!r}"
    if (step.call == "cancel") != (step.of is not None):
        return "`cancel` and `of` go together"
    if kinds[0] not in ("call", "end"):
        given = _given(step) - {*STEP_KINDS, "note"}
        if given:
            return f"only a call or its end has {', '.join(sorted(given))}"
    if step.as_ is not None and (step.raises or step.text or step.attempts):
        return "the outcome of what is begun is looked at when it ends"
    if step.clock is not None and len(_given(step.clock)) != 1:
        return "a clock is moved in one way at a time"
    return None


def _given(struct: Struct) -> set[str]:
    """The names of what differs from its default, in the spelling of a file."""
    facts = msgspec.structs.fields(struct)
    return {
        field.encode_name
        for field in facts
        if getattr(struct, field.name) not in (None, UNSET, {}, field.default)
    }
