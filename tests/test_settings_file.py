"""The settings file and environment variables: what they may say, and what they may not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from llm_manager import (
    Backoff,
    ConfigurationError,
    EchoProvider,
    InvalidParameterError,
    LLMError,
    OpenAICompatibleProvider,
    ProviderNotFoundError,
    create_provider,
    kinds,
    register_provider,
    reset_settings,
    unregister_kind,
)
from llm_manager.registry import codec_of, is_installed
from llm_manager.settings.file import read_settings_file, settings_path
from llm_manager.settings.problems import Problem
from llm_manager.settings.store import Settings, get_settings


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings file of this process is."""
    path = tmp_path / "config.toml"
    monkeypatch.setenv("LLM_MANAGER_CONFIG", str(path))
    reset_settings()
    return path


def check(path: Path, text: str) -> list[Problem]:
    """What is wrong with a settings file that holds ``text``."""
    path.write_text(text)
    path.chmod(0o600)
    return Settings.load(path, environment={}).check()


# ---- where it is ---------------------------------------------------------------------------------


def test_it_is_in_the_folder_where_the_platform_wants_settings() -> None:
    folder = platformdirs.user_config_path("llm_manager", appauthor=False)
    assert settings_path({}) == folder / "config.toml"


def test_a_variable_names_another_one_and_if_it_is_empty_none(tmp_path: Path) -> None:
    assert settings_path({"LLM_MANAGER_CONFIG": str(tmp_path / "x.toml")}) == tmp_path / "x.toml"
    assert settings_path({"LLM_MANAGER_CONFIG": "~/x.toml"}) == Path.home() / "x.toml"
    assert settings_path({"LLM_MANAGER_CONFIG": ""}) is None


