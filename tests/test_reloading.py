"""A settings file that changes while a program runs: providers follow, or somebody is told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from llm_manager import (
    ConfigurationError,
    EchoProvider,
    InvalidParameterError,
    LLMProviderManager,
    UnusableProvider,
    register_configured,
    register_provider,
    reload_settings,
    set_provider_config,
    unregister_kind,
    watch_settings,
)
from llm_manager.testing import Reply, ScriptedPeer

from .helpers import Record

START = """
[providers.one]
kind = "echo"
default_model = "a"
words_per_s = 1000

[providers.two]
kind = "echo"
"""


class File:
    """The settings file of this process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def replace(self, text: str) -> None:
        """As editors do: a new file takes the place of the old one."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        # Neither its size nor its time need tell that it is another one.
        old = self.path.stat()
        os.utime(new, ns=(old.st_atime_ns, old.st_mtime_ns))
        new.replace(self.path)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> File:
    path = tmp_path / "config.toml"
    path.write_text(START)
    monkeypatch.setenv("LLM_MANAGER_CONFIG", str(path))
    return File(path)


@pytest.fixture
async def manager(file: File) -> AsyncIterator[LLMProviderManager]:
    """A manager with the providers of the file."""
    async with LLMProviderManager() as manager:
        register_configured(manager)
        yield manager


def errors(record: Record) -> list[tuple[str, str, str]]:
    return [(e.provider_id, e.operation, e.error.message) for e in record.named("error")]


# ---- by hand -------------------------------------------------------------------------------------


async def test_a_changed_value_reaches_the_provider_which_announces_it(
    file: File, manager: LLMProviderManager
) -> None:
    one, seen = manager.get_provider("one"), Record(manager)
    file.write(START.replace('"a"', '"b"'))
    result = await reload_settings(manager)
    assert result.changed == {"one": ("default_model",)}
    assert manager.get_provider("one") is one
    assert one.active_model == "b"
    await manager.flush()
    changed = [(e.provider_id, e.keys) for e in seen.named("configChanged")]
    assert changed == [("one", ("default_model",))]


async def test_nothing_is_said_if_nothing_has_changed(
    file: File, manager: LLMProviderManager
) -> None:
    seen = Record(manager)
    file.write(f"# a remark\n{START}")
    assert not await reload_settings(manager)
    await manager.flush()
    assert not seen.named("configChanged")
    assert not seen.named("error")


async def test_a_value_that_is_taken_out_is_the_default_again(
    file: File, manager: LLMProviderManager
) -> None:
    file.write(START.replace("words_per_s = 1000\n", ""))
    assert (await reload_settings(manager)).changed == {"one": ("words_per_s",)}
    assert manager.get_provider("one")._words_per_s == 50.0


async def test_what_code_gave_stays_stronger_than_the_file(file: File) -> None:
    async with LLMProviderManager() as manager:
        one = manager.register_provider("one", default_model="mine")
        file.write(START.replace('"a"', '"b"').replace("1000", "2000"))
        assert (await reload_settings(manager)).changed == {"one": ("words_per_s",)}
        assert one.active_model == "mine"


async def test_a_new_value_in_code_or_environment_is_taken_as_well(
    manager: LLMProviderManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_provider_config("one", {"default_model": "of code"})
    monkeypatch.setenv("LLM_MANAGER_PROVIDERS__TWO__DEFAULT_MODEL", "of the environment")
    changed = (await reload_settings(manager)).changed
    assert changed == {"one": ("default_model",), "two": ("default_model",)}
    assert manager.get_provider("two").active_model == "of the environment"


async def test_defaults_for_all_reach_all(file: File, manager: LLMProviderManager) -> None:
    manager.register_provider("echo")
    file.write(f"[defaults]\ntimeouts = {{ total_s = 7 }}\n{START}")
    assert set((await reload_settings(manager)).changed) == {"one", "two", "echo"}
    for provider in manager.providers.values():
        assert provider.default_options.timeouts.total_s == 7


async def test_a_running_answer_ends_as_it_began(file: File, manager: LLMProviderManager) -> None:
    stream = manager.stream_completion("one/echo", "first second third")
    events = aiter(stream)
    texts = [(await anext(events)).text]
    file.write(START.replace("1000", "2000"))
    assert (await reload_settings(manager)).changed == {"one": ("words_per_s",)}
    texts += [event.text async for event in events]
    assert "".join(text or "" for text in texts) == "first second third"


async def test_a_new_provider_is_registered_and_not_connected(
    file: File, manager: LLMProviderManager
) -> None:
    file.write(f'{START}[providers.three]\nkind = "echo"\n')
    assert (await reload_settings(manager)).registered == ("three",)
    assert manager.get_provider("three").status.status == "disconnected"


async def test_a_provider_that_the_file_no_longer_names_stays_as_it_is(
    file: File, manager: LLMProviderManager
) -> None:
    one = manager.get_provider("one")
    file.write('[providers.two]\nkind = "echo"\n')
    assert (await reload_settings(manager)).removed == ("one",)
    for text in ("", "[defaults]\ntimeouts = { total_s = 7 }\n"):
        file.write(text)
        result = await reload_settings(manager)
        assert not result.changed
        assert not result.failed
    assert manager.get_provider("one") is one
    assert one.active_model == "a"
    file.write(START.replace('"a"', '"b"'))
    assert (await reload_settings(manager)).changed == {"one": ("default_model",)}
    assert one.active_model == "b"


async def test_a_provider_that_was_unregistered_does_not_come_back(
    file: File, manager: LLMProviderManager
) -> None:
    await manager.unregister_provider("two")
    file.write(START.replace('"a"', '"b"'))
    assert not (await reload_settings(manager)).registered
    assert list(manager.providers) == ["one"]


async def test_providers_that_were_made_without_settings_are_left_alone(
    file: File, manager: LLMProviderManager
) -> None:
    mine = manager.register_provider(EchoProvider(id="three", default_model="mine"))
    file.write(f'{START}[providers.three]\nkind = "echo"\ndefault_model = "its"\n')
    assert not await reload_settings(manager)
    assert mine.active_model == "mine"


async def test_one_wrong_value_is_told_with_its_place_and_does_not_stop_the_others(
    file: File, manager: LLMProviderManager
) -> None:
    seen = Record(manager)
    file.write(
        START.replace("1000", '"fast"') + 'default_model = "c"\n[providers.three]\nkind = "ecoh"\n'
    )
    result = await reload_settings(manager)
    assert result.changed == {"two": ("default_model",)}
    assert set(result.failed) == {"one", "three"}
    await manager.flush()
    (of_one, of_three) = errors(seen)
    assert of_one[:2] == ("one", "reload settings")
    assert "providers.one.words_per_s: must be a number" in of_one[2]
    assert "'ecoh'" in of_three[2]
    assert manager.get_provider("one")._words_per_s == 1000
    assert manager.get_provider("three").status.status == "failed"


class Picky(EchoProvider):
    """A provider of somebody else, which is careless about errors."""

    kind = "picky"

    def __init__(self, *, taste: str = "sweet", **common: Any) -> None:
        super().__init__(**common)
        self.rank = {"sweet": 1, "sour": 2}[taste]


async def test_a_provider_that_lets_out_any_error_does_not_stop_the_others(
    file: File, manager: LLMProviderManager
) -> None:
    register_provider("picky", Picky)
    try:
        file.write(f"[providers.picky]\n{START}")
        assert (await reload_settings(manager)).registered == ("picky",)
        file.write('[providers.picky]\ntaste = "salty"\n' + START.replace('"a"', '"b"'))
        result = await reload_settings(manager)
        assert result.changed == {"one": ("default_model",)}
        assert "'salty'" in result.failed["picky"].message
        assert manager.get_provider("picky").rank == 1
    finally:
        unregister_kind("picky")


async def test_another_kind_is_refused_because_an_object_cannot_become_another(
    file: File, manager: LLMProviderManager
) -> None:
    for _ in range(2):
        file.write(START.replace('"echo"', '"groq"', 1))
        result = await reload_settings(manager)
        assert "cannot become one of the kind 'groq'" in result.failed["one"].message
        assert (result.failed["one"].hint or "").startswith("unregister it")
    assert manager.get_provider("one").active_model == "a"


async def test_a_broken_file_changes_nothing_and_is_an_error_for_who_asked(
    file: File, manager: LLMProviderManager
) -> None:
    file.write("[providers.one\n")
    with pytest.raises(ConfigurationError, match=r"no valid TOML: .*line 1"):
        await reload_settings(manager)
    file.write('[provider.one]\nkind = "echo"\n')
    with pytest.raises(InvalidParameterError, match="provider"):
        await reload_settings(manager)
    assert manager.get_provider("one").active_model == "a"


async def test_a_provider_that_could_not_be_made_is_replaced_once_it_can(
    file: File,
) -> None:
    file.write('[providers.one]\nkind = "echo"\nwords_per_s = "fast"\n')
    async with LLMProviderManager() as manager:
        (unusable,) = register_configured(manager)
        assert isinstance(unusable, UnusableProvider)
        assert not await reload_settings(manager)
        assert manager.get_provider("one") is unusable

        file.write('[providers.one]\nkind = "echo"\nwords_per_s = "slow"\n')
        result = await reload_settings(manager)
        assert "'slow'" in result.failed["one"].message
        error = manager.get_provider("one").status.error
        assert error is not None
        assert "'slow'" in error.message

        file.write('[providers.one]\nkind = "echo"\nwords_per_s = 1000\n')
        assert (await reload_settings(manager)).registered == ("one",)
        assert manager.active_provider is manager.get_provider("one")
        assert (await manager.generate_completion("echo", "Hello")).text == "Hello"
        assert unusable.status.status == "closed"


async def test_a_new_key_is_sent_with_the_next_request(file: File) -> None:
    with ScriptedPeer() as peer:
        peer.route("/v1/models", Reply.json({"data": [{"id": "m"}]}))
        text = f"""
