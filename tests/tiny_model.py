"""A tiny Llama with its own tokenizer and chat template, built on the spot: nothing is downloaded.

It has learned nothing, but it answers: always the same to the same question, and without end until
it is told to stop, because the token that ends an answer is never the likeliest.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONTEXT_TOKENS = 512

TEMPLATE = """\
{%- if tools %}<|system|>{{ tools | tojson }}</s>{% endif -%}
{%- for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor -%}
{%- if add_generation_prompt %}<|assistant|>{% endif -%}"""

WORDS = "the quick brown fox jumps over the lazy dog. hello world, how are you? I say words."


def build_tiny_model(folder: Path) -> Path:
    """Build it in ``folder``, in a process of its own, and return the folder."""
    subprocess.run(
        [sys.executable, "-W", "ignore", __file__, str(folder)],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return folder


def _build(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokens = Tokenizer(models.BPE(unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|tool|>"]
    tokens.train_from_iterator(
        [WORDS] * 20,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        model_max_length=CONTEXT_TOKENS,
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT_TOKENS,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
        )
    )
    with torch.no_grad():
        model.lm_head.weight[: len(special)] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    _build(Path(sys.argv[1]))
