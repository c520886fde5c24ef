"""``trierarch explain``: why the autoscaler decided what it decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trierarch.cli.ledger_options import ledger_options, open_ledger
from trierarch.core.errors import InvalidInput

if TYPE_CHECKING:
    from trierarch.adapters.ledger import Ledger


def find_changes(ledger: Ledger, deployment: str | None, last: int) -> list[dict[str, Any]]:
    """Return the last decisions that changed a count; the last of all if none ever did."""
    wanted = last
    while True:
        # Holds lie between changes; look back twice as far each time.
        wanted *= 8
        records = ledger.decisions(deployment=deployment, last=wanted)
        changes = [r for r in records if r.get("replicas") != r.get("previous")]
        if len(changes) >= last or len(records) < wanted:
            return changes[-last:] or records[-last:]


@click.command()
@click.argument("decision_id", required=False, default=None)
@click.option("--deployment", default=None, metavar="NS/NAME", help="Only this model deployment's.")
@click.option(
    "--last",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="So many, the newest at the end.",
)
@click.option(
    "--all",
    "with_holds",
    is_flag=True,
    help="Also decisions that left the number of replicas as it was.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
@ledger_options
def explain(
    decision_id: str | None,
    deployment: str | None,
    last: int,
    with_holds: bool,
    as_json: bool,
    data_dir: Path | None,
    ledger_address: str | None,
) -> None:
    """Tell what a scaling decision saw, what each step did, and what bound.

    DECISION_ID is the id in the log or in a trace. Without it the last decision is told that
    changed the number of replicas; if none ever did, the last one of all.
    """
    with open_ledger(data_dir, ledger_address, create=False) as ledger:
        if decision_id is not None or with_holds:
            records = ledger.decisions(deployment=deployment, last=last, decision_id=decision_id)
        else:
            records = find_changes(ledger, deployment, last)
    if decision_id is not None and not records:
        raise InvalidInput(f"there is no decision '{decision_id}' in the ledger")
    if as_json:
        click.echo(json.dumps(records, indent=2, default=str))
        return
    if not records:
        whose = f" for {deployment}" if deployment is not None else ""
        click.echo(f"No decision has been recorded{whose} yet.")
        return
    from trierarch.autoscaling.decision import ScalingDecision
    from trierarch.autoscaling.explanation import explain as word_decision

    click.echo("\n\n".join(word_decision(ScalingDecision.from_record(r)) for r in records))
