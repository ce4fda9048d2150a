"""How many tokens a prompt has: counted where that can be done, otherwise within a bound."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_manager import EchoProvider, LLMMessage, TokenCount, ToolCall, ToolDefinition
from llm_manager.messages import FilePart, LLMRequest, LLMRequestOptions, TextPart
from llm_manager.testing.network import no_real_network
from llm_manager.tokens import (
    OPENAI_VOCABULARIES,
    Vocabulary,
    count_prompt,
    estimate_prompt,
    estimate_prompt_tokens,
    estimate_text_tokens,
)
from llm_manager.tokens.text import estimate_text
from llm_manager.tokens.vocabularies import CL100K, O200K, text_counter, vocabulary_of
from tests.helpers import echo

ROOT = Path(__file__).parent.parent

# Counted once with o200k_base and with cl100k_base.
KNOWN = [
    ("Hello, world!", 4, 4),
    ("The quick brown fox jumps over the lazy dog. " * 20, 201, 201),
    ("def f(x: int) -> int:\n    return x + 1\n" * 20, 320, 320),
    ('{"id": 12345, "name": "Ada", "tags": ["a", "b"], "ok": true}' * 10, 270, 270),
    ("敏捷的棕色狐狸跳过了懒狗。" * 20, 280, 500),
    ("ثعلب بني سريع يقفز فوق كلب كسول. " * 20, 281, 520),
    ("तेज भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है। " * 20, 382, 960),
    ("Съешь же ещё этих мягких французских булок. " * 20, 261, 581),
    ("😀🎉🚀👍" * 20, 120, 220),
    ("3.14159265358979323846 " * 20, 200, 200),
    ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ" * 10, 210, 210),
    ("function a(b,c){return b.d(c)?e(b):f[c]||g}" * 10, 190, 190),
]


# ---- the estimate ----------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "o200k", "cl100k"), KNOWN, ids=[t[0][:12] for t in KNOWN])
def test_the_estimate_is_within_its_bound(text: str, o200k: int, cl100k: int) -> None:
    estimate = estimate_text(text)
    assert abs(estimate.tokens - o200k) <= estimate.error_tokens
    assert abs(estimate.tokens - cl100k) <= estimate.error_tokens


def test_nothing_has_no_tokens_and_anything_has_some() -> None:
    assert estimate_text_tokens("") == 0
    for text in ("a", " ", "é", "\ud800", "\x00", "नम", "👩‍👩‍👧"):
        assert estimate_text_tokens(text) >= (0 if text == " " else 1)


def test_a_longer_text_has_more_tokens_and_a_wider_bound() -> None:
    text = "Some words, 17 of them; größer & schöner, и ещё. "
    once, often = estimate_text(text), estimate_text(text * 50)
    assert often.tokens == pytest.approx(50 * once.tokens, rel=0.05)
    assert often.error_tokens > once.error_tokens


def test_the_bound_of_a_prompt_covers_texts_roles_and_tool_calls() -> None:
    call = ToolCall(id="1", name="weather", arguments_json='{"city": "Rome"}')
    request = LLMRequest(
        id="r",
        model="m",
        messages=(
            LLMMessage.user("What is the weather?"),
            LLMMessage.assistant(tool_calls=[call]),
            LLMMessage.tool("1", "sunny"),
        ),
    )
    count = estimate_prompt(request)
    assert (count.estimated, count.method) == (True, "estimate")
    assert 20 <= count.tokens <= 40
    assert count.error_fraction is not None
    assert 0.3 < count.error_fraction < 2


def test_what_nobody_can_estimate_leaves_the_bound_open() -> None:
    document = FilePart(data=b"%PDF" * 99, media_type="application/pdf")
    tools = LLMRequestOptions(tools=(ToolDefinition(name="f"),))
    asked = (LLMMessage.user("What does it say?"),)
    read = (LLMMessage.user("What does it say?", document),)
    with_tools = LLMRequest(id="r", model="m", messages=asked, options=tools)
    with_document = LLMRequest(id="r", model="m", messages=read)
    for request in (with_tools, with_document):
        assert estimate_prompt(request).error_fraction is None
        assert estimate_prompt(request).tokens > 15


@pytest.mark.parametrize("options", [{}, {"tools": (ToolDefinition(name="f"),)}])
@pytest.mark.parametrize(
    "messages",
    [
        (),
        (LLMMessage.system("Be brief, and größer."), LLMMessage.user("Why?")),
        (LLMMessage.user("What?", FilePart(data=b"%PDF" * 99, media_type="application/pdf")),),
        (LLMMessage(role="user", content=(TextPart(text="one"), TextPart(text="two"))),),
        (
            LLMMessage.user("What is the weather?"),
            LLMMessage.assistant(tool_calls=[ToolCall(id="1", name="f", arguments_json="{}")]),
            LLMMessage.tool("1", "sunny"),
        ),
    ],
)
def test_the_number_alone_is_the_number_of_the_estimate_with_its_bound(messages, options) -> None:
    for more in ({}, {"prefix": "def f(", "suffix": "return"}, {"texts": ("one", "two words")}):
        request = LLMRequest(
            id="r", model="m", messages=messages, options=LLMRequestOptions(**options), **more
        )
        assert estimate_prompt_tokens(request) == estimate_prompt(request).tokens


def test_a_tool_that_is_no_json_is_left_to_whoever_has_to_send_it() -> None:
    for value in (object(), "\ud800"):
        tool = ToolDefinition(name="f", parameters={"default": value})
        request = LLMRequest(id="r", model="m", options=LLMRequestOptions(tools=(tool,)))
        assert estimate_prompt_tokens(request) == estimate_prompt(request).tokens == 0


# ---- tiktoken --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "vocabulary"),
    [
        ("gpt-4o-mini", O200K),
        ("gpt-4.1", O200K),
        ("openai/gpt-5-nano", O200K),
        ("ft:gpt-4o:me", O200K),
        ("o3", O200K),
        ("o4-mini-2025-04-16", O200K),
        ("chatgpt-4o-latest", O200K),
        ("gpt-4-turbo", CL100K),
        ("gpt-3.5-turbo-0125", CL100K),
        ("gpt-35-turbo", CL100K),
        ("text-embedding-3-small", CL100K),
        ("gpt-6-astra", None),
        ("gpt-oss-20b", None),
        ("claude-opus-5", None),
        ("olmo-3", None),
        ("o3x", None),
    ],
)
def test_a_vocabulary_is_known_by_the_name_of_the_model(model, vocabulary) -> None:
    assert vocabulary_of(model, OPENAI_VOCABULARIES) == vocabulary


TINY = b"\n".join(
    base64.b64encode(token) + b" %d" % rank
    for rank, token in enumerate([*(bytes([i]) for i in range(256)), b"us", b"er", b"user", b"ab"])
)
TINY_HASH = hashlib.sha256(TINY).hexdigest()
TINY_URL = "https://example.com/tiny.tiktoken"
PLUGIN = f"""
from tiktoken.load import load_tiktoken_bpe

