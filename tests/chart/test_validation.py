"""What the chart refuses, and the sentence it says."""

from __future__ import annotations

from typing import Any

import pytest
from tests.chart.chart import CASES, CHART, CPU_VALUES, Helm, Refused


@pytest.mark.parametrize("values", [*CASES, CPU_VALUES], ids=lambda path: path.stem)
def test_helm_lint_finds_nothing(helm: Helm, values: Any) -> None:
    helm.run("lint", CHART, "--strict", "--values", values)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"ledger": {"existingSecret": {"name": "mine"}}},
            "Two ledgers: ledger.existingSecret.name is 'mine' and postgresql.enabled is true.",
        ),
        ({"postgresql": {"enabled": False}}, "No ledger: set ledger.existingSecret.name"),
        ({"operator": {"enabled": False}}, "The gateway has no list of replicas"),
        (
            {"gateway": {"ingress": {"enabled": True}}},
            "gateway.ingress.enabled is true but gateway.ingress.hosts is empty",
        ),
        (
            {"gateway": {"httpRoute": {"enabled": True}}},
            "gateway.httpRoute.enabled is true but gateway.httpRoute.parentRefs is empty",
        ),
        (
            {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 9}}},
            "gateway.autoscaling.minReplicas (9) is above gateway.autoscaling.maxReplicas (8)",
        ),
        (
            {"gateway": {"autoscaling": {"enabled": True}}},
            "gateway.resources.requests.cpu is not set",
        ),
        (
            {"gateway": {"service": {"nodePort": 30000}}},
            "gateway.service.nodePort is set but gateway.service.type is ClusterIP",
        ),
        ({"rbac": {"namespaces": ["a"]}}, "rbac.namespaces is set but rbac.scope is cluster"),
        (
            {"operator": {"serviceAccount": {"create": False}}},
            "would be bound to the namespace's default account",
        ),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_values_that_cannot_go_together_are_refused_with_a_sentence(
    helm: Helm, values: dict[str, Any], says: str
) -> None:
    with pytest.raises(Refused) as refused:
        helm.render(values)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"gatway": {}}, "gatway"),
        ({"gateway": {"replica": 2}}, "replica"),
        ({"gateway": {"replicas": 0}}, "/gateway/replicas"),
        ({"gateway": {"settings": {"queueTimeout": 1}}}, "queueTimeout"),
        ({"gateway": {"settings": {"queueTimeoutSeconds": 0}}}, "queueTimeoutSeconds"),
        ({"gateway": {"settings": {"port": 80}}}, "port"),
        ({"gateway": {"settings": {"logLevel": "loud"}}}, "logLevel"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"rbac": {"scope": "world"}}, "/rbac/scope"),
        ({"postgresql": {"persistence": {"size": "much"}}}, "/postgresql/persistence/size"),
        ({"tracing": {"otlpEndpoint": "collector:4318"}}, "/tracing/otlpEndpoint"),
    ],
)
def test_the_schema_names_what_is_wrong(helm: Helm, values: dict[str, Any], where: str) -> None:
    with pytest.raises(Refused) as refused:
        helm.render(values)
    assert "don't meet the specifications of the schema" in str(refused.value)
    assert where in str(refused.value)


def test_charts_around_this_one_may_set_global_values(helm: Helm) -> None:
    assert helm.render({"global": {"region": "eu"}}).all("Deployment")
