"""A conversation goes from one provider to another: what is said of it, and what arrives."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_manager import (
    BaseLLMProvider,
    CapabilityFact,
    EchoProvider,
    FilePart,
    ImagePart,
    InvalidParameterError,
    LLMCapabilities,
    LLMMessage,
    LLMModelInfo,
    LLMRequest,
    LLMRequestOptions,
    LLMResponse,
    OllamaProvider,
    OpaquePart,
    TextPart,
    ToolCall,
    ToolDefinition,
    UnsupportedFeatureError,
    Usage,
    create_provider,
    portability_report,
    portable,
)
from llm_manager.portability.turns import NO_RESULT
from llm_manager.testing import Reply, ScriptedPeer

from .test_docs_tables import column, table
from .wire.anthropic_events import answer, call_block, one, text_block, thinking_block

ROOT = Path(__file__).parent.parent
IMAGE = ImagePart(data=b"\x89PNG picture", media_type="image/png", detail="low")
THOUGHT = OpaquePart(
    origin="anthropic",
    kind="thinking",
    data={"type": "thinking", "thinking": "Hm.", "signature": "sig=="},
)
WEATHER = ToolDefinition(
    name="weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}},
)
MODELS = {
    "anthropic": "claude-opus-4-6", "openai": "gpt-4.1", "ollama": "qwen3:8b", "groq": "llama",
}  # fmt: skip


def provider_of(kind: str, base_url: str = "http://127.0.0.1:1/v1", **more: Any) -> BaseLLMProvider:
    if kind != "ollama":
        more.setdefault("api_key", "sk-planted-0123456789")
    return create_provider(kind, base_url=base_url, default_model=MODELS[kind], **more)


def call(id: str = "call_1", arguments: str = '{"city": "Rome"}') -> ToolCall:
    return ToolCall(id=id, name="weather", arguments_json=arguments)


def asked(*calls: ToolCall, text: str = "") -> LLMMessage:
    return LLMMessage.assistant(text, tool_calls=calls or (call(),))


def result(id: str = "call_1", text: str = "sunny") -> LLMMessage:
    return LLMMessage.tool(id, text)


def said(*messages: LLMMessage) -> tuple[LLMMessage, ...]:
    return (LLMMessage.user("Hi"), *messages)


def facts(report, severity: str) -> list[tuple[int | None, str]]:
    return [(item.index, item.what) for item in getattr(report, severity)]


def known(**more: Any) -> LLMCapabilities:
    features = {
        name: CapabilityFact(supported=supported, source="user")
        for name, supported in more.pop("features", {}).items()
    }
    return LLMCapabilities(provider_id="there", features=features, **more)


# ---- a whole journey -----------------------------------------------------------------------------


def anthropic_answer(*blocks: Any, reason: str = "end_turn") -> Reply:
    return Reply.sse([one(event) for event in answer(*blocks, reason=reason)])


def openai_answer(**delta: Any) -> Reply:
    reason = "tool_calls" if "tool_calls" in delta else "stop"
    first = {"index": 0, "delta": {"role": "assistant", **delta}}
    last = {"index": 0, "delta": {}, "finish_reason": reason}
    return Reply.sse(
        [{"id": "1", "model": "m", "choices": [c]} for c in (first, last)] + ["[DONE]"]
    )


def ollama_answer(**message: Any) -> Reply:
    last = {"done": True, "done_reason": "stop", "message": {"content": ""}}
    return Reply.ndjson([{"model": "m", "message": {"role": "assistant", **message}}, last])


def openai_call(id: str) -> list[dict[str, Any]]:
    function = {"name": "weather", "arguments": '{"city": "Oslo"}'}
    return [{"index": 0, "id": id, "type": "function", "function": function}]


@pytest.mark.parametrize("prepared", [False, True], ids=["as_it_is", "portable"])
async def test_a_conversation_travels_through_all_dialects_and_back(prepared) -> None:
    history: list[LLMMessage] = []
    bodies: list[Any] = []

    async with AsyncExitStack() as stack:
        peers = {kind: await stack.enter_async_context(ScriptedPeer()) for kind in MODELS}
        providers = {}
        for kind, peer in peers.items():
            suffix = "" if kind in ("anthropic", "ollama") else "/v1"
            provider = provider_of(kind, peer.base_url + suffix)
            providers[kind] = await stack.enter_async_context(_closing(provider))

        async def ask(kind: str, *answers: Reply) -> None:
            """Ask, run the tool that the answer calls, and ask once more."""
            peers[kind].script(*answers)
            history.append(LLMMessage.user(f"What is the weather, {kind}?", IMAGE))
            for _ in answers:
                sent = portable(history, providers[kind]) if prepared else history
                answered = await providers[kind].generate_chat_completion(
                    None, sent, {"tools": [WEATHER], "retries": {"attempts": 1}}
                )
                history.append(answered.to_message())
                history.extend(result(c.id, f"sunny, {kind}") for c in answered.tool_calls)
            bodies.append(peers[kind].requests[-1].json())

        await ask(
            "anthropic",
            anthropic_answer(
                thinking_block("Let me see."),
                text_block("I look.", index=1),
                call_block("toolu_01A", "weather", '{"city": "Rome"}', index=2),
                reason="tool_use",
            ),
            anthropic_answer(text_block("Sunny.")),
        )
        await ask(
            "openai",
            openai_answer(reasoning_content="Thinking.", tool_calls=openai_call("call/π 1")),
            openai_answer(content="Sunny."),
        )
        function = {"name": "weather", "arguments": {"city": "Bern"}}
        await ask(
            "ollama",
            ollama_answer(content="", thinking="Aha.", tool_calls=[{"function": function}]),
            ollama_answer(content="Sunny."),
        )
        await ask("groq", openai_answer(content="Sunny too."))
        await ask("anthropic", anthropic_answer(text_block("Sunny still.")))

    _, openai, ollama, groq, anthropic = bodies
    assert len(history) == 16

    # Every question with its picture, every call with its result, on every wire.
    picture = b64encode(IMAGE.data).decode()
    for body in (openai, groq):
        messages = body["messages"]
        for message in (m for m in messages if m["role"] == "user"):
            assert message["content"][1]["image_url"]["url"] == f"data:image/png;base64,{picture}"
        pairs = _pairs(messages)
        assert pairs[0] == ("toolu_01A", '{"city": "Rome"}', "sunny, anthropic")
        assert [p[2] for p in pairs[1:]] == ["sunny, openai", "sunny, ollama"][: len(pairs) - 1]
        assert "sig==" not in json.dumps(body)
    assert all(m["images"] == [picture] for m in ollama["messages"] if m["role"] == "user")
    results = [m for m in ollama["messages"] if m["role"] == "tool"]
    assert [m["content"] for m in results] == [
        "sunny, anthropic", "sunny, openai", "sunny, ollama",
    ]  # fmt: skip
    assert {m["tool_name"] for m in results} == {"weather"}
    assert "sig==" not in json.dumps(ollama)

    # Back at its origin, the signed reasoning is where it was, and all ids are in its letters.
    turns = anthropic["messages"]
    assert [t["role"] for t in turns] == ["user", "assistant"] * 7 + ["user"]
    assert turns[1]["content"][0] == {
        "type": "thinking", "thinking": "Let me see.", "signature": "sig==",
    }  # fmt: skip
    for number, kind in ((1, "anthropic"), (5, "openai"), (9, "ollama")):
        use = turns[number]["content"][-1]
        answered = turns[number + 1]["content"][0]
        assert use["type"] == "tool_use"
        assert answered == {
            "type": "tool_result",
            "tool_use_id": use["id"],
            "content": [{"type": "text", "text": f"sunny, {kind}"}],
        }
        assert use["id"].replace("_", "").replace("-", "").isalnum()
        assert use["id"].isascii()


class _closing:
    def __init__(self, provider: BaseLLMProvider) -> None:
        self._provider = provider

    async def __aenter__(self) -> BaseLLMProvider:
        return self._provider

    async def __aexit__(self, *error: object) -> None:
        await self._provider.close()


def _pairs(messages: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Id, arguments and result of the calls in a body of the OpenAI dialect."""
    return [
        (c["id"], c["function"]["arguments"], messages[place + 1]["content"])
        for place, message in enumerate(messages)
        for c in message.get("tool_calls", ())
        if messages[place + 1]["tool_call_id"] == c["id"]
    ]