@pytest.mark.skipif(
    not hasattr(os, "setuid") or os.getuid() != 0, reason="only root can become nobody"
)
def test_a_user_without_a_home_has_no_file() -> None:
    program = """
import os, platformdirs.unix, tempfile
closed = tempfile.mkdtemp()
from llm_manager import create_provider, get_settings
create_provider("echo")
from llm_manager import reset_settings
reset_settings()
del os.environ["LLM_MANAGER_CONFIG"]
os.environ.pop("HOME", None), os.environ.pop("XDG_CONFIG_HOME", None)
os.setuid(54321)
assert create_provider("echo").kind == "echo"
assert get_settings().path is None
reset_settings()
os.environ["HOME"] = closed
assert create_provider("echo").kind == "echo"
assert get_settings().path is None
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_missing_file_says_nothing(settings_file: Path) -> None:
    assert get_settings().path == settings_file
    assert get_settings().provider_ids == ()
    assert create_provider("echo").kind == "echo"


def test_a_file_that_somebody_names_and_that_is_missing_is_a_problem(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [problem] = get_settings().check()
    assert (problem.severity, problem.place) == ("error", str(settings_file))
    assert problem.message == "there is no such settings file"
    assert "LLM_MANAGER_CONFIG" in (problem.hint or "")
    with pytest.raises(ProviderNotFoundError, match=f"there is no settings file {settings_file}"):
        create_provider("work-openai")
    settings_file.touch()
    get_settings().reload()
    assert get_settings().check() == []
    # Nobody has to have one in the usual place.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(settings_file.parent / "nowhere"))
    monkeypatch.setenv("HOME", str(settings_file.parent / "nowhere"))
    monkeypatch.delenv("LLM_MANAGER_CONFIG")
    reset_settings()
    assert get_settings().check() == []


@pytest.mark.skipif(os.name != "posix", reason="other systems have other folders")
def test_a_home_that_is_no_folder_has_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("LLM_MANAGER_CONFIG")
    monkeypatch.setenv("HOME", "/dev/null")
    reset_settings()
    assert create_provider("echo").kind == "echo"
    assert get_settings().check() == []


def test_a_path_means_the_folder_of_the_moment_in_which_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text("[providers.echo]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_MANAGER_CONFIG", "config.toml")
    reset_settings()
    settings = get_settings()
    monkeypatch.chdir("/")
    assert not settings.reload()
    assert settings.provider_ids == ("echo",)
    assert settings.path == tmp_path / "config.toml"


def test_without_a_file_there_are_no_settings() -> None:
    assert get_settings().path is None
    assert get_settings().explain() == []
    assert get_settings().check() == []


# ---- what it may say -----------------------------------------------------------------------------


def test_several_instances_of_one_kind_have_their_own_settings(settings_file: Path) -> None:
    settings_file.write_text(
        """
        [providers.home]
        kind = "openai"
        api_key = "sk-home-12345678"
        default_model = "gpt-5"

        [providers.work-openai]
        kind = "openai"
        api_key = "sk-work-12345678"
        base_url = "https://gateway.example/v1"
        models = ["gpt-5", "gpt-5-mini"]
        """
    )
    home, work = create_provider("home"), create_provider("work-openai")

    assert (home.id, home.kind, home.active_model) == ("home", "openai", "gpt-5")
    assert (work.id, work.kind, work.base_url) == (
        "work-openai", "openai", "https://gateway.example/v1",
    )  # fmt: skip
    assert home._key.resolve() != work._key.resolve()
    assert get_settings().provider_ids == ("home", "work-openai")
    assert is_installed("home")
    assert codec_of("home") is codec_of("openai")
    assert create_provider("home", id="other").id == "other"


def test_names_may_be_written_in_camel_case_and_options_without_their_table(
    settings_file: Path,
) -> None:
    settings_file.write_text(
        "[providers.echo]\nwordsPerS = inf\ndefaultOptions = { maxTokens = 7 }\ntimeout = 5"
    )
    provider = create_provider("echo")
    assert provider.default_options.max_tokens == 7
    assert provider.default_options.timeouts.total_s == 5


def test_a_table_becomes_what_the_constructor_wants(settings_file: Path) -> None:
    settings_file.write_text("[providers.echo]\nreconnect = { first_s = 0.5 }")
    assert create_provider("echo")._backoff == Backoff(first_s=0.5)


def test_a_kind_of_ones_own_is_a_row(settings_file: Path) -> None:
    settings_file.write_text(
        """
        [rows.gateway]
        name = "Our gateway"
        baseUrl = "https://gateway.example/v1"
        keyRequired = false

        [providers.quick]
        kind = "gateway"
        temperature = 0
        """
    )
    assert "gateway" in kinds()
    provider = create_provider("quick")
    assert isinstance(provider, OpenAICompatibleProvider)
    assert (provider.kind, provider.name) == ("gateway", "Our gateway")
    assert provider.base_url == "https://gateway.example/v1"
    assert create_provider("gateway").id == "gateway"
    assert codec_of("gateway") is not None
    assert get_settings().check() == []


@pytest.mark.parametrize(
    ("variable", "value", "name", "expected"),
    [
        ("DEFAULT_MODEL", "small", "default_model", "small"),
        ("DEFAULT_MODEL", "4.1", "default_model", "4.1"),
        ("DEFAULT_MODEL", '"quoted"', "default_model", "quoted"),
        ("DEFAULT_MODEL", "2024-05-01", "default_model", "2024-05-01"),
        ("DEFAULT_MODEL", "'a'\nb = 1", "default_model", "'a'\nb = 1"),
        ("WORDS_PER_S", "inf", "words_per_s", float("inf")),
        ("WORDS_PER_S", "5", "words_per_s", 5),
        ("MODELS", '["a", "b"]', "models", ["a", "b"]),
        ("TEMPERATURE", "0.5", "default_parameters.temperature", 0.5),
        ("STOP", "5", "default_parameters.stop", ("5",)),
        ("STOP", '["5", "6"]', "default_parameters.stop", ("5", "6")),
        ("FORCE", "true", "default_parameters.force", True),
        pytest.param("MODEL", "9" * 5_000, "default_model", "9" * 5_000, id="enormous"),
        pytest.param("MODEL", "[" * 100_000, "default_model", "[" * 100_000, id="deep"),
        ("DEFAULT_PARAMETERS__TIMEOUTS__TOTAL_S", "5", "default_parameters.timeouts.total_s", 5),
        ("TIMEOUT", "5", "default_parameters.timeouts.total_s", 5),
        ("DEFAULT_PARAMETERS", "{ seed = 5 }", "default_parameters.seed", 5),
    ],
)
def test_a_variable_is_read_as_toml_if_it_is_some_and_else_as_text(
    variable: str, value: str, name: str, expected: object
) -> None:
    environment = {f"LLM_MANAGER_PROVIDERS__MY_ECHO__{variable}": value}
    environment["LLM_MANAGER_PROVIDERS__MY_ECHO__KIND"] = "echo"
    settings = Settings(environment=environment)

    [id] = settings.provider_ids
    setting = settings.for_provider(id).values[name]

    assert id == "my-echo"
    assert setting.value == expected
    assert type(setting.value) in (type(expected), float)
    assert setting.origin == f"environment LLM_MANAGER_PROVIDERS__MY_ECHO__{variable}"


def test_an_empty_variable_says_nothing() -> None:
    settings = Settings(environment={"LLM_MANAGER_PROVIDERS__ECHO__DEFAULT_MODEL": " "})
    assert settings.provider_ids == ()
    assert settings.for_provider("echo").values == {}


def test_several_variables_make_one_table() -> None:
    prefix = "LLM_MANAGER_PROVIDERS__COMPATIBLE__"
    settings = Settings(
        environment={
            f"{prefix}HEADERS__A": "1",
            f"{prefix}HEADERS__B": "x",
            f"{prefix}KIND": "groq",
        }
    )
    setting = settings.for_provider("compatible").values["headers"]
    assert setting.value == {"a": "1", "b": "x"}
    assert setting.origin.endswith("HEADERS__B")
    assert settings.for_provider("compatible").kind == "groq"


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("sk-work-12345678", "sk-work-12345678"),
        ('"sk-work-12345678"', "sk-work-12345678"),
        ("'sk-work-12345678'", "sk-work-12345678"),
        ("12345678", "12345678"),
        ('["sk-work"]', '["sk-work"]'),
        (" 2024-05-01\n", "2024-05-01"),
    ],
)
def test_a_key_in_a_variable_may_stand_in_quotes_and_look_like_anything(
    written: str, key: str
) -> None:
    settings = Settings(environment={"LLM_MANAGER_PROVIDERS__OPENAI__API_KEY": written})
    assert settings.for_provider("openai").arguments()["api_key"].reveal() == key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("MODEL", "DEFAULT_MODEL"),
        ("TEMPERATURE", "DEFAULT_PARAMETERS__TEMPERATURE"),
        ("TIMEOUT", "DEFAULT_PARAMETERS__TIMEOUTS__TOTAL_S"),
    ],
)
def test_two_variables_that_say_the_same_setting_are_a_mistake(one: str, other: str) -> None:
    prefix = "LLM_MANAGER_PROVIDERS__ECHO__"
    [problem] = Settings(environment={f"{prefix}{one}": "1", f"{prefix}{other}": "2"}).check()
    assert "it stands there twice" in problem.message
    assert {problem.place, problem.message.split(" as ")[1].split()[0]} == {
        f"{prefix}{one}", f"{prefix}{other}",
    }  # fmt: skip


def test_a_provider_with_a_model_of_its_own_may_have_a_default_model_too(tmp_path: Path) -> None:
    class Own(EchoProvider):
        def __init__(self, *, model: str = "", **common: Any) -> None:
            super().__init__(**common)

    register_provider("own", Own)
    try:
        text = "[providers.mine]\nkind = 'own'\nmodel = 'a'\ndefault_model = 'b'"
        assert check(tmp_path / "config.toml", text) == []
    finally:
        unregister_kind("own")


@pytest.mark.parametrize("provider", ["WÖRK", "", "_X", "X" * 65])
def test_a_variable_whose_name_holds_no_id_is_a_warning_and_no_provider(provider: str) -> None:
    name = f"LLM_MANAGER_PROVIDERS__{provider}__KIND"
    settings = Settings(environment={name: "echo"})
    assert settings.provider_ids == ()
    [problem] = settings.check()
    assert (problem.severity, problem.place) == ("warning", name)


def test_a_kind_that_only_variables_name_is_found_under_its_own_id() -> None:
    prefix = "LLM_MANAGER_PROVIDERS__"
    settings = Settings(
        environment={
            f"{prefix}LITELLM_PROXY__DEFAULT_MODEL": "small",
            f"{prefix}OPENAI__DEFAULT_MODEL": "small",
        }
    )
    assert settings.provider_ids == ("litellm-proxy", "openai")


# ---- what it may not say -------------------------------------------------------------------------

OPENAI = "[providers.work-openai]\nkind = 'openai'\n"


@pytest.mark.parametrize(
    ("text", "place", "says", "hint"),
    [
        (f"{OPENAI}temprature = 1", "temprature", "unknown setting", "'temperature'"),
        (f"{OPENAI}api_kee = 'x'", "api_kee", "unknown setting", "'api_key'"),
        (f"{OPENAI}zzz = 1", "zzz", "unknown setting", "known are"),
        (f"{OPENAI}[providers.work-openai.default_parameters]\ntemprature = 1",
         "default_parameters.temprature", "unknown setting", "'temperature'"),
        (f"{OPENAI}[providers.work-openai.default_parameters]\ntemperature = 3",
         "default_parameters.temperature", "must be between 0 and 2, got 3", None),
        (f"{OPENAI}default_parameters = {{ temperature = 'hot' }}",
         "default_parameters.temperature", "must be a number, got 'hot'", None),
        (f"{OPENAI}default_parameters = {{ max_tokens = 1.5 }}",
         "default_parameters.max_tokens", "must be a whole number, got 1.5", None),
        (f"{OPENAI}default_parameters = {{ timeouts = {{ total_s = 0 }} }}",
         "default_parameters.timeouts.total_s", "must be above 0, got 0", None),
        (f"{OPENAI}default_parameters = {{ timeouts = {{ total = 1 }} }}",
         "default_parameters.timeouts.total", "unknown setting", "'total_s'"),
        (f"{OPENAI}default_parameters = {{ reasoning_effort = 'much' }}",
         "default_parameters.reasoning_effort", "must be one of none", None),
        (f"{OPENAI}default_parameters = 5", "default_parameters", "must be a table", None),
        (f"{OPENAI}timeouts = 5", "timeouts", "must be a table, got int", None),
        (f"{OPENAI}default_model = 5", "default_model", "must be text, got 5", None),
        (f"{OPENAI}default_model = 2024-05-01", "default_model", "must be text, got", None),
        (f"{OPENAI}id = 'other'", "id", "unknown setting", "did you mean"),
        (f"{OPENAI}base_url_variables = ['X']", "base_url_v", "unknown setting", "base_url"),
        pytest.param(f"{OPENAI}{'x' * 5000} = 1", "xxx", "unknown setting", "known are", id="long"),
        (f"{OPENAI}api_key = 5", "api_key", "must be text or a function, got int", None),
        (f"{OPENAI}api_key = ''", "api_key", "is empty", "API key"),
        (f"{OPENAI}api_key = 'env:NOBODY'", "api_key", "is not set", "set NOBODY"),
        (f"{OPENAI}models = 'gpt-5'", "models", "must be a list, got 'gpt-5'", None),
        (f"{OPENAI}api = 'both'", "api", "must be one of auto, chat, responses, got 'both'", None),
        (f"{OPENAI}headers = {{ a = 5 }}", "headers", "must be text", None),
        (f"{OPENAI}model = 'a'\ndefault_model = 'b'", "default_model", "stands there twice", "out"),
        (f"{OPENAI}timeout = 1\ntimeouts = {{ total_s = 2 }}", "timeouts.total_s", "twice", "out"),
        ("[providers.work-openai]\nkind = 'opnai'", "kind", "no kind of provider", "'openai'"),
        ("[providers.work-openai]\nkind = 'a/b'", "kind", "is no kind of provider", None),
        ("[providers.work-openai]\nkind = 5", "kind", "is no kind of provider", None),
        ("[providers.work-openai]\napi_key = 'x'", "kind", "no kind of provider", "say what it is"),
        ("[providers.work-openai]\nkind = 'ollama'\ntruncate = 'yes'", "truncate",
         "must be true or false, got 'yes'", None),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_a_problem_with_its_place(
    text: str, place: str, says: str, hint: str | None, tmp_path: Path
) -> None:
    [problem] = check(tmp_path / "config.toml", text)

    assert problem.severity == "error"
    shown = f"{problem.place}: {problem.message}"
    assert shown.startswith(f"providers.work-openai.{place}")
    assert says in shown
    if hint is None:
        assert problem.hint is None
    else:
        assert hint in (problem.hint or "")


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("[providers\n", ConfigurationError, "line 1"),
        ("a = 1\na = 2\n", ConfigurationError, "line 2"),
        ("a =", ConfigurationError, "is no valid TOML"),
        ("\x00", ConfigurationError, "is no valid TOML"),
        pytest.param("a = " + "[" * 100_000, ConfigurationError, "too deeply", id="deep"),
        pytest.param("a = " + "9" * 5_000, ConfigurationError, "5000 digits", id="enormous"),
        ("[provider.openai]", InvalidParameterError, "did you mean 'providers'"),
        ("providers = 5", InvalidParameterError, "providers: must be a table, got int"),
        ("[providers]\nopenai = 'x'", InvalidParameterError, "providers.openai: must be a table"),
        ("[[providers]]", InvalidParameterError, "providers: must be a table, got list"),
        ("[providers.'a/b']", InvalidParameterError, "'a/b' is no provider of a settings file"),
        ("[rows.'']", InvalidParameterError, "'' is no row of a settings file"),
        ("[defaults]\napi_key = 'x'", InvalidParameterError, "defaults.api_key: unknown setting"),
        ("[defaults]\ndefault_model = 'x'", InvalidParameterError, "defaults.default_model"),
        ("[defaults]\ntemprature = 1", InvalidParameterError, "did you mean 'temperature'"),
        ("[defaults]\ntimeouts = 1", InvalidParameterError, "defaults.timeouts: must be a table"),
    ],
)
def test_a_file_that_cannot_be_understood_is_an_error_at_once(
    text: str, kind: type[LLMError], says: str, settings_file: Path
) -> None:
    settings_file.write_text(text)
    with pytest.raises(kind) as caught:
        create_provider("echo")
    assert says in str(caught.value)
    # What can be told without the file is told.
    assert "echo" in kinds()
    assert is_installed("echo")
    if kind is ConfigurationError:
        assert str(settings_file) in str(caught.value)
    # When it has been repaired, there is nothing left to do.
    settings_file.write_text("")
    assert create_provider("echo").kind == "echo"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.mkdir(), "it is no plain file"),
        (lambda path: path.write_bytes(b"\xff\xfe = 1"), "it is not UTF-8"),
        (lambda path: path.write_text("#" * (1024 * 1024 + 1)), "larger than 1 MiB"),
        (lambda path: path.symlink_to(path), "symbolic links"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_path(make, says: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    make(path)
    with pytest.raises(ConfigurationError, match=says) as caught:
        read_settings_file(path)
    assert str(path) in str(caught.value)
    assert "LLM_MANAGER_CONFIG" in str(caught.value)


def test_a_path_that_cannot_be_one_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="embedded null"):
        Settings.load("con\0fig.toml")


def test_a_mark_at_the_beginning_of_the_file_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf[providers.echo]\n")
    assert list(read_settings_file(path).providers) == ["echo"]


def test_a_broken_provider_does_no_harm_to_the_others(settings_file: Path) -> None:
    settings_file.write_text(f"{OPENAI}temprature = 1\n[providers.good]\nkind = 'echo'")
    assert create_provider("good").kind == "echo"
    with pytest.raises(InvalidParameterError, match=r"^providers\.work-openai\.temprature: "):
        create_provider("work-openai")


def test_what_a_constructor_refuses_is_told_with_the_place_of_the_setting(
    settings_file: Path,
) -> None:
    settings_file.write_text("[providers.box]\nkind = 'ollama'\ncontext_tokens = -1")
    with pytest.raises(InvalidParameterError, match=r"^providers\.box\.context_tokens: must be"):
        create_provider("box")
    settings_file.write_text("[providers.box]\nkind = 'ollama'\nbase_url = 'no-scheme'")
    reset_settings()
    with pytest.raises(ConfigurationError, match=r"^providers\.box\.base_url: 'no-scheme' does"):
        create_provider("box")


def test_rows_that_are_wrong_or_exist_already_are_problems(tmp_path: Path) -> None:
    found = check(
        tmp_path / "config.toml",
        "[rows.groq]\nbase_url = 'https://x.example'\n"
        "[rows.mine]\nbase_url = 'https://x.example'\ndialekt = {}\n"
        "[rows.yours]\nbase_url = 'x.example'",
    )
    assert [problem.place for problem in found] == ["rows.groq", "rows.mine", "rows.yours"]
    assert found[1].hint == "did you mean 'dialect'?"


def test_an_unknown_name_is_like_kinds_and_like_named_instances(settings_file: Path) -> None:
    settings_file.write_text(OPENAI)
    with pytest.raises(ProviderNotFoundError, match="did you mean 'work-openai'"):
        create_provider("work-opena")
    with pytest.raises(ProviderNotFoundError, match="did you mean 'ollama'"):
        create_provider("olama")


@pytest.mark.skipif(os.name != "posix", reason="other systems have other rights")
def test_a_key_in_a_file_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert check(path, f"{OPENAI}api_key = 'sk-work-12345678'") == []
    path.chmod(0o644)
    [problem] = Settings.load(path, environment={}).check()
    assert (problem.severity, problem.place) == ("warning", "providers.work-openai.api_key")
    assert "chmod 600" in (problem.hint or "")
    assert "12345678" not in str(problem)


def test_variables_that_belong_to_nobody_or_to_two_are_warnings(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[providers.a-b]\nkind = 'echo'\n[providers.'a.b']\nkind = 'echo'")
    settings = Settings.load(path, environment={"LLM_MANAGER_PROVIDERS__OPNAI__API_KEY": "x"})
    found = settings.check()
    assert [p.severity for p in found] == ["warning", "warning"]
    assert [p.place for p in found] == [
        "providers.a.b", "LLM_MANAGER_PROVIDERS__OPNAI__API_KEY",
    ]  # fmt: skip
    assert "cannot tell it from 'a-b'" in found[0].message


def test_a_mistake_in_a_variable_is_told_with_its_name() -> None:
    name = "LLM_MANAGER_PROVIDERS__ECHO__DEFAULT_PARAMETERS__TEMPERATURE"
    [problem] = Settings(environment={name: "hot"}).check()
    assert problem.place == name
    assert "must be a number, got 'hot'" in problem.message
    unknown = "LLM_MANAGER_PROVIDERS__ECHO__TEMPRATURE"
    [problem] = Settings(environment={unknown: "1"}).check()
    assert (problem.place, problem.hint) == (unknown, "did you mean 'temperature'?")
