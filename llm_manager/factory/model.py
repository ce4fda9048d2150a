"""One model of a provider, with parameters of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ..messages import (
    LLMMessage,
    LLMRequestOptions,
    LLMResponse,
    Messages,
    TokenCount,
    as_messages,
    as_options,
)
from ..provider import BaseLLMProvider
from ..settings.parameters import ModelParameter
from ..tokens import estimate_text_tokens
from .parameters import Config, RequestParameters


class LLMModel:
    """A model to work with: conversations in, whole answers out.

    Args:
        provider: who offers the model.
        name: id of the model; None for the one that is active at the provider, whichever that is
            at the time.
        parameters: options of every request (``temperature``, ``max_tokens``, ...), and
            ``system_prompt`` for conversations that have none.

    Raises:
        InvalidParameterError: a parameter is unknown or its value wrong.
    """

    def __init__(
        self,
        provider: BaseLLMProvider,
        name: str | None = None,
        parameters: Config | None = None,
    ) -> None:
        self.provider = provider
        self._name = name
        self._parameters = RequestParameters(parameters, model=False)

    def __repr__(self) -> str:
        return f"<LLMModel {self.name!r} of {self.provider.id!r}>"

    @property
    def name(self) -> str | None:
        """Id of the model, or None if the provider has no active one."""
        return self._name if self._name is not None else self.provider.active_model

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters by their names."""
        return self._parameters.to_dict()

    def update_parameters(self, parameters: Config) -> None:
        """Change parameters of later requests: all of them, or none if one is wrong.

        Args:
            parameters: by name; None takes one back.

        Raises:
            InvalidParameterError: one is unknown or its value wrong.
        """
        self._parameters.update(parameters)

    async def generate_response(self, messages: Messages, **parameters: Any) -> LLMResponse:
        """Answer a conversation; see `BaseLLMProvider.generate_chat_completion`.

        Args:
            messages: text, one message, or several.
            parameters: for this request only.
        """
        return await self.provider.generate_chat_completion(
            self._name, self._with_system_prompt(messages), self._options(parameters)
        )

    async def stream_response(
        self, messages: Messages, **parameters: Any
    ) -> AsyncGenerator[str, None]:
        """The text of the answer as it comes; closing the generator closes the connection."""
        async with self.provider.stream_chat_completion(
            self._name, self._with_system_prompt(messages), self._options(parameters)
        ) as stream:
            async for event in stream:
                if event.kind == "text":
                    yield event.text

    async def count(self, messages: Messages) -> TokenCount:
        """How many tokens a conversation has, and how exactly that is known; costs nothing.

        Raises:
            InvalidParameterError: it is no conversation.
            ProviderError: the provider could not be asked.
        """
        return await self.provider.count_tokens(
            self._name, self._with_system_prompt(messages), self._options()
        )

    async def get_prompt_tokens(self, messages: Messages) -> int:
        """How many tokens a conversation has; `count` tells how exactly that is known."""
        return (await self.count(messages)).tokens

    async def count_tokens(self, text: str) -> int:
        """How many tokens ``text`` has, sent as a message of its own."""
        return (await self.provider.count_tokens(self._name, text)).tokens if text else 0

    async def get_completion_tokens(self, response: LLMResponse | LLMMessage) -> int:
        """How many tokens an answer has: as its service counted, otherwise an estimate."""
        usage = response.usage if isinstance(response, LLMResponse) else None
        if usage is not None:
            return usage.completion_tokens
        calls = (call.arguments_json for call in response.tool_calls)
        return sum(map(estimate_text_tokens, (response.text, response.reasoning or "", *calls)))

    def _options(self, parameters: Config | None = None) -> LLMRequestOptions:
        return as_options(self._parameters.options(parameters))

    def _with_system_prompt(self, messages: Messages) -> tuple[LLMMessage, ...]:
        given = as_messages(messages)
        prompt = self._parameters.get(ModelParameter.SYSTEM_PROMPT)
        if not prompt or given[0].role == "system":
            return given
        return (LLMMessage.system(prompt), *given)
