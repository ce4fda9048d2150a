"""`llm-manager chat`: answers on stdout, remarks on stderr, honest exit codes, no keys anywhere."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llm_manager.cli.arguments import parse
from llm_manager.cli.chat import run as chat
from llm_manager.cli.output import Output
from llm_manager.cli.session import run as run_session
from llm_manager.testing import Reply, ScriptedPeer

from .conftest import Cli
from .running import TIMEOUT_S, Terminal, command, environment, openai_stream

KEY = "sk-test-4f9a8b7c6d5e4f3a2b1c"


def url(server: ScriptedPeer) -> str:
    return f"{server.base_url}/v1"


def answers(server: ScriptedPeer, *words: str, **how: Any) -> None:
    server.route("/v1/chat/completions", Reply.sse(openai_stream(*words), **how))


def asked(server: ScriptedPeer) -> list[Any]:
    return [r.json() for r in server.requests if r.path.endswith("/chat/completions")]


def test_only_the_answer_is_on_stdout(cli: Cli, server: ScriptedPeer) -> None:
    answers(server, "The sky ", "is blue.")
    result = cli("chat", "--base-url", url(server), "--system", "Be brief.", "why", "blue?")
    assert (result.returncode, result.stdout) == (0, "The sky is blue.\n")
    assert result.stderr == "using compatible/tiny\n"
    body = asked(server)[0]
    assert body["model"] == "tiny"
    assert [(m["role"], m["content"]) for m in body["messages"]] == [
        ("system", "Be brief."),
        ("user", "why blue?"),
    ]


def test_standard_input_is_the_prompt_or_a_part_of_it(cli: Cli, server: ScriptedPeer) -> None:
    answers(server, "ok")
    named = ("chat", "--base-url", url(server), "--model", "tiny")
    assert cli(*named, text="all of it\n").stdout == "ok\n"
    assert cli(*named, "Review:", "-", text="a\nb\n").stdout == "ok\n"
    assert [b["messages"][0]["content"] for b in asked(server)] == ["all of it", "Review: a\nb"]


def test_a_named_model_needs_no_request_but_the_one(cli: Cli, server: ScriptedPeer) -> None:
    answers(server, "ok")
    result = cli("chat", "--base-url", url(server), "--model", "other", "hi")
    assert (result.stdout, result.stderr) == ("ok\n", "")
    assert [r.path for r in server.requests] == ["/v1/chat/completions"]


def test_ollama_is_spoken_to_in_its_own_dialect(cli: Cli) -> None:
    with ScriptedPeer() as peer:
        peer.route("/api/tags", Reply.json({"models": [{"name": "llama:1b", "model": "llama:1b"}]}))
        peer.route("/api/ps", Reply.json({"models": []}))
        peer.route(
            "/api/chat",
            Reply.ndjson(
                [
                    {"model": "llama:1b", "message": {"role": "assistant", "content": "hi "}},
                    {"model": "llama:1b", "message": {"role": "assistant", "content": "you"}},
                    {"model": "llama:1b", "done": True, "done_reason": "stop"},
                ]
            ),
        )
        result = cli("chat", "--provider", "ollama", "hello", OLLAMA_HOST=peer.base_url)
    assert (result.returncode, result.stdout) == (0, "hi you\n")
    assert result.stderr == "using ollama/llama:1b\n"


def test_a_retry_is_told_on_stderr(cli: Cli, server: ScriptedPeer) -> None:
    server.script(
        Reply.json({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "0"}),
        Reply.sse(openai_stream("done")),
    )
    result = cli("chat", "--base-url", url(server), "--model", "tiny", "hi")
    assert (result.returncode, result.stdout) == (0, "done\n")
    assert "(2 of 3)" in result.stderr
    assert "slow down" in result.stderr


def test_a_refused_key_is_an_error_that_does_not_show_the_key(
    cli: Cli, server: ScriptedPeer
) -> None:
    refusal = Reply.json({"error": {"message": f"Incorrect API key: {KEY}"}}, status=401)
    server.route("/v1/models", refusal)
    result = cli(
        "chat", "--verbose", "--base-url", url(server), "--key-env", "MY_KEY", "hi", MY_KEY=KEY
    )
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert (result.returncode, result.stdout) == (1, "")
    assert "error: compatible: " in result.stderr
    assert "hint: " in result.stderr
    assert KEY not in result.stderr


def test_an_unknown_model_is_a_mistake_and_similar_ones_are_named(
    cli: Cli, server: ScriptedPeer
) -> None:
    server.route(
        "/v1/chat/completions",
        Reply.json(
            {"error": {"message": "The model `tinny` does not exist", "code": "model_not_found"}},
            status=404,
        ),
    )
    result = cli("chat", "--base-url", url(server), "--model", "tinny", "hi")
    assert (result.returncode, result.stdout) == (2, "")
    assert "hint: did you mean 'tiny'?" in result.stderr


def test_a_server_that_is_down_is_an_error_with_a_hint(cli: Cli) -> None:
    result = cli("chat", "--base-url", "http://127.0.0.1:9/v1", "hi")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: compatible: 127.0.0.1:9 refuses the connection\nhint: ")


def test_what_had_arrived_of_a_broken_answer_is_written(cli: Cli, server: ScriptedPeer) -> None:
    server.route(
        "/v1/chat/completions", Reply.sse(openai_stream("half an ", "answer")[:2], ending="reset")
    )
    result = cli("chat", "--base-url", url(server), "--model", "tiny", "hi")
    assert (result.returncode, result.stdout) == (1, "half an answer\n")
    assert "error: compatible: " in result.stderr


def test_json_is_one_event_a_line_in_the_order_of_what_happened(
    cli: Cli, server: ScriptedPeer
) -> None:
    answers(server, "a ", "b")
    result = cli("chat", "--json", "--base-url", url(server), "hi")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    names = [e["event"] for e in events]
    assert result.returncode == 0
    assert names.index("requestStarted") < names.index("streamEvent")
    assert names.index("streamEvent") < names.index("requestFinished")
    assert [e["text"] for e in events if e.get("kind") == "text"] == ["a ", "b"]
    numbers = [e["gseq"] for e in events if "gseq" in e]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
def test_a_signal_ends_the_answer_at_once_and_closes_everything(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    endless = "word " * 1000
    with subprocess.Popen(
        command("chat", "--json", "--provider", "echo", endless),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(tmp_path),
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        assert any("streamEvent" in line for line in process.stdout)
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (code, "using echo/echo\n")
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["outcome"] for e in events if e["event"] == "requestFinished"] == ["cancelled"]
    assert events[-1]["current"]["status"] == "closed"


async def _nothing() -> list[Any]:
    return []


def test_where_nothing_is_found_a_question_is_not_answered_by_its_repetition(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run_session(chat, parse(["chat", "hello", "you"]), Output(), find=_nothing)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert "error: no provider is reachable" in err
    assert "llm-manager doctor" in err
    assert "--provider echo" in err


def test_where_nothing_is_found_a_wanted_model_is_not_replaced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run_session(chat, parse(["chat", "--model", "big", "hi"]), Output(), find=_nothing)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert "'big'" in err


# ---- on a terminal -------------------------------------------------------------------------------


def test_a_conversation_remembers_and_ends_with_ctrl_d(
    tmp_path: Path, server: ScriptedPeer
) -> None:
    answers(server, "Hello ", "Ada.")
    with Terminal(tmp_path, "chat", "--base-url", url(server)) as terminal:
        terminal.until("> ")
        terminal.type("I am Ada\r")
        terminal.until("> ", times=2)
        terminal.type("/model other\r")
        terminal.until("> ", times=3)
        terminal.type("Who am I?\r")
        terminal.until("> ", times=4)
        terminal.type("\x04")
        assert terminal.ended() == 0
        assert terminal.is_as_before
        assert "Traceback" not in terminal.seen
    first, second = asked(server)
    assert (first["model"], second["model"]) == ("tiny", "other")
    assert [m["content"] for m in second["messages"]] == ["I am Ada", "Hello Ada.", "Who am I?"]


def test_ctrl_c_stops_the_answer_and_at_the_prompt_the_program(
    tmp_path: Path, server: ScriptedPeer
) -> None:
    stuck = Reply.sse([*openai_stream("and so ")[:1], asyncio.Event()])
    server.route("/v1/chat/completions", stuck)
    with Terminal(tmp_path, "chat", "--base-url", url(server)) as terminal:
        terminal.until("> ")
        terminal.type("go on\r")
        terminal.until("and so ")
        terminal.type("\x03")
        terminal.until("stopped")
        terminal.until("> ", times=2)
        terminal.type("half a line\x03")
        assert terminal.ended() == 130
        assert terminal.is_as_before
        assert "Traceback" not in terminal.seen


def test_an_answer_cannot_command_the_terminal(tmp_path: Path, server: ScriptedPeer) -> None:
    answers(server, "\x1b]0;owned\x07", "harm\x1b[2Jless")
    named = ("chat", "--base-url", url(server), "--model", "tiny", "hi")
    with Terminal(tmp_path, *named, NO_COLOR="1") as terminal:
        assert terminal.ended() == 0
        assert terminal.seen == "]0;ownedharm[2Jless\r\n"
