"""A Hugging Face Hub on this machine: the three routes that a download uses."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path

from llm_manager.testing import Reply, Request, ScriptedPeer

COMMIT = "a" * 40


def etag_of(content: bytes) -> str:
    """A file's name in the cache."""
    return hashlib.sha256(content).hexdigest()


class FakeHub:
    """One model on a `ScriptedPeer`.

    Args:
        peer: the server.
        name: the model's name.
        files: what it has.
        gate: with it, the second half of every file's content is sent when it is set.
        commit: the commit of its main branch.
    """

    def __init__(
        self,
        peer: ScriptedPeer,
        name: str,
        files: Mapping[str, bytes],
        *,
        gate: asyncio.Event | None = None,
        commit: str = COMMIT,
    ) -> None:
        self.peer, self.name, self.files, self.gate = peer, name, dict(files), gate
        self.commit = commit
        info = {"id": name, "sha": commit, "siblings": [{"rfilename": f} for f in files]}
        tree = [
            {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": "0" * 40,
                "lfs": {"oid": etag_of(content), "size": len(content), "pointerSize": 130},
            }
            for path, content in files.items()
        ]
        peer.route(f"/api/models/{name}/revision/main", Reply.json(info))
        peer.route(f"/api/models/{name}/tree/{commit}", Reply.json(tree))
        for path, content in files.items():
            peer.route(f"/{name}/resolve/{commit}/{path}", self._file(content))

    def _file(self, content: bytes):
        facts = {
            "x-repo-commit": self.commit,
            "etag": f'"{etag_of(content)}"',
            "content-length": str(len(content)),
            "accept-ranges": "bytes",
        }

        def reply(request: Request) -> Reply:
            if request.method == "HEAD":
                return Reply(headers=facts)
            half = len(content) // 2
            body = [content] if self.gate is None else [content[:half], self.gate, content[half:]]
            return Reply(headers=facts, body=body)

        return reply

    @property
    def fetched(self) -> list[str]:
        """The files whose content was asked for."""
        start = f"/{self.name}/resolve/{self.commit}/"
        return [
            request.path.removeprefix(start)
            for request in self.peer.requests
            if request.method == "GET" and request.path.startswith(start)
        ]


def refuse(peer: ScriptedPeer, name: str, status: int, **headers: str) -> None:
    """Answer every question about ``name`` with an error."""
    fields = {key.replace("_", "-"): value for key, value in headers.items()}
    peer.route(
        f"/api/models/{name}/revision/main",
        Reply.json({"error": "no"}, status=status, headers=fields),
    )


def plant(root: Path, name: str, files: Mapping[str, bytes], commit: str = COMMIT) -> Path:
    """Put a model into a cache as Hugging Face's library does; returns its folder."""
    folder = root / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for each in (snapshot, folder / "blobs", folder / "refs"):
        each.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    for path, content in files.items():
        blob = folder / "blobs" / etag_of(content)
        blob.write_bytes(content)
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path).symlink_to(blob)
    return folder
