"""Checks of answers: complete, in order, as they come, and the same in every way of reading."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from ...messages import LLMMessage, LLMStreamEvent, Usage
from ...policy.deadline import DeadlinePolicy
from ...policy.retry import RetryPolicy
from ..peer import Reply, Request
from .base import Conformance, HttpKit
from .deltas import DeltaWatch, expect_sensible
from .expect import expect
from .stage import Stage, check
from .wire import WORDS, Wanted, halted_within, in_one_piece, says, with_steps_behind

TRICKY = Wanted(text=("naïve ", "– 😀 ", "日本\n", '"quoted\\" ', "end."))


class AnswerChecks(Conformance):
    """What every provider does."""

    @check
    async def test_an_answer_is_the_same_however_it_is_read(self, stage: Stage) -> None:
        provider = stage.make()
        chosen = stage.plays(provider, self.wanted)
        called: list[LLMStreamEvent] = []
        stream = provider.stream_completion(self.model, self.prompt, callback=called.append)
        events = [event async for event in stream]
        text = "".join(event.text for event in events if event.kind == "text")
        response = stream.response
        expect(text or response.reasoning, "the answer is empty")
        expect(events == called, f"the callback gets {called}, and the reader {events}")
        expect(
            [event.kind for event in events].count("done") == 1 and events[-1].kind == "done",
            f"the last event must be done, and only that: {[event.kind for event in events]}",
        )
        expect(
            [event.index for event in events] == list(range(len(events))),
            f"the events are numbered {[event.index for event in events]}",
        )
        expect(
            events[-1].response == response and response.text == text,
            f"the pieces make {text!r}, but the response says {response.text!r}",
        )
        if chosen:
            expect(
                text == self.wanted.whole_text,
                f"the answer is {text!r} instead of {self.wanted.whole_text!r}",
            )
            stage.plays(provider, self.wanted)
            collected = await provider.generate_completion(self.model, self.prompt)
            expect(
                (collected.text, collected.finish_reason) == (text, response.finish_reason),
                f"as a whole the answer is {collected.text!r} ({collected.finish_reason}), in "
                f"pieces {text!r} ({response.finish_reason})",
            )
        expect(response.finish_reason is not None, "a complete answer has no finish_reason")
        expect(
            response.provider_id == provider.id and response.request_id == stream.request_id,
            f"the response names provider {response.provider_id!r}, request "
            f"{response.request_id!r}",
        )
        expect(response.model, "the response does not name the model")

    @check
    async def test_the_pieces_come_in_a_sensible_order(self, stage: Stage) -> None:
        watch = DeltaWatch()
        provider = stage.make(policies=[DeadlinePolicy(), RetryPolicy(), watch])
        stage.plays(provider, self.wanted)
        await provider.generate_completion(self.model, self.prompt)
        expect_sensible(watch.deltas)


class WireAnswerChecks(HttpKit):
    """What only a provider with a server does."""

    @pytest.mark.parametrize("write_size", [1, 7, None], ids=["bytes", "sevens", "one_write"])
    @check
    async def test_it_does_not_matter_where_the_bytes_are_cut(
        self, stage: Stage, write_size: int | None
    ) -> None:
        provider = stage.make()
        reply = self.stream(TRICKY)
        if write_size is None:
            reply = in_one_piece(reply)
        stage.server.plays(replace(reply, write_size=write_size))
        response = await provider.generate_completion(self.model, self.prompt)
        expect(
            response.text == TRICKY.whole_text,
            f"the answer is {response.text!r} instead of {TRICKY.whole_text!r} when it is sent in "
            f"writes of {write_size or 'all'} bytes",
        )

    @check
    async def test_a_piece_is_handed_on_before_the_next_is_sent(self, stage: Stage) -> None:
        provider = stage.make()
        gate = stage.server.gate()
        stage.server.plays(with_steps_behind(self.stream(self.wanted), WORDS[0], [gate.step]))
        stream = provider.stream_completion(self.model, self.prompt)
        pieces: list[str] = []
        async for event in stream:
            pieces.append(event.text)
            gate.open()
        expect(
            not gate.forced,
            "the server waited behind the first piece until that had been read, in vain; hand on "
            "each piece of the answer as it comes",
        )
        expect("".join(pieces) == self.wanted.whole_text, f"the pieces are {pieces}")

    @check
    async def test_the_loop_is_free_while_the_server_thinks(self, stage: Stage) -> None:
        provider = stage.make()
        gate = stage.server.gate()
        reply = self.stream(self.wanted)
        stage.server.plays(replace(reply, body=[gate.step, *reply.body]))
        asking = asyncio.ensure_future(provider.generate_completion(self.model, self.prompt))
        await stage.server.asked()
        gate.open()
        await asking
        expect(
            not gate.forced,
            "while the provider waited for the server, nothing else ran; a blocking call belongs "
            "into asyncio.to_thread",
        )

    @check
    async def test_several_answers_at_once_are_not_mixed_up(self, stage: Stage) -> None:
        provider = stage.make()
        names = [f"Parallel{number}" for number in range(6)]

        all_asked = stage.server.gate()

        def echo(request: Request) -> Reply:
            if len(stage.server.questions) == len(names):
                all_asked.open()
            asked = next(name for name in names if says(self.sent(request), name))
            pieces = tuple(f"{asked}-{number} " for number in range(8))
            # All wait in the middle of a piece before the first goes on.
            return halted_within(
                self.stream(Wanted(text=pieces)), pieces[3], [all_asked.step, 0.03]
            )

        stage.server.plays(echo)
        answers = await asyncio.gather(
            *(provider.generate_completion(self.model, f"Say {name}") for name in names)
        )
        for name, answer in zip(names, answers, strict=True):
            right = "".join(f"{name}-{number} " for number in range(8))
            expect(
                answer.text == right,
                f"of six answers at once, one is {answer.text!r} instead of {right!r}; what "
                "belongs to one answer must live in its decoder",
            )

    @check
    async def test_a_server_that_does_not_stream_is_understood(self, stage: Stage) -> None:
        reply = self.whole(self.wanted)
        if reply is None:
            pytest.skip("whole() is not given")
        provider = stage.make()
        stage.server.plays(reply)
        response = await provider.generate_completion(self.model, self.prompt)
        expect(
            (response.text, response.finish_reason) == (self.wanted.whole_text, "stop"),
            f"an answer in one document is read as {response.text!r} ({response.finish_reason})",
        )

    @pytest.mark.parametrize("finish", ["stop", "length"])
    @check
    async def test_why_an_answer_ended_is_told(self, stage: Stage, finish: Any) -> None:
        provider = stage.make()
        stage.plays(provider, replace(self.wanted, finish=finish))
        response = await provider.generate_completion(self.model, self.prompt)
        expect(
            response.finish_reason == finish,
            f"the answer ended because of {finish!r}, and finish_reason is "
            f"{response.finish_reason!r}",
        )

    @check
    async def test_tokens_are_counted_in_the_common_meaning(self, stage: Stage) -> None:
        details = {"cached_tokens": 40, "cache_write_tokens": 20, "reasoning_tokens": 6}
        known = {name: tokens for name, tokens in details.items() if name in self.usage_details}
        usage = structs.replace(Usage(prompt_tokens=100, completion_tokens=30), **known)
        provider = stage.make()
        stage.plays(provider, replace(self.wanted, usage=usage))
        response = await provider.generate_completion(self.model, self.prompt)
        expect(
            response.usage == usage,
            f"the vendor counted {usage}, and the response says {response.usage}; prompt_tokens "
            "includes what was read from and written to a cache, completion_tokens includes "
            "reasoning",
        )
        (finished,) = stage.events_of(provider).named("requestFinished")
        expect(finished.usage == usage, f"requestFinished says {finished.usage}")

    @check
    async def test_the_question_arrives_whole(self, stage: Stage) -> None:
        provider = stage.make()
        stage.plays(provider, self.wanted)
        conversation = [
            LLMMessage.system("Marker-system"),
            LLMMessage.user("Marker-first"),
            LLMMessage.assistant("Marker-answer"),
            LLMMessage.user('Marker-"last" – 日本'),
        ]
        await provider.generate_chat_completion(
            self.model, conversation, options=dict(self.sends_options)
        )
        request = stage.server.questions[0]
        sent = self.sent(request)
        for message in conversation:
            expect(says(sent, message.text), f"{message.text!r} of a {message.role} is not sent")
        flat = json.dumps(sent, ensure_ascii=False)
        places = [flat.find(f"Marker-{word}") for word in ("first", "answer")]
        expect(places == sorted(places), "the messages are sent in another order")
        model = self.sent_model or self.model
        expect(
            says(sent, model) or model in request.path,
            f"the model {model!r} is named neither in the body nor in the path",
        )
        for name, value in self.sends_options.items():
            expect(says(sent, value), f"the option {name}={value!r} is not sent")
        for name, value in self.expected_headers.items():
            found = request.headers.get(name)
            expect(found == value, f"the header {name!r} is {found!r} instead of {value!r}")
