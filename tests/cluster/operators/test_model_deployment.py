"""A model deployment becomes RayServices and stays what it says, on a real API server."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from .conftest import ApiError, Cluster, StartOperator, run_operator, wait_for

pytestmark = pytest.mark.cluster

DEPLOYMENTS = "/apis/trierarch.dev/v1alpha1/namespaces/{}/modeldeployments/{}"
SERVICES = "/apis/ray.io/v1/namespaces/{}/rayservices/{}"
MERGE = "application/merge-patch+json"


@pytest.fixture
def accelerator(cluster: Cluster) -> Iterator[str]:
    """Yield the name of an accelerator class that only this test uses."""
    name = f"h200-{secrets.token_hex(3)}"
    cluster.apply(accelerator_class(name))
    yield name
    cluster.ask("DELETE", f"/apis/trierarch.dev/v1alpha1/acceleratorclasses/{name}")


def accelerator_class(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "trierarch.dev/v1alpha1",
        "kind": "AcceleratorClass",
        "metadata": {"name": name},
        "spec": {"priceKey": name, "resourceName": "nvidia.com/gpu", "memory": "141Gi"},
    }


def deployment(accelerator: str, name: str = "chat", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trierarch.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": "m", "source": "hf://org/m"},
            "variants": [
                {
                    "name": "h200",
                    "accelerator": accelerator,
                    "parallelism": {"data": 8, "expert": True},
                    "minReplicas": 1,
                    "maxReplicas": 4,
                }
            ],
            **spec,
        },
    }


def wait_for_service(cluster: Cluster, namespace: str, name: str = "chat-h200") -> dict[str, Any]:
    found: dict[str, Any] = wait_for(
        lambda: cluster.get("RayService", namespace, name), f"RayService {name}"
    )
    return found


def condition(cluster: Cluster, namespace: str, kind: str, name: str = "chat") -> tuple[str, str]:
    found = cluster.get("ModelDeployment", namespace, name) or {}
    for one in found.get("status", {}).get("conditions", ()):
        if one["type"] == kind:
            return one["status"], one["reason"]
    return "", ""


def wait_for_reason(
    cluster: Cluster, namespace: str, kind: str, reason: str, name: str = "chat"
) -> None:
    wait_for(
        lambda: condition(cluster, namespace, kind, name)[1] == reason,
        f"{kind} to say {reason}",
    )


def reasons(cluster: Cluster, namespace: str) -> set[str]:
    return {event["reason"] for event in cluster.list("Event", namespace)}


@pytest.fixture(scope="module")
def shared_namespace(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield a namespace that one operator looks after during the whole module."""
    folder = tmp_path_factory.mktemp("operator")
    with cluster.server.new_namespace() as name:
        operator = run_operator(cluster, name, folder)
        try:
            operator.wait_until_it_leads()
            yield name
        finally:
            operator.kill()


@pytest.fixture
def place(cluster: Cluster, shared_namespace: str) -> Iterator[str]:
    """Yield the shared namespace and empty it after the test."""
    yield shared_namespace
    for kind, path in (("ModelDeployment", DEPLOYMENTS), ("RayService", SERVICES)):
        for found in cluster.list(kind, shared_namespace):
            with contextlib.suppress(ApiError):  # the operator may have been faster
                cluster.ask("DELETE", path.format(shared_namespace, found["metadata"]["name"]))
    wait_for(
        lambda: (
            not cluster.list("ModelDeployment", shared_namespace)
            and not cluster.list("RayService", shared_namespace)
        ),
        "the namespace to be empty",
    )


