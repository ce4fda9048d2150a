"""Whatever a server sends, it costs a bounded amount of memory, stack and time."""

from __future__ import annotations

import ast
import re
import tracemalloc
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from llm_manager import InvalidResponseError, LLMError, LLMModelInfo, ToolCall, discover
from llm_manager.providers.rows import ROWS
from llm_manager.schemas.answers import parsed
from llm_manager.testing import Reply, ScriptedPeer
from llm_manager.transport.http import HttpTransport
from llm_manager.wire import anthropic_models, anthropic_request, ollama_models, openai_models
from llm_manager.wire.anthropic_messages import AnthropicMessages
from llm_manager.wire.failures import from_http
from llm_manager.wire.framing import NDJSONFramer, SSEFramer
from llm_manager.wire.llamacpp_infill import LlamaCppInfill
from llm_manager.wire.ollama_chat import OllamaChat
from llm_manager.wire.ollama_embed import OllamaEmbed
from llm_manager.wire.ollama_generate import OllamaGenerate
from llm_manager.wire.openai_chat import OpenAIChat
from llm_manager.wire.openai_embeddings import OpenAIEmbeddings
from llm_manager.wire.openai_responses import OpenAIResponses
from llm_manager.wire.think_tags import ThinkTags

from .regex_steps import bait, is_unbounded, rounds_at_one_place, steps
from .wire.wire_reading import read, request_for

PACKAGE = Path(__file__).parent.parent / "llm_manager"

# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("framer", [SSEFramer, NDJSONFramer])
def test_a_line_without_an_end_is_refused_and_costs_little_more_than_its_length(framer) -> None:
    limit_bytes = 1 << 20
    lines = framer(max_line_bytes=limit_bytes)
    fed_bytes = 0
    tracemalloc.start()
    try:
        with pytest.raises(InvalidResponseError) as caught:
            # In the smallest of pieces, as a server may cut it.
            while fed_bytes < 2 * limit_bytes:
                fed_bytes += 2
                lines.feed(b"xx")
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.code == "line_too_long"
    assert fed_bytes == limit_bytes + 2
    assert most_bytes < 4 * limit_bytes


async def test_a_stream_that_is_too_long_ends_behind_what_was_allowed() -> None:
    async with ScriptedPeer() as peer:
        transport = HttpTransport(peer.base_url)
        peer.script(Reply(body=[b"x" * 600, b"y" * 600], framing="chunked", ending="hang"))
        received = b""
        with pytest.raises(InvalidResponseError, match="is larger than"):
            async with aclosing(transport.stream("/", b"{}", limit_bytes=1000)) as pieces:
                async for piece in pieces:
                    received += piece
        assert received == b"x" * 600
        await peer.wait_for_disconnect()
        await transport.aclose()


def test_space_before_an_answer_is_not_held_back_for_ever() -> None:
    tags = ThinkTags()
    out = [delta for _ in range(5000) for delta in tags.feed(" ")]
    assert len("".join(delta.text for delta in out)) > 3000


# ---- the stack -----------------------------------------------------------------------------------

CODECS: dict[str, Any] = {
    "chat": OpenAIChat(),
    "responses": OpenAIResponses(),
    "anthropic": AnthropicMessages(),
    "ollama": OllamaChat(),
    "generate": OllamaGenerate(),
    "infill": LlamaCppInfill(),
    "embeddings": OpenAIEmbeddings(),
    "ollama_embed": OllamaEmbed(),
}
DOCUMENTS: dict[str, Any] = {
    "models": lambda data: openai_models.decode_models(data, "p"),
    "anthropic_models": lambda data: anthropic_models.decode_models(data, "p"),
    "tags": lambda data: ollama_models.decode_tags(data, "p"),
    "show": lambda data: ollama_models.apply_show(LLMModelInfo(id="m"), data),
    "version": ollama_models.decode_version,
    "count": anthropic_request.decode_count,
    "pull": lambda data: ollama_models.PullDecoder().feed(data + b"\n"),
}
# Places of an answer that may hold anything, and of which some is written out as JSON again.
PLACES = (
    b"%s",
    b'{"error": %s}',
    b'{"error": {"message": %s, "details": [%s]}}',
    b'{"choices": [{"delta": {"content": %s}}]}',
    b'{"choices": [{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": %s}}]}}]}',
    b'{"choices": [{"message": {"content": %s, "tool_calls": %s}}], "usage": %s}',
    b'{"message": {"tool_calls": [{"function": {"name": "f", "arguments": %s}}]}}',
    b'{"type": "content_block_start", "index": 0, "content_block": '
    b'{"type": "tool_use", "id": "i", "name": "f", "input": %s}}',
    b'{"content": [{"type": "tool_use", "id": "i", "name": "f", "input": %s}]}',
    b'{"type": "response.output_item.done", "output_index": 0, "item": %s}',
    b'{"type": "response.completed", "response": {"output": [%s]}}',
    b'{"data": [{"id": "m", "meta": %s, "embedding": %s}], "models": %s, "embeddings": %s}',
)
# Around the limit of the interpreter, and far beyond it.
DEPTHS = (100, 900, *range(940, 1000, 3), 100_000)


def nested(place: bytes, depth: int) -> bytes:
    return place.replace(b"%s", b'{"a":' * depth + b"[]" + b"}" * depth)