[providers.gateway]
kind = "compatible"
base_url = "{peer.base_url}/v1"
api_key = "first-key-0123456789"
"""
        file.write(text)
        async with LLMProviderManager() as manager:
            (gateway,) = register_configured(manager)
            await gateway.connect()
            file.write(text.replace("first", "second"))
            assert (await reload_settings(manager)).changed == {"gateway": ("api_key",)}
            await gateway.wait_for("connected", timeout_s=10)
            await gateway.get_available_models(refresh=True)
            keys = [request.headers["authorization"] for request in peer.requests]
        assert keys[0] == "Bearer first-key-0123456789"
        assert keys[-1] == "Bearer second-key-0123456789"


# ---- watching ------------------------------------------------------------------------------------


async def next_event(manager: LLMProviderManager, name: str) -> asyncio.Future[object]:
    """The next event of that name."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[object] = loop.create_future()
    manager.once(name, lambda event: found.done() or found.set_result(event))
    return found


@pytest.mark.parametrize("way", ["write", "replace"])
async def test_a_change_is_noticed_however_the_file_is_written(
    file: File, manager: LLMProviderManager, way: str
) -> None:
    change: Callable[[str], None] = getattr(file, way)
    async with watch_settings(manager, interval_s=0.05):
        for model in ("b", "c"):
            coming = await next_event(manager, "configChanged")
            change(START.replace('"a"', f'"{model}"'))
            async with asyncio.timeout(20):
                await coming
            assert manager.get_provider("one").active_model == model


