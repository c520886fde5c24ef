"""``python -m trierarch.serving.headless``: a data-parallel rank without an API server.

A process of its own, because vLLM installs signal handlers for it, which only
a main thread may do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from trierarch.serving.fate_sharing import die_with_parent


def main(arguments: Sequence[str]) -> None:
    """Run one rank until it is ended or its group is."""
    die_with_parent(os.getppid())
    from vllm.entrypoints.cli.serve import run_headless

    from trierarch.serving.vllm_engine import parse_vllm_arguments

    options = parse_vllm_arguments(arguments)
    options.api_server_count = 0
    run_headless(options)


if __name__ == "__main__":
    main(sys.argv[1:])
