"""The conformance kit finds the mistakes that authors of providers make."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import logging
import sys
import threading
import urllib.request
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llm_manager import (
    AuthenticationError,
    LLMError,
    LLMModelInfo,
    OpenAICompatibleProvider,
    ProviderError,
    RateLimitError,
    TextDelta,
    UsageDelta,
)
from llm_manager.messages import FinishDelta, ToolCallDelta
from llm_manager.testing import (
    ConformanceError,
    InProcessConformance,
    ProviderConformance,
    ScriptedProvider,
    plugin,
)
from llm_manager.testing.conformance.base import Conformance, HttpKit
from llm_manager.wire.openai_chat import OpenAIChat

from .conformance.openai_wire import OpenAIWire
from .helpers import echo
from .test_docs_tables import column, table

# What wrong providers leave behind is collected within the test that made it.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def example(name: str) -> ModuleType:
    """A program of docs/examples, as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


parrot = example("example_provider")
Right: type[ProviderConformance] = example("test_example_provider").TestParrot
Provider, Codec, Decoder = parrot.ParrotProvider, parrot.ParrotCodec, parrot.ParrotDecoder


@pytest.fixture(autouse=True)
def _collected():
    yield
    gc.collect()


def kit_of(provider: type, **wire: Any) -> ProviderConformance:
    """The kit class of the example, for a provider that is wrong, or with a wire that is."""

    class Kit(Right):  # type: ignore[misc, valid-type]
        limit_s = 1.0

        def make_provider(self, base_url, **settings):
            return provider(base_url=base_url, **settings)

    for name, value in wire.items():
        setattr(Kit, name, value)
    return Kit()


def with_codec(codec: type) -> type:
    return type("Wrong", (Provider,), {"codec": codec()})


def with_decoder(decoder: type) -> type:
    return with_codec(type("WrongCodec", (Codec,), {"decoder": lambda s, r: decoder(r.model)}))


# ---- wrong decoders ------------------------------------------------------------------------------


class SwallowsTheEnd(Decoder):
    def close(self):
        return []


class TalksOn(Decoder):
    def close(self):
        yield from super().close()
        yield TextDelta(" And another thing.")


class NeverEnds(Decoder):
    def deltas(self, line):
        return (d for d in super().deltas(line) if not isinstance(d, FinishDelta))


class ForgetsWhatItKnew(Decoder):
    def deltas(self, line):
        for delta in super().deltas(line):
            if isinstance(delta, UsageDelta):
                usage = delta.usage
                read = usage.prompt_tokens - usage.cached_tokens
                delta = UsageDelta(
                    type(usage)(
                        prompt_tokens=read,
                        cached_tokens=usage.cached_tokens,
                        completion_tokens=usage.completion_tokens,
                    )
                )
            yield delta


class TakesPiecesForLines(Decoder):
    def feed(self, data):
        for line in data.splitlines():
            yield from self.deltas(line)


class LosesTheLastPiece(Decoder):
    held = None

    def deltas(self, line):
        for delta in super().deltas(line):
            if isinstance(delta, TextDelta):
                delta, self.held = self.held, delta
            if delta is not None:
                yield delta


class TurnsPiecesAround(Decoder):
    def feed(self, data):
        deltas = list(super().feed(data))
        texts = [d for d in deltas if isinstance(d, TextDelta)]
        return [texts.pop() if isinstance(d, TextDelta) else d for d in deltas]


class OverlooksErrors(Decoder):
    def told(self, told):
        return () if "sorry" in told else super().told(told)


class RaisesTooEarly(Decoder):
    def feed(self, data):
        return list(super().feed(data))


class CollectsEverything(Decoder):
    def __init__(self, model):
        super().__init__(model)
        self.collected = []

    def feed(self, data):
        self.collected += super().feed(data)
        return []

    def close(self):
        yield from self.collected
        yield from super().close()


class CountsSilence(Decoder):
    def feed(self, data):
        yield from super().feed(data)
        if not data.strip():
            yield TextDelta("")