def test_a_deployment_becomes_a_rayservice_and_says_so(
    cluster: Cluster, place: str, accelerator: str
) -> None:
    made = cluster.apply(deployment(accelerator), place)
    service = wait_for_service(cluster, place)
    (owner,) = service["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("ModelDeployment", made["metadata"]["uid"])
    group = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    assert (group["replicas"], group["numOfHosts"]) == (1, 1)
    wait_for_reason(cluster, place, "Available", "NoReadyReplica")
    found = cluster.get("ModelDeployment", place, "chat")
    assert found is not None
    status = found["status"]
    assert status["observedGeneration"] == found["metadata"]["generation"]
    assert status["variants"][0]["layout"] == "DP8+EP8"
    assert status["desiredReplicas"] == 1
    wait_for(lambda: "RayServiceCreated" in reasons(cluster, place), "an Event")


def test_only_our_field_manager_owns_what_was_applied(
    cluster: Cluster, place: str, accelerator: str
) -> None:
    cluster.apply(deployment(accelerator), place)
    managers = {m["manager"] for m in wait_for_service(cluster, place)["metadata"]["managedFields"]}
    assert managers == {"trierarch-model-deployment"}


def test_what_others_change_is_repaired_and_what_they_add_stays(
    cluster: Cluster, place: str, accelerator: str
) -> None:
    cluster.apply(deployment(accelerator), place)
    wait_for_service(cluster, place)
    path = SERVICES.format(place, "chat-h200")
    change = {
        "metadata": {"annotations": {"team": "search"}},
        "spec": {"rayClusterDeletionDelaySeconds": 999},
    }
    cluster.ask("PATCH", path, change, content_type=MERGE)

    def is_repaired() -> bool:
        found = cluster.get("RayService", place, "chat-h200")
        return found is not None and found["spec"]["rayClusterDeletionDelaySeconds"] == 3600

    wait_for(is_repaired, "the field to be repaired")
    found = cluster.get("RayService", place, "chat-h200")
    assert found is not None
    assert found["metadata"]["annotations"]["team"] == "search"
    cluster.ask("DELETE", path)

    def is_made_again() -> bool:
        again = cluster.get("RayService", place, "chat-h200")
        return again is not None and again["metadata"]["uid"] != found["metadata"]["uid"]

    wait_for(is_made_again, "the RayService to be made again")


def test_a_change_of_the_engine_reaches_the_rayservice(
    cluster: Cluster, place: str, accelerator: str
) -> None:
    cluster.apply(deployment(accelerator), place)
    wait_for_service(cluster, place)
    changed = deployment(accelerator)
    changed["spec"]["variants"][0]["engineArgs"] = {"max-model-len": 16384}
    cluster.apply(changed, place)

    def engine() -> dict[str, Any]:
        service = wait_for_service(cluster, place)
        serve = yaml.safe_load(service["spec"]["serveConfigV2"])
        return dict(serve["applications"][0]["args"]["engine"])

    wait_for(lambda: engine()["max_model_tokens"] == 16384, "the new engine arguments")


def test_a_restart_writes_nothing(
    cluster: Cluster, namespace: str, accelerator: str, start_operator: StartOperator
) -> None:
    names = [f"chat-{number}" for number in range(5)]
    first = start_operator()
    first.wait_until_it_leads()
    for name in names:
        cluster.apply(deployment(accelerator, name), namespace)
    for name in names:
        wait_for_service(cluster, namespace, f"{name}-h200")
        wait_for_reason(cluster, namespace, "Available", "NoReadyReplica", name)

    def versions() -> dict[str, str]:
        return {
            f"{kind} {one['metadata']['name']}": one["metadata"]["resourceVersion"]
            for kind in ("ModelDeployment", "RayService", "Event")
            for one in cluster.list(kind, namespace)
        }

    first.stop()
    before = versions()
    second = start_operator()
    second.wait_until_it_leads()
    # One more is made to know that the second one has come to work.
    cluster.apply(deployment(accelerator, "last"), namespace)
    wait_for_service(cluster, namespace, "last-h200")
    after = versions()
    assert {name: after[name] for name in before} == before


def test_paused_changes_nothing_and_suspended_runs_nothing(
    cluster: Cluster, place: str, accelerator: str
) -> None:
    cluster.apply(deployment(accelerator, paused=True), place)
    wait_for_reason(cluster, place, "Progressing", "Paused")
    assert cluster.list("RayService", place) == []
    cluster.apply(deployment(accelerator, suspend=True), place)
    service = wait_for_service(cluster, place)
    assert service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["replicas"] == 0
    assert yaml.safe_load(service["spec"]["serveConfigV2"])["applications"] == []
    wait_for_reason(cluster, place, "Available", "Suspended")


def test_a_variant_that_is_taken_out_loses_its_rayservice(
    cluster: Cluster, place: str, accelerator: str
) -> None:
    two = deployment(accelerator)
    two["spec"]["variants"].append({"name": "spot", "accelerator": accelerator})
    cluster.apply(two, place)
    wait_for_service(cluster, place, "chat-spot")
    cluster.apply(deployment(accelerator), place)
    wait_for(lambda: cluster.get("RayService", place, "chat-spot") is None, "it to go")
    assert cluster.get("RayService", place, "chat-h200") is not None


def test_a_deleted_deployment_leaves_nothing(
    cluster: Cluster, place: str, accelerator: str
) -> None:
    cluster.apply(deployment(accelerator), place)
    wait_for_service(cluster, place)
    cluster.ask("DELETE", DEPLOYMENTS.format(place, "chat"))
    wait_for(lambda: cluster.get("ModelDeployment", place, "chat") is None, "the end")
    assert cluster.list("RayService", place) == []


def test_a_missing_accelerator_class_is_said_and_its_arrival_is_noticed(
    cluster: Cluster, place: str
) -> None:
    name = f"b300-{secrets.token_hex(3)}"
    cluster.apply(deployment(name), place)
    wait_for_reason(cluster, place, "Progressing", "AcceleratorClassMissing")
    assert cluster.list("RayService", place) == []
    cluster.apply(accelerator_class(name))
    try:
        wait_for_service(cluster, place)
    finally:
        cluster.ask("DELETE", f"/apis/trierarch.dev/v1alpha1/acceleratorclasses/{name}")


def rayservice(name: str, **metadata: Any) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "ray", "image": "old"}]}}
    head = {"rayStartParams": {}, "template": template}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": name, **metadata},
        "spec": {"rayClusterConfig": {"headGroupSpec": head}},
    }


