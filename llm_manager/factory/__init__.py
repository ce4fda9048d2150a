"""The short way: `create_llm`, and text in, text out.

::

    create_llm(kind, ...)  ->  LLM  ── generate() ───────►  text, or a TextStream
       creating.py             llm.py  chat()     ───────►  ChatSession     chat.py
                                       model()    ───────►  LLMModel        model.py
                                 │
                                 ▼
                      Question: what is asked, and how     question.py

All of it only uses a provider; events, status, policies and metrics are the provider's.  What this
package must not do: a second version of anything for synchronous callers.  They wait for the one
version, on the loop behind `run_sync`.
"""

from __future__ import annotations

from .chat import ChatSession
from .creating import create_llm
from .llm import LLM
from .model import LLMModel
from .streams import AsyncTextStream, TextStream

__all__ = ["LLM", "AsyncTextStream", "ChatSession", "LLMModel", "TextStream", "create_llm"]
