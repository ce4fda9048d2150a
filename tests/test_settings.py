"""The settings of a process: set in code, shown, looked through, read again, followed."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

from llm_manager import (
    AuthenticationError,
    ConfigurationError,
    EchoProvider,
    InvalidParameterError,
    LLMError,
    LLMProviderManager,
    LLMRequestOptions,
    ModelParameter,
    ProviderNotFoundError,
    Secret,
    Timeouts,
    create_provider,
    follow_settings,
    get_settings,
    register_provider,
    reset_settings,
    set_provider_config,
    unregister_kind,
)
from llm_manager.settings.store import Settings
from llm_manager.testing import EventRecorder

KEY = "Zq7plainLookingCredential9x"


# ---- set in code ---------------------------------------------------------------------------------


def test_a_provider_gets_what_was_set_for_it() -> None:
    set_provider_config(
        "openai",
        {
            "api_key": KEY,
            "default_model": "gpt-4",
            "default_parameters": {"temperature": 0.7, "max_tokens": 2000},
        },
    )
    provider = create_provider("openai")
    assert provider.active_model == "gpt-4"
    assert provider.default_options.temperature == 0.7
    assert provider.default_options.max_tokens == 2000
    assert provider.key_origin == "given"
    assert LLMProviderManager().register_provider("openai").active_model == "gpt-4"


def test_names_may_be_members_of_the_enum() -> None:
    set_provider_config(
        "openai",
        {
            ModelParameter.MODEL: "gpt-4",
            ModelParameter.TEMPERATURE: 0.7,
            ModelParameter.TIMEOUT: 30,
            "default_parameters": {ModelParameter.MAX_TOKENS: 5},
        },
    )
    provider = create_provider("openai")
    assert provider.active_model == "gpt-4"
    assert provider.default_options == LLMRequestOptions(
        temperature=0.7, max_tokens=5, timeouts=Timeouts(total_s=30)
    )


def test_a_later_call_replaces_the_earlier_one_and_an_empty_one_takes_it_back() -> None:
    set_provider_config("echo", {"default_model": "a", "temperature": 1})
    set_provider_config("echo", {"temperature": 0})
    assert list(get_settings().for_provider("echo").values) == ["default_parameters.temperature"]
    set_provider_config("echo", {})
    assert get_settings().for_provider("echo").values == {}
    assert get_settings().provider_ids == ()


@pytest.mark.parametrize(
    ("id", "settings", "kind", "says"),
    [
        ("openai", {"temperature": 3}, InvalidParameterError,
         "providers.openai.temperature: must be between 0 and 2, got 3"),
        ("openai", {"default_parameters": {"temperature": 3}}, InvalidParameterError,
         "providers.openai.default_parameters.temperature: must be between 0 and 2, got 3"),
        ("openai", {"api_kee": "x"}, InvalidParameterError,
         "providers.openai.api_kee: unknown setting"),
        ("openai", {"api_key": "env:NOBODY"}, AuthenticationError,
         "providers.openai.api_key: no key at 'env:NOBODY'"),
        ("openai", {"organization": 5}, InvalidParameterError,
         "providers.openai.organization: must be text"),
        ("openai", {"tool_choice": "add"}, InvalidParameterError, "providers.openai.default_"),
        ("mine", {"default_model": "x"}, ProviderNotFoundError,
         "providers.mine.kind: there is no kind of provider 'mine'"),
        ("a/b", {"kind": "echo"}, InvalidParameterError, "'a/b' is no provider id"),
        ("openai", {"defaultModel": "a", "default_model": "b"}, InvalidParameterError,
         "providers.openai.default_model: it stands there twice"),
        ("openai", {"id": "other"}, InvalidParameterError, "providers.openai.id: unknown setting"),
        ("openai", [("temperature", 1)], InvalidParameterError,
         "providers.openai: must be a mapping, got list"),
    ],
)  # fmt: skip
def test_a_mistake_is_found_at_once_and_changes_nothing(
    id: str, settings: Any, kind: type[LLMError], says: str
) -> None:
    set_provider_config("openai", {"default_model": "before"})
    with pytest.raises(kind) as caught:
        set_provider_config(id, settings)
    assert caught.value.message.startswith(says)
    assert get_settings().provider_ids == ("openai",)
    assert create_provider("openai").active_model == "before"


def test_what_was_set_does_not_change_with_the_table_it_came_from() -> None:
    table: dict[str, Any] = {"default_parameters": {"stop": ["a"], "seed": 1}}
    set_provider_config("echo", table)
    table["default_parameters"]["seed"] = 2
    table["default_parameters"]["stop"].append("b")
    options = create_provider("echo").default_options
    assert (options.seed, options.stop) == (1, ("a",))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"headers": "x"}, "headers: must be a table"),
        ({"headers": {"a": 5}}, "must be text"),
        ({"proxy": 5}, "proxy: must be text"),
        ({"models": "gpt-5"}, "models: must be a list"),
        ({"reconnect": {"first_s": "soon"}}, "reconnect.first_s: must be a number"),
    ],
)
def test_a_value_of_the_wrong_type_in_a_call_is_found_as_in_a_file(
    given: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidParameterError, match=f"settings of 'openai': .*{says}"):
        create_provider("openai", **given)


def test_a_class_is_not_touched_by_settings() -> None:
    set_provider_config("echo", {"default_model": "other", "models": ["other"]})
    assert create_provider(EchoProvider).active_model == "echo"
    assert EchoProvider().active_model == "echo"
    assert create_provider("echo").active_model == "other"


def test_a_call_is_stronger_and_a_typing_error_in_it_is_found() -> None:
    set_provider_config("echo", {"words_per_s": 5.0, "name": "Set"})
    provider = create_provider("echo", name="Given", temperature=1)
    assert (provider.name, provider._words_per_s) == ("Given", 5.0)
    assert provider.default_options.temperature == 1
    with pytest.raises(InvalidParameterError, match="did you mean 'words_per_s'"):
        create_provider("echo", word_per_s=5)
    with pytest.raises(InvalidParameterError, match="temperature must be between"):
        create_provider("echo", default_options={"temperature": 3})


def test_a_key_may_be_named_by_a_reference_in_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    assert create_provider("openai", api_key="env:MY_KEY").key_origin == "env:MY_KEY"


def test_a_provider_may_have_settings_that_are_called_like_options() -> None:
    class Own(EchoProvider):
        def __init__(self, *, model: str, temperature: str = "warm", **common: Any) -> None:
            super().__init__(default_model=model, **common)
            self.temperature = temperature

    register_provider("own", Own)
    try:
        set_provider_config("own", {"model": "small", "temperature": "cold"})
        provider = create_provider("own")
    finally:
        unregister_kind("own")
    assert (provider.active_model, provider.temperature) == ("small", "cold")
    assert provider.default_options.temperature is None


def test_a_function_that_makes_providers_may_take_anything() -> None:
    def make(**settings: Any) -> EchoProvider:
        settings.pop("colour")
        return EchoProvider(**settings)

    register_provider("made", make)
    try:
        set_provider_config("made", {"colour": "red", "temperature": 1})
        assert create_provider("made").default_options.temperature == 1
    finally:
        unregister_kind("made")


def test_settings_may_be_set_from_many_threads_at_once() -> None:
    def set_many(number: int) -> None:
        for _ in range(10):
            set_provider_config(f"echo-{number}", {"kind": "echo", "default_model": str(number)})

    threads = [threading.Thread(target=set_many, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(get_settings().provider_ids) == [f"echo-{number}" for number in range(8)]


def test_they_are_read_once_by_the_first_who_asks(settings_file: Path) -> None:
    settings_file.write_text("[providers.echo]\ndefault_model = 'x'")
    found: list[Settings] = []
    threads = [threading.Thread(target=lambda: found.append(get_settings())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(settings) for settings in found}) == 1


def test_settings_that_are_forgotten_meanwhile_are_loaded_again() -> None:
    over = threading.Event()

    def forget() -> None:
        while not over.is_set():
            reset_settings()

    forgetting = threading.Thread(target=forget)
    forgetting.start()
    try:
        for _ in range(2000):
            assert get_settings().path is None
    finally:
        over.set()
        forgetting.join()


FORKS = """
import os, signal, threading
from llm_manager import (
    EchoProvider, create_provider, get_settings, register_provider, reset_settings,
    set_provider_config, unregister_kind,
)

