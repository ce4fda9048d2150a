"""Whatever is done to a provider at the same time, it ends on the truth and leaves nothing behind.

What is done, and what is looked at, stands in `interleavings`; run that for longer searches.
"""

from __future__ import annotations

import gc

import pytest

from .interleavings import Mode, failure_of, plan


@pytest.mark.parametrize("mode", ["echo", "http"])
@pytest.mark.parametrize("first_seed", range(0, 120, 20))
def test_random_interleavings_end_on_the_truth(first_seed: int, mode: Mode) -> None:
    failures = [failure_of(mode, seed) for seed in range(first_seed, first_seed + 20)]
    gc.collect()
    assert [failure for failure in failures if failure] == [], "\n\n".join(filter(None, failures))


def test_an_episode_can_be_had_again_and_uses_every_action() -> None:
    assert plan(7) == plan(7) != plan(8)
    used = {action.what for seed in range(120) for action in plan(seed)}
    assert used == {
        "ask", "available", "cancel", "cancel_task", "cancel_twice", "close", "connect",
        "disconnect", "down", "fault", "models", "reconnect_now", "up", "update",
    }  # fmt: skip
    assert {action.place for seed in range(120) for action in plan(seed)} == {0, 1}