def test_an_existing_rayservice_without_an_owner_is_adopted(
    cluster: Cluster, place: str, accelerator: str
) -> None:
    before = cluster.apply(rayservice("chat-h200"), place)
    cluster.apply(deployment(accelerator), place)

    def is_ours() -> bool:
        found = cluster.get("RayService", place, "chat-h200") or {}
        owners = found.get("metadata", {}).get("ownerReferences", ())
        return bool(owners) and found["metadata"]["uid"] == before["metadata"]["uid"]

    wait_for(is_ours, "the RayService to be adopted")


def test_a_rayservice_of_somebody_else_is_left_alone(
    cluster: Cluster, place: str, accelerator: str
) -> None:
    owner = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "other",
        "controller": True,
        "uid": cluster.ask(
            "POST",
            f"/api/v1/namespaces/{place}/configmaps",
            {"metadata": {"name": "other"}},
        )["metadata"]["uid"],
    }
    cluster.apply(
        rayservice(
            "chat-h200",
            ownerReferences=[owner],
            labels={
                "trierarch.dev/model-deployment": "chat",
                "trierarch.dev/variant": "h200",
            },
        ),
        place,
    )
    cluster.apply(deployment(accelerator), place)
    wait_for_reason(cluster, place, "Progressing", "NameTaken")
    found = cluster.get("RayService", place, "chat-h200")
    assert found is not None
    assert found["metadata"]["ownerReferences"] == [owner]


def test_another_operator_takes_over_when_the_leader_is_killed(
    cluster: Cluster, namespace: str, accelerator: str, start_operator: StartOperator
) -> None:
    first = start_operator()
    first.wait_until_it_leads()
    second = start_operator()
    wait_for(lambda: second.readiness().get("synced"), "the second operator to be ready")
    assert not second.readiness()["leads"]
    first.kill()
    cluster.apply(deployment(accelerator), namespace)
    wait_for_service(cluster, namespace)
    assert second.readiness()["leads"]
    lease = cluster.get("Lease", namespace, "trierarch-operator")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == "operator-1"
    created = [e for e in cluster.list("Event", namespace) if e["reason"] == "RayServiceCreated"]
    assert len(created) == 1


def test_a_clean_end_hands_the_lease_over_at_once(
    cluster: Cluster, namespace: str, start_operator: StartOperator
) -> None:
    first = start_operator()
    first.wait_until_it_leads()
    first.stop()
    lease = cluster.get("Lease", namespace, "trierarch-operator")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""


def test_a_crash_of_the_api_server_is_survived(
    cluster: Cluster, namespace: str, accelerator: str, start_operator: StartOperator
) -> None:
    tier = cluster.server.tier
    if tier is None:
        pytest.skip("KUBECONFIG_FOR_TESTS names a cluster whose processes are not ours to end")
    operator = start_operator(RESYNC_SECONDS="5")
    operator.wait_until_it_leads()
    cluster.apply(deployment(accelerator), namespace)
    wait_for_service(cluster, namespace)
    tier.kill_api_server()
    tier.start_api_server()
    wait_for(lambda: operator.readiness().get("leads"), "the operator to lead again")
    cluster.apply(deployment(accelerator, "after"), namespace)
    wait_for_service(cluster, namespace, "after-h200")
    path = SERVICES.format(namespace, "chat-h200")
    cluster.ask("DELETE", path)
    wait_for_service(cluster, namespace)