def work(number):
    while True:
        reset_settings()
        set_provider_config("echo", {"seed": number})
        register_provider(f"busy-{number}", EchoProvider)
        unregister_kind(f"busy-{number}")

def forked():
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        register_provider("child", EchoProvider)
        set_provider_config("child", {"seed": 1})
        get_settings().reload()
        os._exit(0 if create_provider("child").default_options.seed == 1 else 1)
    return child

for number in range(3):
    threading.Thread(target=work, args=(number,), daemon=True).start()
children = [forked() for _ in range(20)]
codes = {os.waitpid(child, 0)[1] for child in children}
os._exit(0 if codes == {0} else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS], check=True, timeout=60)


# ---- shown ---------------------------------------------------------------------------------------


def test_every_value_is_explained_and_no_secret_is_shown(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text(
        f"""
        [providers.openai]
        api_key = "{KEY}"
        default_model = "gpt-5"
        headers = {{ x-team = "{KEY}", authorization = "{KEY}" }}
        proxy = "http://user:{KEY}@proxy.example"
        organization = "of {KEY}"
        [providers.work]
        kind = "openai"
        api_key = "env:MY_KEY"
        """
    )
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("LLM_MANAGER_PROVIDERS__WORK__SEED", "5")
    set_provider_config("groq", {"api_key": lambda: KEY, "temperature": 1})

    rows = {e.place: (e.value, e.origin) for e in get_settings().explain()}

    file = f"file {settings_file}"
    assert rows == {
        "providers.openai.kind": ("'openai'", "default"),
        "providers.openai.api_key": ("***", file),
        "providers.openai.default_model": ("'gpt-5'", file),
        "providers.openai.headers": ("{x-team: ***, authorization: ***}", file),
        "providers.openai.proxy": ("***", file),
        "providers.openai.organization": ("'of ***'", file),
        "providers.work.kind": ("'openai'", file),
        "providers.work.api_key": ("'env:MY_KEY'", file),
        "providers.work.default_parameters.seed": (
            "5", "environment LLM_MANAGER_PROVIDERS__WORK__SEED",
        ),
        "providers.groq.kind": ("'groq'", "default"),
        "providers.groq.api_key": ("a function", "code"),
        "providers.groq.default_parameters.temperature": ("1.0", "code"),
    }  # fmt: skip
    everything = get_settings().explain(defaults=True)
    assert KEY not in repr(everything)
    assert {e.origin for e in everything if e.place == "providers.work.reasoning_summary"} == {
        "default"
    }


def test_what_is_withheld_is_shown_as_such(settings_file: Path) -> None:
    settings_file.write_text("[providers.openai]\nbase_url = 'https://gateway.example/v1'")
    set_provider_config("openai", {"api_key": KEY})
    [row] = [e for e in get_settings().explain() if e.withheld]
    assert row.place == "providers.openai.base_url"
    assert row.withheld == "key and address come from a stronger layer"


def test_a_setting_of_a_plugin_that_is_called_a_secret_is_not_shown() -> None:
    class Own(EchoProvider):
        def __init__(self, *, client_secret: str = "", **common: Any) -> None:
            super().__init__(**common)

    register_provider("own", Own)
    try:
        set_provider_config("own", {"client_secret": KEY})
        assert KEY not in repr(get_settings().explain())
    finally:
        unregister_kind("own")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("litellm", {"arguments": {"aws_secret_access_key": KEY, "vertex_project": "p"}}),
        ("litellm", {"arguments": {"fallbacks": [{"api_key": KEY}]}}),
        ("litellm", {"arguments": {"extra_headers": {"Authorization": KEY}}}),
        ("openai", {"default_parameters": {"extra": {"nested": {"client_secret": KEY}}}}),
        ("openai", {"base_url": f"https://{KEY}@gateway.example/v1"}),
        ("openai", {"base_url": f"https://gateway.example/v1?api_key={KEY}"}),
        ("openai", {"base_url": f"https://gateway.example/v1?access_token={KEY}"}),
    ],
)
def test_a_secret_inside_of_a_value_is_not_shown_either(
    kind: str, settings: dict[str, Any]
) -> None:
    set_provider_config("mine", {"kind": kind, **settings})
    shown = repr(get_settings().explain()) + repr(get_settings().check())
    try:
        create_provider("mine")
    except ConfigurationError:
        shown += traceback.format_exc()
    assert KEY not in shown
    assert "***" in shown


