"""What file, environment and code say of one provider, value by value, each looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from ..config import Secret, check_id
from ..errors import InvalidParameterError
from ..messages import LLMRequestOptions, types_of
from .constructors import UNKNOWN, Constructor
from .environment import Variable, variables, written
from .file import SettingsFile
from .layers import Layer, Path, Setting
from .names import DEFAULTS, named
from .references import as_secret
from .values import checked_option, checked_setting, takes_text, takes_texts

_KEY: Path = ("api_key",)
_PRIVATE = frozenset({"headers", "row", "proxy"})


class Sources:
    """Where settings come from, as they are at one moment.

    Args:
        file: the settings file.
        environment: environment variables.
        code: what was set in code, by id of the provider.
    """

    __slots__ = ("_variables", "code", "file")

    def __init__(
        self,
        file: SettingsFile,
        environment: Mapping[str, str],
        code: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.file = file
        self.code = code
        self._variables: dict[str, list[Variable]] = {}
        for variable in variables(environment):
            self._variables.setdefault(variable.provider, []).append(variable)

    def ids(self, kinds: Mapping[str, str]) -> list[str]:
        """The providers that have settings of their own, in the order of their writing.

        One that only environment variables name is a kind, or it has a variable for its kind.

        Args:
            kinds: ids of kinds by the way in which variables write them.
        """
        found = list(dict.fromkeys([*self.file.providers, *self.code]))
        spelt = {written(id) for id in found}
        for provider, its in self._variables.items():
            says_kind = any(variable.keys == ("kind",) for variable in its)
            if provider not in spelt and (provider in kinds or says_kind):
                id = kinds.get(provider) or provider.lower().replace("_", "-")
                with suppress(InvalidParameterError):  # it is a stray, then
                    found.append(check_id(id))
        return found

    def have(self, id: str) -> bool:
        """Whether they say anything of a provider."""
        return id in self.file.providers or id in self.code or written(id) in self._variables

    def strays(self, ids: list[str]) -> list[Variable]:
        """Variables with settings of a provider that nobody knows."""
        spelt = {written(id) for id in ids}
        by_provider = self._variables.items()
        return [v for provider, its in by_provider if provider not in spelt for v in its]

    def kind_of(self, id: str) -> str:
        """What a provider is an instance of; its id if nothing says it.

        Raises:
            InvalidParameterError: it is written as something that cannot be a kind.
        """
        kind = id
        for value, place in self._kinds_said(id):
            kind = checked_value(("kind",), value, UNKNOWN, place)
        return kind

    def _kinds_said(self, id: str) -> Iterator[tuple[Any, str]]:
        """What each layer calls its kind, and where, weakest first."""
        place = f"providers.{id}.kind"
        if (in_file := self.file.providers.get(id, {}).get("kind")) is not None:
            yield in_file, place
        for variable in self._variables.get(written(id), ()):
            if variable.keys == ("kind",):
                yield variable.text_value(), variable.name
        if (in_code := self.code.get(id, {}).get("kind")) is not None:
            yield in_code, place

    def layers(self, id: str, constructor: Constructor) -> list[Layer]:
        """What each of them says of a provider, weakest first.

        Raises:
            InvalidParameterError: a name or a value is wrong; the text begins with its place.
        """
        return [self._defaults(constructor), *self._own_layers(id, constructor)]

    def _own_layers(self, id: str, constructor: Constructor) -> Iterator[Layer]:
        path, code = f"file {self.file.shown_path}", self.code.get(id, {})
        yield _layer(f"providers.{id}", self.file.providers.get(id, {}), path, constructor)
        yield _environment_layer(self._variables.get(written(id), ()), constructor)
        yield _layer(f"providers.{id}", code, "code", constructor)

    def _defaults(self, constructor: Constructor) -> Layer:
        if not constructor.takes("default_options"):
            return {}
        origin = f"file {self.file.shown_path} [defaults]"
        return _layer("defaults", self.file.defaults, origin, constructor)


def is_private(path: Path) -> bool:
    """Whether the value of a setting is never shown: it is a key, or may hold one."""
    return path[0] in _PRIVATE or path == _KEY


def _layer(at: str, table: Mapping[Any, Any], origin: str, constructor: Constructor) -> Layer:
    """One table of settings."""
    layer: dict[Path, Setting] = {}

    def place(keys: tuple[str, ...]) -> str:
        return ".".join((at, *keys))

    for path, keys, value in named(table, constructor, place):
        checked = checked_value(path, value, constructor, place(keys))
        _take(layer, path, Setting(checked, origin, place(keys)), place(keys))
    return layer


def _environment_layer(given: Iterable[Variable], constructor: Constructor) -> Layer:
    layer: dict[Path, Setting] = {}
    for variable in given:
        for path, setting in _settings_of(variable, constructor):
            earlier = layer.get(path)
            if earlier and isinstance(earlier.value, dict) and isinstance(setting.value, dict):
                layer[path] = _both(earlier, setting)
            else:
                _take(layer, path, setting, setting.place)
    return layer


def _settings_of(variable: Variable, constructor: Constructor) -> Iterator[tuple[Path, Setting]]:
    """What one variable says: one value, or those of a table."""
    value = variable.value()

    def place(_: tuple[str, ...]) -> str:
        return variable.name

    is_number = isinstance(value, bool | int | float)
    for path, _, inner in named(variable.nested(value), constructor, place):
        meant = inner
        is_no_key = path == _KEY and not isinstance(value, str)
        if _wants_text(path, constructor, whole=inner is value) and (is_number or is_no_key):
            text = variable.nested(variable.text.strip())
            meant = next(inner for _, _, inner in named(text, constructor, place))
        checked = checked_value(path, meant, constructor, variable.name)
        yield path, Setting(checked, f"environment {variable.name}", variable.name)


def _both(one: Setting, other: Setting) -> Setting:
    """Two variables that hold parts of one table."""
    origin = f"{one.origin}, {other.place}"
    return Setting({**one.value, **other.value}, origin, other.place)


def _wants_text(path: Path, constructor: Constructor, *, whole: bool) -> bool:
    """Whether a setting, or what is inside of it, is a text, also where it looks like a number."""
    if path in (_KEY, ("kind",)):
        return True
    if path[0] == DEFAULTS:
        return len(path) == 2 and takes_text(types_of(LLMRequestOptions).get(path[1]))
    annotation = constructor.types.get(path[0])
    return takes_text(annotation) if whole else takes_texts(annotation)


def _take(layer: dict[Path, Setting], path: Path, setting: Setting, place: str) -> None:
    if path in layer:
        raise InvalidParameterError(
            f"{place}: it stands there twice, as {layer[path].place} as well",
            hint="take one of them out",
        )
    layer[path] = setting


def checked_value(path: Path, value: Any, constructor: Constructor, place: str) -> Any:
    """The value of one setting as it has to be; a key that stands there is wrapped.

    Raises:
        InvalidParameterError: it is wrong; the text begins with ``place``.
        AuthenticationError: it is a key that cannot be sent.
    """
    if path[0] == DEFAULTS:
        return checked_option(path[1:], value, place)
    if path == ("kind",):
        try:
            return check_id(value, "kind of provider")
        except InvalidParameterError as error:
            problem = error.message
        raise InvalidParameterError(f"{place}: {problem}")
    if path == _KEY:
        if value is not None and not isinstance(value, str | Secret) and not callable(value):
            raise InvalidParameterError(
                f"{place}: must be text or a function, got {type(value).__name__}"
            )
        return as_secret(value, place)
    annotation = constructor.types.get(path[0])
    return checked_setting(value, annotation, place, private=is_private(path))