DECODERS = [
    (SwallowsTheEnd, "an_answer_that_breaks_off_is_no_answer", (2, "complete"), "the event 'done'"),
    (TalksOn, "the_pieces_come_in_a_sensible_order", (), "behind the FinishDelta"),
    (NeverEnds, "the_pieces_come_in_a_sensible_order", (), "this one has 0"),
    (ForgetsWhatItKnew, "tokens_are_counted_in_the_common_meaning", (), "prompt_tokens=60"),
    (TakesPiecesForLines, "it_does_not_matter_where_the_bytes_are_cut", (7,), "7 bytes|raises"),
    (LosesTheLastPiece, "an_answer_is_the_same_however_it_is_read", (), "instead of 'Alpha Bravo"),
    (TurnsPiecesAround, "it_does_not_matter_where_the_bytes_are_cut", (None,), "in writes of all"),
    (OverlooksErrors, "an_error_inside_a_stream_is_raised_behind_what_came_before", (), "nothing"),
    (RaisesTooEarly, "an_error_inside_a_stream_is_raised_behind_what_came_before", (),
     "two pieces came before the error"),
    (CollectsEverything, "a_piece_is_handed_on_before_the_next_is_sent", (), "hand on each piece"),
    (CountsSilence, "an_answer_that_falls_silent_is_given_up", (), "did not come to an end"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("decoder", "check", "arguments", "text"), DECODERS, ids=[d[0].__name__ for d in DECODERS]
)
def test_a_wrong_decoder_is_found(decoder, check, arguments, text) -> None:
    with pytest.raises(ConformanceError, match=text):
        getattr(kit_of(with_decoder(decoder)), f"test_{check}")(*arguments)


# ---- wrong providers -----------------------------------------------------------------------------


class OneDecoderForAll(Codec):
    shared = Decoder("model-1")

    def decoder(self, request):
        return self.shared


class AlwaysTheSameModel(Codec):
    def encode(self, request):
        return super().encode(request).replace(b"model-1", b"polly")


class LeavesItsConnectionOpen(Provider):
    async def _send(self, body, request):
        pieces, queue = super()._send(body, request), asyncio.Queue()

        async def read():
            async for piece in pieces:
                queue.put_nowait(piece)

        self.reading = asyncio.create_task(read())
        while True:
            yield await queue.get()


class AsksAgainWithAWrongKey(Provider):
    async def _send(self, body, request):
        try:
            async with aclosing(super()._send(body, request)) as pieces:
                async for piece in pieces:
                    yield piece
        except AuthenticationError:
            async with aclosing(super()._send(body, request)) as pieces:
                async for piece in pieces:
                    yield piece


class InventsAnAnswer(Provider):
    async def _send(self, body, request):
        try:
            async with aclosing(super()._send(body, request)) as pieces:
                async for piece in pieces:
                    yield piece
        except ProviderError:
            yield b'{"say": "Polly is not well today."}\n{"end": "done"}\n'


class ForgetsToWait(Provider):
    async def _send(self, body, request):
        limited = False
        try:
            async with aclosing(super()._send(body, request)) as pieces:
                async for piece in pieces:
                    yield piece
        except RateLimitError:
            limited = True
        if limited:
            raise RateLimitError("too many requests", http_status=429)


class BlocksTheLoop(Provider):
    async def _send(self, body, request):
        address = self.base_url + self.codec.path
        headers = dict(self._request_headers())
        question = urllib.request.Request(address, body, headers)
        with urllib.request.urlopen(question) as answer:
            for line in answer:
                yield line


class KeyInItsErrors(Provider):
    async def _send(self, body, request):
        try:
            async with aclosing(super()._send(body, request)) as pieces:
                async for piece in pieces:
                    yield piece
        except ProviderError as error:
            failure = ProviderError(f"{error} (key {self._key.resolve()})")
        else:
            return
        raise failure

    def _secrets(self):
        return ()


class KeyInItsRepr(Provider):
    def __repr__(self):
        return f"<ParrotProvider with {self._key.resolve()}>"


class KeyInAnAttribute(Provider):
    def __init__(self, *, api_key=None, **settings):
        super().__init__(api_key=api_key, **settings)
        self.api_key = api_key


class KeyInItsLog(Provider):
    def _send(self, body, request):
        logging.getLogger("parrot").debug("sending with %s", self._request_headers())
        return super()._send(body, request)


class VendorError(Exception):
    """What a library would raise; its request has the key."""


class DragsAlongAVendorsError(Provider):
    async def _send(self, body, request):
        try:
            raise VendorError("no")
        except VendorError as error:
            raise ProviderError("Parrot says no") from error
        yield b""


class KeyInAnotherHeader(Provider):
    def _request_headers(self):
        return {**super()._request_headers(), "x-parrot-key": self._key.resolve() or ""}


class KeyInTheUrl(Provider):
    async def _list_models(self):
        await self.transport.get(f"/birds?key={self._key.resolve()}", timeout_s=5.0)
        return await super()._list_models()


class NoKeyAtAll(Provider):
    def _request_headers(self):
        return {}


class ModelsOfAWrongType(Provider):
    async def _list_models(self):
        return [model.id for model in await super()._list_models()]


class NoModelsOnFailure(Provider):
    async def _list_models(self):
        try:
            return await super()._list_models()
        except LLMError:
            return []


class AlwaysTheSameModels(Provider):
    async def _list_models(self):
        await super()._list_models()
        return [LLMModelInfo(id="model-1"), LLMModelInfo(id="another-model")]


class AsksForMore(Provider):
    async def _list_models(self):
        try:
            await self.transport.get("/secret-birds", timeout_s=5.0)
        except LLMError:
            pass
        return await super()._list_models()


class CannotBeClosed(Provider):
    async def _close(self):
        opened = self._transport is not None
        await super()._close()
        if opened:
            raise RuntimeError("the cage is stuck")


class LeavesATask(Provider):
    async def _open(self):
        await super()._open()
        self.beating = asyncio.create_task(asyncio.Event().wait())


class LeavesAThread(Provider):
    async def _open(self):
        await super()._open()
        threading.Thread(target=threading.Event().wait, args=(3,), daemon=True).start()


class StartsTooEarly(Provider):
    def __init__(self, **settings):
        super().__init__(**settings)
        urllib.request.urlopen(f"{self.base_url}/birds").close()


class PromisesImages(Provider):
    capabilities = Provider.capabilities | {"vision"}


class LetsImagesThrough(Provider):
    def _check(self, request):
        pass


CUT = "an_answer_can_be_left_at_any_time"
REFUSED = "a_refusal_is_told_and_not_repeated"
NO_LEAK = "the_key_is_in_no_error_event_log_or_text"
IN_ITS_HEADER = "the_key_goes_into_its_header_and_nowhere_else"
PROVIDERS = [
    (with_codec(OneDecoderForAll), "several_answers_at_once_are_not_mixed_up", (), "mixed|raises"),
    (with_codec(AlwaysTheSameModel), "the_question_arrives_whole", (), "named neither"),
    (LeavesItsConnectionOpen, CUT, ("break",), "does not close its connection"),
    (AsksAgainWithAWrongKey, REFUSED, (401,), "401 is sent 2 times"),
    (InventsAnAnswer, REFUSED, (400,), "should raise InvalidRequestError, and nothing is raised"),
    (InventsAnAnswer, "trouble_that_may_pass_is_tried_again", (503,), "not well today"),
    (ForgetsToWait, "the_wait_that_a_server_asks_for_is_kept", (), "the error says None"),
    (BlocksTheLoop, "the_loop_is_free_while_the_server_thinks", (), "nothing else ran"),
    (KeyInItsErrors, NO_LEAK, (), "the key is in an event"),
    (KeyInItsRepr, NO_LEAK, (), "the key is in its repr"),
    (KeyInAnAttribute, NO_LEAK, (), "keep it in a Secret"),
    (KeyInItsLog, NO_LEAK, (), "the key is in a log record"),
    (DragsAlongAVendorsError, NO_LEAK, (), "drags along"),
    (KeyInAnotherHeader, IN_ITS_HEADER, (), "header x-parrot-key"),
    (KeyInTheUrl, IN_ITS_HEADER, (), "the URL"),
    (NoKeyAtAll, IN_ITS_HEADER, (), "lacks the key"),
    (ModelsOfAWrongType, "it_lists_its_models", (), "not an LLMModelInfo"),
    (NoModelsOnFailure, "a_model_list_that_cannot_be_read_is_not_an_empty_one", ("trouble",),
     "nothing is raised"),
    (AlwaysTheSameModels, "a_model_list_that_differs_is_announced", (), "one was removed|removed"),
    (AsksForMore, "it_lists_its_models", (), "GET /secret-birds"),
    (CannotBeClosed, "it_connects_disconnects_and_connects_again", (), "_close of .* raised"),
    (LeavesATask, "it_connects_disconnects_and_connects_again", (), "tasks still run"),
    (LeavesAThread, "it_connects_disconnects_and_connects_again", (), "threads still run"),
    (StartsTooEarly, "building_one_touches_nothing", (), "opens a connection"),
    (PromisesImages, "images_are_sent", (), "content is not in what it sends"),
    (LetsImagesThrough, "images_are_sent", (), "should raise UnsupportedFeatureError"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "check", "arguments", "text"),
    PROVIDERS,
    ids=[f"{p[0].__name__}-{p[0].codec.__class__.__name__}-{p[1]}" for p in PROVIDERS],
)
def test_a_wrong_provider_is_found(provider, check, arguments, text) -> None:
    with pytest.raises(ConformanceError, match=text):
        getattr(kit_of(provider), f"test_{check}")(*arguments)


# ---- wrong calls of tools ------------------------------------------------------------------------


class Altered(OpenAIChat):
    """A codec whose decoder changes what it has read."""

    def decoder(self, request):
        decoder = super().decoder(request)
        feed = decoder.feed
        decoder.feed = lambda data: [self.alter(delta) for delta in feed(data)]
        return decoder


class LosesArguments(Altered):
    def alter(self, delta):
        return replace_arguments(delta, "") if isinstance(delta, ToolCallDelta) else delta


class MixesCalls(Altered):
    def alter(self, delta):
        if not isinstance(delta, ToolCallDelta):
            return delta
        return ToolCallDelta(0, delta.id, delta.name, delta.arguments)


def replace_arguments(delta: ToolCallDelta, arguments: str) -> ToolCallDelta:
    return ToolCallDelta(delta.index, delta.id, delta.name, arguments)


class LosesDefinitions(OpenAIChat):
    def encode(self, request):
        return super().encode(request).replace(b"Marker-argument", b"")


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        (LosesArguments, "the model calls"),
        (MixesCalls, "the model calls|raises"),
        (LosesDefinitions, "'Marker-argument' of the tool's definition is not sent"),
    ],
)
def test_wrong_calls_of_tools_are_found(codec, text) -> None:
    class Kit(OpenAIWire, ProviderConformance):
        def make_provider(self, base_url, **settings):
            provider = OpenAICompatibleProvider(base_url=base_url, **settings)
            provider.codec = codec()
            return provider

    with pytest.raises(ConformanceError, match=text):
        Kit().test_tools_are_offered_and_called()


