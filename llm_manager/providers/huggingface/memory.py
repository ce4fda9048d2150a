"""Whether a model fits into memory, found out before anything is loaded.

A model that does not fit does not fail politely: the system starts to swap, or ends a process that
it chooses itself.  The sizes are read from the headers of the weight files, which takes
milliseconds; neither torch nor transformers is imported.

What it must not do: refuse on a guess.  What cannot be found out is not checked.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import ConfigurationError
from ...messages import Data
from .available import available_memory_bytes
from .facts import json_object
from .settings import DTYPES, LoadSettings

GIB = 1024**3

RUNTIME_BYTES = 400 * 1024**2
"""What Python, torch and transformers take in the worker before there is a model."""

CONTEXT_TOKENS = 4096
"""Room is kept for a conversation of so many tokens, or of the model's window if it is smaller."""

_BYTES_OF = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
_STORED = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
# Of what is quantized: bytes per weight, scales included; bitsandbytes' own documentation.
_QUANTIZED = {"8bit": 1.0, "4bit": 0.55}
_HEADER_LIMIT_BYTES = 100 * 1024**2


class MemoryNeed(Data, frozen=True, kw_only=True):
    """How much memory a model needs.

    Attributes:
        weights_bytes: its weights, in the format in which they will be.
        context_bytes: what reading and answering needs beside them.
        runtime_bytes: what the libraries take; 0 if the model is not in main memory.
    """

    weights_bytes: int
    context_bytes: int
    runtime_bytes: int = RUNTIME_BYTES

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.context_bytes + self.runtime_bytes


def check_fits(
    folder: Path,
    settings: LoadSettings,
    *,
    device: str = "cpu",
    gpu_free_bytes: int | None = None,
    ram_free_bytes: int | None = None,
) -> MemoryNeed | None:
    """Refuse a model that does not fit; returns what it needs, or None if that is unknown.

    It reads files: call it in a thread, or in the worker.

    Args:
        folder: where the model's files are.
        settings: how it will be loaded.
        device: where it will be, e.g. ``"cpu"``, ``"cuda:0"``; ``"auto"``: wherever there is room.
        gpu_free_bytes: free memory of the GPU (or of all of them, for ``"auto"``).
        ram_free_bytes: free main memory; None: it is asked for here.

    Raises:
        ConfigurationError: with the code ``insufficient_memory``; the text says how much is needed
            and how much there is.
    """
    if not settings.check_memory:
        return None
    need = memory_need(folder, settings, device=device)
    if ram_free_bytes is None:
        ram_free_bytes = available_memory_bytes()
    place, free_bytes = _free(device, ram_free_bytes, gpu_free_bytes)
    if need is None or free_bytes is None or need.total_bytes <= free_bytes:
        return need
    raise ConfigurationError(
        f"{settings.model!r} needs {_gib(need.total_bytes)} of {place} "
        f"(weights {_gib(need.weights_bytes)}, context {_gib(need.context_bytes)}), "
        f"and {_gib(free_bytes)} are free",
        code="insufficient_memory",
        hint=_advice(folder, settings, device, free_bytes),
    )


def memory_need(folder: Path, settings: LoadSettings, *, device: str = "cpu") -> MemoryNeed | None:
    """What the model in ``folder`` will need, or None if its files do not tell."""
    config = json_object(folder / "config.json")
    weights_bytes = _weights_bytes(folder, settings, config)
    if weights_bytes is None:
        return None
    return MemoryNeed(
        weights_bytes=weights_bytes,
        context_bytes=_context_bytes(config, settings, weights_bytes),
        runtime_bytes=0 if _on_gpu(device) else RUNTIME_BYTES,
    )


# ---- weights -------------------------------------------------------------------------------------


def _weights_bytes(folder: Path, settings: LoadSettings, config: Mapping[str, Any]) -> int | None:
    # An already quantized model is loaded as it is stored.
    stored_as_is = "quantization_config" in config
    files = _safetensors_files(folder)
    if not files:
        return _pickled_bytes(folder, settings, config)
    total = 0
    for file in files:
        header = _header(file)
        if header is None:
            return None
        for name, tensor in header.items():
            total += _tensor_bytes(name, tensor, None if stored_as_is else settings)
    return total


def _tensor_bytes(name: str, tensor: Mapping[str, Any], settings: LoadSettings | None) -> int:
    begin, end = tensor["data_offsets"]
    stored_bytes: int = end - begin
    size = _STORED.get(tensor["dtype"])
    if settings is None or size is None:
        return stored_bytes
    numbers = stored_bytes // size
    per_number = _quantized_size(settings.quantization)
    if per_number is not None and _is_linear(name, tensor["shape"]):
        return int(numbers * per_number)
    return numbers * _BYTES_OF.get(DTYPES[settings.dtype], size)


