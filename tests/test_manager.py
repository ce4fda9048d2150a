"""The manager finds providers, knows the active one, and speaks for all of them."""

from __future__ import annotations

import asyncio
import threading

import msgspec
import pytest

from llm_manager import (
    BaseLLMProvider,
    EchoAnswer,
    EchoProvider,
    FallbackProvider,
    InvalidParameterError,
    LLMProviderManager,
    LLMRequestOptions,
    ModelMetrics,
    ModelNotFoundError,
    ProviderConnectionError,
    ProviderNotFoundError,
    ProviderStatus,
    RetryPolicy,
    register_provider,
)
from llm_manager.registry import kinds, unregister_kind
from llm_manager.testing import Reply, ScriptedPeer

from .helpers import Record, echo


@pytest.fixture
async def manager():
    async with LLMProviderManager() as manager:
        yield manager


# ---- the singleton -------------------------------------------------------------------------------


@pytest.fixture
def _fresh_singleton():
    LLMProviderManager.reset_instance()
    yield
    LLMProviderManager.reset_instance()


@pytest.mark.usefixtures("_fresh_singleton")
def test_a_process_has_one_manager_whichever_thread_asks_first() -> None:
    found, barrier = set(), threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        found.add(LLMProviderManager.get_instance())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {LLMProviderManager.get_instance()}


@pytest.mark.usefixtures("_fresh_singleton")
async def test_a_closed_manager_of_the_process_is_replaced_by_a_new_one() -> None:
    first = LLMProviderManager.get_instance()
    await first.close()
    assert LLMProviderManager.get_instance() is not first


def test_separate_managers_do_not_know_each_other() -> None:
    one, other = LLMProviderManager(), LLMProviderManager()
    one.register_provider(echo())
    assert list(other.providers) == []


# ---- registering ---------------------------------------------------------------------------------


async def test_a_provider_is_registered_as_an_object_a_class_or_a_kind(manager) -> None:
    given = manager.register_provider(echo(id="object"))
    made = manager.register_provider(EchoProvider, id="class")
    named = manager.register_provider("echo", words_per_s=10.0)
    assert list(manager.providers) == ["object", "class", "echo"]
    assert [type(p) for p in (given, made, named)] == [EchoProvider] * 3


async def test_the_first_one_becomes_the_active_one_and_both_are_announced(manager) -> None:
    record = Record(manager)
    manager.register_provider(echo(id="a"))
    manager.register_provider(echo(id="b"))
    assert manager.active_provider.id == "a"
    assert [(e.name, e.provider_id) for e in record if e.name != "statusChanged"] == [
        ("providerAdded", "a"),
        ("activeProviderChanged", "a"),
        ("providerAdded", "b"),
    ]


async def test_who_subscribes_first_gets_the_first_status_of_later_providers_too(manager) -> None:
    seen = []
    manager.subscribe(lambda e: seen.append((e.provider_id, e.current.status, e.replayed)))
    manager.register_provider(echo(id="a"))
    await manager.flush()
    assert seen == [("a", "disconnected", True)]


async def test_a_provider_added_later_brings_its_status_along(manager) -> None:
    provider = echo()
    await provider.connect()
    record = Record(manager)
    manager.register_provider(provider)
    assert record.named("providerAdded")[0].status.status == "connected"


async def test_a_listener_of_the_manager_counts_as_a_listener(manager, caplog) -> None:
    class Sticky(EchoProvider):
        async def _close(self) -> None:
            raise OSError("the socket is stuck")

    provider = manager.register_provider(Sticky)
    record = Record(manager)
    await provider.connect()
    await provider.disconnect()
    assert [e.operation for e in record.named("error")] == ["close"]
    assert "unhandled" not in caplog.text


async def test_an_id_can_be_taken_only_once(manager) -> None:
    first = manager.register_provider("echo")
    with pytest.raises(InvalidParameterError, match="'echo' is registered already"):
        manager.register_provider("echo")
    assert manager.providers == {"echo": first}


async def test_a_provider_belongs_to_one_manager(manager) -> None:
    provider = manager.register_provider(echo())
    with pytest.raises(InvalidParameterError, match="another manager"):
        LLMProviderManager().register_provider(provider)


