"""What a model's files say about it, read without torch, for the app and for the worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...messages import Capability, LLMModelInfo

_WINDOW_FIELDS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx",
)  # fmt: skip
_GENERATIVE = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def read_config(folder: Path) -> dict[str, Any]:
    """The model's ``config.json``; empty if there is none that can be read."""
    return json_object(folder / "config.json")


def context_window_tokens(config: dict[str, Any]) -> int | None:
    """How many tokens prompt and answer may have together, or None if the model does not say."""
    nested = config.get("text_config")
    for place in (config, nested if isinstance(nested, dict) else {}):
        for field in _WINDOW_FIELDS:
            value = place.get(field)
            if isinstance(value, int) and value > 0:
                return value
    return None


def is_generative(config: dict[str, Any]) -> bool:
    """Whether it writes texts; others only read them, for embeddings."""
    names = config.get("architectures") or []
    return not names or any(str(name).endswith(_GENERATIVE) for name in names)


def described(model: LLMModelInfo, folder: Path) -> LLMModelInfo:
    """``model`` with what its files say.  Blocks."""
    config = read_config(folder)
    return LLMModelInfo.known(
        "endpoint",
        id=model.id,
        name=model.name,
        provider_id=model.provider_id,
        size_bytes=model.size_bytes or _weights_bytes(folder),
        loaded=model.loaded,
        context_window_tokens=context_window_tokens(config),
        capabilities=_capabilities(config, folder),
        input_modalities=frozenset({"text"}),
        quantization=_quantization(config),
    )


def _capabilities(config: dict[str, Any], folder: Path) -> frozenset[Capability]:
    able: set[Capability] = {"embeddings"}
    if not is_generative(config):
        return frozenset(able)
    able.add("completion")
    template = _template(folder)
    if template:
        able.add("chat")
        if "tools" in template:
            able.add("tools")
        if "enable_thinking" in template or "<think>" in template:
            able.add("reasoning")
    return frozenset(able)


def _template(folder: Path) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8", errors="replace")
    template = json_object(folder / "tokenizer_config.json").get("chat_template", "")
    return template if isinstance(template, str) else json.dumps(template)


def _quantization(config: dict[str, Any]) -> str | None:
    settings = config.get("quantization_config")
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    return method if isinstance(method, str) else None


def _weights_bytes(folder: Path) -> int | None:
    sizes = [f.stat().st_size for f in folder.glob("*.safetensors")]
    return sum(sizes) or None


def json_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
