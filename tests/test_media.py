"""Images, documents, texts and tables: what a source is, what is refused, what goes on the wire."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from llm_manager import (
    DocumentInput,
    EchoProvider,
    FilePart,
    ImageInput,
    ImagePart,
    InvalidParameterError,
    InvalidResponseError,
    LLMMessage,
    MediaFactory,
    MediaLimits,
    OllamaProvider,
    OpenAICompatibleProvider,
    ProviderAPIError,
    ProviderConnectionError,
    ProviderNotFoundError,
    RequestTimeoutError,
    StreamInterruptedError,
    TabularInput,
    TextInput,
    TextPart,
    UnsupportedFeatureError,
)
from llm_manager.media.fetching import is_public
from llm_manager.testing import Reply, ScriptedPeer
from llm_manager.transport.download import download
from llm_manager.transport.sockets import addresses_of

from .test_docs_tables import column, quoted, table
from .test_http_transport import CERTIFICATE

ROOT = Path(__file__).parent.parent
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n%%EOF\n"
FORMATS = {
    "PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp",
    "BMP": "image/bmp", "TIFF": "image/tiff", "AVIF": "image/avif",
}  # fmt: skip
from_source = MediaFactory.from_source


def picture(kind: str = "PNG", width: int = 30, height: int = 20, **how) -> bytes:
    """A picture whose left half is red and whose right half is blue."""
    image = Image.new("RGB", (width, height), "blue")
    image.paste("red", (0, 0, width // 2, height))
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size, and has no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk


def refused(code: str, *args, **how) -> InvalidParameterError:
    with pytest.raises(InvalidParameterError) as caught:
        from_source(*args, **how)
    assert caught.value.code == code
    return caught.value


# ---- what a source may be ------------------------------------------------------------------------


def test_an_image_is_the_same_from_a_path_bytes_base64_and_a_data_url(tmp_path) -> None:
    data = picture()
    (tmp_path / "cat.png").write_bytes(data)
    text = base64.b64encode(data).decode()
    wrapped = "\n".join(text[i : i + 76] for i in range(0, len(text), 76)) + "\n"
    sources = [
        tmp_path / "cat.png", str(tmp_path / "cat.png"), data, bytearray(data), memoryview(data),
        text, wrapped, text.rstrip("="), f"data:image/png;base64,{text}",
        f"  DATA:image/png;charset=x;BASE64,{text.replace('+', '%2B')}",
    ]  # fmt: skip
    for source in sources:
        image = from_source(source)
        assert isinstance(image, ImageInput)
        assert (image.data, image.media_type, image.width, image.height) == (
            data, "image/png", 30, 20,
        )  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_the_type_of_an_image_is_found_in_its_content(kind) -> None:
    image = from_source(picture(kind))
    assert image.media_type == FORMATS[kind]
    known = kind not in ("TIFF", "AVIF")
    assert (image.width, image.height) == ((30, 20) if known else (None, None))


@pytest.mark.parametrize("width", [1, 255, 256, 1023])
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("PNG", {}), ("GIF", {}), ("BMP", {}), ("JPEG", {}), ("JPEG", {"progressive": True}),
        ("WEBP", {}), ("WEBP", {"lossless": True}), ("WEBP", {"exif": b"Exif\0\0" + b"x" * 9}),
    ],
)  # fmt: skip
def test_the_size_is_read_as_pillow_reads_it(kind, how, width) -> None:
    image = from_source(picture(kind, width, 7, **how))
    assert (image.width, image.height) == (width, 7)


def test_a_pdf_becomes_a_document_with_its_name(tmp_path) -> None:
    (tmp_path / "paper.pdf").write_bytes(PDF)
    document = from_source(tmp_path / "paper.pdf")
    assert document == DocumentInput(data=PDF, filename="paper.pdf")
    assert document.to_part() == FilePart(
        data=PDF, media_type="application/pdf", filename="paper.pdf"
    )
    assert from_source(base64.b64encode(PDF * 2).decode()).data == PDF * 2


def test_a_text_file_goes_to_the_model_with_its_name(tmp_path) -> None:
    (tmp_path / "notes.md").write_text("# Grüße\n", encoding="utf-8")
    part = from_source(tmp_path / "notes.md").to_part()
    assert part == TextPart(text="[notes.md]\n# Grüße\n[end of notes.md]\n")
    assert from_source(b"\xef\xbb\xbfplain").to_part() == TextPart(text="plain")
    assert from_source('data:application/json,{"a":%201}') == TextInput(text='{"a": 1}')


def test_a_home_folder_may_be_a_tilde(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("hello")
    assert from_source("~/a.txt").text == "hello"


def test_a_url_is_left_to_the_service() -> None:
    image = from_source("https://example.com/a/cat.JPG?size=2", detail="low")
    assert image.to_part() == ImagePart(url="https://example.com/a/cat.JPG?size=2", detail="low")
    document = from_source("https://example.com/Paper%201.pdf")
    assert document == DocumentInput(
        url="https://example.com/Paper%201.pdf", filename="Paper 1.pdf"
    )
    assert from_source("https://example.com/1", media_type="image/png").media_type == "image/png"
    assert from_source("https://example.com/1", media_type="document").url.endswith("/1")


async def test_an_input_goes_into_a_message_as_it_is() -> None:
    image = await MediaFactory.load(picture(), detail="high")
    message = LLMMessage.user("What is it?", image, from_source(b"a text"))
    assert message.content == (
        TextPart(text="What is it?"),
        ImagePart(data=image.data, media_type="image/png", detail="high"),
        TextPart(text="a text"),
    )


def test_the_bytes_of_a_file_are_in_no_repr() -> None:
    shown = repr([from_source(picture()), from_source(PDF), from_source(b"secret"),
                  from_source("https://example.com/cat.png")])  # fmt: skip
    assert "PNG\\r" not in shown
    assert "secret" not in shown
    assert "image/png, 30x20" in shown
    assert len(shown) < 400


# ---- tables --------------------------------------------------------------------------------------


def test_a_table_is_shown_row_by_row(tmp_path) -> None:
    (tmp_path / "prices.csv").write_text('name,price\n"a|b",1\n\n"two\nlines",2\n')
    table = from_source(tmp_path / "prices.csv")
    assert isinstance(table, TabularInput)
    assert table.to_part().text == (
        "[prices.csv: 2 columns, 2 rows]\nname | price\na\\|b | 1\ntwo lines | 2\n"
        "[end of prices.csv]\n"
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_of_a_table_is_found(delimiter) -> None:
    table = from_source(f"a{delimiter}b\n1{delimiter}2\n".encode(), media_type="tabular")
    assert (table.columns, table.rows) == (("a", "b"), (("1", "2"),))


def test_a_long_table_is_cut_and_says_so() -> None:
    data = b"n\n" + b"".join(b"%d\n" % n for n in range(1000))
    table = from_source(data, media_type="text/csv", limits=MediaLimits(max_rows=3))
    assert table.rows == (("0",), ("1",), ("2",))
    text = table.to_part().text
    assert text.startswith("[table: 1 column, about 1000 rows; only the first 3 rows follow]\n")
    assert "\n3\n" not in text


def test_a_table_of_exactly_the_limit_is_whole() -> None:
    table = from_source(b"n\n1\n2", media_type="tabular", limits=MediaLimits(max_rows=2))
    assert "[table: 1 column, 2 rows]" in table.to_part().text


def test_csv_may_be_sent_as_plain_text(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n")
    assert from_source(tmp_path / "a.csv", media_type="text").text == "a,b\n"


def test_a_table_that_cannot_be_read_is_an_error() -> None:
    error = refused("media_damaged", b'a,"' + b"x" * 200_000, media_type="tabular")
    assert "cannot be read as a table" in str(error)


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "no-such-file.png",
        "What is this?",
        "aGVsbG8gd29ybGQ=",
        "x" * 9000,
        "x" * 50_000,
        "a\0b",
        "\ud800",
        "",
        "/",
    ],
)
def test_a_text_that_leads_to_no_file_is_never_taken_for_anything_else(text) -> None:
    error = refused("file_not_found", text)
    assert len(str(error)) < 400


def test_base64_of_media_that_was_cut_off_is_an_error() -> None:
    text = base64.b64encode(picture(height=40)).decode().rstrip("=")
    cut = text[: len(text) // 4 * 4 - 3]
    assert "not valid base64" in str(refused("media_damaged", cut))
    assert "not valid base64" in str(refused("media_damaged", f"data:;base64,{text[:40]}!{text}"))
    assert "no comma" in str(refused("media_damaged", "data:image/png;base64"))


@pytest.mark.parametrize("source", ["ftp://example.com/a.png", "file:///a.png"])
def test_another_scheme_is_an_error(source) -> None:
    assert "scheme" in str(refused("invalid_parameter", source))


def test_something_else_is_an_error() -> None:
    assert "not int" in str(refused("invalid_parameter", 3))


def test_a_folder_or_a_device_is_no_file(tmp_path) -> None:
    assert "is a folder" in str(refused("file_not_found", tmp_path))
    if os.path.exists("/dev/zero"):
        assert "no regular file" in str(refused("file_not_found", "/dev/zero"))


@pytest.mark.parametrize(
    ("url", "hint"),
    [("https://example.com/x", "media_type='image'"), ("https://example.com/a.csv", "fetch(url)")],
)
def test_a_url_that_no_service_can_use_is_an_error(url, hint) -> None:
    assert hint in refused("media_type_unknown", url).hint


@pytest.mark.parametrize(
    ("given", "data", "both"),
    [
        ("image/jpeg", picture(), ("image/jpeg", "image/png")),
        ("image", PDF, ("image", "application/pdf")),
        ("document", picture(), ("document", "image/png")),
        ("text/markdown", picture(), ("text/markdown", "image/png")),
        ("image/png", b"<html>not found</html>", ("image/png", "text/plain")),
        ("application/pdf", b"hello", ("application/pdf", "text/plain")),
    ],
)
def test_a_type_that_the_content_contradicts_is_an_error_that_says_both(given, data, both) -> None:
    assert all(f" {word}" in str(refused("media_type_mismatch", data, media_type=given))
               for word in both)  # fmt: skip
    url = f"data:{given};base64,{base64.b64encode(data).decode()}"
    if "/" in given:
        refused("media_type_mismatch", url)


def test_a_name_may_be_wrong_about_the_format_but_not_about_the_kind(tmp_path) -> None:
    (tmp_path / "cat.png").write_bytes(picture("JPEG"))
    assert from_source(tmp_path / "cat.png").media_type == "image/jpeg"
    (tmp_path / "dog.png").write_bytes(b"<html>Not found</html>")
    error = refused("media_type_mismatch", tmp_path / "dog.png")
    assert "dog.png is named like an image" in str(error)
    assert "text/plain" in str(error)
    assert from_source(tmp_path / "dog.png", media_type="text").text.startswith("<html>")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"\x00\x01\x02\x03", "begins with 00 01 02 03"),
        (b"PK\x03\x04rest", "Office"),
        ("Grüße".encode("latin-1"), "UTF-8"),
        ("text".encode("utf-16"), "UTF-16"),
        (b"\x89PNG\r\n\x1a\n", "no size"),
        (b"\xff\xd8\xff\xe0" + b"\x00\x02\xff\xe0" * 5, "no size"),
        # A frame behind more segments than any picture has: looking for it would take seconds.
        (b"\xff\xd8" + b"\xff\xe0\x00\x02" * 20_000 + picture("JPEG")[2:], "no size"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8X\x00", "no size"),
        (png_of(0, 5), "no size"),
    ],
)
def test_what_is_damaged_or_unknown_is_an_error(data, said) -> None:
    with pytest.raises(InvalidParameterError, match=said):
        from_source(data)


@pytest.mark.parametrize("media_type", ["audio/wav", "video/mp4", "picture", "image/", "zip"])
def test_a_type_that_no_message_carries_is_an_error(media_type) -> None:
    assert media_type in str(refused("media_type_unknown", picture(), media_type=media_type))


def test_detail_is_for_images() -> None:
    assert "detail" in str(refused("invalid_parameter", PDF, detail="low"))
    with pytest.raises(InvalidParameterError, match="detail"):
        from_source("https://example.com/a.pdf", detail="low")


# ---- limits --------------------------------------------------------------------------------------


def test_too_many_bytes_are_an_error_with_both_numbers(tmp_path) -> None:
    data = picture()
    (tmp_path / "cat.png").write_bytes(data)
    text = base64.b64encode(data).decode()
    fits, small = MediaLimits(max_bytes=len(data)), MediaLimits(max_bytes=len(data) - 1)
    for source in (tmp_path / "cat.png", data, text, f"data:image/png;base64,{text}"):
        assert from_source(source, limits=fits).data == data
        error = refused("media_too_large", source, limits=small)
        assert f"has {len(data)} bytes; at most {len(data) - 1}" in str(error)


def test_too_many_pixels_are_an_error_although_nothing_is_decoded() -> None:
    error = refused("media_too_many_pixels", png_of(60_000, 50_000))
    assert "60000 x 50000" in str(error)
    assert "64000000" in str(error)
    assert from_source(png_of(8_000, 8_000)).width == 8_000
    refused("media_too_many_pixels", picture(), limits=MediaLimits(max_pixels=599))


@pytest.mark.parametrize("limits", [{"max_bytes": 0}, {"max_pixels": 1.5}, {"max_rows": True}])
def test_a_limit_that_cannot_be_is_an_error(limits) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(limits))):
        MediaLimits(**limits)


# ---- scaling down --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
async def test_an_image_is_scaled_down_to_fit(kind) -> None:
    image = await from_source(picture(kind, 300, 200), detail="low").fit(max_side=90)
    assert (image.width, image.height, image.detail) == (90, 60, "low")
    assert image.media_type == (FORMATS[kind] if kind in ("JPEG", "WEBP") else "image/png")
    with Image.open(io.BytesIO(image.data)) as opened:
        assert opened.size == (90, 60)
        red, _, blue = opened.convert("RGB").getpixel((5, 5))
        assert red > 200
        assert blue < 60


async def test_pixels_are_a_limit_too_and_the_stronger_one_counts() -> None:
    image = from_source(picture("PNG", 300, 200))
    scaled = await image.fit(max_pixels=600)
    assert (scaled.width, scaled.height) == (30, 20)
    scaled = await image.fit(max_pixels=600, max_side=15)
    assert (scaled.width, scaled.height) == (15, 10)
    assert (await from_source(picture("PNG", 500, 1)).fit(max_side=10)).height == 1


async def test_an_image_that_fits_stays_itself() -> None:
    for kind in ("PNG", "TIFF"):
        image = from_source(picture(kind))
        assert await image.fit(max_side=30, max_pixels=600) is image
        assert await image.fit() is image


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_the_rotation_that_a_photograph_asks_for_is_carried_out(orientation) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = from_source(picture("JPEG", 320, 160, exif=exif))
    scaled = await image.fit(max_side=80)
    upright = (80, 40) if orientation < 5 else (40, 80)
    assert (scaled.width, scaled.height) == upright
    with Image.open(io.BytesIO(scaled.data)) as opened:
        assert opened.getexif().get(0x0112) is None
        width, height = opened.size
        # Where the red half, which is stored on the left, belongs.
        red_at = {
            1: (5, 20), 2: (width - 5, 20), 3: (width - 5, 20), 4: (5, 20),
            5: (20, 5), 6: (20, 5), 7: (20, height - 5), 8: (20, height - 5),
        }[orientation]  # fmt: skip
        red, _, blue = opened.getpixel(red_at)
        assert red > 200 > 60 > blue


async def test_transparency_survives() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (100, 50), (255, 0, 0, 0)).save(file, "PNG")
    scaled = await from_source(file.getvalue()).fit(max_side=10)
    with Image.open(io.BytesIO(scaled.data)) as opened:
        assert opened.mode == "RGBA"
        assert opened.getpixel((1, 1))[3] == 0


async def test_a_bomb_is_not_decoded() -> None:
    image = from_source(png_of(60_000, 50_000), limits=MediaLimits(max_pixels=10**10))
    with pytest.raises(InvalidParameterError) as caught:
        await image.fit(max_side=100)
    assert caught.value.code == "media_too_many_pixels"


async def test_an_image_that_cannot_be_read_is_an_error() -> None:
    broken = picture("PNG", 300, 200)[:100]
    with pytest.raises(InvalidParameterError, match=r"image/png\) cannot be scaled"):
        await from_source(broken).fit(max_side=10)
    heic = b"\0\0\0\x18ftypheic" + b"\0" * 20
    with pytest.raises(InvalidParameterError, match="image/heic"):
        await from_source(heic).fit(max_side=10)
    with pytest.raises(InvalidParameterError, match="given by URL"):
        await from_source("https://example.com/cat.png").fit(max_side=10)
    with pytest.raises(InvalidParameterError, match="max_side"):
        await from_source(picture()).fit(max_side=0)


async def test_the_loop_goes_on_while_an_image_is_scaled() -> None:
    image = from_source(picture("PNG", 2000, 2000))
    scaling = asyncio.create_task(image.fit(max_side=100))
    turns = 0
    while not scaling.done():
        turns += 1
        await asyncio.sleep(0)
    assert (await scaling).width == 100
    assert turns > 3  # it would be 1 if it stood still


def test_pillow_is_needed_for_scaling_only_and_its_lack_is_named() -> None:
    code = """
