"""The pytest plugin: fixtures for tests of apps and providers.

It is found by pytest where this package is installed, and costs an import of next to nothing.
Nothing is switched on by itself: fixtures do something for the tests that ask for them, and the
network is blocked where ``llm_manager_block_network = true`` stands in pytest's settings.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from . import EventRecorder, ScriptedPeer, ScriptedProvider

_BLOCK = "llm_manager_block_network"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        _BLOCK, "refuse connections of tests to other machines", type="bool", default=False
    )


class _Blocker:
    """The session's block of the network, which a fixture can lift for a while."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def block(self) -> None:
        self._stack.enter_context(_no_real_network())

    def lift(self) -> None:
        self._stack.close()


_session = pytest.StashKey[_Blocker]()


def pytest_configure(config: pytest.Config) -> None:
    if config.getini(_BLOCK):
        blocker = config.stash[_session] = _Blocker()
        blocker.block()
        config.add_cleanup(blocker.lift)


@pytest.fixture
def no_real_network() -> Iterator[None]:
    """Refuse connections to other machines while the test runs."""
    with _no_real_network():
        yield


@pytest.fixture
def allow_real_network(request: pytest.FixtureRequest) -> Iterator[None]:
    """Lift what ``llm_manager_block_network`` has blocked, for a test that means it."""
    blocker = request.config.stash.get(_session, None)
    if blocker is None:
        yield
        return
    blocker.lift()
    try:
        yield
    finally:
        blocker.block()


@pytest.fixture
def scripted_peer() -> Iterator[ScriptedPeer]:
    """An HTTP server on this machine that plays a script, on a thread of its own."""
    with _testing().ScriptedPeer() as peer:
        yield peer


@pytest.fixture
def scripted_provider() -> Iterator[ScriptedProvider]:
    """A provider that answers by script, closed at the end of the test."""
    provider: ScriptedProvider = _testing().ScriptedProvider()
    yield provider
    # On the library's own loop: that of the test may have gone.
    run_sync = importlib.import_module("llm_manager._blocking").run_sync
    run_sync(provider.close(0))


@pytest.fixture
def llm_events() -> Iterator[Callable[..., EventRecorder]]:
    """A function that records the events of the providers and managers it is given."""
    recorders: list[EventRecorder] = []

    def record(*emitters: Any) -> EventRecorder:
        recorders.append(_testing().EventRecorder(*emitters))
        return recorders[-1]

    yield record
    for recorder in recorders:
        recorder.close()


def _testing() -> Any:
    return importlib.import_module("llm_manager.testing")


def _no_real_network() -> AbstractContextManager[None]:
    network = importlib.import_module("llm_manager.testing.network")
    block: AbstractContextManager[None] = network.no_real_network()
    return block
