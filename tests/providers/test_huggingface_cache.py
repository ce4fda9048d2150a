"""The cache of local models: what is in it, removing it, fetching into it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import filelock
import pytest

from llm_manager.errors import (
    AuthenticationError,
    ConfigurationError,
    DependencyMissingError,
    InvalidParameterError,
    LLMError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderAPIError,
    ProviderConnectionError,
    ProviderError,
    ProviderOverloadedError,
    RateLimitError,
    UnsupportedFeatureError,
)
from llm_manager.events import ModelLoadProgress
from llm_manager.providers.huggingface._download_process import wanted_files
from llm_manager.providers.huggingface.cache import ModelCache
from llm_manager.providers.huggingface.download import download_error
from llm_manager.testing import Reply, ScriptedPeer

from .fake_hub import COMMIT, FakeHub, etag_of, plant, refuse

TOKEN = "hf_aVerySecretTokenOfSomebody"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": os.urandom(300_000),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(root: Path) -> ModelCache:
    return ModelCache(root, provider_id="local")


@pytest.fixture
async def peer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedPeer]:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    async with ScriptedPeer() as peer:
        yield peer


def downloads_running() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "llm_manager-download"]


# ---- what is there -------------------------------------------------------------------------------


async def test_a_cache_that_does_not_exist_is_empty(cache) -> None:
    assert await cache.list_cached_models() == ()


async def test_each_model_is_listed_with_its_size_and_revisions(cache, root) -> None:
    plant(root, "org/one", FILES)
    folder = plant(root, "gpt2", {"model.safetensors": b"12345"})
    plant(root, "gpt2", {"model.safetensors": b"12345"}, commit="b" * 40)
    gpt2, one = await cache.list_cached_models()
    assert (gpt2.name, one.name) == ("gpt2", "org/one")
    assert gpt2.path == str(folder)
    assert gpt2.to_dict()["path"] == gpt2.path
    assert sorted(gpt2.revisions) == ["a" * 40, "b" * 40]
    # Two revisions of one file take its room once; the rest is the name of a commit.
    assert gpt2.size_bytes == 5 + 40
    assert one.size_bytes == sum(map(len, FILES.values())) + 40
    assert gpt2.complete
    assert one.complete


async def test_the_last_use_is_the_time_of_the_newest_file(cache, root) -> None:
    folder = plant(root, "org/one", FILES)
    for file in [folder, *folder.glob("blobs/*")]:
        os.utime(file, (1_000_000, 1_000_000))
    os.utime(next(folder.glob("blobs/*")), (2_000_000, 1_000_000))
    (model,) = await cache.list_cached_models()
    assert model.last_used.timestamp() == 2_000_000


async def test_what_is_no_model_is_not_listed_and_not_removed(cache, root) -> None:
    plant(root, "org/one", FILES)
    others = ["datasets--org--one", "models--", "models--a--b--c", "models--..", "notes"]
    for name in others:
        (root / name).mkdir()
    (root / "models--a-file").write_text("")
    assert [m.name for m in await cache.list_cached_models()] == ["org/one"]
    await cache.clear_model_cache()
    assert sorted(p.name for p in root.iterdir()) == sorted([*others, "models--a-file"])


@pytest.mark.parametrize(
    "broken",
    [
        lambda folder: (folder / "snapshots" / COMMIT / "model.safetensors").unlink(),
        lambda folder: (folder / "blobs" / etag_of(FILES["model.safetensors"])).unlink(),
        lambda folder: (folder / "snapshots" / COMMIT / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}})
        ),
    ],
    ids=["no weights", "a link to nothing", "a part of the weights is missing"],
)
async def test_a_model_with_something_missing_is_not_complete(cache, root, broken) -> None:
    folder = plant(root, "org/one", FILES)
    assert cache.snapshot("org/one") == folder / "snapshots" / COMMIT
    broken(folder)
    (model,) = await cache.list_cached_models()
    assert not model.complete
    assert cache.snapshot("org/one") is None


def test_a_snapshot_is_found_by_branch_and_by_commit(cache, root) -> None:
    folder = plant(root, "org/one", FILES)
    for revision in (None, "main", COMMIT):
        assert cache.snapshot("org/one", revision) == folder / "snapshots" / COMMIT
    assert cache.snapshot("org/one", "other") is None
    assert cache.snapshot("org/two") is None
    for revision in ("../../x", "/etc", "a/../../b"):
        with pytest.raises(ConfigurationError, match="no revision"):
            cache.snapshot("org/one", revision)


def test_the_usual_folder_follows_the_environment_of_the_moment(monkeypatch, tmp_path) -> None:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert ModelCache().folder == Path.home() / ".cache/huggingface/hub"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert ModelCache().folder == tmp_path / "x/huggingface/hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "h"))
    assert ModelCache().folder == tmp_path / "h/hub"
    monkeypatch.setenv("HF_HUB_CACHE", "~/c")
    assert ModelCache().folder == Path.home() / "c"


# ---- removing ------------------------------------------------------------------------------------


async def test_one_model_is_removed_and_the_others_stay(cache, root) -> None:
    plant(root, "org/one", FILES)
    plant(root, "org/two", FILES)
    cleared = await cache.clear_model_cache("org/one")
    assert cleared.names == ("org/one",)
    assert cleared.freed_bytes == sum(map(len, FILES.values())) + 40
    assert not cleared.dry_run
    assert [m.name for m in await cache.list_cached_models()] == ["org/two"]


async def test_a_dry_run_says_the_same_and_removes_nothing(cache, root) -> None:
    plant(root, "org/one", FILES)
    plant(root, "gpt2", FILES)
    before = sorted(root.rglob("*"))
    planned = await cache.clear_model_cache(dry_run=True)
    assert planned.dry_run
    assert sorted(root.rglob("*")) == before
    done = await cache.clear_model_cache()
    assert (done.names, done.freed_bytes) == (planned.names, planned.freed_bytes)
    assert await cache.list_cached_models() == ()


async def test_an_unknown_model_is_an_error_that_names_similar_ones(cache, root) -> None:
    plant(root, "mistralai/Mistral-7B", FILES)
    with pytest.raises(ModelNotFoundError, match="did you mean 'mistralai/Mistral-7B'"):
        await cache.clear_model_cache("mistralai/Mistral-8B")
    assert len(await cache.list_cached_models()) == 1


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../outside", "/etc", "a/b/c", "a/../b", "a--b", "org/", "/x", "a\\b", "a\0b",
     "C:x", "org/..", "~", 7],
)  # fmt: skip
async def test_a_name_that_leads_elsewhere_is_refused(cache, root, tmp_path, name) -> None:
    plant(root, "org/one", FILES)
    (tmp_path / "outside").mkdir()
    with pytest.raises(ConfigurationError, match="neither a folder nor the name of a model"):
        await cache.clear_model_cache(name)
    with pytest.raises(ConfigurationError):
        await cache.download_model(name)
    assert (tmp_path / "outside").is_dir()
    assert len(await cache.list_cached_models()) == 1


@pytest.mark.parametrize("where", ["model", "blobs", "snapshots", "snapshot", "file", "ref"])
@pytest.mark.parametrize("name", ["org/one", None])
@pytest.mark.parametrize("shared", [False, True], ids=["", "with shared files"])
async def test_what_a_link_leads_to_outside_survives(
    cache, root, tmp_path, where, name, shared
) -> None:
    folder = plant(root, "org/one", FILES)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x" * 1_000_000)
    place = {
        "model": folder,
        "blobs": folder / "blobs",
        "snapshots": folder / "snapshots",
        "snapshot": folder / "snapshots" / ("b" * 40),
        "file": folder / "snapshots" / COMMIT / "precious",
        "ref": folder / "refs" / "precious",
    }[where]
    if place.exists():
        place.rename(tmp_path / "moved")
    place.symlink_to(outside / "precious" if where in ("file", "ref") else outside)
    if shared:
        share(root, "org/three", b"shared")
    cleared = await cache.clear_model_cache(name)
    assert "org/one" in cleared.names
    assert cleared.freed_bytes < 1_000_000
    assert not folder.exists()
    assert not folder.is_symlink()
    assert (outside / "precious").stat().st_size == 1_000_000


def share(root: Path, name: str, content: bytes) -> Path:
    """Put a model into the cache whose weights lie where models share files."""
    folder = plant(root, name, {**FILES, "model.safetensors": content})
    blob = folder / "blobs" / etag_of(content)
    key = etag_of(content)
    payload = root / "blobs" / key[:2] / key
    payload.parent.mkdir(parents=True, exist_ok=True)
    (root / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    blob.rename(payload)
    blob.symlink_to(os.path.relpath(payload, blob.parent))
    with payload.with_name(f"{key}.refs").open("a") as references:
        references.write(f"{blob.relative_to(root).as_posix()}\n")
    return payload


async def test_files_that_models_share_go_with_the_last_of_them(cache, root) -> None:
    # Both have the same commit, as a renamed model and its old name have.
    payload = share(root, "gpt2", b"s" * 1_000)
    assert share(root, "openai/gpt2", b"s" * 1_000) == payload
    for model in await cache.list_cached_models():
        assert model.complete
        assert model.size_bytes > 1_000
    first = await cache.clear_model_cache("gpt2")
    assert first.freed_bytes < 1_000
    assert payload.exists()
    (left,) = await cache.list_cached_models()
    assert (left.name, left.complete) == ("openai/gpt2", True)
    last = await cache.clear_model_cache("openai/gpt2")
    assert last.freed_bytes > 1_000
    assert not payload.exists()


async def test_a_folder_that_cannot_be_a_cache_is_a_clear_error(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    cache = ModelCache(tmp_path / "file")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await cache.list_cached_models()
    with pytest.raises(ConfigurationError, match="unusable"):
        await cache.download_model("org/one")


# ---- fetching ------------------------------------------------------------------------------------


async def test_a_download_tells_its_progress_and_ends_with_a_whole_model(cache, peer, root) -> None:
    hub = FakeHub(peer, "org/tiny", FILES)
    seen: list[ModelLoadProgress] = []
    path = await cache.download_model("org/tiny", endpoint=peer.base_url, callback=seen.append)
    assert {p.name: p.read_bytes() for p in path.iterdir()} == FILES
    assert path == cache.snapshot("org/tiny")
    total = sum(map(len, FILES.values()))
    assert {e.total_bytes for e in seen} == {total}
    done = [e.completed_bytes for e in seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, total)
    assert (seen[0].fraction, seen[-1].fraction) == (0.0, 1.0)
    assert {(e.provider_id, e.model, e.phase) for e in seen} == {
        ("local", "org/tiny", "downloading")
    }
    (model,) = await cache.list_cached_models()
    assert model.complete
    assert sorted(hub.fetched) == sorted(FILES)
    assert not downloads_running()


async def test_progress_is_told_while_the_rest_is_still_on_its_way(cache, peer) -> None:
    rest = asyncio.Event()
    # The library counts pieces of ten megabytes.
    weights = {"model.safetensors": bytes(24_000_000)}
    FakeHub(peer, "org/tiny", weights, gate=rest)
    fractions: list[float | None] = []

    async def note(event: ModelLoadProgress) -> None:
        fractions.append(event.fraction)
        if event.completed_bytes:
            rest.set()

    async with asyncio.timeout(50):
        await cache.download_model("org/tiny", endpoint=peer.base_url, callback=note)
    assert fractions[0] == 0.0
    assert fractions[-1] == 1.0
    assert any(0 < f < 1 for f in fractions if f is not None)


async def test_what_is_there_already_is_not_fetched_again(cache, peer) -> None:
    FakeHub(peer, "org/tiny", {"config.json": FILES["config.json"]})
    await cache.download_model("org/tiny", endpoint=peer.base_url)
    peer.requests.clear()
    hub = FakeHub(peer, "org/tiny", FILES, commit="b" * 40)
    seen: list[ModelLoadProgress] = []
    await cache.download_model("org/tiny", endpoint=peer.base_url, callback=seen.append)
    assert sorted(hub.fetched) == ["model.safetensors", "tokenizer.json"]
    assert seen[-1].total_bytes == len(FILES["model.safetensors"]) + len(FILES["tokenizer.json"])


async def test_only_files_that_match_are_fetched(cache, peer) -> None:
    hub = FakeHub(peer, "org/tiny", FILES)
    path = await cache.download_model("org/tiny", endpoint=peer.base_url, allow_patterns=["*.json"])
    assert sorted(p.name for p in path.iterdir()) == ["config.json", "tokenizer.json"]
    assert "model.safetensors" not in hub.fetched
    (model,) = await cache.list_cached_models()
    assert not model.complete  # without weights it cannot be loaded
    with pytest.raises(InvalidParameterError, match="list of texts"):
        await cache.download_model("org/tiny", allow_patterns="*.json")


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["a.safetensors", "a.bin", "a.bin.index.json"], ["a.safetensors"]),
        (["pytorch_model.bin", "config.json"], ["pytorch_model.bin", "config.json"]),
        (["a.safetensors", "onnx/a.onnx", "tf_model.h5", "a.gguf"], ["a.safetensors"]),
        (["a.safetensors", "original/a.pth", "1_Pooling/config.json"],
         ["a.safetensors", "1_Pooling/config.json"]),
        (["sub/a.safetensors", "pytorch_model.bin"], ["sub/a.safetensors", "pytorch_model.bin"]),
    ],
)  # fmt: skip
def test_only_the_files_that_loading_needs_are_wanted(names, wanted) -> None:
    assert wanted_files(names) == wanted


async def test_weights_alone_do_not_make_a_fetched_model_whole(cache, peer) -> None:
    FakeHub(peer, "org/tiny", FILES)
    await cache.download_model("org/tiny", endpoint=peer.base_url, allow_patterns=["model.*"])
    peer.route(f"/org/tiny/resolve/{COMMIT}/tokenizer.json", Reply(status=403))
    with pytest.raises(AuthenticationError):
        await cache.download_model("org/tiny", endpoint=peer.base_url)
    (model,) = await cache.list_cached_models()
    assert model.size_bytes > len(FILES["model.safetensors"])
    assert not model.complete
    FakeHub(peer, "org/tiny", FILES)
    await cache.download_model("org/tiny", endpoint=peer.base_url)
    (model,) = await cache.list_cached_models()
    assert model.complete


async def test_cancelling_ends_a_download_and_leaves_nothing_that_looks_whole(
    cache, peer, root
) -> None:
    rest, moving = asyncio.Event(), asyncio.Event()
    files = {"config.json": b"{}", "model.safetensors": bytes(24_000_000)}
    hub = FakeHub(peer, "org/tiny", files, gate=rest)

    def note(event: ModelLoadProgress) -> None:
        if event.completed_bytes:
            moving.set()

    task = asyncio.create_task(
        cache.download_model("org/tiny", endpoint=peer.base_url, callback=note)
    )
    async with asyncio.timeout(50):
        await moving.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await peer.wait_for_disconnect()
    assert not downloads_running()
    assert not list(root.rglob("*.incomplete"))
    (model,) = await cache.list_cached_models()
    assert not model.complete
    assert cache.snapshot("org/tiny") is None
    rest.set()
    path = await cache.download_model("org/tiny", endpoint=peer.base_url)
    assert cache.snapshot("org/tiny") == path
    assert hub.fetched.count("model.safetensors") == 2


@pytest.mark.parametrize("silent", ["the Hub", "a file"])
async def test_a_download_can_be_cancelled_while_the_server_is_silent(cache, peer, silent) -> None:
    FakeHub(peer, "org/tiny", FILES)
    path = (
        "/api/models/org/tiny/revision/main"
        if silent == "the Hub"
        else f"/org/tiny/resolve/{COMMIT}/model.safetensors"
    )
    asked = asyncio.Event()

    def hang(request) -> Reply:
        asked.set()
        return Reply(instead="hang")

    peer.route(path, hang)
    task = asyncio.create_task(cache.download_model("org/tiny", endpoint=peer.base_url))
    async with asyncio.timeout(50):
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not downloads_running()
    assert all(not m.complete for m in await cache.list_cached_models())


async def test_a_download_that_is_cancelled_at_once_starts_no_process(cache, peer) -> None:
    task = asyncio.create_task(cache.download_model("org/tiny", endpoint=peer.base_url))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not downloads_running()


async def test_a_callback_that_fails_ends_the_download(cache, peer) -> None:
    FakeHub(peer, "org/tiny", FILES)

    def fail(event: ModelLoadProgress) -> None:
        raise RuntimeError("no room on the screen")

    with pytest.raises(RuntimeError, match="no room on the screen"):
        await cache.download_model("org/tiny", endpoint=peer.base_url, callback=fail)
    assert not downloads_running()


async def test_what_a_crash_left_is_removed_unless_somebody_still_fetches_it(
    cache, peer, root
) -> None:
    FakeHub(peer, "org/tiny", FILES)
    folder = plant(root, "org/tiny", {})
    left, busy = folder / "blobs" / "c0.1234abcd.incomplete", folder / "blobs" / "d0.1.incomplete"
    left.write_bytes(b"left")
    busy.write_bytes(b"busy")
    locks = root / ".locks" / "models--org--tiny"
    locks.mkdir(parents=True)
    with filelock.FileLock(locks / "d0.lock"):
        await cache.download_model("org/tiny", endpoint=peer.base_url)
    assert not left.exists()
    assert busy.exists()


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "kind", "code"),
    [
        (404, {"x_error_code": "RepoNotFound"}, ModelNotFoundError, "model_not_found"),
        (401, {}, AuthenticationError, "auth_invalid"),
        (404, {"x_error_code": "RevisionNotFound"}, ModelNotFoundError, "model_not_found"),
        (403, {"x_error_code": "GatedRepo"}, AuthenticationError, "auth_invalid"),
        (401, {"x_error_message": "Invalid credentials in Authorization header"},
         AuthenticationError, "auth_invalid"),
        (403, {"x_error_message": f"{TOKEN} may not read this"}, AuthenticationError,
         "auth_invalid"),
        (403, {"x_error_message": "Access to this resource is disabled."}, PermissionDeniedError,
         "forbidden"),
        (429, {"retry_after": "7"}, RateLimitError, "rate_limited"),
        (503, {}, ProviderOverloadedError, "overloaded"),
        (500, {}, ProviderAPIError, "api_error"),
    ],
)  # fmt: skip
async def test_a_refusal_of_the_hub_is_one_of_our_errors(
    cache, peer, status, headers, kind, code
) -> None:
    refuse(peer, "org/tiny", status, **headers)
    with pytest.raises(LLMError) as caught:
        await cache.download_model("org/tiny", endpoint=peer.base_url, token=TOKEN)
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.http_status) == (code, status)
    assert error.original.startswith("huggingface_hub.errors.")
    assert error.retry_after_s == (7.0 if status == 429 else None)
    assert TOKEN not in f"{error!s} {error!r} {vars(error)}"
    assert error.__context__ is None
    assert await cache.list_cached_models() == ()


async def test_the_token_is_sent_to_the_hub_and_to_nobody_else(cache, peer, caplog) -> None:
    FakeHub(peer, "org/tiny", FILES)
    await cache.download_model("org/tiny", endpoint=peer.base_url, token=TOKEN)
    assert {r.headers.get("authorization") for r in peer.requests} == {f"Bearer {TOKEN}"}
    assert TOKEN not in caplog.text


async def test_a_gated_model_is_refused_at_its_files(cache, peer) -> None:
    """Everybody may see the list of a gated model's files, not the files."""
    FakeHub(peer, "org/tiny", FILES)
    for file in FILES:
        gated = Reply(status=403, headers={"x-error-code": "GatedRepo"})
        peer.route(f"/org/tiny/resolve/{COMMIT}/{file}", gated)
    with pytest.raises(AuthenticationError, match="gated") as caught:
        await cache.download_model("org/tiny", endpoint=peer.base_url)
    assert caught.value.code == "auth_missing"
    assert "https://huggingface.co/org/tiny" in caught.value.hint
    assert all(not m.complete for m in await cache.list_cached_models())


