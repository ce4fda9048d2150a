"""Keys, prompts and answers stay where they belong: a search for planted ones, wherever one looks.

What is searched: the log of every library at its most talkative level, events, the texts of
providers, managers, statuses, streams and errors, tracebacks with the local variables of every
frame, pickles, and what is written to the terminal.

Local variables are searched for keys only, and only where the server has not repeated them: a
function that sends a request holds its prompt, one that reads an answer holds the answer, and
whoever shows variables asks for that.  The same is true of ``partial`` of an error, and of the
request that a stream was made for: they are what their user has given or asked for.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import logging
import pickle
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_manager import (
    Backoff,
    BaseLLMProvider,
    EchoProvider,
    ImagePart,
    LLMError,
    LLMMessage,
    LLMProviderManager,
    LLMRequest,
    OpenAICompatibleProvider,
    ProviderAPIError,
    ProviderConnectionError,
    ProviderError,
    ToolCall,
    ToolDefinition,
)
from llm_manager.messages import Delta
from llm_manager.providers.echo import EchoAnswer
from llm_manager.redaction import without_quotes
from llm_manager.testing import EventRecorder, Reply, ScriptedPeer, Wanted

# None of them looks like a key: what is masked is masked because it is known to be one.
KEY, SECOND_KEY = "Zq7plainLookingCredential9x", "Wv3anotherHarmlessWord8y"
# In a header that is named as those are that hold keys.
HEADER, PASSWORD = "teamPassphraseInAHeader", "proxyPassphraseOfSomebody"
PROMPT = "my neighbour Josephine owes the bank 4711 crowns"
SYSTEM = "you are the assistant of the law firm of Adalbert Oxenbein"
ARGUMENTS = "case number 0815 of the widow Pumpernickel"
ANSWER = ("Josephine ", "should talk to her ", "brother Nepomuk")
SPOKEN = "".join(ANSWER)
PICTURE = b"\x89PNG\r\n\x1a\n" + b"a picture of the contract, in bytes"

KEYS = (KEY, SECOND_KEY, HEADER, PASSWORD)
PROMPTS = (
    PROMPT, SYSTEM, ARGUMENTS, "picture of the contract", base64.b64encode(PICTURE).decode()[:24],
)  # fmt: skip
CONTENT = (*PROMPTS, SPOKEN, ANSWER[1].strip())
EVERYTHING = f"{KEY} {HEADER} said: {PROMPT} / {SYSTEM} / {ARGUMENTS}"

OPTIONS = {
    "tools": (ToolDefinition(name="look_up", description="looks up a case"),),
    "timeouts": {"first_token_s": 0.5, "idle_s": 0.5, "total_s": 5.0},
    "retries": {"attempts": 2, "wait_s": 0.001},
}


def conversation() -> list[LLMMessage]:
    call = ToolCall(id="call_1", name="look_up", arguments_json=f'{{"what": "{ARGUMENTS}"}}')
    return [
        LLMMessage.system(SYSTEM),
        LLMMessage.user("look it up"),
        LLMMessage.assistant(tool_calls=[call]),
        LLMMessage.tool("call_1", f"found {ARGUMENTS}"),
        LLMMessage.user(PROMPT, ImagePart(data=PICTURE, media_type="image/png")),
    ]


# ---- looking -------------------------------------------------------------------------------------


class Search(logging.Handler):
    """Everything that could be seen, with where it was seen.

    Attributes:
        repeated: whether the server says in its answers what it was told.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.seen: list[tuple[str, str]] = []
        self.variables: list[tuple[str, str]] = []
        self.pickles: list[tuple[str, str]] = []
        self.repeated = False
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.add(f"log of {record.name}", record.getMessage(), repr(vars(record)))
        if record.exc_info and record.exc_info[1] is not None:
            self.add_error(record.exc_info[1])

    def add(self, where: str, *texts: str) -> None:
        self.seen += [(where, text) for text in texts]

    def add_object(self, where: str, thing: object) -> None:
        self.add(where, repr(thing), str(thing))

    def add_event(self, event: Any) -> None:
        self.add_object(f"event {event.name}", event)
        self.add(f"event {event.name}", repr(event.to_dict()), str(msgspec.json.encode(event)))
        self.add(f"pickle of {event.name}", _pickled(event))

    def add_error(self, error: BaseException) -> None:
        name = type(error).__name__
        self.errors.append(error)
        self.add_object(name, error)
        self.add(name, repr(error.args), "".join(traceback.format_exception(error)))
        shown = {k: v for k, v in vars(error).items() if k not in ("partial", "tool_run")}
        self.add(f"attributes of {name}", repr(shown))
        self.pickles.append((f"pickle of {name}", _pickled(error)))
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        self.variables.append((f"variables of {name}", "".join(told.format())))

    def found(self) -> list[str]:
        """Each place where a secret is, with what is around it."""
        hits = [(w, t, s) for w, t in self.seen for s in (*KEYS, *CONTENT) if s in t]
        hits += [(w, t, s) for w, t in self.pickles for s in (KEYS + PROMPTS) if s in t]
        if not self.repeated:
            hits += [(w, t, s) for w, t in self.variables for s in KEYS if s in t]
        return sorted({f"{where}: {_around(text, secret)}" for where, text, secret in hits})


