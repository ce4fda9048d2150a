"""Servers that speak the OpenAI dialect, as rows of data.

What belongs here: addresses, names of environment variables, and quirks that `ChatDialect` can
express.  What does not: code.  A server that needs code gets a file of its own.

Where a quirk comes from is said beside it; rows without a remark follow the dialect as it is.
"""

from __future__ import annotations

from ..messages import Capability, Data
from ..wire.openai_chat import ChatDialect

CHAT: frozenset[Capability] = frozenset(
    {"chat", "completion", "tools", "vision", "files", "reasoning", "json_object", "json_schema"}
)


class Row(Data, frozen=True, kw_only=True):
    """What is known about one service or server program.

    Attributes:
        id: kind of the provider.
        name: name to show to people.
        base_url: where requests go, without ``/chat/completions``; None: the user has to say.
        key_variables: environment variables that may hold the key, in the order of asking.
        key_required: whether requests without a key make no sense.
        base_url_variables: environment variables that may hold another address.
        dialect: its quirks.
        models_path: where it lists its models, or None if it does not.
        models: ids to offer if it lists none.
        headers: sent with every request, as ``(name, value)``.
        capabilities: what its models can do at most.
        local: whether it usually runs on this machine; then discovery looks for it.
        owner: what it writes into ``owned_by`` of its models, in lower case, if that tells it from
            other programs on the same port.
    """

    id: str
    name: str
    base_url: str | None = None
    key_variables: tuple[str, ...] = ()
    key_required: bool = True
    base_url_variables: tuple[str, ...] = ()
    dialect: ChatDialect = ChatDialect()
    models_path: str | None = "/models"
    models: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    capabilities: frozenset[Capability] = CHAT
    local: bool = False
    owner: str | None = None


def _local(id: str, name: str, base_url: str, **more: object) -> Row:
    """A server program on this machine: no key needed, its address can be set."""
    variable = id.upper().replace("-", "_")
    return Row(
        id=id,
        name=name,
        base_url=base_url,
        key_variables=(f"{variable}_API_KEY",),
        key_required=False,
        base_url_variables=(f"{variable}_BASE_URL",),
        local=True,
        **more,  # type: ignore[arg-type]
    )


_TEXT = CHAT - {"vision", "files"}
_NO_FILES = CHAT - {"files"}

