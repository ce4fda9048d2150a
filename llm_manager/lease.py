"""What one opening of a provider took, counted by the requests that use it.

New settings open something new beside it; what they replace is closed when its last request has
ended.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

Close = Callable[[], Coroutine[Any, Any, None]]


class Lease:
    """Counts the users of what was opened.  Whoever changes it holds the emitter's lock.

    Attributes:
        users: how many requests use it.
        close: set when it was replaced: closes it.
    """

    __slots__ = ("close", "users")

    def __init__(self) -> None:
        self.users = 0
        self.close: Close | None = None

    @property
    def over(self) -> bool:
        """Whether it was replaced and nobody uses it any more."""
        return self.close is not None and self.users == 0


class Ticket:
    """What a request holds while it runs.  Whoever changes it holds the emitter's lock.

    Attributes:
        epoch: to which its evidence belongs: the one in which it was sent.
        leases: what it uses; a request that is sent again may use more than one.
    """

    __slots__ = ("epoch", "leases")

    def __init__(self) -> None:
        self.epoch = 0
        self.leases: list[Lease] = []

    def renew(self, epoch: int, lease: Lease) -> None:
        """From now on it uses ``lease``."""
        self.epoch = epoch
        if lease not in self.leases:
            self.leases.append(lease)
            lease.users += 1

    def hand_back(self) -> list[Lease]:
        """It uses nothing any more; returns what has to be closed now."""
        leases, self.leases = self.leases, []
        for lease in leases:
            lease.users -= 1
        return [lease for lease in leases if lease.over]
