"""Keys that are kept elsewhere: variables, keyrings, files, functions."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import keyring
import keyring.backend
import keyring.backends.fail
import pytest

from llm_manager import (
    AuthenticationError,
    BaseLLMProvider,
    ConfigurationError,
    InvalidParameterError,
    LLMError,
    Secret,
    create_provider,
    get_settings,
    set_provider_config,
)
from llm_manager.config import ApiKey
from llm_manager.settings.references import StoredKey, is_reference, resolve_secret
from llm_manager.testing import Reply, ScriptedPeer

KEY, NEWER = "Zq7plainLookingCredential9x", "Wv3anotherHarmlessWord8y"
PLACE = "providers.work.api_key"


class MemoryKeyring(keyring.backend.KeyringBackend):
    """A keyring that is forgotten with the process, and counts who asks from which thread."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[str, str], str] = {}
        self.asked: list[threading.Thread] = []

    def get_password(self, service: str, username: str) -> str | None:
        self.asked.append(threading.current_thread())
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.entries[service, username]


class BrokenKeyring(MemoryKeyring):
    """A keyring whose daemon has gone, and which says so with what it was asked."""

    def get_password(self, service: str, username: str) -> str | None:
        raise OSError(f"cannot decrypt {KEY}")


@pytest.fixture(autouse=True)
def memory() -> Iterator[MemoryKeyring]:
    """The keyring of this process."""
    before = keyring.get_keyring()
    memory = MemoryKeyring()
    keyring.set_keyring(memory)
    yield memory
    keyring.set_keyring(before)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A file with a key, as it should be."""
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o600)
    return file


def key_of(reference: object) -> str | None:
    return ApiKey(resolve_secret(reference, PLACE)).resolve()


# ---- every way to write one ----------------------------------------------------------------------


def test_a_variable_is_read_at_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    key = ApiKey(resolve_secret("env:MY_KEY", PLACE))
    assert key.resolve() == KEY
    monkeypatch.setenv("MY_KEY", NEWER)
    assert key.resolve() == NEWER
    assert key.origin == "env:MY_KEY"


def test_a_file_is_read_without_the_line_break_at_its_end(key_file: Path) -> None:
    assert key_of(f"file:{key_file}") == KEY


def test_a_file_may_be_named_from_the_home_folder(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(key_file.parent))
    monkeypatch.setenv("USERPROFILE", str(key_file.parent))
    assert key_of("file:~/key") == KEY


def test_a_keyring_is_asked_when_the_key_is_needed(memory: MemoryKeyring) -> None:
    memory.set_password("openai", "work/second", KEY)
    key = ApiKey(resolve_secret("keyring:openai/work/second", PLACE))
    assert memory.asked == []
    assert key.resolve() == KEY
    assert key.resolve() == KEY
    assert len(memory.asked) == 1


@pytest.mark.parametrize("given", [KEY, Secret(KEY), lambda: KEY])
def test_a_key_itself_a_secret_and_a_function_are_keys_too(given: object) -> None:
    assert key_of(given) == KEY


@pytest.mark.parametrize("reference", ["ENV:MY_KEY", " env:MY_KEY", "Env: MY_KEY "])
def test_a_reference_is_one_however_it_was_typed(
    reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    assert key_of(reference) == KEY
    assert resolve_secret(reference, PLACE) is not reference


def test_a_mark_at_the_beginning_of_a_key_file_is_no_part_of_the_key(key_file: Path) -> None:
    key_file.write_bytes(b"\xef\xbb\xbf" + KEY.encode())
    assert key_of(f"file:{key_file}") == KEY


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_can_read_a_key_that_a_thread_was_reading() -> None:
    parent, asked, answered = os.getpid(), threading.Event(), threading.Event()

    class Slow(MemoryKeyring):
        def get_password(self, service: str, username: str) -> str | None:
            asked.set()
            if os.getpid() == parent:
                answered.wait(10)
            return KEY

    keyring.set_keyring(Slow())
    # Equal ones are not the same one.
    keys = [StoredKey("keyring:openai/work", PLACE) for _ in range(2)]
    threads = []
    for key in keys:
        asked.clear()
        threads.append(threading.Thread(target=key.read_now))
        threads[-1].start()
        assert asked.wait(10)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            os._exit(0 if {key.read_now() for key in keys} == {KEY} else 1)
        finally:
            os._exit(2)
    answered.set()
    for thread in threads:
        thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_none_is_no_key() -> None:
    assert resolve_secret(None, PLACE) is None


@pytest.mark.parametrize("key", ["sk-proj-1", "environment", "a:b", "https://x"])
def test_what_is_no_reference_is_a_key(key: str) -> None:
    assert not is_reference(key)


# ---- and to write it wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "kind", "says"),
    [
        ("env:", ConfigurationError, "names no environment variable"),
        ("env:MY KEY", ConfigurationError, "names no environment variable"),
        ("env:NOBODY_SET_THIS", AuthenticationError, "the environment variable is not set"),
        ("env:EMPTY", AuthenticationError, "the environment variable is empty"),
        ("env:TWO_LINES", AuthenticationError, "contains a line break"),
        ("file:", ConfigurationError, "names no file by its whole path"),
        ("file:relative/key", ConfigurationError, "names no file by its whole path"),
        ("file:{folder}/missing", AuthenticationError, "No such file"),
        ("file:{folder}", ConfigurationError, "is no plain file"),
        ("keyring:", ConfigurationError, "names no entry of a keyring"),
        ("keyring:openai", ConfigurationError, "names no entry of a keyring"),
        ("keyring:/work", ConfigurationError, "names no entry of a keyring"),
        (5, InvalidParameterError, "must be text or a function, got int"),
        ("", AuthenticationError, "is empty"),
        (f"two{chr(10)}lines", AuthenticationError, "contains a line break"),
    ],
)
def test_a_reference_that_cannot_be_resolved_is_an_error_with_its_place(
    reference: Any,
    kind: type[LLMError],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("TWO_LINES", f"{KEY}\n{KEY}")
    if isinstance(reference, str):
        reference = reference.format(folder=tmp_path)

    with pytest.raises(kind) as caught:
        key_of(reference)

    assert caught.value.message.startswith(PLACE)
    assert says in caught.value.message
    if is_reference(reference):
        assert reference in caught.value.message
    if not isinstance(reference, int):
        assert caught.value.hint
    assert KEY not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="other systems have other rights")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_that_others_can_read_or_write_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"mode {mode:04o}") as caught:
        resolve_secret(f"file:{key_file}", PLACE)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("chmod 600")


@pytest.mark.skipif(os.name != "posix", reason="other systems have other rights")
def test_rights_that_were_given_later_are_found_when_it_is_read_again(key_file: Path) -> None:
    key = StoredKey(f"file:{key_file}", PLACE)
    assert key.read_now() == KEY
    key_file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="others"):
        key.read_now()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o644


def test_an_empty_and_an_enormous_file_are_no_keys(key_file: Path) -> None:
    key_file.write_text(" \n")
    with pytest.raises(AuthenticationError, match="the file is empty"):
        key_of(f"file:{key_file}")
    key_file.write_text("x" * 70_000)
    with pytest.raises(ConfigurationError, match="too large for a key"):
        key_of(f"file:{key_file}")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_that_nobody_writes_to_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigurationError, match="no plain file"):
        resolve_secret(f"file:{tmp_path / 'pipe'}", PLACE)


def test_a_keyring_without_such_an_entry_says_how_to_make_one() -> None:
    with pytest.raises(AuthenticationError, match="has no such entry") as caught:
        key_of("keyring:openai/work")
    assert caught.value.code == "auth_missing"
    assert "keyring set openai work" in str(caught.value)


def test_a_machine_without_a_keyring_is_told_what_to_use_instead() -> None:
    keyring.set_keyring(keyring.backends.fail.Keyring())
    with pytest.raises(ConfigurationError, match="this machine has no keyring") as caught:
        key_of("keyring:openai/work")
    assert "env:NAME or file:path" in str(caught.value)
    assert caught.value.message.startswith(PLACE)


def test_what_a_broken_keyring_says_is_not_repeated() -> None:
    keyring.set_keyring(BrokenKeyring())
    with pytest.raises(ConfigurationError, match=r"fails with builtins\.OSError") as caught:
        key_of("keyring:openai/work")
    assert KEY not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_key_that_was_written_behind_the_colon_is_not_shown() -> None:
    with pytest.raises(AuthenticationError) as caught:
        resolve_secret("env:sk-proj-1234567890", PLACE)
    assert "1234567890" not in str(caught.value)
    assert "1234567890" not in repr(caught.value)


def test_a_reference_shows_and_pickles_itself_and_never_its_key(key_file: Path) -> None:
    key = StoredKey(f"file:{key_file}", PLACE)
    assert key.read_now() == KEY
    assert repr(key) == f"StoredKey('file:{key_file}')"
    pickled = pickle.dumps(key)
    assert KEY.encode() not in pickled
    assert pickle.loads(pickled) == key
    assert hash(key) == hash(StoredKey(f"file:{key_file}", "elsewhere"))


# ---- providers with them -------------------------------------------------------------------------


class Server(ScriptedPeer):
    """A server that accepts one key, and can be given another one."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted = KEY
        self.seen: list[str | None] = []
        self.when_refused: Callable[[], object] = lambda: None
        self.route("/v1/models", lambda request: self.answer(request, Reply.json(MODELS)))
        self.route("/v1/chat/completions", lambda request: self.answer(request, Reply.sse(WORDS)))

    def answer(self, request: Any, reply: Reply) -> Reply:
        self.seen.append(request.headers["authorization"])
        if self.seen[-1] == f"Bearer {self.accepted}":
            return reply
        self.when_refused()
        return Reply.json({"error": {"message": "wrong key"}}, status=401)


