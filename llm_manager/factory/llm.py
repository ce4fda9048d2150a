"""`LLM`: one provider, one model, and the parameters of its requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from .._blocking import run_sync
from ..counting.trimming import StrategyName, trim_messages
from ..errors import InvalidParameterError
from ..messages import LLMMessage, LLMResponse, Messages, as_messages
from ..provider import BaseLLMProvider
from ..settings.parameters import ModelCapability, ModelParameter, model_capabilities
from .chat import ChatSession
from .generating import Generating
from .model import LLMModel
from .offered_tools import BareTool, RunnableTool
from .parameters import Config, RequestParameters, given_options, shown_setting, split
from .question import Attachment, Question, Trim


class LLM(Generating):
    """Text in, text out; made by `create_llm`.

    Works where no event loop runs, in a notebook, in a task, and from many threads at once.  Where
    a loop runs, `generate` holds it up until the answer is there; `generate_async` does not.
    ``with`` and ``async with`` close it at their end.

    Args:
        provider: who answers.
        parameters: of its requests: ``model``, ``system_prompt``, ``timeout``, and the options.
        owned: whether closing this closes the provider.

    Raises:
        InvalidParameterError: a parameter is unknown or its value wrong.

    Attributes:
        provider: who answers; its events, status and lifecycle are there.
        last_response: the answer that was complete last, with its token counts; None before.
            Where several threads or tasks ask at once it may be another's: theirs is at their
            stream, or comes from `LLMModel.generate_response`.
    """

    def __init__(
        self, provider: BaseLLMProvider, parameters: Config | None = None, *, owned: bool = False
    ) -> None:
        self.provider = provider
        self.last_response: LLMResponse | None = None
        self._parameters = RequestParameters(parameters)
        self._owned = owned

    def __repr__(self) -> str:
        return f"<LLM {self.model_name!r} of {self.provider!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as settings, if there is no key among them; see `BaseLLMProvider`."""
        return _unpickled, (self.provider, self._parameters.to_dict())

    @property
    def model_name(self) -> str | None:
        """Id of the model that is asked; None if none is chosen."""
        chosen: str | None = self._parameters.get(ModelParameter.MODEL)
        return chosen if chosen is not None else self.provider.active_model

    # ---- asking ----------------------------------------------------------------------------------

    def chat(
        self,
        system_prompt: str | None = None,
        *,
        messages: Messages | None = None,
        trim: Trim | StrategyName | None = None,
    ) -> ChatSession:
        """A conversation that remembers what was said.

        Args:
            system_prompt: how the model shall answer; None takes the one that is set now.
            messages: go on from these, e.g. from `ChatSession.messages` of an earlier session.
            trim: what to leave out when the conversation becomes too long for the model: the name
                of a strategy of `trim_messages`, or a function or coroutine function that gets the
                whole conversation and returns what is sent of it.  The session keeps all of it.
                None sends everything.

        Raises:
            InvalidParameterError: ``messages`` is no conversation, or there are two system prompts.
        """
        begun = as_messages(messages) if messages else ()
        if not begun or begun[0].role != "system":
            begun = (*self._system(system_prompt), *begun)
        elif system_prompt is not None:
            raise InvalidParameterError("messages begin with a system message already")
        chosen = self._trimming(trim) if isinstance(trim, str) else trim
        return ChatSession(self.question, begun, trim=chosen)

    def model(self, name: str | None = None, **parameters: Any) -> LLMModel:
        """A model of this provider to work with, with parameters of its own.

        Args:
            name: id of the model; None for the one that is set now.
            parameters: of its requests; what they leave open is as it is set here now.
        """
        here = self._parameters.to_dict()
        chosen = here.pop(ModelParameter.MODEL, None)
        return LLMModel(self.provider, name or chosen, {**here, **parameters})

    async def create_model(self, name: str, parameters: Config | None = None) -> LLMModel:
        """`model`, of a model that the provider is asked for first.

        Raises:
            ModelNotFoundError: the provider does not offer it; the text names similar ones.
            LLMError: the provider cannot be asked.
        """
        await self.provider.get_model_info(name)
        return self.model(name, **{str(key): value for key, value in (parameters or {}).items()})

    def question(
        self,
        prompt: str,
        *,
        before: Sequence[LLMMessage] = (),
        files: Sequence[Attachment] | None = None,
        tools: Sequence[RunnableTool | BareTool] | None = None,
        options: Mapping[str, Any] | None = None,
        trim: Trim | None = None,
        ended: Callable[[Question], None] | None = None,
    ) -> Question:
        """A question in the midst of a conversation, with the parameters that are set here."""
        given = dict(options or {})
        model = given.pop("model", None) or self._parameters.get(ModelParameter.MODEL)

        def completed(question: Question) -> None:
            self.last_response = question.response
            if ended is not None:
                ended(question)

        return Question(
            self.provider,
            model,
            before,
            prompt,
            files,
            self._parameters.options(given),
            tools,
            trim=trim,
            ended=completed,
        )

    def _asked(
        self,
        prompt: str,
        system_prompt: str | None,
        files: Sequence[Attachment] | None,
        tools: Sequence[RunnableTool] | Sequence[BareTool] | None,
        options: Mapping[str, Any],
    ) -> Question:
        return self.question(
            prompt, before=self._system(system_prompt), files=files, tools=tools, options=options
        )

    def _trimming(self, strategy: StrategyName) -> Trim:
        """Trims to the window of the model that is set at the time."""
        return lambda messages: trim_messages(
            messages,
            provider=self.provider,
            model=self.model_name,
            options=self._parameters.options(),
            strategy=strategy,
        )

    def _system(self, given: str | None) -> tuple[LLMMessage, ...]:
        text = given if given is not None else self._parameters.get(ModelParameter.SYSTEM_PROMPT)
        return (LLMMessage.system(text),) if text else ()

    # ---- what it is ------------------------------------------------------------------------------

    def get_capabilities(self) -> dict[ModelCapability, bool | int | None]:
        """What the model can do, and its limits; None where nobody knows.  Asks nobody.

        What a model can do is known once the provider's model list has been read, which happens
        when it connects, and if its service tells.  Who says so, and what the provider can do at
        most, is in ``provider.get_capabilities``.
        """
        return model_capabilities(self.provider.get_capabilities(self.model_name))

    def get_config(self) -> dict[str, Any]:
        """What holds for the next request: settings of the provider, and parameters, by their
        names; keys as ``***``."""
        _, given = self.provider._given
        secrets = self.provider._all_secrets()
        settings = {
            name: shown_setting(name, value, secrets)
            for name, value in given.items()
            if name not in ("default_model", "default_options", "timeouts")
        }
        defaults = given_options(self.provider.default_options)
        return {**settings, **defaults, **self._parameters.to_dict(), "model": self.model_name}

    def set_config(self, config: Config | None = None, **more: Any) -> None:
        """Change parameters, or settings of the provider, from the next request on.

        All of it is changed, or nothing if a value is wrong.

        Args:
            config: by name; None takes a parameter back.
            more: the same, as keywords.

        Raises:
            InvalidParameterError: there is no such setting, or its value is wrong.
            LLMError: what `BaseLLMProvider.update_config` raises.
        """
        parameters, settings = split({**(config or {}), **more})
        RequestParameters(self._parameters.to_dict()).update(parameters)  # so that all is well
        if settings:
            run_sync(self.provider.update_config(**settings), even_on_loop=True)
        self._parameters.update(parameters)

    # ---- lifecycle -------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the provider, if it was made for this; does nothing otherwise.  Idempotent."""
        run_sync(self.aclose(), even_on_loop=True)

    async def aclose(self) -> None:
        """`close`, for a task."""
        if self._owned:
            await self.provider.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


def _unpickled(provider: BaseLLMProvider, parameters: Config) -> LLM:
    return LLM(provider, parameters, owned=True)
