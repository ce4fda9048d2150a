"""What a fault is, and how the rows of the matrix are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from llm_manager import LLMError

from .server import Script, Talk

Clock: TypeAlias = Literal["connect_s", "first_token_s", "idle_s", "content_idle_s", "total_s"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a provider is sent to; without anything to the server itself.

    Attributes:
        address: the address that it is given; ``{port}`` is that of the server, ``{free}`` one at
            which nobody listens.
        proxy: the address of its proxy, likewise.
        certificate: what is wrong with the certificate of the server, or ``good``.
    """

    address: str | None = None
    proxy: str | None = None
    certificate: str | None = None


SERVER = Place()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What comes of a fault.

    Attributes:
        error, code, http_status: of the error, or None if there is none.
        attempts: how often the request was sent, or would have been.
        text: what had arrived of the answer.
        retry_after_s: how long the server asked us to wait, in seconds.
        connecting: status and reason after `connect`, where that meets the fault.
        first: the same after a request to a provider of which nothing was known.
        worked: the same after a request to a provider that had worked before.
    """

    error: str | None = None
    code: str | None = None
    http_status: int | None = None
    attempts: int = 1
    text: str = ""
    retry_after_s: float | None = None
    connecting: str | None = None
    first: str | None = None
    worked: str | None = None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault, and what must come of it.

    Attributes:
        name: for the ids of the tests.
        what: for people.
        script: what the server does instead of answering.
        everywhere: whether it does so with questions for the model list as well.
        place: where the provider is sent to.
        while_idle: what happens to the connections of a provider while it does not use them.
        needs_history: whether only a provider can meet it that has worked before.
        clock: the time limit that ends it, or None if it ends by itself.
        seen: what comes of it.
        says: words that the text of the error has, its hint included.
    """

    name: str
    what: str
    script: Script | None = None
    everywhere: bool = False
    place: Place = SERVER
    while_idle: Callable[[Talk], None] | None = None
    needs_history: bool = False
    clock: Clock | None = None
    seen: Seen
    says: str = ""

    @property
    def expected(self) -> Seen:
        """What must come of it, whatever the dialect."""
        # Of what cannot happen nothing is seen.
        impossible = {
            "connecting": not self.can_meet_connecting,
            "first": not self.can_be_first,
            "worked": not self.can_come_later,
        }
        return replace(self.seen, **{name: None for name, holds in impossible.items() if holds})

    @property
    def can_meet_connecting(self) -> bool:
        """Whether connecting meets it, too, and not only after the time limits of its own."""
        meets = self.everywhere or self.place != SERVER
        return self.can_be_first and self.clock is None and meets

    @property
    def can_be_first(self) -> bool:
        """Whether a provider may meet it that has never worked."""
        return not self.needs_history

    @property
    def can_come_later(self) -> bool:
        """Whether a provider may meet it that has worked before."""
        return self.place == SERVER


def fails(
    error: type[LLMError], code: str | None = None, http: int | None = None, **more: Any
) -> Seen:
    """A row of which an error comes; ``code`` is that of the class if none is given."""
    more.setdefault("attempts", 2 if error.retryable else 1)
    return Seen(error=error.__name__, code=code or error.code, http_status=http, **more)


def lost(reason: str) -> dict[str, str]:
    """It is tried again by itself, whenever the fault came."""
    return dict.fromkeys(("connecting", "first", "worked"), f"reconnecting ({reason})")


def failed(reason: str) -> dict[str, str]:
    """Somebody has to do something, whenever the fault came."""
    return dict.fromkeys(("connecting", "first", "worked"), f"failed ({reason})")


def only_this_answer(first: str = "connected (recovered)") -> dict[str, str]:
    """It concerns one answer: a look at the server shows that it can be used."""
    return {"first": first, "worked": "connected (recovered)"}
