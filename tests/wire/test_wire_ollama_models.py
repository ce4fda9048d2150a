"""What an Ollama server tells about itself, its models and a download."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_manager.errors import (
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    StreamInterruptedError,
)
from llm_manager.messages import LLMModelInfo
from llm_manager.wire.ollama_models import (
    PullDecoder,
    PullProgress,
    apply_loaded,
    apply_show,
    decode_tags,
    decode_version,
)

from .wire_reading import bytewise, read

TAGS = {
    "models": [
        {"name": "llama3.2:1b", "model": "llama3.2:1b", "size": 1_300_000_000, "digest": "x",
         "details": {"family": "llama", "parameter_size": "1.2B", "quantization_level": "Q8_0"}},
        {"name": "seeing:latest", "size": 5, "details": {}, "capabilities":
            ["completion", "vision", "tools", "thinking"]},
    ]
}  # fmt: skip
SHOW = {
    "details": {"parameter_size": "1.2B", "quantization_level": "Q8_0"},
    "model_info": {"general.architecture": "llama", "llama.context_length": 131072,
                   "llama.attention.head_count": 32},
    "capabilities": ["completion", "tools", "insert", "audio"],
}  # fmt: skip


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


def test_the_list_of_models() -> None:
    plain, seeing = decode_tags(encoded(TAGS), "here")
    assert (plain.id, plain.name, plain.provider_id) == ("llama3.2:1b", "llama3.2:1b", "here")
    assert (plain.size_bytes, plain.parameters, plain.quantization) == (
        1_300_000_000,
        "1.2B",
        "Q8_0",
    )
    assert plain.capabilities is None
    assert plain.source_of("size_bytes") == "endpoint"
    assert seeing.capabilities == {
        "chat", "completion", "json_object", "json_schema", "vision", "tools", "reasoning",
    }  # fmt: skip
    assert seeing.input_modalities == {"text", "image"}
    assert (seeing.parameters, seeing.quantization) == (None, None)


@pytest.mark.parametrize("models", [[], None, [None, {}, {"name": ""}, {"name": 7}]])
def test_a_server_without_models(models: Any) -> None:
    assert decode_tags(encoded({"models": models}), "here") == []


def test_a_description_adds_window_and_abilities() -> None:
    model = apply_show(LLMModelInfo.known("endpoint", id="m", size_bytes=5), encoded(SHOW))
    assert model.context_window_tokens == 131072
    assert model.capabilities == {
        "chat", "completion", "json_object", "json_schema", "tools", "fim", "audio",
    }  # fmt: skip
    assert model.input_modalities == {"text", "audio"}
    assert (model.parameters, model.quantization, model.size_bytes) == ("1.2B", "Q8_0", 5)
    for field in ("context_window_tokens", "capabilities", "size_bytes"):
        assert model.source_of(field) == "endpoint"


def test_an_embedding_model_does_not_chat() -> None:
    show = {**SHOW, "capabilities": ["embedding"]}
    assert apply_show(LLMModelInfo(id="m"), encoded(show)).capabilities == {"embeddings"}


@pytest.mark.parametrize("show", [{}, {"model_info": None}, {"model_info": {"a": 1}, "details": 3}])
def test_a_description_that_says_nothing_changes_nothing(show: Any) -> None:
    model = LLMModelInfo.known("endpoint", id="m", parameters="1B")
    assert apply_show(model, encoded(show)) == model


def test_what_is_in_memory_and_with_which_window() -> None:
    models = [LLMModelInfo(id="a"), LLMModelInfo(id="b")]
    running = {"models": [{"name": "a", "size_vram": 5, "context_length": 4096}]}
    a, b = apply_loaded(models, encoded(running))
    assert (a.loaded, a.context_window_tokens) == (True, 4096)
    assert (b.loaded, b.context_window_tokens) == (False, None)
    assert a.source_of("loaded") == b.source_of("loaded") == "endpoint"
    assert apply_show(a, encoded(SHOW)).context_window_tokens == 4096
    assert apply_show(b, encoded(SHOW)).context_window_tokens == 131072
    (a, _) = apply_loaded(models, encoded({"models": [{"model": "a"}]}))
    assert (a.loaded, a.context_window_tokens) == (True, None)
    assert apply_show(a, encoded(SHOW)).context_window_tokens == 131072
    assert not any(m.loaded for m in apply_loaded(models, encoded({"models": None})))


def test_the_version() -> None:
    assert decode_version(b'{"version":"0.33.0"}') == "0.33.0"


@pytest.mark.parametrize(
    "reading",
    [
        lambda data: decode_tags(data, "here"),
        lambda data: apply_show(LLMModelInfo(id="m"), data),
        lambda data: apply_loaded([LLMModelInfo(id="m")], data),
        decode_version,
    ],
)
@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", InvalidResponseError),
        (b"Ollama is running", InvalidResponseError),
        (b"<html><title>Login</title>", InvalidResponseError),
        (b"[]", InvalidResponseError),
        (b"7", InvalidResponseError),
        (b"{", InvalidResponseError),
        (b'{"error":"model \'m\' not found"}', ModelNotFoundError),
    ],
)
def test_an_answer_that_is_something_else_is_refused(
    reading: Any, data: bytes, kind: type[LLMError]
) -> None:
    with pytest.raises(LLMError) as caught:
        reading(data)
    assert type(caught.value) is kind


PULL = b"".join(
    encoded(step) + b"\n"
    for step in (
        {"status": "pulling manifest"},
        {"status": "pulling abc", "digest": "sha256:abc", "total": 200},
        {"status": "pulling abc", "digest": "sha256:abc", "total": 200, "completed": 50},
        {"status": "success"},
    )
)


@pytest.mark.parametrize("pieces", [[PULL], bytewise(PULL), [PULL.rstrip()]])
def test_a_download_tells_its_steps(pieces: list[bytes]) -> None:
    steps, error = read(PullDecoder(), pieces)
    assert error is None
    assert steps == [
        PullProgress(status="pulling manifest"),
        PullProgress(status="pulling abc", digest="sha256:abc", total=200),
        PullProgress(status="pulling abc", digest="sha256:abc", total=200, completed=50),
        PullProgress(status="success"),
    ]
    assert [step.fraction for step in steps] == [None, 0.0, 0.25, None]


def test_a_fraction_is_never_above_one() -> None:
    assert PullProgress(status="x", completed=300, total=200).fraction == 1.0
    assert PullProgress(status="x", completed=300, total=0).fraction is None


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (b"", StreamInterruptedError),
        (b'{"status":"verify', StreamInterruptedError),
        (b'{"error":"pull model manifest: model \'x\' not found"}\n', ModelNotFoundError),
        (b"<html>\n", InvalidResponseError),
        (b"{}\n", InvalidResponseError),
        (b"7\n", InvalidResponseError),
    ],
)
def test_a_download_that_fails_tells_its_steps_first(end: bytes, kind: type[LLMError]) -> None:
    data = PULL.split(b"\n")[0] + b"\n" + end
    for pieces in ([data], bytewise(data)):
        steps, error = read(PullDecoder(), pieces)
        assert [step.status for step in steps] == ["pulling manifest"]
        assert type(error) is kind


def test_a_last_step_without_a_line_end_counts_too() -> None:
    steps, error = read(PullDecoder(), [PULL.split(b"\n")[0]])
    assert [step.status for step in steps] == ["pulling manifest"]
    assert isinstance(error, StreamInterruptedError)


def test_a_download_without_any_answer_is_interrupted() -> None:
    steps, error = read(PullDecoder(), [])
    assert (steps, type(error)) == ([], StreamInterruptedError)
