"""Several answers computed together: one step of the model makes one token for each.

A prompt is read alone, so its length does not matter to the others, and in parts, so that it can
be given up in between; then its row joins the batch.  Rows differ in length, so shorter ones are
padded on the left and masked.  Runs in the worker.

What this module must not do: know of messages, queues or the app.
"""

from __future__ import annotations

import inspect
from typing import Any

from .sampling import Sampler
from .text import AnswerText

# How much of a prompt is read at once: enough to keep the device busy, and soon done.
_PART_TOKENS_CPU = 128
_PART_TOKENS = 1024


class Row:
    """One answer in the making.

    Args:
        id: of its request.
        prompt: tokens of the prompt.
        limit: how many tokens the answer may have.
        ends: tokens that end an answer.
        opening: what the prompt has begun the answer with.
    """

    def __init__(
        self,
        id: str,
        prompt: list[int],
        *,
        limit: int,
        ends: frozenset[int],
        sampler: Sampler,
        text: AnswerText,
        opening: str = "",
    ) -> None:
        self.id = id
        self.prompt = prompt
        self.answer: list[int] = []
        self.reason: str | None = None
        self.failure: Exception | None = None
        self.sampler = sampler
        self.opening = opening
        self.padding = 0
        self._limit = limit
        self._ends = ends
        self._text = text

    @property
    def has_ended(self) -> bool:
        return self.reason is not None or self.failure is not None

    def accept(self, token: int) -> str:
        """Take the next token; returns the text that it brings.  Sets ``reason`` at the end."""
        self.answer.append(token)
        if token in self._ends:
            self.reason = "stop"
            return self._text.close()
        piece = self._text.feed(token)
        if self._text.stopped:
            self.reason = "stop"
        elif len(self.answer) >= self._limit:
            self.reason = "length"
            piece += self._text.close()
        return piece