@pytest.mark.parametrize("name", CODECS)
def test_no_depth_of_an_answer_overflows_the_stack(name) -> None:
    request = request_for(include_raw=True)
    for depth in DEPTHS:
        for document in (nested(place, depth) for place in PLACES):
            for data in (document, b"data: " + document + b"\n\n", document + b"\n"):
                # Anything but an error of ours comes out of `read`.
                _, error = read(CODECS[name].decoder(request), [data])
                assert depth < 1000 or error is not None


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_depth_of_a_list_overflows_the_stack(name) -> None:
    for depth in DEPTHS:
        for place in PLACES:
            refused = False
            try:
                DOCUMENTS[name](nested(place, depth))
            except LLMError:
                refused = True
            assert refused or depth < 1000


@pytest.mark.parametrize("place", PLACES)
def test_the_status_decides_where_the_words_of_an_error_are_too_deep(place) -> None:
    assert from_http(401, nested(place, 100_000), {}).code == "auth_invalid"


@pytest.mark.parametrize("text", ['{"a":' * 100_000, "[" * 100_000, '{"a": "\ud800"}'])
def test_arguments_that_cannot_be_read_are_an_invalid_response(text) -> None:
    with pytest.raises(InvalidResponseError, match="not a JSON object"):
        _ = ToolCall(id="c", name="f", arguments_json=text).arguments


async def test_a_local_server_whose_list_is_too_deep_is_none(monkeypatch) -> None:
    for id, row in list(ROWS.items()):
        if row.local:
            monkeypatch.delitem(ROWS, id)
    deep = Reply(body=[nested(b"%s", 100_000)])
    async with ScriptedPeer(fallback=deep) as peer:
        monkeypatch.setenv("OLLAMA_HOST", peer.base_url)
        assert await discover() == []
        assert peer.requests


# ---- regular expressions -------------------------------------------------------------------------

# Texts that no server and no model has a say in.
_OF_DEVELOPERS = {"docstrings.py", "anthropic_content.py"}


def _patterns() -> Iterator[tuple[str, int]]:
    """The patterns that texts of servers and models are searched for, and their flags."""
    files = [PACKAGE / "redaction.py"]
    files += [file for part in ("wire", "schemas", "tools") for file in (PACKAGE / part).iterdir()]
    for file in sorted(files):
        if file.suffix != ".py" or file.name in _OF_DEVELOPERS:
            continue
        tree = ast.parse(file.read_text())
        named = _named_texts(tree)
        for call in ast.walk(tree):
            if isinstance(call, ast.Call):
                yield from _of_call(call, named)


def _named_texts(tree: ast.Module) -> dict[str, str]:
    """The texts of a module that have a name: patterns that are compiled when first used."""
    assigned = [each for each in tree.body if isinstance(each, ast.Assign)]
    return {
        ast.unparse(each.targets[0]): each.value.value
        for each in assigned
        if isinstance(each.value, ast.Constant) and isinstance(each.value.value, str)
    }


def _of_call(call: ast.Call, named: dict[str, str]) -> Iterator[tuple[str, int]]:
    called = ast.unparse(call.func)
    if not called.startswith("re.") and called != "_phrases":
        return
    flags = 0
    for more in [*call.args[1:], *(keyword.value for keyword in call.keywords)]:
        for name in ast.walk(more):
            if isinstance(name, ast.Attribute) and ast.unparse(name.value) == "re":
                flags |= getattr(re, name.attr)
    flags |= 0 if called.startswith("re.") else re.IGNORECASE
    for given in call.args if called == "_phrases" else call.args[:1]:
        if isinstance(given, ast.Constant) and isinstance(given.value, str):
            yield given.value, flags
        elif ast.unparse(given) in named:
            yield named[ast.unparse(given)], flags


PATTERNS = sorted(set(_patterns()))
UNBOUNDED = [each for each in PATTERNS if is_unbounded(*each)]


def test_the_steps_are_counted_as_the_engine_takes_them() -> None:
    # One that explodes, one that is quadratic, one that is neither.
    assert steps(r"(a+)+$", 0, "a" * 12 + "b") > 3 * steps(r"(a+)+$", 0, "a" * 10 + "b")
    assert steps(r"^\s*x", re.MULTILINE, "\n" * 200) > 3 * steps(r"^\s*x", re.MULTILINE, "\n" * 100)
    assert steps(r"a+", 0, "a" * 200) < 3 * steps(r"a+", 0, "a" * 100)


def test_the_patterns_are_found() -> None:
    assert len(PATTERNS) > 60
    assert len(UNBOUNDED) > 10


@pytest.mark.parametrize(("pattern", "flags"), UNBOUNDED)
def test_twice_the_text_takes_twice_the_steps(pattern, flags) -> None:
    for start in bait(pattern, flags):
        for more in {start, start[-1], "a", "1", " ", "\n", "`"}:
            short, long = (
                steps(pattern, flags, (start + more * length)[:length]) for length in (120, 240)
            )
            assert long < 3 * short + 100, (start, more)


@pytest.mark.parametrize(("pattern", "flags"), PATTERNS)
def test_no_place_of_a_text_is_looked_at_for_long(pattern, flags) -> None:
    assert rounds_at_one_place(pattern, flags) <= 4000


@pytest.mark.parametrize(
    "word", ["model ", "violat", "input", "sk-", "try again in 1s", "\n", "```\n"]
)
def test_a_hundred_thousand_characters_are_read_to_their_end(word) -> None:
    text = (word * 100_000)[:100_000]
    assert from_http(400, text.encode(), {}).http_status == 400
    with pytest.raises(InvalidResponseError):
        parsed(text, int)
