"""How many tokens a picture costs: what the services publish, and what users were billed."""

from __future__ import annotations

import base64
import struct

import pytest

from llm_manager import (
    AnthropicProvider,
    EchoProvider,
    ImagePart,
    InvalidParameterError,
    LLMMessage,
    LLMRequestOptions,
    OllamaProvider,
    OpenAICompatibleProvider,
    OpenAIProvider,
    Row,
)
from llm_manager.messages import LLMRequest
from llm_manager.providers.rows import ROWS
from llm_manager.tokens import IMAGE_RULES, estimate_prompt, estimate_prompt_tokens
from llm_manager.tokens.images import size_of


def png(width: int, height: int) -> bytes:
    """The beginning of a PNG file, which has its size."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)


def picture(width: int, height: int, detail: str | None = None) -> ImagePart:
    return ImagePart(data=png(width, height), media_type="image/png", detail=detail)  # type: ignore[arg-type]


def tokens(rule: str, model: str, size: tuple[int, int], detail: str | None = None) -> int | None:
    return IMAGE_RULES[rule].tokens_of(model, picture(*size, detail))  # type: ignore[index]


# OpenAI's guide "Images and vision", calculating costs; "billed": what users of its forum and of
# the data set JOHNISKING/image-token-cost measured.
OPENAI = [
    ("gpt-4o", (1024, 1024), "high", 765),
    ("gpt-4o", (2048, 4096), "high", 1105),
    ("gpt-4o", (4096, 8192), "low", 85),
    ("gpt-4.1", (1800, 2400), None, 765),  # billed, as the next three
    ("gpt-4.1", (2049, 513), None, 1445),
    ("gpt-4.1", (2050, 513), None, 765),
    ("gpt-4o-mini", (128, 64), "high", 8500),
    ("gpt-4o-mini", (128, 64), "low", 2833),
    ("o3", (128, 64), "high", 225),
    ("o1", (1024, 1024), "low", 75),
    ("gpt-5", (1024, 1024), "high", 630),
    ("gpt-4.1-mini", (1024, 1024), None, 1659),
    ("gpt-4.1-mini", (1800, 2400), None, 2353),
    ("gpt-4.1-mini", (1800, 2400), "low", 2353),  # no effect there
    ("gpt-4.1-nano", (1024, 1024), None, 2520),
    ("o4-mini", (1024, 1024), None, 1762),
    ("gpt-5-mini", (1024, 1024), None, 1229),
    ("gpt-5-nano", (1024, 1024), None, 1536),
    ("gpt-5.4-mini", (1800, 2400), None, 1743),
    ("gpt-5.5", (4032, 3024), None, 11868),  # billed, as the others from here
    ("gpt-5.5", (2560, 1440), None, 4320),
    ("gpt-6-astra", (256, 256), None, 77),
    ("gpt-6-astra", (1920, 1080), None, 2448),
    ("gpt-6-astra", (4032, 3024), None, 14364),
    ("gpt-6-astra", (4032, 3024), "high", 2942),
    ("gpt-6-astra", (3840, 2160), "high", 2931),
    ("openai/gpt-4o", (1024, 1024), "high", 765),
]


@pytest.mark.parametrize(("model", "size", "detail", "published"), OPENAI)
def test_openai_counts_tiles_or_patches(model, size, detail, published) -> None:
    assert tokens("openai", model, size, detail) == published


# Anthropic's guide "Vision", resolution and token cost; the last three were billed.
ANTHROPIC = [
    ("claude-sonnet-4-20250514", (200, 200), 64),
    ("claude-haiku-4-5", (1000, 1000), 1296),
    ("claude-3-opus-20240229", (1092, 1092), 1521),
    ("claude-haiku-4-5", (1928, 1928), 1521),
    ("claude-opus-4-8", (1928, 1928), 4761),
    ("claude-3-5-sonnet-20241022", (1568, 728), 1456),
    ("claude-haiku-4-5", (1920, 1080), 1560),
    ("claude-opus-5-5", (1920, 1080), 2691),
    ("anthropic/claude-opus-5.5", (512, 512), 361),
]


@pytest.mark.parametrize(("model", "size", "published"), ANTHROPIC)
def test_anthropic_counts_blocks_of_28_pixels(model, size, published) -> None:
    assert tokens("anthropic", model, size) == published


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-opus-4-8"])
@pytest.mark.parametrize("size", [(8000, 8000), (8000, 10), (1, 8000), (3810, 8000), (1, 1)])
def test_no_picture_costs_claude_more_than_its_limit(model, size) -> None:
    limit = 1568 if model == "claude-haiku-4-5" else 4784
    counted = tokens("anthropic", model, size)
    assert counted is not None
    assert 1 <= counted <= limit


# Google's guide "Understand and count tokens".
@pytest.mark.parametrize(
    ("model", "size", "published"),
    [
        ("gemini-2.0-flash", (384, 384), 258),
        ("gemini-2.5-flash", (960, 540), 1548),
        ("models/gemini-2.5-pro", (3072, 3072), 258 * 16),
        ("gemini-3-pro", (4032, 3024), 1120),
    ],
)
def test_gemini_counts_tiles_of_768_pixels(model, size, published) -> None:
    assert tokens("gemini", model, size) == published


@pytest.mark.parametrize(
    ("model", "size", "published"),
    [
        ("gemma3:12b", (4032, 3024), 256),
        ("llava:7b", (640, 480), 576),
        ("qwen2.5-vl-7b", (280, 560), 200),
        ("llama3.2-vision:11b", (500, 500), 1601),
        ("llama3.2-vision:11b", (1000, 500), 3202),
        ("llama3.2-vision:11b", (4000, 4000), 6404),
        ("moondream", (640, 480), None),
    ],
)
def test_models_that_anybody_can_run_count_by_their_card(model, size, published) -> None:
    assert tokens("open_models", model, size) == published


@pytest.mark.parametrize(
    ("model", "published"),
    [
        ("anthropic/claude-opus-4.8", 1369),
        ("openai/gpt-4o", 765),
        ("google/gemini-3-pro", 1120),
        ("google/gemma-3-27b", 256),
        ("somebody/something", None),
    ],
)
def test_a_gateway_counts_by_whoever_made_the_model(model, published) -> None:
    assert tokens("by_model", model, (1024, 1024)) == published


# ---- sizes -----------------------------------------------------------------------------------


def test_the_size_is_read_from_bytes_and_from_data_urls_and_never_fetched() -> None:
    packed = base64.b64encode(png(640, 480)).decode()
    assert size_of(picture(640, 480)) == (640, 480)
    assert size_of(ImagePart(url=f"data:image/png;base64,{packed}")) == (640, 480)
    assert size_of(ImagePart(url="https://example.com/a.png")) is None


@pytest.mark.parametrize("rest", ["", "A", "A===", "Ä!", "iVBORw0KGgo="])
def test_a_damaged_data_url_has_no_size(rest: str) -> None:
    assert size_of(ImagePart(url=f"data:image/png;base64,{rest}")) is None
    assert size_of(ImagePart(data=b"nothing", media_type="image/png")) is None


# ---- whose rule counts -----------------------------------------------------------------------


def prompt(model: str, *parts: ImagePart) -> LLMRequest:
    return LLMRequest(id="r", model=model, messages=(LLMMessage.user("What is it?", *parts),))


def test_the_estimate_of_a_prompt_follows_the_rule_it_is_given() -> None:
    without = estimate_prompt_tokens(prompt("gpt-4o"))
    rule = IMAGE_RULES["openai"]
    low, high = picture(1024, 1024, "low"), picture(1024, 1024, "high")
    assert estimate_prompt_tokens(prompt("gpt-4o", low), rule) == without + 85
    assert estimate_prompt_tokens(prompt("gpt-4o", low, high), rule) == without + 85 + 765
    assert estimate_prompt_tokens(prompt("gpt-4o", high)) == without + 1000


def test_a_picture_that_no_rule_counts_leaves_the_bound_open() -> None:
    rule = IMAGE_RULES["openai"]
    assert estimate_prompt(prompt("gpt-4o", picture(9, 9)), rule).error_fraction is not None
    assert estimate_prompt(prompt("gpt-4o", picture(9, 9))).error_fraction is None
    url = ImagePart(url="https://example.com/a.png")
    assert estimate_prompt(prompt("gpt-4o", url), rule).error_fraction is None


@pytest.mark.parametrize(
    ("provider", "rule"),
    [
        (OpenAIProvider(api_key="k"), "openai"),
        (AnthropicProvider(api_key="k"), "anthropic"),
        (OllamaProvider(), "open_models"),
        (OpenAICompatibleProvider(row=ROWS["gemini"], api_key="k"), "gemini"),
        (OpenAICompatibleProvider(row=ROWS["openrouter"], api_key="k"), "by_model"),
        (OpenAICompatibleProvider(row=ROWS["lmstudio"]), "open_models"),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_each_provider_names_its_rule(provider, rule) -> None:
    assert provider.image_rule is IMAGE_RULES[rule]


def test_a_provider_without_a_rule_takes_all_pictures_for_equal() -> None:
    assert EchoProvider().image_rule is None
    assert OpenAICompatibleProvider(base_url="http://127.0.0.1:1").image_rule is None


def test_an_unknown_rule_in_a_row_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="imageRule"):
        OpenAICompatibleProvider(row={"id": "x", "image_rule": "mine", "base_url": "http://x"})
    assert Row(id="x").image_rule is None


async def test_the_rule_counts_in_count_tokens_and_in_usage_of_a_broken_stream() -> None:
    class Plain(EchoProvider):
        vocabularies = ()  # whatever lies on this machine

    class Seeing(Plain):
        image_rule = IMAGE_RULES["openai"]

    message = LLMMessage.user("What is it?", picture(1024, 1024, "high"))
    settings = {"words_per_s": float("inf"), "models": ["gpt-4o"]}
    async with Seeing(**settings) as seeing, Plain() as plain:
        by_rule = await seeing.count_tokens("gpt-4o", [message])
        equal = await plain.count_tokens("gpt-4o", [message])
        assert equal.tokens - by_rule.tokens == 1000 - 765
        assert by_rule.error_fraction is not None
        stream = seeing.stream_chat_completion("gpt-4o", [message], LLMRequestOptions())
        async with stream:
            async for _ in stream:
                break
    usage = stream.response.usage
    assert usage is not None
    assert usage.estimated
    assert usage.prompt_tokens == by_rule.tokens
