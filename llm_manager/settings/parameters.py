"""The names of settings and of capabilities, for those who like them better than texts."""

from __future__ import annotations

from enum import StrEnum

from ..messages import LLMCapabilities


class ModelParameter(StrEnum):
    """A setting of a provider, or of its requests; equal to its name as text.

    Each option of `LLMRequestOptions` that can be set once for many requests has the name that it
    has there.
    """

    MODEL = "model"
    API_KEY = "api_key"
    BASE_URL = "base_url"
    SYSTEM_PROMPT = "system_prompt"
    TIMEOUT = "timeout"
    """Of a whole request, in seconds: ``total_s`` of `Timeouts`."""

    TEMPERATURE = "temperature"
    MAX_TOKENS = "max_tokens"
    TOP_P = "top_p"
    PRESENCE_PENALTY = "presence_penalty"
    FREQUENCY_PENALTY = "frequency_penalty"
    STOP = "stop"
    SEED = "seed"
    TOOLS = "tools"
    TOOL_CHOICE = "tool_choice"
    PARALLEL_TOOL_CALLS = "parallel_tool_calls"
    RESPONSE_FORMAT = "response_format"
    REASONING_EFFORT = "reasoning_effort"
    TIMEOUTS = "timeouts"
    RETRIES = "retries"
    PROMPT_CACHE = "prompt_cache"
    PRIORITY = "priority"
    CONVERSATION_ID = "conversation_id"
    RESPONSE_CACHE = "response_cache"
    INCLUDE_RAW = "include_raw"
    EXTRA = "extra"


class ModelCapability(StrEnum):
    """Something that a provider or a model can do, or a limit of it."""

    STREAMING = "streaming"
    ASYNC = "async"
    SYSTEM_PROMPT = "system_prompt"
    MAX_TOKENS = "max_tokens"
    """How many tokens an answer may have: a number."""
    CONTEXT_WINDOW = "context_window"
    """How many tokens prompt and answer may have together: a number."""
    CHAT = "chat"
    COMPLETION = "completion"
    FUNCTION_CALLING = "function_calling"
    TOOL_USE = "tool_use"
    """The same as `FUNCTION_CALLING`."""
    VISION = "vision"
    FILES = "files"
    AUDIO = "audio"
    REASONING = "reasoning"
    JSON_MODE = "json_mode"
    JSON_SCHEMA = "json_schema"
    EMBEDDINGS = "embeddings"
    FILL_IN_THE_MIDDLE = "fill_in_the_middle"


# Of each, the feature of `LLMCapabilities` that tells it.
_FEATURES = {
    ModelCapability.CHAT: "chat",
    ModelCapability.COMPLETION: "completion",
    ModelCapability.FUNCTION_CALLING: "tools",
    ModelCapability.TOOL_USE: "tools",
    ModelCapability.VISION: "vision",
    ModelCapability.FILES: "files",
    ModelCapability.AUDIO: "audio",
    ModelCapability.REASONING: "reasoning",
    ModelCapability.JSON_MODE: "json_object",
    ModelCapability.JSON_SCHEMA: "json_schema",
    ModelCapability.EMBEDDINGS: "embeddings",
    ModelCapability.FILL_IN_THE_MIDDLE: "fim",
}


def model_capabilities(known: LLMCapabilities) -> dict[ModelCapability, bool | int | None]:
    """What ``known`` says of every `ModelCapability`; None where nobody knows.

    Every provider streams, works without blocking, and takes a system prompt where it chats: what
    its service lacks of that, this library does.
    """
    facts = {name: fact.supported for name, fact in known.features.items()}
    told: dict[ModelCapability, bool | int | None] = {
        capability: facts.get(feature) for capability, feature in _FEATURES.items()
    }
    return {
        ModelCapability.STREAMING: True,
        ModelCapability.ASYNC: True,
        ModelCapability.SYSTEM_PROMPT: told[ModelCapability.CHAT],
        ModelCapability.MAX_TOKENS: known.max_output_tokens,
        ModelCapability.CONTEXT_WINDOW: known.context_window_tokens,
        **told,
    }
