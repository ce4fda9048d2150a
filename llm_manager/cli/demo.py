"""``llm-manager demo``: the life of a provider, from the first probe to the end, in seconds.

`Demo` is a script that any application could run; the views below it show what happens: live on a
terminal, line by line in a pipe, or as JSON.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from llm_manager import (
    Backoff,
    BaseLLMProvider,
    EchoAnswer,
    EchoProvider,
    Event,
    LLMError,
    LLMStream,
    LLMStreamEvent,
    RateLimitError,
    RequestFinished,
    Retries,
)

from .exit_codes import EXIT_FAILED, EXIT_OK
from .feed import EventFeed
from .session import Session, error_text, hint_text, screen
from .texts import described, first_chat_model, symbols

# The script below takes about this long at full pauses.
_WRITTEN_FOR_S = 8.0
_ECHO = "echo"
_PROMPT_FOR_ECHO = (
    "I am echo, the built-in provider: I repeat what I am told, word by word, "
    "the way a real model streams its answer."
)
_PROMPT_FOR_OTHERS = "In two sentences: why is the sky blue?"
_LONG_ANSWER = "This answer would go on and on, but somebody presses Stop in the middle of it. " * 4
# The demo may talk to a provider that costs money.
_MOST_TOKENS = 200


class View(Protocol):
    """What a demo is shown on."""

    def scene(self, number: int, title: str, code: str, text: str) -> None: ...
    def note(self, text: str) -> None: ...
    def event(self, event: Event) -> None: ...
    def piece(self, event: LLMStreamEvent) -> None: ...
    def end_of_answer(self) -> None: ...


async def run(session: Session) -> int:
    """Show the demo; returns the exit code."""
    on_screen = session.output.is_terminal and not session.arguments.json
    drawing = screen() if on_screen else None
    named = None
    if session.arguments.provider not in (None, _ECHO):
        named = await session.add_named()  # a mistake is told before anything is drawn
    if drawing is not None:
        with drawing.DemoView(session.manager, symbols(session.output)) as view:
            return await Demo(session, view, named).play()
    view = JsonView(session) if session.arguments.json else PlainView(session)
    return await Demo(session, view, named).play()


class Demo:
    """The script.

    Args:
        session: this run.
        view: what it is shown on.
        named: the provider that the user wants to ask, or None.
    """

    def __init__(self, session: Session, view: View, named: BaseLLMProvider | None) -> None:
        self._session = session
        self._manager = session.manager
        self._view = view
        self._named = named
        self._scale = session.arguments.seconds / _WRITTEN_FOR_S
        self._finished: list[RequestFinished] = []
        self._count = 0
        self._feed = EventFeed(session.manager, self._happened)
        self._echo = EchoProvider(
            words_per_s=20 / self._scale,
            connect_delay_s=0.3 * self._scale,
            reconnect=Backoff(first_s=0.3 * self._scale, factor=1.5, max_s=self._scale, jitter=0.0),
        )

    async def play(self) -> int:
        """All scenes, one after the other."""
        await self._register()
        await self._connect()
        asked = self._named or self._first_usable()
        await self._list_models(asked)
        code = await self._ask(asked)
        await self._retry()
        await self._outage()
        await self._stop()
        await self._shut_down()
        self._sum_up()
        return code

    # ---- the scenes ------------------------------------------------------------------------------

    async def _register(self) -> None:
        self._view.scene(
            1,
            "Register",
            "manager.register_provider('echo')",
            "A manager holds providers: here whatever discover() finds on this machine, and "
            "'echo', which needs neither key nor network.",
        )
        if self._session.arguments.provider is None:
            await self._session.add_found()
        self._manager.register_provider(self._echo)
        await self._pause(0.3)

    async def _connect(self) -> None:
        self._view.scene(
            2,
            "Connect",
            "await manager.connect_all()",
            "Every provider is really asked: 'connected' is evidence, not hope.",
        )
        await self._manager.connect_all()
        await self._pause(0.5)

    def _first_usable(self) -> BaseLLMProvider:
        for provider in self._manager.providers.values():
            if provider.usable and first_chat_model(provider) is not None:
                return provider
        return self._echo

    async def _list_models(self, provider: BaseLLMProvider) -> None:
        self._view.scene(
            3, "Models", f"await manager.providers[{provider.id!r}].get_available_models()", ""
        )
        try:
            models = await provider.get_available_models()
        except LLMError as error:
            self._failed(error)
            return
        for model in models[:5]:
            window = model.context_window_tokens
            can = ", ".join(sorted(model.capabilities or ()))
            facts = [f"{window:,} tokens" if window else "", can]
            self._view.note(
                f"{provider.id}/{model.id}  {'  '.join(f for f in facts if f)}".rstrip()
            )
        if len(models) > 5:
            self._view.note(f"and {len(models) - 5} more")
        await self._pause(0.4)

    async def _ask(self, provider: BaseLLMProvider) -> int:
        model = first_chat_model(provider) or "?"
        prompt = self._session.arguments.prompt or (
            _PROMPT_FOR_ECHO if provider is self._echo else _PROMPT_FOR_OTHERS
        )
        self._view.scene(
            4,
            "Ask",
            f"async for event in manager.stream_completion('{provider.id}/{model}', prompt):",
            "The answer arrives word by word. Each request announces its start and its one end.",
        )
        try:
            stream = self._manager.stream_completion(
                f"{provider.id}/{model}", prompt, options={"max_tokens": _MOST_TOKENS}
            )
            await self._read(stream)
        except LLMError as error:
            self._failed(error)
            return EXIT_FAILED
        await self._pause(0.4)
        return EXIT_OK

    async def _retry(self) -> None:
        self._view.scene(
            5,
            "Retry",
            "# nothing to write: retries are on, visible and bounded",
            "Now echo says 'slow down'. The manager waits as long as it is asked to.",
        )
        wait_s = 0.6 * self._scale
        self._echo.script(EchoAnswer(error=RateLimitError("slow down", retry_after_s=wait_s)))
        await self._read(self._ask_echo("And here is the answer, a moment later."))
        await self._pause(0.4)

    async def _outage(self) -> None:
        self._view.scene(
            6,
            "Outage",
            "async for status in provider.watch():",
            "The server goes away in the middle of an answer. What had arrived is kept; "
            "new attempts are made by themselves until it is back.",
        )
        stream = self._ask_echo(_LONG_ANSWER)
        try:
            await self._read(stream, after=6, call=self._echo.go_offline)
        except LLMError as error:
            kept = len(stream.response.text.split())
            self._view.note(f"{type(error).__name__}: {error.message}; {kept} words were kept")
        await self._pause(1.0)
        self._echo.go_online()
        await self._echo.wait_for("connected", timeout_s=60)
        await self._pause(0.4)

    async def _stop(self) -> None:
        self._view.scene(
            7,
            "Stop",
            "stream.cancel()",
            "A Stop button: the request ends at once and its connection is closed.",
        )
        stream = self._ask_echo(_LONG_ANSWER)
        try:
            await self._read(stream, after=8, call=stream.cancel)
        except LLMError as error:
            self._view.note(f"{type(error).__name__}: {error.message}")
        await self._pause(0.4)

    async def _shut_down(self) -> None:
        self._view.scene(
            8,
            "Shut down",
            "await manager.close()",
            "New requests are refused, the running one may end, then everything is closed.",
        )
        stream = self._ask_echo("This answer is still being written while the manager closes.")
        closing: list[asyncio.Task[None]] = []
        drain_s = 5.0 * max(self._scale, 1.0)
        await self._read(
            stream,
            after=3,
            call=lambda: closing.append(asyncio.create_task(self._manager.close(drain_s))),
        )
        await asyncio.gather(*closing)
        await self._feed.settled()

    def _sum_up(self) -> None:
        outcomes = [request.outcome for request in self._finished]
        counts = ", ".join(f"{outcomes.count(o)} {o}" for o in dict.fromkeys(outcomes))
        self._view.note("")
        self._view.note(
            f"{self._count} events, {len(outcomes)} requests ({counts}); nothing was left open."
        )
        self._view.note("Next: llm-manager doctor, llm-manager chat, llm-manager status --watch")

    # ---- helpers ---------------------------------------------------------------------------------

    def _ask_echo(self, text: str) -> LLMStream:
        return self._manager.stream_completion(
            f"{_ECHO}/{_ECHO}", text, options={"retries": Retries(attempts=3, wait_s=0.0)}
        )

    async def _read(
        self,
        stream: LLMStream,
        *,
        after: int | None = None,
        call: Callable[[], object] | None = None,
    ) -> None:
        """Show an answer; call something after so many pieces of it."""
        try:
            async with stream:
                async for event in stream:
                    if event.index == 0:
                        await self._feed.settled()
                    self._view.piece(event)
                    if call is not None and event.index + 1 == after:
                        call()
        finally:
            self._view.end_of_answer()
            await self._feed.settled()

    async def _pause(self, pause_s: float) -> None:
        await self._feed.settled()
        await asyncio.sleep(pause_s * self._scale)
        await self._feed.settled()

    def _failed(self, error: LLMError) -> None:
        hint = hint_text(error.hint)
        self._view.note(f"{error_text(error)}{f' - {hint}' if hint else ''}")

    def _happened(self, event: Event) -> None:
        self._count += 1
        if isinstance(event, RequestFinished):
            self._finished.append(event)
        self._view.event(event)


class PlainView:
    """Line by line, for pipes."""

    def __init__(self, session: Session) -> None:
        self._output = session.output
        self._arrow = symbols(session.output).arrow
        self._began_s = time.monotonic()
        self._in_answer = False

    def scene(self, number: int, title: str, code: str, text: str) -> None:
        self._output.line()
        self._output.line(f"{number}. {title}    {code}")
        if text:
            self._output.line(f"   {text}")

    def note(self, text: str) -> None:
        self._output.line(f"   {text}")

    def event(self, event: Event) -> None:
        text = described(event, self._arrow)
        if text is not None:
            self._in_answer = False  # what follows of an answer stands on a line of its own
            passed_s = time.monotonic() - self._began_s
            self._output.line(f"   {passed_s:5.2f} s  {event.name:<21} {event.provider_id}  {text}")

    def piece(self, event: LLMStreamEvent) -> None:
        if not self._in_answer:
            self._output.piece("   | ")
            self._in_answer = True
        self._output.piece(event.text)

    def end_of_answer(self) -> None:
        self._in_answer = False
        self._output.end_of_text()


class JsonView:
    """One line of JSON for everything."""

    def __init__(self, session: Session) -> None:
        self._output = session.output

    def scene(self, number: int, title: str, code: str, text: str) -> None:
        self._output.record(
            {"event": "scene", "number": number, "title": title, "code": code, "text": text}
        )

    def note(self, text: str) -> None:
        self._output.record({"event": "note", "text": text})

    def event(self, event: Event) -> None:
        self._output.record(event.to_dict())

    def piece(self, event: LLMStreamEvent) -> None:
        self._output.record({"event": "streamEvent", **event.to_dict()})

    def end_of_answer(self) -> None:
        pass