# ---- the report ----------------------------------------------------------------------------------


def test_plain_text_is_kept_everywhere() -> None:
    for kind in MODELS:
        report = portability_report("Hello", provider_of(kind))
        assert (report.items, report.lossless, report.sendable) == ((), True, True)
        assert report.target == f"{kind}/{MODELS[kind]}"


def test_parts_of_another_dialect_are_lost_and_own_ones_are_kept() -> None:
    thought = LLMMessage(role="assistant", content=(THOUGHT, TextPart(text="Hi.")), reasoning="Hm.")
    report = portability_report(said(thought), provider_of("groq"))
    assert facts(report, "lost") == [(1, "opaque part"), (1, "reasoning")]
    assert "thinking, which only anthropic understands" in report.lost[0].why
    assert report.sendable

    report = portability_report(said(thought), provider_of("anthropic"))
    assert facts(report, "kept") == [(1, "opaque part")]
    assert report.lossless


def test_whether_reasoning_goes_back_is_a_matter_of_the_dialect() -> None:
    message = LLMMessage(role="assistant", tool_calls=(call(),), reasoning="Hm.")
    messages = said(message, result())
    assert facts(portability_report(messages, provider_of("openai")), "lost") == [(1, "reasoning")]
    for kind in ("deepseek", "ollama"):
        target = create_provider(kind, default_model="m")
        assert facts(portability_report(messages, target), "lost") == []


