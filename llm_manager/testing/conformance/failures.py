"""Checks of failures: the right class, repeated or not, with what had arrived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from ...errors import (
    AuthenticationError,
    ContextWindowExceededError,
    InvalidRequestError,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderAPIError,
    ProviderConnectionError,
    ProviderError,
    ProviderOverloadedError,
    RateLimitError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from ..peer import Reply, Step
from .base import HttpKit
from .expect import expect, raises
from .stage import Stage, check
from .wire import WORDS, Ending, Wanted, in_one_piece, stopped_behind, with_steps_behind

ONCE: Mapping[str, Any] = {"retries": {"attempts": 1}}

REFUSALS: dict[int, tuple[type[LLMError], ...]] = {
    400: (InvalidRequestError,),
    401: (AuthenticationError,),
    403: (PermissionDeniedError,),
    404: (ModelNotFoundError, ProviderAPIError, InvalidRequestError),
    413: (InvalidRequestError, ContextWindowExceededError),
    422: (InvalidRequestError,),
}
TROUBLES: dict[int, tuple[type[LLMError], ...]] = {
    429: (RateLimitError,),
    500: (ProviderAPIError,),
    502: (ProviderAPIError, ProviderOverloadedError),
    503: (ProviderOverloadedError,),
    529: (ProviderOverloadedError,),
}


class FailureChecks(HttpKit):
    """What a provider with a server makes of the server's failures."""

    @pytest.mark.parametrize("status", REFUSALS)
    @check
    async def test_a_refusal_is_told_and_not_repeated(self, stage: Stage, status: int) -> None:
        provider = stage.make()
        stage.server.plays(self.error(status, "Marker-why"))
        with raises(REFUSALS[status], f"the server answers {status}") as caught:
            await provider.generate_completion(self.model, self.prompt)
        error = caught.error
        asked = len(stage.server.questions)
        expect(asked == 1, f"a {status} is sent {asked} times; asking again cannot help")
        expect(not error.retryable, f"the error for {status} says that asking again may help")
        self._expect_told(error, status)

    @pytest.mark.parametrize("status", TROUBLES)
    @check
    async def test_trouble_that_may_pass_is_tried_again(self, stage: Stage, status: int) -> None:
        provider = stage.make()
        trouble = self.error(status, "Marker-why")
        stage.server.plays(trouble, self.stream(self.wanted))
        response = await provider.generate_completion(self.model, self.prompt)
        expect(
            response.text == self.wanted.whole_text and response.timings.attempts == 2,
            f"after a {status} the answer is {response.text!r} at attempt "
            f"{response.timings.attempts}",
        )
        announced = stage.events_of(provider).named("retryScheduled")
        expect(
            [event.error.http_status for event in announced] == [status],
            f"a {status} was tried again, and retryScheduled says {announced}",
        )
        stage.server.plays(trouble)
        with raises(TROUBLES[status], f"the server answers {status}") as caught:
            await provider.generate_completion(self.model, self.prompt, options=ONCE)
        expect(caught.error.retryable, f"the error for {status} says that it is for good")
        self._expect_told(caught.error, status)

    def _expect_told(self, error: LLMError, status: int) -> None:
        expect(
            error.http_status == status,
            f"the server answered {status}, and the error's http_status is {error.http_status}",
        )
        expect(
            "Marker-why" in str(error),
            f"the server said 'Marker-why', and the error says {str(error)!r}",
        )

    @check
    async def test_the_wait_that_a_server_asks_for_is_kept(self, stage: Stage) -> None:
        provider = stage.make()
        busy = self.error(429, "slow down")
        busy = replace(busy, headers={**busy.headers, "retry-after": "0.05"})
        stage.server.plays(busy, self.stream(self.wanted))
        await provider.generate_completion(self.model, self.prompt)
        (event,) = stage.events_of(provider).named("retryScheduled")
        expect(
            event.wait_s >= 0.05 and event.error.retry_after_s == 0.05,
            "the server asks for 0.05 s with Retry-After; the error says "
            f"{event.error.retry_after_s}, and it waits {event.wait_s:g} s",
        )

    @check
    async def test_more_errors_of_the_vendor_are_told_apart(self, stage: Stage) -> None:
        for kind, reply in self.errors().items():
            provider = stage.make()
            stage.server.plays(reply)
            with raises(kind, f"the server says {_shown(reply)}"):
                await provider.generate_completion(self.model, self.prompt, options=ONCE)

    # ---- answers that break off ------------------------------------------------------------------

    @pytest.mark.parametrize("ending", ["complete", "close", "reset", "half_chunk"])
    @pytest.mark.parametrize("pieces", [1, 2, 3])
    @check
    async def test_an_answer_that_breaks_off_is_no_answer(
        self, stage: Stage, pieces: int, ending: Ending
    ) -> None:
        provider = stage.make()
        reply = stopped_behind(self.stream(self.wanted), WORDS[pieces - 1], ending)
        stage.server.plays(reply)
        when = f"the stream stops behind piece {pieces} of 3 ({ending})"
        stream = provider.stream_completion(self.model, self.prompt)
        seen: list[str] = []
        with raises(StreamInterruptedError, when) as caught:
            async for event in stream:
                expect(event.kind != "done", f"when {when}, the reader gets the event 'done'")
                seen.append(event.text)
        wanted = "".join(WORDS[:pieces])
        partial = caught.error.partial
        expect(
            "".join(seen) == wanted and partial is not None and partial.text == wanted,
            f"when {when}, {wanted!r} has arrived; the reader got {seen}, the error's partial is "
            f"{partial!r:.200}",
        )
        expect(partial is None or partial.finish_reason is None, "a part has a finish_reason")
        asked = len(stage.server.questions)
        expect(asked == 1, f"an answer that had begun was asked for {asked} times")

    @pytest.mark.parametrize("instead", ["close", "reset"])
    @check
    async def test_no_answer_at_all_is_a_connection_error(self, stage: Stage, instead: Any) -> None:
        provider = stage.make()
        stage.server.plays(Reply(instead=instead))
        with raises((ProviderConnectionError, StreamInterruptedError), "no byte comes"):
            await provider.generate_completion(self.model, self.prompt, options=ONCE)

    @pytest.mark.parametrize("body", [b"", b"<html><title>Log in</title></html>"])
    @check
    async def test_something_else_than_an_answer_is_refused(
        self, stage: Stage, body: bytes
    ) -> None:
        provider = stage.make()
        kind = "text/html" if body else "application/json"
        stage.server.plays(Reply(body=[body], headers={"content-type": kind}))
        with raises((InvalidResponseError, StreamInterruptedError), f"the answer is {body!r}"):
            await provider.generate_completion(self.model, self.prompt, options=ONCE)

    @check
    async def test_an_error_inside_a_stream_is_raised_behind_what_came_before(
        self, stage: Stage
    ) -> None:
        inside = self.error_inside("Marker-inside")
        if inside is None:
            pytest.skip("the vendor sends no errors inside a stream")
        failing = with_steps_behind(self.stream(self.wanted), WORDS[1], inside.body)
        for reply in (failing, in_one_piece(failing)):
            provider = stage.make()
            stage.server.plays(reply)
            seen: list[str] = []
            with raises(ProviderError, "an error comes behind the second piece") as caught:
                async for event in provider.stream_completion(self.model, self.prompt):
                    seen.append(event.text)
            expect(
                "Marker-inside" in str(caught.error),
                f"the server said 'Marker-inside' in the stream, the error {str(caught.error)!r}",
            )
            expect(
                "".join(seen) == WORDS[0] + WORDS[1],
                f"two pieces came before the error, and the reader got {seen}",
            )

    # ---- silence ---------------------------------------------------------------------------------

    @check
    async def test_a_server_that_says_nothing_is_given_up(self, stage: Stage) -> None:
        provider = stage.make()
        stage.server.plays(Reply(instead="hang"))
        options = {"timeouts": {"first_token_s": 0.05}, **ONCE}
        with raises(RequestTimeoutError, "no answer begins") as caught:
            await provider.generate_completion(self.model, self.prompt, options=options)
        expect(
            caught.error.code == "first_token_timeout",
            f"the error's code is {caught.error.code}, not first_token_timeout",
        )
        await stage.server.left()

    @check
    async def test_an_answer_that_falls_silent_is_given_up(self, stage: Stage) -> None:
        provider = stage.make()
        silent = self.reply_with(Wanted(hang_after=1))
        if self.keep_alive is not None:
            # A server that says that it is alive says nothing about the answer.
            comments: list[Step] = [self.keep_alive, 0.02] * 10_000
            silent = replace(silent, body=[*silent.body, *comments])
        stage.server.plays(silent)
        options = {"timeouts": {"idle_s": 0.15, "content_idle_s": 0.15}}
        with raises(StreamInterruptedError, "nothing but keep-alives comes any more") as caught:
            await provider.generate_completion(self.model, self.prompt, options=options)
        partial = caught.error.partial
        expect(
            caught.error.code in _SILENT and partial and partial.text == WORDS[0],
            f"the error is {caught.error!r} with {partial!r:.200}",
        )
        await stage.server.left()


# Where signs of life come, and where not even these do.
_SILENT = ("content_idle_timeout", "idle_timeout")


def _shown(reply: Reply) -> str:
    body = b"".join(step for step in reply.body if isinstance(step, bytes))
    return f"{reply.status} {body!r:.120}"
