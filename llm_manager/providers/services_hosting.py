"""Services that run the models of others, and gateways to them, as rows of data.

Where a quirk does not come from the reference of the service itself, its source is beside it; rows
without a remark follow the dialect as it is.
"""

from __future__ import annotations

from ..wire.openai_chat import ChatDialect
from .row import CHAT, EMBEDDINGS, NO_FILES, TEXT, WITH_EMBEDDINGS, Row

_PLAIN = ChatDialect(files=False)


def _plain(id: str, name: str, base_url: str, key_variable: str, **more: object) -> Row:
    """A service without quirks: chat, images, no files."""
    more.setdefault("dialect", _PLAIN)
    more.setdefault("capabilities", NO_FILES)
    more.setdefault("image_rule", "open_models")
    return Row(id=id, name=name, base_url=base_url, key_variables=(key_variable,), **more)  # type: ignore[arg-type]


_HOSTS = (
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
        capabilities=NO_FILES,
    ),
    _plain(
        "together", "Together AI", "https://api.together.xyz/v1", "TOGETHER_API_KEY",
        capabilities=WITH_EMBEDDINGS,
    ),
    _plain(
        "fireworks", "Fireworks AI", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY",
        capabilities=WITH_EMBEDDINGS,
    ),
    Row(
        id="nvidia",
        name="NVIDIA NIM",
        base_url="https://integrate.api.nvidia.com/v1",
        key_variables=("NVIDIA_API_KEY",),
        dialect=ChatDialect(stop_limit=4, files=False),
        capabilities=WITH_EMBEDDINGS,
        # Refuses embeddings without it; for texts that are searched, `extra` says "passage".
        embedding_extra={"input_type": "query"},
    ),
    Row(
        id="cerebras",
        name="Cerebras",
        base_url="https://api.cerebras.ai/v1",
        key_variables=("CEREBRAS_API_KEY",),
        # Of its models, GLM wants its reasoning back, as tags in the text.
        dialect=ChatDialect(
            max_tokens_name="max_completion_tokens",
            reasoning_sent_back="think_tags",
            reasoning_sent_back_to=("glm",),
            stop_limit=4,
            files=False,
        ),
        capabilities=TEXT,
    ),
    Row(
        id="sambanova",
        name="SambaNova",
        base_url="https://api.sambanova.ai/v1",
        key_variables=("SAMBANOVA_API_KEY",),
        # Reasoning arrives as tags in the text.
        dialect=ChatDialect(think_tags=True, files=False),
        capabilities=WITH_EMBEDDINGS,
    ),
    Row(
        id="deepinfra",
        name="DeepInfra",
        base_url="https://api.deepinfra.com/v1/openai",
        key_variables=("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"),
        dialect=_PLAIN,
        capabilities=WITH_EMBEDDINGS,
    ),
    _plain(
        "nebius", "Nebius Token Factory",
        # Formerly api.studio.nebius.ai; the new host is the one of its documentation.
        "https://api.tokenfactory.nebius.com/v1", "NEBIUS_API_KEY",
        capabilities=WITH_EMBEDDINGS,
    ),
    _plain(
        "novita", "Novita AI",
        # Formerly /v3/openai; the new path is the one of its documentation.
        "https://api.novita.ai/openai/v1", "NOVITA_API_KEY",
        capabilities=WITH_EMBEDDINGS,
    ),
    Row(
        id="siliconflow",
        name="SiliconFlow",
        # The international host is api.siliconflow.com.
        base_url="https://api.siliconflow.cn/v1",
        key_variables=("SILICONFLOW_API_KEY",),
        base_url_variables=("SILICONFLOW_BASE_URL",),
        dialect=ChatDialect(reasoning_input="enable_thinking", files=False),
        capabilities=WITH_EMBEDDINGS,
        fim="completions",
    ),
    _plain(
        "scaleway", "Scaleway", "https://api.scaleway.ai/v1", "SCW_SECRET_KEY",
        capabilities=WITH_EMBEDDINGS,
    ),
    _plain(
        "ovhcloud", "OVHcloud AI Endpoints",
        "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1", "OVHCLOUD_API_KEY",
        capabilities=WITH_EMBEDDINGS,
    ),
    Row(
        id="venice",
        name="Venice",
        base_url="https://api.venice.ai/api/v1",
        key_variables=("VENICE_API_KEY", "VENICE_AI_API_KEY"),
        dialect=_PLAIN,
        capabilities=WITH_EMBEDDINGS,
    ),
    _plain("hyperbolic", "Hyperbolic", "https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY"),
    _plain("nscale", "Nscale", "https://inference.api.nscale.com/v1", "NSCALE_API_KEY"),
    _plain("featherless", "Featherless AI", "https://api.featherless.ai/v1", "FEATHERLESS_API_KEY"),
)  # fmt: skip

_GATEWAYS = (
    Row(
        id="openrouter",
        name="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        key_variables=("OPENROUTER_API_KEY",),
        dialect=ChatDialect(
            reasoning_input="openrouter", reasoning_sent_back="reasoning", file_urls=True
        ),
        capabilities=CHAT | EMBEDDINGS,
        image_rule="by_model",
        # How it names the application in its statistics.
        header_variables={
            "HTTP-Referer": "OPENROUTER_APP_URL",
            "X-Title": "OPENROUTER_APP_TITLE",
        },
    ),
    _plain(
        "huggingface-router", "Hugging Face router",
        "https://router.huggingface.co/v1", "HF_TOKEN",
    ),
    Row(
        id="vercel",
        name="Vercel AI Gateway",
        base_url="https://ai-gateway.vercel.sh/v1",
        key_variables=("AI_GATEWAY_API_KEY", "VERCEL_AI_GATEWAY_API_KEY", "VERCEL_OIDC_TOKEN"),
        capabilities=CHAT | EMBEDDINGS,
        image_rule="by_model",
    ),
    _plain(
        "requesty", "Requesty", "https://router.requesty.ai/v1", "REQUESTY_API_KEY",
        capabilities=WITH_EMBEDDINGS,
        image_rule="by_model",
    ),
    _plain(
        "portkey", "Portkey", "https://api.portkey.ai/v1", "PORTKEY_API_KEY",
        # `authorization` would be the key of the service behind it.
        key_header="x-portkey-api-key",
        capabilities=WITH_EMBEDDINGS,
        image_rule="by_model",
    ),
    _plain(
        "helicone", "Helicone AI Gateway",
        "https://ai-gateway.helicone.ai/v1", "HELICONE_API_KEY",
        image_rule="by_model",
    ),
)  # fmt: skip

HOSTING_SERVICES = (*_HOSTS, *_GATEWAYS)