def test_images_and_files_that_a_model_cannot_read_are_lost_and_block() -> None:
    file = FilePart(data=b"%PDF-", media_type="application/pdf")
    messages = [LLMMessage.user("Look", IMAGE), LLMMessage.user("And", file)]
    report = portability_report(messages, known(features={"vision": False, "files": False}))
    assert facts(report, "lost") == [(0, "image"), (1, "file")]
    assert [item.why for item in report.lost] == ["it reads no images", "it reads no files"]
    assert not report.sendable

    report = portability_report(messages, known(features={"vision": True}))
    assert facts(report, "kept") == [(0, "image"), (1, "file")]
    assert report.lossless

    report = portability_report(messages, provider_of("ollama"))
    assert facts(report, "kept") == [(0, "image")]
    assert facts(report, "lost") == [(0, "detail"), (1, "file")]


def test_what_a_model_can_do_is_asked_of_the_model_list() -> None:
    provider = provider_of("ollama")
    text_only = LLMModelInfo.known("endpoint", id="text", capabilities=frozenset({"chat"}))
    sees = LLMModelInfo.known(
        "endpoint", id="sees", capabilities=frozenset({"chat", "vision"}), context_window_tokens=50
    )
    provider._catalog.accept([text_only, sees])
    messages = [LLMMessage.user("Look", IMAGE)]
    assert "image" in [i.what for i in portability_report(messages, provider, model="text").lost]
    report = portability_report(messages, provider, model="sees")
    assert facts(report, "kept") == [(0, "image")]
    assert facts(report, "lost") == [(None, "length"), (0, "detail")]
    assert "it reads 50" in report.lost[0].why
    assert not report.sendable


def test_what_a_wire_refuses_blocks_with_its_reason() -> None:
    bitmap = ImagePart(data=b"BM", media_type="image/bmp")
    by_url = ImagePart(url="https://example.com/cat.png")
    for kind, image, why in (
        ("anthropic", bitmap, "image/bmp"),
        ("ollama", by_url, "does not fetch images by URL"),
    ):
        (item,) = portability_report([LLMMessage.user("Look", image)], provider_of(kind)).lost
        assert (item.what, item.blocks) == ("image", True)
        assert why in item.why
    shown = LLMMessage(role="assistant", content=(IMAGE,))
    assert not portability_report(said(shown), provider_of("anthropic")).sendable


def test_ids_that_a_dialect_replaces_are_changed() -> None:
    messages = said(asked(call("a/b")), result("a/b"))
    report = portability_report(messages, provider_of("anthropic"))
    assert facts(report, "changed") == [(1, "tool call id")]
    assert facts(report, "kept") == [(1, "tool call")]
    assert portability_report(messages, provider_of("ollama")).lossless
    # Mistral takes nine letters and digits, and nothing else.
    mistral = create_provider("mistral", default_model="m")
    assert facts(portability_report(said(asked(), result()), mistral), "changed") == [
        (1, "tool call id")
    ]
    moved = portable(messages, mistral)
    assert portability_report(moved, mistral).lossless


