"""The limits of a budget, and what is said when one of them would be exceeded."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from ..checks import check_optional_number
from ..errors import BudgetExceededError
from ..messages import Data
from ..prices import as_picodollars, as_usd
from . import Host
from .budget_account import Account, Accounts, Amount

Scope = Literal["request", "conversation", "day"]
_SCOPES: tuple[Scope, ...] = ("request", "conversation", "day")
# Places in an `Amount`.
_TOKENS, _USD = 0, 1
# More than anybody has; sums of such amounts are still exact.
_MAX_USD = 1e9
_HINTS = {
    "request": "shorten the prompt, or lower max_tokens",
    "conversation": "begin another conversation, or raise the limit",
    "day": "ask again after that, or raise the limit",
}


class BudgetUse(Data, frozen=True, kw_only=True):
    """What is spent of a budget.

    Attributes:
        tokens: spent, of prompts and answers.
        usd: spent, in US dollars; None if no limit is in US dollars, for then nobody computes it.
        reserved_tokens, reserved_usd: what running requests might spend.
    """

    tokens: int
    usd: float | None
    reserved_tokens: int
    reserved_usd: float | None


class BudgetLeft(Data, frozen=True, kw_only=True):
    """What is left of a budget.

    Attributes:
        tokens, usd: what is left; None without such a limit.
        resets_at: when the budget begins anew, UTC; None if it does not.
    """

    tokens: int | None
    usd: float | None
    resets_at: datetime | None


class Limits:
    """Up to six limits: of tokens and of US dollars, per request, conversation and day.

    Raises:
        InvalidParameterError: one is below zero, or no number.
    """

    def __init__(self, **limits: float | None) -> None:
        for name, limit in limits.items():
            tokens = name.startswith("tokens")
            high = float("inf") if tokens else _MAX_USD
            check_optional_number(f"max_{name}", limit, low=0, high=high, whole=tokens)
        self._tokens = {scope: limits[f"tokens_per_{scope}"] for scope in _SCOPES}
        self._usd = {scope: limits[f"usd_per_{scope}"] for scope in _SCOPES}
        self.in_usd = any(limit is not None for limit in self._usd.values())
        self._given: list[tuple[Scope, int, int]] = []
        for scope in _SCOPES:
            in_tokens, in_usd = self._tokens[scope], self._usd[scope]
            if in_tokens is not None:
                self._given.append((scope, _TOKENS, int(in_tokens)))
            if in_usd is not None:
                self._given.append((scope, _USD, as_picodollars(in_usd)))

    def check(
        self, needed: Amount, today: Account, conversation: Account | None, accounts: Accounts
    ) -> None:
        """Refuse what does not fit.

        Raises:
            BudgetExceededError: a limit would be exceeded; ``retry_at`` says when that is over.
        """
        for scope, unit, limit in self._given:
            more, taken = needed[unit], 0
            if scope != "request":
                account = today if scope == "day" else conversation
                if account is None:
                    continue
                taken = account.spent[unit] + account.reserved[unit]
            if taken + more > limit:
                retry_at = accounts.next_day if scope == "day" and more <= limit else None
                raise _exceeded(scope, unit, limit, taken, more, retry_at)

    def use(self, account: Account) -> BudgetUse:
        """What is spent on ``account``."""
        spent, reserved = account.spent, account.reserved
        return BudgetUse(
            tokens=spent[_TOKENS],
            usd=as_usd(spent[_USD]) if self.in_usd else None,
            reserved_tokens=reserved[_TOKENS],
            reserved_usd=as_usd(reserved[_USD]) if self.in_usd else None,
        )

    def left(self, scope: Scope, account: Account, resets_at: datetime | None) -> BudgetLeft:
        """What ``account`` may still take."""
        tokens, usd = self._tokens[scope], self._usd[scope]
        taken_tokens, taken = map(sum, zip(account.spent, account.reserved, strict=True))
        return BudgetLeft(
            tokens=None if tokens is None else max(int(tokens) - taken_tokens, 0),
            usd=None if usd is None else as_usd(max(as_picodollars(usd) - taken, 0)),
            resets_at=resets_at,
        )


def price_unknown(host: Host, model: str) -> BudgetExceededError:
    """What is said of a model whose price nobody knows, where it has to be known."""
    place = f"{host.status.provider_id}/{model}"
    return BudgetExceededError(
        f"not sent: the price of {place!r} is not known, and the budget is in US dollars",
        code="price_unknown",
        hint=f'state it: BudgetPolicy(prices=PriceBook({{"{place}": {{"input_usd": ..., '
        '"output_usd": ...}})), or let such requests pass: unknown="allow"',
    )


def _exceeded(
    scope: Scope, unit: int, limit: int, taken: int, needed: int, retry_at: datetime | None
) -> BudgetExceededError:
    in_tokens = unit == _TOKENS

    def shown(amount: int) -> str:
        return f"{amount:,} tokens" if in_tokens else f"${as_usd(amount):,.6f}"

    def plain(amount: int) -> float:
        return amount if in_tokens else as_usd(amount)

    used = f", of which {shown(taken)} are spent or reserved" if scope != "request" else ""
    hint = _HINTS["request"] if needed > limit else _HINTS[scope]
    return BudgetExceededError(
        f"not sent: it might take {shown(needed)}, and the budget is {shown(limit)} "
        f"per {scope}{used}",
        budget=f"{'tokens' if in_tokens else 'usd'}_per_{scope}",
        limit=plain(limit),
        used=plain(taken),
        needed=plain(needed),
        retry_at=retry_at,
        hint=hint,
    )
