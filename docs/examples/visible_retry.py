"""Retries that the user can see.

A request that is tried again is no secret: the event says which attempt failed, why, and when the
next one is. The user sees a countdown instead of a frozen window.

    python docs/examples/visible_retry.py
"""

import asyncio

from llm_manager import EchoAnswer, EchoProvider, LLMError, ProviderOverloadedError, RateLimitError


class Notice:
    """One line about what is being waited for."""

    def __init__(self, provider):
        self.countdown = None
        provider.on("retryScheduled", self.on_retry)
        provider.on("requestFinished", self.on_finished)

    def on_retry(self, event):
        self.end()
        self.countdown = asyncio.create_task(self.count(event))

    def on_finished(self, event):
        self.end()
        if event.outcome == "ok" and event.attempts > 1:
            print(f"  answered at attempt {event.attempts}")

    def end(self):
        if self.countdown is not None:
            self.countdown.cancel()
            self.countdown = None

    async def count(self, event):
        what = f"attempt {event.attempt} of {event.of} failed ({event.error.message})"
        left_s = event.wait_s
        while left_s > 0:
            print(f"  {what}, again in {left_s:.1f} s")
            await asyncio.sleep(min(left_s, 0.2))
            left_s -= 0.2


async def ask(provider, prompt):
    print(f"> {prompt}")
    try:
        response = await provider.generate_completion("echo", prompt)
        print(response.text)
    except LLMError as error:
        # A wait that is too long is not waited for: the error says how long it is.
        print(f"no answer: {error.message}, come back in {error.retry_after_s:g} s")
    await provider.flush()


async def main():
    provider = EchoProvider(default_options={"retries": {"wait_s": 0.05, "retry_after_max_s": 5}})
    Notice(provider)
    provider.script(
        EchoAnswer(error=RateLimitError("too many requests", retry_after_s=0.5)),
        EchoAnswer(error=ProviderOverloadedError("no capacity", retry_after_s=0.2)),
        EchoAnswer(text="Here I am."),
    )
    await ask(provider, "Are you there?")

    provider.script(EchoAnswer(error=RateLimitError("used up for today", retry_after_s=3600)))
    await ask(provider, "And now?")
    await provider.close()


if __name__ == "__main__":
    asyncio.run(main())
