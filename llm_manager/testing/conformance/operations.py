"""Checks of what can be asked besides conversations: filling in, embeddings, counting tokens."""

from __future__ import annotations

from ...errors import UnsupportedFeatureError
from ...messages import Usage
from .asking import AskingChecks
from .expect import expect, raises
from .stage import Stage, check
from .wire import says


class OperationChecks(AskingChecks):
    """What a provider claims to be able to do, and what it does not claim."""

    @check
    async def test_the_middle_is_filled_in(self, stage: Stage) -> None:
        provider = stage.make()
        if "fim" not in provider.capabilities:
            with raises(UnsupportedFeatureError, "fim is not in its capabilities"):
                await provider.generate_fim(self.model, "Marker-before", "Marker-behind")
            self._expect_unsent(stage, "fim")
            return
        reply = self.fim(self.wanted)
        expect(reply is not None and self.fim_path, "it claims fim: give fim_path and fim()")
        assert reply is not None
        stage.server.plays(reply)
        response = await provider.generate_fim(self.model, "Marker-before", "Marker-behind")
        request = stage.server.questions[0]
        expect(
            request.path.partition("?")[0] == self.fim_path,
            f"a request to fill in goes to {request.path}, not to {self.fim_path}",
        )
        for marker in ("Marker-before", "Marker-behind"):
            expect(says(self.sent(request), marker), f"{marker!r} around the gap is not sent")
        expect(response.text == self.wanted.whole_text, f"the middle is {response.text!r}")

    @check
    async def test_texts_become_vectors(self, stage: Stage) -> None:
        provider = stage.make()
        if "embeddings" not in provider.capabilities:
            with raises(UnsupportedFeatureError, "embeddings is not in its capabilities"):
                await provider.embed(self.model, ["Marker-one"])
            self._expect_unsent(stage, "embeddings")
            return
        vectors = [[0.25, -0.5], [1.0, 0.125]]
        reply = self.embeddings(vectors, Usage(prompt_tokens=9))
        expect(
            reply is not None and self.embeddings_path,
            "it claims embeddings: give embeddings_path and embeddings()",
        )
        assert reply is not None
        stage.server.plays(reply)
        answer = await provider.embed(self.model, ["Marker-one", "Marker-two"])
        expect(
            [list(vector) for vector in answer.vectors] == vectors,
            f"the vectors are {answer.vectors} instead of {vectors}",
        )
        sent = self.sent(stage.server.questions[0])
        for marker in ("Marker-one", "Marker-two"):
            expect(says(sent, marker), f"the text {marker!r} is not sent")

    @check
    async def test_tokens_of_a_prompt_can_be_counted(self, stage: Stage) -> None:
        provider = stage.make()
        reply = self.counted(77)
        if reply is not None:
            stage.server.plays(reply)
        count = await provider.count_tokens(self.model, self.prompt)
        if reply is None:
            expect(
                count.tokens > 0 and count.estimated,
                f"without counted() the count must be an estimate, not {count}",
            )
            self._expect_unsent(stage, "counting tokens")
        else:
            expect(
                count.tokens == 77 and not count.estimated,
                f"the vendor counts 77 tokens, count_tokens says {count}",
            )
