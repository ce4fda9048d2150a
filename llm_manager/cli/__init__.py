"""The command line: ``llm-manager demo | chat | status | models | doctor``.

It uses the public API and nothing else, so it is also a test of what an application can build.

::

    main ── arguments          what was asked for; all that --help and --version need
      ├──── output             the one place that writes to stdout and stderr
      └──── session            one run: a manager, signals, the exit code
              └── demo, chat, status, models, doctor      one module per command
                    └── screen                            tables and live displays, with rich

Exit codes: 0 done; 1 a provider failed, or a problem was found; 2 the call was wrong;
130 Ctrl-C; 143 terminated.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from .arguments import UsageMistake, parse
from .output import Output

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after the program's name; None takes those of the process.

    Returns:
        The exit code.
    """
    output = Output()
    try:
        code = _run(argv, output)
    except UsageMistake as mistake:
        output.error(str(mistake), mistake.hint)
        code = EXIT_USAGE
    except KeyboardInterrupt:  # before or after the time in which the session minds signals
        code = EXIT_INTERRUPTED
    except SystemExit as done:  # argparse, after --help and --version
        code = int(done.code or 0)
    return output.finish(code)


def _run(argv: Sequence[str] | None, output: Output) -> int:
    arguments = parse(argv)
    # What a command needs takes a moment to load; --help does not wait for it.
    session = importlib.import_module(f"{__package__}.session")
    command = importlib.import_module(f"{__package__}.{arguments.command}")
    code: int = session.run(command.run, arguments, output)
    return code
