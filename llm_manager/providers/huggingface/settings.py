"""How a local model is loaded: the settings, checked, and what they mean for transformers.

`LoadSettings` travels from the app to the worker process, so it is plain data and this module
imports neither torch nor transformers; `from_pretrained_arguments` gets them from the worker.

What it must not do: decide anything by itself that runs code of a model's author.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from ...errors import ConfigurationError, DependencyMissingError, InvalidParameterError
from ...messages import Data, from_mapping

DTYPES = {
    "auto": "auto", "float32": "float32", "float16": "float16", "bfloat16": "bfloat16",
    "fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "half": "float16",
}  # fmt: skip
"""Number formats of weights: what may be written -> torch's name; ``auto`` takes the file's."""

QUANTIZATIONS = ("8bit", "4bit")

_DEVICE_KINDS = ("auto", "cpu", "cuda", "mps", "xpu", "npu", "hpu")
_DEVICE = re.compile(rf"(?:{'|'.join(_DEVICE_KINDS)})|(?:cuda|xpu|npu|hpu):\d{{1,2}}")
_SIZE = re.compile(r"\d+(?:\.\d+)?\s*(?:[KMGT]i?B)", re.IGNORECASE)

# What transformers calls the same, or called it in older versions.
_OTHER_NAMES = {"torch_dtype": "dtype", "cache_dir": "cache_folder", "device_map": "device"}


class LoadSettings(Data, frozen=True, kw_only=True):
    """How one model is loaded.  None means "not given": a sensible default applies.

    Attributes:
        model: its name on the Hub (``"organisation/name"``), or a folder.
        revision: branch, tag or commit; None: the main branch.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, …; ``"auto"`` spreads a model over
            all there are; None: a GPU if there is one.
        dtype: number format of the weights, one of `DTYPES`.
        quantization: ``"8bit"`` or ``"4bit"`` (bitsandbytes), or the name of a configuration class
            of transformers with its arguments: ``{"config": "HqqConfig", "nbits": 4}``.
        attn_implementation: ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``, …
        trust_remote_code: run code that comes with the model; off unless it is asked for here.
        local_files_only: never use the network.
        cache_folder: where downloaded models are; None: Hugging Face's usual place.
        threads: how many CPU threads computing may use; None: the worker's default.
        max_memory: the most to use per device, e.g. ``{"0": "10GiB", "cpu": "30GiB"}``.
        check_memory: refuse to load what does not fit.

    Raises:
        InvalidParameterError: a value cannot be right; the text says which.
    """

    model: str
    revision: str | None = None
    device: str | None = None
    dtype: str = "auto"
    quantization: str | dict[str, Any] | None = None
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    local_files_only: bool = False
    cache_folder: str | None = None
    threads: int | None = None
    max_memory: dict[str, str | int] | None = None
    check_memory: bool = True

    def __post_init__(self) -> None:
        _check_text("model", self.model)
        for name in ("revision", "cache_folder", "attn_implementation"):
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        for name in ("trust_remote_code", "local_files_only", "check_memory"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidParameterError(
                    f"{name} must be True or False, got {getattr(self, name)!r}"
                )
        if self.device is not None:
            _check_device(self.device)
        _check_choice("dtype", self.dtype, DTYPES)
        _check_quantization(self.quantization)
        _check_attention(self.attn_implementation, self.trust_remote_code)
        _check_threads(self.threads)
        _check_max_memory(self.max_memory)


def load_settings(model: str, given: Mapping[str, Any] | None = None) -> LoadSettings:
    """The settings for ``model`` from what a caller wrote, transformers' own names included.

    ``load_in_8bit`` and ``load_in_4bit`` become ``quantization``; ``torch_dtype``, ``cache_dir``
    and ``device_map`` are understood, too.

    Raises:
        InvalidParameterError: an unknown name (with the nearest known one), a wrong value, or two
            that contradict each other.
    """
    settings: dict[str, Any] = {}
    for name, value in (given or {}).items():
        if name in ("load_in_8bit", "load_in_4bit"):
            if not isinstance(value, bool):
                raise InvalidParameterError(f"{name} must be True or False, got {value!r}")
            if value:
                _set_once(settings, "quantization", name.removeprefix("load_in_"), name)
        else:
            _set_once(settings, _OTHER_NAMES.get(name, name), value, name)
    if isinstance(settings.get("cache_folder"), Path):
        settings["cache_folder"] = str(settings["cache_folder"])
    return from_mapping(LoadSettings, {**settings, "model": model}, "the settings of a model")


def tokenizer_arguments(settings: LoadSettings) -> dict[str, Any]:
    """Keyword arguments of ``AutoTokenizer.from_pretrained``, ``AutoConfig`` and the like."""
    arguments: dict[str, Any] = {
        "trust_remote_code": settings.trust_remote_code,  # left out, transformers asks on stdin
        "local_files_only": settings.local_files_only,
    }
    if settings.revision is not None:
        arguments["revision"] = settings.revision
    if settings.cache_folder is not None:
        arguments["cache_dir"] = str(Path(settings.cache_folder).expanduser())
    return arguments


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def from_pretrained_arguments(
    settings: LoadSettings,
    transformers: ModuleType,
    torch: ModuleType,
    *,
    device: str | None = None,
    is_installed: Callable[[str], bool] = _is_installed,
) -> dict[str, Any]:
    """Keyword arguments of ``AutoModelForCausalLM.from_pretrained``.

    Without ``device_map`` in them the model is loaded into main memory, and whoever loads it moves
    it to its device.

    Args:
        device: what a missing ``settings.device`` means on this machine.
        is_installed: tells whether a package can be imported.

    Raises:
        DependencyMissingError: the settings need accelerate or bitsandbytes.
        ConfigurationError: transformers does not know the quantization, or refuses its arguments.
    """
    arguments = tokenizer_arguments(settings)
    dtype = DTYPES[settings.dtype]
    arguments["dtype"] = dtype if dtype == "auto" else getattr(torch, dtype)
    if settings.attn_implementation is not None:
        arguments["attn_implementation"] = settings.attn_implementation
    if settings.quantization is not None:
        arguments["quantization_config"] = _quantization_config(
            settings.quantization, transformers, is_installed
        )
    device_map = _device_map(settings, settings.device or device or "cpu", is_installed)
    if device_map is not None:
        arguments["device_map"] = device_map
    if settings.max_memory is not None:
        arguments["max_memory"] = {
            int(name) if name.isdigit() else name: size
            for name, size in settings.max_memory.items()
        }
    return arguments


def _device_map(
    settings: LoadSettings, device: str, is_installed: Callable[[str], bool]
) -> str | dict[str, str] | None:
    """Where the layers go; None where accelerate is not needed, as its import takes seconds."""
    why = (
        "device='auto'" if device == "auto"
        else "max_memory" if settings.max_memory is not None
        else "quantization" if settings.quantization is not None
        else None
    )  # fmt: skip
    if why is not None and not is_installed("accelerate"):
        raise DependencyMissingError(
            f"{why} needs the package accelerate, which is not installed", extra="huggingface"
        )
    if device == "auto" or settings.max_memory is not None:
        return "auto"
    if why is not None or (device != "cpu" and is_installed("accelerate")):
        return {"": device}
    return None


def _quantization_config(
    quantization: str | dict[str, Any],
    transformers: ModuleType,
    is_installed: Callable[[str], bool],
) -> Any:
    if isinstance(quantization, str):
        quantization = {"config": "BitsAndBytesConfig", f"load_in_{quantization}": True}
    arguments = dict(quantization)
    name = arguments.pop("config")
    if name == "BitsAndBytesConfig" and not is_installed("bitsandbytes"):
        raise DependencyMissingError(
            "8-bit and 4-bit loading needs the package bitsandbytes, which is not installed",
            hint="pip install 'bitsandbytes>=0.46.1', or load without quantization",
        )
    kind = getattr(transformers, name, None)
    if not _is_quantization(kind):
        near = get_close_matches(name, dir(transformers), n=9)
        near = [each for each in near if _is_quantization(getattr(transformers, each))]
        raise ConfigurationError(
            f"transformers has no quantization {name!r}",
            hint=f"did you mean {near[0]!r}?" if near else None,
        )
    assert kind is not None
    package_missing = False
    try:
        return kind(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        reason = str(error)
        package_missing = isinstance(error, ImportError)
    if package_missing:
        raise DependencyMissingError(f"{name} needs a package: {reason}")
    raise ConfigurationError(f"{name} does not accept {arguments}: {reason}")


def _is_quantization(kind: Any) -> bool:
    return isinstance(kind, type) and any(
        base.__name__ == "QuantizationConfigMixin" for base in kind.__mro__
    )


# ---- checks --------------------------------------------------------------------------------------


def _set_once(settings: dict[str, Any], name: str, value: Any, as_written: str) -> None:
    if name in settings and settings[name] != value:
        raise InvalidParameterError(
            f"{as_written}={value!r} contradicts {name}={settings[name]!r}", hint="give one of them"
        )
    settings[name] = value


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise InvalidParameterError(f"{name} must be a text that is not empty, got {value!r}")


def _check_choice(name: str, value: object, choices: Mapping[str, Any] | tuple[str, ...]) -> None:
    if isinstance(value, str) and value in choices:
        return
    near = get_close_matches(str(value), list(choices), n=1)
    raise InvalidParameterError(
        f"{name} must be one of {', '.join(choices)}, got {value!r}",
        hint=f"did you mean {near[0]!r}?" if near else None,
    )


def _check_device(device: object) -> None:
    if isinstance(device, str) and _DEVICE.fullmatch(device):
        return
    near = get_close_matches(str(device).partition(":")[0], _DEVICE_KINDS, n=1)
    raise InvalidParameterError(
        f"device must be one of {', '.join(_DEVICE_KINDS)} or e.g. cuda:0, got {device!r}",
        hint=f"did you mean {near[0]!r}?" if near else None,
    )


def _check_quantization(quantization: object) -> None:
    if isinstance(quantization, dict):
        name = quantization.get("config")
        if not isinstance(name, str) or not name.isidentifier() or not name.endswith("Config"):
            raise InvalidParameterError(
                f"quantization must name a configuration class as 'config', got {name!r}",
                hint='e.g. {"config": "HqqConfig", "nbits": 4}',
            )
    elif quantization is not None:
        _check_choice("quantization", quantization, QUANTIZATIONS)


def _check_attention(attention: str | None, trusted: bool) -> None:
    # A name with a slash is a repository whose compiled code transformers downloads and runs.
    if attention is not None and "/" in attention and not trusted:
        raise InvalidParameterError(
            f"attn_implementation {attention!r} would run code from the Hub",
            hint="pass trust_remote_code=True if you trust it",
        )


def _check_threads(threads: object) -> None:
    if threads is None:
        return
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise InvalidParameterError(f"threads must be a whole number from 1, got {threads!r}")


def _check_max_memory(limits: object) -> None:
    if limits is None:
        return
    if not isinstance(limits, dict) or not limits:
        raise InvalidParameterError(f"max_memory must be a dictionary, got {limits!r}")
    for name, size in limits.items():
        if not isinstance(name, str) or not (name in ("cpu", "mps", "disk") or name.isdigit()):
            raise InvalidParameterError(
                f"max_memory: {name!r} is no device", hint="write '0' for the first GPU, or 'cpu'"
            )
        whole = isinstance(size, int) and not isinstance(size, bool) and size > 0
        if not whole and not (isinstance(size, str) and _SIZE.fullmatch(size)):
            raise InvalidParameterError(
                f"max_memory of {name}: {size!r} is no size", hint="write e.g. '10GiB'"
            )