def test_a_call_without_result_and_a_result_without_call_block() -> None:
    messages = said(asked(call("a"), call("b")), result("a"), result("c"))
    report = portability_report(messages, provider_of("ollama"))
    assert facts(report, "changed") == [(1, "tool call"), (3, "tool result")]
    assert not report.sendable
    mended = portability_report(portable(messages), provider_of("ollama"))
    assert mended.sendable
    assert mended.lossless


def test_arguments_that_are_no_object_block_where_the_wire_needs_one() -> None:
    messages = said(asked(call(arguments='{"city": ')), result())
    assert not portability_report(messages, provider_of("ollama")).sendable
    assert portability_report(portable(messages), provider_of("ollama")).sendable


def test_tools_are_lost_where_there_are_none() -> None:
    target = known(features={"tools": False})
    report = portability_report(said(asked(), result()), target, options={"tools": [WEATHER]})
    assert facts(report, "lost") == [
        (None, "option tools"), (1, "tool call"), (2, "tool result"),
    ]  # fmt: skip
    assert not report.sendable


def test_a_later_system_message_is_changed_where_all_are_one_prompt() -> None:
    messages = [LLMMessage.system("A"), LLMMessage.user("B"), LLMMessage.system("C")]
    report = portability_report(messages, provider_of("anthropic"))
    assert facts(report, "changed") == [(2, "system message")]
    assert portability_report(messages, provider_of("groq")).lossless


def test_names_that_a_wire_does_not_carry_are_lost() -> None:
    messages = [LLMMessage(role="user", content="Hi", name="ann")]
    assert facts(portability_report(messages, provider_of("anthropic")), "lost") == [(0, "name")]
    assert portability_report(messages, provider_of("groq")).lossless


def test_options_that_do_not_get_there_are_named() -> None:
    options = LLMRequestOptions(
        temperature=1.5, stop="END", seed=1, max_tokens=9, tools=(WEATHER,), tool_choice="weather",
        reasoning_effort="low",
    )  # fmt: skip
    report = portability_report("Hi", provider_of("anthropic"), options=options)
    lost = {item.what: item.blocks for item in report.lost}
    assert lost["option temperature"]
    assert lost["option seed"]
    assert not {"option stop", "option max_tokens", "option tool_choice"} & set(lost)

    report = portability_report("Hi", provider_of("ollama"), options=options)
    assert facts(report, "lost") == [(None, "option tool_choice")]
    report = portability_report("Hi", known(features={"reasoning": False}), options=options)
    assert facts(report, "lost") == [(None, "option reasoning_effort")]


def test_a_provider_without_a_wire_keeps_what_it_can_do() -> None:
    thought = LLMMessage(role="assistant", content=(THOUGHT,), reasoning="Hm.")
    report = portability_report(said(thought), EchoProvider())
    assert facts(report, "lost") == [(1, "opaque part"), (1, "reasoning")]


def test_of_capabilities_alone_only_what_is_known_is_lost() -> None:
    thought = LLMMessage(role="assistant", content=(THOUGHT,), reasoning="Hm.", name="ann")
    report = portability_report(said(thought), known())
    assert facts(report, "lost") == [(1, "opaque part")]


def test_a_conversation_that_cannot_be_sent_for_any_other_reason_blocks() -> None:
    messages = [LLMMessage.system("Be brief.")]
    (item,) = portability_report(messages, provider_of("anthropic")).lost
    assert (item.what, item.blocks) == ("conversation", True)
    assert "no message to answer" in item.why


class ForeignPartsAreErrors:
    """A codec of somebody who did not think of parts that are not for it."""

    path = "/"

    def encode(self, request: LLMRequest) -> bytes:
        for message in request.messages:
            if any(isinstance(part, OpaquePart) for part in message.content):
                raise UnsupportedFeatureError("what is this?")
        return msgspec.json.encode(request)

    def decoder(self, request: LLMRequest) -> Any:
        raise AssertionError("nothing is sent")


