"""Guesses how many tokens a text has, from how its characters are mixed.

A byte-pair vocabulary has most words of prose as one token each, and cuts what is no word: figures
after three digits, names where their case changes, base64 nearly everywhere.  So words, digits,
capitals and punctuation are counted apart, each by a method of `bytes` that runs at the speed of
C, and beyond ASCII the bytes of each group of scripts.  The weights are least squares on what
``o200k_base`` makes of the texts that docs/tokens.md lists; so are the bounds.

What this module must not do: load a vocabulary, or look at single characters in Python.
"""

from __future__ import annotations

import math

import msgspec


class TextEstimate(msgspec.Struct, frozen=True):
    """About how many tokens a text has.

    Attributes:
        tokens: how many.
        error_tokens: by how many that may be wrong.
    """

    tokens: float
    error_tokens: float


def estimate_text_tokens(text: str) -> int:
    """About how many tokens ``text`` has; docs/tokens.md tells how far off that was."""
    return math.ceil(text_tokens(text))


def text_tokens(text: str) -> float:
    """The same before it is rounded up, to be added to others."""
    return _ascii_tokens(text.encode()) if text.isascii() else estimate_text(text).tokens


def estimate_text(text: str) -> TextEstimate:
    """The same with its bound; takes about a microsecond for a hundred characters."""
    if not text:
        return TextEstimate(0.0, 0.0)
    written = text.encode("utf-8", "surrogatepass")
    plain = written if text.isascii() else written.translate(None, _BEYOND_ASCII)
    ascii_tokens = _ascii_tokens(plain)
    error_tokens = _SLACK_TOKENS + ascii_tokens * _ASCII_ERROR
    if plain is written:
        return TextEstimate(ascii_tokens, error_tokens)
    other = written.translate(_SCRIPTS, _ASCII)
    tokens = ascii_tokens
    for group, weight, error in _GROUPS:
        group_tokens = other.count(group) * weight
        tokens += group_tokens
        error_tokens += group_tokens * error
    return TextEstimate(tokens, error_tokens)


def _ascii_tokens(text: bytes) -> float:
    shapes = text.translate(_SHAPES)
    words = text.translate(_WORDS)
    digits = shapes.count(b"0")
    return (
        0.07 * shapes.count(b"a")
        + 0.83 * (words.count(b"w ") + words.endswith(b"w"))
        + 0.31 * shapes.count(b".")
        + (0.14 * text.translate(_PUNCTUATION).count(b". ") if b"." in shapes else 0.0)
        + 1.1 * shapes.count(b"n")
        # Where the case changes, and in a row of capitals, a word is cut.
        + (
            1.46 * shapes.count(b"aA")
            + 0.31 * shapes.count(b"AA")  # which overlap, and are counted every other time
            if b"A" in shapes
            else 0.0
        )
        + (0.31 * digits + 1.0 * text.translate(_DIGITS).count(b"0 ") if digits else 0.0)
    )


def _table(symbols: dict[str, bytes], otherwise: bytes) -> bytes:
    """A table for `bytes.translate` that gives the characters of each key its symbol."""
    table = bytearray(otherwise * 256)
    for symbol, characters in symbols.items():
        for character in characters:
            table[character] = ord(symbol)
    return bytes(table)


_ASCII = bytes(range(128))
_BEYOND_ASCII = bytes(range(128, 256))
_LOWER = b"abcdefghijklmnopqrstuvwxyz"
_UPPER = _LOWER.upper()
_NUMERALS = b"0123456789"
_OTHER = bytes(c for c in range(128) if c not in _LOWER + _UPPER + _NUMERALS + b" \t\r\n")

_SHAPES = _table({"a": _LOWER, "A": _UPPER, "0": _NUMERALS, ".": _OTHER, "n": b"\r\n"}, b" ")
_WORDS = _table({"w": _LOWER + _UPPER}, b" ")
_DIGITS = _table({"0": _NUMERALS}, b" ")
_PUNCTUATION = _table({".": _OTHER}, b" ")

# The first byte of a character in UTF-8 tells its script, roughly.
_SCRIPTS = _table(
    {
        "l": bytes(range(0xC2, 0xCE)),  # accented Latin letters
        "r": bytes([0xCE, 0xCF, *range(0xD4, 0xE1)]),  # Greek, Hebrew, Arabic, India, Thai
        "k": bytes(range(0xD0, 0xD4)),  # Cyrillic
        "v": b"\xe1",  # Vietnamese, Georgian, Ethiopic, Khmer
        "y": b"\xe2",  # dashes, quotation marks, symbols
        "z": bytes(range(0xE3, 0xEE)),  # Chinese, Japanese, Korean
        "w": b"\xee\xef",  # full-width forms, variation selectors
        "e": bytes(range(0xF0, 0xF5)),  # emoji
    },
    b"c",
)
# Group, tokens for each of its characters, and by which part that may be wrong.
_GROUPS = (
    (b"l", 1.2, 5.0),
    (b"r", 0.39, 5.2),
    (b"k", 0.29, 2.0),
    (b"v", 0.6, 5.5),
    (b"y", 0.7, 1.5),
    (b"z", 0.85, 1.8),
    (b"w", 1.2, 2.0),
    (b"e", 1.6, 1.0),
)
_ASCII_ERROR = 0.45
# What the bound leaves out of account in texts of a few words.
_SLACK_TOKENS = 4.0
