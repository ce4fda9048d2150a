"""The cache folder itself: what lies in it, and removing it.  Everything here blocks.

The folder is Hugging Face's own, shared with every other program that uses it::

    <root>/models--organisation--name/
        blobs/      the files, named by their content
        refs/       branch or tag -> commit
        snapshots/  <commit>/ the files by their names, as links into blobs/
    <root>/blobs/   files that several models share

What it must not do: touch anything outside the root.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import os
import re
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ...errors import ConfigurationError, ModelNotFoundError
from ...messages import Data
from ._download_process import remove_leftovers
from .complete import is_complete
from .names import check_model_name

_PREFIX = "models--"
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,250}")


class CachedModel(Data, frozen=True, kw_only=True):
    """A model in the cache.

    Attributes:
        name: its name on the Hub.
        size_bytes: what it takes on the disk, all revisions and unfinished files together.
        last_used: when one of its files was last read or written, UTC.
        revisions: the commits that are there, the newest first.
        path: its folder.
        complete: whether its newest revision has all that is needed to load it, as far as can be
            told without the network.
    """

    name: str
    size_bytes: int
    last_used: datetime
    revisions: tuple[str, ...]
    path: str
    complete: bool


class ClearedCache(Data, frozen=True, kw_only=True):
    """What was removed, or would be.

    Attributes:
        names: the models.
        freed_bytes: the room they took; files that others share with them stay.
        dry_run: True if nothing was removed.
    """

    names: tuple[str, ...]
    freed_bytes: int
    dry_run: bool


def usual_folder() -> Path:
    """Where Hugging Face's libraries keep models, as the environment says now."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := os.environ.get(variable):
            return _expanded(value)
    if value := os.environ.get("HF_HOME"):
        return _expanded(value) / "hub"
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def folder_name(name: str) -> str:
    """The name of a model's folder, for a name that is checked."""
    return _PREFIX + name.replace("/", "--")


def make(root: Path) -> None:
    """Create the cache if it is not there.

    Raises:
        ConfigurationError: it cannot be created.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        return
    except OSError as error:
        reason = error.strerror
    raise ConfigurationError(f"the cache folder {str(root)!r} is unusable: {reason}")


def models(root: Path) -> Iterator[CachedModel]:
    """The models in the cache, by name; none if there is no cache.

    Raises:
        ConfigurationError: it cannot be read.
    """
    for name, folder in _folders(root).items():
        revisions = _revisions(folder)
        yield CachedModel(
            name=name,
            size_bytes=_size_bytes(root, folder),
            last_used=_last_used(folder),
            revisions=revisions,
            path=str(folder),
            complete=bool(revisions) and is_complete(folder, revisions[0]),
        )


def snapshot(root: Path, name: str, revision: str | None) -> Path | None:
    """The folder of a revision, if it is there whole.

    Raises:
        ConfigurationError: ``name`` or ``revision`` cannot be one.
    """
    folder = root / folder_name(check_model_name(name))
    wanted = revision or "main"
    if not _REVISION.fullmatch(wanted) or ".." in wanted:
        raise ConfigurationError(f"{wanted!r} is no revision")
    try:
        commit = (folder / "refs" / wanted).read_text().strip()
    except OSError:
        commit = wanted
    return folder / "snapshots" / commit if is_complete(folder, commit) else None


def clear(root: Path, name: str | None, *, dry_run: bool) -> ClearedCache:
    """Remove the folder of one model, or of all.

    Raises:
        ModelNotFoundError: it is not there.
        ConfigurationError: something cannot be removed.
    """
    folders = _folders(root)
    if name is not None and name not in folders:
        near = get_close_matches(name, folders, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else None
        raise ModelNotFoundError(f"no model {name!r} in {str(root)!r}", hint=hint)
    chosen = folders if name is None else {name: folders[name]}
    freed_bytes = 0
    for folder in chosen.values():
        plan = _plan_with_shared_files(root, folder)
        freed_bytes += _freed_bytes(root, folder, plan)
        if not dry_run:
            _remove(folder, plan)
    return ClearedCache(names=tuple(chosen), freed_bytes=freed_bytes, dry_run=dry_run)


def tidy(root: Path, name: str) -> None:
    """Remove the unfinished files that an ended download of ``name`` has left."""
    with contextlib.suppress(ImportError):
        remove_leftovers(root / folder_name(name), root / ".locks" / folder_name(name))


# ---- reading -------------------------------------------------------------------------------------


def _folders(root: Path) -> dict[str, Path]:
    """The folders of models, by the models' names."""
    try:
        entries = sorted(root.iterdir())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(
            f"the cache {str(root)!r} cannot be read: {error.strerror}"
        ) from None
    named = ((_model_name(entry.name), entry) for entry in entries if entry.is_dir())
    return {name: entry for name, entry in named if name is not None}


