"""Every Python block of the documentation runs, and every link inside it leads somewhere."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path

import pytest

from llm_manager import LLMProviderManager
from llm_manager.testing import Reply, ScriptedPeer

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
# The addresses that the pages use, and that a scripted server answers at here.
SERVERS = ("http://127.0.0.1:8080/v1", "http://127.0.0.1:11434")


def _ollama(peer: ScriptedPeer) -> None:
    details = {"family": "llama", "parameter_size": "1B", "quantization_level": "Q8_0"}
    model = {"name": "llama3.2:latest", "model": "llama3.2:latest", "size": 1, "details": details}
    peer.route("/api/tags", Reply.json({"models": [model]}))
    peer.route("/api/ps", Reply.json({"models": []}))
    peer.route("/api/version", Reply.json({"version": "0.33.0"}))
    peer.route(
        "/api/show",
        Reply.json(
            {
                "details": details,
                "model_info": {"general.architecture": "llama", "llama.context_length": 131072},
                "capabilities": ["completion", "tools"],
            }
        ),
    )
    peer.route(
        "/api/chat",
        Reply.ndjson(
            [
                {"model": "llama3.2", "message": {"role": "assistant", "content": "Because."}},
                {"model": "llama3.2", "message": {"content": ""}, "done": True,
                 "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 2},
            ]
        ),
    )  # fmt: skip
    peer.route(
        "/api/generate", Reply.ndjson([{"response": ")"}, {"done": True, "done_reason": "stop"}])
    )
    peer.route("/api/embed", Reply.json({"embeddings": [[0.1, 0.2], [0.3, 0.4]]}))
    peer.route(
        "/api/pull",
        Reply.ndjson(
            [
                {"status": "pulling manifest"},
                {"status": "pulling abc", "digest": "abc", "total": 100, "completed": 50},
                {"status": "success"},
            ]
        ),
    )


def _openai(peer: ScriptedPeer) -> None:
    chunk = {"id": "1", "model": "small", "choices": [{"index": 0, "delta": {"content": "Hi."}}]}
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    end = {"id": "1", "model": "small", "choices": [last]}
    peer.route("/v1/models", Reply.json({"data": [{"id": "small"}]}))
    peer.route("/v1/chat/completions", Reply.sse([chunk, end, "[DONE]"]))
    summary = [{"type": "summary_text", "text": "Penguins swim."}]
    items = [
        {"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "c2ln"},
        {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "No."}]},
    ]
    answer = {"id": "resp_1", "model": "gpt-5", "status": "completed", "output": items}
    peer.route("/v1/responses", Reply.json(answer))
    peer.route("/infill", Reply.sse([{"content": "a + b"}, {"stop": True, "stop_type": "eos"}]))
    vectors = [{"index": i, "embedding": [0.1, 0.2]} for i in range(2)]
    peer.route("/v1/embeddings", Reply.json({"model": "small", "data": vectors}))


def _anthropic(peer: ScriptedPeer) -> None:
    blocks = [
        {"type": "thinking", "thinking": "Penguins swim.", "signature": "c2ln"},
        {"type": "text", "text": "No."},
    ]
    usage = {"input_tokens": 5, "cache_read_input_tokens": 900, "output_tokens": 2}
    message = {"id": "msg_1", "model": "claude", "content": blocks, "stop_reason": "end_turn"}
    peer.route("/v1/models", Reply.json({"data": [{"id": "claude-opus-4-6"}]}))
    peer.route("/v1/messages", Reply.json({**message, "usage": usage}))
    peer.route("/v1/messages/count_tokens", Reply.json({"input_tokens": 17}))


def _blocks():
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            line = text[: match.start()].count("\n") + 2
            yield pytest.param(match.group(1), page, line, id=f"{page.relative_to(ROOT)}:{line}")


@pytest.mark.parametrize(("source", "page", "line"), list(_blocks()))
async def test_a_block_of_the_documentation_runs(
    source, page, line, monkeypatch, capsys, tmp_path
) -> None:
    monkeypatch.chdir(tmp_path)  # where a block may write files
    async with ScriptedPeer() as openai, ScriptedPeer() as ollama, ScriptedPeer() as anthropic:
        _openai(openai)
        _ollama(ollama)
        _anthropic(anthropic)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-documentation")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{openai.base_url}/v1")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-documentation")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", anthropic.base_url)
        monkeypatch.setenv("OLLAMA_HOST", ollama.base_url)
        monkeypatch.setenv("GROQ_API_KEY", "gsk_documentation")
        source = source.replace(SERVERS[0], f"{openai.base_url}/v1")
        source = source.replace(SERVERS[1], ollama.base_url)
        LLMProviderManager.reset_instance()
        # As `python -m asyncio` does, a block may await at its top level.
        code = compile(
            "\n" * (line - 1) + source,
            str(page),
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        )
        names = {"__name__": "__main__"}
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, names)
        else:
            await asyncio.to_thread(eval, code, names)
        if LLMProviderManager._instance is not None:
            await LLMProviderManager._instance.close(0)
        LLMProviderManager.reset_instance()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_inside_the_documentation_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page}: {target}"


def test_every_public_name_is_there_and_described() -> None:
    import llm_manager

    for name in llm_manager.__all__:
        thing = getattr(llm_manager, name)
        assert thing is not None
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{name} has no description"


def test_names_for_type_checkers_are_the_names_at_run_time() -> None:
    import llm_manager

    tree = ast.parse((ROOT / "llm_manager" / "__init__.py").read_text())
    guarded = next(n for n in tree.body if isinstance(n, ast.If))
    declared = {
        (f"{node.module}", alias.name)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == {(m, n) for n, m in llm_manager._MODULE_OF.items()}
