"""What is spent and reserved of a budget: one account for a day, and one for each conversation."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Annotated, TypeAlias

import msgspec

from ..clock import Clock
from ..errors import InvalidParameterError

Amount: TypeAlias = tuple[int, int]
"""Tokens, and picodollars, in which sums are exact.  A plain tuple: several are made for each
request."""

# Today's, and the one before or after it, for a clock that is set back at midnight.
_DAYS = 2


class Account:
    """What one day, or one conversation, has spent, and what its running requests might spend.

    Attributes:
        spent, reserved: tokens and picodollars, as in an `Amount`, but to be changed in place.
    """

    __slots__ = ("reserved", "spent")

    def __init__(self) -> None:
        self.spent = [0, 0]
        self.reserved = [0, 0]


class Reservation:
    """What is kept for one request, in the accounts of its day and of its conversation."""

    __slots__ = ("_accounts", "amount")

    def __init__(self, amount: Amount, accounts: tuple[Account, ...]) -> None:
        self.amount = amount
        self._accounts = accounts
        tokens, picodollars = amount
        for account in accounts:
            reserved = account.reserved
            reserved[0] += tokens
            reserved[1] += picodollars

    def settle(self, tokens: int, picodollars: int) -> None:
        """Put what the request has spent in its place."""
        kept_tokens, kept_picodollars = self.amount
        for account in self._accounts:
            reserved, spent = account.reserved, account.spent
            reserved[0] -= kept_tokens
            reserved[1] -= kept_picodollars
            spent[0] += tokens
            spent[1] += picodollars


_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class _Saved(msgspec.Struct):
    """What a run leaves to the next one: amounts by day and by conversation, the oldest first."""

    days: dict[date, tuple[_Count, _Count]]
    conversations: dict[str, tuple[_Count, _Count]]


def _taken(account: Account) -> Amount:
    (tokens, picodollars), kept = account.spent, account.reserved
    return tokens + kept[0], picodollars + kept[1]


def _is_text(id: str) -> bool:
    """Whether it can be written: half of a character cannot."""
    try:
        return bool(id.encode())
    except UnicodeEncodeError:
        return False


def _add(account: Account, amount: Amount) -> None:
    account.spent[0] += amount[0]
    account.spent[1] += amount[1]


class Accounts:
    """The accounts of a policy; a new one for each day.

    Args:
        clock: what time it is.
        timezone: where days begin at midnight.
        max_conversations: so many conversations are remembered, the latest ones.
    """

    def __init__(self, clock: Clock, timezone: tzinfo, max_conversations: int) -> None:
        self._wall = clock.wall
        self._timezone = timezone
        self._max_conversations = max_conversations
        self._conversations: OrderedDict[str, Account] = OrderedDict()
        self._days: dict[date, Account] = {}
        self._today = Account()
        self._begins_s = self._ends_s = 0.0

    @property
    def today(self) -> Account:
        """The account of the present day."""
        now_s = self._wall()
        if not self._begins_s <= now_s < self._ends_s:
            day = datetime.fromtimestamp(now_s, UTC).astimezone(self._timezone).date()
            self._today = self._days.setdefault(day, Account())
            if len(self._days) > _DAYS:
                del self._days[next(iter(self._days))]
            self._begins_s = self._midnight(day).timestamp()
            self._ends_s = self._midnight(day + timedelta(days=1)).timestamp()
        return self._today

    @property
    def next_day(self) -> datetime:
        """When the present day ends, UTC."""
        return datetime.fromtimestamp(self._ends_s, UTC)

    def of_conversation(self, conversation_id: str) -> Account:
        """The account of a conversation, which becomes the latest one."""
        account = self._conversations.get(conversation_id)
        if account is None:
            account = self._conversations[conversation_id] = Account()
            if len(self._conversations) > self._max_conversations:
                self._conversations.popitem(last=False)
        else:
            self._conversations.move_to_end(conversation_id)
        return account

    def known_conversation(self, conversation_id: str) -> Account:
        """The same for who only looks."""
        return self._conversations.get(conversation_id) or Account()

    def saved(self) -> bytes:
        """What is taken, as JSON; what still runs counts with what it might spend."""
        named = {day: _taken(account) for day, account in self._days.items()}
        conversations = {
            id: _taken(account) for id, account in self._conversations.items() if _is_text(id)
        }
        return msgspec.json.encode(_Saved(days=named, conversations=conversations))

    def restore(self, saved: str | bytes) -> None:
        """Add what an earlier run has spent.

        Raises:
            InvalidParameterError: it is not what `saved` gave.
        """
        try:
            known = msgspec.json.decode(saved, type=_Saved)
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as error:
            raise InvalidParameterError(
                f"what was saved of a budget cannot be read: {error}",
                hint="give what saved() has returned, unchanged",
            ) from None
        today = self.today
        for day, amount in known.days.items():
            account = self._days.get(day)
            if account is today:  # an earlier day is over, whatever was spent
                _add(account, amount)
        for id, amount in known.conversations.items():
            _add(self.of_conversation(id), amount)

    def reset(self) -> None:
        """Begin anew; what runs settles with the accounts that it began with."""
        self._conversations.clear()
        self._days.clear()
        self._ends_s = 0.0

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(), self._timezone)
