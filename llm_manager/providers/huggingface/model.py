"""A loaded model and its tokenizer: prompts become tokens, texts become vectors.  In the worker.

What it must not do: know of the app, or compute answers; that is `batch`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import (
    ContextWindowExceededError,
    InvalidRequestError,
    LLMError,
    ModelNotFoundError,
    ProviderAPIError,
    UnsupportedFeatureError,
)
from .facts import context_window_tokens, is_generative, read_config
from .memory import check_fits
from .protocol import Loaded, Prompt, Sampling
from .sampling import Sampler
from .settings import LoadSettings, from_pretrained_arguments, tokenizer_arguments
from .text import AnswerText, spoken_tokens

Report = Callable[[str, float | None], None]

_THINK = "<think>"
_EMBED_AT_ONCE = 32


class LocalModel:
    """What one worker holds.

    Args:
        torch, transformers: the modules.
        folder: where the model's files are.
        settings: how to load it.
        report: is told the phases of loading, with a fraction where one is known.

    Raises:
        ConfigurationError: it does not fit into memory, or the settings cannot work.
        DependencyMissingError: the settings need another package.
        ModelNotFoundError: the folder holds no model that transformers can load.
    """

    def __init__(
        self, torch: Any, transformers: Any, folder: Path, settings: LoadSettings, report: Report
    ) -> None:
        self._torch = torch
        self._config = read_config(folder)
        device = settings.device or usual_device(torch)
        report("checking memory", None)
        check_fits(folder, settings, device=device, gpu_free_bytes=_free_gpu_bytes(torch, device))
        arguments = from_pretrained_arguments(settings, transformers, torch, device=device)
        kind = "AutoModelForCausalLM" if is_generative(self._config) else "AutoModel"
        report("loading tokenizer", None)
        with _Loading(transformers, report):
            try:
                self.tokenizer = transformers.AutoTokenizer.from_pretrained(
                    str(folder), **tokenizer_arguments(settings)
                )
                report("loading weights", 0.0)
                model: Any = getattr(transformers, kind).from_pretrained(str(folder), **arguments)
            except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
                raise _load_error(settings.model, error) from None
        if "device_map" not in arguments and device != "cpu":
            report("moving to the device", None)
            model = model.to(device)
        self.model = model.eval()
        self.is_generative = kind == "AutoModelForCausalLM"
        self._spoken = spoken_tokens(self.tokenizer)
        self._window = context_window_tokens(self._config)

    @property
    def described(self) -> Loaded:
        """What the app is told about it."""
        weight = self.model.get_input_embeddings().weight
        return Loaded(
            device=str(weight.device),
            dtype=str(weight.dtype).removeprefix("torch."),
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
        )

    def tokens_of(self, prompt: Prompt) -> tuple[list[int], str]:
        """The tokens of a prompt, and what its template has begun the answer with.

        Raises:
            UnsupportedFeatureError: the model has no chat template.
            InvalidRequestError: its template refuses the conversation.
        """
        if self.tokenizer.chat_template is None:
            if prompt.text is None:
                raise UnsupportedFeatureError(
                    "this model has no chat template",
                    hint="it completes texts: use generate_completion",
                )
            return self._encoded(prompt.text, special=True), ""
        text = self._rendered(prompt)
        opening = f"{_THINK}\n" if text.rstrip().endswith(_THINK) else ""
        return self._encoded(text, special=False), opening

    def sampler(self, sampling: Sampling) -> Sampler:
        """What chooses the tokens of an answer."""
        return Sampler(self._torch, sampling, self.model.generation_config)

    def text(self, sampling: Sampling) -> AnswerText:
        """What makes text of an answer's tokens."""
        return AnswerText(self.tokenizer, self._spoken, sampling.stop)

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer."""
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        known = configured if isinstance(configured, list) else [configured]
        return frozenset(t for t in (*known, self.tokenizer.eos_token_id) if t is not None)

    def room(self, prompt_tokens: int, wanted_tokens: int | None) -> int:
        """How many tokens the answer may have.

        Raises:
            ContextWindowExceededError: the prompt leaves no room for one.
        """
        if self._window is None:
            return wanted_tokens or 4096
        left = self._window - prompt_tokens
        if left < 1:
            raise ContextWindowExceededError(
                f"the prompt has {prompt_tokens} tokens, and the model's context window is "
                f"{self._window} tokens",
                hint="shorten the conversation",
            )
        return left if wanted_tokens is None else min(wanted_tokens, left)

    def vectors(self, texts: tuple[str, ...]) -> tuple[list[list[float]], int]:
        """One vector of length 1 for each text: the mean of the last layer over its tokens.

        Returns:
            The vectors, and how many tokens were read.

        Raises:
            ContextWindowExceededError: a text is longer than the model's context window.
        """
        torch = self._torch
        encoded = [self._encoded(text, special=True) for text in texts]
        for tokens in encoded:
            self.room(len(tokens) - 1, None)
        vectors: list[list[float]] = []
        body = self.model.base_model
        device = self.model.get_input_embeddings().weight.device
        with torch.inference_mode():
            for begin in range(0, len(encoded), _EMBED_AT_ONCE):
                some = encoded[begin : begin + _EMBED_AT_ONCE]
                longest = max(map(len, some))
                ids = torch.tensor([t + [0] * (longest - len(t)) for t in some], device=device)
                mask = torch.tensor(
                    [[1] * len(t) + [0] * (longest - len(t)) for t in some], device=device
                )
                hidden = body(input_ids=ids, attention_mask=mask).last_hidden_state.float()
                weights = mask[:, :, None].float()
                means = (hidden * weights).sum(1) / weights.sum(1)
                vectors += torch.nn.functional.normalize(means, dim=-1).cpu().tolist()
        return vectors, sum(map(len, encoded))

    def _rendered(self, prompt: Prompt) -> str:
        more = {} if prompt.thinking is None else {"enable_thinking": prompt.thinking}
        try:
            text: str = self.tokenizer.apply_chat_template(
                prompt.messages,
                tools=prompt.tools,
                add_generation_prompt=True,
                tokenize=False,
                **more,
            )
        except Exception as error:  # noqa: BLE001 - a template is a program of the model's author
            reason = f"{type(error).__name__}: {error}"
        else:
            return text
        raise InvalidRequestError(f"the model's chat template refuses this conversation: {reason}")

    def _encoded(self, text: str, *, special: bool) -> list[int]:
        tokens: list[int] = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        if tokens:
            return tokens
        begin = self.tokenizer.bos_token_id
        if begin is None:
            raise InvalidRequestError("the prompt has no tokens")
        return [begin]


def usual_device(torch: Any) -> str:
    """Where to compute if nobody says: the GPU if there is one."""
    if torch.cuda.is_available():
        return "cuda"
    metal = getattr(torch.backends, "mps", None)
    return "mps" if metal is not None and metal.is_available() else "cpu"


class _Loading:
    """Reports transformers' progress while the weights are loaded, instead of printing it."""

    def __init__(self, transformers: Any, report: Report) -> None:
        self._logging = transformers.utils.logging
        self._report = report
        self._before: Any = None

    def __enter__(self) -> None:
        self._before = self._logging.set_tqdm_hook(self._bar)

    def __exit__(self, *error: object) -> None:
        self._logging.set_tqdm_hook(self._before)

    def _bar(self, factory: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        options["disable"] = True
        items = args[0] if args else options.get("iterable")
        if items is None:
            return factory(*args, **options)
        return self._counted(list(items))

    def _counted(self, items: list[Any]) -> Any:
        for number, item in enumerate(items):
            self._report("loading weights", number / len(items))
            yield item


def _free_gpu_bytes(torch: Any, device: str) -> int | None:
    if not device.startswith("cuda") or not torch.cuda.is_available():
        return None
    free: int = torch.cuda.mem_get_info(device)[0]
    return free


def _load_error(name: str, error: Exception) -> LLMError:
    """What transformers says when it cannot load a model."""
    text = str(error).strip().splitlines()
    said = text[0][:400] if text else type(error).__name__
    if "out of memory" in str(error).lower():
        return ProviderAPIError(
            f"there was not enough memory to load {name!r}: {said}",
            code="out_of_memory",
            retryable=False,
            hint="choose a smaller model, or quantization='8bit'",
        )
    if "trust_remote_code" in str(error):
        return ProviderAPIError(
            f"{name!r} comes with code of its own, which is not run unless you say so",
            code="invalid_config",
            retryable=False,
            hint="pass trust_remote_code=True if you trust it",
        )
    return ModelNotFoundError(
        f"{name!r} cannot be loaded: {type(error).__name__}: {said}", code="model_not_loadable"
    )
