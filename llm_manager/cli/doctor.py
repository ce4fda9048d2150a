"""``llm-manager doctor``: what is there, what is wrong, and what to do about it.

It looks at this machine only.  Values of keys are never read further than to see whether they can
be sent, and never written.
"""

from __future__ import annotations

import asyncio
import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from llm_manager import (
    ConfigurationError,
    Discovered,
    InvalidParameterError,
    LLMError,
    __version__,
    create_provider,
)
from llm_manager.config import check_key
from llm_manager.discovery import key_variables
from llm_manager.errors import as_llm_error
from llm_manager.registry import kinds
from llm_manager.settings.file import settings_path
from llm_manager.transport.http import HttpTransport

from .config import problems_of_settings
from .exit_codes import EXIT_FAILED, EXIT_OK
from .session import Session, hint_text
from .texts import counted, shortened, symbols

NEEDED = ("pyee", "httpx2", "httpcore2", "msgspec", "tenacity", "platformdirs")
OPTIONAL = {
    "rich": "cli",
    "tomlkit": "cli",
    "openai": "openai",
    "anthropic": "anthropic",
    "transformers": "huggingface",
    "torch": "huggingface",
    "accelerate": "huggingface",
    "huggingface_hub": "huggingface",
    "pillow": "media",
    "jsonschema": "tools",
    "opentelemetry-api": "otel",
    "genai-prices": "cost",
    "keyring": "keyring",
    "tiktoken": "tokens",
}
"""Distributions, and the extra that brings each."""
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
# Others read these; who set only them wonders why we do not.
_CERTIFICATES_OF_OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_CACHE_FOLDERS = ("HF_HOME", "HF_HUB_CACHE")
# Nothing is sent there: only the way to it is looked for.
_SOMEWHERE = "//llm-manager.invalid"

