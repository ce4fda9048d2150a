"""``llm-manager chat``: one answer, or a conversation.

The answer goes to stdout and nothing else does; what happens on the way (retries, reconnects,
reasoning, the choice of a model) is told dimly on stderr.
"""

from __future__ import annotations

import asyncio
import sys
from difflib import get_close_matches

from llm_manager import (
    BaseLLMProvider,
    ErrorOccurred,
    Event,
    InvalidParameterError,
    LLMError,
    LLMMessage,
    LLMResponse,
    LLMStream,
    LLMStreamEvent,
    ModelLoadProgress,
    ModelNotFoundError,
    ProviderNotFoundError,
    ReconnectScheduled,
    RequestCancelledError,
    RetryScheduled,
    StatusChanged,
)

from .arguments import proper
from .exit_codes import EXIT_OK
from .feed import EventFeed
from .prompt import Prompt, standard_input
from .session import Session, error_text, hint_text
from .texts import (
    TROUBLED,
    counted,
    described,
    first_chat_model,
    milliseconds,
    reason,
    seconds,
    shortened,
)

# How long a provider that was only found, not named, may take to prove that it is there.
_FOUND_WITHIN_S = 5.0
_STANDARD_INPUT = "-"

_COMMANDS = {
    "/model": "NAME  ask another model",
    "/models": "      which models there are",
    "/status": "      how the provider is",
    "/help": "        this text",
    "/quit": "        leave; so does Ctrl-D",
}


async def run(session: Session) -> int:
    """Answer once, or talk until the user leaves; returns the exit code."""
    prompt = await _prompt_of(session)
    feed = None
    if session.arguments.json:
        feed = EventFeed(session.manager, lambda event: session.output.record(event.to_dict()))
    provider, model = await _choose(session, interactive=prompt is None)
    conversation = Conversation(session, provider, model, feed)
    if prompt is None:
        await conversation.talk()
    else:
        await conversation.ask(prompt)
    return EXIT_OK


async def _prompt_of(session: Session) -> str | None:
    """What to answer; None if the user is there to type.

    Raises:
        InvalidParameterError: there is nothing to answer.
    """
    words: list[str] = session.arguments.prompt
    person = sys.stdin is not None and sys.stdin.isatty()
    if not words and person and session.output.is_terminal:
        if session.arguments.json:
            raise InvalidParameterError("--json needs a prompt", hint="add it to the command")
        return None
    if not words or _STANDARD_INPUT in words:
        if person:
            session.output.remark("reading from the terminal; end with Ctrl-D")
        text = await standard_input()
        words = [text if word == _STANDARD_INPUT else word for word in words] or [text]
    prompt = " ".join(words).strip()
    if not prompt:
        raise InvalidParameterError(
            "the prompt is empty", hint="give it as an argument or on standard input"
        )
    return prompt


# ---- which provider, which model -----------------------------------------------------------------


async def _choose(session: Session, *, interactive: bool) -> tuple[BaseLLMProvider, str]:
    """The provider and the model to talk to; says which, unless both were named.

    Raises:
        LLMError: there is none.
    """
    wanted = session.arguments.model
    if session.named:
        provider = await session.add_named()
        # A single request with everything named needs no probe; it is one itself.
        if interactive or wanted is None:
            await provider.connect()
    else:
        provider = await _first_reachable(session, wanted, interactive=interactive)
    model = wanted or first_chat_model(provider)
    if model is None:
        raise ModelNotFoundError(
            "it offers no model that can chat",
            provider_id=provider.id,
            hint="name one with --model",
        )
    if interactive or not (session.named and wanted):
        session.output.remark(f"using {provider.id}/{model}")
    return provider, model


async def _first_reachable(
    session: Session, wanted: str | None, *, interactive: bool
) -> BaseLLMProvider:
    """The first provider that is found, answers and has the model; else echo, in a conversation.

    Raises:
        ProviderNotFoundError: nobody is reachable who could answer; a repetition of the question
            must not be taken for an answer by a script.
    """
    found = await session.add_found()
    attempts = [asyncio.create_task(_can_chat(provider, wanted)) for provider in found]
    chosen = None
    try:
        for provider, attempt in zip(found, attempts, strict=True):
            if await attempt:
                chosen = provider
                break
    finally:
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
    for provider in found:
        if provider is not chosen:
            await session.manager.unregister_provider(provider.id, drain_timeout_s=0)
    if chosen is not None:
        return chosen
    if wanted is not None:
        raise ProviderNotFoundError(
            f"no provider that is reachable from here offers {wanted!r}",
            hint="name one with --provider; 'llm-manager models' lists what there is",
        )
    if not interactive:
        raise ProviderNotFoundError(
            "no provider is reachable",
            hint="'llm-manager doctor' tells what to do; '--provider echo' repeats what it is told",
        )
    session.output.remark(
        "no provider is reachable, so this is echo, which repeats what it is told; "
        "'llm-manager doctor' tells what to do"
    )
    echo = session.manager.register_provider("echo")
    await echo.connect()
    return echo


async def _can_chat(provider: BaseLLMProvider, wanted: str | None) -> bool:
    try:
        await provider.connect(timeout_s=_FOUND_WITHIN_S)
    except LLMError:
        return False  # 'llm-manager status' tells why
    if wanted is not None:
        return any(model.id == wanted for model in provider.known_models)
    return first_chat_model(provider) is not None


# ---- the conversation ----------------------------------------------------------------------------


