"""What is known about a server of the OpenAI dialect, as data: from code or from settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..config import check_base_url
from ..errors import InvalidParameterError
from ..messages import Capability, Data, from_mapping
from ..tokens import ImageRuleName
from ..wire.openai_request import ChatDialect, FimStyle

CHAT: frozenset[Capability] = frozenset(
    {"chat", "completion", "tools", "vision", "files", "reasoning", "json_object", "json_schema"}
)
EMBEDDINGS: frozenset[Capability] = frozenset({"embeddings"})
NO_FILES = CHAT - {"files"}
WITH_EMBEDDINGS = NO_FILES | EMBEDDINGS
TEXT = CHAT - {"vision", "files"}


class Row(Data, frozen=True, kw_only=True):
    """What is known about one service or server program.

    Paths begin below the base URL; ``/..`` at their beginning leaves its last part, as in
    ``/../api/v0/models``.

    Attributes:
        id: kind of the provider.
        name: name to show to people; the id if there is no other.
        base_url: where requests go, without ``/chat/completions``; None: the user has to say.
        key_variables: environment variables that may hold the key, in the order of asking.
        key_required: whether requests without a key make no sense.
        key_header: header that carries the key, where it is not ``authorization: Bearer``.
        base_url_variables: environment variables that may hold another address.
        dialect: its quirks.
        models_path: where it lists its models, or None if it does not.
        models: ids to offer if it lists none.
        models_prefix: what its lists put in front of the ids, and requests can do without.
        details_path: where else it lists its models and tells more about them, limits above all;
            what is not there, or cannot be read, does no harm.
        details_key_header: header that carries the key there, if it is another one.
        headers: sent with every request.
        header_variables: more headers, and the environment variables that hold their values.
        capabilities: what its models can do at most; what the dialect cannot express is taken out.
        fim: how it fills in the middle, or None if it does not.
        fim_path: where, if not at the usual place of that style.
        embedding_extra: fields that it wants in every request for embeddings.
        image_rule: how it counts the tokens of pictures: ``openai``, ``anthropic``, ``gemini``,
            ``open_models`` (by the model card), ``by_model`` (a gateway to all of them), or None:
            all pictures are taken for equal.
        local: whether it usually runs on this machine; then discovery looks for it.
        owner: what it writes into ``owned_by`` of its models, in lower case, if that tells it from
            other programs on the same port.

    Raises:
        InvalidParameterError: it claims to fill in the middle, and does not say how.
    """

    id: str
    name: str = ""
    base_url: str | None = None
    key_variables: tuple[str, ...] = ()
    key_required: bool = True
    key_header: str | None = None
    base_url_variables: tuple[str, ...] = ()
    dialect: ChatDialect = ChatDialect()
    models_path: str | None = "/models"
    models: tuple[str, ...] = ()
    models_prefix: str = ""
    details_path: str | None = None
    details_key_header: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    header_variables: dict[str, str] = msgspec.field(default_factory=dict)
    capabilities: frozenset[Capability] = CHAT | EMBEDDINGS
    fim: FimStyle | None = None
    fim_path: str | None = None
    embedding_extra: dict[str, Any] = msgspec.field(default_factory=dict)
    image_rule: ImageRuleName | None = None
    local: bool = False
    owner: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            msgspec.structs.force_setattr(self, "name", self.id)
        if "fim" in self.capabilities and self.fim is None:
            raise InvalidParameterError(
                f"row {self.id!r} has the capability fim, but not the field fim",
                hint="say how it fills in the middle: fim='mistral', 'completions' or 'llamacpp'",
            )
        msgspec.structs.force_setattr(self, "capabilities", self._possible())

    def _possible(self) -> frozenset[Capability]:
        words: tuple[Capability, ...] = ("json_object", "json_schema", "files")
        possible = self.capabilities - {w for w in words if not getattr(self.dialect, w)}
        return possible if self.fim is None else possible | {"fim"}


def row_from(id: str, settings: Mapping[str, Any]) -> Row:
    """A row from a mapping, e.g. out of a settings file, with snake_case or camelCase keys.

    Args:
        id: kind of the provider.
        settings: fields of `Row`; ``dialect`` holds fields of `ChatDialect`.

    Raises:
        InvalidParameterError: a key is unknown (with the nearest known one), or a value is wrong.
        ConfigurationError: the address cannot be one.
    """
    row = from_mapping(Row, {**settings, "id": id}, f"provider {id!r}")
    if row.base_url is not None:
        check_base_url(row.base_url, f"base_url of provider {id!r}")
    return row
