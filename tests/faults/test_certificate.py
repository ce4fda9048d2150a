"""Who issued a certificate that was not accepted is told, and nothing is sent to find it out."""

from __future__ import annotations

import asyncio
import random
import ssl

import pytest

from llm_manager.errors import ProviderConnectionError
from llm_manager.transport.certificate import issuer_in, issuer_shown_by

from ..test_http_transport import CERTIFICATE, KEY, opened, streamed
from .certificates import Certificates


def der(certificates: Certificates, name: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert((certificates.folder / f"{name}.pem").read_text())


def test_the_issuer_is_read_from_the_certificate(certificates) -> None:
    shown = issuer_in(der(certificates, "unknown_issuer"))
    assert shown == "'Inspection CA stranger' of 'Example Networks'"


def test_a_certificate_that_nobody_else_issued_says_so(certificates) -> None:
    assert issuer_in(der(certificates, "trusted")) == "itself"


def test_a_name_of_one_part_is_shown_alone() -> None:
    # The same certificate with another owner, so that it is not issued by itself.
    body = ssl.PEM_cert_to_DER_cert(CERTIFICATE[CERTIFICATE.index("-----BEGIN CERT") :])
    at = body.rindex(b"ScriptedPeer")
    assert issuer_in(body[:at] + b"ScriptedPear" + body[at + 12 :]) == "'ScriptedPeer'"


def test_names_are_cut_and_lose_what_cannot_be_printed(certificates) -> None:
    whole = der(certificates, "unknown_issuer")
    shown = issuer_in(whole.replace(b"Inspection CA", b"Inspection\x1b\n\x07", 1))
    assert shown == "'Inspection stranger' of 'Example Networks'"


def test_what_is_no_certificate_has_no_issuer(certificates) -> None:
    whole = der(certificates, "unknown_issuer")
    for length in range(0, 120):
        assert issuer_in(whole[:length]) is None
    assert issuer_in(b"\x30\x84\xff\xff\xff\xff") is None
    assert issuer_in(b"\x30\x80\x00\x00") is None


def test_no_bytes_make_the_reader_fail(certificates) -> None:
    whole = der(certificates, "unknown_issuer")
    chance = random.Random(1)
    for _ in range(5000):
        changed = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        shown = issuer_in(bytes(changed))
        assert shown is None or len(shown) < 500


async def test_nothing_but_the_handshake_goes_over_the_second_connection(certificates) -> None:
    heard: list[bytes] = []
    over = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Only a connection whose handshake was completed comes here.
        try:
            heard.append(await reader.read())
        except ConnectionError:
            heard.append(b"")
        writer.close()
        over.set()

    tls = certificates.server("unknown_issuer")
    async with await asyncio.start_server(listen, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        headers = {"authorization": f"Bearer {KEY}"}
        async with opened(f"https://127.0.0.1:{port}", headers=headers) as transport:
            with pytest.raises(ProviderConnectionError, match="Inspection CA stranger") as caught:
                await streamed(transport)
        await over.wait()
    assert heard == [b""]
    assert KEY not in str(caught.value)


async def test_a_server_that_is_gone_by_then_has_no_issuer() -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(leave, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        assert await issuer_shown_by(address, "127.0.0.1") is None
    assert await issuer_shown_by(address, "127.0.0.1") is None


async def test_behind_a_proxy_nobody_is_asked_a_second_time(certificates) -> None:
    """The proxy would have to be asked for another connection."""
    asked = 0

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.start_tls(certificates.server("unknown_issuer"))

    async with await asyncio.start_server(join, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        proxy = f"http://127.0.0.1:{port}"
        async with opened("https://llm.test", proxy=proxy) as transport:
            with pytest.raises(ProviderConnectionError, match="not accepted") as caught:
                await streamed(transport)
    assert caught.value.code == "tls"
    assert "issued by" not in str(caught.value)
    assert asked == 1