def test_a_codec_that_chokes_on_foreign_parts_is_spared_them() -> None:
    class Strict(EchoProvider):
        codec = ForeignPartsAreErrors()

    messages = said(LLMMessage(role="assistant", content=(THOUGHT, TextPart(text="Hi."))))
    assert not portability_report(messages, Strict()).sendable
    moved = portable(messages, Strict())
    assert portability_report(moved, Strict()).lossless


def test_a_report_can_be_read_and_sent() -> None:
    messages = [LLMMessage.user("Look", FilePart(data=b"%PDF-", media_type="application/pdf"))]
    report = portability_report(messages, provider_of("ollama"))
    assert str(report).splitlines() == [
        "to ollama/qwen3:8b: 0 kept, 0 changed, 1 lost",
        "  lost (blocks): message 0: file: it reads no files",
    ]
    assert report.to_dict()["items"][0] == {
        "index": 0, "what": "file", "severity": "lost", "why": "it reads no files", "blocks": True,
    }  # fmt: skip


def test_large_files_do_not_make_a_report_slow() -> None:
    """What is in them is not written: 50 MB would take seconds, and more memory than is allowed."""
    import tracemalloc

    big = bytes(50_000_000)
    messages = [
        LLMMessage.user("Look", ImagePart(data=big, media_type="image/png", detail="low")),
        LLMMessage.user("Look", FilePart(data=big, media_type="application/pdf")),
    ]
    provider = provider_of("anthropic")
    tracemalloc.start()
    try:
        portability_report(messages, provider)
        portable(messages, provider, notes=True)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_only_providers_and_capabilities_are_targets() -> None:
    with pytest.raises(InvalidParameterError, match="target"):
        portability_report("Hi", "groq")
    with pytest.raises(InvalidParameterError, match="target"):
        portable("Hi", "groq")
    with pytest.raises(InvalidParameterError, match="empty"):
        portability_report([], EchoProvider())


# ---- portable ------------------------------------------------------------------------------------


def test_what_fits_is_left_as_it_is() -> None:
    messages = (
        LLMMessage.system("Be brief."),
        LLMMessage.user("Look", IMAGE),
        asked(call("toolu_01")),
        result("toolu_01"),
        LLMMessage(role="assistant", content="Sunny.", reasoning="Hm."),
    )
    for target in (None, *map(provider_of, MODELS)):
        kept = portable(messages, target)
        assert all(one is other for one, other in zip(kept, messages, strict=True))


def test_foreign_parts_are_left_out_and_own_ones_stay() -> None:
    message = LLMMessage(role="assistant", content=(THOUGHT, TextPart(text="Hi.")))
    without = LLMMessage(role="assistant", content=(TextPart(text="Hi."),))
    assert portable(said(message)) == said(without)
    assert portable(said(message), provider_of("groq")) == said(without)
    assert portable(said(message), provider_of("anthropic")) == said(message)


def test_an_answer_in_which_nothing_is_left_is_left_out() -> None:
    only_thought = LLMMessage(role="assistant", content=(THOUGHT,))
    assert portable(said(only_thought, LLMMessage.assistant(""))) == said()


@pytest.mark.parametrize("id", ["", "a/b", "π", "x" * 41, "call 1", "a\nb", "\ud800"])
def test_an_id_that_is_not_plain_is_replaced_in_the_call_and_in_its_result(id) -> None:
    # An empty id can come from a server, and its result cannot name it.
    first, then, *answers = portable(said(asked(call(id)), *([result(id)] if id else [])))
    new = then.tool_calls[0].id
    assert len(new) == 9  # which all services take
    assert new.isascii()
    assert new.isalnum()
    assert [m.tool_call_id for m in answers] == [new]
    assert portable(said(asked(call(id)), *([result(id)] if id else []))) == (first, then, *answers)


def test_different_ids_stay_different_and_repeated_ones_become_so() -> None:
    messages = said(
        asked(call("a/b"), call("a:b")), result("a:b", "2"), result("a/b", "1"),
        asked(call("call_0")), result("call_0", "3"), asked(call("call_0")), result("call_0", "4"),
    )  # fmt: skip
    moved = portable(messages)
    ids = [c.id for m in moved for c in m.tool_calls]
    assert len(set(ids)) == 4
    assert "call_0" in ids
    results = [(m.tool_call_id, m.text) for m in moved if m.role == "tool"]
    assert results == list(zip(ids, "1234", strict=True))


