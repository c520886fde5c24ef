"""``trierarch gateway``: the gateway as a process of its own."""

from __future__ import annotations

import click


@click.command()
def gateway() -> None:
    """Run the gateway alone, configured by TRIERARCH_GATEWAY_* variables.

    The same as `python -m trierarch.gateway`. It serves until SIGTERM or Ctrl-C and then lets
    running answers end. The variables and their meaning are in trierarch/settings/gateway.py;
    the least it needs is TRIERARCH_GATEWAY_LEDGER_URL, TRIERARCH_GATEWAY_SPOOL_DIR and
    TRIERARCH_GATEWAY_REPLICAS_URL.
    """
    from trierarch.gateway.process import run
    from trierarch.settings.gateway import GatewaySettings

    run(GatewaySettings.from_environment())
