"""``python -m trierarch_operators``: the operator, configured by its environment."""

from __future__ import annotations

import sys

from trierarch.settings.environment import run_program
from trierarch.settings.operator import OperatorSettings
from trierarch_operators.process import run


def main() -> None:
    """Run the operator."""
    run(OperatorSettings.from_environment())


if __name__ == "__main__":
    sys.exit(run_program("trierarch operator", main))