import asyncio, sys
sys.modules["PIL.Image"] = None  # what an import finds when a package is not there
from llm_manager import DependencyMissingError, MediaFactory
image = MediaFactory.from_source(sys.stdin.buffer.read())
asyncio.run(image.fit(max_side=100))
try:
    asyncio.run(image.fit(max_side=10))
except DependencyMissingError as error:
    print(error.extra, image.width)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=picture(), capture_output=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == [b"media", b"30"]


# ---- on the wire ---------------------------------------------------------------------------------


def test_the_form_on_the_wire_is_that_of_the_provider() -> None:
    data = picture()
    text = base64.b64encode(data).decode()
    image, note = from_source(data, detail="low"), TextInput(text="hi")
    openai = {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{text}", "detail": "low"},
    }
    for provider in ("openai", "groq", OpenAICompatibleProvider(base_url="http://127.0.0.1:1")):
        assert image.to_provider_format(provider) == openai
    source = {"type": "base64", "media_type": "image/png", "data": text}
    assert image.to_provider_format("anthropic") == {"type": "image", "source": source}
    for provider in ("ollama", OllamaProvider()):
        assert image.to_provider_format(provider) == {"images": [text]}
        assert note.to_provider_format(provider) == {"content": "hi"}
    assert note.to_provider_format("groq") == {"type": "text", "text": "hi"}