def _model_name(name_of_folder: str) -> str | None:
    """The model of a folder, or None if it is something else."""
    if not name_of_folder.startswith(_PREFIX):
        return None
    try:
        return check_model_name(name_of_folder.removeprefix(_PREFIX).replace("--", "/"))
    except ConfigurationError:
        return None


def _size_bytes(root: Path, folder: Path) -> int:
    """The room it takes in this cache; none if the folder is a link to another place."""
    if folder.is_symlink():
        return 0
    return sum(_file_bytes(root, file) for file in folder.rglob("*"))


def _file_bytes(root: Path, file: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # it was there a moment ago
        status = file.lstat()
        if stat.S_ISREG(status.st_mode):
            return status.st_size
        if stat.S_ISLNK(status.st_mode) and file.parent.name == "blobs":
            shared = file.resolve()
            if shared.is_relative_to((root / "blobs").resolve()):
                return shared.stat().st_size
    return 0


def _revisions(folder: Path) -> tuple[str, ...]:
    """The commits, the newest first."""
    found: list[tuple[float, str]] = []
    with contextlib.suppress(OSError):
        for entry in (folder / "snapshots").iterdir():
            if entry.is_dir():
                found.append((entry.stat().st_mtime, entry.name))
    return tuple(name for _, name in sorted(found, reverse=True))


def _last_used(folder: Path) -> datetime:
    times = [folder.stat().st_mtime]
    for file in folder.glob("blobs/*"):
        with contextlib.suppress(OSError):
            status = file.stat()
            times += [status.st_atime, status.st_mtime]
    return datetime.fromtimestamp(max(times), UTC)


# ---- removing ------------------------------------------------------------------------------------


def _freed_bytes(root: Path, folder: Path, plan: Any) -> int:
    # The plan leaves out what other models still need, but counts what links outside lead to.
    own_bytes = _size_bytes(root, folder)
    return own_bytes if plan is None else min(own_bytes, plan.expected_freed_size)


def _remove(folder: Path, plan: Any) -> None:
    """Remove the folder of one model; a link is removed, never what it leads to."""
    try:
        if folder.is_symlink():
            folder.unlink()
            return
        if plan is not None:
            plan.execute()
        if folder.exists():
            shutil.rmtree(folder)
        return
    except OSError as error:
        reason = str(error)
    raise ConfigurationError(f"{str(folder)!r} cannot be removed: {reason}")


def _plan_with_shared_files(root: Path, folder: Path) -> Any:
    """huggingface_hub's plan to remove it, if the cache has files that models share; or None.

    Only the library knows which of the shared files nobody needs any more.
    """
    if folder.is_symlink() or not (root / "blobs").is_dir():
        return None
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    hub = importlib.import_module("huggingface_hub")
    everything = hub.scan_cache_dir(root)
    mine = [repo for repo in everything.repos if repo.repo_path.name == folder.name]
    commits = [revision.commit_hash for repo in mine for revision in repo.revisions]
    # The plan goes by commits, and a renamed model has the same ones: it may see only this one.
    alone = dataclasses.replace(everything, repos=frozenset(mine))
    return alone.delete_revisions(*commits) if commits else None


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(path)).expanduser().absolute()