def _pickled(thing: object) -> str:
    """The pickle as text; one that is refused shows nothing."""
    try:
        return pickle.dumps(thing).decode("latin-1")
    except (TypeError, AttributeError, LLMError, pickle.PicklingError) as error:
        return str(error)


def _around(text: str, secret: str) -> str:
    place = text.index(secret)
    return text[max(place - 120, 0) : place + len(secret) + 20]


@pytest.fixture
def search(capfd: pytest.CaptureFixture[str]) -> Iterator[Search]:
    """Looks at what a test does, and fails it if a secret is seen."""
    search, root = Search(), logging.getLogger()
    before, levels = root.level, {}
    for name in ("httpx2", "httpcore2", "openai", "anthropic", "llm_manager", "asyncio"):
        levels[name] = logging.getLogger(name).level
        logging.getLogger(name).setLevel(logging.DEBUG)
    root.setLevel(logging.DEBUG)
    root.addHandler(search)
    yield search
    root.removeHandler(search)
    root.setLevel(before)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    written = capfd.readouterr()
    search.add("the terminal", written.out, written.err)
    assert len(search.seen) > 20, "almost nothing was looked at"
    assert search.found() == []


# ---- the providers -------------------------------------------------------------------------------

WIRES = {
    "compatible": ("test_compatible", "TestCompatible"),
    "openai, chat": ("test_openai", "TestOpenAIChat"),
    "openai, responses": ("test_openai", "TestOpenAIResponses"),
    "anthropic": ("test_anthropic", "TestAnthropic"),
    "ollama": ("test_ollama", "TestOllama"),
}


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> Any:
    """How a dialect answers, borrowed from the tests of conformance."""
    module, name = WIRES[request.param]
    return getattr(importlib.import_module(f".conformance.{module}", __package__), name)()


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer() as peer:
        yield peer


@pytest.fixture
async def elsewhere() -> AsyncIterator[ScriptedPeer]:
    """Another server, which nobody should send anything."""
    async with ScriptedPeer() as elsewhere:
        yield elsewhere


def _well(wire: Any) -> dict[str, Any]:
    call = ToolCall(id="call_2", name="look_up", arguments_json=f'{{"what": "{ARGUMENTS}"}}')
    paths = {wire.models_path: wire.models([wire.model]), **wire.routes()}
    return {**paths, wire.chat_path: wire.stream(Wanted(text=ANSWER, tool_calls=(call,)))}


def _half(wire: Any) -> Reply:
    whole = wire.stream(Wanted(text=ANSWER))
    return Reply(headers=whole.headers, body=whole.body[:-2], framing="chunked", ending="close")


