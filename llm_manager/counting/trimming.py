"""`trim_messages`: what to leave out of a conversation so that it fits, and what that is.

Nothing is left out by surprise.  System messages and the last message of the user stay, a tool
call and its results go together, the order is kept, and the result tells what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias, get_args

import msgspec

from ..asking import Options
from ..checks import check_choice, check_number, shown
from ..errors import ContextWindowExceededError, InvalidParameterError
from ..manager import LLMProviderManager
from ..messages import Data, LLMMessage, LLMRequest, Messages, as_messages, as_options
from ..provider import BaseLLMProvider
from ..tokens import estimate_prompt
from .blocks import Block, blocks_of
from .fitting import provider_of, reserve_of, window_of
from .shortening import shortened_texts

StrategyName: TypeAlias = Literal["drop_oldest", "drop_middle", "truncate_longest"]
Strategy: TypeAlias = StrategyName | Callable[[Sequence[Block]], Iterable[Block]]
"""What goes first: one of the names, or a function that puts the blocks that may go into the order
in which they shall."""
Count: TypeAlias = Callable[[tuple[LLMMessage, ...]], int]


class Trimmed(Data, frozen=True, kw_only=True):
    """A conversation that fits.

    Attributes:
        messages: what is left, in its order.
        dropped: what was left out, in its order.
        shortened: messages that were cut, as they were before.
        tokens: how many tokens are left, by the count that was used.
        max_tokens: how many there may be.
    """

    messages: tuple[LLMMessage, ...]
    dropped: tuple[LLMMessage, ...] = ()
    shortened: tuple[LLMMessage, ...] = ()
    tokens: int
    max_tokens: int


def trim_messages(
    messages: Messages,
    max_tokens: int | None = None,
    *,
    provider: BaseLLMProvider | LLMProviderManager | None = None,
    model: str | None = None,
    options: Options = None,
    strategy: Strategy = "drop_oldest",
    count: Count | None = None,
) -> Trimmed:
    """Leave out as little of a conversation as is needed; what fits stays as it is.

    Asks nobody: tokens are estimated, unless ``count`` counts them.  Where the limit is the window
    of a model, the estimate's error bound is kept free, if there is one.

    Args:
        messages: the conversation.
        max_tokens: how many tokens may be left; None: what the window of ``model`` has room for
            beside the answer (the option ``max_tokens``).
        provider: whose model it is, or a manager; also for its way to count pictures.
        model: as in a request; None: the active one.
        options: what the request will ask for; tools take room.
        strategy: ``drop_oldest``; ``drop_middle`` keeps the beginning and the end;
            ``truncate_longest`` cuts the middle out of the longest texts and drops nothing; or a
            function, see `Strategy`.
        count: how many tokens a conversation has, e.g. with a tokenizer of your own.

    Raises:
        InvalidParameterError: an argument is wrong, or the window of the model is not known.
        ContextWindowExceededError: what has to stay does not fit; the text has the figures.
    """
    conversation = as_messages(messages)
    order = _order_of(strategy)
    ruler = _Ruler(provider, model, options, count)
    limit = ruler.limit(max_tokens)
    if ruler.measure(conversation) <= limit:
        return ruler.checked(messages=conversation, max_tokens=limit)
    if order is None:
        cut = shortened_texts(conversation, lambda result: ruler.measure(result) <= limit)
        before = tuple(m for m, now in zip(conversation, cut, strict=True) if m is not now)
        return ruler.checked(messages=cut, shortened=before, max_tokens=limit)
    gone = _indexes_to_drop(conversation, order, lambda rest: ruler.measure(rest) <= limit)
    return ruler.checked(
        messages=_without(conversation, gone),
        dropped=tuple(conversation[index] for index in sorted(gone)),
        max_tokens=limit,
    )


def _order_of(strategy: Strategy) -> Callable[[Sequence[Block]], Iterable[Block]] | None:
    if callable(strategy):
        return strategy
    check_choice("strategy", strategy, get_args(StrategyName))
    if strategy is None:
        raise InvalidParameterError("strategy must be one of them or a function, got None")
    return _ORDERS[strategy]


def _from_the_middle(blocks: Sequence[Block]) -> Iterable[Block]:
    middle = (len(blocks) - 1) / 2
    return [blocks[i] for i in sorted(range(len(blocks)), key=lambda i: abs(i - middle))]


_ORDERS: dict[str, Callable[[Sequence[Block]], Iterable[Block]] | None] = {
    "drop_oldest": list,
    "drop_middle": _from_the_middle,
    "truncate_longest": None,
}


def _indexes_to_drop(
    conversation: tuple[LLMMessage, ...],
    order: Callable[[Sequence[Block]], Iterable[Block]],
    fits: Callable[[tuple[LLMMessage, ...]], bool],
) -> set[int]:
    """The messages of as many blocks, in their order, as have to go; of all, if that is too few."""
    blocks = blocks_of(conversation)
    going = _checked(order(blocks), blocks)

    def indexes(number: int) -> set[int]:
        return {index for block in going[:number] for index in block.indexes}

    # Each block that goes makes it shorter, so the smallest number is found by halving.
    low, high = 0, len(going)
    while low < high:
        middle = (low + high) // 2
        rest = _without(conversation, indexes(middle))
        if rest and fits(rest):
            high = middle
        else:
            low = middle + 1
    return indexes(high)


def _without(conversation: tuple[LLMMessage, ...], gone: set[int]) -> tuple[LLMMessage, ...]:
    return tuple(m for index, m in enumerate(conversation) if index not in gone)


def _checked(given: object, blocks: Sequence[Block]) -> list[Block]:
    if not isinstance(given, Iterable):
        raise InvalidParameterError(f"the strategy gave {shown(given)} instead of blocks")
    going = list(given)
    known = {block.indexes for block in blocks}
    for block in going:
        if not isinstance(block, Block) or block.indexes not in known:
            raise InvalidParameterError(
                f"the strategy gave {shown(block)}, which is none of the blocks that may go"
            )
    return going


class _Ruler:
    """Measures conversations."""

    def __init__(
        self,
        target: BaseLLMProvider | LLMProviderManager | None,
        model: str | None,
        options: Options,
        count: Count | None,
    ) -> None:
        if count is not None and not callable(count):
            raise InvalidParameterError(f"count must be a function, got {shown(count)}")
        self._count = count
        self._options = options
        self._provider: BaseLLMProvider | None = None
        self._model = model
        if target is not None:
            if not isinstance(target, BaseLLMProvider | LLMProviderManager):
                raise InvalidParameterError(
                    f"provider must be a provider or a manager, got {shown(target)}"
                )
            self._provider, self._model = provider_of(target, model)
        self._keeps_bound = False
        self._request = LLMRequest(id="", model=self._model or "", options=as_options(options))

    def limit(self, max_tokens: int | None) -> int:
        if max_tokens is not None:
            check_number("max_tokens", max_tokens, low=1, whole=True)
            return max_tokens
        provider = self._provider
        if provider is None:
            raise InvalidParameterError(
                "neither max_tokens nor provider says how long the conversation may be"
            )
        window = window_of(provider, self._model)
        if window is None:
            raise InvalidParameterError(
                f"the context window of {self._model!r} is not known",
                provider_id=provider.id,
                hint="read the model list first (await provider.get_model_info(...)), or pass "
                "max_tokens",
            )
        reserve = reserve_of(provider, self._options)
        if reserve >= window:
            raise ContextWindowExceededError(
                f"the answer may have {reserve} tokens, and prompt and answer together {window}",
                provider_id=provider.id,
                hint="lower the option max_tokens",
            )
        self._keeps_bound = True
        return window - reserve

    def checked(
        self,
        *,
        messages: tuple[LLMMessage, ...],
        max_tokens: int,
        dropped: tuple[LLMMessage, ...] = (),
        shortened: tuple[LLMMessage, ...] = (),
    ) -> Trimmed:
        """What came out.

        Raises:
            ContextWindowExceededError: it does not fit.
        """
        tokens = self.measure(messages)
        if tokens > max_tokens:
            raise ContextWindowExceededError(
                f"what has to stay of the conversation, {len(messages)} messages, has about "
                f"{tokens} tokens; there is room for {max_tokens}",
                provider_id=None if self._provider is None else self._provider.id,
            )
        return Trimmed(
            messages=messages,
            dropped=dropped,
            shortened=shortened,
            tokens=tokens,
            max_tokens=max_tokens,
        )

    def measure(self, messages: tuple[LLMMessage, ...]) -> int:
        """How many tokens a conversation has; with the bound, where that is kept free."""
        if self._count is not None:
            return self._count(messages)
        rule = None if self._provider is None else self._provider.image_rule
        request = msgspec.structs.replace(self._request, messages=messages)
        estimate = estimate_prompt(request, rule)
        margin = (estimate.error_fraction or 0.0) if self._keeps_bound else 0.0
        return round(estimate.tokens * (1 + margin))
