"""Custom provider: a class for a service of one's own, registered, used, and failing properly.

The order: write the class, register it, use it, stream, map errors, check the configuration,
package it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from llm_manager import (
    AuthenticationError,
    BaseLLMProvider,
    ConfigurationError,
    ContextWindowExceededError,
    Delta,
    FinishDelta,
    InvalidParameterError,
    InvalidRequestError,
    LLMError,
    LLMModelInfo,
    LLMRequest,
    ModelCapability,
    ProviderAPIError,
    ProviderConnectionError,
    RateLimitError,
    RequestTimeoutError,
    TextDelta,
    create_llm,
    register_provider,
    run_sync,
    unregister_kind,
)
from llm_manager.config import ApiKey, check_base_url
from llm_manager.errors import ProviderError

from . import my_service
from .my_service import RIGHT_KEY, MyServiceClient

# ---- 1. the class --------------------------------------------------------------------------------

ERRORS: dict[type[Exception], type[ProviderError]] = {
    my_service.MyServiceAuthError: AuthenticationError,
    my_service.MyServiceRateLimitError: RateLimitError,
    my_service.MyServiceTimeoutError: RequestTimeoutError,
    my_service.MyServiceConnectionError: ProviderConnectionError,
    my_service.MyServiceContextLimitError: ContextWindowExceededError,
    my_service.MyServiceInvalidRequestError: InvalidRequestError,
}


@contextmanager
def my_service_errors() -> Iterator[None]:
    """Let only errors of this library out of a block that uses the SDK."""
    try:
        yield
        return
    except my_service.MyServiceError as error:
        kind = ERRORS.get(type(error), ProviderAPIError)
        failure = kind(
            f"MyService: {error}",
            original=repr(error),
            retry_after_s=getattr(error, "retry_after_s", None),
        )
    raise failure


class MyCustomProvider(BaseLLMProvider):
    """MyService, through its SDK.

    Args:
        api_key: default: the variable ``MYSERVICE_API_KEY``.
        api_base: where the service is.
        common: see `BaseLLMProvider`.
    """

    kind = "myservice"
    capabilities = frozenset({"chat"})

    def __init__(
        self,
        *,
        api_key: str | None = None,
        api_base: str = "https://api.myservice.com",
        **common: Any,
    ) -> None:
        common.setdefault("default_model", "default-model")
        super().__init__(**common)
        self._key = ApiKey(api_key, variables=["MYSERVICE_API_KEY"])
        self._api_base = check_base_url(api_base, "api_base")
        self._client: MyServiceClient | None = None

    async def _open(self) -> None:
        self._client = MyServiceClient(self._key.resolve() or "", self._api_base)

    async def _close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _list_models(self) -> Sequence[LLMModelInfo]:
        assert self._client is not None
        with my_service_errors():
            return [LLMModelInfo(id=name) for name in await self._client.models()]

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        assert self._client is not None
        with self._masked(request), my_service_errors():
            async for chunk in self._client.stream(
                model=request.model,
                messages=[{"role": m.role, "content": m.text} for m in request.messages],
                temperature=request.options.temperature,
                max_tokens=request.options.max_tokens,
            ):
                yield TextDelta(chunk.text)
        yield FinishDelta("stop")

    def _secrets(self) -> Sequence[str]:
        return self._key.known


# ---- 2. registered -------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def myservice(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(MyServiceClient, "calls", [], raising=False)
    register_provider("myservice", MyCustomProvider)
    yield
    unregister_kind("myservice")


# ---- 3. used -------------------------------------------------------------------------------------


def test_it_is_used_like_any_other_provider() -> None:
    with create_llm("myservice", api_key=RIGHT_KEY, model="large-model", temperature=0.7) as llm:
        response = llm.generate("Hello, world!", system_prompt="Be polite.")
    assert response == "Response from large-model for prompt: Hello, world! "
    (asked,) = MyServiceClient.calls
    assert [m["role"] for m in asked["messages"]] == ["system", "user"]
    assert (asked["temperature"], asked["max_tokens"]) == (0.7, None)


async def test_it_is_used_asynchronously_without_a_line_more() -> None:
    async with create_llm("myservice", api_key=RIGHT_KEY) as llm:
        response = await llm.generate_async("Hello!")
    assert response == "Response from default-model for prompt: Hello! "


def test_it_tells_what_it_can_do() -> None:
    with create_llm("myservice", api_key=RIGHT_KEY) as llm:
        capabilities = llm.get_capabilities()
    assert capabilities[ModelCapability.STREAMING] is True
    assert capabilities[ModelCapability.ASYNC] is True
    assert capabilities[ModelCapability.FUNCTION_CALLING] is False
    assert capabilities[ModelCapability.VISION] is False


# ---- streaming -----------------------------------------------------------------------------------


def test_it_streams_because_it_yields() -> None:
    with create_llm("myservice", api_key=RIGHT_KEY) as llm:
        chunks = list(llm.generate("Hello!", stream=True))
    assert chunks == ["Response ", "from ", "default-model ", "for ", "prompt: ", "Hello! "]


async def test_it_streams_to_a_task() -> None:
    async with create_llm("myservice", api_key=RIGHT_KEY) as llm:
        chunks = [chunk async for chunk in await llm.generate_async("Hello!", stream=True)]
    assert "".join(chunks).endswith("prompt: Hello! ")


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fails_with", "kind"),
    [(error.__name__, kind) for error, kind in ERRORS.items()]
    + [("MyServiceError", ProviderAPIError)],
)
def test_errors_of_the_sdk_are_ours(fails_with: str, kind: type[LLMError]) -> None:
    llm = create_llm("myservice", api_key=RIGHT_KEY, retries={"attempts": 1})
    with llm, pytest.raises(kind) as failed:
        llm.generate(f"fail with {fails_with}")
    assert failed.value.provider_id == "myservice"
    assert RIGHT_KEY not in repr(failed.value) + str(failed.value.original)


def test_an_error_that_may_pass_is_retried_and_one_that_will_not_is_not() -> None:
    how = {"retries": {"attempts": 2, "wait_s": 0, "retry_after_max_s": 10}}
    for fails_with, attempts in (("MyServiceConnectionError", 2), ("MyServiceAuthError", 1)):
        MyServiceClient.calls.clear()
        llm = create_llm("myservice", api_key=RIGHT_KEY, **how)
        with llm, pytest.raises(LLMError):
            llm.generate(f"fail with {fails_with}")
        assert len(MyServiceClient.calls) == attempts


# ---- configuration -------------------------------------------------------------------------------


def test_a_missing_key_is_an_error_that_says_what_to_do() -> None:
    with create_llm("myservice") as llm, pytest.raises(AuthenticationError) as missing:
        llm.generate("Hello!")
    assert "MYSERVICE_API_KEY" in str(missing.value.hint)


def test_the_key_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYSERVICE_API_KEY", RIGHT_KEY)
    with create_llm("myservice") as llm:
        assert llm.generate("Hello!")


def test_a_wrong_key_makes_the_status_say_so() -> None:
    with create_llm("myservice", api_key="a-wrong-key") as llm:
        with pytest.raises(AuthenticationError):
            run_sync(llm.provider.connect())
        assert (llm.provider.status.status, llm.provider.status.reason) == (
            "failed", "auth_invalid",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"api_base": "api.myservice.com"}, ConfigurationError),
        ({"temperature": 3}, InvalidParameterError),
        ({"api_bsae": "https://x"}, InvalidParameterError),
        ({"api_key": "with\nnewline"}, AuthenticationError),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_sent(wrong, kind) -> None:
    with pytest.raises(kind):
        create_llm("myservice", **wrong)


# ---- packaged ------------------------------------------------------------------------------------


def test_a_package_needs_one_line_to_bring_it_along() -> None:
    from importlib.metadata import EntryPoint

    # [project.entry-points."llm_manager.providers"] in its pyproject.toml:
    line = EntryPoint("myservice", f"{__name__}:MyCustomProvider", "llm_manager.providers")
    assert issubclass(line.load(), BaseLLMProvider)