# With "plain" the server repeats nothing.
FAULTS: dict[str, Callable[[Any, ScriptedPeer], Reply]] = {
    "well": lambda wire, _: wire.stream(Wanted(text=ANSWER)),
    "401": lambda wire, _: wire.error(401, f"Incorrect API key provided: {EVERYTHING}"),
    "400": lambda wire, _: wire.error(400, f"invalid value: {EVERYTHING}"),
    "403": lambda wire, _: wire.error(403, f"not for {EVERYTHING}"),
    "404": lambda wire, _: wire.error(404, f"no model for {EVERYTHING}"),
    "429": lambda wire, _: wire.error(429, f"too often: {EVERYTHING}"),
    "500": lambda wire, _: wire.error(500, f"crashed at {EVERYTHING}"),
    "an error page": lambda *_: Reply(status=502, body=[f"<html>{EVERYTHING}</html>".encode()]),
    "a page": lambda *_: Reply(
        headers={"content-type": "text/html"}, body=[f"<html>{EVERYTHING}</html>".encode()]
    ),
    "reset": lambda *_: Reply(instead="reset"),
    "half": lambda wire, _: _half(wire),
    "silence": lambda *_: Reply(instead="hang"),
    "an error inside": lambda wire, _: wire.error_inside(f"overloaded by {EVERYTHING}"),
    "moved": lambda wire, elsewhere: Reply(
        status=307, headers={"location": elsewhere.base_url + wire.chat_path}
    ),
    "401, plain": lambda wire, _: wire.error(401, "Incorrect API key"),
    "500, plain": lambda wire, _: wire.error(500, "crashed"),
    "a page, plain": lambda *_: Reply(headers={"content-type": "text/html"}, body=[b"<html>"]),
    "an error inside, plain": lambda wire, _: wire.error_inside("overloaded"),
}


REPEATS = ("401", "400", "403", "404", "429", "500", "an error page", "a page", "an error inside")


async def _use(provider: BaseLLMProvider, search: Search, model: str | None) -> None:
    """Do what can be done, and look at all that can be seen of it."""
    manager = LLMProviderManager()
    manager.register_provider(provider)
    with contextlib.closing(EventRecorder(manager)) as events:
        manager.on("requestFinished", _raises)
        stream = manager.stream_chat_completion(f"{provider.id}/{model}", conversation(), OPTIONS)
        for work in (provider.connect(), _read(stream), provider.get_available_models(refresh=True),
                     provider.count_tokens(model, conversation(), OPTIONS)):  # fmt: skip
            try:
                await work
            except LLMError as error:
                search.add_error(error)
        for thing in (provider, manager, provider.status, stream, manager.snapshot()):
            search.add_object(type(thing).__name__, thing)
        search.add("status", repr(provider.status.to_dict()), _pickled(provider.status))
        search.add("pickle of the provider", _pickled(provider))
        await manager.close(0)
        await manager.flush()
        for event in events:
            search.add_event(event)


async def _read(stream: Any) -> None:
    async for _ in stream:
        pass


def _raises(event: object) -> None:
    raise RuntimeError(f"a listener that shows what it gets: {event!r}")


# ---- the searches --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_secret_is_seen_whatever_a_server_does(
    wire: Any, fault: str, peer: ScriptedPeer, elsewhere: ScriptedPeer, search: Search
) -> None:
    search.repeated = fault in REPEATS
    for path, answer in _well(wire).items():
        peer.route(path, answer)
    peer.route(wire.chat_path, FAULTS[fault](wire, elsewhere))
    provider = wire.make_provider(
        f"{peer.base_url}{wire.base_path}", api_key=KEY, headers={"x-team-token": HEADER}
    )
    await _use(provider, search, wire.model)
    sent = [request for request in peer.requests if request.method == "POST"]
    assert any(PROMPT.encode() in request.body for request in sent)
    assert any(KEY in str(request.headers) for request in sent), "it was planted"
    assert elsewhere.requests == []
    assert search.errors or fault == "well"


