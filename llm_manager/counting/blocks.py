"""The pieces of a conversation that can be left out of it."""

from __future__ import annotations

from ..messages import Data, LLMMessage


class Block(Data, frozen=True, kw_only=True):
    """Messages that go together: one message, or an assistant's with the results of its tools.

    Attributes:
        indexes: where they stand in the conversation.
        messages: the messages.
    """

    indexes: tuple[int, ...]
    messages: tuple[LLMMessage, ...]


def blocks_of(conversation: tuple[LLMMessage, ...]) -> list[Block]:
    """The blocks that may go, in their order.

    System messages and the last message of the user are none of them; where there is no message
    of the user, the last block stays.
    """
    owners = _owners(conversation)
    together: dict[int, list[int]] = {}
    for index in range(len(conversation)):
        together.setdefault(owners[index], []).append(index)
    users = [i for i, message in enumerate(conversation) if message.role == "user"]
    last = users[-1] if users else owners[-1]
    return [
        Block(indexes=tuple(indexes), messages=tuple(conversation[i] for i in indexes))
        for owner, indexes in sorted(together.items())
        if conversation[owner].role != "system" and owner != last
    ]


def _owners(conversation: tuple[LLMMessage, ...]) -> list[int]:
    """For each message the index of the one that it belongs to: for a result, of its call."""
    owners: list[int] = []
    # Some services number the calls of each answer anew, so the latest one counts.
    calls: dict[str, int] = {}
    for index, message in enumerate(conversation):
        for call in message.tool_calls:
            calls[call.id] = index
        owner = calls.get(message.tool_call_id or "", index) if message.role == "tool" else index
        owners.append(owner)
    return owners
