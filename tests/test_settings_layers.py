"""Which of several values of a setting counts; and that a key never leaves its address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from llm_manager import (
    InvalidParameterError,
    Secret,
    create_provider,
    set_provider_config,
)
from llm_manager.settings.environment import variables
from llm_manager.settings.file import SettingsFile
from llm_manager.settings.layers import Setting, merge
from llm_manager.settings.store import Settings, get_settings

LAYERS = ("defaults", "file", "environment", "code", "request")
VARIABLE = "LLM_MANAGER_PROVIDERS__WORK_ECHO__TEMPERATURE"


@pytest.mark.parametrize("strongest", range(len(LAYERS)))
def test_the_strongest_layer_that_gives_a_value_decides(
    strongest: int, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_in = LAYERS[: strongest + 1]
    lines = ["[providers.work-echo]", "kind = 'echo'"]
    if "file" in given_in:
        lines.append("temperature = 0.2")
    lines += ["[defaults]", "temperature = 0.1"]
    settings_file.write_text("\n".join(lines))
    if "environment" in given_in:
        monkeypatch.setenv(VARIABLE, "0.3")
    if "code" in given_in:
        set_provider_config("work-echo", {"temperature": 0.4})
    request = {"temperature": 0.5} if "request" in given_in else {}

    provider = create_provider("work-echo", **request)

    assert provider.default_options.temperature == pytest.approx((strongest + 1) / 10)


@pytest.mark.parametrize(
    ("weakest", "origin"),
    [
        ("defaults", "file {path} [defaults]"),
        ("file", "file {path}"),
        ("environment", f"environment {VARIABLE}"),
        ("code", "code"),
    ],
)
def test_every_value_says_where_it_comes_from(
    weakest: str, origin: str, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "temperature = 0.2" if weakest == "file" else ""
    settings_file.write_text(
        f"[defaults]\ntemperature = 0.1\n[providers.work-echo]\nkind = 'echo'\n{own}"
    )
    if weakest == "environment":
        monkeypatch.setenv(VARIABLE, "0.3")
    if weakest == "code":
        set_provider_config("work-echo", {"temperature": 0.4})

    setting = get_settings().for_provider("work-echo").values["default_parameters.temperature"]

    assert setting.origin == origin.format(path=settings_file)


def test_parameters_are_merged_one_by_one_over_the_layers(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text(
        """
        [defaults]
        timeouts = { total_s = 100, idle_s = 10 }
        [providers.echo.default_parameters]
        temperature = 0.2
        max_tokens = 50
        [providers.echo.default_parameters.extra]
        first = 1
        """
    )
    prefix = "LLM_MANAGER_PROVIDERS__ECHO__DEFAULT_PARAMETERS__"
    monkeypatch.setenv(f"{prefix}EXTRA__SECOND", "2")
    monkeypatch.setenv(f"{prefix}TIMEOUTS__IDLE_S", "20")
    set_provider_config("echo", {"default_parameters": {"max_tokens": 60}})

    options = create_provider("echo", default_options={"top_p": 0.5}).default_options

    assert (options.temperature, options.max_tokens, options.top_p) == (0.2, 60, 0.5)
    assert options.extra == {"first": 1, "second": 2}
    assert options.timeouts is not None
    assert (options.timeouts.total_s, options.timeouts.idle_s) == (100, 20)


def test_a_setting_of_another_kind_withholds_the_key(settings_file: Path) -> None:
    settings_file.write_text("[providers.work]\nkind = 'openai'\napi_key = 'sk-of-openai-1'")
    set_provider_config("work", {"kind": "groq"})

    provider = create_provider("work")

    assert provider.kind == "groq"
    assert provider.key_origin == "missing"


# ---- key and address travel together -------------------------------------------------------------

_NAMES = ("api_key", "base_url", "client", "headers", "default_model")


def _values(layer: int, names: frozenset[str]) -> dict[tuple[str, ...], Setting]:
    values: dict[str, Any] = {name: f"{name} of {layer}" for name in names}
    if "headers" in values:
        values["headers"] = {"Authorization": f"of {layer}"}
    return {(name,): Setting(value, str(layer)) for name, value in values.items()}


@given(st.lists(st.frozensets(st.sampled_from(_NAMES)), min_size=1, max_size=5))
def test_what_unlocks_and_where_to_never_come_from_different_layers(
    layers: list[frozenset[str]],
) -> None:
    counting, withheld = merge([_values(i, names) for i, names in enumerate(layers)], "openai")

    bound = {path[0]: s.origin for path, s in counting.items() if path != ("default_model",)}
    assert len(set(bound.values())) <= 1
    deciding = [i for i, names in enumerate(layers) if names - {"default_model"}]
    if deciding:
        last = deciding[-1]
        assert bound == dict.fromkeys(layers[last] - {"default_model"}, str(last))
    assert not counting.keys() & withheld.keys()
    models = [i for i, names in enumerate(layers) if "default_model" in names]
    model = counting.get(("default_model",))
    assert (None if model is None else model.origin) == (str(models[-1]) if models else None)


@pytest.mark.parametrize("name", ["base_url", "api_key"])
@pytest.mark.parametrize("layer", ["environment", "code", "call"])
def test_a_stronger_layer_that_gives_one_of_them_withholds_the_other(
    name: str, layer: str, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text(
        "[providers.compatible]\nbase_url = 'https://one.example/v1'\napi_key = 'key-of-one'"
    )
    value = {"base_url": "https://other.example/v1", "api_key": "key-of-other"}[name]
    call: dict[str, Any] = {}
    if layer == "environment":
        monkeypatch.setenv(f"LLM_MANAGER_PROVIDERS__COMPATIBLE__{name.upper()}", value)
    elif layer == "code":
        set_provider_config("compatible", {name: value})
    else:
        call = {name: value}

    settings = get_settings().for_provider("compatible")
    arguments = settings.arguments({**call, "base_url": call.get("base_url")})

    given = {"base_url", "api_key"} & {k for k, v in arguments.items() if v is not None}
    assert given == {name}
    if layer != "call":
        other = ({"base_url", "api_key"} - {name}).pop()
        assert list(settings.withheld) == [other]
        [problem] = [p for p in get_settings().check() if p.severity == "warning"]
        assert problem.place == f"providers.compatible.{other}"


def test_a_key_of_the_settings_does_not_go_where_the_vendors_variable_points(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text("[providers.openai]\napi_key = 'sk-work-12345678'")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.example/v1")

    assert create_provider("openai").base_url == "https://api.openai.com/v1"
    # Given in the call it is another matter: whoever calls knows the environment.
    given = create_provider("openai", api_key="sk-given-12345678")
    assert given.base_url == "https://elsewhere.example/v1"


def test_a_key_of_the_settings_does_not_go_to_the_ollama_that_a_variable_names(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text("[providers.ollama]\napi_key = 'key-of-the-usual-one'")
    monkeypatch.setenv("OLLAMA_HOST", "elsewhere.example:1234")

    assert create_provider("ollama").base_url == "http://127.0.0.1:11434"


def test_an_address_of_the_settings_does_not_get_the_vendors_key(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text("[providers.openai]\nbase_url = 'https://gateway.example/v1'")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-vendor-12345678")

    assert create_provider("openai").key_origin == "missing"


def test_the_vendors_variables_count_where_nothing_else_is_said(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text("[providers.openai]\ndefault_model = 'gpt-5'")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-vendor-12345678")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.example/v1")

    provider = create_provider("openai")

    assert provider.key_origin == "environment OPENAI_API_KEY"
    assert provider.base_url == "https://elsewhere.example/v1"
    assert provider.active_model == "gpt-5"


def test_a_setting_does_not_show_its_value() -> None:
    assert "sk-" not in repr(Setting("sk-12345678", "code"))
    assert "sk-" not in repr(Setting({"authorization": Secret("sk-12345678")}, "code"))


def test_neither_a_file_nor_a_provider_shows_its_settings(settings_file: Path) -> None:
    settings_file.write_text("[providers.groq]\napi_key = 'sk-12345678'")
    settings = Settings.load()

    provider = settings.for_provider("groq")
    (variable,) = variables({"LLM_MANAGER_PROVIDERS__GROQ__API_KEY": "sk-12345678"})
    for thing in (settings, settings._file, settings._sources(), provider, variable):
        assert "12345678" not in f"{thing!r} {thing} {pretty_repr(thing)}", type(thing)
    assert "GROQ" in repr(variable)


def test_settings_that_are_given_in_a_test_do_not_touch_those_of_the_process() -> None:
    own = Settings(environment={"LLM_MANAGER_PROVIDERS__ECHO__DEFAULT_MODEL": "small"})

    assert own.for_provider("echo").values["default_model"].value == "small"
    assert get_settings().for_provider("echo").values == {}


@pytest.mark.parametrize(
    "weaker",
    [
        {"arguments": {"api_base": "https://one.example"}},
        {"default_parameters": {"extra": {"api_base": "https://one.example"}}},
        {"headers": {"Authorization": "Bearer of one"}},
        {"headers": {"x-team": "a word of one"}},
    ],
)
def test_an_address_inside_of_another_setting_does_not_get_the_key_either(
    weaker: dict[str, Any],
) -> None:
    kind = "litellm" if "headers" not in weaker else "compatible"
    name = f"LLM_MANAGER_PROVIDERS__{kind.upper()}__"
    settings = Settings(
        SettingsFile(providers={kind: weaker}),
        environment={f"{name}BASE_URL": "https://other.example/v1"},
    )

    found = settings.for_provider(kind)

    assert list(found.values) == ["base_url"]
    assert len(found.withheld) == 1


def test_a_misspelt_key_of_a_table_inside_is_refused(settings_file: Path) -> None:
    settings_file.write_text('[providers.groq]\napi_key = "k"\nreconnect = { first = 1 }')
    with pytest.raises(InvalidParameterError, match=r"providers\.groq\.reconnect.*first"):
        create_provider("groq")
