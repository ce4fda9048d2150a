"""Addresses and keys are checked when they are given, and keys never show."""

from __future__ import annotations

import logging
import pickle

import pytest

from llm_manager import AuthenticationError, ConfigurationError, Secret
from llm_manager.config import (
    ApiKey,
    check_base_url,
    check_file,
    check_folder,
    is_loopback,
    warn_if_key_is_readable,
)
from llm_manager.redaction import redact

KEY = "sk-planted-0123456789abcdef"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("localhost:8080/v1", r"does not start with http.*did you mean 'http://localhost:8080/v1'"),
        ("ftp://example.org", "does not start with http"),
        ("http://", "names no host"),
        ("http://exa mple:99999/", "is not a URL"),
        ("https://user:secret@example.org/v1", "user name or password"),
        ("https://example.org/v1?key=abcdefgh", r"without \? and #"),
        ("", "does not start with http"),
        (5, "must be text, got int"),
        (None, "must be text, got NoneType"),
    ],
)
def test_an_address_that_cannot_be_is_refused(url, text) -> None:
    with pytest.raises(ConfigurationError, match=text) as caught:
        check_base_url(url)
    assert "secret" not in str(caught.value)
    assert "abcdefgh" not in str(caught.value)


def test_an_address_loses_its_trailing_slash() -> None:
    assert check_base_url(" https://example.org/v1/ ") == "https://example.org/v1"


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:11434", True),
        ("http://127.5.5.5/", True),
        ("http://localhost:1234/v1", True),
        ("http://api.localhost/", True),
        ("http://[::1]:80/", True),
        ("http://192.168.0.2/", False),
        ("https://localhost.example.org/", False),
    ],
)
def test_this_machine_is_told_from_others(url, local) -> None:
    assert is_loopback(url) is local


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (f"{KEY}\nsecond", "a line break at position 28 of 34"),
        ("schlüssel", r"U\+00FC at position 5 of 9"),
        ("two words", "a space at position 4"),
        ("   ", "is empty"),
        ("", "is empty"),
    ],
)
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key, text) -> None:
    with pytest.raises(AuthenticationError, match=text) as caught:
        ApiKey(key)
    assert key.strip() == "" or key not in str(caught.value)
    assert KEY not in repr(caught.value)


def test_space_around_a_key_is_dropped() -> None:
    assert ApiKey(f" {KEY}\n").resolve() == KEY


def test_a_key_is_found_where_it_is_expected(monkeypatch) -> None:
    key = ApiKey(variables=("FIRST_API_KEY", "SECOND_API_KEY"))
    assert key.origin == "missing"
    with pytest.raises(AuthenticationError, match="set FIRST_API_KEY or SECOND_API_KEY") as caught:
        key.resolve()
    assert caught.value.code == "auth_missing"
    monkeypatch.setenv("SECOND_API_KEY", KEY)
    assert (key.resolve(), key.origin) == (KEY, "environment SECOND_API_KEY")
    assert ApiKey(Secret("given-key")).resolve() == "given-key"
    assert ApiKey(required=False).resolve() is None


def test_a_key_function_is_asked_each_time() -> None:
    keys = iter(["first", "second", "bro\nken"])
    key = ApiKey(lambda: next(keys))
    assert [key.resolve(), key.resolve()] == ["first", "second"]
    with pytest.raises(AuthenticationError, match="the key function's result contains a line"):
        key.resolve()


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(KEY)
    for shown in (str(secret), repr(secret), f"{secret}", repr([secret]), repr(ApiKey(KEY))):
        assert KEY not in shown
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)
    assert secret == Secret(KEY)
    assert secret.reveal() == KEY


def test_sending_a_key_unencrypted_over_a_network_is_warned_about(caplog) -> None:
    caplog.set_level(logging.WARNING)
    assert warn_if_key_is_readable("http://192.168.0.2:8000/v1", "box")
    assert "sent unencrypted to 192.168.0.2" in caplog.text
    assert not warn_if_key_is_readable("http://127.0.0.1:8000/v1", "box")
    assert not warn_if_key_is_readable("https://example.org/v1", "box")


def test_a_file_where_a_folder_is_expected_is_refused_and_the_other_way_round(tmp_path) -> None:
    file = tmp_path / "a.pem"
    file.write_text("x")
    assert check_folder(tmp_path, "cache") == tmp_path
    assert check_file(file, "ca_file") == file
    for check, path, text in (
        (check_folder, file, "is a file, a folder is needed"),
        (check_folder, tmp_path / "no", "does not exist"),
        (check_file, tmp_path, "is a folder, a file is needed"),
        (check_file, tmp_path / "no", "does not exist"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            check(path, "setting")


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: {KEY}.",
        "Authorization: Bearer abc.def-ghi",
        "https://x.org/v1?key=AIzaSyA-0123456789",
        "AIzaSyA-01234567890123456789012345678",
        "http://user:pa55w0rd@proxy:3128",
        "gsk_0123456789abcdefghij is wrong",
    ],
)
def test_whatever_looks_like_a_key_is_masked(text) -> None:
    masked = redact(text)
    assert "***" in masked
    for secret in (KEY, "abc.def", "AIza", "pa55w0rd", "0123456789abcdefghij"):
        assert secret not in masked


def test_known_secrets_are_masked_and_ordinary_words_are_not() -> None:
    assert redact("the word is hunter2", ["hunter2", ""]) == "the word is ***"
    plain = "model sk8 is not found at https://example.org/v1/models (key missing)"
    assert redact(plain) == plain


async def test_a_coroutine_function_for_the_key_can_be_waited_for_and_else_is_refused() -> None:
    async def found() -> str:
        return f" {KEY}\n"

    key = ApiKey(found)
    with pytest.raises(ConfigurationError, match="coroutine function"):
        key.resolve()
    assert key.known == ()
    assert await key.ask() == KEY
    assert key.known == (KEY,)
    assert KEY not in repr(key)


async def test_the_known_keys_are_those_that_may_be_sent(monkeypatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", KEY)
    assert ApiKey(variables=("ACME_API_KEY", "OTHER_API_KEY")).known == (KEY,)
    assert ApiKey(KEY).known == (KEY,)
    assert await ApiKey(variables=("ACME_API_KEY",)).ask() == KEY
    assert ApiKey(withheld=("ACME_API_KEY",)).known == ()
