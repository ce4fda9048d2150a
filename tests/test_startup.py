"""What settings name and packages bring along is there at the start, also where it is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_manager import (
    ConfigurationError,
    DependencyMissingError,
    EchoProvider,
    InvalidParameterError,
    LLMError,
    LLMMessage,
    LLMProviderManager,
    ProviderConnectionError,
    ProviderStatus,
    UnusableProvider,
    register_configured,
)

from .helpers import Record
from .test_registry import install, run

SETTINGS = """
[providers.first]
kind = "echo"
default_model = "small"

[providers.wrong]
kind = "echo"
words_per_s = "fast"

[providers.nothing]
kind = "echoo"

[providers.nowhere]
kind = "compatible"

[providers.last]
kind = "echo"
"""
REASONS = {
    "wrong": ("providers.wrong.words_per_s", "must be a number"),
    "nothing": ("there is no kind of provider 'echoo'", "did you mean 'echo'?"),
    "nowhere": ("no base_url", "base_url"),
}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes the settings file of this process."""
    path = tmp_path / "config.toml"
    monkeypatch.setenv("LLM_MANAGER_CONFIG", str(path))

    def write(text: str) -> Path:
        path.write_text(text)
        return path

    return write


# ---- settings ------------------------------------------------------------------------------------


async def test_every_provider_of_the_settings_is_registered_in_their_order(
    written: Callable[[str], Path],
) -> None:
    written(SETTINGS)
    async with LLMProviderManager() as manager:
        added = register_configured(manager)
        assert [p.id for p in added] == ["first", "wrong", "nothing", "nowhere", "last"]
        assert list(manager.providers.values()) == added
        assert manager.get_provider("first").active_model == "small"
        assert manager.active_provider is added[0]
        assert (await manager.generate_completion("last/echo", "Hello")).text == "Hello"


async def test_what_cannot_be_made_has_failed_and_says_why(written: Callable[[str], Path]) -> None:
    written(SETTINGS)
    async with LLMProviderManager() as manager:
        seen = Record(manager)
        register_configured(manager)
        await manager.flush()
        for id, (problem, hint) in REASONS.items():
            status = manager.get_provider(id).status
            assert (status.status, status.reason) == (ProviderStatus.FAILED, "invalid_config")
            assert status.error is not None
            assert problem in status.error.message
            assert hint in f"{status.error.message} {status.error.hint}"
            told = [e for e in seen.named("statusChanged") if e.provider_id == id]
            assert [e.current.status for e in told] == ["failed"]
        assert manager.get_provider("wrong").kind == "echo"
        assert manager.get_provider("nothing").kind == "echoo"


async def test_connecting_all_is_not_disturbed_by_those_that_cannot_be_made(
    written: Callable[[str], Path],
) -> None:
    written(SETTINGS)
    async with LLMProviderManager() as manager:
        register_configured(manager)
        statuses = {id: str(s.status) for id, s in (await manager.connect_all()).items()}
        assert statuses == {"first": "connected", "last": "connected"} | dict.fromkeys(
            REASONS, "failed"
        )
        assert {m.provider_id for m in await manager.get_available_models()} == {"first", "last"}


async def test_a_second_call_adds_only_what_is_new(written: Callable[[str], Path]) -> None:
    written(SETTINGS)
    async with LLMProviderManager() as manager:
        mine = manager.register_provider(EchoProvider(id="last"))
        assert "last" not in [p.id for p in register_configured(manager)]
        assert register_configured(manager) == []
        assert manager.get_provider("last") is mine


async def test_without_settings_and_packages_there_is_nothing_to_register() -> None:
    async with LLMProviderManager() as manager:
        assert register_configured(manager, plugins=False) == []


def test_the_manager_of_the_process_is_the_usual_one(written: Callable[[str], Path]) -> None:
    written('[providers.only]\nkind = "echo"')
    LLMProviderManager.reset_instance()
    (only,) = register_configured()
    assert LLMProviderManager.get_instance().get_provider("only") is only
    LLMProviderManager.reset_instance()


async def test_policies_of_the_manager_are_those_of_its_configured_providers(
    written: Callable[[str], Path],
) -> None:
    written('[providers.only]\nkind = "echo"')
    async with LLMProviderManager(policies=()) as manager:
        (only,) = register_configured(manager)
        assert only._policies == ()


def test_a_broken_file_is_an_error_with_its_place(written: Callable[[str], Path]) -> None:
    path = written("[providers.first\n")
    with pytest.raises(ConfigurationError, match=r"no valid TOML: .*line 1") as caught:
        register_configured(LLMProviderManager())
    assert str(path) in caught.value.message


