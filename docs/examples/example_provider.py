"""A provider for a vendor with a dialect of its own, in one file.

The vendor, "Parrot", is invented. Its answers are lines of JSON::

    POST /answers  {"model": ..., "turns": [{"who": ..., "what": ...}], "at_most": 100}
    {"say": "Hel"}
    {"say": "lo"}
    {"end": "done", "read": 7, "known": 5, "said": 2}     read: without what it knew already
    {"sorry": "out of seeds"}                             instead of the end

What is written here is the translation. Status, retries, time limits, cancelling, events and the
handling of the key come from the base classes; test_example_provider.py checks that it all holds.

    python docs/examples/example_provider.py
"""

import asyncio
import json

from llm_manager import HttpProvider, LLMModelInfo, LLMProviderManager, Usage
from llm_manager.errors import StreamInterruptedError, UnsupportedFeatureError
from llm_manager.messages import FinishDelta, MetaDelta, TextDelta, UsageDelta
from llm_manager.testing import Reply, ScriptedPeer
from llm_manager.wire.failures import from_error_object, read_json, unreadable
from llm_manager.wire.framing import NDJSONFramer

REASONS = {"done": "stop", "limit": "length"}


class ParrotCodec:
    """How requests and answers look. No I/O, no clock, and no state: that is the decoder's."""

    path = "/answers"

    def encode(self, request):
        options = request.options
        if options.reasoning_effort not in (None, "none"):
            raise UnsupportedFeatureError("parrots do not reason")
        body = {
            "model": request.model,
            "turns": [{"who": each.role, "what": each.text} for each in request.messages],
            "at_most": options.max_tokens,
            "mood": options.temperature,
            "until": options.stop,
        }
        given = {name: value for name, value in body.items() if value is not None}
        return json.dumps(given | options.extra).encode()

    def decoder(self, request):
        return ParrotDecoder(request.model)


class ParrotDecoder:
    """One answer, wherever the network cuts its bytes."""

    def __init__(self, model):
        self.model = model
        self.lines = NDJSONFramer()
        self.introduced = False
        self.ended = False

    def feed(self, data):
        # A generator: what came before an error reaches the reader, and then the error.
        for line in self.lines.feed(data):
            yield from self.deltas(line)

    def close(self):
        for line in self.lines.close():
            yield from self.deltas(line)
        if not self.ended:
            raise StreamInterruptedError("the answer broke off before its end")

    def deltas(self, line):
        try:
            told = json.loads(line)
        except ValueError as error:
            why = str(error)
        else:
            yield from self.told(told)
            return
        # Half a line at the end of a stream is a broken connection, anything else is no answer.
        if not line.startswith(b"{"):
            raise unreadable(line, "a line of an answer", why=why)

    def told(self, told):
        if "sorry" in told:
            raise from_error_object({"message": told["sorry"]})
        if not self.introduced:
            self.introduced = True
            yield MetaDelta(model=self.model)
        if told.get("say"):
            yield TextDelta(told["say"])
        if "end" in told:
            self.ended = True
            yield FinishDelta(REASONS.get(told["end"], "other"), told["end"])
            known = told.get("known", 0)
            read = told.get("read", 0) + known  # the common meaning: all tokens of the prompt
            said = told.get("said", 0)
            yield UsageDelta(Usage(prompt_tokens=read, cached_tokens=known, completion_tokens=said))


class ParrotProvider(HttpProvider):
    """The service of Parrot."""

    kind = "parrot"
    capabilities = frozenset({"chat", "completion"})
    codec = ParrotCodec()

    def __init__(self, **settings):
        super().__init__(key_variables=("PARROT_API_KEY",), **settings)

    async def _list_models(self):
        data = await self.transport.get("/birds", timeout_s=30.0)
        birds = read_json(data, "a list of birds").get("birds")
        if birds is None:
            raise unreadable(data, "a list of birds")
        return [LLMModelInfo(id=bird["name"]) for bird in birds]


async def main():
    async with ScriptedPeer() as peer:  # the service, as far as this example is concerned
        peer.route("/birds", Reply.json({"birds": [{"name": "polly"}]}))
        lines = [{"say": "Pretty "}, {"say": "Polly!"}, {"end": "done", "read": 2, "said": 2}]
        peer.route("/answers", Reply.ndjson(lines))
        async with LLMProviderManager() as manager:
            parrot = manager.register_provider(
                ParrotProvider, base_url=peer.base_url, api_key="seeds-and-nuts"
            )
            await parrot.connect()
            print(parrot.status.status, [model.id for model in parrot.known_models])
            async for event in manager.stream_completion("parrot/polly", "Who is pretty?"):
                print(event.text, end="")
            print()


if __name__ == "__main__":
    asyncio.run(main())
