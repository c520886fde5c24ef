"""``python -m trierarch.controller``: a controller configured by its environment."""

from __future__ import annotations

import sys

from trierarch.controller.process import run
from trierarch.settings.controller import ControllerSettings
from trierarch.settings.environment import run_program


def main() -> None:
    """Run the controller."""
    run(ControllerSettings.from_environment())


if __name__ == "__main__":
    sys.exit(run_program("trierarch controller", main))
