"""`BalancedProvider`: one of several servers or keys of one kind, whoever has the most time."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any

from ..config import KeySource, Secret
from ..errors import ConfigurationError, InvalidParameterError, LLMError
from ..messages import Delta, KeepAliveDelta, LLMRequest
from ..provider import BaseLLMProvider
from ..registry import create_provider
from ..settings.references import is_reference
from .base import CompositeProvider
from .failures import no_answer
from .fallback import FALLBACK_ON, Causes
from .members import is_worth_asking
from .models import Ask
from .passing import answer_of, is_over, stream_of
from .seats import Member
from .strategies import Strategy, by_conversation, chooser

# A failed request goes to one other member, so that an outage of all does not multiply.
_TRIES = 2


class BalancedProvider(CompositeProvider):
    """Gives each request to one of several members that can answer it equally well.

    Members that are lost, cooling down or whose circuit is open get nothing while others can
    answer.  A request that fails before the first piece of its answer, for a reason that
    `FALLBACK_ON` has, is given to another member, once.

    Args:
        members: see `CompositeProvider`; or None with ``of``.
        of: the kind of the members to make, one for each of ``base_urls`` or ``api_keys``.
        base_urls: where they are.
        api_keys: their keys, or one for all of them; references such as ``env:NAME`` are resolved.
        member_settings: what all of them are made with besides.
        strategy: ``least_busy`` (fewest running requests, in turn where equal), ``latency`` (the
            shortest time to the first piece lately, weighted with what is running),
            ``round_robin``, or a function that is given the request and the members that can be
            asked, and returns one of them.
        sticky: keep requests with the same ``conversation_id`` on the same member while it can
            answer, which has the conversation in its prompt cache.
        settings: ``models`` of `CompositeProvider`, and those of `BaseLLMProvider`.

    Raises:
        InvalidParameterError: an argument is wrong, or does not go with another.
    """

    kind = "balanced"
    kept_on_update = CompositeProvider.kept_on_update | {"_load"}

    def __init__(
        self,
        members: Collection[Member] | None = None,
        *,
        of: str | None = None,
        base_urls: Sequence[str] = (),
        api_keys: Sequence[KeySource] = (),
        member_settings: Mapping[str, Any] | None = None,
        strategy: Strategy = "least_busy",
        sticky: bool = False,
        **settings: Any,
    ) -> None:
        self._keys = tuple(api_keys)
        self._makes_members = of is not None
        if (members is None) == (of is None):
            raise InvalidParameterError(
                "give either members, or of with base_urls or api_keys",
                hint="BalancedProvider(of='vllm', base_urls=['http://gpu1:8000/v1', ...])",
            )
        if of is not None:
            own_id = settings.get("id") or self.kind
            members = _made(own_id, of, base_urls, self._keys, member_settings or {})
        super().__init__(members or (), **settings)
        self._choose = chooser(strategy)
        self._sticky = bool(sticky)
        self._load: Counter[BaseLLMProvider] = Counter()
        self._causes = Causes(FALLBACK_ON)

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        began_s = monotonic()
        asks = self._asks(request)
        failures: list[tuple[str, LLMError]] = []
        while asks and len(failures) < _TRIES:
            ask = self._chosen(asks, request)
            asks.remove(ask)
            begun, sent_s = False, monotonic()
            self._load[ask.member] += 1
            try:
                stream = stream_of(ask.member, ask.model, request, began_s)
                async with aclosing(answer_of(ask.member, stream)) as deltas:
                    async for delta in deltas:
                        if not begun and type(delta) is not KeepAliveDelta:
                            begun = True
                            self._choose.answered(ask.member, monotonic() - sent_s)
                        yield delta
            except LLMError as error:
                error.in_context(provider_id=ask.member.id)
                if begun or is_over(request, began_s) or not self._causes.lead_on(error):
                    raise
                failures.append((ask.member.id, error))
            else:
                return
            finally:
                self._load[ask.member] -= 1
                if not self._load[ask.member]:
                    del self._load[ask.member]  # or it would keep members that have been replaced
        raise no_answer(failures, self.id)

    def _chosen(self, asks: list[Ask], request: LLMRequest) -> Ask:
        ready = [ask for ask in asks if is_worth_asking(ask.member)] or asks
        of_member = {ask.member: ask for ask in ready}
        conversation_id = request.options.conversation_id
        if self._sticky and conversation_id is not None:
            return of_member[by_conversation(conversation_id, list(of_member))]
        member = self._choose(request, list(of_member), self._load)
        if member not in of_member:
            raise InvalidParameterError(
                f"the strategy chose {member!r:.60}, which is none of the members that it was given"
            )
        return of_member[member]

    def _unpicklable(self) -> Iterable[str]:
        return [key for key in self._keys if isinstance(key, str) and not is_reference(key)]

    def __reduce__(self) -> tuple[Any, ...]:
        if any(isinstance(key, Secret) for key in self._keys):
            raise ConfigurationError(
                f"{self.id} is not pickled, because its settings hold a key",
                provider_id=self.id,
                hint="give references, such as 'env:NAME'",
            )
        return super().__reduce__()

    def _settings_of_members(self) -> frozenset[str]:
        return frozenset({"members", "of", "base_urls", "api_keys", "member_settings"})


def _made(
    id: str,
    kind: str,
    base_urls: Sequence[str],
    api_keys: Sequence[KeySource],
    settings: Mapping[str, Any],
) -> list[Member]:
    """One provider of ``kind`` for each address or key."""
    for name, value in (("base_urls", base_urls), ("api_keys", api_keys)):
        if isinstance(value, str):
            raise InvalidParameterError(f"{name} must be a list")
    count = max(len(base_urls), len(api_keys))
    if not count:
        raise InvalidParameterError("of needs base_urls or api_keys: one for each member")
    if any(len(given) not in (0, 1, count) for given in (base_urls, api_keys)):
        raise InvalidParameterError(
            f"{len(base_urls)} base_urls do not go with {len(api_keys)} api_keys",
            hint="give one key for each address, or one for all",
        )
    made: list[Member] = []
    for number in range(count):
        own = {**settings, "id": f"{id}-{number + 1}"}
        if base_urls:
            own["base_url"] = base_urls[number % len(base_urls)]
        if api_keys:
            own["api_key"] = api_keys[number % len(api_keys)]
        made.append(create_provider(kind, **own))
    return made
