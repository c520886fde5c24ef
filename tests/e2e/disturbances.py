"""What clients of a release see while parts of it die, and what the ledger holds then."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

from tests.cluster.node.fixtures import wait_for
from tests.e2e.clients import Clients, End
from tests.e2e.release import MODEL, Release

TENANT = "clients"
"""Only the clients here ask in its name, so that its row in the ledger is theirs."""

QUESTION = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 24,
    "temperature": 0,
}


def expect_a_kill_to_cost_no_answer(release: Release, clients: Clients, component: str) -> None:
    """Kill a component while clients ask, and balance the ledger."""
    clients.expect_answers()
    began_seconds = time.monotonic()
    back_seconds = release.kill(component)
    clients.expect_answers()
    seen = clients.describe(began_seconds)
    print(f"{component} was ready {back_seconds:.0f} s after SIGKILL; clients saw {seen}")
    # A stream ends with the process it runs through; no other component is one.
    through_it = clients.count if component == "gateway" else 0
    assert len(clients.ended(End.CUT, began_seconds)) <= through_it, seen
    if component != "gateway":
        assert not clients.ended(End.REFUSED, began_seconds), seen
    expect_a_balanced_ledger(release, clients)


def expect_a_dead_node_to_cost_no_answer(release: Release, clients: Clients) -> None:
    """Take the power of a node with one of two groups away while clients ask."""
    heads, engines = release.nodes_of("head"), release.nodes_of("engine")
    # Ray's head holds its cluster together: a group outlives it for a minute only.
    victims = sorted(engines - heads)
    assert victims, f"groups on {engines}, Ray's head on {heads}\n{release.explain()}"
    assert len(engines) == 2, release.explain()
    clients.expect_answers()
    began_seconds = time.monotonic()
    with release.cluster.faults.kill_node(victims[0]):
        clients.expect_answers()
        seen = clients.describe(began_seconds)
        off_seconds = time.monotonic() - began_seconds
    print(f"a node with a group was off for {off_seconds:.0f} s; clients saw {seen}")
    # What came from there goes on on the other group, in the same stream.
    assert not clients.ended(End.CUT, began_seconds), seen
    assert not clients.ended(End.REFUSED, began_seconds), seen
    expect_a_balanced_ledger(release, clients)


def expect_a_balanced_ledger(release: Release, clients: Clients) -> None:
    """Compare the ledger with what clients were told, and its cost with its parts."""
    told = sum(one.output_tokens for one in list(clients.answers))
    found: dict[str, Any] = {}

    def balances() -> bool:
        report = release.report()
        [row] = [row for row in report["rows"] if row["tenant"] == TENANT] or [{}]
        found.update(report["total"], drift=report["unallocated_drift_usd"], row=row)
        # The clients go on: what they were told since is more, and what they wait for too.
        return int(row.get("output_tokens", 0)) >= told

    wait_for(balances, 60, describe=lambda: f"clients were told {told} tokens, ledger: {found}")
    assert Decimal(found["drift"]) == 0, found
