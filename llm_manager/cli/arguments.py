"""What can be typed after ``llm-manager``: argparse, and no other import worth a millisecond."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

from llm_manager import __version__

COMMANDS = ("demo", "chat", "status", "models", "doctor", "config", "new-provider")
_OPTIONS = (
    "--base-url", "--folder", "--help", "--json", "--key-env", "--keyring", "--model", "--prompt",
    "--provider", "--seconds", "--stdin", "--system", "--verbose", "--version", "--watch",
)  # fmt: skip
CONFIG_ACTIONS = ("show", "set", "check")

LONGEST_DEMO_S = 120

_DESCRIPTION = """\
LLM providers with a status you can trust: connect, watch, ask, stop.
"""

_EPILOG = """\
examples:
  llm-manager demo              see what the library does; no key, no network
  llm-manager doctor            what is installed, which keys and servers are found
  llm-manager chat              talk to the first provider that is found
  llm-manager chat --provider groq "Why is the sky blue?"
  llm-manager status --watch    every change of status as it happens

exit codes:
  0 done               1 a provider failed, or a problem was found
  130 Ctrl-C           2 the call was wrong

llm-manager COMMAND --help tells more about a command.
"""

_DEMO_EPILOG = """\
examples:
  llm-manager demo                        with what this machine offers
  llm-manager demo --provider echo        the built-in provider alone: offline
  llm-manager demo --seconds 20           slower, to read along
  llm-manager demo --json | jq .event     the same as events
"""

_CHAT_EPILOG = """\
examples:
  llm-manager chat                                    a conversation
  llm-manager chat "Why is the sky blue?"             one answer
  git diff | llm-manager chat "Review this:" -        '-' is standard input
  llm-manager chat --provider ollama --model llama3.2 hello
  llm-manager chat --base-url http://127.0.0.1:8080/v1 hello

In a conversation: /model NAME, /models, /status, /help, /quit.
Ctrl-C stops an answer, Ctrl-D leaves.
The answer goes to standard output, everything else to standard error.
"""

_STATUS_EPILOG = """\
examples:
  llm-manager status                      connect everything that is found, once
  llm-manager status --provider ollama    one provider
  llm-manager status --watch              stay, and show every change
  llm-manager status --watch --json       one line of JSON for each event
"""

_MODELS_EPILOG = """\
examples:
  llm-manager models
  llm-manager models --provider ollama
  llm-manager models --json | jq -r '.[].id'
"""

_DOCTOR_EPILOG = """\
examples:
  llm-manager doctor
  llm-manager doctor --json

It looks at this machine only: no key leaves it, and no key is ever shown.
The exit code is 1 if there is a problem.
"""


_CONFIG_EPILOG = """\
examples:
  llm-manager config show                 every value, and where it comes from
  llm-manager config check                what is wrong, and where
  llm-manager config set providers.work-openai.kind openai
  llm-manager config set providers.work-openai.default_model gpt-5
  llm-manager config set providers.work-openai.api_key env:WORK_KEY
  llm-manager config set providers.work-openai.api_key --keyring

A key is never shown, and never given as an argument: leave it out to be asked
for it, or pipe it in with --stdin.
"""

_NEW_PROVIDER_EPILOG = """\
examples:
  llm-manager new-provider acme           writes ./llm-manager-acme
  llm-manager new-provider acme --folder ~/src/acme-llm

