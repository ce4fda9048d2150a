"""``llm-manager config show | set | check``: the settings, without ever showing a key."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from typing import Any

from llm_manager import ConfigurationError, DependencyMissingError, InvalidParameterError, LLMError
from llm_manager.redaction import MASK, redact
from llm_manager.registry import create_provider, get_settings
from llm_manager.settings.environment import Variable
from llm_manager.settings.explaining import Explained
from llm_manager.settings.file import settings_path
from llm_manager.settings.problems import Problem
from llm_manager.settings.references import is_reference
from llm_manager.settings.store import Settings

from .exit_codes import EXIT_FAILED, EXIT_OK
from .output import one_line
from .prompt import Prompt, standard_input
from .session import Session, hint_text, screen
from .settings_editing import Keys, is_secret, keys_of, set_value
from .texts import aligned, counted, symbols

COLUMNS = ("provider", "setting", "value", "origin")
# Where --keyring puts keys: this service, and the provider's id.
KEYRING_SERVICE = "llm_manager"


async def run(session: Session) -> int:
    """Show, change or check the settings; returns the exit code."""
    actions = {"show": _show, "set": _set, "check": _check}
    return await actions[session.arguments.action](session)


# ---- show ----------------------------------------------------------------------------------------


async def _show(session: Session) -> int:
    _refuse_more(session)
    drawing = screen() if session.output.is_terminal and not session.arguments.json else None
    settings = get_settings()
    rows = _rows(settings)
    if session.arguments.json:
        keys = (*COLUMNS, "withheld")
        session.output.document(
            {
                "path": None if settings.path is None else str(settings.path),
                "exists": settings.path is not None and settings.path.exists(),
                "values": [dict(zip(keys, row, strict=True)) for row in rows],
            }
        )
        return EXIT_OK
    session.output.line(_about_file(settings))
    shown = [(*row[:3], f"{row[3]} (does not count)" if row[4] else row[3]) for row in rows]
    if not shown:
        session.output.remark("no provider has settings")
    elif drawing is not None:
        drawing.console().print(drawing.table(COLUMNS, shown))
    else:
        for line in aligned(COLUMNS, shown):
            session.output.line(line)
    wrong = settings.check()
    if wrong:
        session.output.warning(f"{counted(len(wrong), 'problem')}, see llm-manager config check")
    return EXIT_OK


def _about_file(settings: Settings) -> str:
    if settings.path is None:
        return "settings file: none"
    return f"settings file: {settings.path}{'' if settings.path.exists() else ' (does not exist)'}"


def _rows(settings: Settings) -> list[tuple[str, str, str, str, str | None]]:
    """Provider, setting, value, origin, and why it does not count, of every value."""
    explained = settings.explain()
    rows = []
    for id in settings.provider_ids:
        start = f"providers.{id}."
        own = [value for value in explained if value.place.startswith(start)]
        rows += [_row(id, value.place.removeprefix(start), value) for value in own]
        if own and not any(value.place == f"{start}api_key" for value in own):
            rows += _key_of_environment(id)
    return rows


def _row(id: str, setting: str, value: Explained) -> tuple[str, str, str, str, str | None]:
    return id, setting, value.value, value.origin, value.withheld


def _key_of_environment(id: str) -> list[tuple[str, str, str, str, str | None]]:
    """Where a provider finds its key that no settings give it; the key itself is not looked at."""
    try:
        origin = getattr(create_provider(id), "key_origin", "")
    except Exception:  # noqa: BLE001 - constructors of packages may raise anything; not shown here
        return []
    return [(id, "api_key", MASK, origin, None)] if origin.startswith("environment ") else []


# ---- check ---------------------------------------------------------------------------------------


async def _check(session: Session) -> int:
    _refuse_more(session)
    found = problems_of_settings()
    wrong = [problem for problem in found if problem.severity == "error"]
    if session.arguments.json:
        session.output.document([problem.to_dict() for problem in found])
        return EXIT_FAILED if wrong else EXIT_OK
    output, marks = session.output, symbols(session.output)
    for problem in found:
        bad = problem.severity == "error"
        text = f"{problem.place}: {problem.message}"
        output.item(marks.bad if bad else "!", text, style="red" if bad else "yellow", level=0)
        if problem.hint:
            output.item(marks.arrow, str(hint_text(problem.hint)), style="dim", level=1)
    if not found:
        output.line(f"{output.styled(marks.good, 'green')} no problem found")
    return EXIT_FAILED if wrong else EXIT_OK


def problems_of_settings() -> list[Problem]:
    """Everything that is wrong with the settings, a file that cannot be read included."""
    try:
        return get_settings().check()
    except LLMError as error:
        place, found, message = error.message.partition(": ")
        if not found or " " in place:
            place, message = str(settings_path()), error.message
        return [Problem(place=place, message=message, hint=error.hint)]


def _refuse_more(session: Session) -> None:
    if session.arguments.setting is not None:
        raise InvalidParameterError(
            f"config {session.arguments.action} takes no {session.arguments.setting!r}",
            hint="see llm-manager config --help",
        )


# ---- set -----------------------------------------------------------------------------------------


async def _set(session: Session) -> int:
    arguments = session.arguments
    if arguments.setting is None:
        raise InvalidParameterError(
            "no setting", hint="llm-manager config set providers.openai.default_model gpt-5"
        )
    path = settings_path()
    if path is None:
        raise ConfigurationError(
            "there is no settings file: LLM_MANAGER_CONFIG is empty", hint="unset it, or name one"
        )
    keys = keys_of(arguments.setting)
    if arguments.keyring and (keys[-1] != "api_key" or keys[0] != "providers" or len(keys) != 3):
        raise InvalidParameterError(
            f"--keyring keeps keys, and {arguments.setting} is none",
            hint="llm-manager config set providers.openai.api_key --keyring",
        )
    _refuse_key_in_arguments(keys, arguments.value)
    text = arguments.value if arguments.value is not None else await _typed(session, keys)
    values, store = _values(keys, text), _nothing
    if arguments.keyring:
        if is_reference(text):
            raise InvalidParameterError("--keyring wants the key itself, not where it is")
        values, store = [f"keyring:{KEYRING_SERVICE}/{keys[1]}"], _into_keyring(keys[1], text)
    value, warnings = await asyncio.to_thread(set_value, path, keys, values, before_it_counts=store)
    for problem in warnings:
        session.output.warning(one_line(f"{problem.place}: {problem.message}"))
    shown = MASK if is_secret(keys) and not is_reference(value) else redact(repr(value))
    if session.arguments.json:
        session.output.document({"path": str(path), "place": arguments.setting, "value": shown})
    else:
        session.output.line(f"{arguments.setting} = {shown}  ({path})")
    return EXIT_OK


def _nothing() -> None:
    """Nothing has to be stored elsewhere."""


def _refuse_key_in_arguments(keys: Keys, value: str | None) -> None:
    """Others on this machine can read the arguments of a process, and shells keep them."""
    if value is None or is_reference(value):
        return
    if is_secret(keys) or redact(value) != value:
        raise InvalidParameterError(
            f"{'.'.join(keys)}: a key is never given as an argument",
            hint="leave it out to be asked for it, pipe it in with --stdin, "
            "or say where it is: env:NAME, keyring:service/name, file:path",
        )


async def _typed(session: Session, keys: Keys) -> str:
    """The value from stdin, or from the person at the terminal, who does not see a key."""
    at_terminal = sys.stdin is not None and sys.stdin.isatty()
    if session.arguments.stdin:
        text = (await standard_input()).strip()
    elif is_secret(keys) and at_terminal:
        with Prompt() as prompt:
            text = (await prompt.hidden_line(f"{'.'.join(keys)}: ") or "").strip()
    else:
        hint = "pipe it in with --stdin" if is_secret(keys) else "add it, or --stdin"
        raise InvalidParameterError(f"no value for {'.'.join(keys)}", hint=hint)
    if not text:
        raise InvalidParameterError(f"no value for {'.'.join(keys)}", hint="nothing was changed")
    return text


def _values(keys: Keys, text: str) -> list[Any]:
    """What a text may mean: what TOML makes of it, or itself."""
    if is_secret(keys):
        return [text]
    read = Variable("", "", (), text).value()
    return [text] if read == text else [read, text]


def _into_keyring(id: str, key: str) -> Callable[[], None]:
    """Stores a key in the operating system's keyring, when it is called."""

    def store() -> None:
        failure: LLMError
        try:
            keyring = importlib.import_module("keyring")
        except ImportError:
            failure = DependencyMissingError(
                "--keyring needs the package keyring, which is not installed", extra="keyring"
            )
        else:
            try:
                keyring.set_password(KEYRING_SERVICE, id, key)
                return
            except Exception as error:  # noqa: BLE001 - backends raise errors of their own libraries
                failure = ConfigurationError(
                    f"the keyring does not take the key: {type(error).__name__}",
                    hint="use env:NAME or file:path on a machine without a desktop",
                )
        raise failure

    return store
