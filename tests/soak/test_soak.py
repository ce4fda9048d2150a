"""A short soak, so that the long one is known to run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .controller import ROOT


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_short_soak_leaves_nothing_over() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--seconds", "5", "--streams", "30"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
