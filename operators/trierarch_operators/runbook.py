"""Every word that a condition may give as its reason: what it means and what to do.

One page of ``docs/runbook`` is written for each; a test fails for a reason without one.
"""

from __future__ import annotations

import dataclasses

from trierarch_operators.runbook_alerts import build_alert_index, build_alert_pages


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """One reason.

    Attributes:
        conditions: That may carry it.
        meaning: What is the case.
        look: Where to see more.
        act: What to do; "Nothing" where all is well.
    """

    conditions: tuple[str, ...]
    meaning: str
    look: str
    act: str


_DESCRIBE = "`kubectl describe md NAME`"
_PODS = "`kubectl get pods -l trierarch.dev/model-deployment=NAME`"
_EXPLAIN = "`trierarch explain --deployment NAMESPACE/NAME --last 1`"
_NOTHING = "Nothing."


def _well(conditions: tuple[str, ...], meaning: str) -> Page:
    return Page(conditions, meaning, _DESCRIBE, _NOTHING)


_LIMITED = ("ScalingLimited",)

PAGES: dict[str, Page] = {
    "Serving": _well(("Available",), "At least one whole group serves."),
    "NoReadyReplica": Page(
        ("Available",),
        "Groups are asked for and none of them serves yet, or any more.",
        f"{_PODS}, the condition Progressing, and the log of a pod's container `ray`.",
        "If Progressing is True with Starting, wait for the cold start. Otherwise follow the"
        " page of Progressing's reason. A pod that restarts tells why in its last log lines.",
    ),
    "ScaledToZero": Page(
        ("Available",),
        "No group is asked for: the deployment is idle and may scale to zero, or minReplicas and"
        " the decision are 0.",
        _EXPLAIN,
        "Nothing; the first request brings a group back. Set minReplicas to 1 to keep one.",
    ),
    "Suspended": Page(
        ("Available", "Progressing"),
        "`spec.suspend` is true, so no group runs.",
        _DESCRIBE,
        "Set `spec.suspend` to false to serve again.",
    ),
    "Starting": Page(
        ("Progressing",),
        "Groups are on their way: their pods are being made, placed, or are loading weights.",
        f"{_PODS}; `status.variants[].waitingFor` names what a group waits for.",
        "Wait for the cold start. If it takes much longer than before, look at image pulls and at"
        " the download of the weights.",
    ),
    "ImagePullFailed": Page(
        ("Progressing",),
        "A pod of a group or of its Ray head cannot get its image; the message has the words of"
        " the node.",
        f"{_PODS}; `kubectl describe pod NAME`, Events.",
        "Correct the chart's engine.image or `spec.podTemplate`, give the pull secret"
        " (imagePullSecrets), or make the registry reachable from the nodes. Kubernetes tries"
        " again by itself.",
    ),
    "OutOfMemory": Page(
        ("Progressing",),
        "A container was killed at its memory limit while its group started or served.",
        f"{_PODS}; the container's limits in `kubectl get pod NAME -o yaml`.",
        "Raise host.memory of the AcceleratorClass (it is per accelerator), or the limit of the"
        " container `ray` in `spec.podTemplate`. In CPU mode weights and cache are in this memory:"
        " kv-cache-memory-bytes in engineArgs sets the cache.",
    ),
    "ContainerFailed": Page(
        ("Progressing",),
        "A container of a group ends or cannot be made; the message has its name and its status.",
        "`kubectl logs POD -c CONTAINER --previous`; for the container `download` the log says"
        " which file or right is missing.",
        "Correct what the log names: the model's source, the token's Secret, a volume, or"
        " `spec.podTemplate`.",
    ),
    "EngineFailed": Page(
        ("Progressing",),
        "The engine of a group does not start, or has died; the message has its error. Ray Serve"
        " tries again by itself.",
        f"{_PODS}, the log of the container `ray` of the group's first pod; `kubectl describe"
        " rayservice`, applicationStatuses.",
        "Correct engineArgs as the error says: often a context that does not fit beside the"
        " weights (max-model-len), or an option that this vLLM does not know. What served before"
        " an update goes on meanwhile.",
    ),
    "RankLost": Page(
        ("Progressing",),
        "A rank of an expert-parallel group has ended. Experts lie on every rank, so the whole"
        " group ended with it and is made again; requests go to other groups meanwhile.",
        f"{_PODS}; the log of the container `ray` of the pod whose rank ended, and the node's"
        " state (`kubectl describe node`): lost links and memory errors of accelerators show"
        " there.",
        "Wait for the group to start again. If it is the same node each time, cordon it.",
    ),
    "Draining": _well(("Progressing",), "Groups finish their last answers before they go."),
    "Updating": Page(
        ("Progressing",),
        "The engine was changed. A second cluster is made beside the first. Once it serves both get"
        " requests, and if the new one fails no more of them than the old one for two minutes, the"
        " old one finishes its answers and goes. Until then both cost money. The operator's"
        " settings updateObservationSeconds and updateDeadlineSeconds say how long.",
        "`kubectl get pods -L ray.io/cluster`; `kubectl describe rayservice`, UpgradeInProgress.",
        "Wait. Put the change back to end the attempt. Where there is no room for both, remove a"
        " group first, or suspend and resume the deployment.",
    ),
    "RolledBack": Page(
        ("Progressing",),
        "An update was taken back: its groups failed too many requests, or Ray Serve gave up their"
        " start, or none served in time; the message has the numbers or the error. What served"
        " before goes on and is made whole again, and this update is not tried a second time.",
        f"{_PODS}; the log of the container `ray` of the update's pods, while they are there; the"
        " Event RolledBack.",
        "Correct the spec: any other change is tried anew. Putting the old spec back ends this"
        " condition. To try the very same again, put the old spec back first.",
    ),
    "Deleting": Page(
        ("Progressing",),
        "The object was deleted; running answers are finished first, then all is removed.",
        _PODS,
        "Wait, at most the operator's drainSeconds.",
    ),
    "Settled": _well(("Progressing",), "Everything is as it was decided."),
    "Paused": Page(
        ("Progressing",),
        "`spec.paused` is true: the operator changes nothing in the cluster and decides nothing.",
        _DESCRIBE,
        "Set `spec.paused` to false.",
    ),
    "InsufficientCapacity": Page(
        ("Progressing",),
        "A group could not be placed whole. What had been placed of it was given back, so that no"
        " half group holds accelerators, and it is tried again after a pause that doubles up to"
        " ten minutes.",
        "The condition's message has the scheduler's words: which resource, label or taint is"
        " missing. `kubectl get nodes -L nvidia.com/gpu.product`.",
        "Add nodes or quota, correct nodeSelector and tolerations of the AcceleratorClass, or"
        " offer a variant on other accelerators: the autoscaler takes it meanwhile.",
    ),
    "InvalidSpec": Page(
        ("Progressing",),
        "A field holds something that cannot be run; the message names it. What already runs is"
        " left as it is.",
        _DESCRIBE,
        "Correct the field. Options of vLLM that spread the model belong in parallelism, and not"
        " in engineArgs.",
    ),
    "AcceleratorClassMissing": Page(
        ("Progressing",),
        "A variant names an AcceleratorClass that this cluster does not have.",
        "`kubectl get accel`",
        "Create it, or name one of the list by its name or priceKey.",
    ),
    "NoLayout": Page(
        ("Progressing",),
        "No way of spreading the model fits: a rank is larger than a node, or the planner finds"
        " no layout within memory and the latency objective.",
        "`trierarch plan --model CONFIG_JSON --accelerator NAME` shows every layout and why not.",
        "Give data, tensor and expert yourself, relax the objective, or take an accelerator with"
        " more memory.",
    ),
    "ElasticUnavailable": Page(
        ("Progressing",),
        "engineArgs ask for elastic expert parallelism, in which a running group gets more or"
        " fewer ranks; the message says what stands against it here.",
        "[Decision 0012](../decisions/0012-whole-groups-scale.md)",
        "Remove enable-elastic-ep and elastic-ep-max-dp-size: the autoscaler adds and removes"
        " whole groups. For other sizes of a group give a second variant with another"
        " parallelism.data.",
    ),
    "NameTaken": Page(
        ("Progressing",),
        "A RayService of the name that this variant needs belongs to another object.",
        "`kubectl get rayservice NAME -o yaml`, ownerReferences.",
        "Rename the ModelDeployment or the variant. A RayService without an owner is adopted.",
    ),
    "RayServiceRefused": Page(
        ("Progressing",),
        "The API server refused the RayService; the message has its words.",
        "The log of the operator; quotas and admission policies of the namespace.",
        "Correct what the message names: often `spec.podTemplate`, a quota, or a policy.",
    ),
    "Fresh": _well(("MetricsFresh",), "Gateway and engines are heard of."),
    "MetricsMissing": Page(
        ("MetricsFresh", *_LIMITED),
        "Signals of the gateway or of a ready group are missing, so nothing is taken away: a"
        " metric that nobody has is not zero.",
        "`/readyz` and `/api/v1/signals` of the gateway's admin port; `/metrics` of the engine.",
        "Make the gateway reachable from the operator (network policies, gatewayAdminUrl).",
    ),
    "MetricsStale": Page(
        ("MetricsFresh", *_LIMITED),
        "Signals are older than staleAfterSeconds; counts are kept as they are.",
        "The gateway's pods and its admin port.",
        "Bring the gateway back. Counts follow the load again with the first fresh signal.",
    ),
    "WarmingUp": Page(
        ("MetricsFresh",),
        "Too little was measured since the start to decide on.",
        _EXPLAIN,
        "Wait for a few intervals.",
    ),
    "WithinLimits": _well(_LIMITED, "No limit keeps the count from being what load needs."),
    "MaxReplicas": Page(
        _LIMITED,
        "Load needs more groups than maxReplicas of the variants allow.",
        _EXPLAIN,
        "Raise maxReplicas, or accept that requests wait.",
    ),
    "MinReplicas": Page(
        (*_LIMITED, "CostTargetMet"),
        "Fewer groups would do, and minReplicas keeps them.",
        _EXPLAIN,
        "Lower minReplicas if the cost matters more than the reserve.",
    ),
    "Inventory": Page(
        _LIMITED,
        "The cluster or its quota has no more accelerators for a variant.",
        "`status.variants[].waitingFor`",
        "As for InsufficientCapacity.",
    ),
    "Budget": Page(
        _LIMITED,
        "A budget allows no more groups; ready, starting and draining ones all count.",
        _EXPLAIN,
        "Raise the budget, or wait for the next period.",
    ),
    "ApprovalRequired": Page(
        _LIMITED,
        "Growth would cost more per hour than may be spent without a person.",
        _EXPLAIN,
        "`trierarch approve NAMESPACE/NAME --hourly-cost DOLLARS`, or the annotation"
        " trierarch.dev/approved-hourly-cost.",
    ),
    "CostTarget": Page(
        _LIMITED,
        "With PreferCost, the tokens served now do not pay for more groups.",
        _EXPLAIN,
        "Raise the target, or set onConflict to PreferLatency.",
    ),
    "PricesMissing": Page(
        _LIMITED,
        "No price holds for a variant now, and what has no price fits no budget.",
        "`kubectl get pricebook -o yaml`; `trierarch prices check`.",
        "Add an entry for the accelerator's priceKey, capacity type and region.",
    ),
    "StepLimit": Page(
        _LIMITED,
        "More is needed than one decision may add or remove.",
        _EXPLAIN,
        "Nothing; the next decision goes on. scaling.behavior sets the steps.",
    ),
    "WithinObjective": _well(("SLOMet",), "Latencies are within the objective."),
    "AboveObjective": Page(
        ("SLOMet",),
        "A latency is above the objective at its percentile; the message has both.",
        f"{_EXPLAIN}; the dashboard of latencies.",
        "If ScalingLimited is True, lift that limit. Otherwise groups may be on their way.",
    ),
    "NoObjective": _well(("SLOMet",), "The deployment has no latency objective."),
    "NoSamples": _well(("SLOMet",), "No request ended in the window, so nothing is compared."),
    "AtOrBelowTarget": _well(("CostTargetMet",), "A million tokens cost at most the target."),
    "NoTarget": _well(("CostTargetMet",), "The deployment has no cost target."),
    "NoTokens": Page(
        ("CostTargetMet",),
        "There were no tokens or no prices in the window, so there is no unit cost.",
        "`trierarch report --by variant`; `kubectl get pricebook`.",
        "Nothing without traffic. With traffic, add the missing prices.",
    ),
    "DemandTooLow": Page(
        ("CostTargetMet",),
        "Too few tokens share the cost of the groups that must be there.",
        _EXPLAIN,
        "Allow scale to zero, lower minReplicas, or let flex requests fill the idle capacity.",
    ),
    "PricesTooHigh": Page(
        ("CostTargetMet",),
        "Even a full group costs more per million tokens than the target.",
        "`trierarch plan` shows the cost of a full group on each accelerator.",
        "Take cheaper accelerators or Spot, or raise the target.",
    ),
    "SLOTooTight": Page(
        ("CostTargetMet",),
        "The latency objective keeps batches so small that the target cannot be met.",
        _EXPLAIN,
        "Relax the objective, or raise the target.",
    ),
    "NoCheaperVariant": Page(
        ("CostTargetMet",),
        "All cheaper variants are at their bounds.",
        _EXPLAIN,
        "Raise maxReplicas of the cheaper variant, or add one.",
    ),
    "TenantMissing": Page(
        ("Event of a ModelDeployment",),
        "`spec.tenant` names a Tenant that its namespace does not have, so no tenant's budget"
        " limits the capacity.",
        "`kubectl get tenants`",
        "Create the Tenant, or correct `spec.tenant`.",
    ),
    "InForce": Page(
        ("Ready of a Tenant",),
        "Gateways enforce the tenant's models, limits and budgets.",
        "`kubectl describe tenant NAME`",
        _NOTHING,
    ),
    "LedgerMissing": Page(
        ("Ready of a Tenant",),
        "The operator has no ledger. Terms reach gateways through it, so nothing is enforced.",
        "`TRIERARCH_OPERATOR_LEDGER_URL` of the operator.",
        "Configure a ledger, the same for operator and gateways.",
    ),
    "TenantNameTaken": Page(
        ("Ready of a Tenant",),
        "Another namespace has an older Tenant of this name. API keys know a tenant by its name"
        " alone, so only the older one counts.",
        "`kubectl get tenants --all-namespaces`",
        "Delete one of the two, or rename it and make keys for the new name.",
    ),
    "NoBudget": Page(
        ("WithinBudget of a Tenant",),
        "No budget limits what the tenant spends.",
        "`trierarch report --by tenant`",
        _NOTHING,
    ),
    "BudgetLeft": Page(
        ("WithinBudget of a Tenant",),
        "Every budget has something left. From four fifths on, Throttle spreads the rest over the"
        " period.",
        "`kubectl describe tenant NAME`, `status.budgets`.",
        _NOTHING,
    ),
    "BudgetUsedUp": Page(
        ("WithinBudget of a Tenant",),
        "A budget is used up: with Block and Throttle requests are refused with"
        " insufficient_quota, with Downgrade a cheaper model answers.",
        "`kubectl describe tenant NAME`, `status.budgets`; `trierarch report --by tenant`.",
        "Raise the amount, or wait for the next period.",
    ),
}
"""By reason."""


def build_pages() -> dict[str, str]:
    """Return every page by its file name, and the index as ``README.md``."""
    pages = {f"{reason}.md": _render(reason, page) for reason, page in sorted(PAGES.items())}
    lines = [
        "# Runbook",
        "",
        "One page for each reason that a condition of a ModelDeployment or a Tenant may give, and"
        " one for each alert.",
        "Made by `make generate` from `trierarch_operators/runbook.py` and `runbook_alerts.py`.",
        "",
        "| reason | condition | meaning |",
        "|---|---|---|",
    ]
    for reason, page in sorted(PAGES.items()):
        lines.append(f"| [{reason}]({reason}.md) | {', '.join(page.conditions)} | {page.meaning} |")
    lines += build_alert_index()
    pages |= build_alert_pages()
    pages["README.md"] = "\n".join(lines) + "\n"
    return pages


def _render(reason: str, page: Page) -> str:
    conditions = " and ".join(page.conditions)
    return (
        f"# {reason}\n\nReason of the condition {conditions}.\n\n{page.meaning}\n\n"
        f"**Look:** {page.look}\n\n**Do:** {page.act}\n"
    )