async def test_a_closed_manager_takes_none(written: Callable[[str], Path]) -> None:
    written(SETTINGS)
    manager = LLMProviderManager()
    await manager.close()
    with pytest.raises(ProviderConnectionError, match="the manager is closed"):
        register_configured(manager)


# ---- the unusable provider -----------------------------------------------------------------------


def unusable(error: LLMError | None = None) -> UnusableProvider:
    failure = error or ConfigurationError("no base_url", hint="give one")
    return UnusableProvider(failure, kind="acme", id="mine")


VERBS: dict[str, Callable[[UnusableProvider], Any]] = {
    "connect": lambda p: p.connect(),
    "generate_completion": lambda p: p.generate_completion(None, "Hello"),
    "generate_chat_completion": lambda p: p.generate_chat_completion("m", [LLMMessage.user("Hi")]),
    "stream_completion": lambda p: p.stream_completion("m", "Hello"),
    "with an option that it cannot know": lambda p: p.generate_completion(
        "m", "Hello", options={"response_format": "json_object"}
    ),
    "get_available_models": lambda p: p.get_available_models(),
    "get_model_info": lambda p: p.get_model_info("m"),
    "count_tokens": lambda p: p.count_tokens("m", [LLMMessage.user("Hi")]),
    "embed": lambda p: p.embed("m", ["Hi"]),
    "update_config": lambda p: p.update_config(default_model="m"),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_each_verb_of_an_unusable_provider_raises_its_error(verb: str) -> None:
    provider = unusable()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="no base_url") as caught:
            await VERBS[verb](provider)
        assert (caught.value.provider_id, caught.value.hint) == ("mine", "give one")
        assert caught.value is not provider.error
    assert provider.status.status == "failed"
    await provider.close()
    assert provider.status.status == "closed"


async def test_an_unusable_provider_is_not_available_and_claims_nothing() -> None:
    provider = unusable()
    assert provider.usable is False
    assert await provider.is_available() is False
    assert provider.status.status == "failed"
    assert not provider.capabilities
    await provider.disconnect()
    assert provider.status.status == "disconnected"
    await provider.close()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DependencyMissingError("needs torch", extra="huggingface"), "dependency_missing"),
        (ConfigurationError("broken", code="broken_plugin"), "invalid_config"),
        (InvalidParameterError("no such setting"), "invalid_config"),
        (ProviderConnectionError("a constructor connects"), "invalid_config"),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
async def test_the_reason_is_the_one_of_the_error_and_no_error_heals_by_itself(
    error: LLMError, reason: str
) -> None:
    provider = unusable(error)
    status = provider.status
    assert (status.status, status.reason, status.retry_at) == ("failed", reason, None)
    assert status.error is not None
    assert status.error.message == error.message
    await provider.close()


# ---- packages ------------------------------------------------------------------------------------

GOOD = """
from llm_manager import EchoProvider
class Good(EchoProvider):
    kind = "good"
"""
BROKEN = """
from llm_manager import BaseLLMProvider, DependencyMissingError, EchoProvider
def wanting(*, planet, **settings): return EchoProvider(**settings)
def exiting(**settings): raise SystemExit("bye")
class Raises(EchoProvider):
    def __init__(self, **settings):
        raise KeyError("sk-planted-0123456789abcdef")
class Abstract(BaseLLMProvider):
    pass
class Needs(EchoProvider):
    def __init__(self, **settings):
        raise DependencyMissingError("needs the package moon")
def foreign(**settings): return object()
NUMBER = 7
"""
KINDS = {
    "abstract": "broken:Abstract",
    "exits": "broken:exiting",
    "foreign": "broken:foreign",
    "gone": "nowhere:Provider",
    "half": "broken:Missing",
    "leaves": "leaving:Provider",
    "needs": "broken:Needs",
    "number": "broken:NUMBER",
    "raises": "broken:Raises",
    "wants": "broken:wanting",
}
# What the error of each says.
WHY = {
    "abstract": "Can't instantiate abstract class Abstract",
    "exits": "cannot be made: builtins.RuntimeError: SystemExit('bye')",
    "foreign": "'foreign' made object, no provider",
    "gone": "cannot be imported: builtins.ModuleNotFoundError: No module named 'nowhere'",
    "half": "has no attribute 'Missing'",
    "leaves": "cannot be imported: builtins.SystemExit: 3",
    "needs": "needs the package moon",
    "number": "is 7, neither a provider class, nor a function, nor a Row",
    "raises": "cannot be made: builtins.KeyError: '***'",
    "wants": "missing 1 required keyword-only argument: 'planet'",
}
TELL = """
import asyncio, json, logging
logging.disable()
from llm_manager import LLMProviderManager, register_configured
manager = LLMProviderManager()
added = register_configured(manager)
asyncio.run(manager.connect_all())
print(json.dumps({p.id: [str(p.status.status), p.status.reason,
                         p.status.error and p.status.error.message] for p in added}))
asyncio.run(manager.close())
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages, as an installer leaves it."""
    return tmp_path / "site"


