"""``llm-manager new-provider NAME``: a package with a provider, ready to be changed and tested.

The files are those of the folder ``provider_template``, with names filled in.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from string import Template
from typing import NamedTuple

from llm_manager import ConfigurationError, InvalidParameterError
from llm_manager.registry import kinds

from .exit_codes import EXIT_OK
from .session import Session

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 40


class Names(NamedTuple):
    """What a new provider is called, in all its ways."""

    kind: str
    name: str
    title: str
    distribution: str
    module: str
    class_name: str
    variable: str
    host: str


async def run(session: Session) -> int:
    """Write the package that the arguments name; returns the exit code."""
    names = names_of(session.arguments.name)
    folder = _folder(session.arguments.folder or names.distribution)
    files = await asyncio.to_thread(write, names, folder)
    if session.arguments.json:
        session.output.document({"kind": names.kind, "folder": str(folder), "files": files})
        return EXIT_OK
    session.output.line(f"{folder}")
    for file in files:
        session.output.line(f"  {file}")
    session.output.remark(f"next: cd {folder} && pip install -e '.[dev]' && pytest")
    return EXIT_OK


def _folder(text: str) -> Path:
    return Path(text).expanduser()


def names_of(kind: str) -> Names:
    """Everything that is called after ``kind``.

    Raises:
        InvalidParameterError: it cannot name a kind and a module, or there is such a kind already.
    """
    if not _NAME.fullmatch(kind) or len(kind) > _LONGEST:
        raise InvalidParameterError(
            f"{kind!r} cannot name a provider",
            hint=f"use small letters, digits and single '-', at most {_LONGEST}, e.g. acme-llm",
        )
    if kind in kinds():
        raise InvalidParameterError(
            f"there is a kind of provider {kind!r} already", hint="choose another name"
        )
    name = kind.replace("-", "_")
    words = [word.capitalize() for word in kind.split("-")]
    return Names(
        kind=kind,
        name=name,
        title=" ".join(words),
        distribution=f"llm-manager-{kind}",
        module=f"llm_manager_{name}",
        class_name="".join(words),
        variable=name.upper(),
        host=kind,
    )


def write(names: Names, folder: Path) -> list[str]:
    """Write the package: all of it, or nothing.

    Returns:
        The files, relative to the folder.

    Raises:
        ConfigurationError: there is something in the folder already, or it cannot be written.
    """
    files = _files(names)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            problem, hint = "exists already and is not empty", "name another one with --folder"
        else:
            _write_at_once(files, folder)
            return sorted(files)
    except OSError as error:
        problem, hint = f"cannot be written: {error.strerror}", None
    raise ConfigurationError(f"{str(folder)!r} {problem}", hint=hint)


def _files(names: Names) -> dict[str, str]:
    """What stands in each file of the package, by its path."""
    places = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "__init__.py": f"{names.module}/__init__.py",
        "dialect.py": f"{names.module}/dialect.py",
        "provider.py": f"{names.module}/provider.py",
        "test_provider.py": f"tests/test_{names.name}.py",
    }
    templates = resources.files(__package__) / "provider_template"
    filled = {
        place: Template((templates / f"{source}.template").read_text(encoding="utf-8")).substitute(
            names._asdict()
        )
        for source, place in places.items()
    }
    return {**filled, f"{names.module}/py.typed": ""}


def _write_at_once(files: dict[str, str], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        beside.chmod(0o755)
        for place, text in files.items():
            file = beside / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