# ---- wrong descriptions --------------------------------------------------------------------------


def test_a_wire_that_does_not_send_piece_by_piece_is_named() -> None:
    def stream(self, wanted):
        whole = replace(wanted, text=(wanted.whole_text.replace("Bravo", "B."),))
        return Right.stream(self, whole)

    kit = kit_of(Provider, stream=stream)
    with pytest.raises(ConformanceError, match="no piece with 'Bravo ' in it"):
        kit.test_an_answer_that_breaks_off_is_no_answer(2, "close")


def test_a_make_provider_that_returns_something_else_is_named() -> None:
    with pytest.raises(ConformanceError, match="must return a BaseLLMProvider, got 'polly'"):
        kit_of(lambda **settings: "polly").test_it_lists_its_models()


def test_a_capability_without_its_wire_is_named() -> None:
    class Embeds(Provider):
        capabilities = Provider.capabilities | {"embeddings"}

    with pytest.raises(ConformanceError, match="give embeddings_path and embeddings"):
        kit_of(Embeds).test_texts_become_vectors()


# ---- without a server ----------------------------------------------------------------------------


class InProcess(InProcessConformance):
    model = "echo"
    limit_s = 1.0
    change = staticmethod(lambda provider: provider)

    def make_provider(self, **settings):
        return self.change(echo(**settings))