async def test_no_connection_is_a_connection_error(cache, peer) -> None:
    url = peer.base_url
    await peer.stop()
    with pytest.raises(ProviderConnectionError, match="cannot be reached") as caught:
        await cache.download_model("org/tiny", endpoint=url)
    assert caught.value.retryable


async def test_offline_mode_is_named(cache, peer, monkeypatch) -> None:
    FakeHub(peer, "org/tiny", FILES)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ProviderConnectionError, match="unset HF_HUB_OFFLINE") as caught:
        await cache.download_model("org/tiny", endpoint=peer.base_url)
    assert not caught.value.retryable
    assert peer.requests == []


async def test_a_model_that_is_larger_than_the_disk_is_not_begun(cache, peer) -> None:
    hub = FakeHub(peer, "org/huge", FILES)
    entry = {"type": "file", "path": "model.safetensors", "size": 2**60, "oid": "0" * 40}
    peer.route(f"/api/models/org/huge/tree/{COMMIT}", Reply.json([entry]))
    with pytest.raises(ConfigurationError, match="the disk is too full for 'org/huge'"):
        await cache.download_model("org/huge", endpoint=peer.base_url)
    assert hub.fetched == []


@pytest.mark.parametrize(
    ("bases", "text", "kind"),
    [
        (["ModuleNotFoundError", "ImportError"], "No module named 'x'", DependencyMissingError),
        (["OSError"], "[Errno 28] No space left on device", ConfigurationError),
        (["PermissionError", "OSError"], "[Errno 13] Permission denied", ConfigurationError),
        (["XetDownloadError"], "broken", ProviderConnectionError),
        (["ReadTimeout", "TransportError"], "", ProviderConnectionError),
        (["KeyError"], "'x'", ProviderError),
    ],
)
def test_failures_without_an_answer_have_their_class(bases, text, kind) -> None:
    report = {"error": f"some.{bases[0]}", "text": text, "bases": bases}
    assert type(download_error(report, "org/tiny", None)) is kind


async def test_a_frozen_program_does_not_start_itself_again(cache, monkeypatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(UnsupportedFeatureError, match="hf download org/tiny"):
        await cache.download_model("org/tiny")


async def test_bad_settings_are_refused_before_anything_is_sent(cache) -> None:
    with pytest.raises(ConfigurationError, match="http://"):
        await cache.download_model("org/tiny", endpoint="hub.example")
    with pytest.raises(AuthenticationError, match="line break"):
        await cache.download_model("org/tiny", token="hf_a\nb")