def test_results_move_right_behind_their_call() -> None:
    messages = said(asked(call("a"), call("b")), LLMMessage.user("Well?"), result("b"), result("a"))
    roles = [(m.role, m.tool_call_id) for m in portable(messages)[1:]]
    assert roles == [("assistant", None), ("tool", "a"), ("tool", "b"), ("user", None)]


def test_a_call_without_result_gets_one_that_says_so() -> None:
    *_, first, second = portable(said(asked(call("a"), call("b")), result("a")))
    assert first == result("a")
    assert second == LLMMessage.tool("b", NO_RESULT)


def test_a_result_without_call_becomes_a_message_of_the_user() -> None:
    messages = (result("gone", "sunny"), *said(asked(), result(), result("call_1", "again")))
    first, *_, last = portable(messages)
    assert (first.role, first.text) == ("user", "Result of an earlier tool call:\nsunny")
    assert (last.role, last.text) == ("user", "Result of an earlier tool call:\nagain")


def test_a_result_belongs_to_the_last_call_of_its_id() -> None:
    messages = said(asked(call("x")), asked(call("x")), result("x", "late"))
    moved = portable(messages)
    assert [m.text for m in moved if m.role == "tool"] == [NO_RESULT, "late"]


def test_broken_arguments_become_an_object() -> None:
    _, message, _ = portable(said(asked(call(arguments='{"city": "Ro')), result()))
    assert message.tool_calls[0].arguments == {"INVALID_JSON": '{"city": "Ro'}
    for good in ("", "{}", '{"a": {"b": [1]}}'):
        messages = said(asked(call(arguments=good)), result())
        assert portable(messages) == messages


async def test_what_a_target_cannot_read_stays_an_error_unless_a_note_is_asked_for() -> None:
    file = FilePart(data=b"%PDF-", media_type="application/pdf", filename="paper.pdf")
    messages = [LLMMessage.user("Look", file, IMAGE)]
    provider = OllamaProvider(base_url="http://127.0.0.1:1", default_model="m")
    kept = portable(messages, provider)
    assert kept == tuple(messages)
    with pytest.raises(UnsupportedFeatureError):
        await provider.generate_chat_completion(None, kept)

    (noted,) = portable(messages, provider, notes=True)
    assert noted.content[1:] == (
        TextPart(text="[Here was a file (paper.pdf), which you cannot read.]"),
        IMAGE,
    )
    (noted,) = portable(messages, known(features={"vision": False, "files": False}), notes=True)
    assert "[Here was an image (image/png), which you cannot read.]" in noted.text


def test_tool_calls_become_text_for_a_model_without_tools_if_asked() -> None:
    target = known(features={"tools": False})
    messages = said(asked(text="I look."), result())
    assert portable(messages, target) == messages
    _, told, answered = portable(messages, target, notes=True)
    assert (told.role, told.tool_calls) == ("assistant", ())
    assert told.text == 'I look.\n[Called the tool weather with {"city": "Rome"}]'
    assert (answered.role, answered.text) == ("user", "Result of an earlier tool call:\nsunny")


def test_dictionaries_are_messages_too() -> None:
    (message,) = portable([{"role": "user", "content": "Hi"}])
    assert message == LLMMessage.user("Hi")


# ---- the documentation ---------------------------------------------------------------------------


def test_the_tables_of_messages_have_each_field_in_order() -> None:
    for kind in (LLMMessage, LLMResponse, Usage):
        header = f"field of `{kind.__name__}`"
        rows = table("messages.md", header, "meaning")
        assert column(rows, header) == list(kind.__struct_fields__)


def test_the_table_of_what_can_happen_names_all_that_the_report_says() -> None:
    written = set(column(table("switching_providers.md", "what", "when"), "what"))
    code = (ROOT / "llm_manager" / "portability" / "report.py").read_text()
    used = set(re.findall(r'_item\(\s*(?:index|None), "([a-z ]+)"', code)) | {"image", "file"}
    assert used | {"option"} == written