def test_a_form_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(UnsupportedFeatureError, match="Ollama takes no files"):
        from_source(PDF).to_provider_format("ollama")
    with pytest.raises(UnsupportedFeatureError, match="does not fetch images"):
        from_source("https://example.com/cat.png").to_provider_format("ollama")
    for provider in ("echo", EchoProvider()):
        with pytest.raises(UnsupportedFeatureError, match="'echo'"):
            from_source(picture()).to_provider_format(provider)
    with pytest.raises(ProviderNotFoundError):
        from_source(picture()).to_provider_format("opena")


def test_asking_for_the_form_loads_no_library_of_a_vendor() -> None:
    code = """
import sys
from llm_manager import MediaFactory
text = MediaFactory.from_source(b"hi")
for kind in ("openai", "anthropic", "ollama", "groq"):
    text.to_provider_format(kind)
print([m for m in ("openai", "anthropic", "httpx2", "PIL", "litellm") if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "[]\n"


async def test_an_image_arrives_at_a_server_as_it_was(tmp_path) -> None:
    (tmp_path / "cat.png").write_bytes(picture())
    async with ScriptedPeer() as peer:
        peer.route("/api/chat", Reply.ndjson([{"message": {"content": "A cat."}, "done": True}]))
        peer.route("/api/tags", Reply.json({"models": []}))
        peer.route("/api/ps", Reply.json({"models": []}))
        async with OllamaProvider(base_url=peer.base_url) as provider:
            message = LLMMessage.user("What is it?", from_source(tmp_path / "cat.png"))
            assert (await provider.generate_chat_completion("m", [message])).text == "A cat."
        sent = peer.requests[-1].json()["messages"][0]
        assert base64.b64decode(sent["images"][0]) == picture()


# ---- fetching ------------------------------------------------------------------------------------


@pytest.fixture
def loopback_2() -> Iterator[socket.socket]:
    """A listening socket on 127.0.0.2: another address of this machine."""
    with socket.socket() as listening:
        try:
            listening.bind(("127.0.0.2", 0))
        except OSError as error:
            pytest.skip(f"127.0.0.2 cannot be used here: {error}")
        listening.listen()
        listening.setblocking(False)
        yield listening


def image_reply(data: bytes, media_type: str = "image/png", **how) -> Reply:
    return Reply(headers={"content-type": media_type}, body=[data], **how)


async def fetch(peer: ScriptedPeer, path: str = "/cat.png", **how):
    return await MediaFactory.fetch(peer.base_url + path, allow_private=True, **how)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_file_is_fetched(framing) -> None:
    async with ScriptedPeer() as peer:
        peer.route("/a/cat.png", image_reply(picture(), framing=framing))
        image = await fetch(peer, "/a/cat.png?x=1", detail="low")
        assert image == ImageInput(
            data=picture(), media_type="image/png", width=30, height=20, detail="low",
            filename="cat.png",
        )  # fmt: skip
        request = peer.requests[0]
        assert (request.method, request.path) == ("GET", "/a/cat.png?x=1")
        assert request.headers["accept-encoding"] == "identity"
        assert not {"authorization", "cookie", "referer"} & set(request.headers)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1"])
async def test_this_machine_is_not_connected_to_however_it_is_written(host) -> None:
    async with ScriptedPeer(fallback=image_reply(picture())) as peer:
        port = peer.base_url.rpartition(":")[2]
        with pytest.raises(InvalidParameterError) as caught:
            await MediaFactory.fetch(f"http://{host}:{port}/cat.png")
        assert caught.value.code == "private_address"
        assert "127.0.0.1" in str(caught.value) or "::1" in str(caught.value)
        assert peer.connections_opened == 0


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1",
        "169.254.169.254", "0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.0.192",
        "168.63.129.16", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00:ec2::254",
        "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1", "::127.0.0.1", "nothing", "",
    ],
)  # fmt: skip
def test_an_address_that_is_not_of_the_internet_is_not_public(address) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"]
)
def test_an_address_of_the_internet_is_public(address) -> None:
    assert is_public(address)


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to() -> None:
    """A name that leads elsewhere a moment later is resolved once, so it never gets there."""
    async with ScriptedPeer() as peer:
        peer.route("/cat.png", image_reply(picture()))
        port = int(peer.base_url.rpartition(":")[2])
        answers = ["127.0.0.1", "127.0.0.2"]

        async def resolve(host: str, port: int):
            assert host == "pictures.example"
            return await addresses_of(answers.pop(0), port)

        found = await download(
            f"http://pictures.example:{port}/cat.png",
            max_bytes=10_000,
            timeout_s=10,
            permits=lambda address: address == "127.0.0.1",
            resolve=resolve,
        )
        assert found.data == picture()
        assert answers == ["127.0.0.2"]
        assert peer.requests[0].headers["host"] == f"pictures.example:{port}"


async def test_of_several_addresses_only_permitted_ones_are_connected_to(loopback_2) -> None:
    port = loopback_2.getsockname()[1]

    async def resolve(host: str, port: int):
        forbidden, permitted = [await addresses_of(a, port) for a in ("127.0.0.2", "127.0.0.1")]
        return forbidden + permitted

    with pytest.raises(ProviderConnectionError):
        await download(
            f"http://pictures.example:{port}/",
            max_bytes=1,
            timeout_s=10,
            permits=lambda address: address == "127.0.0.1",
            resolve=resolve,
        )
    with pytest.raises(BlockingIOError):
        loopback_2.accept()


async def test_a_redirect_is_checked_before_it_is_followed(loopback_2) -> None:
    port = loopback_2.getsockname()[1]
    async with ScriptedPeer() as peer:
        location = f"http://127.0.0.2:{port}/latest/meta-data"
        peer.route("/cat.png", Reply(status=302, headers={"location": location}))
        with pytest.raises(InvalidParameterError) as caught:
            await download(
                f"{peer.base_url}/cat.png",
                max_bytes=10_000,
                timeout_s=10,
                permits=lambda address: address == "127.0.0.1",
            )
        assert caught.value.code == "private_address"
        assert "127.0.0.2" in str(caught.value)
    with pytest.raises(BlockingIOError):
        loopback_2.accept()


@pytest.fixture
def tls(tmp_path, monkeypatch) -> ssl.SSLContext:
    """A server's certificate for 127.0.0.1, which clients here trust."""
    file = tmp_path / "peer.pem"
    file.write_text(CERTIFICATE)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_a_redirect_that_leaves_https_is_refused(tls) -> None:
    async with ScriptedPeer(tls=tls) as peer:
        peer.route("/cat.png", Reply(status=302, headers={"location": "http://127.0.0.1/c.png"}))
        with pytest.raises(InvalidParameterError, match="from https to 'http:"):
            await fetch(peer)
        peer.route("/cat.png", image_reply(picture()))
        assert (await fetch(peer)).width == 30


