"""Several things at once, but not more than so many: `gather_with_concurrency`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from contextlib import aclosing
from typing import Any, Literal, TypeAlias, TypeVar, overload

from .checks import check_optional_number
from .errors import InvalidParameterError

T = TypeVar("T")
Work: TypeAlias = Awaitable[T] | Callable[[], Awaitable[T]]
"""What is to be done: a coroutine or another awaitable, or a function that makes one."""


@overload
async def gather_with_concurrency(
    limit: int | None, tasks: Iterable[Work[T]], *, return_exceptions: Literal[False] = False
) -> list[T]: ...
@overload
async def gather_with_concurrency(
    limit: int | None, tasks: Iterable[Work[T]], *, return_exceptions: bool
) -> list[T | BaseException]: ...
async def gather_with_concurrency(
    limit: int | None, tasks: Iterable[Work[Any]], *, return_exceptions: bool = False
) -> list[Any]:
    """The results of ``tasks`` in their order, with at most ``limit`` of them running.

    Whatever ends it early, the first error or its own cancellation, also ends all that runs, and
    returns after the last of them has ended; what had not begun never does.

    Args:
        limit: how many run at the same time; None: all of them.
        tasks: awaitables, or functions that make them.  Functions, and what an iterator makes, are
            asked for one when its turn comes, so that no more than ``limit`` exist.
        return_exceptions: put an error into its place among the results and go on, instead of
            raising the first.

    Raises:
        InvalidParameterError: ``limit`` is below 1, or one of ``tasks`` cannot be awaited.
        Exception: what the first of ``tasks`` to fail has raised.
    """
    results: dict[int, Any] = {}
    async with aclosing(as_finished(limit, tasks)) as finished:
        async for place, task in finished:
            if not return_exceptions:
                results[place] = task.result()
            elif task.cancelled():
                results[place] = asyncio.CancelledError()
            else:
                error = task.exception()
                results[place] = task.result() if error is None else error
    return [results[place] for place in sorted(results)]


async def as_finished(
    limit: int | None, tasks: Iterable[Work[T]]
) -> AsyncGenerator[tuple[int, asyncio.Future[T]], None]:
    """Each of ``tasks`` as it finishes, with its place among them; see `gather_with_concurrency`.

    Closing the generator ends all that still runs.
    """
    check_optional_number("limit", limit, low=1, whole=True)
    waiting = iter(tasks)
    running: dict[asyncio.Future[T], int] = {}
    begun, more = 0, True
    try:
        while True:
            while more and (limit is None or len(running) < limit):
                try:
                    work = next(waiting)
                except StopIteration:
                    more = False
                    break
                running[_begin(work)] = begun
                begun += 1
            if not running:
                return
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=running.__getitem__):
                yield running[task], task
                del running[task]
    finally:
        if isinstance(tasks, Collection):
            for work in waiting:
                if asyncio.iscoroutine(work):
                    work.close()  # or Python complains that nobody has awaited it
        await _end(running)


def _begin(work: Work[T]) -> asyncio.Future[T]:
    awaitable = work() if callable(work) else work
    try:
        return asyncio.ensure_future(awaitable)
    except TypeError:
        raise InvalidParameterError(
            f"tasks must be awaitables or functions that make them, got {work!r:.60}"
        ) from None


async def _end(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Cancel ``tasks``, and wait until the last of them has ended."""
    for task in tasks:
        task.cancel()
    cancelled: asyncio.CancelledError | None = None
    while left := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(left)
        except asyncio.CancelledError as error:  # once more: they are on their way out already
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()  # it has been seen, and asyncio need not complain
    if cancelled is not None:
        raise cancelled