@pytest.mark.parametrize("way", ["write", "replace"])
async def test_a_look_reads_the_file_only_if_it_has_changed(
    file: File, manager: LLMProviderManager, way: str
) -> None:
    watch = watch_settings(manager)
    first = await watch.check_now()
    assert first is not None
    assert not first
    assert await watch.check_now() is None
    getattr(file, way)(START.replace('"a"', '"bb"'))
    second = await watch.check_now()
    assert second is not None
    assert second.changed == {"one": ("default_model",)}
    assert await watch.check_now() is None


async def test_a_change_before_the_first_look_is_not_missed(
    file: File, manager: LLMProviderManager
) -> None:
    file.write(START.replace('"a"', '"b"'))
    result = await watch_settings(manager).check_now()
    assert result is not None
    assert result.changed == {"one": ("default_model",)}


async def test_a_broken_file_is_told_once_and_changes_nothing(
    file: File, manager: LLMProviderManager
) -> None:
    seen, watch = Record(manager), watch_settings(manager)
    file.write("[providers.one\n")
    assert await watch.check_now() is None
    assert await watch.check_now() is None
    await manager.flush()
    ((of, operation, message),) = errors(seen)
    assert (of, operation) == ("", "reload settings")
    assert str(file.path) in message
    assert "line 1" in message
    assert manager.get_provider("one").active_model == "a"

    file.write(START.replace('"a"', '"b"'))
    repaired = await watch.check_now()
    assert repaired is not None
    assert repaired.changed == {"one": ("default_model",)}


