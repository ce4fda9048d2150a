"""Local models: our worker against a bare ``model.generate`` with the same settings.

The model is built on the spot, with random weights and about 25 million of them: what it says is
nonsense, and it takes as long as sense.  Both sides compute on one thread, in turns.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

THREADS = 1
PROMPT = "hello world, how are you? " * 4

BUILD = """
import sys, torch
sys.path.insert(0, "tests")
import tiny_model
from transformers import LlamaConfig, LlamaForCausalLM, AutoTokenizer
tiny_model._build(__import__("pathlib").Path(sys.argv[1]))
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=len(tokenizer), hidden_size=512, intermediate_size=1408, num_hidden_layers=8,
    num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=512,
    bos_token_id=1, eos_token_id=2, pad_token_id=2))
with torch.no_grad():
    model.lm_head.weight[:7] = 0
model.save_pretrained(sys.argv[1])
"""

BARE = """
import json, sys, time, torch, transformers
torch.set_num_threads(int(sys.argv[2]))
tokens = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
text = tokens.apply_chat_template([{"role": "user", "content": sys.argv[4]}],
                                  add_generation_prompt=True, tokenize=False)
ids = tokens(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
model.generate(ids, max_new_tokens=4, do_sample=False)
for line in sys.stdin:
    began_s = time.perf_counter()
    out = model.generate(ids, max_new_tokens=int(sys.argv[3]), do_sample=False)
    print((out.shape[1] - ids.shape[1]) / (time.perf_counter() - began_s), flush=True)
"""


def measure(turns: int, tokens: int) -> dict[str, Any]:
    """The figures of ``turns`` turns with answers of ``tokens`` tokens."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", BUILD, folder], check=True, capture_output=True
        )
        return asyncio.run(_measured(folder, turns, tokens))


async def _measured(folder: str, turns: int, tokens: int) -> dict[str, Any]:
    from llm_manager import HuggingFaceProvider

    # First, and waited for: starting it would be counted as a gap of ours.
    bare = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", BARE, folder, str(THREADS), str(tokens), PROMPT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare.stdin.write(b"\n")
    await bare.stdout.readline()
    gaps: list[float] = []
    watching = asyncio.create_task(_watch(gaps))
    provider = HuggingFaceProvider(
        default_model=folder, threads=THREADS, cache_folder=str(Path(folder) / "cache")
    )
    options = {"temperature": 0, "max_tokens": tokens}
    await provider.load_model(folder)
    await provider.generate_completion(None, PROMPT, options={**options, "max_tokens": 4})
    single, gain, speeds = [], [], []
    for _ in range(turns):
        bare.stdin.write(b"\n")
        theirs = float(await bare.stdout.readline())
        began_s = time.perf_counter()
        answer = await provider.generate_completion(None, PROMPT, options=options)
        ours = answer.usage.completion_tokens / (time.perf_counter() - began_s)
        single.append(ours / theirs)
        speeds.append((ours, theirs))
        began_s = time.perf_counter()
        for _ in range(8):
            await provider.generate_completion(None, PROMPT, options=options)
        one_by_one_s = time.perf_counter() - began_s
        began_s = time.perf_counter()
        await asyncio.gather(
            *(provider.generate_completion(None, PROMPT, options=options) for _ in range(8))
        )
        gain.append(one_by_one_s / (time.perf_counter() - began_s))
    bare.stdin.close()
    await bare.wait()
    await provider.close()
    watching.cancel()
    return {
        "single": sorted(single)[len(single) // 2],
        "gain_of_8": sorted(gain)[len(gain) // 2],
        "ours_tokens_per_s": sorted(s[0] for s in speeds)[len(speeds) // 2],
        "bare_tokens_per_s": sorted(s[1] for s in speeds)[len(speeds) // 2],
        "longest_gap_ms": max(gaps) * 1000,
    }


async def _watch(gaps: list[float]) -> None:
    """Note by how much each short sleep is late: as long the loop did nothing else."""
    while True:
        began_s = time.perf_counter()
        await asyncio.sleep(0.002)
        gaps.append(time.perf_counter() - began_s - 0.002)


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:3]))))
