"""Policies that are put around the requests of a provider, or of all providers, while it runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
import pytest

from llm_manager import InvalidParameterError, LLMProviderManager, MetaDelta
from llm_manager.messages import Delta, LLMRequest
from llm_manager.policy import Exchange, Host
from tests.helpers import EventRecorder, echo


class Note:
    """Writes down which requests pass, and whose."""

    def __init__(self, name: str = "", seen: list[str] | None = None) -> None:
        self.name = name
        self.seen: list[str] = [] if seen is None else seen
        self.kinds: list[str] = []

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        async def noted(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            self.seen.append(f"{self.name}{host.status.provider_id}")
            self.kinds.append(host.kind)
            async with aclosing(exchange(request)) as deltas:
                async for delta in deltas:
                    yield delta

        return noted


class Answered:
    """Says that the answer comes from somebody else, out of a cache."""

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        async def answered(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            async with aclosing(exchange(request)) as deltas:
                async for delta in deltas:
                    if isinstance(delta, MetaDelta):
                        yield msgspec.structs.replace(delta, provider_id="other", cached=True)
                    else:
                        yield delta

        return answered


async def test_a_policy_added_to_a_provider_sees_its_requests_until_it_is_removed() -> None:
    note = Note()
    async with echo() as provider:
        await provider.generate_completion(None, "before")
        provider.add_policy(note)
        provider.add_policy(note)  # it is there already
        await provider.generate_completion(None, "with it")
        provider.remove_policy(note)
        provider.remove_policy(note)
        await provider.generate_completion(None, "after")

    assert note.seen == ["echo"]
    assert note.kinds == ["echo"]


async def test_the_policy_that_was_added_last_is_the_outermost() -> None:
    seen: list[str] = []
    async with echo(policies=[Note("given ", seen)]) as provider:
        provider.add_policy(Note("first ", seen))
        provider.add_policy(Note("second ", seen))
        await provider.generate_completion(None, "hello")

    assert seen == ["second echo", "first echo", "given echo"]


async def test_added_policies_stay_when_the_settings_change() -> None:
    note = Note()
    async with echo() as provider:
        provider.add_policy(note)
        await provider.update_config(words_per_s=1000.0)
        await provider.update_config(policies=[])
        await provider.generate_completion(None, "hello")

    assert note.seen == ["echo"]


async def test_a_policy_of_the_manager_holds_for_providers_that_come_later_too() -> None:
    seen: list[str] = []
    first, second = Note("1 ", seen), Note("2 ", seen)
    async with LLMProviderManager() as manager:
        manager.register_provider(echo(id="here"))
        manager.add_policy(first)
        manager.add_policy(second)
        manager.register_provider(echo(id="later"))
        await manager.generate_completion("here/echo", "hello")
        await manager.generate_completion("later/echo", "hello")
        assert seen == ["2 here", "1 here", "2 later", "1 later"]

        manager.remove_policy(second)
        await manager.generate_completion("later/echo", "hello")
        assert seen[4:] == ["1 later"]


async def test_a_provider_that_leaves_the_manager_leaves_its_policies_behind() -> None:
    manager, note = LLMProviderManager(), Note()
    manager.add_policy(note)
    provider = manager.register_provider(echo())
    assert provider._added == (note,)

    await manager.unregister_provider("echo")

    assert provider._added == ()
    await manager.close()


@pytest.mark.parametrize("stage", [None, "cache", Note, object()])
async def test_what_is_no_policy_is_refused_with_a_typed_error(stage: object) -> None:
    manager = LLMProviderManager()
    provider = manager.register_provider(echo())
    for holder in (manager, provider):
        with pytest.raises(InvalidParameterError, match="is no policy"):
            holder.add_policy(stage)  # type: ignore[arg-type]
    assert provider._added == ()
    await manager.close()


async def test_the_response_and_the_end_of_the_request_tell_who_answered_and_from_where() -> None:
    async with echo() as provider:
        record = EventRecorder(provider)
        plain = await provider.generate_completion(None, "hi", options={"conversation_id": "c1"})
        provider.add_policy(Answered())
        passed_on = await provider.generate_completion(None, "hi")
        await provider.flush()

    assert (plain.answered_by, plain.cached) == ("echo", False)
    assert (passed_on.provider_id, passed_on.answered_by, passed_on.cached) == (
        "echo",
        "other",
        True,
    )
    started, finished, _, last = (e for e in record if e.name.startswith("request"))
    assert (started.kind, started.conversation_id, started.parent_id) == ("echo", "c1", None)
    assert (finished.kind, finished.conversation_id, finished.composite) == ("echo", "c1", False)
    assert (finished.response_model, finished.finish_reason) == ("echo", "stop")
    assert finished.response_id == plain.response_id
    assert (last.answered_by, last.cached) == ("other", True)


@pytest.mark.parametrize("policies", ["retry", 5, [5], [Note]])
def test_what_is_no_list_of_policies_is_refused_with_a_typed_error(policies: object) -> None:
    for holder in (echo, LLMProviderManager):
        with pytest.raises(InvalidParameterError, match="polic"):
            holder(policies=policies)
