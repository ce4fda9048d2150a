"""Services with models of their own that speak the OpenAI dialect, as rows of data.

Where a quirk does not come from the reference of the service itself, its source is beside it; rows
without a remark follow the dialect as it is.
"""

from __future__ import annotations

from ..wire.openai_chat import ChatDialect
from .row import NO_FILES, TEXT, WITH_EMBEDDINGS, Row

# Refuses unknown fields: it counts tokens unasked and calls the seed otherwise.  An effort is
# taken or none, and ids of tool calls are nine letters or digits.
_MISTRAL = ChatDialect(
    stream_usage=False,
    seed_name="random_seed",
    temperature_range=(0.0, 1.5),
    efforts=("none", "high"),
    tool_call_ids="alphanumeric_9",
    files=False,
)

SERVICES = (
    Row(
        id="mistral",
        name="Mistral",
        base_url="https://api.mistral.ai/v1",
        key_variables=("MISTRAL_API_KEY",),
        dialect=_MISTRAL,
        capabilities=WITH_EMBEDDINGS,
        fim="mistral",
    ),
    Row(
        id="codestral",
        name="Mistral Codestral",
        # Keys for this host work nowhere else, and others do not work here.
        base_url="https://codestral.mistral.ai/v1",
        key_variables=("CODESTRAL_API_KEY",),
        dialect=_MISTRAL,
        # Users contradict each other about a list of models on this host.
        models_path=None,
        models=("codestral-latest",),
        capabilities=TEXT - {"reasoning"},
        fim="mistral",
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
            forced_tool_choice_while_reasoning=False,
            stop_limit=16,
            json_schema=False,
            files=False,
        ),
        capabilities=TEXT,
        fim="completions",
        fim_path="/../beta/completions",
    ),
    Row(
        id="xai",
        name="xAI",
        base_url="https://api.x.ai/v1",
        key_variables=("XAI_API_KEY",),
        dialect=ChatDialect(max_tokens_name="max_completion_tokens", files=False),
        capabilities=NO_FILES,
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
        capabilities=NO_FILES - {"tools"},
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
        capabilities=NO_FILES,
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
            reasoning_sent_back="reasoning_content",
            temperature_range=(0.0, 1.0),
            forced_tool_choice=False,
            json_schema=False,
            stop_limit=1,
            files=False,
        ),
        capabilities=NO_FILES,
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
            reasoning_sent_back="think_tags",
            temperature_range=(0.01, 1.0),
            json_object=False,
            json_schema=False,
            files=False,
        ),
        models_path=None,
        models=("MiniMax-M2",),
        capabilities=TEXT,
    ),
    Row(
        id="dashscope",
        name="Qwen (DashScope)",
        base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        key_variables=("DASHSCOPE_API_KEY", "ALIBABA_API_KEY"),
        base_url_variables=("DASHSCOPE_BASE_URL",),
        dialect=ChatDialect(reasoning_input="enable_thinking", files=False),
        capabilities=WITH_EMBEDDINGS,
    ),
    Row(
        id="gemini",
        name="Google Gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        dialect=ChatDialect(stop_limit=5, files=False),
        capabilities=WITH_EMBEDDINGS,
        image_rule="gemini",
        # Limits stand in the list of its own API only, which takes the key in a header of its own
        # and refuses it in `authorization` (measured by users; so does having it in both).
        models_prefix="models/",
        details_path="/../models?pageSize=1000",
        details_key_header="x-goog-api-key",
    ),
    Row(
        id="inception",
        name="Inception",
        base_url="https://api.inceptionlabs.ai/v1",
        key_variables=("INCEPTION_API_KEY",),
        dialect=ChatDialect(files=False),
        capabilities=TEXT,
        fim="mistral",
    ),
    Row(
        id="cohere",
        name="Cohere",
        # Cohere Compatibility API; its list of models is the one of its own API.
        base_url="https://api.cohere.ai/compatibility/v1",
        key_variables=("CO_API_KEY", "COHERE_API_KEY"),
        models_path="/../../v1/models?page_size=1000",
        dialect=ChatDialect(
            efforts=("none", "high"), parallel_tool_calls=False, stop_limit=5, files=False
        ),
        capabilities=WITH_EMBEDDINGS,
    ),
)