class Conversation:
    """What was said so far, and with whom.

    Args:
        session: this run.
        provider, model: who answers.
        feed: tells about events already; None lets this object tell a person what matters.
    """

    def __init__(
        self, session: Session, provider: BaseLLMProvider, model: str, feed: EventFeed | None
    ) -> None:
        self._session = session
        self._output = session.output
        self._provider = provider
        self._model = model
        self._messages: list[LLMMessage] = []
        self._over = False
        if session.arguments.system is not None:
            self._messages.append(LLMMessage.system(session.arguments.system))
        self._feed = feed or EventFeed(session.manager, self._tell)

    async def ask(self, text: str) -> None:
        """Stream the answer to stdout.

        Raises:
            LLMError: there is none, or it broke off; what had arrived was written.
        """
        self._messages.append(LLMMessage.user(text))
        try:
            await self._answer(self._stream())
        finally:
            self._over = True

    async def talk(self) -> None:
        """Answer what is typed until the user leaves."""
        self._output.remark("type a message, or /help; Ctrl-D leaves")
        with Prompt() as prompt:
            self._output.overlay = prompt
            while (line := await prompt.line()) is not None:
                text = proper(line)
                if text.startswith("/"):
                    if not await self._obey(text):
                        return
                elif text.strip():
                    await self._turn(text.strip())
            self._output.line()

    async def _turn(self, text: str) -> None:
        """One question and its answer; a failure or Ctrl-C ends only that."""
        self._messages.append(LLMMessage.user(text))
        stream = self._stream()
        try:
            with self._session.on_interrupt(stream.cancel):
                response = await self._answer(stream)
        except LLMError as error:
            if isinstance(error, RequestCancelledError):
                self._output.remark("stopped")
            else:
                self._output.error(error_text(error), hint_text(error.hint))
            self._remember(stream.response)
            return
        self._remember(response)
        self._output.remark(_facts(response))

    def _remember(self, response: LLMResponse) -> None:
        """Keep what was answered; a question without any answer is forgotten."""
        if response.text:
            self._messages.append(response.to_message())
        else:
            self._messages.pop()

    def _stream(self) -> LLMStream:
        return self._session.manager.stream_chat_completion(
            f"{self._provider.id}/{self._model}", self._messages
        )

    async def _answer(self, stream: LLMStream) -> LLMResponse:
        try:
            async with stream:
                async for event in stream:
                    # What happened before it is told before it.
                    await self._feed.settled()
                    self._show(event)
        except ModelNotFoundError as error:
            error.hint = await self._similar_models() or error.hint
            raise
        finally:
            self._output.end_of_text()
        response = stream.response
        if response.finish_reason == "length":
            self._output.remark("the answer was cut off: it reached its maximum length")
        elif response.finish_reason == "content_filter":
            self._output.remark("the provider's content filter ended the answer")
        elif not response.text:
            self._output.remark("the answer is empty")
        return response

    def _show(self, event: LLMStreamEvent) -> None:
        if self._session.arguments.json:
            self._output.record({"event": "streamEvent", **event.to_dict()})
        elif event.kind == "text":
            self._output.piece(event.text)
        elif event.kind == "reasoning":
            self._output.reasoning(event.text)

    async def _similar_models(self) -> str | None:
        """A hint for a model that does not exist, from a list that may not have been read yet."""
        try:
            await self._provider.get_model_info(self._model)
        except LLMError as error:
            return error.hint
        return None

    # ---- commands --------------------------------------------------------------------------------

    async def _obey(self, text: str) -> bool:
        """Do what ``/command`` says; False if it says to leave."""
        command, _, argument = text.partition(" ")
        if command in ("/quit", "/exit"):
            return False
        if command == "/help":
            for name, meaning in _COMMANDS.items():
                self._output.line(f"{name} {meaning}")
        elif command == "/status":
            state = self._provider.status
            self._output.line(
                f"{self._provider.id}: {state.status} ({reason(state)}), "
                f"latency {milliseconds(state.latency_ms)}"
            )
        elif command == "/models":
            await self._list_models()
        elif command == "/model":
            self._change_model(argument.strip())
        else:
            near = get_close_matches(command, _COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else "see /help"
            self._output.error(f"there is no command {command}", hint)
        return True

    async def _list_models(self) -> None:
        try:
            models = await self._provider.get_available_models()
        except LLMError as error:
            self._output.error(error_text(error), hint_text(error.hint))
            return
        for model in models:
            self._output.line(f"{'*' if model.id == self._model else ' '} {model.id}")

    def _change_model(self, model: str) -> None:
        known = [each.id for each in self._provider.known_models]
        if model and known and model not in known:
            near = get_close_matches(model, known, n=3, cutoff=0.4) or known
            self._output.error(f"there is no model {model!r}", f"there is {shortened(near)}")
            return
        self._model = model or self._model
        self._output.line(f"{self._provider.id}/{self._model}")

    # ---- beside the answer -----------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        """Mention what keeps the answer waiting."""
        if self._over or event.provider_id != self._provider.id:
            return
        text = described(event)
        if isinstance(event, StatusChanged):
            before, now = event.previous.status, event.current.status
            news = now in TROUBLED or (now == "connected" and before in TROUBLED)
            text = f"{event.provider_id}: {text}" if news and text else None
        elif isinstance(event, ReconnectScheduled):
            text = f"reconnecting in {seconds(event.delay_s)} (attempt {event.attempt})"
        elif isinstance(event, ErrorOccurred) and event.operation == "reconnect":
            text = None  # the status has said it
        elif not isinstance(event, RetryScheduled | ErrorOccurred | ModelLoadProgress):
            text = None
        if text is not None:
            self._output.remark(text)


def _facts(response: LLMResponse) -> str:
    """The size and the speed of an answer."""
    facts = [response.model]
    if response.usage is not None:
        facts.append(counted(response.usage.completion_tokens, "token"))
    facts.append(f"{response.timings.total_s:.2f} s")
    if response.timings.first_token_s is not None:
        facts.append(f"the first after {response.timings.first_token_s:.2f} s")
    return ", ".join(facts)