def tiny():
    ranks = load_tiktoken_bpe({TINY_URL!r}, {TINY_HASH!r})
    return {{"name": "tiny", "pat_str": r"\\S+|\\s", "mergeable_ranks": ranks,
            "special_tokens": {{}}}}

ENCODING_CONSTRUCTORS = {{"tiny": tiny}}
"""
COUNT = f"""
import asyncio, json, sys
from llm_manager import EchoProvider, LLMMessage, ToolDefinition
from llm_manager.testing.network import no_real_network
from llm_manager.tokens import Vocabulary

class Tiny(EchoProvider):
    vocabularies = (("echo", Vocabulary("tiny", {TINY_URL!r}, {TINY_HASH!r})),)

async def main():
    named = LLMMessage(role="user", name="ab", content="ab ab")
    async with Tiny() as provider:
        counts = [
            await provider.count_tokens(None, "ab ab"),
            await provider.count_tokens(None, [named, named]),
            await provider.count_tokens(None, "ab", {{"tools": [ToolDefinition(name="f")]}}),
        ]
    print(json.dumps([count.to_dict() for count in counts]))
    print("tiktoken" in sys.modules, file=sys.stderr)

if "without tiktoken" in sys.argv:
    sys.modules["tiktoken"] = None
with no_real_network():
    asyncio.run(main())
