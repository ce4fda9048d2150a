"""The vocabulary: what goes in, what comes out, what a model is.

Pure data, no I/O.  Every type is an immutable `msgspec.Struct`: Python reads ``snake_case``, JSON
says ``camelCase`` (`to_dict`, `msgspec.json.encode`).  A value that cannot be right is refused when
the object is built, so that nothing later has to check again.

::

    LLMMessage + LLMRequestOptions -> LLMRequest -> Delta ... -> LLMStreamEvent ... -> LLMResponse
"""

from __future__ import annotations

from .answers import FinishReason, LLMEmbeddings, LLMResponse, Timings, TokenCount, Usage
from .conversation import (
    FilePart,
    HasPart,
    ImagePart,
    LLMMessage,
    Messages,
    OpaquePart,
    Part,
    PromptCache,
    Role,
    TextPart,
    ToolCall,
    as_messages,
)
from .data import Data, from_mapping, merged, types_of
from .deltas import (
    Delta,
    FinishDelta,
    KeepAliveDelta,
    LLMStreamEvent,
    MetaDelta,
    PartDelta,
    RawDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageDelta,
    VectorsDelta,
)
from .models import Capability, CapabilityFact, LLMCapabilities, LLMModelInfo, ModelPrice
from .options import (
    NO_OPTIONS,
    LLMRequest,
    LLMRequestOptions,
    Operation,
    Priority,
    ReasoningEffort,
    ResponseCache,
    Retries,
    Timeouts,
    ToolDefinition,
    as_options,
)

__all__ = [
    "NO_OPTIONS",
    "Capability",
    "CapabilityFact",
    "Data",
    "Delta",
    "FilePart",
    "FinishDelta",
    "FinishReason",
    "HasPart",
    "ImagePart",
    "KeepAliveDelta",
    "LLMCapabilities",
    "LLMEmbeddings",
    "LLMMessage",
    "LLMModelInfo",
    "LLMRequest",
    "LLMRequestOptions",
    "LLMResponse",
    "LLMStreamEvent",
    "Messages",
    "MetaDelta",
    "ModelPrice",
    "OpaquePart",
    "Operation",
    "Part",
    "PartDelta",
    "Priority",
    "PromptCache",
    "RawDelta",
    "ReasoningDelta",
    "ReasoningEffort",
    "ResponseCache",
    "Retries",
    "Role",
    "TextDelta",
    "TextPart",
    "Timeouts",
    "Timings",
    "TokenCount",
    "ToolCall",
    "ToolCallDelta",
    "ToolDefinition",
    "Usage",
    "UsageDelta",
    "VectorsDelta",
    "as_messages",
    "as_options",
    "from_mapping",
    "merged",
    "types_of",
]