async def test_a_certificate_has_to_be_that_of_the_name_and_not_of_the_address(tls) -> None:
    async with ScriptedPeer(tls=tls, fallback=image_reply(picture())) as peer:
        port = peer.base_url.rpartition(":")[2]

        async def resolve(host: str, port: int):
            return await addresses_of("127.0.0.1", port)

        with pytest.raises(ProviderConnectionError) as caught:
            await download(
                f"https://pictures.example:{port}/cat.png",
                max_bytes=10_000,
                timeout_s=10,
                permits=lambda address: True,
                resolve=resolve,
            )
        assert caught.value.code == "tls"
        assert not peer.requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_and_names_the_file(status) -> None:
    async with ScriptedPeer() as peer:
        peer.route("/1", Reply(status=status, headers={"location": "/img/dog.png"}))
        peer.route("/img/dog.png", image_reply(picture()))
        assert (await fetch(peer, "/1")).filename == "dog.png"


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("ftp://127.0.0.1/x", "http or https"),
        ("file:///etc/passwd", "http or https"),
        ("http://[::1", "cannot be fetched"),
        ("http://127.0.0.1:99999/", "cannot be fetched"),
        ("http://:80/", "no host"),
    ],
)
async def test_a_redirect_to_something_else_is_an_error(location, said) -> None:
    async with ScriptedPeer() as peer:
        peer.route("/cat.png", Reply(status=302, headers={"location": location}))
        with pytest.raises(InvalidParameterError, match=said):
            await fetch(peer)