@pytest.mark.parametrize(
    "fault",
    [
        *(f for f in FAULTS if "plain" in f),
        "401",
        "500",
        "an error page",
        "a page",
        "reset",
        "moved",
    ],
)
async def test_no_secret_is_seen_when_connecting_fails(
    wire: Any,
    fault: str,
    peer: ScriptedPeer,
    elsewhere: ScriptedPeer,
    search: Search,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search.repeated = fault in REPEATS
    for path, answer in _well(wire).items():
        peer.route(path, answer)
    # Connecting tells a server the key, and no prompt.
    monkeypatch.setitem(globals(), "EVERYTHING", f"{KEY} {HEADER}")
    peer.route(wire.models_path, FAULTS[fault](wire, elsewhere))
    peer.route(wire.chat_path, FAULTS[fault](wire, elsewhere))
    provider = wire.make_provider(
        f"{peer.base_url}{wire.base_path}", api_key=lambda: KEY, headers={"x-team-token": HEADER}
    )
    await _use(provider, search, wire.model)
    assert elsewhere.requests == []
    assert search.errors


async def test_no_secret_is_seen_after_the_key_was_changed(
    wire: Any, peer: ScriptedPeer, search: Search
) -> None:
    search.repeated = True
    for path, answer in _well(wire).items():
        peer.route(path, answer)
    provider = wire.make_provider(f"{peer.base_url}{wire.base_path}", api_key=KEY)
    await provider.connect()
    with contextlib.closing(EventRecorder(provider)) as events:
        await provider.update_config(api_key=SECOND_KEY)
        await provider.connect()
        # A server that was told both repeats both.
        peer.route(wire.chat_path, wire.error(401, f"neither {KEY} nor {SECOND_KEY} will do"))
        peer.route(wire.models_path, wire.error(401, f"neither {KEY} nor {SECOND_KEY} will do"))
        await _use(provider, search, wire.model)
        for event in events:
            search.add_event(event)
    assert any(SECOND_KEY in str(request.headers) for request in peer.requests)


async def test_no_secret_is_seen_where_nobody_listens(wire: Any, search: Search) -> None:
    async with ScriptedPeer() as gone:
        address = gone.base_url
    provider = wire.make_provider(f"{address}{wire.base_path}", api_key=KEY)
    await _use(provider, search, wire.model)
    assert search.errors


@pytest.mark.parametrize("answer", [
    Reply(status=407, body=[f"not with {PASSWORD}".encode()]),
    Reply(status=502, body=[f"{PASSWORD} {KEY}".encode()]),
    Reply(instead="close"),
    None,
])  # fmt: skip
async def test_no_password_of_a_proxy_is_seen(
    answer: Reply | None, peer: ScriptedPeer, search
) -> None:
    search.repeated = True
    port = peer.base_url.rpartition(":")[2]
    if answer is None:
        await peer.stop()
    else:
        peer.script(*[answer] * 20)
    provider = OpenAICompatibleProvider(
        base_url="http://service.invalid/v1", api_key=KEY,
        proxy=f"http://somebody:{PASSWORD}@127.0.0.1:{port}",
    )  # fmt: skip
    await _use(provider, search, "m")
    assert search.errors
    assert answer is None or peer.requests


@pytest.mark.parametrize("value", [f"{HEADER}\n", f"{HEADER}é"])
async def test_a_header_that_cannot_be_sent_is_seen_nowhere(value, peer, search) -> None:
    provider = OpenAICompatibleProvider(
        base_url=peer.base_url, api_key=KEY, headers={"x-team-token": value}
    )
    await _use(provider, search, "m")
    assert search.errors
    assert peer.requests == []


async def test_no_content_is_seen_of_a_provider_in_this_process(search: Search) -> None:
    for answer in (
        EchoAnswer(text=SPOKEN),
        EchoAnswer(text=SPOKEN, hang_after_words=2),
        EchoAnswer(tool="look_up", arguments={"what": ARGUMENTS}),
    ):
        provider = EchoProvider(words_per_s=float("inf"))
        provider.script(answer)
        await _use(provider, search, "echo")


class OfAnAuthor(EchoProvider):
    """Writes its own exchange, and lets out whatever its library says."""

    def __init__(self, failure: Exception, **settings: Any) -> None:
        super().__init__(**settings)
        self._failure = failure

    def _secrets(self) -> list[str]:
        return ["the-secret-of-the-author"]

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        raise self._failure
        yield


@pytest.mark.parametrize("kind", [ProviderError, ProviderConnectionError, RuntimeError])
async def test_an_author_of_a_provider_need_not_mask_what_its_library_says(kind: type) -> None:
    failure = kind("refused: key the-secret-of-the-author")
    async with OfAnAuthor(failure, default_options={"retries": {"wait_s": 0}}) as provider:
        record = EventRecorder(provider)
        with pytest.raises(ProviderError) as caught:
            await provider.generate_completion(None, "hello")
        await provider.flush()
    shown = "".join(traceback.format_exception(caught.value)) + repr([e.to_dict() for e in record])
    assert "refused: key ***" in shown
    assert "the-secret-of-the-author" not in shown


async def test_no_content_is_seen_of_a_request_that_is_cancelled(
    wire: Any, peer: ScriptedPeer, search: Search
) -> None:
    for path, answer in _well(wire).items():
        peer.route(path, answer)
    peer.route(wire.chat_path, Reply(instead="hang"))
    provider = wire.make_provider(f"{peer.base_url}{wire.base_path}", api_key=KEY)
    await provider.connect()
    with contextlib.closing(EventRecorder(provider)) as events:
        stream = provider.stream_chat_completion(wire.model, conversation(), OPTIONS)
        reading = asyncio.create_task(_read(stream))
        await peer.wait_for_request(len(peer.requests) + 1)
        search.add_object("a running stream", stream)
        search.add_object("its task", reading)
        stream.cancel()
        with pytest.raises(LLMError) as raised:
            await reading
        search.add_error(raised.value)
        await provider.close(0)
        for event in events:
            search.add_event(event)


@given(
    quoted=st.text('ab \\n"é', min_size=16, max_size=60),
    around=st.tuples(st.text("ab", max_size=30), st.text("ab", max_size=30)),
    said=st.tuples(st.text("xyz", max_size=30), st.text("xyz", max_size=30)),
)
def test_whatever_a_service_quotes_of_a_prompt_is_masked(quoted, around, said) -> None:
    masked = without_quotes(quoted.join(said), ["", quoted.join(around)])
    assert quoted not in masked
    assert masked == "***".join(said)


def test_a_few_words_that_stand_in_a_prompt_by_accident_stay() -> None:
    assert without_quotes("there is no such model", ["is there a model?"]) == (
        "there is no such model"
    )


def test_the_search_finds_what_is_there(capfd: pytest.CaptureFixture[str]) -> None:
    """Otherwise none of the tests above could fail."""
    search = Search()
    for secret in (*KEYS, *CONTENT):
        search.add("here", f"... {secret} ...")
    assert len(search.found()) == len({*KEYS, *CONTENT})
    try:
        _holds(KEY)
    except LLMError as error:
        search = Search()
        search.add_error(error)
    assert ["variables" in place for place in search.found()] == [True]


def _holds(key: str) -> None:
    raise LLMError("a function that has the key in a variable")


# ---- whatever a provider class raises ------------------------------------------------------------

OWN_KEY = "open sesame"  # which looks like no key


async def _raises(*args: Any) -> Any:
    raise ConnectionError(f"refused the key {OWN_KEY}")


async def _raises_instead_of_answering(*args: Any) -> Any:
    raise ConnectionError(f"refused the key {OWN_KEY}")
    yield


async def _raises_behind_one_of_ours(*args: Any) -> Any:
    try:
        raise ValueError(f"bad key {OWN_KEY}")
    except ValueError:
        raise ProviderAPIError("no", http_status=500, retryable=True)  # noqa: B904 - on purpose
    yield


@pytest.mark.parametrize(
    ("method", "does"),
    [
        ("_exchange", _raises_instead_of_answering),
        ("_exchange", _raises_behind_one_of_ours),
        ("_probe", _raises),
        ("_open", _raises),
        ("_close", _raises),
        ("_list_models", _raises),
        ("_describe_model", _raises),
        ("_count_tokens", _raises),
    ],
)
async def test_what_a_provider_class_raises_tells_no_key(method: str, does: Any) -> None:
    kind = type("Own", (EchoProvider,), {method: does, "_secrets": lambda self: [OWN_KEY]})
    provider = kind(words_per_s=float("inf"), reconnect=Backoff(first_s=0.01, max_s=0.01))
    told: list[str] = []
    for name in ("statusChanged", "error", "retryScheduled", "requestFinished", "healthCheck"):
        provider.subscribe(lambda event: told.append(repr(event)), name, delivery="inline")
    again = {"retries": {"attempts": 2, "wait_s": 0}}
    for ask in (
        lambda: provider.connect(),
        lambda: provider.generate_completion("echo", "hi", options=again),
        lambda: provider.get_available_models(refresh=True),
        lambda: provider.get_model_info("echo"),
        lambda: provider.count_tokens("echo", "hi"),
        lambda: provider.close(),
    ):
        try:
            await ask()
        except Exception as error:  # noqa: BLE001 - which one does not matter here
            told.append("".join(traceback.format_exception(error)))
    assert told
    assert OWN_KEY not in "".join(told)


async def test_an_error_whose_text_cannot_be_made_ends_the_request_like_any_other() -> None:
    class WithoutText(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Own(EchoProvider):
        async def _exchange(self, request: Any) -> Any:
            raise WithoutText
            yield

    async with Own(policies=[]) as provider:
        ended: list[Any] = []
        provider.subscribe(ended.append, "requestFinished", delivery="inline")
        with pytest.raises(ProviderError, match="WithoutText"):
            await provider.generate_completion("echo", "hi")
        assert (ended[0].outcome, ended[0].error.code) == ("error", "unexpected")
