"""Tools: functions that a model may call, and the loop that calls them.

::

    run_tools(provider, model, messages, tools)
       │   ask the model ─► ToolCallRequest ─► check, approve, run ─► results ─┐
       │        ▲                                                              │
       │        └──────────────────────────────────────────────────────────────┘
       ▼
    ToolRun: the final answer, the whole conversation, every call

`Tool` is a definition with its function, ``calls`` runs one call, ``results`` turns what a function
returns into what a model reads, ``loop`` is the loop.
"""

from __future__ import annotations

from .loop import run_tools
from .records import ToolCallRecord, ToolCallRequest, ToolRun
from .tool import Tool

__all__ = ["Tool", "ToolCallRecord", "ToolCallRequest", "ToolRun", "run_tools"]