@pytest.mark.parametrize(
    ("what", "settings", "error", "text"),
    [
        ("ollamma", {}, ProviderNotFoundError, "did you mean 'ollama'"),
        ("nothing-like-it-xyz", {}, ProviderNotFoundError, "known are"),
        ("echo", {"words_per_second": 3}, InvalidParameterError, "words_per_second"),
        ("echo", {"words_per_s": 0}, InvalidParameterError, "above 0"),
        ("echo", {"id": "a/b"}, InvalidParameterError, "'a/b' is no provider id"),
        ("echo", {"id": ""}, InvalidParameterError, "is no provider id"),
        ("echo", {"default_options": {"temprature": 1}}, InvalidParameterError, "'temperature'"),
        (dict, {}, InvalidParameterError, "no provider"),
    ],
)
async def test_a_wrong_registration_says_what_is_wrong_and_leaves_nothing(
    manager, what, settings, error, text
) -> None:
    record = Record(manager)
    with pytest.raises(error, match=text):
        manager.register_provider(what, **settings)
    assert (dict(manager.providers), list(record)) == ({}, [])


async def test_settings_are_not_given_with_an_object(manager) -> None:
    with pytest.raises(InvalidParameterError, match="not with an object"):
        manager.register_provider(echo(), words_per_s=3.0)


async def test_unregistering_closes_the_provider_and_chooses_no_other(manager) -> None:
    provider = manager.register_provider(echo(id="a"))
    manager.register_provider(echo(id="b"))
    await provider.connect()
    record = Record(manager)
    assert await manager.unregister_provider("a") is provider
    assert provider.status.status == "closed"
    assert manager.active_provider is None
    assert [e.name for e in record if e.name != "statusChanged"] == [
        "activeProviderChanged",
        "providerRemoved",
    ]
    with pytest.raises(ProviderNotFoundError, match="registered are b"):
        manager.get_provider("a")


async def test_unregistering_lets_a_running_request_end(manager) -> None:
    manager.register_provider(echo(words_per_s=100))
    task = asyncio.ensure_future(manager.stream_completion(None, "one two three"))
    await manager.get_provider("echo").wait_for("connected", 5)
    await manager.unregister_provider("echo")
    assert (await task).text == "one two three"


async def test_a_kind_of_ones_own_can_be_registered_by_code(manager) -> None:
    class Shouting(EchoProvider):
        kind = "shouting"

    register_provider("shouting", Shouting)
    try:
        assert "shouting" in kinds()
        assert manager.register_provider("shouting").id == "shouting"
        with pytest.raises(InvalidParameterError, match="registered already"):
            register_provider("shouting", Shouting)
        with pytest.raises(InvalidParameterError, match="no BaseLLMProvider"):
            register_provider("thing", dict)
    finally:
        unregister_kind("shouting")
    with pytest.raises(ProviderNotFoundError):
        unregister_kind("shouting")


