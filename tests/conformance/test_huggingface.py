"""Local models do what providers promise, in the real worker with a tiny model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from llm_manager import HuggingFaceProvider
from llm_manager.testing import InProcessConformance

from ..tiny_model import build_tiny_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")),
        reason="PyTorch and transformers are not installed",
    ),
]


class TestHuggingFace(InProcessConformance):
    """Each check starts a worker of its own, which takes a second or two."""

    limit_s = 120.0

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _tiny(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.model = str(build_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))

    @pytest.fixture(autouse=True)
    def _cache(self, tmp_path: Path) -> None:
        self.cache = tmp_path

    def make_provider(self, **settings: Any) -> HuggingFaceProvider:
        given = settings.pop("default_options", {})
        return HuggingFaceProvider(
            default_model=self.model,
            cache_folder=self.cache,
            threads=1,
            default_options={**given, "max_tokens": 24, "temperature": 0},
            **settings,
        )

    def make_broken_provider(self, **settings: Any) -> HuggingFaceProvider:
        return self.make_provider(worker_command=["no-such-program"], **settings)