_ALL = (
    Row(
        id="compatible",
        name="OpenAI-compatible server",
        key_required=False,
    ),
    # ---- services --------------------------------------------------------------------------------
    Row(
        id="openai",
        name="OpenAI",
        base_url="https://api.openai.com/v1",
        key_variables=("OPENAI_API_KEY",),
        base_url_variables=("OPENAI_BASE_URL",),
        # `max_tokens` is refused by its reasoning models; four stop texts at most.
        dialect=ChatDialect(max_tokens_name="max_completion_tokens", stop_limit=4),
    ),
    Row(
        id="groq",
        name="Groq",
        base_url="https://api.groq.com/openai/v1",
        key_variables=("GROQ_API_KEY",),
        base_url_variables=("GROQ_BASE_URL",),
        # Usage comes in `x_groq` without being asked for; no JSON answers while streaming.
        dialect=ChatDialect(
            max_tokens_name="max_completion_tokens",
            stream_usage=False,
            stream_with_response_format=False,
            stop_limit=4,
            files=False,
        ),
        capabilities=_NO_FILES,
    ),
    Row(
        id="openrouter",
        name="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        key_variables=("OPENROUTER_API_KEY",),
        dialect=ChatDialect(
            reasoning_input="openrouter", reasoning_sent_back="reasoning", file_urls=True
        ),
    ),
    Row(
        id="mistral",
        name="Mistral",
        base_url="https://api.mistral.ai/v1",
        key_variables=("MISTRAL_API_KEY",),
        # Refuses unknown fields: it counts tokens unasked and calls the seed otherwise.
        dialect=ChatDialect(
            stream_usage=False,
            seed_name="random_seed",
            temperature_range=(0.0, 1.5),
            files=False,
        ),
        capabilities=_NO_FILES,
    ),
    Row(
        id="deepseek",
        name="DeepSeek",
        base_url="https://api.deepseek.com",
        key_variables=("DEEPSEEK_API_KEY",),
        # Reasoning has to go back with tool calls, or the next request is refused.
        dialect=ChatDialect(
            reasoning_sent_back="reasoning_content",
            reasoning_input="thinking",
            stop_limit=16,
            json_schema=False,
            files=False,
        ),
        capabilities=_TEXT - {"json_schema"},
    ),
    Row(
        id="together",
        name="Together AI",
        base_url="https://api.together.xyz/v1",
        key_variables=("TOGETHER_API_KEY",),
        dialect=ChatDialect(files=False),
        capabilities=_NO_FILES,
    ),
    Row(
        id="fireworks",
        name="Fireworks AI",
        base_url="https://api.fireworks.ai/inference/v1",
        key_variables=("FIREWORKS_API_KEY",),
        dialect=ChatDialect(files=False),
        capabilities=_NO_FILES,
    ),
    Row(
        id="xai",
        name="xAI",
        base_url="https://api.x.ai/v1",
        key_variables=("XAI_API_KEY",),
        dialect=ChatDialect(max_tokens_name="max_completion_tokens", files=False),
        capabilities=_NO_FILES,
    ),
    Row(
        id="perplexity",
        name="Perplexity",
        base_url="https://api.perplexity.ai",
        key_variables=("PERPLEXITY_API_KEY",),
        # No list of models; no tools of the caller's.
        dialect=ChatDialect(json_object=False, stop_limit=4, files=False),
        models_path=None,
        models=("sonar", "sonar-pro", "sonar-reasoning-pro", "sonar-deep-research"),
        capabilities=_NO_FILES - {"tools", "json_object"},
    ),
    Row(
        id="nvidia",
        name="NVIDIA NIM",
        base_url="https://integrate.api.nvidia.com/v1",
        key_variables=("NVIDIA_API_KEY",),
        dialect=ChatDialect(stop_limit=4, files=False),
        capabilities=_NO_FILES,
    ),
    Row(
        id="cerebras",
        name="Cerebras",
        base_url="https://api.cerebras.ai/v1",
        key_variables=("CEREBRAS_API_KEY",),
        dialect=ChatDialect(max_tokens_name="max_completion_tokens", stop_limit=4, files=False),
        capabilities=_TEXT,
    ),
    Row(
        id="sambanova",
        name="SambaNova",
        base_url="https://api.sambanova.ai/v1",
        key_variables=("SAMBANOVA_API_KEY",),
        # Reasoning arrives as tags in the text.
        dialect=ChatDialect(think_tags=True, files=False),
        capabilities=_NO_FILES,
    ),
    Row(
        id="moonshot",
        name="Moonshot AI",
        base_url="https://api.moonshot.ai/v1",
        key_variables=("MOONSHOT_API_KEY", "MOONSHOTAI_API_KEY"),
        base_url_variables=("MOONSHOT_BASE_URL",),
        dialect=ChatDialect(
            forced_tool_choice=False,
            reasoning_input="thinking",
            reasoning_sent_back="reasoning_content",
            temperature_range=(0.0, 1.0),
            stop_limit=5,
            files=False,
        ),
        capabilities=_NO_FILES,
    ),
    Row(
        id="zai",
        name="Z.AI",
        # The version in the path is 4, not 1.
        base_url="https://api.z.ai/api/paas/v4",
        key_variables=("ZAI_API_KEY",),
        base_url_variables=("ZAI_BASE_URL",),
        dialect=ChatDialect(
            reasoning_input="thinking",
            temperature_range=(0.0, 1.0),
            forced_tool_choice=False,
            json_schema=False,
            stop_limit=1,
            files=False,
        ),
        capabilities=_NO_FILES - {"json_schema"},
    ),
    Row(
        id="minimax",
        name="MiniMax",
        base_url="https://api.minimax.io/v1",
        key_variables=("MINIMAX_API_KEY",),
        base_url_variables=("MINIMAX_BASE_URL",),
        # Reasoning as tags in the text, temperature above 0 up to 1, no list of models.
        dialect=ChatDialect(
            think_tags=True,
            reasoning_input=None,
            temperature_range=(0.01, 1.0),
            json_object=False,
            json_schema=False,
            files=False,
        ),
        models_path=None,
        models=("MiniMax-M2",),
        capabilities=_TEXT - {"json_object", "json_schema"},
    ),
    Row(
        id="dashscope",
        name="Qwen (DashScope)",
        base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        key_variables=("DASHSCOPE_API_KEY", "ALIBABA_API_KEY"),
        base_url_variables=("DASHSCOPE_BASE_URL",),
        dialect=ChatDialect(reasoning_input="enable_thinking", files=False),
        capabilities=_NO_FILES,
    ),
    Row(
        id="deepinfra",
        name="DeepInfra",
        base_url="https://api.deepinfra.com/v1/openai",
        key_variables=("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"),
        dialect=ChatDialect(files=False),
        capabilities=_NO_FILES,
    ),
    Row(
        id="gemini",
        name="Google Gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        dialect=ChatDialect(stop_limit=5, files=False),
        capabilities=_NO_FILES,
    ),
    Row(
        id="huggingface-router",
        name="Hugging Face router",
        base_url="https://router.huggingface.co/v1",
        key_variables=("HF_TOKEN",),
        dialect=ChatDialect(files=False),
        capabilities=_NO_FILES,
    ),
    Row(
        id="vercel",
        name="Vercel AI Gateway",
        base_url="https://ai-gateway.vercel.sh/v1",
        key_variables=("AI_GATEWAY_API_KEY", "VERCEL_AI_GATEWAY_API_KEY", "VERCEL_OIDC_TOKEN"),
    ),
    # ---- server programs on this machine ---------------------------------------------------------
    # 127.0.0.1 rather than localhost, which may resolve to IPv6, where many of them do not listen.
    _local("lmstudio", "LM Studio", "http://127.0.0.1:1234/v1"),
    _local("llamacpp", "llama.cpp server", "http://127.0.0.1:8080/v1", owner="llamacpp"),
    _local("vllm", "vLLM", "http://127.0.0.1:8000/v1", owner="vllm"),
    _local(
        "docker-model-runner",
        "Docker Model Runner",
        "http://127.0.0.1:12434/engines/v1",
        owner="docker",
    ),
    _local(
        "transformers-serve",
        "transformers serve",
        "http://127.0.0.1:8000/v1",
        # Streams end with a finish reason but without `[DONE]`, unknown fields are refused, and the
        # list of models fails without a network.
        models_path=None,
        dialect=ChatDialect(
            reasoning_input=None,
            json_object=False,
            json_schema=False,
            files=False,
        ),
        capabilities=_TEXT - {"json_object", "json_schema", "reasoning"},
    ),
    _local("litellm-proxy", "LiteLLM proxy", "http://127.0.0.1:4000/v1"),
)

ROWS: dict[str, Row] = {row.id: row for row in _ALL}
"""All rows by id; `llm_manager.register_provider` adds to it."""
