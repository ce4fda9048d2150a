"""A chat with a Stop button that another thread presses.

The window of a desktop app lives on its own thread. Here a second thread plays its part: it sees
the text appear, and after a while the user has read enough.

    python docs/examples/stop_button.py
"""

import asyncio
import threading

from llm_manager import EchoProvider, LLMMessage, RequestCancelledError


class Window(threading.Thread):
    """Waits until some words are on the screen, then presses Stop."""

    def __init__(self, patience_words):
        super().__init__(daemon=True)
        self.patience_words = patience_words
        self.words = 0
        self.enough = threading.Event()
        self.stop_pressed = lambda: None

    def run(self):
        self.enough.wait()
        self.stop_pressed()

    def show(self, text):
        print(text, end="", flush=True)
        self.words += 1
        if self.words == self.patience_words:
            self.enough.set()


async def main():
    window = Window(patience_words=4)
    provider = EchoProvider(words_per_s=20)
    provider.on("requestFinished", lambda event: print(f"[{event.outcome}]"))

    question = LLMMessage.user("one two three four five six seven eight nine ten")
    stream = provider.stream_chat_completion("echo", [question])
    window.stop_pressed = stream.cancel  # safe from any thread
    window.start()

    conversation = [question]
    try:
        async for event in stream:
            if event.kind == "text":
                window.show(event.text)
    except RequestCancelledError:
        print("... stopped")
    # What had arrived is part of the conversation, stopped or not.
    conversation.append(stream.response.to_message())
    print(f"kept: {conversation[-1].text.strip()!r}")

    conversation.append(LLMMessage.user("Thank you."))
    response = await provider.generate_chat_completion("echo", conversation)
    print(response.text)
    await provider.close()


if __name__ == "__main__":
    asyncio.run(main())