async def _stuck(request):
    yield TextDelta("one ")
    try:
        yield TextDelta("two ")
    finally:
        asyncio.get_running_loop().create_task(asyncio.Event().wait(), name="stuck")
    yield FinishDelta("stop")


async def _silent(request):
    yield FinishDelta("stop")


@pytest.mark.parametrize(
    ("exchange", "check", "arguments", "text"),
    [
        (_stuck, "an_answer_can_be_left_at_any_time", ("break",), "tasks still run.*stuck"),
        (_silent, "an_answer_is_the_same_however_it_is_read", (), "the answer is empty"),
    ],
)
def test_a_wrong_provider_in_the_process_is_found(exchange, check, arguments, text) -> None:
    def change(provider):
        provider._exchange = exchange
        return provider

    kit = InProcess()
    kit.change = change
    with pytest.raises(ConformanceError, match=text):
        getattr(kit, f"test_{check}")(*arguments)


# ---- the documentation ---------------------------------------------------------------------------


def test_the_documentation_names_all_that_an_author_can_write() -> None:
    of_the_kit = {"build", "surroundings", "arrange", "is_question", "reply_with", "wanted"}
    names = {name for name in vars(HttpKit) | vars(Conformance) if not name.startswith("_")}
    written = column(table("testing.md", "method or attribute"), "method or attribute")
    assert {name.partition("(")[0] for name in written} == names - of_the_kit


def test_the_documentation_names_every_step_of_a_script() -> None:
    written = column(table("testing.md", "step", "what happens"), "step")
    steps = {name for name in vars(ScriptedProvider) if not name.startswith("_")}
    no_steps = {"kind", "capabilities", "unplayed"}
    assert {name.partition("(")[0] for name in written} == steps - no_steps


def test_the_documentation_names_every_fixture() -> None:
    written = column(table("testing.md", "fixture", "what it gives"), "fixture")
    source = Path(plugin.__file__).read_text()
    assert [f"def {name}(" in source for name in written] == [True] * source.count(
        "@pytest.fixture"
    )


# ---- the right one -------------------------------------------------------------------------------


def test_each_check_that_finds_something_lets_the_right_one_pass() -> None:
    kit = Right()
    checks = {(check, arguments) for _, check, arguments, _ in (*DECODERS, *PROVIDERS)}
    for check, arguments in sorted(checks, key=str):
        getattr(kit, f"test_{check}")(*arguments)
