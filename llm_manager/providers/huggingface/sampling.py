"""Choosing the next token.  Runs in the worker, where torch is."""

from __future__ import annotations

from typing import Any

from .protocol import Sampling

# What transformers takes if neither request nor model says anything.
_USUAL_TOP_K = 50
# Below it all but the likeliest token have no chance, and dividing by it is not safe.
_LEAST_TEMPERATURE = 1e-4


class Sampler:
    """Chooses the tokens of one answer.

    Args:
        torch: the module.
        wanted: what the request says.
        defaults: the model's own ``generation_config``.
    """

    def __init__(self, torch: Any, wanted: Sampling, defaults: Any) -> None:
        self._torch = torch
        samples = bool(getattr(defaults, "do_sample", False))

        def chosen(name: str) -> Any:
            value = getattr(wanted, name)
            return value if value is not None else getattr(defaults, name, None)

        temperature = wanted.temperature
        if temperature is None:
            temperature = (getattr(defaults, "temperature", None) or 1.0) if samples else 0.0
            if not samples and (wanted.top_p is not None or wanted.top_k is not None):
                temperature = 1.0
        self._temperature = float(temperature) if temperature >= _LEAST_TEMPERATURE else 0.0
        self._top_p = chosen("top_p") or 1.0
        top_k = chosen("top_k")
        self._top_k = _USUAL_TOP_K if top_k is None else int(top_k)
        self._min_p = chosen("min_p") or 0.0
        self._repetition = chosen("repetition_penalty") or 1.0
        self._presence = wanted.presence_penalty or 0.0
        self._frequency = wanted.frequency_penalty or 0.0
        self._penalises = self._repetition != 1.0 or bool(self._presence or self._frequency)
        self._generator: Any = None
        if wanted.seed is not None:
            self._generator = torch.Generator().manual_seed(wanted.seed)

    @property
    def is_greedy(self) -> bool:
        """Whether it always takes the likeliest token, and nothing else counts."""
        return self._temperature <= 0 and not self._penalises

    def pick(self, scores: Any, prompt: list[int], answer: list[int]) -> int:
        """The next token.

        Args:
            scores: one for each token of the vocabulary.
            prompt, answer: the tokens so far.
        """
        torch = self._torch
        scores = scores.float().cpu()
        if self._penalises:
            scores = self._penalised(scores, prompt, answer)
        if self._temperature <= 0:
            return int(torch.argmax(scores))
        scores = scores / self._temperature
        if self._top_k:
            least = torch.topk(scores, min(self._top_k, scores.shape[-1])).values[-1]
            scores = scores.masked_fill(scores < least, -torch.inf)
        if self._top_p < 1.0:
            scores = self._nucleus(scores)
        likely = torch.softmax(scores, dim=-1)
        if self._min_p:
            likely = likely.masked_fill(likely < self._min_p * likely.max(), 0.0)
        return int(torch.multinomial(likely, 1, generator=self._generator))

    def _nucleus(self, scores: Any) -> Any:
        """The likeliest tokens that together make up ``top_p``; always at least one."""
        torch = self._torch
        ordered, places = torch.sort(scores, descending=True)
        before = torch.cumsum(torch.softmax(ordered, dim=-1), dim=-1).roll(1)
        before[0] = 0.0
        return scores.index_fill(0, places[before >= self._top_p], -torch.inf)

    def _penalised(self, scores: Any, prompt: list[int], answer: list[int]) -> Any:
        torch = self._torch
        scores = scores.clone()
        if self._repetition != 1.0 and (prompt or answer):
            seen = torch.tensor(sorted({*prompt, *answer}))
            was = scores[seen]
            scores[seen] = torch.where(was < 0, was * self._repetition, was / self._repetition)
        if answer and (self._presence or self._frequency):
            tokens, counts = torch.tensor(answer).unique(return_counts=True)
            scores[tokens] -= self._presence + self._frequency * counts
        return scores
