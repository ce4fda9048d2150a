"""Every fault with every dialect: what comes of it is what the rows say."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from .__main__ import PAGE
from .cases import FAULTS
from .certificates import Certificates
from .dialects import DIALECTS, Dialect
from .fault import Fault
from .table import with_tables
from .trial import tried


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_fault_comes_out_as_its_row_says(
    fault: Fault, dialect: Dialect, certificates: Certificates
) -> None:
    seen = await tried(fault, dialect, certificates)
    assert asdict(seen) == asdict(fault.expected)


def test_every_fault_has_a_name_and_words_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len({fault.what for fault in FAULTS}) == len(FAULTS)


def test_the_page_shows_what_is_tested() -> None:
    page = PAGE.read_text()
    assert with_tables(page) == page, "run python -m tests.faults"
