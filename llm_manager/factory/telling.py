"""What a function tells to a callback, as something to iterate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from ..messages import LLMStreamEvent
from ..stream import StreamCallback

# How many pieces of an answer may wait for their reader.
_AHEAD = 64


async def texts_told(
    run: Callable[[StreamCallback], Coroutine[Any, Any, None]],
) -> AsyncGenerator[str, None]:
    """The texts that ``run`` tells to the callback that it is given, while it runs.

    Closing the generator cancels it.
    """
    texts: asyncio.Queue[str | None] = asyncio.Queue()
    room = asyncio.Semaphore(_AHEAD)

    async def tell(event: LLMStreamEvent) -> None:
        if event.kind == "text":
            await room.acquire()
            texts.put_nowait(event.text)

    task = asyncio.create_task(run(tell))
    task.add_done_callback(lambda _: texts.put_nowait(None))
    try:
        while (text := await texts.get()) is not None:
            room.release()
            yield text
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])
