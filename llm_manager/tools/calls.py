"""Runs the calls of one answer: side by side, each within its time, none able to break the loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import copy_context
from functools import partial
from time import monotonic
from typing import Any

import msgspec

from ..errors import InvalidResponseError, RequestCancelledError, RequestTimeoutError
from ..messages import Part, ToolCall
from ..redaction import redact
from .records import Outcome, ToolCallRecord
from .results import content_of
from .tool import Tool

Approve = Callable[[ToolCall], Awaitable[bool] | bool]
OnCall = Callable[[ToolCallRecord], Awaitable[object] | object]

# Reading more than this takes long enough to be felt; it is done in a thread.
_LONG_CHARACTERS = 16_384
_MAX_ERROR_CHARACTERS = 2_000
# What a cancelled coroutine gets to clean up, in seconds; then it is left behind.
_GRACE_S = 1.0


class CallRunner:
    """Runs calls by the rules of one run.

    Args:
        tools: the tools by their names.
        timeout_s: time limit of one call, in seconds; None for no limit.
        max_concurrency: how many calls run at once.
        approve: asked before a call is run; None approves all.
        on_call: gets the record of each call when it has ended.
        raise_errors: raise what goes wrong instead of telling the model.
    """

    def __init__(
        self,
        tools: Mapping[str, Tool],
        *,
        timeout_s: float | None,
        max_concurrency: int,
        approve: Approve | None,
        on_call: OnCall | None,
        raise_errors: bool,
    ) -> None:
        self._tools = tools
        self._timeout_s = timeout_s
        self._max_concurrency = max_concurrency
        self._approve = approve
        self._on_call = on_call
        self._raise_errors = raise_errors

    async def run(self, calls: tuple[ToolCall, ...], round: int) -> tuple[ToolCallRecord, ...]:
        """Run the calls of one answer; the records come in the order of the calls.

        However this ends, nothing that can be cancelled runs on.
        """
        slots = asyncio.Semaphore(self._max_concurrency)
        # People are asked about one call at a time, and before any of them runs.
        ready = [await self._prepared(call, round) for call in calls]
        tasks = [asyncio.create_task(self._ended(each, slots)) for each in ready]
        try:
            return tuple(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _prepared(self, call: ToolCall, round: int) -> _Ready | ToolCallRecord:
        """A call that may be run, or the record of one that may not."""
        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(self._tools) or "none"
            text = f"there is no tool {call.name!r:.80}; the tools are: {known}"
            return self._refused(call, round, "unknown_tool", text)
        try:
            arguments = await _arguments(tool, call)
        except InvalidResponseError as error:
            text = f"{error.message}. Call {call.name} again with arguments that fit its schema."
        else:
            if self._approve is None or await _awaited(self._approve(call)):
                return _Ready(call, round, tool, arguments)
            return self._refused(call, round, "denied", "the user did not allow this call")
        return self._refused(call, round, "invalid_arguments", text)

    def _refused(self, call: ToolCall, round: int, outcome: Outcome, text: str) -> ToolCallRecord:
        if self._raise_errors and outcome != "denied":
            raise InvalidResponseError(text, code=outcome)
        return _failed(call, round, outcome, text)

    async def _ended(
        self, ready: _Ready | ToolCallRecord, slots: asyncio.Semaphore
    ) -> ToolCallRecord:
        if isinstance(ready, ToolCallRecord):
            record = ready
        else:
            async with slots:
                record = await self._record(ready)
        if self._on_call is not None:
            await _awaited(self._on_call(record))
        return record

    async def _record(self, ready: _Ready) -> ToolCallRecord:
        call, began_s = ready.call, monotonic()
        error, content = await self._content(ready)
        duration_s = monotonic() - began_s
        if error is None:
            return ToolCallRecord(
                call=call, outcome="ok", content=content, duration_s=duration_s, round=ready.round
            )
        if self._raise_errors:
            raise error
        if isinstance(error, RequestTimeoutError) and error.code == "tool_timeout":
            return _failed(call, ready.round, "timeout", error.message, duration_s)
        return _failed(call, ready.round, "error", _described(error), duration_s)

    async def _content(self, ready: _Ready) -> tuple[BaseException | None, str | tuple[Part, ...]]:
        """What went wrong, if something did, and what the model is told otherwise."""
        error, value = await _outcome(ready.tool.function, ready.arguments, self._timeout_s)
        if error is None:
            try:
                return None, content_of(value)
            except Exception as unusable:  # noqa: BLE001 - a value may refuse to become JSON
                error = unusable
        return error, ""


class _Ready(msgspec.Struct, frozen=True):
    """A call that may be run."""

    call: ToolCall
    round: int
    tool: Tool
    arguments: dict[str, Any]


def _failed(
    call: ToolCall, round: int, outcome: Outcome, text: str, duration_s: float = 0.0
) -> ToolCallRecord:
    return ToolCallRecord(
        call=call,
        outcome=outcome,
        content=f"Error: {text}",
        error=text,
        duration_s=duration_s,
        round=round,
    )


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {redact(str(error))}"[:_MAX_ERROR_CHARACTERS]


async def _arguments(tool: Tool, call: ToolCall) -> dict[str, Any]:
    if len(call.arguments_json) > _LONG_CHARACTERS:
        return await asyncio.to_thread(tool.arguments_of, call)
    return tool.arguments_of(call)


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


# ---- one function --------------------------------------------------------------------------------


async def _outcome(
    function: Callable[..., Any], arguments: dict[str, Any], timeout_s: float | None
) -> tuple[BaseException | None, Any]:
    """What ``function`` raised, or what it returned.

    When the time is over, a coroutine is cancelled; a function in a thread cannot be stopped and
    is left behind.
    """
    task = asyncio.create_task(_called(function, arguments))
    try:
        await asyncio.wait({task}, timeout=timeout_s)
        if not task.done():
            late = f"it took longer than {timeout_s:g} s and was given up"
            return RequestTimeoutError(late, code="tool_timeout", retryable=False), None
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_GRACE_S)
    if task.cancelled():
        return RequestCancelledError("the function was cancelled by itself"), None
    return task.result()


async def _called(
    function: Callable[..., Any], arguments: dict[str, Any]
) -> tuple[BaseException | None, Any]:
    try:
        if _is_async(function):
            return None, await function(**arguments)
        error, value = await _in_a_thread(partial(function, **arguments))
        return error, await _awaited(value)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the model is told, or it is raised
        return error, None


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__
    )


def _in_a_thread(
    function: Callable[[], Any],
) -> asyncio.Future[tuple[BaseException | None, Any]]:
    """What ``function`` raises or returns in a thread of its own.

    A thread of asyncio's pool would keep the interpreter from ending while the function hangs.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[BaseException | None, Any]] = loop.create_future()
    context = copy_context()

    def settle(outcome: tuple[BaseException | None, Any]) -> None:
        if not future.done():
            future.set_result(outcome)

    def work() -> None:
        try:
            outcome: tuple[BaseException | None, Any] = None, context.run(function)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            outcome = error, None
        with contextlib.suppress(RuntimeError):  # the loop is closed, nobody waits any more
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=work, name="llm_manager-tool", daemon=True).start()
    return future
