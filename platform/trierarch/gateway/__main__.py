"""``python -m trierarch.gateway``: a gateway configured by its environment."""

from __future__ import annotations

import sys

from trierarch.gateway.process import run
from trierarch.settings.environment import run_program
from trierarch.settings.gateway import GatewaySettings


def main() -> None:
    """Run the gateway."""
    run(GatewaySettings.from_environment())


if __name__ == "__main__":
    sys.exit(run_program("trierarch gateway", main))