@pytest.mark.parametrize("name", ["api", "reasoning_effort"])
def test_a_key_in_the_place_of_a_word_is_not_repeated(name: str) -> None:
    with pytest.raises(InvalidParameterError, match="must be one of") as caught:
        set_provider_config("openai", {name: "sk-proj-0123456789"})
    assert "0123456789" not in str(caught.value)


def test_a_provider_that_keeps_its_key_as_text_is_not_pickled_with_it() -> None:
    register_provider("plain", PlainKey)
    try:
        set_provider_config("plain", {"api_key": KEY})
        provider = create_provider("plain")
    finally:
        unregister_kind("plain")
    with pytest.raises(ConfigurationError, match="hold a key"):
        pickle.dumps(provider)


class PlainKey(EchoProvider):
    """A provider of somebody else, which can be pickled."""

    def __init__(self, *, api_key: str = "", **common: Any) -> None:
        super().__init__(**common)


def test_settings_with_a_secret_can_be_copied() -> None:
    secret = Secret(KEY)
    assert copy.deepcopy({"api_key": secret}) == {"api_key": secret}
    assert copy.copy(secret) == secret


def test_secrets_are_in_no_text_and_no_pickle(settings_file: Path) -> None:
    settings_file.write_text(f"[providers.openai]\napi_key = '{KEY}'\ntemperature = 3")
    set_provider_config("groq", {"api_key": KEY})
    settings = get_settings()
    groq = settings.for_provider("groq")
    provider = create_provider("groq")
    shown = [settings, settings._sources(), groq, groq.values, groq.layers, settings._file]
    shown += [groq.arguments(), settings.check(), settings.explain(), provider]
    with pytest.raises(InvalidParameterError) as caught:
        create_provider("openai")
    shown.append(caught.value)
    for thing in shown:
        assert KEY not in f"{thing!r} {thing}", type(thing)
    assert isinstance(groq.arguments()["api_key"], Secret)
    with pytest.raises(ConfigurationError, match="hold a key"):
        pickle.dumps(provider)
    with pytest.raises(TypeError):
        pickle.dumps(groq.values["api_key"])


