"""``trierarch approve``: a person allows a deployment to cost more."""

from __future__ import annotations

import asyncio
from decimal import Decimal, InvalidOperation

import click

from trierarch.adapters.kubernetes import ClusterAccess, KubernetesApi, Refused
from trierarch.core.clock import SystemClock
from trierarch.core.errors import InvalidInput
from trierarch_operators.labels import APPROVAL_ANNOTATION
from trierarch_operators.resources import MODEL_DEPLOYMENTS

FIELD_MANAGER = "trierarch-approve"


@click.command()
@click.argument("deployment", metavar="NAMESPACE/NAME")
@click.option(
    "--hourly-cost",
    metavar="DOLLARS",
    help="Growth up to this cost per hour needs no further approval.",
)
@click.option("--revoke", is_flag=True, help="Take the approval back; nothing is removed for it.")
def approve(deployment: str, hourly_cost: str | None, revoke: bool) -> None:
    """Allow the model deployment NAMESPACE/NAME to grow above its approval limit.

    The limit is spec.scaling.approval.aboveHourlyCost. A decision that would exceed it waits
    with the reason ApprovalRequired; "kubectl describe md NAME" shows the amount it needs.
    """
    namespace, _, name = deployment.partition("/")
    if not namespace or not name:
        raise InvalidInput(f"NAMESPACE/NAME is needed, not '{deployment}'")
    if (hourly_cost is None) == (not revoke):
        raise InvalidInput("give --hourly-cost DOLLARS or --revoke, and not both")
    amount = None if hourly_cost is None else read_amount(hourly_cost)
    asyncio.run(_approve(namespace, name, amount))
    if amount is None:
        click.echo(f"{deployment}: no growth is approved any more")
    else:
        click.echo(f"{deployment}: approved up to {amount} dollars per hour")


def read_amount(text: str) -> str:
    """Return an amount as it is written into the annotation.

    Raises:
        InvalidInput: If it is no amount above zero.
    """
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(0)
    if not amount.is_finite() or amount <= 0:
        raise InvalidInput(f"--hourly-cost must be an amount above 0, not '{text}'")
    return f"{amount:f}"


async def _approve(namespace: str, name: str, amount: str | None) -> None:
    api = KubernetesApi(ClusterAccess.find(), FIELD_MANAGER, SystemClock().monotonic_seconds)
    try:
        await api.ask(
            "PATCH",
            MODEL_DEPLOYMENTS.path(namespace, name),
            {"metadata": {"annotations": {APPROVAL_ANNOTATION: amount}}},
            query={"fieldManager": FIELD_MANAGER},
            content_type="application/merge-patch+json",
        )
    except Refused as error:
        if error.status == 404:
            raise InvalidInput(f"there is no ModelDeployment {namespace}/{name}") from error
        raise
    finally:
        await api.close()