"""


def counts_with(folder: Path | str, plugins: Path, *arguments: str) -> list[dict]:
    """What a new process counts that finds vocabularies in ``folder``."""
    (plugins / "tiktoken_ext").mkdir()
    (plugins / "tiktoken_ext" / "tiny.py").write_text(PLUGIN)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(plugins), str(ROOT)]),
        "TIKTOKEN_CACHE_DIR": str(folder),
    }
    done = subprocess.run(
        [sys.executable, "-c", COUNT, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=plugins,
    )
    assert done.returncode == 0, done.stderr
    counts: list[dict] = json.loads(done.stdout)
    return counts


def tiny_file(folder: Path) -> Path:
    """Where tiktoken keeps the tiny vocabulary."""
    return folder / hashlib.sha1(TINY_URL.encode(), usedforsecurity=False).hexdigest()


def test_a_vocabulary_on_this_machine_counts_exactly(tmp_path: Path) -> None:
    pytest.importorskip("tiktoken")
    tiny_file(tmp_path).write_bytes(TINY)
    plain, named, with_tools = counts_with(tmp_path, tmp_path)
    # Three tokens around each message, one for its role and each of its words, three for the
    # beginning of the answer; a name costs one more than its text.
    assert plain["tokens"] == 3 + 1 + 3 + 3
    assert named["tokens"] == 2 * (3 + 1 + 3 + 1 + 1) + 3
    for count in (plain, named):
        assert (count["method"], count["estimated"]) == ("tiktoken", False)
        assert count["errorFraction"] is None
    # How a service words the tools is not known.
    assert (with_tools["method"], with_tools["estimated"]) == ("tiktoken", True)
    assert with_tools["tokens"] > 8


def test_a_damaged_vocabulary_counts_for_nothing_and_stays_where_it_is(tmp_path: Path) -> None:
    pytest.importorskip("tiktoken")
    tiny_file(tmp_path).write_bytes(TINY[:-1])
    assert [count["method"] for count in counts_with(tmp_path, tmp_path)] == ["estimate"] * 3
    assert tiny_file(tmp_path).read_bytes() == TINY[:-1]


@pytest.mark.parametrize("folder", ["nowhere", ""])
def test_without_a_vocabulary_nothing_is_fetched(tmp_path: Path, folder: str) -> None:
    counts = counts_with(folder and tmp_path / folder, tmp_path)
    assert [count["method"] for count in counts] == ["estimate"] * 3
    assert all(count["estimated"] for count in counts)


def test_without_tiktoken_a_vocabulary_is_of_no_use(tmp_path: Path) -> None:
    tiny_file(tmp_path).write_bytes(TINY)
    counts = counts_with(tmp_path, tmp_path, "without tiktoken")
    assert [count["method"] for count in counts] == ["estimate"] * 3


async def test_an_estimate_loads_nothing_and_says_what_it_is() -> None:
    async with echo() as provider:
        count = await provider.count_tokens(None, "Hello there, how are you?")
    assert isinstance(count, TokenCount)
    assert (count.estimated, count.method) == (True, "estimate")
    assert count.error_fraction is not None
    assert abs(count.tokens - 11) <= count.tokens * count.error_fraction


async def test_who_counts_is_named() -> None:
    class Service(EchoProvider):
        async def _count_tokens(self, request: LLMRequest) -> int | None:
            return 7

    class Local(Service):
        counts_as = "tokenizer"

    async with Service() as service, Local() as local:
        of_service = await service.count_tokens(None, "x")
        of_local = await local.count_tokens(None, "x")
    assert of_service == TokenCount(tokens=7, method="provider")
    assert of_local == TokenCount(tokens=7, method="tokenizer")


# ---- with the real vocabularies, where they are ----------------------------------------------


def texts() -> Iterator[tuple[str, str]]:
    """Texts of many kinds, about 3,000 characters each."""
    files = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "llm_manager").rglob("*.py")]
    for path in sorted([*files, ROOT / "pyproject.toml"]):
        text = path.read_text(encoding="utf-8")
        for begin in range(0, len(text), 3000):
            if len(piece := text[begin : begin + 3000]) > 100:
                yield f"{path.name}:{begin}", piece
    chance = random.Random(1)
    yield "base64", base64.b64encode(chance.randbytes(2000)).decode()
    yield "hexadecimal", chance.randbytes(1500).hex()
    yield "numbers", " ".join(str(chance.random()) for _ in range(150))
    for text, *_ in KNOWN:
        yield text[:12], text


@pytest.mark.parametrize("vocabulary", [O200K, CL100K], ids=lambda v: v.name)
def test_the_bound_holds_for_what_the_vocabulary_really_makes(vocabulary: Vocabulary) -> None:
    with no_real_network():
        counter = text_counter(vocabulary)
    if counter is None:
        pytest.skip(f"{vocabulary.name} is not on this machine")
    for name, text in texts():
        estimate, counted = estimate_text(text), counter(text)
        assert abs(estimate.tokens - counted) <= estimate.error_tokens, name


async def test_a_prompt_for_openai_is_counted_as_its_cookbook_does() -> None:
    if not O200K.is_here():
        pytest.skip("o200k_base is not on this machine")
    # The example of the cookbook, which it says has 124 tokens for gpt-4o.
    helper = ("system", "example_user", "example_assistant")
    example = [
        (None, "You are a helpful, pattern-following assistant that translates corporate jargon "
               "into plain English."),
        (helper[1], "New synergies will help drive top-line growth."),
        (helper[2], "Things working well together will increase revenue."),
        (helper[1], "Let's circle back when we have more bandwidth to touch base on opportunities "
                    "for increased leverage."),
        (helper[2], "Let's talk later when we're less busy about how to do better."),
    ]  # fmt: skip
    messages = tuple(LLMMessage(role="system", name=name, content=text) for name, text in example)
    asked = LLMMessage.user(
        "This late pivot means we don't have time to boil the ocean for the client deliverable."
    )
    request = LLMRequest(id="r", model="gpt-4o", messages=(*messages, asked))
    count = await count_prompt(request, None, OPENAI_VOCABULARIES)
    assert count == TokenCount(tokens=124, method="tiktoken")
