"""What this library costs: ``python -m tests.benchmarks [--quick]``.

Figures are CPU time.  Contestants take turns in fresh processes, A B A B, on another core than the
server; what counts is the median of the ratios of each turn, because the speed of a shared
machine drifts.  Exits with 1 if a ratio misses its goal by more than its margin, or if importing
starts a thread, opens a socket or loads a vendor's library.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
MARGIN = 1.15

# As for users, whose modules are compiled once.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

missed: list[str] = []


def say(text: str = "") -> None:
    print(text, flush=True)


def verdict(name: str, value: float, goal: float, unit: str, *, margin: float = MARGIN) -> str:
    """``value`` against its goal; a ratio that misses by more than the margin fails the run."""
    # A time says as much about the machine as about the program.
    if unit == "x" and value > goal * margin:
        missed.append(name)
    word = "ok" if value <= goal else "within margin" if value <= goal * margin else "MISSED"
    return f"{name:<46} {value:8.2f} {unit:<4} goal <= {goal:g} {unit}  {word}"


def python(*arguments: str, cpu: int | None = None) -> str:
    """The output of a fresh interpreter, on its own core where the machine has several."""
    prefix = ["taskset", "-c", str(cpu)] if cpu is not None and (os.cpu_count() or 1) > 1 else []
    if prefix and not any(
        (Path(p) / "taskset").exists() for p in os.environ.get("PATH", "").split(":")
    ):
        prefix = []
    done = subprocess.run(
        [*prefix, sys.executable, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


# ---- streaming -----------------------------------------------------------------------------------


def streaming(turns: int, chunks: int) -> None:
    names = ["raw", "ours"]
    if importlib.util.find_spec("openai"):
        names.append("openai")
    for burst, goal in ((50, 1.0), (1, 1.15)):
        figures: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(turns):
            for name in names:
                figures[name].append(contestant(name, burst, chunks))
        say(f"\nstreamed chunks, {burst} per write, {chunks} chunks, {turns} turns")
        say("                     CPU us/chunk   x raw   CPU ms to 1st token   longest gap ms")
        for name in names:
            say(
                f"  {name:<16} {middle(figures[name], 'cpu_us_per_chunk'):14.2f}"
                f" {ratio(figures, name, 'raw', 'cpu_us_per_chunk'):9.2f}"
                f" {middle(figures[name], 'first_token_cpu_ms'):18.0f}"
                f" {middle(figures[name], 'longest_gap_ms'):18.1f}"
            )
        cost = ratio(figures, "ours", "raw", "cpu_us_per_chunk")
        say(verdict(f"ours / raw httpx2 + json, {burst} per write", cost, goal, "x"))
        start = ratio(figures, "ours", "raw", "first_token_cpu_ms")
        say(f"ours / raw, process start to first token: {start:.2f} x")
        if "openai" in names:
            cost = ratio(figures, "ours", "openai", "cpu_us_per_chunk")
            say(f"ours / openai SDK: {cost:.2f} x")
        gap_ms = middle(figures["ours"], "longest_gap_ms")
        say(verdict("longest gap of the loop in a burst of 5,000 chunks", gap_ms, 30.0, "ms"))


def openai(turns: int, chunks: int) -> None:
    """Our way through OpenAI's SDK against the SDK's own streams."""
    if not importlib.util.find_spec("openai"):
        return
    for api, mine, theirs in (
        ("chat completions", "openai-ours", "openai"),
        ("Responses API", "responses-ours", "responses"),
    ):
        for burst in (50, 1):
            figures: dict[str, list[dict[str, float]]] = {mine: [], theirs: []}
            for _ in range(turns):
                for name in figures:
                    figures[name].append(contestant(name, burst, chunks))
            say(f"\nOpenAI's {api}, {burst} per write, {chunks} chunks, {turns} turns")
            for name in figures:
                say(f"  {name:<16} {middle(figures[name], 'cpu_us_per_chunk'):8.2f} us/chunk")
            cost = ratio(figures, mine, theirs, "cpu_us_per_chunk")
            say(verdict(f"ours / openai SDK, {burst} per write", cost, 0.15, "x"))
            start = ratio(figures, mine, theirs, "first_token_cpu_ms")
            say(f"ours / openai SDK, process start to first token: {start:.2f} x")


def anthropic(turns: int, chunks: int) -> None:
    """Our way through Anthropic's SDK against the SDK's own stream."""
    if not importlib.util.find_spec("anthropic"):
        return
    names = ["anthropic-raw", "anthropic-ours", "anthropic"]
    # One piece per write is mostly the cost of reading from a socket, which all have alike.
    for burst, goal in ((50, 0.15), (1, 0.5)):
        figures: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(turns):
            for name in names:
                figures[name].append(contestant(name, burst, chunks))
        say(f"\nAnthropic's dialect, {burst} per write, {chunks} chunks, {turns} turns")
        for name in names:
            say(f"  {name:<16} {middle(figures[name], 'cpu_us_per_chunk'):8.2f} us/chunk")
        cost = ratio(figures, "anthropic-ours", "anthropic", "cpu_us_per_chunk")
        # Bytes and json alone take 0.18 of the SDK's time, so a busy machine shows soon.
        say(verdict(f"ours / anthropic SDK, {burst} per write", cost, goal, "x", margin=1.3))
        cost = ratio(figures, "anthropic-ours", "anthropic-raw", "cpu_us_per_chunk")
        say(f"ours / raw httpx2 + json: {cost:.2f} x")
        start = ratio(figures, "anthropic-ours", "anthropic", "first_token_cpu_ms")
        say(f"ours / anthropic SDK, process start to first token: {start:.2f} x")


def local_models(turns: int, tokens: int) -> None:
    """Our worker against transformers alone."""
    if not importlib.util.find_spec("transformers"):
        return
    figures = json.loads(python("-m", "tests.benchmarks.huggingface", str(turns), str(tokens)))
    say(f"\nlocal model of 25 million parameters, {tokens} tokens, {turns} turns, one thread")
    say("  {ours_tokens_per_s:.0f} tokens/s, bare {bare_tokens_per_s:.0f}".format(**figures))
    say(verdict("our time / bare model.generate", 1 / figures["single"], 1 / 0.95, "x"))
    say(verdict("8 at once / 8 one by one", 1 / figures["gain_of_8"], 0.5, "x"))
    gap_ms = figures["longest_gap_ms"]
    say(verdict("longest gap of the loop, loading and answering", gap_ms, 30.0, "ms"))


def contestant(name: str, burst: int, chunks: int) -> dict[str, float]:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.server"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        arguments = ("-m", "tests.benchmarks.contestants", name, port, str(burst), str(chunks), "3")
        figures: dict[str, float] = json.loads(python(*arguments, cpu=1))
        return figures
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


def middle(figures: list[dict[str, float]], key: str) -> float:
    return statistics.median(f[key] for f in figures)


def ratio(figures: dict[str, list[dict[str, float]]], name: str, other: str, key: str) -> float:
    """The median of the ratios of each turn."""
    pairs = zip(figures[name], figures[other], strict=True)
    return statistics.median(a[key] / b[key] for a, b in pairs)


# ---- importing -----------------------------------------------------------------------------------

IMPORT = """
import sys, threading, time
before = time.process_time()
{statement}
cost = (time.process_time() - before) * 1000
heavy = sorted({{"openai", "anthropic", "torch", "transformers", "httpx2", "rich"}}
               & set(sys.modules))
