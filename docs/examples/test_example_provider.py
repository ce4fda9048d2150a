"""Does the provider of example_provider.py do what providers promise?

python docs/examples/test_example_provider.py     (or: pytest docs/examples)
"""

import subprocess
import sys

from example_provider import ParrotProvider

from llm_manager.testing import ProviderConformance, Reply


class TestParrot(ProviderConformance):
    base_path = ""
    chat_path = "/answers"
    models_path = "/birds"
    keep_alive = b"\n"

    def make_provider(self, base_url, **settings):
        return ParrotProvider(base_url=base_url, **settings)

    def models(self, ids):
        return Reply.json({"birds": [{"name": id} for id in ids]})

    def stream(self, wanted):
        end = {"end": "limit" if wanted.finish == "length" else "done"}
        if wanted.usage is not None:
            known = wanted.usage.cached_tokens
            end |= {"read": wanted.usage.prompt_tokens - known, "known": known}
            end |= {"said": wanted.usage.completion_tokens}
        return Reply.ndjson([*({"say": piece} for piece in wanted.text), end])

    def error_inside(self, message):
        return Reply.ndjson([{"sorry": message}])


if __name__ == "__main__":
    sys.exit(
        subprocess.call([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__])
    )
