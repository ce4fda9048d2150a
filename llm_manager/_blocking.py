"""Synchronous calls: one background loop behind all of them.

Code without an event loop calls ``run_sync(provider.connect())``.  The work runs on one daemon
thread that lives as long as the process, so connections are kept from call to call.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Awaitable
from typing import TypeVar

from ._threads import LoopThread
from .emitter import on_dispatcher_thread
from .errors import RequestCancelledError, RequestTimeoutError

T = TypeVar("T")

_worker = LoopThread("llm_manager-sync")


def run_sync(
    work: Awaitable[T], timeout_s: float | None = None, *, even_on_loop: bool = False
) -> T:
    """Run ``work`` to its end and return its result; for threads without an event loop.

    Args:
        work: a coroutine, or an `LLMStream`.
        timeout_s: cancel it after so many seconds; None waits for its own time limits.
        even_on_loop: also where an event loop runs, which stands still meanwhile: for a notebook.

    Raises:
        RuntimeError: called where waiting would freeze an event loop or wait for itself.
        RequestTimeoutError: ``timeout_s`` is over.
        RequestCancelledError: the interpreter ends.
    """
    problem = _why_not_here(even_on_loop)
    if problem is not None:
        if inspect.iscoroutine(work):
            work.close()
        raise RuntimeError(problem)

    async def run() -> T:
        return await work

    future = asyncio.run_coroutine_threadsafe(run(), _worker.loop)
    try:
        return future.result(timeout_s)
    except concurrent.futures.TimeoutError:
        if future.done():
            raise
        future.cancel()
        raise RequestTimeoutError(f"not done within {timeout_s:g} s") from None
    except concurrent.futures.CancelledError:
        raise RequestCancelledError("the interpreter is shutting down") from None
    except BaseException:
        future.cancel()  # Ctrl-C while waiting: the work must not go on alone
        raise


def _why_not_here(even_on_loop: bool) -> str | None:
    if _worker.is_current:
        return "run_sync() was called by work that run_sync() runs; it would wait for itself"
    if on_dispatcher_thread():
        return "run_sync() was called by a listener; it would hold up all events: use a thread"
    if not even_on_loop and asyncio._get_running_loop() is not None:
        return "run_sync() was called where an event loop runs; it would freeze it: use await"
    return None
