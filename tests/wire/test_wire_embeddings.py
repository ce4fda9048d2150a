"""Embeddings: one document with a vector for each text, in two dialects."""

from __future__ import annotations

import json
from array import array
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_manager.errors import (
    ContextWindowExceededError,
    InvalidParameterError,
    InvalidResponseError,
    LLMError,
    ProviderError,
    RateLimitError,
    StreamInterruptedError,
)
from llm_manager.messages import (
    LLMRequest,
    LLMRequestOptions,
    MetaDelta,
    Usage,
    UsageDelta,
    VectorsDelta,
)
from llm_manager.wire import Codec
from llm_manager.wire.ollama_embed import OllamaEmbed
from llm_manager.wire.openai_embeddings import OpenAIEmbeddings
from llm_manager.wire.vectors import VectorDocument

from .wire_reading import bytewise, cut, places, quick, read

CODECS: dict[str, Codec] = {"openai": OpenAIEmbeddings(), "ollama": OllamaEmbed()}
VECTORS = [[0.25, -1.5e-3], [1.0, 2.0], [-3.0, 0.0]]


def request(count: int = 3, **options: Any) -> LLMRequest:
    texts = tuple(f"text {i}" for i in range(count))
    return LLMRequest(
        id="r1",
        model="embedder",
        operation="embed",
        texts=texts,
        options=LLMRequestOptions(**options),
    )


def openai_answer(vectors: Any = VECTORS, *, indent: int | None = None, **more: Any) -> bytes:
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
    usage = {"prompt_tokens": 6, "total_tokens": 6}
    answer = {"object": "list", "data": data, "model": "embedder-2", "usage": usage, **more}
    return json.dumps(answer, indent=indent).encode()


def ollama_answer(vectors: Any = VECTORS, *, indent: int | None = None, **more: Any) -> bytes:
    answer = {"model": "embedder-2", "embeddings": vectors, "prompt_eval_count": 6, **more}
    return json.dumps(answer, indent=indent).encode()


ANSWERS = {"openai": openai_answer, "ollama": ollama_answer}
DELTAS = [
    MetaDelta("embedder-2"),
    VectorsDelta(VECTORS),
    UsageDelta(Usage(prompt_tokens=6)),
]


def decoded(dialect: str, pieces: list[bytes], count: int = 3) -> tuple[list[Any], LLMError | None]:
    return read(CODECS[dialect].decoder(request(count)), pieces)


# ---- asking --------------------------------------------------------------------------------------


def test_a_request_in_the_dialect_of_openai() -> None:
    codec = CODECS["openai"]
    assert codec.path == "/embeddings"
    assert json.loads(codec.encode(request(2))) == {
        "model": "embedder",
        "input": ["text 0", "text 1"],
        "encoding_format": "float",
    }
    sent = json.loads(
        codec.encode(request(1, extra={"dimensions": 5, "encoding_format": "base64"}))
    )
    assert (sent["dimensions"], sent["encoding_format"]) == (5, "base64")


def test_fields_that_a_service_always_wants() -> None:
    codec = OpenAIEmbeddings(path="/embed", extra={"input_type": "query"})
    assert codec.path == "/embed"
    assert json.loads(codec.encode(request(1)))["input_type"] == "query"
    sent = json.loads(codec.encode(request(1, extra={"input_type": "passage"})))
    assert sent["input_type"] == "passage"


def test_a_request_in_the_dialect_of_ollama() -> None:
    codec = OllamaEmbed(num_ctx=512, keep_alive=0)
    assert codec.path == "/api/embed"
    sent = json.loads(codec.encode(request(2, temperature=1, extra={"dimensions": 5})))
    assert sent == {
        "model": "embedder",
        "input": ["text 0", "text 1"],
        "truncate": False,
        "keep_alive": 0,
        "options": {"num_ctx": 512},
        "dimensions": 5,
    }
    assert "options" not in json.loads(OllamaEmbed(truncate=True).encode(request()))


@pytest.mark.parametrize("dialect", CODECS)
def test_what_is_no_json_is_refused(dialect: str) -> None:
    with pytest.raises(InvalidParameterError, match="cannot be written as JSON"):
        CODECS[dialect].encode(request(extra={"mine": object()}))


# ---- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", CODECS)
@pytest.mark.parametrize("indent", [None, 2])
@quick
@given(places=places)
def test_an_answer_is_read_wherever_it_is_cut(
    dialect: str, indent: int | None, places: list[int]
) -> None:
    data = ANSWERS[dialect](indent=indent)
    for pieces in ([data], cut(data, places), bytewise(data)):
        assert decoded(dialect, pieces) == (DELTAS, None)


@pytest.mark.parametrize("dialect", CODECS)
@quick
@given(
    vectors=st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
        min_size=1,
        max_size=5,
    ),
    places=places,
)
def test_every_number_arrives_as_it_was_sent(
    dialect: str, vectors: list[list[float]], places: list[int]
) -> None:
    deltas, error = decoded(dialect, cut(ANSWERS[dialect](vectors), places), len(vectors))
    assert error is None
    assert deltas[1] == VectorsDelta(vectors)


