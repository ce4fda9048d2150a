"""One provider at a time, and a conversation that goes on at another."""

from __future__ import annotations

import pickle

import pytest

from llm_manager import (
    EchoAnswer,
    LLMMessage,
    OpaquePart,
    ProviderNotFoundError,
    SwitchingProvider,
    TextPart,
)

from ..helpers import echo


def pair() -> SwitchingProvider:
    return SwitchingProvider([echo(id="openai"), echo(id="local", models=["small", "large"])])


async def test_requests_go_to_the_current_member_until_somebody_switches() -> None:
    async with pair() as provider:
        changes = []
        provider.on("modelChanged", lambda e: changes.append(e.current), delivery="inline")
        assert (await provider.generate_completion(None, "hi")).answered_by == "openai"
        report = provider.switch_provider("local", model="large")
        assert report.lossless
        answer = await provider.generate_completion(None, "hi")
        assert (answer.answered_by, answer.model) == ("local", "large")
        assert provider.current.id == "local"
        provider.set_active_model("openai/echo")
        assert (await provider.generate_completion(None, "hi")).answered_by == "openai"
    assert changes == ["local/large", "openai/echo"]


async def test_the_history_goes_along_and_the_report_says_what_is_lost() -> None:
    thought = OpaquePart(origin="anthropic", kind="thinking", data={"signature": "x"})
    history = [
        LLMMessage.user("hi"),
        LLMMessage(role="assistant", content=(thought, TextPart(text="hello"))),
        LLMMessage.user("and now?"),
    ]
    async with pair() as provider:
        report = provider.switch_provider("local", history=history)
        assert [item.what for item in report.lost] == ["opaque part"]
        await provider.generate_chat_completion(None, history)
        sent = provider.current.requests[-1].messages
    assert [message.text for message in sent] == ["hi", "hello", "and now?"]
    assert not any(isinstance(p, OpaquePart) for p in sent[1].content)


async def test_a_running_answer_ends_where_it_began() -> None:
    async with pair() as provider:
        provider.current.script(EchoAnswer(text="one two three"))
        async with provider.stream_completion(None, "hi") as stream:
            async for event in stream:
                if event.text == "one ":
                    provider.switch_provider("local")
        assert (stream.response.text, stream.response.answered_by) == ("one two three", "openai")


async def test_the_status_is_that_of_the_current_member() -> None:
    async with pair() as provider:
        provider.members[1].go_offline()
        assert provider.status.status == "connected"
        provider.current.go_offline()
        with pytest.raises(Exception, match="refused"):
            await provider.generate_completion(None, "hi", options={"retries": {"attempts": 1}})
        assert provider.status.status == "reconnecting"
        provider.members[1].go_online()
        provider.switch_provider("local")
        await provider.wait_for("connected", 5)


async def test_an_unknown_member_is_refused_with_a_similar_one() -> None:
    with pytest.raises(ProviderNotFoundError, match="did you mean 'openai'"):
        pair().switch_provider("openia")
    with pytest.raises(ProviderNotFoundError, match="its members are"):
        SwitchingProvider([echo(id="one")], current="zzz")


async def test_who_is_current_survives_new_settings_and_pickling() -> None:
    async with pair() as provider:
        provider.switch_provider("local")
        await provider.update_config(name="Mine")
        assert provider.current.id == "local"
    simple = SwitchingProvider(["echo"], id="s")
    assert pickle.loads(pickle.dumps(simple)).current.id == "echo"
