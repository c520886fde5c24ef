"""``trierarch explain``: why the autoscaler decided what it decided."""

from __future__ import annotations

import json
from pathlib import Path

import click

from trierarch.cli.ledger_options import ledger_options, open_ledger
from trierarch.core.errors import InvalidInput


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
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
@ledger_options
def explain(
    decision_id: str | None,
    deployment: str | None,
    last: int,
    as_json: bool,
    data_dir: Path | None,
    ledger_address: str | None,
) -> None:
    """Tell what a scaling decision saw, what each step did, and what bound.

    DECISION_ID is the id in the log or in a trace; without it the last decision is told.
    """
    with open_ledger(data_dir, ledger_address, create=False) as ledger:
        records = ledger.decisions(deployment=deployment, last=last, decision_id=decision_id)
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
