"""Tables and live displays on a terminal, with rich.

Only a terminal needs this module: pipes get plain text or JSON, so rich may be missing there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from llm_manager import Event, LLMProviderManager, LLMStreamEvent, ProviderSnapshot, StatusChanged

from .output import harmless, one_line
from .texts import STATUS_COLUMNS, STYLE_OF_STATUS, Symbols, described, status_row, trouble

_REFRESH_EVERY_S = 0.1


def console() -> Console:
    """The terminal; plain where the user or the terminal wants no styles."""
    return Console(highlight=False, soft_wrap=False, emoji=False, markup=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of plain texts; long ones are folded, none is cut off."""
    drawn = _empty_table(columns)
    for row in rows:
        drawn.add_row(*(Text(one_line(cell)) for cell in row))
    return drawn


def status_table(providers: Iterable[ProviderSnapshot], symbols: Symbols) -> Table:
    """The status of providers, coloured; as wide as the terminal, so that it does not jump."""
    drawn = _empty_table(STATUS_COLUMNS, expand=True)
    for provider in providers:
        style = STYLE_OF_STATUS[provider.status.status]
        id_, status, *others = status_row(provider)
        drawn.add_row(
            Text(id_, style="bold"),
            Text(f"{symbols.dot} {status}", style=style),
            *(Text(cell) for cell in others),
        )
    return drawn


def status_view(providers: Iterable[ProviderSnapshot], symbols: Symbols) -> RenderableType:
    """The status of providers, and below it what is wrong and what to do about it."""
    listed = list(providers)
    parts: list[RenderableType] = [status_table(listed, symbols)]
    for provider in listed:
        found = trouble(provider)
        if found is not None:
            grid = Table.grid(padding=(0, 1))
            grid.add_row(Text(symbols.bad, style="red"), Text(found[0]))
            if found[1]:
                grid.add_row(Text(symbols.arrow, style="dim"), Text(one_line(found[1])))
            parts.append(grid)
    return Group(*parts)


def _empty_table(columns: Sequence[str], *, expand: bool = False) -> Table:
    drawn = Table(box=box.ROUNDED, header_style="dim", expand=expand)
    for name in columns:
        drawn.add_column(name, overflow="fold", no_wrap=name == "status")
    return drawn


class LiveDisplay:
    """Draws what ``draw`` returns at the bottom of the terminal, again and again.

    Lines printed meanwhile appear above it and stay.
    """

    def __init__(self, draw: Callable[[], RenderableType]) -> None:
        self.console = console()
        self._live = Live(
            get_renderable=draw, console=self.console, auto_refresh=False, redirect_stderr=True
        )
        self._ticker: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        self._ticker = asyncio.get_running_loop().create_task(self._tick())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        self._live.stop()

    def refresh(self) -> None:
        """Draw now."""
        self._live.refresh()

    def print(self, *lines: RenderableType) -> None:
        """Lines that stay, above the display."""
        for line in lines:
            self.console.print(line)

    async def _tick(self) -> None:
        # Countdowns change without an event.
        while True:
            await asyncio.sleep(_REFRESH_EVERY_S)
            self._live.refresh()


class DemoView:
    """The demo: what happens scrolls by, the answer and the status stay in sight below."""

    def __init__(self, manager: LLMProviderManager, symbols: Symbols) -> None:
        self._manager = manager
        self._symbols = symbols
        self._began_s = time.monotonic()
        self._answer: Text | None = None
        self._display = LiveDisplay(self._draw)

    def __enter__(self) -> Self:
        self._display.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._display.__exit__(None, None, None)

    def scene(self, number: int, title: str, code: str, text: str) -> None:
        heading = Text.assemble((f" {number} ", "reverse"), (f" {title}  ", "bold"), (code, "cyan"))
        self._display.print(Text(), heading)
        if text:
            self._display.print(Padding(Text(text, style="italic"), (0, 2, 0, 4)))

    def note(self, text: str) -> None:
        self._display.print(Padding(Text(one_line(text)), (0, 2, 0, 4)))

    def event(self, event: Event) -> None:
        text = described(event, self._symbols.arrow)
        if text is not None:
            self._display.print(event_line(event, text, self._clock()))
        self._display.refresh()

    def piece(self, event: LLMStreamEvent) -> None:
        if self._answer is None:
            self._answer = Text()
        style = "dim italic" if event.kind == "reasoning" else ""
        self._answer.append(harmless(event.text), style=style)
        self._display.refresh()

    def end_of_answer(self) -> None:
        answer, self._answer = self._answer, None
        if answer:
            self._display.print(Padding(_quoted(answer), (0, 2, 0, 4)))

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began_s:.2f} s"

    def _draw(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._answer is not None:
            parts.append(Panel(self._answer, title="answer", title_align="left", box=box.ROUNDED))
        parts.append(status_table(self._manager.snapshot().providers, self._symbols))
        return Group(*parts)


def event_line(event: Event, text: str, clock: str) -> Table:
    """One event: when, which, of whom, what."""
    style = ""
    if isinstance(event, StatusChanged):
        style = STYLE_OF_STATUS[event.current.status]
    elif event.name in ("error", "retryScheduled", "reconnectScheduled", "listenerError"):
        style = "yellow"
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=8, justify="right")
    grid.add_column(width=21)
    grid.add_column()
    grid.add_column(overflow="fold")
    grid.add_row(
        Text(clock, style="dim"),
        Text(event.name, style="cyan"),
        Text(event.provider_id),
        Text(one_line(text), style=style),
    )
    return grid


def _quoted(text: Text) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text("|", style="green"), text)
    return grid
