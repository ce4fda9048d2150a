"""Every scenario file has the same outcome with ``await`` and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from .format import ScenarioError, parse, read
from .player import play_async, play_sync

FILES = sorted((Path(__file__).parent / "data").glob("*.json"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@each_file
async def test_the_asynchronous_interface_plays(path: Path) -> None:
    await play_async(read(path))


@each_file
def test_the_synchronous_interface_plays(path: Path) -> None:
    play_sync(read(path))


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 20
    assert len({read(path).shows for path in FILES}) == len(FILES)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "bad.json: Input data was truncated"),
        ('{"shows": "x", "steps": []}', "missing required field `events`"),
        (
            '{"shows": "x", "events": [], "steps": [{"servr": "up"}]}',
            "unknown field `servr` - at `$.steps[0]`",
        ),
        (
            '{"shows": "x", "events": [], "steps": [{"server": {"chat": {"statsu": 1}}}]}',
            "unknown field `statsu` - at `$.steps[0].server.chat`",
        ),
        (
            '{"shows": "x", "events": [], "steps": [{"call": "conect"}]}',
            "Invalid enum value 'conect' - at `$.steps[0].call`",
        ),
        (
            '{"shows": "x", "events": [], "steps": [{"until": {}, "call": "connect"}]}',
            "this one does ['call', 'until'] - at `$.steps[0]`",
        ),
        (
            '{"shows": "x", "events": [], "steps": [{"server": "up"}, {"note": "?"}]}',
            "this one does nothing - at `$.steps[1]`",
        ),
        (
            '{"shows": "x", "events": [], "steps": [{"end": "first"}]}',
            "nothing was begun as 'first' - at `$.steps[0]`",
        ),
        (
            '{"shows": "x", "events": [], "steps": [{"until": {}, "text": "Hello"}]}',
            "only a call or its end has text - at `$.steps[0]`",
        ),
        (
            '{"shows": "x", "events": [], "steps": [{"clock": {"advance": 1, "suspend": 1}}]}',
            "one way at a time - at `$.steps[0]`",
        ),
    ],
)
def test_a_mistake_in_a_file_names_its_place(text: str, says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(text.encode(), "bad.json")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ('{"expect": {"status": "connected"}}', "('status', 'disconnected')"),
        ('{"call": "connect"}, {"expect": {"error": "refused"}}', "('error', None)"),
        (
            '{"call": "connect", "raises": {"type": "LLMError"}}',
            "step 0: wanted Failure(type='LLMError'",
        ),
        ('{"call": "request", "text": "Goodbye"}', "'Hello there.'"),
        ('{"call": "request", "attempts": 2}', "step 0: wanted 2, but it is 1"),
        ('{"call": "is_available", "returns": false}', "wanted False, but it is True"),
        ('{"saw": {"chats": 1}}', "('chats', 0)"),
        ('{"call": "connect"}', "'connected (recovered)'"),
    ],
)
async def test_a_scenario_that_tells_it_wrongly_fails(steps: str, says: str) -> None:
    scenario = parse(f'{{"shows": "x", "events": [], "steps": [{steps}]}}'.encode(), "wrong.json")
    with pytest.raises(AssertionError) as caught:
        await play_async(scenario)
    assert says in str(caught.value)


async def test_an_argument_that_a_call_does_not_take_names_its_step() -> None:
    steps = '[{"call": "connect"}, {"call": "disconnect", "with": {"drain_s": 1}}]'
    scenario = parse(f'{{"shows": "x", "events": [], "steps": {steps}}}'.encode(), "wrong.json")
    with pytest.raises(ScenarioError, match=r"step 1: .* 'drain_s'"):
        await play_async(scenario)
