"""What the text that names a model means: a folder on this machine, or a model on the Hub."""

from __future__ import annotations

import re
from pathlib import Path

from ...config import check_folder
from ...errors import ConfigurationError

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_PART}(?:/{_PART})?")


def model_folder(model: str) -> Path | None:
    """The folder that ``model`` means, or None if it is a name on the Hub.

    As in transformers, a folder that exists wins over a model of the same name.

    Raises:
        ConfigurationError: it is a path to nothing or to a file, or neither path nor name.
    """
    if Path(model).expanduser().is_dir():
        return Path(model).expanduser()
    if _is_path(model) or Path(model).is_file():
        return check_folder(model, "model folder")
    check_model_name(model)
    return None


def check_model_name(model: object) -> str:
    """``model``, if it can be the name of a model on the Hub: nothing in it leaves a folder.

    Raises:
        ConfigurationError: it cannot.
    """
    if (
        not isinstance(model, str)
        or not _NAME.fullmatch(model)
        or "--" in model
        or ".." in model
        or model.endswith(".git")
    ):
        raise ConfigurationError(
            f"{model!r:.120} is neither a folder nor the name of a model",
            hint='names look like "organisation/name"; a folder begins with "/" or "./"',
        )
    return model


def _is_path(model: str) -> bool:
    """Whether it can only mean a place on this machine."""
    return model.startswith((".", "/", "~")) or "\\" in model or model[1:2] == ":"
