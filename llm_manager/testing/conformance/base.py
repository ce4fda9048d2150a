"""What the author of a provider tells the kit: how to build it, and how things look on its wire."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ...errors import LLMError
from ...messages import Usage
from ...provider import BaseLLMProvider
from ..peer import Answer, Reply, Request
from .server import Server
from .wire import Wanted, stopped_behind

KEY = "planted7f3a9c2e5b8d10460badc0de"
"""The key that the kit gives to providers; it has no shape by which `redact` would know it."""


class Conformance(ABC):
    """What every kit class has.

    Attributes:
        model: id of a model that requests of the kit go to.
        prompt: what the kit asks.
        has_models: whether the provider knows its models without being told.
        wanted: the answer that most checks get.
        limit_s: how long the kit waits for something that takes milliseconds when all is well.
    """

    model: str = "model-1"
    prompt: str = "Say alpha, bravo and charlie."
    has_models: bool = True
    wanted: Wanted = Wanted(usage=Usage(prompt_tokens=11, completion_tokens=3))
    limit_s: float = 10.0

    @abstractmethod
    def build(self, server: Server | None, settings: dict[str, Any]) -> BaseLLMProvider:
        """A provider with ``settings``; the kit's own way to `make_provider`."""

    @abstractmethod
    def surroundings(self) -> AbstractContextManager[Server | None]:
        """What is there while a check runs."""

    @abstractmethod
    def arrange(self, server: Server | None, provider: BaseLLMProvider, wanted: Wanted) -> bool:
        """Make ``wanted`` the answer to the next questions; False if that cannot be done."""


class InProcessKit(Conformance):
    """A provider that needs no server."""

    @abstractmethod
    def make_provider(self, **settings: Any) -> BaseLLMProvider:
        """A provider; hand ``settings`` on to its class."""

    def make_broken_provider(self, **settings: Any) -> BaseLLMProvider | None:
        """One that cannot be opened, a missing file for example; None: there is no such thing."""
        return None

    def script(self, provider: BaseLLMProvider, wanted: Wanted) -> bool:
        """Let ``provider`` answer the next question so; False: its answers cannot be chosen."""
        return False

    def build(self, server: Server | None, settings: dict[str, Any]) -> BaseLLMProvider:
        return self.make_provider(**settings)

    def surroundings(self) -> AbstractContextManager[Server | None]:
        return nullcontext(None)

    def arrange(self, server: Server | None, provider: BaseLLMProvider, wanted: Wanted) -> bool:
        return self.script(provider, wanted)


class HttpKit(Conformance):
    """A provider on HTTP, and how its vendor answers.

    A method that returns None says that the vendor has no such thing.  What the provider's
    `capabilities` do not name need not be written: the kit then checks that it is refused.

    Attributes:
        base_path: behind the server's address in the base URL of the provider.
        chat_path: where questions go; a question mark and what follows it do not count.
        fim_path, embeddings_path, count_path: the same for filling in the middle, embeddings and
            counting tokens.
        models_path: where the model list is asked for; None: there is none.
        key_header: the header that the key belongs into; None: the provider takes no key.
        key_prefix: what stands before the key there.
        expected_headers: other headers that every question must have, with their values.
        usage_details: fields of `Usage` that the vendor's figures tell, besides the two sums.
        sends_options: options that must be found in the body of a question.
        connecting_asks: whether connecting asks the server for anything, be it a model list; where
            it does not, a wrong key or an outage is found by the first question.
        sent_model: what a question calls the model, if not by its id.
        keeps_idle_connections: whether connections on which nothing is asked may stay open after
            `close`, because a library shares them between its users.
        keep_alive: what the vendor sends to keep a connection open; None: nothing.
    """

    base_path: str = "/v1"
    chat_path: str = "/v1/chat/completions"
    fim_path: str | None = None
    embeddings_path: str | None = None
    count_path: str | None = None
    models_path: str | None = "/v1/models"
    key_header: str | None = "authorization"
    key_prefix: str = "Bearer "
    expected_headers: Mapping[str, str] = {}
    usage_details: tuple[str, ...] = ("cached_tokens",)
    sends_options: Mapping[str, Any] = {"temperature": 0.625, "max_tokens": 4321}
    connecting_asks: bool = True
    sent_model: str | None = None
    keeps_idle_connections: bool = False
    keep_alive: bytes | None = b": keep-alive\n\n"

    # ---- to write --------------------------------------------------------------------------------

    @abstractmethod
    def make_provider(self, base_url: str, **settings: Any) -> BaseLLMProvider:
        """A provider of the server at ``base_url``; hand ``settings`` on to its class."""

    @abstractmethod
    def stream(self, wanted: Wanted) -> Reply:
        """A complete streamed answer; each piece of the texts in an element of its own."""

    @abstractmethod
    def models(self, ids: Sequence[str]) -> Reply:
        """The model list."""

    def whole(self, wanted: Wanted) -> Reply | None:
        """The same answer as one document, as servers send it that do not stream."""
        return None

    def fim(self, wanted: Wanted) -> Reply | None:
        """The answer to a request to fill in the middle."""
        return self.stream(wanted)

    def embeddings(self, vectors: Sequence[Sequence[float]], usage: Usage) -> Reply | None:
        """The answer to a request for embeddings; ``usage`` counts a prompt."""
        return None

    def counted(self, tokens: int) -> Reply | None:
        """The answer to a request to count the tokens of a prompt."""
        return None

    def error(self, status: int, message: str) -> Reply:
        """An answer that says "no"."""
        return Reply.json({"error": {"message": message}}, status=status)

    def error_inside(self, message: str) -> Reply | None:
        """An error in the middle of a stream: a reply whose body is what is sent for it."""
        return None

    def errors(self) -> Mapping[type[LLMError], Reply]:
        """More errors of this vendor, by the class that they must become."""
        return {}

    def routes(self) -> Mapping[str, Answer]:
        """What the server answers at further paths, to probes for example."""
        return {}

    def is_probe(self, request: Request) -> bool:
        """Whether a request to one of the paths above is no question but proves the connection."""
        return False

    def key_header_of(self, request: Request) -> str | None:
        """The header that the key belongs into in this request, if that differs."""
        return self.key_header

    def sent(self, request: Request) -> Any:
        """The content of a question, decoded into dictionaries and lists."""
        return json.loads(request.body)

    # ---- what the kit makes of it ----------------------------------------------------------------

    def is_question(self, request: Request) -> bool:
        """Whether a request asks for an answer."""
        paths = (self.chat_path, self.fim_path, self.embeddings_path, self.count_path)
        return request.path.partition("?")[0] in paths and not self.is_probe(request)

    def build(self, server: Server | None, settings: dict[str, Any]) -> BaseLLMProvider:
        assert server is not None
        if self.key_header is not None:
            settings.setdefault("api_key", KEY)
        return self.make_provider(f"{server.base_url}{self.base_path}", **settings)

    def surroundings(self) -> AbstractContextManager[Server | None]:
        return Server(self)

    def arrange(self, server: Server | None, provider: BaseLLMProvider, wanted: Wanted) -> bool:
        assert server is not None
        server.plays(self.reply_with(wanted))
        return True

    def reply_with(self, wanted: Wanted) -> Reply:
        """The streamed answer, with the faults that ``wanted`` asks for."""
        reply = self.stream(wanted)
        if wanted.hang_after is None:
            return reply
        last = wanted.text[wanted.hang_after - 1] if wanted.hang_after else None
        return stopped_behind(reply, last, "hang")
