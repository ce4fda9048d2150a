"""A provider of one's own, in one short file.

It answers from a dictionary. Connecting, the status, retries, time limits and cancelling are there
without a line; once its book is open, it is as good a provider as any.

    python docs/examples/custom_provider.py
"""

import asyncio
import tempfile
from pathlib import Path

from llm_manager import (
    BaseLLMProvider,
    ConfigurationError,
    LLMError,
    LLMModelInfo,
    LLMProviderManager,
)
from llm_manager.messages import FinishDelta, TextDelta


class GlossaryProvider(BaseLLMProvider):
    """Explains words. The book has one ``word: explanation`` on each line."""

    kind = "glossary"

    def __init__(self, *, book, **common):
        super().__init__(**common)
        self.book = Path(book)
        self.entries = {}

    async def _open(self):
        if not self.book.is_file():
            raise ConfigurationError(f"there is no book {self.book.name!r}", hint="write one")
        lines = self.book.read_text().splitlines()
        self.entries = dict(line.split(": ", 1) for line in lines)

    async def _close(self):
        self.entries = {}

    async def _list_models(self):
        return [LLMModelInfo(id="short", name="Short explanations")]

    async def _exchange(self, request):
        word = request.messages[-1].text.strip().lower()
        for piece in self.entries.get(word, "I do not know that word.").split(" "):
            yield TextDelta(f"{piece} ")
        yield FinishDelta("stop")


async def main():
    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder) / "book.txt"
        async with LLMProviderManager() as manager:
            glossary = manager.register_provider(GlossaryProvider, book=book)
            glossary.subscribe(lambda event: print(event.current.status, event.current.reason))
            try:
                await glossary.connect()
            except LLMError as error:
                print(error)

            book.write_text("token: a piece of text\nstream: an answer in pieces\n")
            await glossary.connect()  # a person has done something about it
            for word in ("Token", "Prompt"):
                print((await manager.generate_completion("glossary/short", word)).text)


if __name__ == "__main__":
    asyncio.run(main())
