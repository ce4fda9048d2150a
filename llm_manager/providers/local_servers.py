"""Server programs of the OpenAI dialect that usually run on this machine, as rows of data.

Most give what a model can read with their list of models (``meta.n_ctx``, ``max_model_len``).
"""

from __future__ import annotations

from ..wire.openai_chat import ChatDialect
from .row import TEXT, Row


def _local(id: str, name: str, base_url: str, **more: object) -> Row:
    """A server program on this machine: no key needed, its address can be set."""
    variable = id.upper().replace("-", "_")
    more.setdefault("key_variables", (f"{variable}_API_KEY",))
    more.setdefault("dialect", ChatDialect(files=False))
    more.setdefault("image_rule", "open_models")
    return Row(
        id=id,
        name=name,
        base_url=base_url,
        key_required=False,
        base_url_variables=(f"{variable}_BASE_URL",),
        local=True,
        **more,  # type: ignore[arg-type]
    )


# 127.0.0.1 rather than localhost, which may resolve to IPv6, where many of them do not listen.
LOCAL_SERVERS = (
    _local(
        "lmstudio",
        "LM Studio",
        "http://127.0.0.1:1234/v1",
        key_variables=("LMSTUDIO_API_KEY", "LM_STUDIO_API_KEY", "LM_API_TOKEN"),
        # Limits, and what is loaded, stand in the list of its own API (LM Studio REST API).
        details_path="/../api/v0/models",
    ),
    _local(
        "llamacpp",
        "llama.cpp server",
        "http://127.0.0.1:8080/v1",
        owner="llamacpp",
        fim="llamacpp",
    ),
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
            parallel_tool_calls=False,
            json_object=False,
            json_schema=False,
            files=False,
        ),
        capabilities=TEXT - {"reasoning"},
    ),
    _local(
        "litellm-proxy",
        "LiteLLM proxy",
        "http://127.0.0.1:4000/v1",
        # Its list of models has no limits; this one has, in `model_info`.
        details_path="/model/info",
        image_rule="by_model",
        # Some of the services behind it want one system message, at the beginning.
        dialect=ChatDialect(one_system_message=True),
    ),
    # The server in it is the one of llama.cpp.
    _local("llamafile", "llamafile", "http://127.0.0.1:8080/v1", fim="llamacpp"),
    _local("lemonade", "Lemonade", "http://127.0.0.1:8000/api/v1", owner="lemonade"),
    _local("text-generation-webui", "text-generation-webui", "http://127.0.0.1:5000/v1"),
    _local("llama-stack", "Llama Stack", "http://127.0.0.1:8321/v1/openai/v1"),
    _local("msty", "Msty", "http://127.0.0.1:10000/v1"),
)
