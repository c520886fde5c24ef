"""``trierarch operator``."""

from __future__ import annotations

import click

from trierarch.settings.operator import OperatorSettings
from trierarch_operators.process import run


@click.command()
def operator() -> None:
    """Run the operator: ModelDeployments become RayServices that scale and cost what they should.

    It is configured by environment variables that begin with TRIERARCH_OPERATOR_, finds its
    cluster as kubectl does (the pod's service account, or else KUBECONFIG), and runs until
    Ctrl-C. Several may run side by side; one of them acts. The chart starts it for you.
    """
    run(OperatorSettings.from_environment())