Mark = Literal["good", "bad", "unknown"]
_STYLES = {"good": "green", "bad": "red", "unknown": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: under which heading it belongs.
        name: what it is.
        mark: ``good``, ``bad``, or ``unknown`` for what is absent or of no consequence.
        text: what there is to say about it.
        hint: what to do about it, or None.
    """

    section: str
    name: str
    mark: Mark
    text: str
    hint: str | None = None


async def run(session: Session) -> int:
    """Look at everything; returns the exit code."""
    discovered = await session.find()
    findings = [
        *_packages(),
        *_settings(),
        *_keys(),
        *_addresses(),
        *_servers(discovered),
        *await _network(),
        *_cache(discovered),
    ]
    problems = [f for f in findings if f.mark == "bad"]
    if session.arguments.json:
        session.output.document(
            {
                "version": __version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "findings": [asdict(f) for f in findings],
                "problems": len(problems),
            }
        )
    else:
        _write(session, findings, problems)
    return EXIT_FAILED if problems else EXIT_OK


# ---- what is looked at ---------------------------------------------------------------------------


def _packages() -> list[Finding]:
    return [_package(name) for name in (*NEEDED, *OPTIONAL)]


def _package(name: str) -> Finding:
    version = _version(name)
    if version:
        return Finding(section="packages", name=name, mark="good", text=version)
    mark: Mark = "bad" if name in NEEDED else "unknown"
    hint = f"pip install {name}" if name in NEEDED else f"comes with the extra {OPTIONAL[name]!r}"
    return Finding(section="packages", name=name, mark=mark, text="not installed", hint=hint)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _settings() -> list[Finding]:
    """What is wrong with the settings, or that nothing is."""
    found = [
        Finding(
            section="settings",
            name=problem.place,
            mark="bad" if problem.severity == "error" else "unknown",
            text=problem.message,
            hint=problem.hint,
        )
        for problem in problems_of_settings()
    ]
    path = settings_path()
    exists = path is not None and path.exists()
    return found or [
        Finding(
            section="settings",
            name="file" if exists else "none",
            mark="good" if exists else "unknown",
            text=str(path) if exists else f"there is no {path or 'settings file'}",
        )
    ]


def _keys() -> list[Finding]:
    """The variables that are set, and whether their values can be sent."""
    known = kinds()
    kinds_of: dict[str, list[str]] = {}
    for kind, variables in key_variables().items():
        for variable in variables:
            kinds_of.setdefault(variable, []).append(kind)
    found = []
    for variable, of in kinds_of.items():
        value = os.environ.get(variable)
        if not value:
            continue
        mark: Mark = "good"
        text, hint = f"for {', '.join(of)}", None
        if not any(kind in known for kind in of):
            mark, text = "unknown", f"{text}, which this version has no provider for"
        try:
            check_key(value, variable)
        except LLMError as error:
            mark, text, hint = "bad", error.message, error.hint or f"correct or unset {variable}"
        found.append(Finding(section="keys", name=variable, mark=mark, text=text, hint=hint))
    return found or [
        Finding(
            section="keys",
            name="none",
            mark="unknown",
            text="no variable of a known service is set",
            hint=f"export one, e.g. {shortened(list(kinds_of), 3)}",
        )
    ]


def _addresses() -> list[Finding]:
    """Kinds of providers that cannot even be built, because of an address in the environment."""
    found = []
    for kind in kinds():
        try:
            create_provider(kind)
        except ConfigurationError as error:
            if not (error.hint or "").startswith("pass base_url="):  # it has no address of its own
                found.append(
                    Finding(
                        section="addresses",
                        name=kind,
                        mark="bad",
                        text=error.message,
                        hint=error.hint or "correct or unset the environment variable",
                    )
                )
        except InvalidParameterError:
            continue  # it cannot be built without settings, and there are none here
        except Exception as error:  # noqa: BLE001 - the code of another package; the rest goes on
            text = as_llm_error(error).message
            found.append(Finding(section="addresses", name=kind, mark="bad", text=text, hint=None))
    return found


def _servers(discovered: list[Discovered]) -> list[Finding]:
    servers = [d for d in discovered if d.source == "server"]
    return [
        Finding(
            section="servers on this machine",
            name=server.kind,
            mark="good",
            text=f"{server.origin}, {counted(len(server.models), 'model')}"
            + (f": {shortened(server.models)}" if server.models else ""),
        )
        for server in servers
    ] or [
        Finding(
            section="servers on this machine",
            name="none",
            mark="unknown",
            text="no server answers on a usual port",
            hint="start one, e.g. 'ollama serve', or name one with --base-url",
        )
    ]


async def _network() -> list[Finding]:
    """Proxies and certificates of the environment, and whether they can work."""
    variables = [v for name in _PROXIES for v in (name, name.lower()) if os.environ.get(v)]
    variables += [v for v in _CERTIFICATES if os.environ.get(v)]
    ways = await asyncio.gather(
        _problem_on_the_way("http:", proxies=True),
        _problem_on_the_way("https:", proxies=True),
        _problem_on_the_way("https:", proxies=False),
    )
    problems = {p.message: p for p in ways if p is not None}
    found = []
    for variable in dict.fromkeys(variables):
        mine = [p for p in problems.values() if variable in p.message]
        found.append(
            Finding(
                section="network",
                name=variable,
                mark="bad" if mine else "good",
                text=mine[0].message if mine else _without_password(os.environ[variable]),
                hint=hint_text(mine[0].hint) if mine else None,
            )
        )
        for problem in mine:
            problems.pop(problem.message, None)
    found += [
        Finding(
            section="network",
            name="connections",
            mark="bad",
            text=problem.message,
            hint=hint_text(problem.hint),
        )
        for problem in problems.values()
    ]
    found += [
        Finding(
            section="network",
            name=variable,
            mark="unknown",
            text="is not used here",
            hint=f"set SSL_CERT_FILE to the same file if {variable} is needed",
        )
        for variable in _CERTIFICATES_OF_OTHERS
        if os.environ.get(variable) and not os.environ.get("SSL_CERT_FILE")
    ]
    return found or [
        Finding(section="network", name="direct", mark="good", text="no proxy, usual certificates")
    ]


def _without_password(address: str) -> str:
    """A proxy's address without whatever stands before the ``@``."""
    scheme, slashes, rest = address.partition("//") if "//" in address else ("", "", address)
    _, at, host = rest.rpartition("@")
    return f"{scheme}{slashes}***@{host}" if at else address


async def _problem_on_the_way(scheme: str, *, proxies: bool) -> LLMError | None:
    """Why no connection can even be tried; nothing is connected to find out."""
    transport = HttpTransport(scheme + _SOMEWHERE, use_environment_proxies=proxies)
    try:
        await transport.open()
    except LLMError as error:
        return error
    finally:
        await transport.aclose()
    return None


def _cache(discovered: list[Discovered]) -> list[Finding]:
    section = "Hugging Face cache"
    found = [
        Finding(
            section=section,
            name=variable,
            mark="bad",
            text=f"{os.environ[variable]!r} is a file, a folder is needed",
            hint=f"correct or unset {variable}",
        )
        for variable in _CACHE_FOLDERS
        if os.environ.get(variable) and Path(os.environ[variable]).is_file()
    ]
    found += [
        Finding(
            section=section,
            name=counted(len(cache.models), "model"),
            mark="good",
            text=f"{cache.origin}: {shortened(cache.models)}",
        )
        for cache in discovered
        if cache.source == "cache"
    ]
    return found or [Finding(section=section, name="none", mark="unknown", text="nothing cached")]


# ---- what is written -----------------------------------------------------------------------------


def _write(session: Session, findings: list[Finding], problems: list[Finding]) -> None:
    output, marks = session.output, symbols(session.output)
    python = f"Python {platform.python_version()}"
    output.line(f"llm_manager {__version__}, {python}, {platform.system()} {platform.machine()}")
    width = max(len(f.name) for f in findings)
    for section in dict.fromkeys(f.section for f in findings):
        output.line()
        output.line(output.styled(section, "bold"))
        for finding in findings:
            if finding.section == section:
                text = finding.text.removeprefix(f"{finding.name} ")
                if finding.mark == "unknown" and finding.hint:
                    text = f"{text} {marks.arrow} {finding.hint}"
                output.item(
                    getattr(marks, finding.mark),
                    f"{finding.name:<{width}}  {text}",
                    style=_STYLES[finding.mark],
                    indent=width + 2,
                )
    output.line()
    if not problems:
        output.line(f"{output.styled(marks.good, 'green')} no problem found")
        return
    output.line(output.styled(counted(len(problems), "problem"), "bold"))
    for problem in problems:
        output.item(marks.bad, _sentence(problem), style="red")
        if problem.hint:
            output.item(marks.arrow, problem.hint, style="dim", level=2)


def _sentence(finding: Finding) -> str:
    """What is wrong, with the name in it once."""
    return finding.text if finding.name in finding.text else f"{finding.name}: {finding.text}"