async def test_redirects_in_a_circle_end() -> None:
    async with ScriptedPeer() as peer:
        peer.route("/cat.png", Reply(status=302, headers={"location": "/cat.png"}))
        with pytest.raises(InvalidResponseError, match="more than 5 times"):
            await fetch(peer)
        assert len(peer.requests) == 6


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_file_that_is_too_large_is_not_read_to_its_end(framing) -> None:
    endless = [b"x" * 50_000] * 100
    async with ScriptedPeer() as peer:
        peer.route("/cat.png", Reply(body=endless, framing=framing))
        with pytest.raises(InvalidParameterError) as caught:
            await fetch(peer, limits=MediaLimits(max_bytes=60_000))
        assert caught.value.code == "media_too_large"
        assert "60000" in str(caught.value)
        await peer.wait_for_disconnect()


async def test_a_file_that_is_announced_as_too_large_is_not_waited_for() -> None:
    async with ScriptedPeer() as peer:
        announced = {"content-length": "60001"}
        peer.route("/cat.png", Reply(headers=announced, body=[b"x"], ending="hang"))
        with pytest.raises(InvalidParameterError, match="60001 bytes; at most 60000"):
            await fetch(peer, limits=MediaLimits(max_bytes=60_000))


async def test_compressed_content_is_refused() -> None:
    async with ScriptedPeer() as peer:
        peer.route("/cat.png", Reply(headers={"content-encoding": "gzip"}, body=[b"\x1f\x8b"]))
        with pytest.raises(InvalidResponseError, match="gzip"):
            await fetch(peer)


