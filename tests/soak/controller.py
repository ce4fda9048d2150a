"""Starting, killing and asking the server of the soak."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


class ServerProcess:
    """The server in a process of its own, always on the same port.

    Attributes:
        restarts: how often it was killed and started again.
        told: what the processes before this one had to say, in order.
    """

    def __init__(self, seed: int) -> None:
        self.restarts = 0
        self.told: list[dict[str, Any]] = []
        self._seed = seed
        self._port = 0
        self._share = 0.0
        self._process: subprocess.Popen[str] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        self._process = await asyncio.to_thread(self._started)
        await self.tell(self._share)

    def _started(self) -> subprocess.Popen[str]:
        self._seed += 1
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.server", str(self._port), str(self._seed)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        self._port = int(process.stdout.readline())
        return process

    async def kill(self) -> None:
        """End it as a crash does; what it knew is kept in `told`."""
        process, self._process = self._process, None
        if process is None:
            return
        self.told.append(await self.ask())
        process.kill()
        assert process.stdout is not None
        process.stdout.close()
        await asyncio.to_thread(process.wait)

    async def restart(self, down_s: float) -> None:
        await self.kill()
        await asyncio.sleep(down_s)
        await self.start()
        self.restarts += 1

    async def start_if_down(self) -> None:
        if self._process is None:
            await self.start()

    async def tell(self, share: float) -> None:
        """Let this share of the answers go wrong from now on, also after a restart."""
        self._share = share
        await self._order({"share": share})

    async def ask(self) -> dict[str, Any]:
        """What it has counted, and how many connections are open."""
        return await self._order({})

    async def _order(self, order: dict[str, float]) -> dict[str, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(f"CONTROL {json.dumps(order)}\n".encode())
            answer: dict[str, Any] = json.loads(await reader.readline())
            return answer
        finally:
            writer.close()
            await writer.wait_closed()
