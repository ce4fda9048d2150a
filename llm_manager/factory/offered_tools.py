"""The tools of a question: functions that are called, or definitions that the caller keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ..errors import InvalidParameterError
from ..messages import LLMRequestOptions, ToolDefinition, as_options
from ..tools import Tool

RunnableTool: TypeAlias = Tool | Callable[..., Any]
"""A function that is called when the model asks for it."""
BareTool: TypeAlias = ToolDefinition | Mapping[str, Any]
"""A tool that only the caller can run."""


def sorted_tools(
    tools: Sequence[RunnableTool | BareTool] | None,
) -> tuple[list[RunnableTool] | None, tuple[ToolDefinition, ...]]:
    """Tools that we can run, or the definitions of those that we cannot.

    Raises:
        InvalidParameterError: one is no tool, or there are both sorts.
    """
    if tools is None:
        return None, ()
    functions: list[RunnableTool] = []
    bare: list[ToolDefinition] = []
    for tool in tools:
        if isinstance(tool, ToolDefinition):
            bare.append(tool)
        elif isinstance(tool, Mapping):
            bare.append(ToolDefinition.from_dict(tool))
        elif isinstance(tool, Tool) or callable(tool):
            functions.append(tool)
        else:
            raise InvalidParameterError(
                f"a tool must be a function, a Tool or a definition, got {tool!r:.60}"
            )
    if functions and bare:
        raise InvalidParameterError(
            f"{bare[0].name!r} is only a definition, while other tools have functions",
            hint="give it one, with Tool(function, definition)",
        )
    return functions or None, tuple(bare)


def options_with(
    definitions: tuple[ToolDefinition, ...], options: Mapping[str, Any]
) -> LLMRequestOptions | Mapping[str, Any]:
    """The options of a request that offers these tools.

    Raises:
        InvalidParameterError: an option is wrong.
    """
    if definitions:
        options = {**options, "tools": definitions}
    if options.get("tool_choice") is not None and not options.get("tools"):
        return options  # checked by `run_tools`, together with the functions
    return as_options(options)
