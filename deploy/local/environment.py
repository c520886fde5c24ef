"""Set up the project's own virtual environment: what ``make setup`` runs.

Uses the standard library only, because nothing is installed yet. This file and
``trierarch_setup.interpreter`` also have to be readable by an old Python, so
that a machine that has only one gets a sentence and not a syntax error.
"""

from __future__ import annotations

import os
import sys

from trierarch_setup.interpreter import find_supported, is_supported, unsupported_sentence


def main() -> int:
    """Install or verify the environment; return the exit code."""
    if not is_supported(sys.version_info[:2]):
        other = find_supported(os.environ.get("PATH", ""))
        if other is None:
            print(unsupported_sentence(sys.version_info[:2]), file=sys.stderr)
            return 1
        os.execv(other, [other, os.path.abspath(__file__), *sys.argv[1:]])  # noqa: S606
    from trierarch_setup.installation import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