def test_a_status_word_of_one_provider_is_never_taken_for_that_of_another() -> None:
    manager = LLMProviderManager()
    providers = [manager.register_provider("echo", id=f"p{i}") for i in range(3)]
    wrong, numbers = [], []
    for word in ("connecting", "connected", "draining", "disconnected"):

        def look(event, word=word) -> None:
            if event.current.status != word:
                wrong.append((word, event.current.status))

        manager.on(word, look, delivery="inline")
    manager.on("statusChanged", lambda e: numbers.append(e.gseq), delivery="inline")

    def flip(provider) -> None:
        for _ in range(300):
            for word in ("connecting", "connected", "draining", "disconnected"):
                provider._machine.change(ProviderStatus(word))

    threads = [threading.Thread(target=flip, args=(p,)) for p in providers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert numbers == sorted(set(numbers))


async def test_a_listener_that_is_no_function_is_refused(manager) -> None:
    for mistake in (
        lambda: manager.on("connected", "x"),
        lambda: manager.subscribe("statusChanged", print),
        lambda: manager.once("connected", 5),
    ):
        with pytest.raises(InvalidParameterError, match="a listener must be a function"):
            mistake()


# ---- asking --------------------------------------------------------------------------------------


async def test_requests_go_to_the_active_provider_or_to_the_named_one(manager) -> None:
    manager.register_provider(echo(id="a", models=("m",)))
    manager.register_provider(echo(id="b", models=("m", "x/y")))
    assert (await manager.generate_completion(None, "hi")).provider_id == "a"
    assert (await manager.generate_completion("m", "hi")).provider_id == "a"
    assert (await manager.generate_completion("b/m", "hi")).provider_id == "b"
    assert (await manager.generate_chat_completion("b/x/y", "hi")).model == "x/y"
    manager.set_active_provider("b")
    assert (await manager.generate_completion("x/y", "hi")).provider_id == "b"


async def test_all_four_verbs_give_the_same_answer(manager) -> None:
    manager.register_provider(echo())
    answers = [
        await manager.generate_completion(None, "hi there"),
        await manager.generate_chat_completion(None, "hi there"),
        await manager.stream_completion(None, "hi there"),
        await manager.stream_chat_completion(None, [{"role": "user", "content": "hi there"}]),
    ]
    assert {a.text for a in answers} == {"hi there"}
    assert len({a.request_id for a in answers}) == 4


async def test_a_system_prompt_is_a_message_of_its_own(manager) -> None:
    manager.register_provider(echo())
    response = await manager.generate_completion(None, "hi", "be kind please")
    assert response.usage.prompt_tokens == 4


async def test_without_a_provider_a_request_says_what_to_do(manager) -> None:
    with pytest.raises(ProviderNotFoundError, match="no provider is active"):
        await manager.generate_completion("m", "hi")
    with pytest.raises(ProviderNotFoundError, match="'openai'"):
        await manager.generate_completion("openai/m", "hi")


async def test_choosing_a_model_can_choose_its_provider_too(manager) -> None:
    manager.register_provider(echo(id="a"))
    manager.register_provider(echo(id="b", models=("m1", "m2")))
    record = Record(manager)
    manager.set_active_model("b/m2")
    assert (manager.active_provider.id, manager.active_model) == ("b", "m2")
    assert [(e.name, e.current) for e in record] == [
        ("modelChanged", "m2"),
        ("activeProviderChanged", "b"),
    ]


async def test_a_model_that_is_not_in_a_known_list_cannot_be_chosen(manager) -> None:
    provider = manager.register_provider(echo(models=("llama-small", "llama-large")))
    await provider.connect()
    with pytest.raises(ModelNotFoundError, match="did you mean 'llama-large'"):
        manager.set_active_model("lama-large")
    assert manager.active_model == "llama-small"


async def test_defaults_come_from_the_request_then_the_provider_then_the_manager() -> None:
    seen = []

    class Looking(EchoProvider):
        def _exchange(self, request):
            seen.append(request.options)
            return super()._exchange(request)

    async with LLMProviderManager(
        default_options={"temperature": 0.1, "top_p": 0.1, "seed": 1, "extra": {"a": 1}}
    ) as manager:
        manager.register_provider(Looking(default_options={"temperature": 0.2, "top_p": 0.2}))
        await manager.generate_completion(
            None, "hi", options=LLMRequestOptions(temperature=0.0, extra={"b": 2})
        )
    assert (seen[0].temperature, seen[0].top_p, seen[0].seed) == (0.0, 0.2, 1)
    assert seen[0].extra == {"a": 1, "b": 2}


async def test_policies_of_the_manager_are_for_the_providers_that_it_makes() -> None:
    policies = [RetryPolicy()]
    async with LLMProviderManager(policies=policies) as manager:
        provider = manager.register_provider("echo", words_per_s=float("inf"))
        provider.script(EchoAnswer(hang_after_words=0))
        stream = manager.stream_completion(None, "x", options={"timeouts": {"totalS": 0.01}})
        task = asyncio.ensure_future(stream)
        while provider.status.in_flight == 0:
            await asyncio.sleep(0)
        done, _ = await asyncio.wait([task], timeout=0.05)
        assert not done  # no deadline policy, so nothing ends it
        stream.cancel()
        await asyncio.wait([task])
        assert task.exception() is not None


# ---- lifecycle -----------------------------------------------------------------------------------


async def test_connecting_all_is_not_failed_by_one_that_is_down(manager) -> None:
    manager.register_provider(echo(id="up"))
    down = manager.register_provider(echo(id="down"))
    down.go_offline()
    statuses = await manager.connect_all()
    assert {id: s.status for id, s in statuses.items()} == {
        "up": "connected",
        "down": "reconnecting",
    }
    await manager.disconnect_all()
    assert {p.status.status for p in manager.providers.values()} == {"disconnected"}


async def test_a_closed_manager_takes_no_more_work() -> None:
    manager = LLMProviderManager()
    manager.register_provider(echo())
    await manager.close()
    await manager.close()
    for use in (
        lambda: manager.register_provider(echo(id="b")),
        lambda: manager.stream_completion(None, "hi"),
    ):
        with pytest.raises(ProviderConnectionError, match="manager is closed"):
            use()


async def test_the_snapshot_holds_everything_that_a_window_shows(manager) -> None:
    provider = manager.register_provider(echo(id="a", name="My echo"))
    manager.register_provider(echo(id="b"))
    await provider.connect()
    snapshot = manager.snapshot()
    assert snapshot.active_provider == "a"
    assert [(p.id, p.name, p.kind, p.status.status) for p in snapshot.providers] == [
        ("a", "My echo", "echo", "connected"),
        ("b", "b", "echo", "disconnected"),
    ]
    assert [m.id for m in snapshot.providers[0].models] == ["echo"]
    wire = msgspec.json.decode(msgspec.json.encode(snapshot))
    assert wire["activeProvider"] == "a"
    assert wire["providers"][0]["status"]["modelsStale"] is False


async def test_the_models_of_all_connected_providers_come_in_one_list(manager) -> None:
    manager.register_provider(echo(id="a", models=("m1",)))
    manager.register_provider(echo(id="b", models=("m2",)))
    down = manager.register_provider(echo(id="c"))
    down.go_offline()
    await manager.connect_all()
    models = await manager.get_available_models()
    assert [(m.provider_id, m.id) for m in models] == [("a", "m1"), ("b", "m2")]


async def test_a_custom_provider_needs_four_short_methods(manager) -> None:
    from llm_manager import LLMModelInfo
    from llm_manager.messages import FinishDelta, TextDelta

    class Parrot(BaseLLMProvider):
        kind = "parrot"

        async def _open(self) -> None: ...
        async def _close(self) -> None: ...
        async def _list_models(self):
            return [LLMModelInfo(id="grey")]

        async def _exchange(self, request):
            yield TextDelta(request.messages[-1].text.upper())
            yield FinishDelta("stop")

    manager.register_provider(Parrot)
    await manager.connect_all()
    response = await manager.generate_completion("parrot/grey", "hello")
    assert (response.text, response.finish_reason) == ("HELLO", "stop")


async def test_what_is_meant_for_a_provider_that_is_gone_is_sent_to_nobody(manager) -> None:
    cloud = manager.register_provider(echo(id="cloud"))
    manager.register_provider(echo(id="private"))
    await manager.unregister_provider("private")
    with pytest.raises(ProviderNotFoundError, match="'private' was unregistered"):
        await manager.generate_completion("private/echo", "my secret")
    assert list(cloud.requests) == []
    cloud.set_models("echo", "private/model")
    await cloud.get_available_models(refresh=True)
    assert (await manager.generate_completion("private/model", "for the cloud")).text
    manager.register_provider(echo(id="private"))
    assert (await manager.generate_completion("private/echo", "my secret")).text == "my secret"


async def test_closing_everything_does_not_look_like_an_outage_of_a_composite() -> None:
    async with ScriptedPeer(fallback=Reply.json({"data": [{"id": "m"}]})) as peer:
        manager = LLMProviderManager()
        for id in ("a", "b"):
            manager.register_provider("compatible", id=id, base_url=peer.base_url)
        team = manager.register_provider(FallbackProvider(manager.providers.values(), id="team"))
        await manager.connect_all()
        record = Record(team)
        await manager.close()
    assert record.statuses == ["draining", "disconnected", "closed"]


@pytest.mark.parametrize(("connected", "outcome"), [(True, "cancelled"), (False, "error")])
async def test_a_request_that_outlives_its_provider_is_told_to_have_ended(
    manager, connected, outcome
) -> None:
    asked, going_on = asyncio.Event(), asyncio.Event()

    class Stubborn(EchoProvider):
        async def _open(self):
            asked.set()

        async def _exchange(self, request):
            try:
                async for delta in super()._exchange(request):
                    asked.set()
                    yield delta
            finally:
                await going_on.wait()

    provider = manager.register_provider(Stubborn(id="stubborn"))
    if connected:
        await provider.connect()
        asked.clear()
    record, metrics = Record(manager), ModelMetrics().attach(manager)
    asking = asyncio.create_task(manager.generate_completion("stubborn/echo", "one two three"))
    await asked.wait()
    await manager.unregister_provider("stubborn", drain_timeout_s=0)
    going_on.set()
    await asyncio.wait([asking])
    await manager.flush()
    assert [event.outcome for event in record.named("requestFinished")] == [outcome]
    assert [figures.in_flight for figures in metrics.snapshot().models] == [0]
    assert provider.event_names() == set()