MODELS = {"data": [{"id": "small"}]}
WORDS = [
    {"id": "1", "model": "small", "choices": [{"index": 0, "delta": {"content": "Hi."}}]},
    {"id": "1", "model": "small", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    "[DONE]",
]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server() as server:
        yield server


def provider_with(reference: str, kind: str, server: Server) -> BaseLLMProvider:
    set_provider_config(
        "work", {"kind": kind, "api_key": reference, "base_url": f"{server.base_url}/v1"}
    )
    return create_provider("work", default_model="small")


KINDS = ["compatible", "openai"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_keyring_is_read_in_a_thread_and_once(
    kind: str, server: Server, memory: MemoryKeyring
) -> None:
    memory.set_password("openai", "work", KEY)
    async with provider_with("keyring:openai/work", kind, server) as provider:
        for _ in range(3):
            assert (await provider.generate_completion("small", "Hello")).text == "Hi."
        assert provider.key_origin == "keyring:openai/work"
    assert len(memory.asked) == 1
    assert memory.asked[0] is not threading.main_thread()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_that_was_replaced_is_read_again_when_the_old_one_is_refused(
    kind: str, server: Server, key_file: Path
) -> None:
    async with provider_with(f"file:{key_file}", kind, server) as provider:
        await provider.generate_completion("small", "Hello")
        key_file.write_text(NEWER)
        server.accepted = NEWER
        assert (await provider.generate_completion("small", "Hello")).text == "Hi."
        assert server.seen[-2:] == [f"Bearer {KEY}", f"Bearer {NEWER}"]


async def test_those_who_are_refused_at_once_share_one_reading(memory: MemoryKeyring) -> None:
    unlocked = threading.Event()

    class Locked(MemoryKeyring):
        def get_password(self, service: str, username: str) -> str | None:
            unlocked.wait(10)
            return super().get_password(service, username)

    locked = Locked()
    locked.set_password("openai", "work", KEY)
    keyring.set_keyring(locked)
    key = StoredKey("keyring:openai/work", PLACE)
    reading = [asyncio.create_task(key.reread()) for _ in range(20)]
    await asyncio.sleep(0)
    unlocked.set()
    assert set(await asyncio.gather(*reading)) == {KEY}
    assert len(locked.asked) == 1


async def test_a_probe_reads_a_replaced_key_as_well(server: Server, key_file: Path) -> None:
    server.accepted = NEWER
    server.when_refused = lambda: key_file.write_text(NEWER)
    async with provider_with(f"file:{key_file}", "compatible", server) as provider:
        assert provider.usable
        assert server.seen == [f"Bearer {KEY}", f"Bearer {NEWER}"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_headless_machine_is_a_failed_provider_that_says_why(
    kind: str, server: Server
) -> None:
    keyring.set_keyring(keyring.backends.fail.Keyring())
    provider = provider_with("keyring:openai/work", kind, server)
    with pytest.raises(ConfigurationError, match="no keyring"):
        await provider.connect()
    assert provider.status.status == "failed"
    assert provider.status.error is not None
    assert provider.status.error.message.startswith(PLACE)
    await provider.close()


def test_a_provider_that_takes_no_more_than_text_gets_the_text(
    key_file: Path, memory: MemoryKeyring
) -> None:
    from llm_manager import EchoProvider, register_provider, unregister_kind

    class Plain(EchoProvider):
        def __init__(self, *, api_key: str | None = None, **common: Any) -> None:
            super().__init__(**common)
            self.key = api_key

    register_provider("plain", Plain)
    try:
        for written in (KEY, f"file:{key_file}"):
            set_provider_config("plain", {"api_key": written})
            assert create_provider("plain").key == KEY
        set_provider_config("plain", {"api_key": "keyring:openai/work"})
        assert get_settings().check() == []
        assert memory.asked == []
        memory.set_password("openai", "work", KEY)
        assert create_provider("plain").key == KEY
    finally:
        unregister_kind("plain")


def test_a_provider_with_a_reference_can_be_pickled_and_one_with_a_key_cannot(
    key_file: Path,
) -> None:
    set_provider_config("openai", {"api_key": f"file:{key_file}"})
    copy = pickle.loads(pickle.dumps(create_provider("openai")))
    assert copy.key_origin == f"file:{key_file}"
    set_provider_config("openai", {"api_key": KEY})
    with pytest.raises(ConfigurationError, match="hold a key"):
        pickle.dumps(create_provider("openai"))
