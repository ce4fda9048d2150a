"""``llm-manager models``: which models can be used, and what is known about them."""

from __future__ import annotations

import asyncio

from llm_manager import BaseLLMProvider, LLMError, LLMModelInfo

from .exit_codes import EXIT_OK
from .session import Session, report_nothing_found, screen
from .texts import MODEL_COLUMNS, aligned, model_row

# Some servers tell more about a model only if asked about that one.
_ASK_AT_ONCE = 8


async def run(session: Session) -> int:
    """List the models of what the arguments name or this machine offers; returns the exit code."""
    on_screen = session.output.is_terminal and not session.arguments.json
    drawing = screen() if on_screen else None
    providers = await session.add_providers()
    if not providers:
        return report_nothing_found(session)
    results = await asyncio.gather(*(_models_of(p) for p in providers), return_exceptions=True)
    models: list[LLMModelInfo] = []
    code = EXIT_OK
    for result in results:
        if isinstance(result, LLMError):
            code = max(code, session.report(result))
        elif isinstance(result, BaseException):
            raise result
        else:
            models += result
    rows = [model_row(m, with_provider=len(providers) > 1) for m in models]
    if session.arguments.json:
        session.output.document([m.to_dict() for m in models])
    elif drawing is not None and rows:
        drawing.console().print(drawing.table(MODEL_COLUMNS, rows))
    elif rows:
        for line in aligned(MODEL_COLUMNS, rows):
            session.output.line(line)
    elif code == EXIT_OK:
        session.output.remark(f"{providers[0].id} offers no model at the moment")
    return code


async def _models_of(provider: BaseLLMProvider) -> list[LLMModelInfo]:
    """The models of one provider, with all that it tells about each.

    Raises:
        LLMError: it cannot be asked.
    """
    await provider.connect()
    turns = asyncio.Semaphore(_ASK_AT_ONCE)

    async def asked(model: LLMModelInfo) -> LLMModelInfo:
        async with turns:
            try:
                return await provider.get_model_info(model.id)
            except LLMError:
                return model  # what the list says about it is still true

    return await asyncio.gather(*(asked(m) for m in await provider.get_available_models()))
