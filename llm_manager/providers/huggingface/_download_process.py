"""The program that downloads one model: a process of its own, so that it can be ended at any time.

huggingface_hub cannot be interrupted while it waits for a server, and it reads its settings when it
is imported.  A process can be ended within milliseconds whatever it waits for, and reads the
settings that hold now.

It is started as a script and imports nothing of this package.  One JSON object on standard input
says what to do; the end of standard input means that nobody waits any more.  Standard output
carries one JSON object a line::

    {"total": bytes to fetch}
    {"done": bytes so far} ...
    {"path": folder} | {"error": class, "text": …, "bases": […], "status": … , "retry_after": …}
"""

from __future__ import annotations

import fnmatch
import glob
import importlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

REPORT_S = 0.1
"""How long at least between two reports of progress."""

# Weights in formats that transformers does not load, and copies that it does not read.
_OTHER_FORMATS = (
    "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data", "*.tflite", "*.gguf", "*.mlmodel",
    "*.pth", "*.pt", "*.ckpt", "onnx/*", "openvino/*", "coreml/*", "original/*", "metal/*",
)  # fmt: skip


def wanted_files(names: Iterable[str], patterns: list[str] | None = None) -> list[str]:
    """Those of a repository's files that are needed to load the model, or that match ``patterns``.

    Weights that are there in several formats are fetched in the safe one only.
    """
    names = list(names)
    if patterns is not None:
        return [n for n in names if any(fnmatch.fnmatchcase(n, p) for p in patterns)]
    safe = any("/" not in name and name.endswith(".safetensors") for name in names)
    left_out = [*_OTHER_FORMATS, *(["*.bin", "*.bin.index.json"] if safe else [])]
    return [n for n in names if not any(fnmatch.fnmatchcase(n, p) for p in left_out)]


def manifest_file(folder: Path, commit: str) -> Path:
    """Where it is written which files of a commit were asked for."""
    return folder / "manifests" / f"{commit}.json"


def remove_leftovers(folder: Path, locks: Path) -> None:
    """Remove what ended downloads left of files, if nobody is fetching these files now."""
    utils = importlib.import_module("huggingface_hub.utils")
    for file in folder.glob("blobs/*.incomplete"):
        try:
            with utils.WeakFileLock(locks / f"{file.name.partition('.')[0]}.lock", timeout=0.05):
                file.unlink(missing_ok=True)
        except OSError:  # a lock that somebody holds is one, too
            continue


class _Progress:
    """Counts the bytes that huggingface_hub reports from its threads."""

    def __init__(self, report: Callable[..., None]) -> None:
        self.report = report
        self.done_bytes: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        last = 0
        while not self._ended.wait(REPORT_S):
            # One bar counts what came over the network, another what was written.
            now = max(self.done_bytes.values(), default=0)
            if now != last:
                self.report(done=now)
                last = now


def _bar_class(progress: _Progress) -> type:
    base = importlib.import_module("huggingface_hub.utils").tqdm

    class Bar(base):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            self._key = f"{settings.get('desc')}" if settings.get("unit") == "B" else None
            self._lock_of_count = threading.Lock()
            super().__init__(*arguments, **{**settings, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if self._key is None:
                return
            with self._lock_of_count:
                done = progress.done_bytes.get(self._key, 0)
                progress.done_bytes[self._key] = done + int(n or 0)

    return Bar


def _download(task: Mapping[str, Any], report: Callable[..., None]) -> Path:
    hub = importlib.import_module("huggingface_hub")
    cache, folder = Path(task["cache"]), Path(task["cache"], task["folder"])
    api = hub.HfApi(endpoint=task["endpoint"], token=task["token"], library_name="llm_manager")
    commit = api.model_info(task["name"], revision=task["revision"]).sha
    entries = api.list_repo_tree(task["name"], recursive=True, revision=commit)
    files = {entry.path: entry for entry in entries if hasattr(entry, "size")}
    wanted = wanted_files(files, task["patterns"])
    manifest = manifest_file(folder, commit)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps(wanted), encoding="utf-8")
    remove_leftovers(folder, cache / ".locks" / task["folder"])
    missing = [files[n] for n in wanted if not (folder / "blobs" / _etag(files[n])).exists()]
    total = sum(entry.size for entry in missing)
    free = shutil.disk_usage(cache).free
    if total > free:
        raise DiskFullError(f"{total} bytes are to be fetched, {free} are free in {cache}")
    report(total=total)
    progress = _Progress(report)
    progress.start()
    try:
        path = hub.snapshot_download(
            task["name"],
            revision=task["revision"],
            cache_dir=cache,
            endpoint=task["endpoint"],
            token=task["token"],
            library_name="llm_manager",
            allow_patterns=[glob.escape(name) for name in wanted],
            tqdm_class=_bar_class(progress),
        )
    finally:
        progress.end()
    return Path(path)


class DiskFullError(Exception):
    """There is less room than the model needs."""


def _etag(entry: Any) -> str:
    return str(entry.lfs.sha256 if entry.lfs is not None else entry.blob_id)


def _error(error: BaseException) -> dict[str, Any]:
    cause = error.__cause__
    if not hasattr(error, "response") and cause is not None and hasattr(cause, "response"):
        error = cause  # "not in the cache" stands for what the Hub has answered
    response = getattr(error, "response", None)
    return {
        "error": f"{type(error).__module__}.{type(error).__qualname__}",
        "text": str(error),
        "bases": [kind.__name__ for kind in type(error).__mro__],
        "status": getattr(response, "status_code", None),
        "retry_after": None if response is None else response.headers.get("retry-after"),
        "request": None if response is None else response.headers.get("x-request-id"),
    }


def _leave_with_the_parent() -> None:
    # Not through `sys.stdin`, whose lock must be free when the interpreter ends.
    while os.read(0, 1024):
        pass
    os._exit(1)


def main() -> None:
    task = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()
    # What libraries print must not get between the lines of the protocol.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    guard = threading.Lock()

    def report(**fields: Any) -> None:
        with guard:
            lines.write(json.dumps(fields) + "\n")
            lines.flush()

    sys.path[:] = task["path"]
    try:
        report(path=str(_download(task, report)))
    except Exception as error:  # noqa: BLE001 - it is told to the parent, which knows what it means
        report(**_error(error))


if __name__ == "__main__":
    main()
