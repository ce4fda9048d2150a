"""The table of features in the documentation says what the code says.

That a "yes" works and a "-" is refused before anything is sent is tested by tests/conformance.
"""

from __future__ import annotations

import pytest

from llm_manager import kinds
from llm_manager.providers.rows import ROWS

from . import feature_table
from .conformance import test_rows


def test_the_table_of_features_is_the_one_that_the_code_makes() -> None:
    assert feature_table.region() == feature_table.rendered(), "run `python -m tests.feature_table`"


@pytest.mark.parametrize("id", ROWS)
def test_every_row_has_its_conformance_class(id: str) -> None:
    assert test_rows.class_name(id) in vars(test_rows)
    assert id in kinds()
