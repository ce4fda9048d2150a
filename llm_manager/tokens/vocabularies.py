"""Counts with tiktoken where its vocabulary lies on this machine, and never fetches one.

tiktoken downloads what it does not find, and what it finds damaged.  So the file is looked for and
checked here first; whatever is not right with it, nobody counts.  Everything here blocks: a
vocabulary takes half a second to load and about 90 MB, once; call it in a thread.  For 0.1 s of
that, tiktoken lets no other thread run.
"""

from __future__ import annotations

import importlib
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec

TextCounter: TypeAlias = Callable[[str], int]
"""Counts the tokens of a text."""


class Vocabulary(msgspec.Struct, frozen=True):
    """A vocabulary that tiktoken knows, as a file.

    Attributes:
        name: what tiktoken calls it.
        url: where it comes from; tiktoken names its copy of the file after it.
        sha256: of the file, in hexadecimal.
    """

    name: str
    url: str
    sha256: str

    def file(self) -> Path | None:
        """Where tiktoken's copy is, by tiktoken's own rule, or None if there is none."""
        folder = _folder()
        if not folder:
            return None  # which switches the copies off
        hashes = importlib.import_module("hashlib")
        path = Path(folder) / hashes.sha1(self.url.encode(), usedforsecurity=False).hexdigest()
        return path if path.is_file() else None

    def is_here(self) -> bool:
        """Whether tiktoken can read it without asking anybody."""
        path = self.file()
        if path is None:
            return False
        try:
            content = path.read_bytes()
        except OSError:
            return False
        return bool(importlib.import_module("hashlib").sha256(content).hexdigest() == self.sha256)


def _folder() -> str:
    """Where tiktoken keeps its copies; empty: nowhere."""
    for name in _FOLDER_VARIABLES:
        if name in os.environ:
            return os.environ[name]
    # Loaded late, as hashlib is: a program that counts nothing can do without them.
    temporary: str = importlib.import_module("tempfile").gettempdir()
    return str(Path(temporary) / "data-gym-cache")


_FOLDER_VARIABLES = ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR")
_BLOBS = "https://openaipublic.blob.core.windows.net/encodings"

O200K = Vocabulary(
    "o200k_base",
    f"{_BLOBS}/o200k_base.tiktoken",
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
)
CL100K = Vocabulary(
    "cl100k_base",
    f"{_BLOBS}/cl100k_base.tiktoken",
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
)

Vocabularies: TypeAlias = tuple[tuple[str, Vocabulary], ...]
"""Regular expressions that the names of models begin with, and their vocabulary; the first that
fits counts."""

OPENAI_VOCABULARIES: Vocabularies = (
    # By the table of tiktoken itself; models that it does not know are not guessed.
    (r"(chat)?gpt-4o|gpt-4\.[15]|gpt-5|o[134](-|$)", O200K),
    (r"gpt-4|gpt-3\.5|gpt-35|text-embedding-(3|ada)", CL100K),
)


def vocabulary_of(model: str, vocabularies: Vocabularies) -> Vocabulary | None:
    """The vocabulary of a model by its name; ``openai/`` and ``ft:`` before it do not count."""
    name = model.rpartition("/")[2].removeprefix("ft:")
    return next((v for pattern, v in vocabularies if re.match(pattern, name, re.I)), None)


_lock = threading.Lock()
_counters: dict[Vocabulary, TextCounter] = {}


def text_counter(vocabulary: Vocabulary) -> TextCounter | None:
    """A function that counts with ``vocabulary``, or None if tiktoken or the file is not here."""
    with _lock:
        counter = _counters.get(vocabulary)
        if counter is None and vocabulary.is_here():
            counter = _loaded(vocabulary)
            if counter is not None:
                _counters[vocabulary] = counter
        return counter


def _loaded(vocabulary: Vocabulary) -> TextCounter | None:
    try:
        tiktoken = importlib.import_module("tiktoken")
    except ImportError:
        return None
    encode = tiktoken.get_encoding(vocabulary.name).encode_ordinary
    return lambda text: len(encode(text))
