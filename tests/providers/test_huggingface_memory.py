"""Whether a model fits: what it needs, what there is, and what is said if it is too much."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from llm_manager.errors import ConfigurationError
from llm_manager.providers.huggingface.available import available_memory_bytes
from llm_manager.providers.huggingface.memory import (
    GIB,
    RUNTIME_BYTES,
    MemoryNeed,
    check_fits,
    memory_need,
)
from llm_manager.providers.huggingface.settings import load_settings

SIZES = {"F32": 4, "BF16": 2, "F16": 2, "I8": 1, "U8": 1}


def write_header(file: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """A file of weights without the weights: only its header is read."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, numbers = end, 1
        for size in shape:
            numbers *= size
        end = begin + numbers * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text)


def model(folder: Path, stored: str = "F32", **config: Any) -> Path:
    """A model of `WEIGHTS` numbers, `MATRICES` of them where quantizing shrinks it."""
    write_header(
        folder / "model.safetensors",
        {
            "model.embed_tokens.weight": (stored, [4000, 500]),
            "model.layers.0.mlp.up.weight": (stored, [10_000, 1000]),
            "lm_head.weight": (stored, [4000, 499]),
            "model.norm.weight": (stored, [2000]),
        },
    )
    (folder / "config.json").write_text(json.dumps(config))
    return folder


MATRICES = 10_000 * 1000
WEIGHTS = MATRICES + 4000 * 500 + 4000 * 499 + 2000


@pytest.mark.parametrize(
    ("stored", "given", "needed"),
    [
        ("F32", {}, WEIGHTS * 4),
        ("BF16", {}, WEIGHTS * 2),
        ("BF16", {"dtype": "float32"}, WEIGHTS * 4),
        ("F32", {"dtype": "fp16"}, WEIGHTS * 2),
        ("BF16", {"quantization": "8bit"}, (WEIGHTS - MATRICES) * 2 + MATRICES),
        ("BF16", {"quantization": "4bit"}, (WEIGHTS - MATRICES) * 2 + int(MATRICES * 0.55)),
        ("BF16", {"quantization": {"config": "HqqConfig", "nbits": 4}},
         (WEIGHTS - MATRICES) * 2 + int(MATRICES * 0.55)),
        ("U8", {"dtype": "float32"}, WEIGHTS),
    ],
)  # fmt: skip
def test_the_weights_are_counted_in_the_format_they_will_have(
    tmp_path, stored, given, needed
) -> None:
    need = memory_need(model(tmp_path, stored), load_settings("m", given))
    assert need is not None
    assert need.weights_bytes == needed


def test_a_model_that_is_quantized_already_is_counted_as_it_is(tmp_path) -> None:
    folder = model(tmp_path, "BF16", quantization_config={"quant_method": "gptq"})
    need = memory_need(folder, load_settings("m", {"dtype": "float32"}))
    assert need is not None
    assert need.weights_bytes == WEIGHTS * 2


def test_all_parts_of_a_model_are_counted_and_nothing_else(tmp_path) -> None:
    parts = {}
    for number in (1, 2):
        name = f"model-{number}-of-2.safetensors"
        write_header(tmp_path / name, {f"layer.{number}": ("F32", [1000, 1000])})
        parts[f"layer.{number}"] = name
    write_header(tmp_path / "adapter.safetensors", {"other": ("F32", [9000, 9000])})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": parts}))
    need = memory_need(tmp_path, load_settings("m"))
    assert need is not None
    assert need.weights_bytes == 8_000_000


def test_the_older_format_is_counted_by_the_size_of_its_files(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"torch_dtype": "float16"}')
    for number in (1, 2):
        (tmp_path / f"pytorch_model-{number}.bin").write_bytes(bytes(1_000_000))
    sizes = {
        dtype: memory_need(tmp_path, load_settings("m", {"dtype": dtype})) for dtype in
        ("auto", "float32")
    }  # fmt: skip
    assert {d: n and n.weights_bytes for d, n in sizes.items()} == {
        "auto": 2_000_000, "float32": 4_000_000,
    }  # fmt: skip


def test_the_conversation_needs_room_for_every_layer(tmp_path) -> None:
    config = {
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "hidden_size": 4096, "max_position_embeddings": 131_072, "dtype": "bfloat16",
    }  # fmt: skip
    folder = model(tmp_path, "BF16", **config)
    need = memory_need(folder, load_settings("m"))
    assert need is not None
    # Keys and values of 4,096 tokens: 2 x 32 layers x 8 x 128 numbers of 2 bytes.
    assert need.context_bytes == GIB // 2
    # Models that see have the same facts one level deeper; a small window needs less.
    folder = model(tmp_path, "BF16", text_config={**config, "max_position_embeddings": 1024})
    inner = memory_need(folder, load_settings("m", {"dtype": "bfloat16"}))
    assert inner is not None
    assert inner.context_bytes == GIB // 8


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 4, b"\xff" * 16, struct.pack("<Q", 5) + b"{bad}", struct.pack("<Q", 2) + b"[]",
     struct.pack("<Q", 8) + b'{"a": 1}', struct.pack("<Q", 100) + b"{}",
     struct.pack("<Q", 11) + b'{"a": {"b": 1}}'],
)  # fmt: skip
def test_what_cannot_be_read_is_not_checked(tmp_path, content) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert memory_need(tmp_path, load_settings("m")) is None
    assert check_fits(tmp_path, load_settings("m"), ram_free_bytes=1) is None


