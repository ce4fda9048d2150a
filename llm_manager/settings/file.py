"""The settings file: TOML, in the folder where the platform wants such files.

::

    [defaults]                        for every provider
    timeouts = { total_s = 120 }

    [providers.work-openai]           one provider; create_provider("work-openai")
    kind = "openai"                   what it is; default: its name
    api_key = "keyring:openai/work"
    default_model = "gpt-5"
    default_parameters = { temperature = 0.2 }

    [rows.my-gateway]                 a kind of one's own, of the OpenAI dialect; fields of `Row`
    base_url = "https://gateway.example/v1"

What this module must not do: know what a setting of a provider means.
"""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ..config import check_id
from ..errors import ConfigurationError, InvalidParameterError
from ..redaction import Reserved
from .constructors import Constructor
from .names import DEFAULTS, named, unknown

VARIABLE = "LLM_MANAGER_CONFIG"
"""Environment variable with another path of the settings file; empty: there is none."""
FILE_LIMIT_BYTES = 1024 * 1024

_TABLES = ("defaults", "providers", "rows")
_OF_DEFAULTS = Constructor(types={}, takes_any=False)

Table = Mapping[str, Any]


class SettingsFile(Reserved, frozen=True):
    """What a settings file says.

    Attributes:
        path: where it is, or would be; None: there is none.
        defaults: for every provider.
        providers: for one provider each, by id.
        rows: fields of `Row` by kind.
        others_can_read: whether it can be read by other users of this machine.
        is_missing: whether there is no such file.
    """

    shown = ("path",)

    path: Path | None = None
    defaults: Table = msgspec.field(default_factory=dict)
    providers: Mapping[str, Table] = msgspec.field(default_factory=dict)
    rows: Mapping[str, Table] = msgspec.field(default_factory=dict)
    others_can_read: bool = False
    is_missing: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether it is missing, although somebody has named it."""
        return self.is_missing and self.path != _usual_path()

    @property
    def shown_path(self) -> str:
        """The path, short, for people."""
        path, home = str(self.path), os.path.expanduser("~")
        return f"~{path[len(home) :]}" if path.startswith(home + os.sep) else path


def settings_path(environment: Mapping[str, str] | None = None) -> Path | None:
    """Where the settings file is, or would be; None if there shall be none."""
    given = (os.environ if environment is None else environment).get(VARIABLE)
    if given is None:
        return _usual_path()
    return absolute(given) if given.strip() else None


def absolute(path: str | os.PathLike[str]) -> Path:
    """``path`` from the home folder or from the folder of this moment, which may change."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def read_settings_file(path: Path | None) -> SettingsFile:
    """Read a settings file; one that does not exist says nothing.

    Raises:
        ConfigurationError: it cannot be read, or is no TOML; the text names file and line.
        InvalidParameterError: a table or a key of it is none that there is.
    """
    if path is None:
        return SettingsFile()
    text, mode = _text_and_mode(path)
    if text is None:
        return SettingsFile(path, is_missing=True)
    try:
        found = _checked(_parsed(text, path), path)
    except InvalidParameterError as error:
        error.message = f"{error.message}, in {path}"
        error.args = (error.message,)
        raise
    return SettingsFile(
        path,
        defaults=found["defaults"],
        providers=found["providers"],
        rows=found["rows"],
        others_can_read=os.name == "posix" and bool(mode & 0o077),
    )


def _checked(tables: dict[str, Any], path: Path) -> dict[str, Table]:
    for name in tables:
        if name not in _TABLES:
            raise unknown(name, name, _TABLES)
    found = {name: _table(name, tables.get(name, {})) for name in _TABLES}
    for group in ("providers", "rows"):
        for id, table in found[group].items():
            _table(f"{group}.{id}", table)
            check_id(id, f"{group.removesuffix('s')} of a settings file")
    _check_defaults(found["defaults"])
    return found


def _usual_path() -> Path | None:
    """The file in the platform's folder; None: this user has no such folder."""
    platformdirs = importlib.import_module("platformdirs")
    try:
        folder: Path = platformdirs.user_config_path("llm_manager", appauthor=False)
        with suppress(FileNotFoundError, NotADirectoryError):
            os.stat(folder / "config.toml")
    except (RuntimeError, PermissionError):
        return None  # no home, as in some containers, or somebody else's, as behind sudo
    return folder / "config.toml"


def _text_and_mode(path: Path) -> tuple[str | None, int]:
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_size <= FILE_LIMIT_BYTES:
            return path.read_text("utf-8-sig"), found.st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None, 0
    except OSError as error:
        problem = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        problem = "it is not UTF-8"
    except ValueError as error:
        problem = str(error)  # of the path: a zero in it
    else:
        large = stat.S_ISREG(found.st_mode)
        problem = "it is larger than 1 MiB" if large else "it is no plain file"
    raise ConfigurationError(
        f"the settings file {path} cannot be read: {problem}", hint=_advice(path)
    )


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = importlib.import_module("tomllib").loads(text)
        return parsed
    except ValueError as error:  # besides TOMLDecodeError, numbers of thousands of digits
        problem = str(error)  # it tells line and column, and nothing of what stands there
    except RecursionError:
        problem = "tables or lists are nested too deeply"
    raise ConfigurationError(
        f"the settings file {path} is no valid TOML: {problem}", hint=_advice(path)
    )


def _advice(path: Path) -> str:
    return f"repair {path}, or name another file in {VARIABLE}"


def _table(place: str, value: object) -> Table:
    if not isinstance(value, dict):
        raise InvalidParameterError(f"{place}: must be a table, got {type(value).__name__}")
    return value


def _check_defaults(table: Table) -> None:
    """Refuse what is no option of requests; the values are looked at with those of a provider."""
    for path, keys, _ in named(table, _OF_DEFAULTS, lambda keys: ".".join(("defaults", *keys))):
        if path[0] != DEFAULTS:
            raise unknown(".".join(("defaults", *keys)), keys[-1], (DEFAULTS, "timeouts"))
