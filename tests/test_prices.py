"""What models cost: the public table, prices of the user, and what nobody knows."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import UTC, date, datetime

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice as TablePrice

from llm_manager import InvalidParameterError, LLMModelInfo, ModelPrice, PriceBook, Usage
from llm_manager.prices import as_picodollars, as_usd
from llm_manager.prices.public import PublicPrices

THOUSAND = Usage(prompt_tokens=1000, completion_tokens=1000)


@pytest.fixture(scope="module")
def book() -> PriceBook:
    book = PriceBook()
    book.preload()
    return book


def usd(book: PriceBook, kind: str, model: str, usage: Usage = THOUSAND, **more) -> float | None:
    cost = book.cost_of(kind, model, usage, **more)
    return None if cost is None else cost.usd


# ---- the public table ----------------------------------------------------------------------------


def test_a_public_price_is_found_by_kind_and_model(book: PriceBook) -> None:
    cost = book.cost_of("openai", "gpt-4", THOUSAND)
    assert cost is not None
    assert (cost.input_usd, cost.output_usd, cost.usd) == pytest.approx((0.03, 0.06, 0.09))
    assert cost.source == f"genai-prices {genai_prices.__version__}"
    assert book.price_of("openai", "gpt-4") == ModelPrice(input_usd=30.0, output_usd=60.0)


def test_a_service_that_has_another_name_in_the_table_is_found(book: PriceBook) -> None:
    assert usd(book, "gemini", "gemini-2.0-flash") == pytest.approx(0.0005)
    assert usd(book, "xai", "grok-3") == pytest.approx(0.018)
    assert book.price_of("moonshot", "kimi-k2-0905-preview") is not None


def test_litellm_names_the_service_in_front_of_the_model(book: PriceBook) -> None:
    assert usd(book, "litellm", "openai/gpt-4") == usd(book, "openai", "gpt-4")
    assert usd(book, "litellm", "gemini/gemini-2.0-flash") == pytest.approx(0.0005)
    assert usd(book, "litellm", "gpt-4") is None


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("ollama", "llama3.2"),
        ("ollama", "gpt-4"),
        ("compatible", "gpt-4"),
        ("vllm", "openai/gpt-oss-120b"),
        ("deepinfra", "meta-llama/Llama-3.3-70B-Instruct"),
        ("huggingface", "Qwen/Qwen3-0.6B"),
        ("openai", "my-fine-tuned-model"),
        ("no-such-kind", "gpt-4"),
        ("", "gpt-4"),
    ],
)
def test_what_nobody_knows_is_unknown_and_not_free(book: PriceBook, kind: str, model: str) -> None:
    assert book.cost_of(kind, model, THOUSAND) is None
    assert book.price_of(kind, model) is None


def test_the_same_open_model_costs_something_else_on_each_host(book: PriceBook) -> None:
    groq = book.price_of("groq", "llama-3.3-70b-versatile")
    cerebras = book.price_of("cerebras", "llama-3.3-70b")
    assert groq is not None
    assert cerebras is not None
    assert groq.input_usd != cerebras.input_usd


def test_cached_tokens_are_part_of_the_prompt_and_cost_less(book: PriceBook) -> None:
    usage = Usage(prompt_tokens=1000, completion_tokens=0, cached_tokens=600)
    cost = book.cost_of("openai", "gpt-4o", usage)
    assert cost is not None
    assert cost.cached_usd == pytest.approx(600 * 1.25e-6)
    assert cost.usd == cost.input_usd == pytest.approx(400 * 2.5e-6 + 600 * 1.25e-6)


def test_tokens_written_to_a_cache_have_their_own_price(book: PriceBook) -> None:
    usage = Usage(prompt_tokens=1000, cached_tokens=300, cache_write_tokens=500)
    expected = (200 * 5 + 300 * 0.5 + 500 * 6.25) / 1e6
    assert usd(book, "anthropic", "claude-opus-5", usage) == pytest.approx(expected)


def test_what_is_kept_in_a_cache_for_an_hour_costs_twice_the_input(book: PriceBook) -> None:
    usage = Usage(prompt_tokens=1000, cache_write_tokens=500, cache_write_1h_tokens=200)
    expected = (500 * 5 + 300 * 6.25 + 200 * 10) / 1e6
    assert usd(book, "anthropic", "claude-opus-5", usage) == pytest.approx(expected)


def test_prices_that_a_service_lists_count_after_stated_ones_and_before_public_ones(
    book: PriceBook,
) -> None:
    stated = {"router/mine": {"input_usd": 0.0, "output_usd": 0.0}}
    models = [
        LLMModelInfo(id=id, provider_id="router", price=price)
        for id, price in (
            ("mine", ModelPrice(input_usd=9)),
            ("acme/large", ModelPrice(input_usd=2, output_usd=6)),
            ("gpt-4o", ModelPrice(input_usd=3, output_usd=4)),
            ("silent", None),
        )
    ]
    listed = PriceBook(stated).with_listed(models[:2]).with_listed(models[2:])
    listed.preload()
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=1_000_000)

    def cost(model: str, provider_id: str = "router") -> tuple[float, str] | None:
        found = listed.cost_of("openai", model, usage, provider_id=provider_id)
        return None if found is None else (found.usd, found.source)

    assert cost("mine") == (0.0, "override")
    assert cost("acme/large") == (8.0, "listed")
    assert cost("gpt-4o") == (7.0, "listed")
    assert cost("silent") is None
    elsewhere = cost("gpt-4o", "openai")
    assert elsewhere is not None
    assert elsewhere[1].startswith("genai-prices")
    unlisted = listed.without_public().cost_of("openai", "acme/large", usage, provider_id="router")
    assert unlisted is not None


def test_a_listed_price_that_cannot_be_is_refused() -> None:
    wrong = LLMModelInfo(id="x", provider_id="router", price=ModelPrice(input_usd=-1))
    with pytest.raises(InvalidParameterError, match="the price of 'x'"):
        PriceBook().with_listed([wrong])


def test_reasoning_is_part_of_the_answer(book: PriceBook) -> None:
    silent = Usage(prompt_tokens=10, completion_tokens=500)
    thinking = Usage(prompt_tokens=10, completion_tokens=500, reasoning_tokens=400)
    model = "gpt-4o"
    assert usd(book, "openai", model, silent) == usd(book, "openai", model, thinking)


def test_a_long_prompt_is_charged_by_the_rates_of_its_tier(book: PriceBook) -> None:
    at_the_edge = Usage(prompt_tokens=272_000, completion_tokens=100)
    beyond = Usage(prompt_tokens=272_001, completion_tokens=100)
    assert usd(book, "openai", "gpt-6-astra", at_the_edge) == pytest.approx(2.72 + 0.005)
    assert usd(book, "openai", "gpt-6-astra", beyond) == pytest.approx(272_001 * 20e-6 + 0.0075)


def test_a_fee_per_request_is_added(book: PriceBook) -> None:
    usage = Usage(prompt_tokens=0, completion_tokens=0)
    assert usd(book, "perplexity", "sonar", usage) == pytest.approx(0.012)


def test_the_price_is_the_one_of_the_day_of_the_request(book: PriceBook) -> None:
    before = book.cost_of(
        "mistral", "mistral-small-latest", THOUSAND, datetime(2026, 3, 15, tzinfo=UTC)
    )
    after = book.cost_of(
        "mistral", "mistral-small-latest", THOUSAND, datetime(2026, 3, 16, tzinfo=UTC)
    )
    assert before is not None
    assert after is not None
    assert (before.usd, after.usd) == pytest.approx((0.0004, 0.00075))
    assert (before.price_date, after.price_date) == (None, date(2026, 3, 16))


def test_the_price_is_the_one_of_the_hour_where_nights_are_cheaper(book: PriceBook) -> None:
    usage = Usage(prompt_tokens=1_000_000)
    times = [datetime(2026, 11, 1, hour, 30, tzinfo=UTC) for hour in range(24)]
    hours = {usd(book, "deepseek", "deepseek-v4-pro", usage, at=at) for at in times}
    assert len(hours) == 2


def test_the_model_that_answered_may_be_known_where_the_one_asked_for_is_not(
    book: PriceBook,
) -> None:
    assert usd(book, "openai", "an-alias") is None
    assert usd(book, "openai", "an-alias", response_model="gpt-4") == pytest.approx(0.09)


def test_estimated_tokens_make_an_estimated_cost(book: PriceBook) -> None:
    cost = book.cost_of("openai", "gpt-4", Usage(prompt_tokens=1, estimated=True))
    assert cost is not None
    assert cost.estimated
    assert cost.to_dict()["estimated"] is True


def test_every_price_of_the_table_is_computed_as_the_package_does() -> None:
    prices, rng, now = PublicPrices(), random.Random(7), datetime.now(UTC)
    compared = 0
    for service in get_snapshot().providers:
        for model in service.models:
            quotes = prices._of(service, model.id)
            if quotes is None or service.find_model(model.id) is not model:
                continue
            prompt = rng.choice([0, 10, 1000, 250_000, 1_000_000])
            cached, answer = rng.randint(0, prompt), rng.randint(0, 5000)
            written, thought = rng.randint(0, prompt - cached), rng.randint(0, answer)
            cost = quotes.at(now).cost(
                Usage(
                    prompt_tokens=prompt,
                    completion_tokens=answer,
                    cached_tokens=cached,
                    cache_write_tokens=written,
                    reasoning_tokens=thought,
                )
            )
            if cost is None:
                continue  # it has no price for answers, which the package takes for free
            theirs = genai_prices.Usage(
                input_tokens=prompt,
                output_tokens=answer,
                cache_read_tokens=cached,
                cache_write_tokens=written,
                output_reasoning_tokens=thought,
            )
            expected = model.calc_price(theirs, service, genai_request_timestamp=now)
            assert cost.usd == pytest.approx(float(expected.total_price)), (service.id, model.id)
            compared += 1
    assert compared > 1500


def test_a_model_without_a_price_for_tokens_is_unknown() -> None:
    prices, unpriced = PublicPrices(), []
    for service in get_snapshot().providers:
        for model in service.models:
            if isinstance(model.prices, TablePrice) and model.prices.input_mtok is None:
                unpriced.append(prices._of(service, model.id))
    assert len(unpriced) > 10
    assert not any(unpriced)


# ---- prices of the user --------------------------------------------------------------------------


def test_a_stated_price_counts_before_the_public_one() -> None:
    book = PriceBook({"openai/gpt-4": {"input_usd": 1, "output_usd": 2}})
    cost = book.cost_of("openai", "gpt-4", THOUSAND)
    assert cost is not None
    assert (cost.usd, cost.source) == (pytest.approx(0.003), "override")


def test_a_stated_price_is_for_a_kind_or_for_an_id_and_may_be_a_pattern() -> None:
    book = PriceBook(
        {
            "work/llama*": ModelPrice(input_usd=3, output_usd=3),
            "vllm/*": ModelPrice(input_usd=1, output_usd=1),
        }
    )
    assert usd(book, "vllm", "llama-3", provider_id="work") == pytest.approx(0.006)
    assert usd(book, "vllm", "qwen-3", provider_id="work") == pytest.approx(0.002)
    assert usd(book, "vllm", "llama-3") == pytest.approx(0.002)


def test_a_local_model_is_free_when_the_user_says_so() -> None:
    book = PriceBook({"ollama/*": {"input_usd": 0, "output_usd": 0}})
    assert usd(book, "ollama", "llama3.2") == 0.0


def test_what_a_stated_price_leaves_out_is_unknown() -> None:
    book = PriceBook({"vllm/*": {"input_usd": 1}})
    assert usd(book, "vllm", "embedder", Usage(prompt_tokens=1000)) == pytest.approx(0.001)
    assert usd(book, "vllm", "embedder", THOUSAND) is None


def test_cached_tokens_without_a_price_cost_what_others_do() -> None:
    book = PriceBook({"vllm/*": {"input_usd": 1, "output_usd": 1}})
    assert usd(book, "vllm", "m", Usage(prompt_tokens=1000, cached_tokens=400)) == pytest.approx(
        0.001
    )


def test_a_camel_case_price_from_a_settings_file_is_taken() -> None:
    book = PriceBook({"vllm/*": {"inputUsd": 1, "outputUsd": 1}}, public=False)
    assert usd(book, "vllm", "m") == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"gpt-4": {"input_usd": 1}}, "provider/model"),
        ({"/gpt-4": {"input_usd": 1}}, "provider/model"),
        ({7: {"input_usd": 1}}, "provider/model"),
        ({"openai/x": 0.5}, "ModelPrice"),
        ({"openai/x": {}}, "says nothing"),
        ({"openai/x": {"input_usd": -1}}, "input_usd must be"),
        ({"openai/x": {"input_usd": float("nan")}}, "input_usd must be"),
        ({"openai/x": {"input_usd": "1"}}, "openai/x"),
        ({"openai/x": {"inptu_usd": 1}}, "inptu_usd"),
        (["openai/x"], "overrides"),
    ],
)
def test_a_price_that_cannot_be_is_refused_with_its_place(overrides, said: str) -> None:
    with pytest.raises(InvalidParameterError, match=said):
        PriceBook(overrides)


# ---- loading, and sums ---------------------------------------------------------------------------


async def test_the_table_is_loaded_when_it_is_needed() -> None:
    book = PriceBook({"vllm/*": {"input_usd": 1, "output_usd": 1}})
    assert usd(book, "vllm", "m") is not None
    assert not book.loaded
    await book.load()
    assert book.loaded
    assert PriceBook(public=False).loaded


def test_without_the_public_table_only_stated_prices_are_known() -> None:
    book = PriceBook({"a/*": {"input_usd": 1, "output_usd": 1}}).without_public()
    assert usd(book, "a", "m") is not None
    assert usd(book, "openai", "gpt-4") is None


def test_a_missing_package_is_named_with_its_extra() -> None:
    code = (
        "import sys; sys.modules['genai_prices'] = None\n"
        "from llm_manager import DependencyMissingError, PriceBook\n"
        "try: PriceBook().preload()\n"
        "except DependencyMissingError as error: print(error.extra, error.__cause__)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["cost", "None"]


def test_importing_the_prices_imports_no_table() -> None:
    code = "import sys, llm_manager.prices.book\nprint('genai_prices' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_million_amounts_add_up_exactly_and_can_be_taken_off_again() -> None:
    amounts = [0.1, 0.2, 0.000_000_7, 1.25]
    total = sum(as_picodollars(amount) for amount in amounts) * 250_000
    assert as_usd(total) == 387_500.175
    for amount in amounts:
        total -= as_picodollars(amount) * 250_000
    assert total == 0
