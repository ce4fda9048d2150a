"""Several servers or keys of one kind behind one provider."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest

from llm_manager import (
    BalancedProvider,
    EchoAnswer,
    InvalidParameterError,
    ProviderOverloadedError,
    RateLimitError,
    create_provider,
)
from llm_manager.composites.strategies import chooser
from llm_manager.errors import ConfigurationError
from llm_manager.testing import Reply, ScriptedPeer

from ..helpers import QUICK, echo

ONCE = {"retries": {"attempts": 1}}


def cluster(**settings) -> BalancedProvider:
    return BalancedProvider([echo(id=id) for id in "abc"], **settings)


async def asked(provider: BalancedProvider, count: int, **options) -> Counter[str]:
    answers = [
        await provider.generate_completion(None, "hi", options={**ONCE, **options})
        for _ in range(count)
    ]
    return Counter(answer.answered_by for answer in answers)


@pytest.mark.parametrize("strategy", ["least_busy", "round_robin"])
async def test_equal_members_get_equally_many_requests(strategy) -> None:
    async with cluster(strategy=strategy) as provider:
        assert await asked(provider, 9) == {"a": 3, "b": 3, "c": 3}


async def test_whoever_is_busy_gets_nothing_while_others_have_time() -> None:
    async with cluster() as provider:
        busy = provider.members[0]
        busy.script(EchoAnswer(text="one two", hang_after_words=1))
        async with provider.stream_completion(None, "long") as stream:
            async for _ in aiter(stream):
                assert await asked(provider, 4) == {"b": 2, "c": 2}
                break
        assert busy.status.in_flight == 0
        assert await asked(provider, 1) == {"a": 1}


async def test_the_quick_get_more_than_the_slow() -> None:
    choose = chooser("latency")
    quick, slow = echo(id="quick"), echo(id="slow")
    choose.answered(quick, 0.1)
    choose.answered(slow, 1.0)
    load: Counter = Counter()
    assert choose(None, [slow, quick], load) is quick
    load[quick] = 20
    assert choose(None, [slow, quick], load) is slow


async def test_a_request_that_fails_goes_to_one_other_member() -> None:
    async with cluster(strategy="round_robin") as provider:
        overloaded = EchoAnswer(error=ProviderOverloadedError("no room"))
        provider.members[0].script(overloaded)
        assert await asked(provider, 1) == {"b": 1}
        for member in provider.members:
            member.script(overloaded)
        with pytest.raises(ProviderOverloadedError, match="no member has answered"):
            await asked(provider, 1)
        assert sum(len(member.requests) for member in provider.members) == 4


async def test_a_member_that_cools_down_gets_nothing() -> None:
    async with cluster() as provider:
        limited = RateLimitError("slow down", retry_after_s=100)
        provider.members[0].script(EchoAnswer(error=limited))
        assert await asked(provider, 5) == {"b": 3, "c": 2}


async def test_a_conversation_stays_with_its_member() -> None:
    async with cluster(sticky=True) as provider:
        for conversation in ("one", "two", "three"):
            assert len(await asked(provider, 4, conversation_id=conversation)) == 1


async def test_a_function_can_choose() -> None:
    async with cluster(strategy=lambda request, members: members[-1]) as provider:
        assert await asked(provider, 3) == {"c": 3}
    async with cluster(strategy=lambda request, members: None) as provider:
        with pytest.raises(InvalidParameterError, match="the strategy chose"):
            await asked(provider, 1)


async def test_a_cluster_goes_on_without_a_server_that_dies_and_takes_it_back() -> None:
    piece = {"choices": [{"index": 0, "delta": {"content": "Hi."}, "finish_reason": "stop"}]}
    async with ScriptedPeer() as one, ScriptedPeer() as two, ScriptedPeer() as three:
        peers = (one, two, three)
        for peer in peers:
            peer.route("/v1/models", Reply.json({"data": [{"id": "llama"}]}))
            peer.route("/v1/chat/completions", Reply.sse([piece, "[DONE]"]))
        provider = BalancedProvider(
            of="vllm",
            base_urls=[f"{peer.base_url}/v1" for peer in peers],
            member_settings={"reconnect": QUICK},
            default_model="llama",
            id="gpu",
        )
        async with provider:
            assert len(await asked(provider, 6)) == 3
            await two.stop()
            assert await asked(provider, 6) == {"gpu-1": 3, "gpu-3": 3}
            assert (provider.status.status, provider.status.reason) == ("degraded", "members_down")
            await two.start()
            await provider.wait_for("connected", 10)
            assert len(await asked(provider, 6)) == 3


async def test_one_kind_with_several_keys_sends_each_of_them(monkeypatch) -> None:
    piece = {"choices": [{"index": 0, "delta": {"content": "Hi."}, "finish_reason": "stop"}]}
    monkeypatch.setenv("SECOND_KEY", "sk-two")
    async with ScriptedPeer() as peer:
        peer.route("/v1/models", Reply.json({"data": [{"id": "m"}]}))
        peer.route("/v1/chat/completions", Reply.sse([piece, "[DONE]"]))
        provider = create_provider(
            "balanced",
            of="compatible",
            base_urls=[f"{peer.base_url}/v1"],
            api_keys=["sk-one", "env:SECOND_KEY"],
            default_model="m",
        )
        async with provider:
            await asked(provider, 2)
        sent = {r.headers["authorization"] for r in peer.requests if r.path.endswith("completions")}
        assert sent == {"Bearer sk-one", "Bearer sk-two"}
        with pytest.raises(ConfigurationError, match="not pickled"):
            pickle.dumps(provider)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "either members, or of"),
        ({"members": ["echo"], "of": "vllm"}, "either members, or of"),
        ({"of": "echo"}, "base_urls or api_keys"),
        ({"of": "vllm", "base_urls": "http://127.0.0.1:1/v1"}, "must be a list"),
        ({"of": "compatible", "base_urls": ["u", "v"], "api_keys": ["a", "b", "c"]}, "do not go"),
        ({"members": ["echo"], "strategy": "fastest"}, "strategy must be"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        BalancedProvider(**settings)
