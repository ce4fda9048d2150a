"""`python -m llm_manager.cli` is the command line."""

from __future__ import annotations

import sys

from llm_manager.cli import main

if __name__ == "__main__":
    sys.exit(main())
