"""``llm-manager status``: connect, and show how it went - once, or as it changes."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from llm_manager import Event

from .exit_codes import EXIT_FAILED, EXIT_OK
from .feed import EventFeed
from .session import Session, report_nothing_found, screen
from .texts import STATUS_COLUMNS, aligned, described, status_row, symbols, trouble

# Idle providers are asked from time to time; the library itself probes nothing without a reason.
# Those that are lost are tried again by themselves.
_ASK_EVERY_S = 10.0


async def run(session: Session) -> int:
    """Connect what the arguments name or this machine offers; returns the exit code."""
    if session.output.is_terminal and not session.arguments.json:
        found = await _on_screen(session)
    else:
        found = await _in_text(session)
    if not found:
        return report_nothing_found(session)
    usable = all(p.status.usable for p in session.manager.snapshot().providers)
    return EXIT_OK if usable else EXIT_FAILED


async def _connect(session: Session) -> None:
    """Connect all providers; with ``--watch`` stay, until a signal ends it."""
    await session.manager.connect_all()
    while session.arguments.watch:
        await asyncio.sleep(_ASK_EVERY_S)
        providers = session.manager.providers.values()
        await asyncio.gather(*(p.is_available() for p in providers if p.usable))


async def _on_screen(session: Session) -> bool:
    drawing, marks = screen(), symbols(session.output)
    display = drawing.LiveDisplay(
        lambda: drawing.status_view(session.manager.snapshot().providers, marks)
    )

    def tell(event: Event) -> None:
        text = described(event, marks.arrow)
        if text is not None:
            display.print(drawing.event_line(event, text, clock(event)))

    if not await session.add_providers():
        return False
    with ExitStack() as shown:
        shown.enter_context(display)
        if session.arguments.watch:
            # How it all ends when the user leaves is no news.
            shown.callback(EventFeed(session.manager, tell).close)
        await _connect(session)
    return True


async def _in_text(session: Session) -> bool:
    if session.arguments.watch:
        # Before anything happens, so that nothing is missed.
        EventFeed(session.manager, lambda event: _write_event(session, event))
    if not await session.add_providers():
        return False
    await _connect(session)
    snapshot = session.manager.snapshot()
    if session.arguments.json:
        session.output.document(snapshot.to_dict())
        return True
    for line in aligned(STATUS_COLUMNS, map(status_row, snapshot.providers)):
        session.output.line(line)
    marks = symbols(session.output)
    for provider in snapshot.providers:
        found = trouble(provider)
        if found is not None:
            session.output.item(marks.bad, found[0], style="red", level=0)
            if found[1]:
                session.output.item(marks.arrow, found[1], style="dim", level=1)
    return True


def _write_event(session: Session, event: Event) -> None:
    if session.arguments.json:
        session.output.record(event.to_dict())
        return
    text = described(event, symbols(session.output).arrow)
    if text is not None:
        session.output.line(f"{clock(event)}  {event.name:<21} {event.provider_id}  {text}")


def clock(event: Event) -> str:
    """When an event happened, in the time of this place."""
    return f"{event.at.astimezone():%H:%M:%S}"
