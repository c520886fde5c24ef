"""What clients of a release see while parts of it die, and what the ledger holds then."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

from tests.cluster.node.fixtures import wait_for
from tests.e2e.clients import Answer, Clients, End
from tests.e2e.release import MODEL, Release

TENANT = "clients"
"""Only the clients here ask in its name, so that its row in the ledger is theirs."""

QUESTION = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 24,
    "temperature": 0,
}


def expect_kills_to_cost_no_answer(release: Release, key: str) -> None:
    """Kill each component while clients ask, and balance the ledger after each.

    Args:
        release: With a model that serves.
        key: Of the tenant ``TENANT``, which nobody else uses.
    """
    with Clients(release.url, key, QUESTION, 2) as clients:
        clients.expect_answers()
        for component in ("operator", "postgresql", "gateway"):
            began_seconds = time.monotonic()
            back_seconds = release.kill(component)
            clients.expect_answers()
            seen = clients.describe(began_seconds)
            print(f"{component} was ready {back_seconds:.0f} s after SIGKILL; clients saw {seen}")
            # A stream ends with the process it runs through; no other component is one.
            if component != "gateway":
                assert not clients.ended(End.CUT, began_seconds), seen
            expect_a_balanced_ledger(release, clients.answers)
    expect_a_balanced_ledger(release, clients.answers)


def expect_a_balanced_ledger(release: Release, answers: list[Answer]) -> None:
    """Compare the ledger with what clients were told, and its cost with its parts."""
    told = sum(one.output_tokens for one in list(answers))
    found: dict[str, Any] = {}

    def balances() -> bool:
        report = release.report()
        [row] = [row for row in report["rows"] if row["tenant"] == TENANT] or [{}]
        found.update(report["total"], drift=report["unallocated_drift_usd"], row=row)
        # The clients go on: what they were told since is more, and what they wait for too.
        return int(row.get("output_tokens", 0)) >= told

    wait_for(balances, 60, describe=lambda: f"clients were told {told} tokens, ledger: {found}")
    assert Decimal(found["drift"]) == 0, found