@pytest.mark.parametrize(("status", "retryable"), [(404, False), (429, True), (503, True)])
async def test_an_error_of_the_server_is_one_with_its_status(status, retryable) -> None:
    async with ScriptedPeer() as peer:
        peer.route("/cat.png", Reply(status=status))
        with pytest.raises(ProviderAPIError, match=str(status)) as caught:
            await fetch(peer)
        assert (caught.value.http_status, caught.value.retryable) == (status, retryable)


async def test_a_server_that_breaks_off_or_falls_silent_is_an_error() -> None:
    async with ScriptedPeer() as peer:
        peer.route("/cat.png", image_reply(picture(), ending="close"))
        with pytest.raises(StreamInterruptedError):
            await fetch(peer)
        peer.route("/cat.png", Reply(instead="hang"))
        with pytest.raises(RequestTimeoutError, match=r"0\.1 s"):
            await fetch(peer, timeout_s=0.1)
        peer.route("/cat.png", Reply(instead="close"))
        with pytest.raises(ProviderConnectionError):
            await fetch(peer)
    with pytest.raises(ProviderConnectionError) as caught:
        await fetch(peer)
    assert caught.value.code == "refused"


async def test_what_a_server_says_of_a_file_may_not_contradict_it() -> None:
    async with ScriptedPeer() as peer:
        peer.route("/cat", image_reply(b"<html>sorry</html>", "image/png"))
        with pytest.raises(InvalidParameterError, match="given as image"):
            await fetch(peer, "/cat")
        peer.route("/cat", image_reply(picture("JPEG"), "image/png"))
        assert (await fetch(peer, "/cat")).media_type == "image/jpeg"
        peer.route("/cat", image_reply(picture(), "application/octet-stream"))
        assert (await fetch(peer, "/cat")).media_type == "image/png"
        peer.route("/cat", image_reply(b"a;b\n1;2\n", "text/csv; charset=utf-8"))
        assert (await fetch(peer, "/cat")).columns == ("a", "b")
        peer.route("/cat", image_reply(b"a;b\n1;2\n", "audio/mpeg"))
        assert isinstance(await fetch(peer, "/cat"), TextInput)