def _is_linear(name: str, shape: list[int]) -> bool:
    """Whether quantizing shrinks it: matrices, except those that map words to vectors and back."""
    return len(shape) == 2 and "embed" not in name and not name.startswith("lm_head")


def _quantized_size(quantization: str | Mapping[str, Any] | None) -> float | None:
    """Bytes per weight, or None without quantization; of what we do not know, that of 8 bits."""
    if quantization is None:
        return None
    if isinstance(quantization, str):
        return _QUANTIZED[quantization]
    bits = next((quantization[name] for name in ("bits", "nbits") if name in quantization), None)
    four = bits == 4 or quantization.get("load_in_4bit") is True
    return _QUANTIZED["4bit" if four else "8bit"]


def _safetensors_files(folder: Path) -> list[Path]:
    """The files that will be read: those of the index if there is one, else the one file."""
    weights = json_object(folder / "model.safetensors.index.json").get("weight_map")
    if isinstance(weights, dict):
        # A name of the index may not lead out of the folder.
        files = [folder / Path(name).name for name in sorted(set(map(str, weights.values())))]
        return files if all(file.is_file() for file in files) else []
    single = folder / "model.safetensors"
    return [single] if single.is_file() else []


def _header(file: Path) -> dict[str, dict[str, Any]] | None:
    """The table of contents of a safetensors file: an 8-byte length, then JSON."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(_HEADER_LIMIT_BYTES, file.stat().st_size):
                return None
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for tensor in header.values():
            _begin, _end = tensor["data_offsets"]
            _ = tensor["dtype"], len(tensor["shape"])
    except (OSError, ValueError, struct.error, AttributeError, KeyError, TypeError):
        return None
    return dict(header)


def _pickled_bytes(folder: Path, settings: LoadSettings, config: Mapping[str, Any]) -> int | None:
    """Of a model in the older format: the size of its files, scaled to the wanted numbers."""
    files = sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        return None
    size = _BYTES_OF.get(_stored_dtype(config), 4)
    numbers = sum(file.stat().st_size for file in files) // size
    per_number = _quantized_size(settings.quantization)
    return int(numbers * (per_number or _BYTES_OF.get(DTYPES[settings.dtype], size)))


# ---- the context ---------------------------------------------------------------------------------


def _context_bytes(config: Mapping[str, Any], settings: LoadSettings, weights_bytes: int) -> int:
    """Keys and values of every layer for each token; a tenth of the weights where unknown."""
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    try:
        heads = int(text["num_attention_heads"])
        head_size = int(text.get("head_dim") or int(text["hidden_size"]) // heads)
        layers, groups = int(text["num_hidden_layers"]), int(text.get("num_key_value_heads", heads))
        window = int(text.get("max_position_embeddings", CONTEXT_TOKENS))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return weights_bytes // 10
    size = _BYTES_OF.get(DTYPES[settings.dtype]) or _BYTES_OF.get(_stored_dtype(config), 4)
    return 2 * layers * groups * head_size * size * min(window, CONTEXT_TOKENS)


def _stored_dtype(config: Mapping[str, Any]) -> str:
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


# ---- what there is, and what to do ---------------------------------------------------------------


def _on_gpu(device: str) -> bool:
    # Apple's GPU shares the main memory.
    return device.partition(":")[0] not in ("cpu", "mps", "auto")


def _free(
    device: str, ram_free_bytes: int | None, gpu_free_bytes: int | None
) -> tuple[str, int | None]:
    if _on_gpu(device):
        return f"memory of {device}", gpu_free_bytes
    if device == "auto" and gpu_free_bytes is not None and ram_free_bytes is not None:
        return "memory (main and GPU)", ram_free_bytes + gpu_free_bytes
    return "main memory", ram_free_bytes


def _advice(folder: Path, settings: LoadSettings, device: str, free_bytes: int) -> str:
    """The ways out, those that would not help left out."""
    ways = [
        f"{what} (needs {_gib(need.total_bytes)})"
        for what, other in _alternatives(settings)
        if (need := memory_need(folder, other, device=device)) and need.total_bytes <= free_bytes
    ]
    ways += ["choose a smaller model", "close other programs", "pass check_memory=False to try it"]
    return ", or ".join(ways)


def _alternatives(settings: LoadSettings) -> Iterator[tuple[str, LoadSettings]]:
    plain = {name: getattr(settings, name) for name in settings.__struct_fields__}
    if _BYTES_OF.get(DTYPES[settings.dtype], 4) == 4 and settings.quantization is None:
        yield "load it with dtype='bfloat16'", LoadSettings(**{**plain, "dtype": "bfloat16"})
    for kind in ("8bit", "4bit"):
        if settings.quantization in (None, "8bit") and settings.quantization != kind:
            yield f"quantization={kind!r}", LoadSettings(**{**plain, "quantization": kind})


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB"