def told(site: Path) -> dict[str, list[str]]:
    """Status, reason and error of what is registered where these packages are installed."""
    found: dict[str, list[str]] = json.loads(run(site, TELL).splitlines()[-1])
    return found


def test_a_broken_package_is_a_failed_provider_and_harms_no_other(site: Path) -> None:
    install(site, "good", GOOD, {"good": "good:Good", "another": "good:Good"})
    install(site, "broken", BROKEN, KINDS)
    (site / "leaving.py").write_text("raise SystemExit(3)")
    found = told(site)
    assert list(found) == sorted([*KINDS, "good", "another"])
    assert found.pop("good") == found.pop("another") == ["connected", "recovered", None]
    reasons = dict.fromkeys(KINDS, "invalid_config") | {"needs": "dependency_missing"}
    assert {kind: each[:2] for kind, each in found.items()} == {
        kind: ["failed", reason] for kind, reason in reasons.items()
    }
    for kind, why in WHY.items():
        assert why in found[kind][2]


def test_packages_can_be_left_out(site: Path) -> None:
    install(site, "good", GOOD, {"good": "good:Good"})
    program = TELL.replace(
        "register_configured(manager)", "register_configured(manager, plugins=0)"
    )
    assert json.loads(run(site, program)) == {}


def test_a_kind_that_is_built_in_is_not_registered_because_a_package_has_the_same(
    site: Path,
) -> None:
    install(site, "good", GOOD, {"echo": "good:Good", "groq": "good:Good", "good": "good:Good"})
    assert list(told(site)) == ["good"]


def test_a_package_is_registered_for_each_manager(site: Path) -> None:
    install(site, "good", GOOD, {"good": "good:Good"})
    program = """
from llm_manager import LLMProviderManager, register_configured
print([[p.id for p in register_configured(LLMProviderManager())] for _ in range(2)])
"""
    assert run(site, program).strip() == "[['good'], ['good']]"


def test_a_repaired_package_is_registered_by_the_same_program(site: Path) -> None:
    install(site, "mended", "raise OSError('no file')", {"mended": "mended:Good"})
    program = f"""
import asyncio, pathlib
from llm_manager import LLMProviderManager, register_configured
async def main():
    manager = LLMProviderManager()
    print(*(p.status.status for p in register_configured(manager)))
    pathlib.Path({str(site / "mended.py")!r}).write_text({GOOD!r})
    await manager.unregister_provider("mended")
    print(*(type(p).__name__ for p in register_configured(manager)))
asyncio.run(main())
"""
    assert run(site, program).split() == ["failed", "Good"]


def test_reloading_puts_a_package_that_is_complete_now_in_the_place_of_its_failure(
    site: Path,
) -> None:
    install(site, "good", GOOD, {"late": "late:Good", "good": "good:Good"})
    program = f"""
import asyncio, pathlib
from llm_manager import LLMProviderManager, register_configured, reload_settings
async def main():
    manager = LLMProviderManager()
    print(*(p.status.status for p in register_configured(manager)))
    print(await reload_settings(manager) or "nothing")
    pathlib.Path({str(site / "late.py")!r}).write_text({GOOD!r})
    print(*(await reload_settings(manager)).registered, type(manager.get_provider("late")).__name__)
asyncio.run(main())
"""
    assert run(site, program).splitlines() == ["disconnected failed", "nothing", "late Good"]


@pytest.mark.parametrize(
    "entry_points",
    [b"[llm_manager.providers]\nthis is no entry point\n", b"\xff\xfe\x00", b"[llm_manager"],
    ids=["no equals sign", "no text", "no end"],
)
def test_a_list_of_entry_points_that_cannot_be_read_harms_no_other_package(
    site: Path, entry_points: bytes
) -> None:
    install(site, "aaa", "", {})
    (site / "aaa-1.0.dist-info" / "entry_points.txt").write_bytes(entry_points)
    install(site, "good", GOOD, {"good": "good:Good"})
    assert list(told(site)) == ["good"]


def test_a_name_that_can_be_no_kind_is_left_out(site: Path) -> None:
    install(site, "good", GOOD, {"a/b": "good:Good", "good": "good:Good"})
    assert list(told(site)) == ["good"]
