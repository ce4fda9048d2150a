"""A model that may act: look things up at once, change things only if the user agrees.

`run_tools` asks the model, runs what it asks for, and tells it the results, until it answers. What
goes wrong is told to the model, which can mend it.

    python docs/examples/tool_loop.py
"""

import asyncio
from dataclasses import dataclass

from llm_manager import EchoAnswer, EchoProvider, ToolCall, run_tools


@dataclass
class Item:
    """One line of the list.

    Attributes:
        name: what to buy
        count: how many
    """

    name: str
    count: int = 1


class ShoppingList:
    def __init__(self):
        self.items = [Item("bread")]

    async def show(self) -> list[Item]:
        """Show the shopping list."""
        return self.items

    def add(self, item: Item) -> str:
        """Add something to the shopping list."""
        self.items.append(item)
        return f"now there are {len(self.items)} lines"

    def clear(self) -> str:
        """Throw the whole list away."""
        self.items.clear()
        return "the list is empty"


async def ask_the_user(call):
    allowed = call.name != "clear"
    print(f"? {call.name} {call.arguments_json}: {'yes' if allowed else 'no'}")
    return allowed


def report(record):
    print(f"  {record.call.name}: {record.outcome}: {record.content}")


def call(id, name, arguments="{}"):
    return ToolCall(id=id, name=name, arguments_json=arguments)


async def main():
    shopping = ShoppingList()
    async with EchoProvider(words_per_s=100) as provider:
        # What a real model would decide by itself.
        provider.script(
            EchoAnswer(calls=(call("1", "show"), call("2", "clear"))),
            EchoAnswer(calls=(call("3", "add", '{"item": {"name": "milk", "count": "two"}}'),)),
            EchoAnswer(calls=(call("4", "add", '{"item": {"name": "milk", "count": 2}}'),)),
            EchoAnswer(text="I have added milk. I was not allowed to throw the list away."),
        )
        done = await run_tools(
            provider,
            "echo",
            "Start the list anew, with two bottles of milk.",
            [shopping.show, shopping.add, shopping.clear],
            approve=ask_the_user,
            on_call=report,
        )
    print(done.text)
    print(f"{done.rounds} answers, {len(done.calls)} calls, {len(done.messages)} messages")
    print(shopping.items)


if __name__ == "__main__":
    asyncio.run(main())
