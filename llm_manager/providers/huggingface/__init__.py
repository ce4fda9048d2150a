"""Models on this machine, run by transformers in a process of their own."""

from .provider import HuggingFaceProvider

__all__ = ["HuggingFaceProvider"]
