"""Whether a cached model is whole, found out without the network.

An ended download leaves a folder that looks like a model: links to the files that had arrived.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._download_process import manifest_file

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".onnx", ".h5", ".msgpack", ".ckpt")


def is_complete(folder: Path, commit: str) -> bool:
    """Whether ``commit`` of the model in the cache folder ``folder`` can be loaded.

    It has weights, every part that an index names, and every file that our own download was to
    fetch.
    """
    snapshot = folder / "snapshots" / commit
    asked_for = _json(manifest_file(folder, commit))
    if isinstance(asked_for, list) and not all((snapshot / str(n)).exists() for n in asked_for):
        return False
    files = [file for file in snapshot.rglob("*") if file.is_file()]
    parts = [part for file in files if file.name.endswith(".index.json") for part in _parts(file)]
    return any(f.suffix in _WEIGHTS for f in files) and all(part.is_file() for part in parts)


def _parts(index: Path) -> Iterator[Path]:
    content = _json(index)
    weights = content.get("weight_map") if isinstance(content, dict) else None
    if isinstance(weights, dict):
        yield from (index.parent / name for name in set(map(str, weights.values())))


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
