"""What the tests about faults share."""

from __future__ import annotations

import shutil

import pytest

from .certificates import Certificates, make


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Good and bad certificates, made once for all tests."""
    if shutil.which("openssl") is None:
        pytest.skip("the program openssl makes the certificates")
    return make(tmp_path_factory.mktemp("certificates"))