def test_the_settings_module_loads_no_library_and_no_provider() -> None:
    program = (
        "import sys, llm_manager.settings.store; "
        "bad = {'keyring', 'platformdirs', 'httpx2', 'llm_manager.provider'} & set(sys.modules); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# ---- read again ----------------------------------------------------------------------------------

ONE = "[providers.one]\nkind = 'echo'\ndefault_model = 'a'\n"
TWO = ONE.replace("'a'", "'c'")


def test_reading_again_tells_what_is_different(settings_file: Path) -> None:
    settings_file.write_text(f"{ONE}[providers.two]\nkind = 'echo'\n[providers.same]\nkind='echo'")
    settings = get_settings()
    assert not settings.reload()
    settings_file.write_text(
        "[providers.one]\nkind = 'echo'\ndefault_model = 'b'\ntemperature = 1\ntop_p = 1\n"
        "[providers.same]\nkind='echo'\n[providers.three]\nkind = 'echo'"
    )
    found = settings.reload()
    assert found.changed == {"one": ("default_model", "default_parameters")}
    assert (found.added, found.removed) == (("three",), ("two",))
    assert create_provider("one").active_model == "b"
    assert not settings.reload()


def test_defaults_and_rows_that_change_are_changes_of_their_providers(settings_file: Path) -> None:
    row = "[rows.gw]\nbase_url = 'https://{}.example'\n[providers.quick]\nkind = 'gw'\n"
    settings_file.write_text(f"[providers.one]\nkind = 'echo'\n{row.format('a')}")
    settings = get_settings()
    settings_file.write_text(
        f"[defaults]\nseed = 5\n[providers.one]\nkind='echo'\n{row.format('b')}"
    )
    assert settings.reload().changed == {
        "one": ("default_parameters",),
        "quick": ("default_parameters", "row"),
    }


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        ("[providers", ConfigurationError),
        ("[provider.one]", InvalidParameterError),
        ("[defaults]\ntemprature = 1", InvalidParameterError),
    ],
)
def test_a_file_that_is_broken_now_leaves_everything_as_it_was(
    broken: str, kind: type[LLMError], settings_file: Path
) -> None:
    settings_file.write_text(ONE)
    settings = get_settings()
    settings_file.write_text(broken)
    with pytest.raises(kind):
        settings.reload()
    assert create_provider("one").active_model == "a"
    settings_file.write_text(ONE.replace("'a'", "'b'"))
    assert settings.reload().changed == {"one": ("default_model",)}


