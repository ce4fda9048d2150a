"""The loop: ask the model, run what it asks for, tell it the results, until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from ..asking import Asking, Options
from ..errors import InvalidParameterError, LLMError, ToolRoundsExceededError
from ..manager import LLMProviderManager
from ..messages import (
    LLMRequestOptions,
    LLMResponse,
    Messages,
    as_messages,
    as_options,
)
from ..provider import BaseLLMProvider
from ..stream import StreamCallback
from .calls import Approve, CallRunner, OnCall
from .records import ToolCallRecord, ToolCallRequest, ToolRun
from .tool import Tool


async def run_tools(
    provider: BaseLLMProvider | LLMProviderManager,
    model: str | None,
    messages: Messages,
    tools: Iterable[Tool | Callable[..., Any]],
    options: Options = None,
    *,
    max_rounds: int = 10,
    call_timeout_s: float | None = 60.0,
    max_concurrency: int = 4,
    approve: Approve | None = None,
    callback: StreamCallback | None = None,
    on_call: OnCall | None = None,
    raise_errors: bool = False,
) -> ToolRun:
    """Answer a conversation with the help of tools.

    The calls of one answer run side by side; synchronous functions run in threads.  Whatever goes
    wrong with a call is told to the model, which can mend it.

    Args:
        provider: who answers: a provider, or the manager (then ``model`` is as there).
        model: id of a model; None for the one that is active now.
        messages: the conversation so far, as for `generate_chat_completion`.
        tools: functions, or `Tool` objects.
        options: as for `generate_chat_completion`, without ``tools``.  A ``tool_choice`` that
            forces a call holds for the first answer only.
        max_rounds: how many answers the model may give.
        call_timeout_s: time limit of one call, in seconds; None for no limit.  A synchronous
            function cannot be stopped: it runs on in its thread, and nobody waits for it.
        max_concurrency: how many calls may run at once.
        approve: function or coroutine function that is asked about each call before it runs; the
            model is told of a call that was not allowed.
        callback: gets each `LLMStreamEvent` of every answer; ``done`` comes once for each.
        on_call: function or coroutine function that gets the `ToolCallRecord` of each call when it
            has ended.
        raise_errors: raise what a function raises, and `InvalidResponseError` for a call that
            cannot be run, instead of telling the model.

    Returns:
        The final answer, the whole conversation and every call.

    Raises:
        InvalidParameterError: an argument is wrong; nothing was sent.
        DependencyMissingError: a tool's definition cannot be checked; nothing was sent.
        ToolRoundsExceededError: the model still asks for calls after ``max_rounds`` answers.
        LLMError: a request failed.  This and the former have what there is in ``tool_run``, whose
            ``messages`` can be sent again.
    """
    _check_limits(max_rounds, call_timeout_s, max_concurrency)
    known = _by_name(tools)
    runner = CallRunner(
        known,
        timeout_s=call_timeout_s,
        max_concurrency=max_concurrency,
        approve=approve,
        on_call=on_call,
        raise_errors=raise_errors,
    )
    options = _with_tools(options, known)
    run = ToolRun(messages=as_messages(messages))
    model = _pinned(provider, model)
    for tool in known.values():
        await asyncio.to_thread(tool.prepare)
    try:
        while True:
            response = await _answer(provider, model, run, options, callback)
            run = _with_answer(run, response)
            request = ToolCallRequest.from_response(response)
            if request is None:
                return msgspec.structs.replace(run, messages=(*run.messages, response.to_message()))
            if run.rounds == max_rounds:
                wanted = ", ".join(call.name for call in request.tool_calls)
                raise ToolRoundsExceededError(
                    f"in its last answer, number {max_rounds}, the model still asks for {wanted}"
                )
            run = _with_calls(run, await runner.run(request.tool_calls, run.rounds))
            options = _unforced(options)
    except LLMError as error:
        error.tool_run = run
        raise


async def _answer(
    provider: Asking,
    model: str | None,
    run: ToolRun,
    options: LLMRequestOptions,
    callback: StreamCallback | None,
) -> LLMResponse:
    return await provider.stream_chat_completion(model, run.messages, options, callback)


def _with_answer(run: ToolRun, response: LLMResponse) -> ToolRun:
    usage = response.usage
    if run.usage is not None:
        usage = run.usage if usage is None else run.usage + usage
    return msgspec.structs.replace(run, response=response, rounds=run.rounds + 1, usage=usage)


def _with_calls(run: ToolRun, records: tuple[ToolCallRecord, ...]) -> ToolRun:
    """The run with calls and results; both at once, because services refuse one without the other.

    The model's message goes back as it came, with the parts that only its service understands.
    """
    assert run.response is not None
    told = (run.response.to_message(), *(record.to_message() for record in records))
    return msgspec.structs.replace(
        run, messages=(*run.messages, *told), calls=(*run.calls, *records)
    )


def _with_tools(options: Options, tools: dict[str, Tool]) -> LLMRequestOptions:
    given = options.get("tools") if isinstance(options, Mapping) else as_options(options).tools
    if given:
        raise InvalidParameterError(
            "options.tools has no functions to call", hint="pass functions or Tool objects as tools"
        )
    definitions = tuple(tool.definition for tool in tools.values())
    if isinstance(options, Mapping):
        # All at once: a tool_choice without the tools would be refused.
        return as_options({**options, "tools": definitions})
    return msgspec.structs.replace(as_options(options), tools=definitions)


def _unforced(options: LLMRequestOptions) -> LLMRequestOptions:
    """Let the model answer at last: a forced choice would make it call for ever."""
    if options.tool_choice in (None, "auto", "none"):
        return options
    return msgspec.structs.replace(options, tool_choice="auto")


def _pinned(provider: Asking, model: str | None) -> str | None:
    """The model that is meant now; another one may become active while the loop runs."""
    if isinstance(provider, LLMProviderManager):
        owner, name = provider.resolve(model)
        name = name or owner.active_model
        return f"{owner.id}/{name}" if name else model
    if isinstance(provider, BaseLLMProvider):
        return model if model is not None else provider.active_model
    raise InvalidParameterError(f"provider must be a provider or a manager, got {provider!r:.80}")


def _by_name(tools: Iterable[Tool | Callable[..., Any]]) -> dict[str, Tool]:
    known: dict[str, Tool] = {}
    for each in tools:
        tool = each if isinstance(each, Tool) else Tool(each)
        if tool.name in known:
            raise InvalidParameterError(f"two tools are called {tool.name!r}")
        known[tool.name] = tool
    return known


def _check_limits(max_rounds: int, call_timeout_s: float | None, max_concurrency: int) -> None:
    for name, value in (("max_rounds", max_rounds), ("max_concurrency", max_concurrency)):
        if not isinstance(value, int) or value < 1:
            raise InvalidParameterError(f"{name} must be a whole number from 1, got {value!r}")
    if call_timeout_s is not None and not call_timeout_s > 0:
        raise InvalidParameterError(f"call_timeout_s must be above 0, got {call_timeout_s!r}")
