"""What the process says about how it went; numbers that scripts rely on."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
"""A provider failed, or a problem was found."""
EXIT_USAGE = 2
"""The call was wrong, as argparse says it."""
EXIT_INTERRUPTED = 130
"""Ctrl-C; what shells make of the signal's number."""
