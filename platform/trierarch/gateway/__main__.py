"""``python -m trierarch.gateway``: a gateway configured by its environment."""

from __future__ import annotations

import sys

from trierarch.core.errors import InvalidInput
from trierarch.gateway.process import run
from trierarch.settings.gateway import GatewaySettings


def main() -> int:
    """Run the gateway; return the exit code."""
    try:
        settings = GatewaySettings.from_environment()
    except InvalidInput as error:
        sys.stderr.write(f"trierarch gateway: {error}\n")
        return 2
    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
