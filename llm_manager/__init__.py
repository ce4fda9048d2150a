"""An evented manager for LLM providers with a connection lifecycle.

::

    from llm_manager import LLMProviderManager

    manager = LLMProviderManager.get_instance()
    provider = manager.register_provider("ollama")
    provider.subscribe(lambda event: print(event.current.status))
    await provider.connect()
    async for event in manager.stream_completion("ollama/llama3.2", "Why is the sky blue?"):
        print(event.text, end="")

Importing this package loads nothing but names; each is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "manager": ("LLMProviderManager", "ManagerSnapshot", "ProviderSnapshot"),
    "provider": ("BaseLLMProvider", "default_policies"),
    "stream": ("LLMStream",),
    "registry": (
        "register_provider",
        "create_provider",
        "unregister_kind",
        "kinds",
        "Settings",
        "set_provider_config",
        "get_settings",
        "reset_settings",
        "follow_settings",
    ),
    "discovery": ("discover", "Discovered"),
    "supervisor": ("Backoff",),
    "_blocking": ("run_sync",),
    "config": ("Secret", "ApiKey", "check_base_url"),
    "emitter": ("EventEmitter",),
    "subscription": ("Subscription",),
    "events": (
        "Event",
        "StatusChanged",
        "ReconnectScheduled",
        "ModelsChanged",
        "ModelChanged",
        "ModelLoadProgress",
        "ModelLoaded",
        "ModelUnloaded",
        "HealthCheck",
        "RequestStarted",
        "RequestFinished",
        "RetryScheduled",
        "ErrorOccurred",
        "ListenerFailed",
        "ProviderAdded",
        "ProviderRemoved",
        "ActiveProviderChanged",
        "RequestQueued",
        "StreamStalled",
        "ConfigChanged",
        "SystemResumed",
    ),
    "status": ("ProviderStatus", "LLMProviderStatus", "Reason", "ErrorInfo", "RateLimits"),
    "messages": (
        "LLMMessage",
        "TextPart",
        "ImagePart",
        "FilePart",
        "ToolCall",
        "ToolCallDelta",
        "ToolDefinition",
        "LLMRequest",
        "LLMRequestOptions",
        "Timeouts",
        "Retries",
        "LLMResponse",
        "LLMStreamEvent",
        "Delta",
        "TextDelta",
        "ReasoningDelta",
        "UsageDelta",
        "FinishDelta",
        "MetaDelta",
        "RawDelta",
        "Usage",
        "Timings",
        "LLMModelInfo",
        "ModelPrice",
        "OpaquePart",
        "PartDelta",
        "VectorsDelta",
        "LLMEmbeddings",
        "TokenCount",
        "LLMCapabilities",
        "CapabilityFact",
    ),
    "errors": (
        "LLMError",
        "ProviderError",
        "ProviderAPIError",
        "AuthenticationError",
        "PermissionDeniedError",
        "QuotaExceededError",
        "RateLimitError",
        "ModelNotFoundError",
        "ContextWindowExceededError",
        "ContentFilteredError",
        "InvalidRequestError",
        "RequestTimeoutError",
        "ProviderConnectionError",
        "ProviderOverloadedError",
        "StreamInterruptedError",
        "InvalidResponseError",
        "InvalidParameterError",
        "UnsupportedFeatureError",
        "ConfigurationError",
        "ProviderNotFoundError",
        "DependencyMissingError",
        "RequestCancelledError",
        "ToolRoundsExceededError",
        "CircuitOpenError",
        "QueueFullError",
        "BudgetExceededError",
    ),
    "media.factory": ("MediaFactory", "MediaLimits"),
    "media.inputs": ("ImageInput", "DocumentInput", "TextInput", "TabularInput"),
    "portability.conversion": ("portable",),
    "portability.report": ("portability_report", "PortabilityReport", "PortabilityItem"),
    "policy": ("Stage", "Host"),
    "policy.retry": ("RetryPolicy",),
    "policy.deadline": ("DeadlinePolicy",),
    "policy.structured": ("StructuredOutput",),
    "providers.echo": ("EchoProvider", "EchoAnswer"),
    "providers.openai": ("OpenAIProvider",),
    "providers.anthropic": ("AnthropicProvider",),
    "providers.ollama": ("OllamaProvider",),
    "providers.compatible": ("OpenAICompatibleProvider", "GroqProvider"),
    "providers.http": ("HttpProvider",),
    "providers.rows": ("Row",),
    "schemas": ("strict_schema", "is_strict"),
    "tools": ("run_tools", "Tool", "ToolRun", "ToolCallRecord", "ToolCallRequest"),
    "wire": ("Codec", "Decoder"),
    "wire.openai_request": ("ChatDialect",),
    "providers.litellm": ("LiteLLMProvider",),
    "providers.huggingface": ("HuggingFaceProvider",),
    "policy.circuit": ("CircuitBreaker",),
    "policy.limits": ("ConcurrencyLimit",),
    "policy.cooldown": ("CooldownPolicy",),
    "observe.metrics": ("ModelMetrics",),
    "observe.health": ("ProviderHealth",),
    "observe.recent": ("RecentRequests",),
    "observe.logs": ("setup_logging", "log_request", "log_response", "stop_logging"),
    "observe.log_events": ("log_events",),
    "observe.log_records": ("RedactionFilter",),
    "factory.creating": ("create_llm",),
    "factory.llm": ("LLM",),
    "factory.model": ("LLMModel",),
    "factory.chat": ("ChatSession",),
    "factory.streams": ("TextStream", "AsyncTextStream"),
    "settings.parameters": ("ModelParameter", "ModelCapability"),
    "settings.configuration": ("ConfigurationManager",),
    "observe.tracing": ("Tracing",),
    "observe.trace_provider": ("TraceProvider",),
    "observe.otel": ("OpenTelemetryTraceProvider",),
    "observe.trace_memory": ("InMemoryTraceProvider",),
    "startup": ("register_configured",),
    "providers.unusable": ("UnusableProvider",),
    "reloading": ("watch_settings", "reload_settings", "SettingsReloaded"),
    "prices": ("PriceBook", "Cost"),
    "policy.cache": ("CachePolicy",),
    "policy.cache_store": ("MemoryStore",),
    "policy.cache_sqlite": ("SqliteStore",),
    "policy.budget": ("BudgetPolicy",),
    "observe.cost": ("CostTracker",),
    "counting.manager": ("TokenManager",),
    "counting.fitting": ("fits", "Fit"),
    "counting.trimming": ("trim_messages", "Trimmed"),
    "composites.fallback": ("FallbackProvider",),
    "composites.multi": ("MultiProvider",),
    "composites.switching": ("SwitchingProvider",),
    "composites.balanced": ("BalancedProvider",),
    "concurrency": ("gather_with_concurrency",),
    "checks": ("check_number",),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = ["__version__", *_MODULE_OF]

if TYPE_CHECKING:
    from ._blocking import run_sync as run_sync
    from .checks import check_number as check_number
    from .composites.balanced import BalancedProvider as BalancedProvider
    from .composites.fallback import FallbackProvider as FallbackProvider
    from .composites.multi import MultiProvider as MultiProvider
    from .composites.switching import SwitchingProvider as SwitchingProvider
    from .concurrency import gather_with_concurrency as gather_with_concurrency
    from .config import ApiKey as ApiKey
    from .config import Secret as Secret
    from .config import check_base_url as check_base_url
    from .counting.fitting import Fit as Fit
    from .counting.fitting import fits as fits
    from .counting.manager import TokenManager as TokenManager
    from .counting.trimming import Trimmed as Trimmed
    from .counting.trimming import trim_messages as trim_messages
    from .discovery import Discovered as Discovered
    from .discovery import discover as discover
    from .emitter import EventEmitter as EventEmitter
    from .errors import AuthenticationError as AuthenticationError
    from .errors import BudgetExceededError as BudgetExceededError
    from .errors import CircuitOpenError as CircuitOpenError
    from .errors import ConfigurationError as ConfigurationError
    from .errors import ContentFilteredError as ContentFilteredError
    from .errors import ContextWindowExceededError as ContextWindowExceededError
    from .errors import DependencyMissingError as DependencyMissingError
    from .errors import InvalidParameterError as InvalidParameterError
    from .errors import InvalidRequestError as InvalidRequestError
    from .errors import InvalidResponseError as InvalidResponseError
    from .errors import LLMError as LLMError
    from .errors import ModelNotFoundError as ModelNotFoundError
    from .errors import PermissionDeniedError as PermissionDeniedError
    from .errors import ProviderAPIError as ProviderAPIError
    from .errors import ProviderConnectionError as ProviderConnectionError
    from .errors import ProviderError as ProviderError
    from .errors import ProviderNotFoundError as ProviderNotFoundError
    from .errors import ProviderOverloadedError as ProviderOverloadedError
    from .errors import QueueFullError as QueueFullError
    from .errors import QuotaExceededError as QuotaExceededError
    from .errors import RateLimitError as RateLimitError
    from .errors import RequestCancelledError as RequestCancelledError
    from .errors import RequestTimeoutError as RequestTimeoutError
    from .errors import StreamInterruptedError as StreamInterruptedError
    from .errors import ToolRoundsExceededError as ToolRoundsExceededError
    from .errors import UnsupportedFeatureError as UnsupportedFeatureError
    from .events import ActiveProviderChanged as ActiveProviderChanged
    from .events import ConfigChanged as ConfigChanged
    from .events import ErrorOccurred as ErrorOccurred
    from .events import Event as Event
    from .events import HealthCheck as HealthCheck
    from .events import ListenerFailed as ListenerFailed
    from .events import ModelChanged as ModelChanged
    from .events import ModelLoaded as ModelLoaded
    from .events import ModelLoadProgress as ModelLoadProgress
    from .events import ModelsChanged as ModelsChanged
    from .events import ModelUnloaded as ModelUnloaded
    from .events import ProviderAdded as ProviderAdded
    from .events import ProviderRemoved as ProviderRemoved
    from .events import ReconnectScheduled as ReconnectScheduled
    from .events import RequestFinished as RequestFinished
    from .events import RequestQueued as RequestQueued
    from .events import RequestStarted as RequestStarted
    from .events import RetryScheduled as RetryScheduled
    from .events import StatusChanged as StatusChanged
    from .events import StreamStalled as StreamStalled
    from .events import SystemResumed as SystemResumed
    from .factory.chat import ChatSession as ChatSession
    from .factory.creating import create_llm as create_llm
    from .factory.llm import LLM as LLM
    from .factory.model import LLMModel as LLMModel
    from .factory.streams import AsyncTextStream as AsyncTextStream
    from .factory.streams import TextStream as TextStream
    from .manager import LLMProviderManager as LLMProviderManager
    from .manager import ManagerSnapshot as ManagerSnapshot
    from .manager import ProviderSnapshot as ProviderSnapshot
    from .media.factory import MediaFactory as MediaFactory
    from .media.factory import MediaLimits as MediaLimits
    from .media.inputs import DocumentInput as DocumentInput
    from .media.inputs import ImageInput as ImageInput
    from .media.inputs import TabularInput as TabularInput
    from .media.inputs import TextInput as TextInput
    from .messages import CapabilityFact as CapabilityFact
    from .messages import Delta as Delta
    from .messages import FilePart as FilePart
    from .messages import FinishDelta as FinishDelta
    from .messages import ImagePart as ImagePart
    from .messages import LLMCapabilities as LLMCapabilities
    from .messages import LLMEmbeddings as LLMEmbeddings
    from .messages import LLMMessage as LLMMessage
    from .messages import LLMModelInfo as LLMModelInfo
    from .messages import LLMRequest as LLMRequest
    from .messages import LLMRequestOptions as LLMRequestOptions
    from .messages import LLMResponse as LLMResponse
    from .messages import LLMStreamEvent as LLMStreamEvent
    from .messages import MetaDelta as MetaDelta
    from .messages import ModelPrice as ModelPrice
    from .messages import OpaquePart as OpaquePart
    from .messages import PartDelta as PartDelta
    from .messages import RawDelta as RawDelta
    from .messages import ReasoningDelta as ReasoningDelta
    from .messages import Retries as Retries
    from .messages import TextDelta as TextDelta
    from .messages import TextPart as TextPart
    from .messages import Timeouts as Timeouts
    from .messages import Timings as Timings
    from .messages import TokenCount as TokenCount
    from .messages import ToolCall as ToolCall
    from .messages import ToolCallDelta as ToolCallDelta
    from .messages import ToolDefinition as ToolDefinition
    from .messages import Usage as Usage
    from .messages import UsageDelta as UsageDelta
    from .messages import VectorsDelta as VectorsDelta
    from .observe.cost import CostTracker as CostTracker
    from .observe.health import ProviderHealth as ProviderHealth
    from .observe.log_events import log_events as log_events
    from .observe.log_records import RedactionFilter as RedactionFilter
    from .observe.logs import log_request as log_request
    from .observe.logs import log_response as log_response
    from .observe.logs import setup_logging as setup_logging
    from .observe.logs import stop_logging as stop_logging
    from .observe.metrics import ModelMetrics as ModelMetrics
    from .observe.otel import OpenTelemetryTraceProvider as OpenTelemetryTraceProvider
    from .observe.recent import RecentRequests as RecentRequests
    from .observe.trace_memory import InMemoryTraceProvider as InMemoryTraceProvider
    from .observe.trace_provider import TraceProvider as TraceProvider
    from .observe.tracing import Tracing as Tracing
    from .policy import Host as Host
    from .policy import Stage as Stage
    from .policy.budget import BudgetPolicy as BudgetPolicy
    from .policy.cache import CachePolicy as CachePolicy
    from .policy.cache_sqlite import SqliteStore as SqliteStore
    from .policy.cache_store import MemoryStore as MemoryStore
    from .policy.circuit import CircuitBreaker as CircuitBreaker
    from .policy.cooldown import CooldownPolicy as CooldownPolicy
    from .policy.deadline import DeadlinePolicy as DeadlinePolicy
    from .policy.limits import ConcurrencyLimit as ConcurrencyLimit
    from .policy.retry import RetryPolicy as RetryPolicy
    from .policy.structured import StructuredOutput as StructuredOutput
    from .portability.conversion import portable as portable
    from .portability.report import PortabilityItem as PortabilityItem
    from .portability.report import PortabilityReport as PortabilityReport
    from .portability.report import portability_report as portability_report
    from .prices import Cost as Cost
    from .prices import PriceBook as PriceBook
    from .provider import BaseLLMProvider as BaseLLMProvider
    from .provider import default_policies as default_policies
    from .providers.anthropic import AnthropicProvider as AnthropicProvider
    from .providers.compatible import GroqProvider as GroqProvider
    from .providers.compatible import OpenAICompatibleProvider as OpenAICompatibleProvider
    from .providers.echo import EchoAnswer as EchoAnswer
    from .providers.echo import EchoProvider as EchoProvider
    from .providers.http import HttpProvider as HttpProvider
    from .providers.huggingface import HuggingFaceProvider as HuggingFaceProvider
    from .providers.litellm import LiteLLMProvider as LiteLLMProvider
    from .providers.ollama import OllamaProvider as OllamaProvider
    from .providers.openai import OpenAIProvider as OpenAIProvider
    from .providers.rows import Row as Row
    from .providers.unusable import UnusableProvider as UnusableProvider
    from .registry import Settings as Settings
    from .registry import create_provider as create_provider
    from .registry import follow_settings as follow_settings
    from .registry import get_settings as get_settings
    from .registry import kinds as kinds
    from .registry import register_provider as register_provider
    from .registry import reset_settings as reset_settings
    from .registry import set_provider_config as set_provider_config
    from .registry import unregister_kind as unregister_kind
    from .reloading import SettingsReloaded as SettingsReloaded
    from .reloading import reload_settings as reload_settings
    from .reloading import watch_settings as watch_settings
    from .schemas import is_strict as is_strict
    from .schemas import strict_schema as strict_schema
    from .settings.configuration import ConfigurationManager as ConfigurationManager
    from .settings.parameters import ModelCapability as ModelCapability
    from .settings.parameters import ModelParameter as ModelParameter
    from .startup import register_configured as register_configured
    from .status import ErrorInfo as ErrorInfo
    from .status import LLMProviderStatus as LLMProviderStatus
    from .status import ProviderStatus as ProviderStatus
    from .status import RateLimits as RateLimits
    from .status import Reason as Reason
    from .stream import LLMStream as LLMStream
    from .subscription import Subscription as Subscription
    from .supervisor import Backoff as Backoff
    from .tools import Tool as Tool
    from .tools import ToolCallRecord as ToolCallRecord
    from .tools import ToolCallRequest as ToolCallRequest
    from .tools import ToolRun as ToolRun
    from .tools import run_tools as run_tools
    from .wire import Codec as Codec
    from .wire import Decoder as Decoder
    from .wire.openai_request import ChatDialect as ChatDialect


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
