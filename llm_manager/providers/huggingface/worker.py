"""The worker process: ``python -m llm_manager.providers.huggingface.worker``.

It talks to the app over its standard input and output, and ends when the app does, however that
ends.  Whatever else prints goes to standard error, which the app logs.
"""

from __future__ import annotations

import importlib
import os
import queue
import signal
import sys
import threading
from typing import Any, BinaryIO

import msgspec

from .engine import Engine
from .model import usual_device
from .protocol import Command, Hello, Progress, Report, framed, read_message


def main() -> None:
    """Serve the app until it goes away."""
    # Ctrl-C in a terminal reaches the whole group of processes; what it means, the app decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, target = _own_pipes()
    lock = threading.Lock()

    def send(report: Report) -> None:
        data = framed(report)
        with lock:
            target.write(data)
            target.flush()

    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(source, commands), daemon=True).start()
    send(Progress("importing torch"))
    torch = importlib.import_module("torch")
    send(Progress("importing transformers"))
    transformers = _quiet_transformers()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit():
        torch.set_num_threads(int(threads))
    versions = {"torch": str(torch.__version__), "transformers": transformers.__version__}
    send(Hello(versions, usual_device(torch)))
    Engine(torch, transformers, commands, send).run()


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes to the app, out of reach of code that reads from or prints to the console."""
    source = os.fdopen(os.dup(0), "rb")
    target = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return source, target


def _listen(source: BinaryIO, commands: queue.SimpleQueue[Command]) -> None:
    """Pass on what the app says.  Its silence for good ends the process at once."""
    decoder = msgspec.msgpack.Decoder(Command)
    try:
        while (command := read_message(source, decoder)) is not None:
            commands.put(command)
    except (ValueError, msgspec.MsgspecError) as error:
        sys.stderr.write(f"the app cannot be understood: {error}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _quiet_transformers() -> Any:
    transformers = importlib.import_module("transformers")
    # The modules below are imported lazily; the first model should not have to wait for them.
    importlib.import_module("transformers.models.auto.modeling_auto")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


if __name__ == "__main__":
    main()
