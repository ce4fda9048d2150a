"""Calls of tools in the words of the GenAI conventions; source: as in `genai`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .genai_content import Content
from .trace_provider import Attribute

if TYPE_CHECKING:
    from ..tools.records import ToolCallRecord


def tool_span_name(record: ToolCallRecord) -> str:
    return f"execute_tool {record.call.name}" if _exists(record) else "execute_tool"


def tool_attributes(record: ToolCallRecord, content: Content | None) -> dict[str, Attribute]:
    """What is known about a call that has ended; what was said in it only with ``content``."""
    attributes: dict[str, Attribute] = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.call.id": record.call.id,
        "gen_ai.tool.type": "function",
        "llm_manager.tool.round": record.round,
    }
    if _exists(record) or content is not None:
        attributes["gen_ai.tool.name"] = record.call.name
    if content is not None:
        attributes.update(content.of_tool_call(record.call, record.content))
    if record.outcome != "ok":
        attributes["error.type"] = record.outcome
    return attributes


def _exists(record: ToolCallRecord) -> bool:
    """Whether there is such a tool; otherwise the model made its name up: words, not a fact."""
    return record.outcome != "unknown_tool"
