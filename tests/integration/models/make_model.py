"""Make a model as a process of its own; with ``pause`` it waits when it is half way.

Prints a line for every step, so that a test knows when to interfere.
"""

from __future__ import annotations

import sys
from pathlib import Path

from trierarch.serving.models import resolve_model


def main(name: str, data_dir: Path, *, pause: bool) -> None:
    """Make the model; print its folder at the end."""

    def report(text: str, share: float) -> None:
        sys.stdout.write(f"{text} {share:.2f}\n")
        sys.stdout.flush()
        if pause and share >= 0.5:
            sys.stdout.write("paused\n")
            sys.stdout.flush()
            sys.stdin.readline()

    model = resolve_model(name, data_dir, report)
    sys.stdout.write(f"made {model.path}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), pause=sys.argv[3:] == ["pause"])
