"""``python -m trierarch.controller``: a controller configured by its environment."""

from __future__ import annotations

import sys

from trierarch.controller.process import run
from trierarch.core.errors import InvalidInput
from trierarch.settings.controller import ControllerSettings


def main() -> int:
    """Run the controller; return the exit code."""
    try:
        settings = ControllerSettings.from_environment()
    except InvalidInput as error:
        sys.stderr.write(f"trierarch controller: {error}\n")
        return 2
    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
