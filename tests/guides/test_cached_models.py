"""Cached models: list what is on the disk, remove one, remove them all, use another folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from llm_manager import HuggingFaceProvider, ModelNotFoundError, create_llm, run_sync
from llm_manager.providers.huggingface.cache import ModelCache

from ..providers.fake_hub import plant

FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"x" * 1000}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("google/gemma-7b", "org/other"):
        plant(tmp_path, name, FILES)
    return tmp_path


async def test_all_cached_models_are_listed(folder: Path) -> None:
    models = await ModelCache(folder).list_cached_models()
    for model in models:
        line = f"{model.name} - {model.size_bytes} - Last used: {model.last_used}"
        assert line.startswith(("google/gemma-7b", "org/other"))
        assert model.size_bytes >= 1000
        assert model.last_used <= datetime.now(UTC)
    assert [model.name for model in models] == ["google/gemma-7b", "org/other"]


async def test_a_specific_model_is_cleared(folder: Path) -> None:
    cache = ModelCache(folder)
    cleared = await cache.clear_model_cache("google/gemma-7b")
    assert cleared.names == ("google/gemma-7b",)
    assert [model.name for model in await cache.list_cached_models()] == ["org/other"]
    with pytest.raises(ModelNotFoundError):
        await cache.clear_model_cache("google/gemma-7b")


async def test_the_entire_cache_is_cleared(folder: Path) -> None:
    cache = ModelCache(folder)
    assert len((await cache.clear_model_cache(dry_run=True)).names) == 2
    await cache.clear_model_cache()
    assert await cache.list_cached_models() == ()


def test_a_custom_cache_folder_belongs_to_the_provider(folder: Path) -> None:
    with create_llm("huggingface", model="google/gemma-7b", cache_folder=folder) as llm:
        assert isinstance(llm.provider, HuggingFaceProvider)
        assert len(run_sync(llm.provider.list_cached_models())) == 2
        run_sync(llm.provider.clear_model_cache("org/other"))
        assert len(run_sync(llm.provider.list_cached_models())) == 1
