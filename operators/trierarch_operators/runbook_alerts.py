"""Every alert of the chart: how to find what is wrong, and what to do.

One page of ``docs/runbook`` is written for each; the alert's ``runbook_url`` leads there.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class AlertPage:
    """One alert.

    Attributes:
        meaning: What is the case.
        look: Where to see more.
        act: What to do.
    """

    meaning: str
    look: str
    act: str


_CONDITIONS = "`kubectl describe md NAME`, condition Progressing"
_EXPLAIN = "`trierarch explain --deployment NAMESPACE/NAME --last 3`"

ALERTS: dict[str, AlertPage] = {
    "TrierarchGatewayFailing": AlertPage(
        "More than one in twenty requests for a model have failed for five minutes.",
        "The label `code` of trierarch_gateway_requests_total; the gateway's log lines of that"
        f" code, which name the replica; {_CONDITIONS}.",
        "502: a replica breaks: follow the page of Progressing's reason, EngineFailed or RankLost."
        " 503: the queue is full: lift the limit that ScalingLimited names. 504: requests wait too"
        " long: as for 503, or a cold start is on its way.",
    ),
    "TrierarchQueueWithoutReplica": AlertPage(
        "Requests wait for a model that has had no ready replica for ten minutes.",
        f"{_CONDITIONS}; pods of the model that are pending or restart.",
        "Follow the page of Progressing's reason. With Starting, compare with the cold start that"
        f" {_EXPLAIN} believes in.",
    ),
    "TrierarchReplicaListStale": AlertPage(
        "A gateway has not been able to read the list of replicas for a minute. It serves on with"
        " the last one and knows of no replica that came since.",
        "The operator's pods and `/readyz`; network policies between gateway and operator.",
        "Bring the operator back. Nothing is lost meanwhile unless replicas change.",
    ),
    "TrierarchTelemetryDropped": AlertPage(
        "A gateway gives up traces or log lines because their reader is too slow. Requests and the"
        " ledger are not affected.",
        "The alert's label `reason`; the collector's own metrics.",
        "Make the collector faster or sample fewer traces.",
    ),
    "TrierarchReplicasMissing": AlertPage(
        "Fewer groups have served than were decided on for half an hour.",
        f"{_CONDITIONS}, and `status.variants[].waitingFor`.",
        "Follow the page of Progressing's reason: usually InsufficientCapacity, ImagePullFailed or"
        " EngineFailed.",
    ),
    "TrierarchSignalsStale": AlertPage(
        "What the autoscaler knows of a model is minutes old; it holds rather than guess.",
        "Condition MetricsFresh; `/api/v1/signals` of the gateway's admin port; `/metrics` of the"
        " engines; network policies.",
        "Make them reachable from the operator. Counts follow the load with the first fresh"
        " signal; until then set `spec.replicas` by hand if the load changes.",
    ),
    "TrierarchNoDecisions": AlertPage(
        "The autoscaler has not even decided to hold for ten minutes: it stands still.",
        "The operator's pods, their log, and the Lease trierarch-operator: who holds it, and when"
        " it was renewed.",
        "Restart the pod that holds the Lease; another takes over within the lease's time. Report"
        " the log: this should not happen.",
    ),
    "TrierarchCostAboveTarget": AlertPage(
        "A model has cost more per million tokens than its target for an hour.",
        f"Condition CostTargetMet; {_EXPLAIN}.",
        "Follow the page of CostTargetMet's reason: little load on minReplicas (DemandTooLow),"
        " prices (PricesTooHigh) or a tight objective (SLOTooTight).",
    ),
    "TrierarchLedgerDrift": AlertPage(
        "What capacity cost differs from what was allocated to requests, idleness and overhead.",
        "`trierarch report --by variant`, its drift; the log of the cost controller.",
        "This is a defect: keep the database and report it with the log. Serving is not affected.",
    ),
    "TrierarchBudgetBurnsFast": AlertPage(
        "A tenant spends so fast that its budget is used up before half of its period is over.",
        "`trierarch report --by tenant`; `GET /v1/usage` with a key of the tenant.",
        "Ask the tenant, lower its limits in the Tenant, or raise the budget.",
    ),
    "TrierarchBudgetUsedUp": AlertPage(
        "A tenant's budget is used up; its requests are treated as the budget's action says.",
        "`kubectl describe tenant NAME`; `trierarch report --by tenant`.",
        "Raise the budget, or wait for the next period.",
    ),
}
"""By name."""


def build_alert_pages() -> dict[str, str]:
    """Return every page by its file name."""
    return {f"{name}.md": _render(name, page) for name, page in sorted(ALERTS.items())}


def build_alert_index() -> list[str]:
    """Return the lines of the index."""
    lines = ["", "## Alerts", "", "| alert | meaning |", "|---|---|"]
    lines += [f"| [{name}]({name}.md) | {page.meaning} |" for name, page in sorted(ALERTS.items())]
    return lines


def _render(name: str, page: AlertPage) -> str:
    return (
        f"# {name}\n\nAlert of the chart's rules.\n\n{page.meaning}\n\n"
        f"**Look:** {page.look}\n\n**Do:** {page.act}\n"
    )