def entries(*indexes: Any) -> bytes:
    data = [{"index": i, "embedding": [float(n), 0.5]} for n, i in enumerate(indexes)]
    return json.dumps({"data": data}).encode()


def test_vectors_are_put_into_the_order_of_the_texts() -> None:
    assert decoded("openai", [entries(2, 0, 1)]) == (
        [VectorsDelta([[1.0, 0.5], [2.0, 0.5], [0.0, 0.5]])],
        None,
    )
    assert decoded("openai", [entries(None, None)], 2) == (
        [VectorsDelta([[0.0, 0.5], [1.0, 0.5]])],
        None,
    )


@pytest.mark.parametrize("indexes", [(0, 0, 0), (1, 2, 3), (0, None, 1), ("0", "1", "2")])
def test_vectors_that_cannot_be_told_apart_are_refused(indexes: tuple[Any, ...]) -> None:
    deltas, error = decoded("openai", [entries(*indexes)])
    assert deltas == []
    assert type(error) is InvalidResponseError


@pytest.mark.parametrize("dialect", CODECS)
@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        ([[1.0, 2.0]], "1 vectors came for 3 texts"),
        ([*VECTORS, [1.0, 2.0]], "4 vectors came for 3 texts"),
        ([], "0 vectors came for 3 texts"),
        ([[1.0], [2.0, 3.0], [4.0, 5.0]], "different lengths"),
        ([[1.0], [], [2.0]], "no list of numbers"),
        ([[1.0], None, [2.0]], "no list of numbers"),
        ([[1.0], ["a"], [2.0]], "no list of numbers"),
        ([[1.0], 7, [2.0]], "no list of numbers"),
        ([[[1.0]], [[1.0]], [[1.0]]], "no list of numbers"),
    ],
)
def test_anything_but_one_vector_for_each_text_is_refused(
    dialect: str, vectors: Any, says: str
) -> None:
    deltas, error = decoded(dialect, [ANSWERS[dialect](vectors)])
    assert deltas == []
    assert type(error) is InvalidResponseError
    assert says in error.message


def test_vectors_in_base64_are_read() -> None:
    packed = [b64encode(array("f", v).tobytes()).decode() for v in ([0.5, -2.0], [1.0, 3.0])]
    assert decoded("openai", [openai_answer(packed)], 2)[0][1] == VectorsDelta(
        [[0.5, -2.0], [1.0, 3.0]]
    )
    for broken in ("AAA", "not base64!", "AAAA"):
        assert type(decoded("openai", [openai_answer([broken])], 1)[1]) is InvalidResponseError


@pytest.mark.parametrize("dialect", CODECS)
@quick
@given(place=st.integers(1, 120))
def test_an_answer_that_broke_off_is_interrupted(dialect: str, place: int) -> None:
    whole = ANSWERS[dialect](indent=1)
    deltas, error = decoded(dialect, [whole[:place]])
    assert deltas == []
    # Cut behind a bracket it could be anything that is no JSON.
    assert isinstance(error, StreamInterruptedError | InvalidResponseError)
    if whole[:place].rstrip()[-1:] not in (b"}", b"]"):
        assert type(error) is StreamInterruptedError
        assert error.retryable


@pytest.mark.parametrize("dialect", CODECS)
@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", InvalidResponseError),
        (b"<html><title>Hotel</title></html>", InvalidResponseError),
        (b'{"data": 5, "embeddings": 5}', InvalidResponseError),
        (b"[]", InvalidResponseError),
        (b"3", InvalidResponseError),
        (b'{"error": {"message": "slow down [1]", "code": "rate_limit_exceeded"}}', RateLimitError),
        (b'{"error": "the input length exceeds the context length"}', ContextWindowExceededError),
    ],
)
def test_what_is_no_embeddings_is_an_error(
    dialect: str, data: bytes, kind: type[ProviderError]
) -> None:
    for pieces in ([data], bytewise(data)):
        assert type(decoded(dialect, pieces)[1]) is kind


def test_numbers_in_prose_are_not_taken_for_a_vector() -> None:
    document = VectorDocument("a list")
    document.feed(rb'{"note": "see [1, 2] and \"embedding\": [3]", "v": [1, 2], "w": [ 3 ]}')
    answer = document.close()
    assert document.vector(answer["v"]) == [1.0, 2.0]
    assert document.vector(answer["w"]) == [3.0]
    assert answer["note"].startswith('see [1, 2] and "embedding": ')
    assert document.vector(answer["note"]) is None


def test_a_document_without_bound_is_not_collected() -> None:
    document = VectorDocument("embeddings", max_bytes=100)
    with pytest.raises(InvalidResponseError) as caught:
        for _ in range(20):
            document.feed(b" " * 10)
    assert caught.value.code == "line_too_long"