The package has a provider for an invented service, a test of it, and all that
is needed to be found once it is installed. Its tests pass as they are.
"""


class UsageMistake(Exception):
    """The call was wrong; the text says how, ``hint`` says what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, checked as far as they can be without looking at any provider.

    Raises:
        UsageMistake: they are wrong.
        SystemExit: help or version was asked for, and has been written.
    """
    arguments = _parser().parse_args(argv)
    if arguments.command is None:
        raise UsageMistake("no command", "try llm-manager demo, or see llm-manager --help")
    for name, value in vars(arguments).items():
        if isinstance(value, str):
            setattr(arguments, name, proper(value))
        elif isinstance(value, list):
            setattr(arguments, name, [proper(word) for word in value])
    return arguments


def proper(text: str) -> str:
    """``text`` without the surrogates that stand where bytes were no text."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage, so that a mistake is told in two lines."""

    def error(self, message: str) -> NoReturn:
        raise UsageMistake(message.removeprefix("argument COMMAND: "), self._hint(message))

    def _hint(self, message: str) -> str:
        wrong = re.search(r"(?:invalid choice: '|unrecognized arguments: )([^' ]+)", message)
        known = [*COMMANDS, *CONFIG_ACTIONS, *_OPTIONS]
        near = get_close_matches(wrong[1], known, n=1) if wrong else []
        return f"did you mean {near[0]}?" if near else f"see {self.prog} --help"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="llm-manager",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"llm-manager {__version__}")
    _add_common(parser)
    parser.set_defaults(json=False, verbose=False, provider=None, base_url=None, key_env=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def add(name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _add_common(command)
        return command

    _add_demo(
        add("demo", "show the life of a provider, from the first probe to the end", _DEMO_EPILOG)
    )
    _add_chat(add("chat", "talk to a model", _CHAT_EPILOG))
    _add_status(
        add("status", "connect what this machine offers and show its status", _STATUS_EPILOG)
    )
    _add_provider(add("models", "list the models that can be used", _MODELS_EPILOG))
    add("doctor", "find out what is installed, what is found, and what is wrong", _DOCTOR_EPILOG)
    _add_config(add("config", "show, change or check the settings", _CONFIG_EPILOG))
    _add_new_provider(
        add("new-provider", "write a package with a provider of your own", _NEW_PROVIDER_EPILOG)
    )
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    # Both before and after the command; what is not given there must not undo what is given here.
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="write JSON to standard output",
    )
    parser.add_argument(
        "--verbose",
        "-v",
        action="store_true",
        default=argparse.SUPPRESS,
        help="write the library's log to standard error",
    )


def _add_provider(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--provider",
        metavar="KIND",
        default=argparse.SUPPRESS,
        help="kind of provider (ollama, groq, echo, ...) or the id of one that is found; "
        "default: what this machine offers",
    )
    parser.add_argument(
        "--base-url",
        metavar="URL",
        default=argparse.SUPPRESS,
        help="where the server is, e.g. http://127.0.0.1:8080/v1; "
        "alone: a server that speaks the OpenAI dialect",
    )
    parser.add_argument(
        "--key-env",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help="environment variable that holds the API key; keys are never given as arguments",
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--provider",
        metavar="KIND",
        default=argparse.SUPPRESS,
        help="ask this kind of provider; 'echo' uses nothing else",
    )
    parser.add_argument(
        "--seconds",
        metavar="N",
        type=_seconds,
        default=8.0,
        help="about how long it shall take with echo (default: 8)",
    )
    parser.add_argument("--prompt", metavar="TEXT", type=_text, help="what to ask")


def _add_chat(parser: argparse.ArgumentParser) -> None:
    _add_provider(parser)
    parser.add_argument("--model", metavar="MODEL", type=_text, help="default: the first one")
    parser.add_argument("--system", metavar="TEXT", type=_text, help="how the model shall behave")
    parser.add_argument(
        "prompt", nargs="*", help="answer this and exit; '-' stands for standard input"
    )


def _add_status(parser: argparse.ArgumentParser) -> None:
    _add_provider(parser)
    parser.add_argument(
        "--watch", action="store_true", help="stay and show every change, until Ctrl-C"
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="ACTION", choices=CONFIG_ACTIONS, help="show, set, check")
    parser.add_argument(
        "setting", metavar="SETTING", nargs="?", help="e.g. providers.openai.default_model"
    )
    parser.add_argument("value", metavar="VALUE", nargs="?", help="its new value; no key")
    parser.add_argument("--stdin", action="store_true", help="read the value from standard input")
    parser.add_argument(
        "--keyring",
        action="store_true",
        help="keep the key in the operating system's keyring, and write where it is",
    )


def _add_new_provider(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the new kind: small letters, digits and '-'")
    parser.add_argument(
        "--folder", metavar="PATH", type=_text, help="where to; default: ./llm-manager-NAME"
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= LONGEST_DEMO_S:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of seconds above 0, up to {LONGEST_DEMO_S}"
        )
    return value


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("the text is empty")
    return text
