"""The hard cases of stopping: whoever stops waits for nothing, and the server sees it at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm_manager import BaseLLMProvider, ConcurrencyLimit, RequestCancelledError
from llm_manager.testing import EventRecorder, Reply, ScriptedPeer

from ..faults.dialects import DIALECTS, FIRST, MODEL, Dialect

# How long a server may wait to see it: far less than any time limit of a request.
SEEN_WITHIN_S = 2.0


@pytest.fixture(params=DIALECTS, ids=lambda dialect: dialect.name)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return request.param


@contextlib.asynccontextmanager
async def connected(
    dialect: Dialect, answer: Reply, **settings: Any
) -> AsyncIterator[tuple[BaseLLMProvider, ScriptedPeer]]:
    """A provider of that kind that is connected, and its server, which answers every request so."""
    async with ScriptedPeer(fallback=answer) as peer:
        for path, content in dialect.questions.items():
            peer.route(f"{dialect.below}{path}", Reply.json(content))
        provider = dialect.new(
            base_url=f"{peer.base_url}{dialect.below}", api_key="sk-1", **settings
        )
        await provider.connect()
        yield provider, peer
        await provider.close()


def silent_after_the_first_piece(dialect: Dialect) -> Reply:
    return Reply(
        headers={"content-type": dialect.media},
        body=[dialect.begins],
        framing="chunked",
        ending="hang",
    )


@pytest.mark.parametrize("begun", [False, True], ids=["before the first byte", "in the middle"])
async def test_whatever_is_stopped_its_server_sees_the_connection_close(
    dialect: Dialect, begun: bool
) -> None:
    silent = silent_after_the_first_piece(dialect) if begun else Reply(instead="hang")
    async with connected(dialect, silent) as (provider, peer):
        record = EventRecorder(provider)
        asked = len(peer.requests)
        heard = asyncio.Event()
        stream = provider.stream_completion(MODEL, "Hi", callback=lambda event: heard.set())
        answer = asyncio.ensure_future(stream)
        await (heard.wait() if begun else peer.wait_for_request(asked + 1))
        stream.cancel()
        with pytest.raises(RequestCancelledError) as caught:
            await answer
        partial = caught.value.partial
        assert (partial.text if partial else "") == (FIRST if begun else "")
        gone = await peer.wait_for_disconnect(timeout_s=SEEN_WITHIN_S)
        assert gone == peer.requests[-1].connection
        assert record.outcomes == ["cancelled"]
        assert (provider.status.status, provider.status.in_flight) == ("connected", 0)


async def test_a_request_without_a_stream_is_stopped_as_quickly(dialect: Dialect) -> None:
    async with connected(dialect, Reply(instead="hang")) as (provider, peer):
        asked = len(peer.requests)
        answer = asyncio.create_task(provider.generate_completion(MODEL, "Hi"))
        await peer.wait_for_request(asked + 1)
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
        gone = await peer.wait_for_disconnect(timeout_s=SEEN_WITHIN_S)
        assert gone == peer.requests[-1].connection
        assert (provider.status.status, provider.status.in_flight) == ("connected", 0)


@pytest.mark.parametrize("dropped", [False, True], ids=["break", "dropped"])
async def test_whoever_goes_away_in_the_middle_releases_the_connection(
    dialect: Dialect, dropped: bool
) -> None:
    silent = silent_after_the_first_piece(dialect)
    async with connected(dialect, silent) as (provider, peer):
        record = EventRecorder(provider)
        if dropped:
            iterator = aiter(provider.stream_completion(MODEL, "Hi"))
            await anext(iterator)
            del iterator
            gc.collect()
        else:
            async for _ in provider.stream_completion(MODEL, "Hi"):
                break
        finished = await record.wait_for("requestFinished")
        assert (finished.outcome, finished.error) == ("abandoned", None)
        gone = await peer.wait_for_disconnect(timeout_s=SEEN_WITHIN_S)
        assert gone == peer.requests[-1].connection
        assert (provider.status.status, provider.status.in_flight) == ("connected", 0)


async def test_cancelling_twice_fifty_times_leaves_all_ten_places_usable(
    dialect: Dialect,
) -> None:
    silent, ten = Reply(instead="hang"), (ConcurrencyLimit(10, 0),)
    async with connected(dialect, silent, policies=ten) as (provider, peer):
        asked = len(peer.requests)
        for turn in range(50):
            answer = asyncio.ensure_future(provider.generate_completion(MODEL, "Hi"))
            await peer.wait_for_request(asked + turn + 1)
            answer.cancel()
            await asyncio.sleep(0)
            answer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answer
        await peer.wait_for_disconnect(50)
        complete = dialect.begins + dialect.goes_on + dialect.ends
        media = {"content-type": dialect.media}
        peer.script(*[Reply(headers=media, body=[complete], framing="chunked")] * 10)
        answers = await asyncio.gather(
            *(provider.generate_completion(MODEL, "Hi") for _ in range(10))
        )
        assert {answer.text for answer in answers} == {"Hello world"}
        assert provider.status.in_flight == 0