@pytest.mark.parametrize("part", ["missing.safetensors", "../../outside.safetensors"])
def test_an_index_cannot_lead_out_of_the_folder(tmp_path, part) -> None:
    (tmp_path / "outside.safetensors").write_bytes(b"")
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": part}}))
    assert memory_need(folder, load_settings("m")) is None


# ---- what there is -------------------------------------------------------------------------------

NEED = MemoryNeed(weights_bytes=WEIGHTS * 4, context_bytes=WEIGHTS * 4 // 10)


def test_a_model_that_fits_is_let_through(tmp_path) -> None:
    folder = model(tmp_path)
    assert check_fits(folder, load_settings("m"), ram_free_bytes=NEED.total_bytes) == NEED


def test_a_model_that_does_not_fit_is_refused_with_what_is_needed_and_what_helps(tmp_path) -> None:
    folder = model(tmp_path)
    free = RUNTIME_BYTES + WEIGHTS * 3
    with pytest.raises(ConfigurationError) as caught:
        check_fits(folder, load_settings("org/m"), ram_free_bytes=free)
    error = caught.value
    assert error.code == "insufficient_memory"
    assert not error.retryable
    text = str(error)
    assert "'org/m' needs 0.4 GiB of main memory" in text
    assert "GiB are free" in text
    assert "dtype='bfloat16'" in text
    assert "quantization='8bit'" in text
    assert "check_memory=False" in text


def test_advice_that_would_not_help_is_not_given(tmp_path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_fits(model(tmp_path), load_settings("m"), ram_free_bytes=1_000_000)
    assert "quantization" not in caught.value.hint
    assert "smaller model" in caught.value.hint


def test_the_check_can_be_switched_off(tmp_path) -> None:
    settings = load_settings("m", {"check_memory": False})
    assert check_fits(model(tmp_path), settings, ram_free_bytes=1) is None


def test_on_a_gpu_the_memory_of_the_gpu_counts(tmp_path) -> None:
    folder, settings = model(tmp_path), load_settings("m")
    enough = NEED.total_bytes - RUNTIME_BYTES
    fits = check_fits(folder, settings, device="cuda:0", gpu_free_bytes=enough, ram_free_bytes=1)
    assert fits == MemoryNeed(
        weights_bytes=NEED.weights_bytes, context_bytes=NEED.context_bytes, runtime_bytes=0
    )
    with pytest.raises(ConfigurationError, match="memory of cuda:0"):
        check_fits(folder, settings, device="cuda:0", gpu_free_bytes=enough - 1)
    # Nobody could say how much the GPU has.
    assert check_fits(folder, settings, device="cuda:0") == fits


def test_a_model_that_may_be_spread_has_the_memory_of_both(tmp_path) -> None:
    folder, settings = model(tmp_path), load_settings("m", {"device": "auto"})
    half = NEED.total_bytes // 2 + 1
    assert check_fits(folder, settings, device="auto", ram_free_bytes=half, gpu_free_bytes=half)
    with pytest.raises(ConfigurationError, match="main and GPU"):
        check_fits(folder, settings, device="auto", ram_free_bytes=half, gpu_free_bytes=1)


# ---- asking the system ---------------------------------------------------------------------------


def system(root: Path, **files: str) -> Path:
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


MEMINFO = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\n"


def test_this_machine_tells_its_free_memory() -> None:
    available = available_memory_bytes()
    assert available is not None
    assert 0 < available < 2**50


def test_memory_that_the_system_can_give_back_counts_as_free(tmp_path) -> None:
    assert available_memory_bytes(system(tmp_path, proc__meminfo=MEMINFO)) == 8_000 * 1024


def test_without_proc_another_way_is_found(tmp_path) -> None:
    assert available_memory_bytes(tmp_path) is not None


@pytest.mark.parametrize(
    ("limit", "used", "cache", "available"),
    [
        ("5000000", "2000000", 500_000, 3_500_000),
        ("max", "2000000", 0, 8_192_000),
        ("100", "200", 0, 0),
        ("999999999999", "0", 0, 8_192_000),
    ],
)
def test_inside_a_container_its_limit_counts(tmp_path, limit, used, cache, available) -> None:
    root = system(
        tmp_path,
        proc__meminfo=MEMINFO,
        sys__fs__cgroup__memory_dot_max=limit + "\n",
        sys__fs__cgroup__memory_dot_current=used + "\n",
        sys__fs__cgroup__memory_dot_stat=f"anon 1\ninactive_file {cache}\n",
    )
    assert available_memory_bytes(root) == available


def test_the_limit_of_our_own_control_group_counts_in_both_versions(tmp_path) -> None:
    own = "user__job"
    root = system(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="4:cpu,memory:/user/job\n0::/user/job\n",
        **{
            f"sys__fs__cgroup__memory__{own}__memory_dot_limit_in_bytes": "3000000",
            f"sys__fs__cgroup__memory__{own}__memory_dot_usage_in_bytes": "1000000",
            f"sys__fs__cgroup__memory__{own}__memory_dot_stat": "total_inactive_file 5",
            "sys__fs__cgroup__memory__memory_dot_limit_in_bytes": str(2**63 - 4096),
            "sys__fs__cgroup__memory__memory_dot_usage_in_bytes": "7",
            "sys__fs__cgroup__memory__memory_dot_stat": "total_inactive_file 5",
        },
    )
    assert available_memory_bytes(root) == 2_000_005
    system(
        root,
        sys__fs__cgroup__user__memory_dot_max="1500000",
        sys__fs__cgroup__user__memory_dot_current="500000",
        sys__fs__cgroup__user__memory_dot_stat="inactive_file 0",
    )
    assert available_memory_bytes(root) == 1_000_000
