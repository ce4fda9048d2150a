"""Models on this machine, in the real worker with a tiny model."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from math import nan
from pathlib import Path

import pytest

from llm_manager import (
    ConfigurationError,
    ContextWindowExceededError,
    DependencyMissingError,
    HuggingFaceProvider,
    InvalidParameterError,
    InvalidRequestError,
    LLMMessage,
    LLMModelInfo,
    ModelNotFoundError,
    ProviderAPIError,
    ProviderConnectionError,
    RequestCancelledError,
    StreamInterruptedError,
    ToolDefinition,
    UnsupportedFeatureError,
)
from llm_manager.providers.huggingface.facts import described
from tests.helpers import QUICK, Record
from tests.tiny_model import CONTEXT_TOKENS, build_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

GREEDY = {"temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="module")
def shared(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HuggingFaceProvider]:
    made = provider_of(tiny, tmp_path_factory.mktemp("cache"))
    yield made
    asyncio.run(made.close())


@pytest.fixture
async def provider(shared: HuggingFaceProvider, tiny: str) -> HuggingFaceProvider:
    """One for all tests, with its model loaded: starting a worker takes seconds."""
    await shared.load_model(tiny)
    return shared


@pytest.fixture
async def own(tiny: str, tmp_path: Path) -> AsyncIterator[HuggingFaceProvider]:
    """One for a test that watches it from the beginning."""
    made = provider_of(tiny, tmp_path)
    yield made
    await made.close()


def provider_of(tiny: str, cache: Path, **settings: object) -> HuggingFaceProvider:
    return HuggingFaceProvider(
        default_model=tiny, cache_folder=cache, threads=1, reconnect=QUICK, **settings
    )


def worker_of(provider: HuggingFaceProvider, model: str) -> int:
    worker = provider._workers.of(model)
    assert worker is not None
    return worker.pid


# ---- answering -----------------------------------------------------------------------------------


async def test_the_main_job_connect_load_and_stream(own: HuggingFaceProvider, tiny: str) -> None:
    record = Record(own)
    await own.connect()
    assert record.statuses == ["connecting", "connected"]
    model = await own.get_model_info(tiny)
    assert model.context_window_tokens == CONTEXT_TOKENS
    assert model.capabilities == {"chat", "completion", "tools", "embeddings"}

    pieces = [e async for e in own.stream_completion(None, "hello", options=GREEDY)]
    answer = await own.generate_completion(None, "hello", options=GREEDY)
    assert "".join(e.text for e in pieces) == answer.text
    assert len(pieces) > 5
    assert answer.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 24
    assert not answer.usage.estimated
    await own.flush()
    phases = [e.phase for e in record.named("modelLoadProgress")]
    assert phases[0] == "importing torch"
    assert phases[-1] == "loaded"
    assert [e.model for e in record.named("modelLoaded")] == [tiny]
    assert own.loaded_models == (tiny,)
    assert "torch" not in sys.modules
    assert "transformers" not in sys.modules


async def test_an_answer_is_what_the_model_itself_generates(
    provider: HuggingFaceProvider, tiny: str
) -> None:
    script = (
        "import sys, torch, transformers\n"
        "tokens = transformers.AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "text = tokens.apply_chat_template([{'role': 'user', 'content': 'hello'}],"
        " add_generation_prompt=True, tokenize=False)\n"
        "ids = tokens(text, add_special_tokens=False, return_tensors='pt')['input_ids']\n"
        "out = model.generate(ids, max_new_tokens=24, do_sample=False)\n"
        "print(ascii(tokens.decode(out[0, ids.shape[1]:], skip_special_tokens=True)))\n"
    )
    bare = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-W", "ignore", "-c", script, tiny],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer = await provider.generate_completion(None, "hello", options=GREEDY)
    assert ascii(answer.text) == bare.stdout.strip()


async def test_requests_of_different_length_are_answered_together_as_if_each_were_alone(
    provider: HuggingFaceProvider,
) -> None:
    prompts = ["hello " * n for n in (1, 9, 3, 27, 1, 14)]
    options = [{"temperature": 0, "max_tokens": 8 * n} for n in range(1, 7)]
    both = list(zip(prompts, options, strict=True))
    alone = [(await provider.generate_completion(None, p, options=o)).text for p, o in both]
    together = await asyncio.gather(
        *(provider.generate_completion(None, p, options=o) for p, o in both)
    )
    assert [answer.text for answer in together] == alone


async def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(
    provider: HuggingFaceProvider,
) -> None:
    whole = (await provider.generate_completion(None, "hello", options=GREEDY)).text
    stop = whole[6:9]
    cut = await provider.generate_completion(None, "hello", options={**GREEDY, "stop": stop})
    assert cut.text == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"


async def test_an_answer_that_breaks_does_not_break_those_beside_it(
    tiny: str, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    await asyncio.to_thread(_copy_with_broken_words, Path(tiny), broken)
    async with provider_of(str(broken), tmp_path / "cache") as provider:
        options = {"temperature": 0, "max_tokens": 200}
        alone = (await provider.generate_completion(None, "a", options=options)).text
        chance = {"temperature": 1.0, "max_tokens": 100, "seed": 1, "extra": {"top_k": 0}}
        beside, broke = await asyncio.gather(
            provider.generate_completion(None, "a", options=options),
            provider.generate_completion(None, "b", options=chance),
            return_exceptions=True,
        )
        assert isinstance(broke, ProviderAPIError | StreamInterruptedError)
        assert not isinstance(beside, BaseException)
        assert beside.text == alone


def _copy_with_broken_words(source: Path, target: Path) -> None:
    """A model that can read letters, and computes NaN as soon as it has said a word."""
    shutil.copytree(source, target)
    file = target / "model.safetensors"
    content = bytearray(file.read_bytes())
    data = 8 + int.from_bytes(content[:8], "little")
    place = json.loads(content[8:data])["model.embed_tokens.weight"]
    (rows, columns), (begin, end) = place["shape"], place["data_offsets"]
    letters = 300  # the first ones are special tokens and bytes
    words = struct.pack("<f", nan) * ((rows - letters) * columns)
    content[data + end - len(words) : data + end] = words
    assert begin < end - len(words)
    file.write_bytes(content)


async def test_urgent_requests_go_before_others_that_wait(provider: HuggingFaceProvider) -> None:
    ended: list[str] = []
    all_busy = asyncio.Barrier(9)

    async def keep_busy() -> None:
        options = {"temperature": 0, "max_tokens": 200}
        async for event in provider.stream_completion(None, "hello", options=options):
            if event.index == 0:
                await all_busy.wait()

    async def ask(priority: str) -> None:
        options = {"temperature": 0, "max_tokens": 1, "priority": priority}
        await provider.generate_completion(None, "hello", options=options)
        ended.append(priority)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(keep_busy())
        await all_busy.wait()
        for priority in ("background", "normal", "interactive"):
            group.create_task(ask(priority))
    assert ended == ["interactive", "normal", "background"]


async def test_a_seed_makes_chance_repeatable(provider: HuggingFaceProvider) -> None:
    options = {"temperature": 1.5, "max_tokens": 24, "seed": 7, "extra": {"top_k": 50}}
    first, second, other = [
        (await provider.generate_completion(None, "hello", options={**options, "seed": s})).text
        for s in (7, 7, 8)
    ]
    assert first == second
    assert first != other


async def test_texts_become_vectors_of_length_one(provider: HuggingFaceProvider) -> None:
    made = await provider.embed(None, ["hello", "hello", "the quick brown fox"])
    assert made.vectors[0] == pytest.approx(made.vectors[1], abs=1e-5)
    assert sum(x * x for x in made.vectors[2]) == pytest.approx(1.0, abs=1e-4)
    assert made.usage is not None
    assert made.usage.prompt_tokens > 3


async def test_tokens_are_counted_by_the_models_own_tokenizer(
    provider: HuggingFaceProvider,
) -> None:
    counted = await provider.count_tokens(None, "hello world")
    assert (counted.method, counted.estimated) == ("tokenizer", False)
    answer = await provider.generate_completion(None, "hello world", options={"max_tokens": 1})
    assert answer.usage is not None
    assert (counted.tokens, counted.estimated) == (answer.usage.prompt_tokens, False)


async def test_tools_reach_the_models_template(provider: HuggingFaceProvider) -> None:
    plain = await provider.count_tokens(None, "hello")
    tool = ToolDefinition(name="add", description="adds two numbers")
    offered = await provider.count_tokens(None, "hello", {"tools": [tool]})
    assert offered.tokens > plain.tokens + 20


# ---- what cannot be done -------------------------------------------------------------------------


async def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(
    provider: HuggingFaceProvider,
) -> None:
    with pytest.raises(ContextWindowExceededError, match=rf"{CONTEXT_TOKENS} tokens") as raised:
        await provider.generate_completion(None, "hello " * CONTEXT_TOKENS)
    assert "the prompt has 5" in str(raised.value)
    assert provider.usable


async def test_an_answer_ends_where_the_context_window_does(provider: HuggingFaceProvider) -> None:
    answer = await provider.generate_completion(None, "hello", options={"temperature": 0})
    assert answer.usage is not None
    assert answer.usage.total_tokens == CONTEXT_TOKENS
    assert answer.finish_reason == "length"


async def test_a_model_without_a_template_completes_texts_but_does_not_chat(
    tiny: str, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    await asyncio.to_thread(_copy_without_template, Path(tiny), bare)
    async with provider_of(str(bare), tmp_path / "cache") as provider:
        answer = await provider.generate_completion(None, "the quick", options=GREEDY)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens < 8
        with pytest.raises(UnsupportedFeatureError, match="no chat template"):
            await provider.generate_chat_completion(None, "hi")


def _copy_without_template(source: Path, target: Path) -> None:
    target.mkdir()
    for file in source.iterdir():
        if file.name != "chat_template.jinja":
            (target / file.name).write_bytes(file.read_bytes())


async def test_a_template_that_refuses_the_conversation_is_quoted(
    tiny: str, tmp_path: Path
) -> None:
    strict = tmp_path / "strict"
    await asyncio.to_thread(_copy_without_template, Path(tiny), strict)
    (strict / "chat_template.jinja").write_text(
        "{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}x"
    )
    async with provider_of(str(strict), tmp_path / "cache") as provider:
        messages = [LLMMessage.system("be brief"), LLMMessage.user("hi")]
        with pytest.raises(InvalidRequestError, match="System role not supported"):
            await provider.generate_chat_completion(None, messages, GREEDY)
        assert provider.usable


async def test_a_folder_that_holds_no_model_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    provider = provider_of(str(tmp_path / "empty"), tmp_path / "cache")
    with pytest.raises(ModelNotFoundError, match="cannot be loaded"):
        await provider.generate_completion(None, "hi", options={"retries": {"attempts": 1}})
    await provider.close()


async def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(
    tiny: str, tmp_path: Path
) -> None:
    huge = tmp_path / "huge"
    await asyncio.to_thread(_copy_without_template, Path(tiny), huge)
    header = b'{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999999]}}'
    (huge / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    provider = provider_of(str(huge), tmp_path / "cache")
    with pytest.raises(ConfigurationError, match=r"needs .* GiB of main memory") as raised:
        await provider.generate_completion(None, "hi")
    assert raised.value.code == "insufficient_memory"
    assert provider.status.status != "failed"
    await provider.close()


async def test_loading_in_8_bits_without_the_package_for_it_says_what_to_install(
    tiny: str, tmp_path: Path
) -> None:
    if importlib.util.find_spec("bitsandbytes") is not None:
        pytest.skip("bitsandbytes is installed here")
    provider = provider_of(tiny, tmp_path, load_in_8bit=True)
    with pytest.raises(DependencyMissingError, match="bitsandbytes"):
        await provider.generate_completion(None, "hi")
    await provider.close()


async def test_a_model_that_is_not_there_is_not_fetched_when_that_is_forbidden(
    tmp_path: Path,
) -> None:
    provider = provider_of("no/such-model", tmp_path, local_files_only=True)
    with pytest.raises(ModelNotFoundError, match="not on this machine"):
        await provider.generate_completion(None, "hi")
    await provider.close()


@pytest.mark.parametrize(
    "settings", [{"max_batch": 0}, {"device": "gpu"}, {"models": "one"}, {"threads": 0}]
)
def test_settings_that_cannot_work_are_refused_at_once(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidParameterError):
        HuggingFaceProvider(**settings)


async def test_options_that_local_models_do_not_know_are_refused(
    provider: HuggingFaceProvider,
) -> None:
    with pytest.raises(UnsupportedFeatureError, match="no option 'logit_bias'"):
        await provider.generate_completion(None, "hi", options={"extra": {"logit_bias": {}}})
    for extra in ({"top_k": "many"}, {"top_k": -1}, {"min_p": 2.0}, {"repetition_penalty": 0}):
        with pytest.raises(InvalidParameterError, match=next(iter(extra))):
            await provider.generate_completion(None, "hi", options={"extra": extra})
    tool = ToolDefinition(name="add")
    with pytest.raises(UnsupportedFeatureError, match="cannot be made to call"):
        await provider.generate_chat_completion(None, "hi", {"tools": [tool], "tool_choice": "add"})


# ---- stopping ------------------------------------------------------------------------------------


async def test_stop_frees_the_model_for_the_next_request(provider: HuggingFaceProvider) -> None:
    stream = provider.stream_completion(None, "hello", options={"temperature": 0})
    with pytest.raises(RequestCancelledError) as raised:
        async for event in stream:
            if event.index == 5:
                threading.Thread(target=stream.cancel).start()
    assert raised.value.partial is not None
    assert raised.value.partial.usage is not None
    assert raised.value.partial.usage.estimated
    assert raised.value.partial.usage.completion_tokens < 200
    answer = await provider.generate_completion(None, "hello", options=GREEDY)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 24


async def test_stop_is_heard_while_a_long_prompt_is_read(tiny: str, tmp_path: Path) -> None:
    patient = tmp_path / "patient"
    await asyncio.to_thread(shutil.copytree, tiny, patient)
    config = json.loads((patient / "config.json").read_text())
    (patient / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 200_000}))
    async with provider_of(str(patient), tmp_path / "cache") as provider:
        await provider.load_model(str(patient))
        stream = provider.stream_completion(None, "hello world " * 50_000, options=GREEDY)
        reading = asyncio.ensure_future(stream)
        # Reading all of it would take minutes.
        async with asyncio.timeout(30):
            for _ in range(2):  # the second answer comes between two parts of the prompt
                await provider.count_tokens(None, "hello")
            stream.cancel()
            with pytest.raises(RequestCancelledError):
                await reading
            assert (await provider.generate_completion(None, "hello", options=GREEDY)).text


async def test_leaving_one_answer_does_not_disturb_the_others(
    provider: HuggingFaceProvider,
) -> None:
    options = {"temperature": 0, "max_tokens": 60}
    alone = (await provider.generate_completion(None, "hello there", options=options)).text

    async def leave() -> None:
        async for event in provider.stream_completion(None, "hello", options=options):
            if event.index == 3:
                break

    kept, *_ = await asyncio.gather(
        provider.generate_completion(None, "hello there", options=options),
        *(leave() for _ in range(3)),
    )
    assert kept.text == alone


async def test_loading_can_be_cancelled_and_begun_again(
    provider: HuggingFaceProvider, tiny: str
) -> None:
    began = asyncio.Event()
    with provider.subscribe(lambda e: e.model and began.set(), "modelLoadProgress"):
        await provider.unload_model(tiny)
        loading = asyncio.create_task(provider.load_model(tiny))
        await began.wait()
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert provider.loaded_models == ()

        began.clear()
        stream = provider.stream_completion(None, "hello", options=GREEDY)
        answering = asyncio.ensure_future(stream)
        await began.wait()
        await asyncio.to_thread(stream.cancel)
        with pytest.raises(RequestCancelledError):
            await answering
        assert provider.loaded_models == ()
    await provider.load_model(tiny)
    assert provider.loaded_models == (tiny,)


async def test_stopping_while_the_worker_starts_leaves_no_process_behind(
    tiny: str, tmp_path: Path
) -> None:
    before = _workers_of_this_process()
    for turns in range(1, 7):
        stopped = provider_of(tiny, tmp_path)
        connecting = asyncio.create_task(stopped.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await stopped.close()
    assert _workers_of_this_process() <= before


def _workers_of_this_process() -> set[str]:
    listed = subprocess.run(
        ["ps", "-A", "-o", "ppid=,pid=,args="], capture_output=True, text=True, check=True
    )
    lines = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    own = str(os.getpid())
    return {pid for parent, pid, args in lines if parent == own and "huggingface.worker" in args}


async def test_unloading_ends_the_process_that_held_the_model(
    provider: HuggingFaceProvider, tiny: str
) -> None:
    record = Record(provider)
    pid = worker_of(provider, tiny)
    await provider.unload_model(tiny)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert provider.loaded_models == ()
    assert [e.model for e in record.named("modelUnloaded")] == [tiny]
    with pytest.raises(ModelNotFoundError, match="not loaded"):
        await provider.unload_model(tiny)


async def test_unloading_a_model_that_answers_ends_the_answer_and_leaves_the_status_alone(
    provider: HuggingFaceProvider, tiny: str
) -> None:
    stream = provider.stream_completion(None, "hello", options={"temperature": 0})
    with pytest.raises(RequestCancelledError, match="the model was unloaded") as raised:
        async for event in stream:
            if event.index == 3:
                await provider.unload_model(tiny)
    assert raised.value.code == "model_unloaded"
    assert raised.value.partial is not None
    assert provider.status.status == "connected"
    assert provider.loaded_models == ()


async def test_models_load_at_the_same_time_and_the_one_not_used_for_longest_makes_room(
    tiny: str, tmp_path: Path
) -> None:
    second, third = str(tmp_path / "second"), str(tmp_path / "third")
    for copy in (second, third):
        await asyncio.to_thread(_copy_without_template, Path(tiny), Path(copy))
    async with provider_of(tiny, tmp_path / "cache", max_loaded_models=2) as provider:
        await provider.load_model(tiny)
        importing = asyncio.Event()
        with provider.subscribe(
            lambda e: e.phase.startswith("importing") and importing.set(), "modelLoadProgress"
        ):
            loading = asyncio.create_task(provider.load_model(second))
            await importing.wait()
            await asyncio.gather(loading, provider.load_model(third))
        assert set(provider.loaded_models) == {second, third}
        answers = [
            await provider.generate_completion(model, "the quick", options=GREEDY)
            for model in (second, third)
        ]
        assert answers[0].text == answers[1].text


# ---- the worker ----------------------------------------------------------------------------------


async def test_a_worker_that_is_killed_breaks_off_its_answer_and_is_replaced(
    provider: HuggingFaceProvider, tiny: str
) -> None:
    stream = provider.stream_completion(None, "hello", options={"temperature": 0})
    with pytest.raises(StreamInterruptedError, match="signal 9") as raised:
        async for event in stream:
            if event.index == 5:
                os.kill(worker_of(provider, tiny), signal.SIGKILL)
    assert raised.value.partial is not None
    assert raised.value.partial.text
    await provider.wait_for("connected", timeout_s=60)
    assert (await provider.generate_completion(None, "hello", options=GREEDY)).text


async def test_a_worker_that_dies_while_idle_is_noticed_at_once(
    provider: HuggingFaceProvider, tiny: str
) -> None:
    record = Record(provider)
    os.kill(worker_of(provider, tiny), signal.SIGKILL)
    await provider.wait_for("reconnecting", timeout_s=30)
    await provider.wait_for("connected", timeout_s=60)
    assert [e.model for e in record.named("modelUnloaded")] == [tiny]


async def test_a_worker_that_cannot_start_is_a_typed_error(tiny: str, tmp_path: Path) -> None:
    missing = provider_of(tiny, tmp_path, worker_command=["/no/such/program"])
    with pytest.raises(ConfigurationError, match="cannot be started"):
        await missing.connect()
    await missing.close()
    broken = provider_of(
        tiny, tmp_path,
        worker_command=[sys.executable, "-c", "import sys; sys.exit('torch is broken')"],
    )  # fmt: skip
    with pytest.raises(ProviderConnectionError, match=r"exit code 1.*torch is broken"):
        await broken.connect()
    await broken.close()


def test_the_worker_goes_when_the_app_is_killed(tiny: str, tmp_path: Path) -> None:
    script = (
        "import asyncio, os, sys\n"
        "from llm_manager import HuggingFaceProvider\n"
        "async def main():\n"
        "    provider = HuggingFaceProvider(default_model=sys.argv[1], threads=1)\n"
        "    await provider.load_model(sys.argv[1])\n"
        "    if os.fork() == 0:\n"
        "        os.close(1)\n"
        "        os.read(0, 1)\n"
        "        os._exit(0)\n"
        "    print(provider._workers.of(sys.argv[1]).pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    # A child that the app has forked lives on for a while; it must not keep the worker alive.
    child_waits, child_ends = os.pipe()
    app = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, tiny],
        stdin=child_waits, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    try:
        assert app.returncode == -signal.SIGKILL
        _wait_until_gone(int(app.stdout))
    finally:
        os.close(child_ends)
        os.close(child_waits)


def test_an_app_that_ends_with_work_in_flight_ends_quietly_and_takes_the_worker_along(
    tiny: str,
) -> None:
    script = (
        "import asyncio, sys\n"
        "from llm_manager import HuggingFaceProvider\n"
        "async def main():\n"
        "    provider = HuggingFaceProvider(default_model=sys.argv[1], threads=1)\n"
        "    async for event in provider.stream_completion(None, 'hello'):\n"
        "        print(provider._workers.of(sys.argv[1]).pid, flush=True)\n"
        "        return\n"
        "asyncio.run(main())\n"
    )
    app = subprocess.run(
        [sys.executable, "-c", script, tiny], capture_output=True, text=True, check=True
    )
    assert app.stderr == ""
    _wait_until_gone(int(app.stdout))


def _wait_until_gone(pid: int) -> None:
    gone = threading.Event()
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        gone.wait(0.1)  # it is nobody's child here, so its end cannot be awaited
    pytest.fail(f"the worker {pid} still runs")


async def test_one_provider_serves_the_loops_of_several_threads(
    provider: HuggingFaceProvider,
) -> None:
    async def ask() -> str:
        return (await provider.generate_completion(None, "hello", options=GREEDY)).text

    def loop_after_loop() -> set[str]:
        return {asyncio.run(ask()) for _ in range(3)}

    answers = await asyncio.gather(*(asyncio.to_thread(loop_after_loop) for _ in range(4)))
    assert set.union(*answers) == {await ask()}


async def test_a_worker_that_dies_of_a_model_is_not_tried_with_it_again(
    tiny: str, tmp_path: Path
) -> None:
    dying = (
        "import os; from llm_manager.providers.huggingface import engine, worker\n"
        "engine.Engine._load = lambda self, command: os.abort()\n"
        "worker.main()\n"
    )
    provider = provider_of(tiny, tmp_path, worker_command=[sys.executable, "-c", dying])
    record = Record(provider)
    with pytest.raises(ProviderConnectionError, match=r"signal 6.* while it loaded") as raised:
        await provider.generate_completion(None, "hello", options=GREEDY)
    assert raised.value.code == "worker_died"
    assert not raised.value.retryable
    assert [e.attempts for e in record.named("requestFinished")] == [1]
    await provider.close()


def test_what_a_models_files_say_is_read_without_loading_it(tiny: str) -> None:
    model = described(LLMModelInfo(id="tiny"), Path(tiny))
    assert model.context_window_tokens == CONTEXT_TOKENS
    assert model.source_of("context_window_tokens") == "endpoint"
    assert model.size_bytes


async def test_half_a_character_in_a_prompt_is_a_mistake_of_the_caller(
    provider: HuggingFaceProvider,
) -> None:
    with pytest.raises(InvalidParameterError, match="cannot be written as text"):
        await provider.generate_completion(None, "a\ud800b", options=GREEDY)
    assert (await provider.generate_completion(None, "hello", options=GREEDY)).text
