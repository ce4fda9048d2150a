"""The LiteLLM library as a transport: arguments in, bytes of the OpenAI dialect out.

LiteLLM freezes the loop that it is imported, or first used, on for seconds, and takes long over
each piece of an answer.  It therefore runs on a thread of its own, and only bytes come over.

What this module must not do: let LiteLLM retry, print, or fetch its price list from the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from .._threads import LoopThread
from ..errors import (
    DependencyMissingError,
    LLMError,
    ProviderConnectionError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from ..redaction import redact
from ..wire.failures import from_http

T = TypeVar("T")

# So many pieces may wait for a slow reader before LiteLLM is made to wait.
_MOST_WAITING = 256
# Ours are the only retries and the only printed lines; the rest of the arguments is the caller's.
_OURS = {"num_retries": 0, "max_retries": 0}

_thread = LoopThread("llm_manager-litellm")


class LiteLLMLibrary:
    """Calls into LiteLLM, from any event loop.

    Every method raises, besides what it says itself:

    * DependencyMissingError: LiteLLM is not installed, or cannot be imported.
    * ProviderConnectionError, RequestTimeoutError: no connection, or no answer in time.
    * ProviderError, one of its subclasses: the service behind LiteLLM answered with an error.

    Args:
        secrets: returns texts that must not appear in any error.
    """

    def __init__(self, *, secrets: Callable[[], Iterable[str]] = tuple) -> None:
        self._secrets = secrets

    async def open(self) -> None:
        """Import the library."""
        await self._run(lambda litellm: None)

    async def get_models(self) -> list[str]:
        """The models of those services whose keys are in the environment."""
        return await self._run(lambda litellm: list(litellm.get_valid_models()))

    async def get_model_info(self, model: str) -> dict[str, Any] | None:
        """What LiteLLM's own tables know about a model; None if they do not have it."""

        def look_up(litellm: Any) -> dict[str, Any] | None:
            # It raises a bare Exception for a model that it does not know.
            with contextlib.suppress(Exception):
                return dict(litellm.get_model_info(model))
            return None

        return await self._run(look_up)

    async def embed(self, arguments: Mapping[str, Any]) -> bytes:
        """The JSON text that answers an embedding request."""

        async def ask() -> bytes:
            litellm = _library()
            answer = await litellm.aembedding(**arguments, **_OURS)
            return json.dumps(answer.model_dump()).encode()

        return await self._over(self._mapped(ask()))

    async def stream(self, arguments: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """A chat completion as server-sent events.

        Closing the generator ends the request and closes its connection.

        Raises:
            StreamInterruptedError: the answer broke off.
        """
        pipe = _Pipe(asyncio.get_running_loop())

        async def ask() -> None:
            answer = await _library().acompletion(**arguments, **_OURS, stream=True)
            try:
                async for chunk in answer:
                    text: str = chunk.model_dump_json(exclude_none=True)
                    await pipe.put(f"data: {text}\n\n".encode())
            finally:
                await _close(answer)
            await pipe.put(b"data: [DONE]\n\n")

        future = asyncio.run_coroutine_threadsafe(
            pipe.filled(self._mapped(ask(), pipe)), _thread.loop
        )
        try:
            async for piece in pipe:
                yield piece
        finally:
            future.cancel()

    async def _run(self, work: Callable[[Any], T]) -> T:
        """The result of ``work``, which is given the library, on LiteLLM's thread."""

        async def do() -> T:
            return work(_library())

        return await self._over(do())

    async def _over(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, _thread.loop))

    async def _mapped(self, work: Coroutine[Any, Any, T], pipe: _Pipe | None = None) -> T:
        """``work``, with LiteLLM's errors made ours."""
        try:
            return await work
        except LLMError:
            raise
        except Exception as error:  # noqa: BLE001 - its errors have no common base class
            begun = pipe is not None and pipe.used
            failure = _mapped_error(error, begun=begun, secrets=tuple(self._secrets()))
        raise failure


class _Pipe:
    """Takes pieces from LiteLLM's thread to the reader's loop, with a bound on what waits."""

    def __init__(self, reader: asyncio.AbstractEventLoop) -> None:
        self.used = False
        self._reader = reader
        self._pieces: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._writer: asyncio.AbstractEventLoop | None = None
        self._over = False
        self._error: Exception | None = None

    # ---- LiteLLM's thread ------------------------------------------------------------------------

    async def put(self, piece: bytes) -> None:
        """Hand over a piece; waits while too many wait for the reader."""
        self.used = True
        self._writer = asyncio.get_running_loop()
        self._pieces.append(piece)
        self._tell(self._reader, self._arrived)
        while len(self._pieces) > _MOST_WAITING:
            self._room.clear()
            if len(self._pieces) > _MOST_WAITING:
                await self._room.wait()

    async def filled(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work``, which puts the pieces, and pass on how it ended."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - it belongs to the reader
            self._error = error
        finally:
            self._over = True
            self._tell(self._reader, self._arrived)

    # ---- the reader's loop -----------------------------------------------------------------------

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        while True:
            over = self._over
            while self._pieces:
                yield self._pieces.popleft()
                if self._writer is not None and len(self._pieces) == _MOST_WAITING // 2:
                    self._tell(self._writer, self._room)
            if over:
                break
            await self._arrived.wait()
            self._arrived.clear()
        if self._error is not None:
            raise self._error

    @staticmethod
    def _tell(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
        with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits there
            loop.call_soon_threadsafe(event.set)


async def _close(answer: Any) -> None:
    """Close the connection below a stream; LiteLLM leaves that to whoever stops reading."""
    inner = getattr(answer, "completion_stream", None)
    for name in ("aclose", "close"):
        close = getattr(inner, name, None)
        if close is not None:
            with contextlib.suppress(Exception):  # what is being left cannot fail any more
                await close()
            return


def _library() -> Any:
    """LiteLLM, imported on its own thread without a look at the network."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        litellm: Any = importlib.import_module("litellm")
    except ImportError as error:
        reason = str(error)
    else:
        litellm.suppress_debug_info = True
        return litellm
    raise DependencyMissingError(
        f"the LiteLLM library cannot be imported: {reason}",
        hint="pip install litellm, or run a LiteLLM proxy and use the kind 'litellm-proxy'",
    )


def _mapped_error(error: Exception, *, begun: bool, secrets: tuple[str, ...]) -> LLMError:
    """Our error for one of LiteLLM's.

    LiteLLM gives a lost connection the status 500, and every break in the middle of an answer too;
    only what they lack tells them from answers of a service: headers.
    """
    name = type(error).__name__
    said = redact(str(error), secrets)
    original = f"{type(error).__module__}.{name}: {said}"
    headers = getattr(error, "litellm_response_headers", None)
    if begun:
        return StreamInterruptedError(f"the answer broke off: {said}", original=original)
    if name == "Timeout":
        return RequestTimeoutError(said, original=original)
    if name == "APIConnectionError" or (headers is None and "onnection error" in said):
        return ProviderConnectionError(said, code="refused", original=original)
    body = getattr(error, "body", None)
    what = {**body, "message": said} if isinstance(body, dict) else {"message": said}
    failure = from_http(
        int(getattr(error, "status_code", None) or 500),
        json.dumps({"error": what}, default=str).encode(),
        {str(key): str(value) for key, value in dict(headers or {}).items()},
        secrets=secrets,
    )
    failure.original = original
    return failure
