"""`create_llm`: an `LLM` of a kind of provider and its settings, in one call."""

from __future__ import annotations

from typing import Any, TypeAlias

from ..errors import InvalidParameterError
from ..manager import LLMProviderManager
from ..provider import BaseLLMProvider
from ..registry import create_provider
from .llm import LLM
from .parameters import Config, RequestParameters, advice, split

Kind: TypeAlias = str | type[BaseLLMProvider] | BaseLLMProvider


def create_llm(
    kind: Kind,
    config: Config | None = None,
    /,
    *,
    manager: LLMProviderManager | None = None,
    **more: Any,
) -> LLM:
    """A language model to talk to, in one call::

        llm = create_llm("openai", model="gpt-5", temperature=0.2)
        print(llm.generate("Why is the sky blue?"))

    Nothing is connected before the first request.

    Args:
        kind: id of a kind of provider (``"openai"``) or of a provider that has settings of its own
            (``"work-openai"``), a provider class, or a provider, which is then shared with whoever
            else uses it.
        config: what the provider's constructor takes, and the parameters of requests by their
            common names: ``model``, ``system_prompt``, ``timeout``, ``temperature``,
            ``max_tokens``, ...; as texts or as `ModelParameter`.
        manager: registers the provider there, which closes it in the end.
        more: the same as ``config``, as keywords; they are stronger.

    Raises:
        ProviderNotFoundError: there is no such kind; the text names similar ones.
        InvalidParameterError: a setting is unknown or wrong; or there are settings for a provider
            that exists already, or one of that id in the manager.
        LLMError: what the provider's constructor raises.
    """
    parameters, settings = split({**(config or {}), **more})
    RequestParameters(parameters)  # so that nothing is made, and registered, in vain
    provider = _provider(kind, settings, parameters.get("model"), manager)
    made_here = provider is not kind
    return LLM(provider, parameters, owned=made_here and manager is None)


def _provider(
    kind: Kind, settings: dict[str, Any], model: str | None, manager: LLMProviderManager | None
) -> BaseLLMProvider:
    if isinstance(kind, BaseLLMProvider):
        if settings:
            raise InvalidParameterError(
                f"{', '.join(settings)} cannot be given for a provider that exists already",
                hint="use its update_config(), or LLM.set_config()",
            )
        if manager is not None and manager.providers.get(kind.id) is not kind:
            manager.register_provider(kind)
        return kind
    if model is not None:
        settings.setdefault("default_model", model)
    try:
        if manager is not None:
            return manager.register_provider(kind, **settings)
        return create_provider(kind, **settings)
    except InvalidParameterError as error:
        near = (advice(name) for name in settings if f"'{name}'" in error.message)
        error.hint = error.hint or next(filter(None, near), None)
        raise