class Batch:
    """The rows that are computed together, and what the model remembers of them."""

    def __init__(self, torch: Any, model: Any) -> None:
        self.rows: list[Row] = []
        self._torch = torch
        self._model = model
        self._device = model.get_input_embeddings().weight.device
        accepted = inspect.signature(model.forward).parameters
        self._only_last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._takes_positions = "position_ids" in accepted
        self.reading: Row | None = None
        """The row whose prompt is being read; it joins the others when that is done."""
        self.cache: Any = None
        self._part_tokens = _PART_TOKENS_CPU if self._device.type == "cpu" else _PART_TOKENS
        self._reads_parts = True
        self._read_tokens = 0
        self._read_cache: Any = None
        self._length = 0
        self._last: Any = None
        self._mask: Any = None

    @staticmethod
    def can_hold_several(cache: Any) -> bool:
        """Whether what a model remembers can be padded and joined: plain keys and values."""
        layers = getattr(cache, "layers", ())
        return bool(layers) and all(type(layer).__name__ == "DynamicLayer" for layer in layers)

    def begin(self, row: Row) -> None:
        """Take a new row, whose prompt `read` reads."""
        self._stop_reading()
        self.reading = row

    def read(self) -> str | None:
        """Read the next part of the prompt of ``reading``.

        Returns:
            None if there is more; else the text of the row's first token: it has joined the others,
            unless that was all.
        """
        row = self.reading
        assert row is not None
        try:
            with self._torch.inference_mode():
                scores, cache = self._read_part(row)
                if scores is None:
                    return None
                piece = row.accept(self._chosen(row, scores))
                if not row.has_ended:
                    self._join(row, cache)
        except BaseException:  # whatever ends it, the next row begins from nothing
            self._stop_reading()
            raise
        self._stop_reading()
        return piece

    def step(self) -> list[tuple[Row, str]]:
        """One more token for each row; those that have ended leave."""
        torch = self._torch
        with torch.inference_mode():
            more: dict[str, Any] = {}
            if self._mask is not None:
                more["attention_mask"] = self._mask
                if self._takes_positions:
                    more["position_ids"] = self._mask.sum(1, keepdim=True) - 1
            out = self._model(
                input_ids=self._last, past_key_values=self.cache, use_cache=True, **more
            )
            self._length += 1
            scores = out.logits[:, -1]
            likeliest = torch.argmax(scores, dim=-1).tolist()
            pieces = [
                (row, self._accepted(row, token, own))
                for row, token, own in zip(self.rows, likeliest, scores, strict=True)
            ]
            if any(row.has_ended for row in self.rows):
                self._keep([place for place, row in enumerate(self.rows) if not row.has_ended])
            else:
                self._prepare([row.answer[-1] for row in self.rows])
        return pieces

    def remove(self, id: str) -> None:
        """Forget one row."""
        if self.reading is not None and self.reading.id == id:
            self._stop_reading()
        kept = [place for place, row in enumerate(self.rows) if row.id != id]
        if len(kept) < len(self.rows):
            with self._torch.inference_mode():
                self._keep(kept)

    def clear(self) -> list[Row]:
        """Forget all rows that are computed, whatever state they are in; returns them."""
        rows, self.rows = self.rows, []
        self.cache = self._mask = self._last = None
        self._length = 0
        return rows

    def _read_part(self, row: Row) -> tuple[Any, Any]:
        """The scores after the prompt and what the model remembers of it; None for "not yet"."""
        end = self._read_tokens + self._part_tokens if self._reads_parts else len(row.prompt)
        more = {} if self._read_cache is None else {"past_key_values": self._read_cache}
        part = row.prompt[self._read_tokens : end]
        out = self._model(
            input_ids=self._torch.tensor([part], device=self._device),
            use_cache=True,
            **self._only_last,
            **more,
        )
        if end >= len(row.prompt):
            return out.logits[0, -1], out.past_key_values
        if self.can_hold_several(out.past_key_values):
            self._read_tokens, self._read_cache = end, out.past_key_values
        else:
            self._reads_parts = False  # who knows whether it can go on from there: read all anew
        return None, None

    def _stop_reading(self) -> None:
        self.reading = self._read_cache = None
        self._read_tokens = 0

    def _accepted(self, row: Row, likeliest: int, scores: Any) -> str:
        """The next piece of a row; what goes wrong with it is its own affair."""
        try:
            greedy = row.sampler.is_greedy
            return row.accept(likeliest if greedy else self._chosen(row, scores))
        except Exception as error:  # noqa: BLE001 - torch and tokenizers raise anything
            row.failure = error
            return ""

    def _chosen(self, row: Row, scores: Any) -> int:
        if row.sampler.is_greedy:
            return int(self._torch.argmax(scores))
        return row.sampler.pick(scores, row.prompt, row.answer)

    def _join(self, row: Row, cache: Any) -> None:
        if self.rows:
            length = len(row.prompt)
            target = max(length, self._length)
            for own, new in zip(self.cache.layers, cache.layers, strict=True):
                own.keys = self._joined(own.keys, new.keys, target)
                own.values = self._joined(own.values, new.values, target)
            for known in self.rows:
                known.padding += target - self._length
            row.padding, self._length = target - length, target
        else:
            self.cache, self._length, row.padding = cache, len(row.prompt), 0
        self.rows.append(row)
        self._refresh()

    def _joined(self, rows: Any, row: Any, length: int) -> Any:
        pad = self._torch.nn.functional.pad
        return self._torch.cat(
            [pad(each, (0, 0, length - each.shape[-2], 0)) for each in (rows, row)], dim=0
        )

    def _keep(self, places: list[int]) -> None:
        if not places:
            self.clear()
            return
        self.rows = [self.rows[place] for place in places]
        surplus = min(row.padding for row in self.rows)
        if len(places) < self.cache.layers[0].keys.shape[0] or surplus:
            index = self._torch.tensor(places, device=self._device)
            for layer in self.cache.layers:
                layer.keys = layer.keys[index.to(layer.keys.device), :, surplus:]
                layer.values = layer.values[index.to(layer.values.device), :, surplus:]
            for row in self.rows:
                row.padding -= surplus
            self._length -= surplus
        self._refresh()

    def _refresh(self) -> None:
        """Make mask and last tokens anew, because the rows have changed."""
        torch = self._torch
        self._mask = None
        if any(row.padding for row in self.rows):
            places = torch.arange(self._length, device=self._device)
            padding = torch.tensor([row.padding for row in self.rows], device=self._device)
            self._mask = (places[None, :] >= padding[:, None]).long()
        self._prepare([row.answer[-1] for row in self.rows])

    def _prepare(self, tokens: list[int]) -> None:
        """Set what the next step needs: the last tokens, and a mask that covers them."""
        torch = self._torch
        self._last = torch.tensor(tokens, device=self._device)[:, None]
        if self._mask is not None:
            one = torch.ones((len(tokens), 1), dtype=self._mask.dtype, device=self._device)
            self._mask = torch.cat([self._mask, one], dim=1)