@pytest.mark.parametrize(
    "url",
    ["cat.png", "data:image/png,x", "ftp://example.com/cat.png", "http://", "http:///cat.png",
     "http://[::1/cat.png", "http://a:b/cat.png", "https://a:0/c.png", 3],
)  # fmt: skip
async def test_only_urls_are_fetched(url) -> None:
    with pytest.raises(InvalidParameterError, match=r"http or https|cannot be fetched"):
        await MediaFactory.fetch(url)


async def test_the_proxies_of_the_environment_are_not_used(monkeypatch) -> None:
    async with ScriptedPeer() as proxy, ScriptedPeer() as peer:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.base_url)
        peer.route("/cat.png", image_reply(picture()))
        assert (await fetch(peer)).width == 30
        assert proxy.connections_opened == 0


async def test_an_error_does_not_show_a_password_in_a_url() -> None:
    async with ScriptedPeer() as peer:
        url = peer.base_url.replace("http://", "http://me:hunter2@") + "/cat.png"
        for how in ({}, {"allow_private": True}):
            with pytest.raises((InvalidParameterError, ProviderAPIError)) as caught:
                await MediaFactory.fetch(url, **how)
            assert "hunter2" not in json.dumps(str(caught.value.__dict__) + str(caught.value))


# ---- the documentation ---------------------------------------------------------------------------


def test_the_table_of_limits_has_the_defaults_of_the_code() -> None:
    rows = table("media.md", "limit of `MediaLimits`", "default")
    written = {quoted(row["limit of `MediaLimits`"])[0]: int(row["default"]) for row in rows}
    assert written == {name: getattr(MediaLimits(), name) for name in MediaLimits.__struct_fields__}


def test_the_table_of_codes_has_those_of_the_code() -> None:
    sources = [*(ROOT / "llm_manager" / "media").glob("*.py"),
               ROOT / "llm_manager" / "transport" / "download.py"]  # fmt: skip
    used = {code for path in sources for code in re.findall(r'code="(\w+)"', path.read_text())}
    assert set(column(table("media.md", "code of the error", "what is wrong"),
                      "code of the error")) == used  # fmt: skip