async def test_a_file_that_comes_and_goes_is_followed(
    file: File, manager: LLMProviderManager
) -> None:
    watch = watch_settings(manager)
    await watch.check_now()
    file.path.unlink()
    gone = await watch.check_now()
    assert gone is not None
    assert gone.removed == ("one", "two")
    assert set(manager.providers) == {"one", "two"}
    file.write(f'{START}[providers.three]\nkind = "echo"\n')
    back = await watch.check_now()
    assert back is not None
    assert back.registered == ("three",)


async def test_a_file_that_was_broken_at_the_start_is_taken_when_it_is_repaired(
    file: File,
) -> None:
    file.write("[providers.one\n")
    async with LLMProviderManager() as manager:
        with pytest.raises(ConfigurationError):
            register_configured(manager)
        seen, watch = Record(manager), watch_settings(manager)
        assert await watch.check_now() is None
        await manager.flush()
        assert "line 1" in seen.named("error")[0].error.message
        file.write(START)
        repaired = await watch.check_now()
        assert repaired is not None
        assert repaired.registered == ("one", "two")


async def test_several_managers_follow_the_same_file(
    file: File, manager: LLMProviderManager
) -> None:
    async with LLMProviderManager() as other:
        register_configured(other)
        watches = watch_settings(manager), watch_settings(other)
        file.write(f'{START.replace("1000", "2000")}[providers.three]\nkind = "echo"\n')
        for watch in watches:
            result = await watch.check_now()
            assert result is not None
            assert result.registered == ("three",)
            assert result.changed == {"one": ("words_per_s",)}


async def test_without_a_file_there_is_nothing_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_MANAGER_CONFIG", "")
    async with LLMProviderManager() as manager:
        watch = watch_settings(manager)
        assert not await watch.check_now()
        assert await watch.check_now() is None


async def test_after_the_watch_nothing_runs_any_more(
    file: File, manager: LLMProviderManager
) -> None:
    before = asyncio.all_tasks()
    async with watch_settings(manager, interval_s=0.05):
        assert asyncio.all_tasks() != before
    assert asyncio.all_tasks() == before


async def test_a_manager_that_is_closed_meanwhile_does_not_disturb_the_watch(
    file: File, manager: LLMProviderManager
) -> None:
    async with watch_settings(manager) as watch:
        await manager.close()
        file.write(f'{START}[providers.three]\nkind = "echo"\n')
        assert await watch.check_now() is None
        assert await watch.check_now() is None


async def test_what_happens_inside_the_watch_comes_out_of_it(manager: LLMProviderManager) -> None:
    with pytest.raises(ZeroDivisionError):
        async with watch_settings(manager):
            raise ZeroDivisionError


@pytest.mark.parametrize("interval_s", [0, -1, 0.01, float("nan"), "1", True])
async def test_an_interval_that_cannot_be_is_refused(
    manager: LLMProviderManager, interval_s: float
) -> None:
    with pytest.raises(InvalidParameterError, match="interval_s"):
        watch_settings(manager, interval_s=interval_s)
