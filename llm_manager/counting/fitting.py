"""`fits`: whether a prompt and its answer go into a model's context window, before it is sent."""

from __future__ import annotations

import math

from ..asking import Options
from ..errors import ModelNotFoundError
from ..manager import LLMProviderManager
from ..messages import Data, LLMRequestOptions, Messages, TokenCount, as_messages, as_options
from ..provider import BaseLLMProvider


class Fit(Data, frozen=True, kw_only=True):
    """Whether something fits, and what that is made of.

    Attributes:
        fits: whether prompt and answer go into the window; None: the window is not known.
        surely: whether that holds however far off the count may be; False where that is not known.
        prompt_tokens: how many tokens the prompt has.
        reserve_tokens: how many are kept for the answer: the option ``max_tokens``.
        context_window_tokens: how many the model reads and writes, or None if not known.
        over_by_tokens: how many are too many; 0 if it fits, or if nobody knows.
        count: how the prompt was counted.
    """

    fits: bool | None
    surely: bool
    prompt_tokens: int
    reserve_tokens: int
    context_window_tokens: int | None
    over_by_tokens: int
    count: TokenCount


async def fits(
    target: BaseLLMProvider | LLMProviderManager,
    model: str | None,
    messages: Messages,
    options: Options = None,
) -> Fit:
    """Whether a conversation fits into a model's context window; sends no request.

    The prompt is counted as exactly as the provider can, see `BaseLLMProvider.count_tokens`.
    Where no ``max_tokens`` is given, nothing is kept for the answer.

    Args:
        target: a provider, or a manager.
        model: as in a request; None: the active one.
        messages: what will be asked.
        options: how, tools included.

    Raises:
        InvalidParameterError: an argument is wrong.
        ProviderError: the provider could not be asked.
    """
    conversation = as_messages(messages)
    provider, name = provider_of(target, model)
    count = await target.count_tokens(model, conversation, options)
    reserve_tokens = reserve_of(provider, options)
    window_tokens = window_of(provider, name) or await _asked_window(provider, name)
    if window_tokens is None:
        return Fit(
            fits=None,
            surely=False,
            prompt_tokens=count.tokens,
            reserve_tokens=reserve_tokens,
            context_window_tokens=None,
            over_by_tokens=0,
            count=count,
        )
    over_by_tokens = max(0, count.tokens + reserve_tokens - window_tokens)
    return Fit(
        fits=over_by_tokens == 0,
        surely=_is_sure(count, window_tokens - reserve_tokens),
        prompt_tokens=count.tokens,
        reserve_tokens=reserve_tokens,
        context_window_tokens=window_tokens,
        over_by_tokens=over_by_tokens,
        count=count,
    )


def provider_of(
    target: BaseLLMProvider | LLMProviderManager, model: str | None
) -> tuple[BaseLLMProvider, str | None]:
    """The provider that a request would go to, and its name of the model."""
    if isinstance(target, LLMProviderManager):
        provider, name = target.resolve(model)
    else:
        provider, name = target, model
    return provider, name if name is not None else provider.active_model


def reserve_of(provider: BaseLLMProvider, options: Options) -> int:
    """How many tokens the answer may have, as far as that is said."""
    given: LLMRequestOptions = as_options(options).merged_over(provider.default_options)
    return given.max_tokens or 0


def window_of(provider: BaseLLMProvider, model: str | None) -> int | None:
    """The context window as far as it is known; asks nobody."""
    known = next((m for m in provider.known_models if m.id == model), None)
    return None if known is None else known.context_window_tokens


async def _asked_window(provider: BaseLLMProvider, model: str | None) -> int | None:
    if model is None:
        return None
    try:
        return (await provider.get_model_info(model)).context_window_tokens
    except ModelNotFoundError:
        return None  # not every service lists all that it takes; the request itself will tell


def _is_sure(count: TokenCount, room_tokens: int) -> bool:
    """Whether the count is on the same side of the limit wherever it may really be."""
    if not count.estimated:
        return True
    if count.error_fraction is None:
        return False
    error_tokens = math.ceil(count.tokens * count.error_fraction)
    if count.tokens <= room_tokens:
        return count.tokens + error_tokens <= room_tokens
    return count.tokens - error_tokens > room_tokens
