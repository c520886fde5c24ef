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

DECISIONS_FILE = "decisions.jsonl"


def find_changes(ledger: Ledger, deployment: str | None, last: int) -> list[dict[str, Any]]:
    """Return the last decisions that changed a count; the last of all if none ever did."""
    wanted = last
    while True:
        # Holds lie between changes; look back twice as far each time.
        wanted *= 8
        records = ledger.decisions(deployment=deployment, last=wanted)
        changes = _changes(records)
        if len(changes) >= last or len(records) < wanted:
            return changes[-last:] or records[-last:]


def read_decisions(path: Path) -> list[dict[str, Any]]:
    """Return the decisions that a simulation wrote, oldest first.

    Args:
        path: ``decisions.jsonl``, or the folder with it.

    Raises:
        InvalidInput: If it cannot be read or holds something else.
    """
    file = path / DECISIONS_FILE if path.is_dir() else path
    records = []
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                record = json.loads(line)
                if not isinstance(record, dict) or "id" not in record:
                    raise InvalidInput(f"{file} line {number}: not a decision")
                records.append(record)
    except FileNotFoundError as error:
        raise InvalidInput(
            f"{file}: no such file; write one with: trierarch simulate --policy trierarch --out DIR"
        ) from error
    except OSError as error:
        raise InvalidInput(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InvalidInput(f"{file}: not a file of decisions ({error})") from error
    return records


def _changes(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record.get("replicas") != record.get("previous")]


def _from_file(
    path: Path, decision_id: str | None, deployment: str | None, last: int, with_holds: bool
) -> list[dict[str, Any]]:
    """Return what the same options choose from a ledger."""
    records = read_decisions(path)
    if deployment is not None:
        records = [record for record in records if record.get("deployment") == deployment]
    if decision_id is not None:
        return [record for record in records if record["id"] == decision_id]
    changes = records if with_holds else _changes(records) or records
    return changes[-last:]


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
@click.option(
    "--decisions",
    "decisions_path",
    type=click.Path(path_type=Path),
    default=None,
    metavar="DIR",
    help="Instead of a ledger: what `trierarch simulate --policy trierarch --out DIR` wrote.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
@ledger_options
def explain(
    decision_id: str | None,
    deployment: str | None,
    last: int,
    with_holds: bool,
    decisions_path: Path | None,
    as_json: bool,
    data_dir: Path | None,
    ledger_address: str | None,
) -> None:
    """Tell what a scaling decision saw, what each step did, and what bound.

    DECISION_ID is the id in the log or in a trace. Without it the last decision is told that
    changed the number of replicas; if none ever did, the last one of all.
    """
    if decisions_path is not None:
        records = _from_file(decisions_path, decision_id, deployment, last, with_holds)
    else:
        with open_ledger(data_dir, ledger_address, create=False) as ledger:
            if decision_id is not None or with_holds:
                records = ledger.decisions(
                    deployment=deployment, last=last, decision_id=decision_id
                )
            else:
                records = find_changes(ledger, deployment, last)
    if decision_id is not None and not records:
        place = "the ledger" if decisions_path is None else str(decisions_path)
        raise InvalidInput(f"there is no decision '{decision_id}' in {place}")
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
