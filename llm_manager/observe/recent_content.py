"""The text of one recent request and of its answer: bounded while it comes, masked when shown."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable

from ..messages import Delta, LLMMessage, LLMRequest, TextDelta, ToolCallDelta
from ..policy import Exchange
from ..redaction import redact

# So much more than is shown is kept, that a key at the very end is still known for one.
_MARGIN_CHARACTERS = 256


class Content:
    """What was asked, and what has been answered so far.

    Args:
        request: what is asked.
        limit_characters: how much of each is shown.
    """

    __slots__ = ("_limit", "_pieces", "_prompt", "ended", "room")

    def __init__(self, request: LLMRequest, limit_characters: int) -> None:
        self._limit = limit_characters
        self._prompt = _said(request, limit_characters + _MARGIN_CHARACTERS)
        """What was asked, the newest first."""
        self._pieces: list[str] = []
        self.ended = False
        """Whether no more will come of the answer."""
        self.room = limit_characters + _MARGIN_CHARACTERS
        """How many more characters of the answer are taken; below 0 if there were too many."""

    def add(self, text: str) -> None:
        """Take in a piece of the answer."""
        if self.room > 0:
            self._pieces.append(text[: self.room])
        self.room -= len(text)

    @property
    def prompt(self) -> str:
        shown = _newest(map(redact, self._prompt), self._limit)
        return "\n".join(reversed(shown))

    @property
    def answer(self) -> str:
        return redact("".join(self._pieces))[: self._limit]

    @property
    def cut(self) -> bool:
        """Whether there was more than is shown."""
        asked = sum(map(len, self._prompt)) + len(self._prompt) - 1
        return asked > self._limit or self.room < _MARGIN_CHARACTERS


def kept(exchange: Exchange, content_of: Callable[[LLMRequest], Content | None]) -> Exchange:
    """``exchange``, with what goes through it put into ``content_of`` the request."""

    def keeping(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        content = content_of(request)
        deltas = exchange(request)
        return deltas if content is None else _kept(deltas, content)

    return keeping


async def _kept(
    answer: AsyncGenerator[Delta, None], content: Content
) -> AsyncGenerator[Delta, None]:
    try:
        async for delta in answer:
            if type(delta) is TextDelta:
                if content.room > 0:
                    content.add(delta.text)
            elif type(delta) is ToolCallDelta:
                content.add(f"[{delta.name}] {delta.arguments}" if delta.name else delta.arguments)
            yield delta
    finally:
        content.ended = True
        await answer.aclose()


def _said(request: LLMRequest, room: int) -> list[str]:
    """What a request says, the newest first, as much as finds room."""
    found: list[str] = []
    for message in reversed(request.messages):
        if room <= 0:
            return found
        content = message.content
        text = content if isinstance(content, str) and not message.tool_calls else _text(message)
        text = f"{message.role}: {text[:room]}"
        found.append(text[:room])
        room -= len(text) + 1
    if not (request.prefix or request.suffix or request.texts):
        return found
    around = {"suffix": request.suffix, "prefix": request.prefix}
    filled = (f"{name}: {text}" for name, text in around.items() if text)
    return found + _newest((*filled, *reversed(request.texts)), room)


def _text(message: LLMMessage) -> str:
    calls = (f"[{call.name}] {call.arguments_json}" for call in message.tool_calls)
    return "\n".join(filter(None, (message.text, *calls)))


def _newest(texts: Iterable[str], room: int) -> list[str]:
    """The first of ``texts``, as many as find room with a line feed between them."""
    found: list[str] = []
    for text in texts:
        if room <= 0:
            break
        found.append(text[:room])
        room -= len(text) + 1
    return found
