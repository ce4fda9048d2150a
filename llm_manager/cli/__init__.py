"""The command line: ``llm-manager demo | chat | status | models | doctor | config | ...``.

It uses the public API and nothing else, so it is also a test of what an application can build.

::

    main ── arguments          what was asked for; all that --help and --version need
      ├──── output             the one place that writes to stdout and stderr
      └──── session            one run: a manager, signals, the exit code
              └── demo, chat, status, models, doctor, config, new_provider      one per command
                    └── screen                            tables and live displays, with rich

Exit codes: 0 done; 1 a provider failed, or a problem was found; 2 the call was wrong;
130 Ctrl-C; 143 terminated.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .arguments import UsageMistake, parse
from .exit_codes import EXIT_INTERRUPTED, EXIT_USAGE
from .output import Output


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after the program's name; None takes those of the process.

    Returns:
        The exit code.
    """
    with _interrupts_at_once(until_the_end=argv is None):
        output = Output()
        try:
            code = _run(argv, output)
        except UsageMistake as mistake:
            output.error(str(mistake), mistake.hint)
            code = EXIT_USAGE
        except SystemExit as done:  # argparse, after --help and --version
            code = int(done.code or 0)
        return output.finish(code)


@contextmanager
def _interrupts_at_once(*, until_the_end: bool) -> Iterator[None]:
    """Outside of a session, which minds signals itself, Ctrl-C ends the process on the spot.

    Nothing is open there.  `KeyboardInterrupt` would not do: raised while extension modules set
    themselves up it can crash them, and while the interpreter winds up it is only printed.

    Args:
        until_the_end: this is the program, not a function that another one calls.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    try:
        yield
    finally:
        if not until_the_end:
            signal.signal(signal.SIGINT, before)


def _run(argv: Sequence[str] | None, output: Output) -> int:
    arguments = parse(argv)
    # What a command needs takes a moment to load; --help does not wait for it.
    try:
        session = importlib.import_module(f"{__package__}.session")
        command = importlib.import_module(f"{__package__}.{arguments.command.replace('-', '_')}")
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.startswith("llm_manager"):
            raise
    else:
        code: int = session.run(command.run, arguments, output)
        return code
    raise UsageMistake(f"the package {missing!r} is not installed", "pip install llm_manager")
