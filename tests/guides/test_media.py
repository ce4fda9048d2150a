"""Media: files become inputs, inputs take the form of a provider, and what it cannot see is
refused.
"""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from llm_manager import (
    DocumentInput,
    ImageInput,
    InvalidParameterError,
    MediaFactory,
    ModelCapability,
    TabularInput,
    TextInput,
    UnsupportedFeatureError,
    create_llm,
    run_sync,
)

from ..test_create_llm import PNG, last_request

ENCODED = base64.b64encode(PNG).decode()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "dot.png"
    path.write_bytes(PNG)
    return path


def test_a_source_becomes_an_input_of_its_sort(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("Remember the milk.")
    (tmp_path / "table.csv").write_text("name,age\nAda,36\n")
    (tmp_path / "paper.pdf").write_bytes(b"%PDF-1.4\n%%EOF\n")
    sorts = {
        "dot.png": ImageInput, "note.txt": TextInput,
        "table.csv": TabularInput, "paper.pdf": DocumentInput,
    }  # fmt: skip
    for name, sort in sorts.items():
        assert isinstance(MediaFactory.from_source(tmp_path / name), sort)


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        (
            "openai",
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{ENCODED}"}},
        ),
        (
            "anthropic",
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": ENCODED},
            },
        ),
        ("ollama", {"images": [ENCODED]}),
    ],
)
def test_an_image_takes_the_form_of_each_provider(picture: Path, kind: str, form) -> None:
    assert MediaFactory.from_source(picture).to_provider_format(kind) == form


def test_how_closely_to_look_is_part_of_the_image(picture: Path) -> None:
    image = MediaFactory.from_source(picture, detail="high")
    form = image.to_provider_format("openai")
    assert form["image_url"]["detail"] == "high"


def test_files_go_with_the_question(picture: Path, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("Remember the milk.")
    with create_llm("echo", words_per_s=float("inf")) as llm:
        llm.generate("What is this?", files=[picture, note])
        image, text, question = last_request(llm).messages[0].content
    assert image.data == PNG
    assert "Remember the milk." in text.text
    assert question.text == "What is this?"


def test_a_model_that_cannot_see_is_told_before_anything_is_sent(picture: Path) -> None:
    with create_llm("ollama", base_url="http://127.0.0.1:1", model="m") as llm:
        assert llm.get_capabilities()[ModelCapability.VISION] is not False
    with create_llm("deepseek", api_key="sk-0123456789abcdef", model="m") as llm:
        assert llm.get_capabilities()[ModelCapability.VISION] is False
        with pytest.raises(UnsupportedFeatureError, match="vision"):
            llm.generate("What is this?", files=[picture])


def test_a_file_that_is_not_what_it_is_called_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.png"
    page.write_text("<html>not found</html>")
    with pytest.raises(InvalidParameterError) as refused:
        MediaFactory.from_source(page)
    assert refused.value.code == "media_type_mismatch"


def test_an_image_that_is_too_large_is_made_smaller(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    path = tmp_path / "large.png"
    pillow.new("RGB", (400, 200)).save(path)
    image = MediaFactory.from_source(path)
    assert isinstance(image, ImageInput)
    smaller = run_sync(image.fit(max_side=100))
    assert (smaller.width, smaller.height) == (100, 50)
