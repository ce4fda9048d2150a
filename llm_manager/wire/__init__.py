"""Wire codecs: pure translation between our types and one dialect's bytes.

A codec does no I/O, looks at no clock and writes no log, so its tests are tables: bytes in, deltas
out.  It holds no state either; what belongs to one answer lives in the `Decoder` it makes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ..messages import Delta, LLMRequest


class Decoder(Protocol):
    """Turns the bytes of one answer into deltas, wherever the bytes are cut."""

    def feed(self, data: bytes) -> Iterable[Delta]:
        """The deltas that ``data`` completes.

        Raises:
            ProviderError: the answer contains an error of the provider.
            InvalidResponseError: the bytes are not what the dialect promises.
        """

    def close(self) -> Iterable[Delta]:
        """The last deltas, once no more bytes will come.

        Raises:
            StreamInterruptedError: the answer had not ended properly.
            InvalidResponseError: the bytes are not what the dialect promises.
        """


class Codec(Protocol):
    """How requests and answers look in one dialect."""

    @property
    def path(self) -> str:
        """Where requests go, below the server's base URL."""

    def encode(self, request: LLMRequest) -> bytes:
        """The body to send.

        Raises:
            UnsupportedFeatureError: the dialect cannot express the request.
        """

    def decoder(self, request: LLMRequest) -> Decoder:
        """A fresh decoder for the answer to ``request``."""
