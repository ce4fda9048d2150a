"""A status display that is drawn from events alone.

It never asks a provider how it is: every change comes as an event, and nothing else is needed.
Two providers are shown; one of them goes away for a moment and comes back by itself.

    python docs/examples/status_display.py
"""

import asyncio
import sys

from llm_manager import Backoff, LLMError, LLMProviderManager, ProviderStatus

LAMPS = {
    ProviderStatus.CONNECTED: "●",
    ProviderStatus.DEGRADED: "◐",
    ProviderStatus.RECONNECTING: "○",
    ProviderStatus.FAILED: "✗",
}
CLEAR = "\x1b[H\x1b[2J" if sys.stdout.isatty() else "-" * 64 + "\n"


class Display:
    """One line for each provider, redrawn when something changes."""

    def __init__(self, manager):
        self.states = {}
        self.models = {}
        self.active = None
        self.trouble = ""
        manager.on("providerAdded", self.on_added)
        manager.on("modelsChanged", self.on_models)
        manager.on("activeProviderChanged", self.on_active)
        manager.on("error", self.on_error)
        manager.subscribe(self.on_status)

    def on_added(self, event):
        self.states.setdefault(event.provider_id, None)
        self.draw()

    def on_status(self, event):
        self.states[event.provider_id] = event.current
        self.draw()

    def on_models(self, event):
        self.models[event.provider_id] = [model.id for model in event.models]
        self.draw()

    def on_active(self, event):
        self.active = event.current
        self.draw()

    def on_error(self, event):
        self.trouble = f"{event.provider_id}, {event.operation}: {event.error.message}"

    def draw(self):
        lines = [self.line(id, state) for id, state in self.states.items()]
        print(CLEAR + "\n".join([*lines, self.trouble]).rstrip())

    def line(self, id, state):
        active = "*" if id == self.active else " "
        if state is None:
            return f"{active} · {id:<7} new"
        lamp = LAMPS.get(state.status, "·")
        models = ", ".join(self.models.get(id, ()))
        return (
            f"{active} {lamp} {id:<7} {state.status:<13} {models:<13} {explained(state)}".rstrip()
        )


def explained(state):
    """What a person wants to know besides the word."""
    if state.status == ProviderStatus.RECONNECTING and state.attempt:
        return f"{state.reason}, attempt {state.attempt}"
    if state.error is not None:
        return state.error.hint or state.error.message
    return ""


async def main():
    async with LLMProviderManager() as manager:
        Display(manager)
        manager.register_provider("echo", id="steady")
        shaky = manager.register_provider(
            "echo", id="shaky", models=["large", "small"], reconnect=Backoff(first_s=0.2)
        )
        await manager.connect_all()

        shaky.go_offline()
        try:
            await shaky.generate_completion("small", "Hello", options={"retries": {"attempts": 1}})
        except LLMError:
            pass  # the display shows it
        await shaky.wait_for(lambda state: state.attempt == 2, timeout_s=10)
        shaky.go_online()
        await shaky.wait_for("connected", timeout_s=10)
        manager.set_active_provider("shaky")


if __name__ == "__main__":
    asyncio.run(main())