@pytest.mark.parametrize("wrong", ["kind = 'nothing'", "kind = 'echo'\ntemperature = 3"])
@pytest.mark.parametrize("before", ["kind = 'echo'", "kind = 'nothing'"])
def test_a_provider_that_is_wrong_now_does_not_keep_others_from_changing(
    before: str, wrong: str, settings_file: Path
) -> None:
    settings_file.write_text(f"{ONE}[providers.other]\n{before}")
    settings = get_settings()
    settings_file.write_text(f"{TWO}[providers.other]\n{wrong}")
    assert settings.reload().changed == {"one": ("default_model",)}
    with pytest.raises(LLMError, match=r"^providers\.other\."):
        create_provider("other")


def test_a_file_that_has_gone_takes_its_providers_along(settings_file: Path) -> None:
    settings_file.write_text(ONE)
    settings = get_settings()
    settings_file.unlink()
    assert settings.reload().removed == ("one",)
    with pytest.raises(ProviderNotFoundError):
        create_provider("one")


# ---- followed ------------------------------------------------------------------------------------


async def test_a_provider_goes_on_with_new_settings(settings_file: Path) -> None:
    settings_file.write_text(f"{ONE}temperature = 1\nwords_per_s = 5\nmodels = ['a', 'b']")
    async with create_provider("one", name="Given") as provider:
        seen = EventRecorder(provider)
        settings_file.write_text(
            "[providers.one]\nkind = 'echo'\nmodels = ['a', 'b']\ndefault_model = 'b'\n"
            "name = 'File'"
        )
        get_settings().reload()
        assert set(await follow_settings(provider)) == {
            "default_model", "default_options", "words_per_s",
        }  # fmt: skip
        assert provider.active_model == "b"
        assert provider.name == "Given"
        assert provider.default_options.temperature is None
        assert provider._words_per_s == 50
        assert await follow_settings(provider) == ()
        assert len(seen.named("configChanged")) == 1


async def test_what_was_changed_while_it_runs_stays_unless_the_file_changes_it(
    settings_file: Path,
) -> None:
    settings_file.write_text(f"{ONE}temperature = 1\nmodels = ['a', 'b', 'c']")
    provider = create_provider("one")
    await provider.update_config(default_model="b", default_options={"temperature": 0})
    settings_file.write_text(f"{TWO}temperature = 1\nmodels = ['a', 'b', 'c']")
    get_settings().reload()
    assert await follow_settings(provider) == ("default_model",)
    assert provider.active_model == "c"
    assert provider.default_options.temperature == 0


async def test_a_key_of_the_call_is_not_sent_where_the_file_points_now(settings_file: Path) -> None:
    settings_file.write_text("[providers.openai]\ndefault_model = 'a'")
    provider = create_provider("openai", api_key=KEY)
    settings_file.write_text("[providers.openai]\nbase_url = 'https://elsewhere.example/v1'")
    get_settings().reload()
    await follow_settings(provider)
    assert provider.base_url == "https://api.openai.com/v1"


async def test_a_key_and_its_address_may_change_together(settings_file: Path) -> None:
    table = "[providers.compatible]\napi_key = '{}'\nbase_url = 'https://{}.example/v1'"
    settings_file.write_text(table.format(KEY, "one"))
    provider = create_provider("compatible")
    settings_file.write_text(table.format("another-key", "two"))
    get_settings().reload()
    assert set(await follow_settings(provider)) == {"api_key", "base_url"}
    assert provider.base_url == "https://two.example/v1"
    settings_file.write_text(table.format("another-key", "three"))
    get_settings().reload()
    assert await follow_settings(provider) == ("base_url",)
    assert provider.base_url == "https://three.example/v1"
    assert provider._key.resolve() == "another-key"


async def test_a_provider_that_was_made_without_settings_follows_none() -> None:
    assert await follow_settings(EchoProvider()) == ()