import gc, socket
sockets = [o for o in gc.get_objects() if isinstance(o, socket.socket)]
print(cost, threading.active_count(), len(sockets), ",".join(heavy) or "-")
"""


def importing(turns: int) -> None:
    say("\nimport")
    for statement, goal in (
        ("import llm_manager", 60.0),
        ("from llm_manager import LLMProviderManager", 75.0),
        ("from llm_manager import LLMProviderManager as M; m = M()\n"
         "for i in range(10): m.register_provider('compatible', id=f'p{i}', "
         "base_url='https://example.org/v1')", 90.0),
    ):  # fmt: skip
        python("-c", statement)
        runs = [python("-c", IMPORT.format(statement=statement)).split() for _ in range(turns)]
        cost_ms = statistics.median(float(run[0]) for run in runs)
        name = statement.split("\n")[0] if "\n" not in statement else "manager + 10 providers"
        say(verdict(name, cost_ms, goal, "ms"))
        threads, sockets, heavy = runs[0][1:]
        say(f"    threads {threads}, sockets {sockets}, heavy modules {heavy}")
        if (threads, sockets, heavy) != ("1", "0", "-"):
            missed.append(f"{name}: it starts or loads something")


# ---- status --------------------------------------------------------------------------------------


def transitions() -> None:
    say("\nstatus transition, delivery included, 10 listeners")
    for kind in ("synchronous", "asynchronous"):
        cost_us = asyncio.run(transition(kind == "asynchronous"))
        say(verdict(f"{kind} listeners", cost_us, 50.0, "us"))


async def transition(asynchronous: bool, count: int = 4000) -> float:
    from llm_manager import EventEmitter, ProviderStatus, Reason
    from llm_manager.machine import StatusMachine

    def listener() -> Callable[[Any], Any]:
        if asynchronous:

            async def heard(event: Any) -> None: ...

            return heard
        return lambda event: None

    emitter = EventEmitter()
    machine = StatusMachine(emitter, "bench")
    for _ in range(10):
        emitter.on("statusChanged", listener())
    machine.change(ProviderStatus.CONNECTING)
    steps = (ProviderStatus.CONNECTED, ProviderStatus.DEGRADED)
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for number in range(count):
            machine.change(steps[number % 2], Reason.RECOVERED)
            await asyncio.sleep(0)
        await emitter.flush()
        best = min(best, (time.process_time() - began) / count * 1e6)
    return best


# ---- services ------------------------------------------------------------------------------------


def services(quick: bool) -> None:
    from . import services as bench

    say("\nwhat a service costs, alone against none: per request, per piece of an answer")
    whole_us = bench.request_us(quick=quick)
    say(f"a whole request from memory with the usual policies, to compare with: {whole_us:.0f} us")
    for name, put in bench.SERVICES.items():
        per_request_us, per_piece_us = bench.measure(put, quick=quick)
        share = f"us ({per_request_us / whole_us:.0%})"
        say(verdict(f"{name}, request", per_request_us, bench.REQUEST_GOAL_US, share))
        say(verdict(f"{name}, piece", per_piece_us, bench.PIECE_GOAL_US, "us"))
    count = 100_000 if quick else 1_000_000
    before, after = bench.memory_kib(count)
    say(f"memory after {count // 10:,} requests {before:,} KiB, after {count:,} {after:,} KiB")
    say(verdict("growth, all listeners on", after / before, 1.02, "x"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer turns, to see that it runs")
    quick = parser.parse_args().quick
    importing(3 if quick else 9)
    transitions()
    streaming(3 if quick else 7, 5_000 if quick else 20_000)
    openai(3 if quick else 7, 5_000 if quick else 20_000)
    anthropic(3 if quick else 7, 20_000)
    local_models(3 if quick else 7, 32 if quick else 128)
    services(quick)
    if missed:
        say(f"\nmissed by more than the margin: {', '.join(missed)}")
        sys.exit(1)
