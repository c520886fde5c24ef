"""RayServices: golden files for the fleets we know, and what each of them must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from trierarch.api.v1alpha1.model_deployment import ModelDeployment
from trierarch.core.errors import InvalidInput
from trierarch.hardware.layouts import Layout
from trierarch.serving.specification import EngineSpec
from trierarch_operators.group_plan import (
    GroupPlan,
    choose_layout,
    find_class,
    parse_quantity,
    plan_group,
)
from trierarch_operators.model_deployment.engine import parse_source
from trierarch_operators.model_deployment.manifests import Counts, fingerprint, ray_service_name
from trierarch_operators.model_deployment.pod_templates import merge
from trierarch_operators.model_deployment.reconcile import empty_serve_config

from .deployments import (
    DEPLOYMENTS,
    GOLDEN,
    accelerator_classes,
    build_ray_services,
    render,
)

MODELS = Path(__file__).resolve().parents[3] / "platform/trierarch/hardware/models"


def worker_group(service: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    return found


def limits(service: dict[str, Any]) -> dict[str, str]:
    container = worker_group(service)["template"]["spec"]["containers"][0]
    found: dict[str, str] = container["resources"]["limits"]
    return found


def serve(service: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"][0]
    return found


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_manifests_are_the_golden_ones(name: str) -> None:
    assert render(name) == (GOLDEN / f"{name}.yaml").read_text(), (
        "look at the difference, then run python -m tests.unit.operators.deployments"
    )


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_head_takes_no_accelerator_and_no_replica(name: str) -> None:
    for service in build_ray_services(name):
        head = service["spec"]["rayClusterConfig"]["headGroupSpec"]
        assert head["rayStartParams"]["num-cpus"] == head["rayStartParams"]["num-gpus"] == "0"
        resources = head["template"]["spec"]["containers"][0]["resources"]
        assert set(resources["limits"]) == {"cpu", "memory"}


def test_a_pod_that_is_deleted_lets_its_answers_end() -> None:
    (service,) = build_ray_services("one-node-h200-ep8")
    pod = worker_group(service)["template"]["spec"]
    drain_seconds = serve(service)["args"]["drain_seconds"]
    # Ray ends replicas after half a minute otherwise, whatever Serve and the kubelet would wait.
    assert {v["name"]: v["value"] for v in pod["containers"][0]["env"]} == {
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(int(drain_seconds)),
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
    }
    assert pod["terminationGracePeriodSeconds"] > drain_seconds


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_no_program_of_a_pod_is_process_1_which_hears_no_signal_until_it_listens(name: str) -> None:
    for service in build_ray_services(name):
        cluster = service["spec"]["rayClusterConfig"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            assert group["template"]["spec"]["shareProcessNamespace"] is True


@pytest.mark.parametrize(
    ("name", "hosts", "resource", "per_host"),
    [
        ("one-node-h200-ep8", 1, "nvidia.com/gpu", "8"),
        ("two-nodes-h200-ep16", 2, "nvidia.com/gpu", "8"),
        ("rack-gb200-nvl72", 18, "nvidia.com/gpu", "4"),
        ("mi355x", 1, "amd.com/gpu", "8"),
    ],
)
def test_a_group_takes_whole_nodes_of_its_resource(
    name: str, hosts: int, resource: str, per_host: str
) -> None:
    service = build_ray_services(name)[0]
    assert worker_group(service)["numOfHosts"] == hosts
    assert limits(service)[resource] == per_host
    assert worker_group(service)["rayStartParams"]["num-gpus"] == per_host


def test_a_group_that_fits_into_an_nvlink_domain_must_be_in_one() -> None:
    template = worker_group(build_ray_services("rack-gb200-nvl72")[0])["template"]
    affinity = template["spec"]["affinity"]["podAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "nvidia.com/gpu.clique"
    assert term["matchLabelKeys"] == ["ray.io/worker-group-replica-name"]


def test_a_group_wider_than_a_node_gets_network_cards_and_a_narrow_one_none() -> None:
    assert limits(build_ray_services("two-nodes-h200-ep16")[0])["rdma/hca_shared_devices_a"] == "8"
    assert "rdma/hca_shared_devices_a" not in limits(build_ray_services("one-node-h200-ep8")[0])


def test_spot_and_on_demand_groups_go_to_their_own_nodes() -> None:
    spot, steady = (
        worker_group(service)["template"]["spec"]
        for service in build_ray_services("spot-and-on-demand")
    )
    assert spot["nodeSelector"]["karpenter.sh/capacity-type"] == "spot"
    assert {"key": "spot", "operator": "Exists"} in spot["tolerations"]
    assert steady["nodeSelector"]["karpenter.sh/capacity-type"] == "on-demand"
    assert all(toleration["key"] != "spot" for toleration in steady["tolerations"])


def test_only_the_counts_differ_when_a_deployment_is_scaled() -> None:
    """Anything else would make KubeRay start a second cluster."""
    small, large = (
        build_ray_services("two-nodes-h200-ep16", counts)[0]
        for counts in (Counts(1, 1), Counts(3, 2))
    )
    assert serve(large)["deployments"] == [{"name": "replica", "num_replicas": 2}]
    assert worker_group(large)["replicas"] == 3
    for service in (small, large):
        del service["spec"]["serveConfigV2"], worker_group(service)["replicas"]
        del service["metadata"]["annotations"]
    assert small == large


def test_serve_gets_the_arguments_that_the_application_takes() -> None:
    arguments = serve(build_ray_services("one-node-h200-ep8")[0])["args"]
    assert set(arguments) == {"engine", "runner", "drain_seconds", "announce"}
    engine = EngineSpec.model_validate(arguments["engine"])
    assert (engine.device, engine.max_model_tokens) == ("cuda", 32768)
    assert (engine.parallelism.data, engine.parallelism.expert) == (8, True)
    assert engine.engine_arguments == {"enable-eplb": True}
    assert set(arguments["announce"]) == {"url", "token_file"}


def test_cpu_engines_ask_for_cores_and_no_device() -> None:
    service = build_ray_services("cpu")[0]
    assert limits(service) == {"cpu": "2", "memory": "6Gi"}
    assert worker_group(service)["rayStartParams"] == {"num-cpus": "2"}
    assert serve(service)["args"]["engine"]["device"] == "cpu"


@pytest.mark.parametrize(
    ("layout", "per_node", "expected"),
    [
        (Layout(8, 1), 8, (1, 8)),
        (Layout(12, 1), 8, (2, 6)),
        (Layout(4, 2), 8, (1, 4)),
        (Layout(4, 8), 8, (4, 1)),
        (Layout(7, 1), 4, (7, 1)),
        (Layout(1, 1), 8, (1, 1)),
    ],
)
def test_every_node_of_a_group_holds_the_same_number_of_whole_ranks(
    layout: Layout, per_node: int, expected: tuple[int, int]
) -> None:
    plan = plan_group(layout, per_node, what="v")
    assert plan == GroupPlan(layout, *expected)
    assert plan.hosts * plan.accelerators_per_host == layout.accelerators
    assert plan.accelerators_per_host <= per_node


def refuse(name: str, **variant: Any) -> str:
    deployment = ModelDeployment.model_validate(
        {
            "spec": {
                **DEPLOYMENTS[name],
                "variants": [{**DEPLOYMENTS[name]["variants"][0], **variant}],
            }
        }
    )
    DEPLOYMENTS["changed"] = deployment.model_dump(mode="json", by_alias=True)["spec"]
    try:
        with pytest.raises(InvalidInput) as caught:
            build_ray_services("changed")
    finally:
        del DEPLOYMENTS["changed"]
    return str(caught.value)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ({"accelerator": "TPU"}, "variants[h200].accelerator: there is no AcceleratorClass TPU"),
        (
            {"engineArgs": {"enable-elastic-ep": True, "enable-eplb": True}},
            "variants[h200].engineArgs.enable-elastic-ep: Trierarch places and starts every rank",
        ),
        (
            {"parallelism": {"tensor": 16, "expert": True}},
            "h200.parallelism.tensor: 16 do not fit on a node of 8",
        ),
        (
            {"engineArgs": {"data-parallel-size": 4}},
            "variants[h200].engineArgs.data-parallel-size: has a field of its own",
        ),
        ({"engineArgs": {"max-model-len": 0}}, "variants[h200].engineArgs.max-model-len: "),
        ({"engineArgs": {"dtype": "fp4"}}, "variants[h200].engineArgs.dtype: "),
    ],
)
def test_what_cannot_run_is_refused_with_its_field(variant: dict[str, Any], words: str) -> None:
    assert words in refuse("one-node-h200-ep8", **variant)


def test_a_variant_that_leaves_its_layout_to_the_planner_gets_one_that_fits() -> None:
    text = (MODELS / "deepseek-v3.json").read_text()
    fields = {
        **DEPLOYMENTS["one-node-h200-ep8"],
        "model": {"name": "m", "source": "hf://a/b", "configJson": text},
        "variants": [{"name": "v", "accelerator": "H200", "parallelism": {"auto": True}}],
    }
    spec = ModelDeployment.model_validate({"spec": fields}).spec
    found = find_class(spec.variants[0], accelerator_classes())
    layout = choose_layout(spec, spec.variants[0], found)
    assert layout.expert
    assert layout.accelerators >= 8  # 671 billion parameters of 8 bits need five of 141 GiB


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("hf://org/name", "/models/weights"),
        ("pvc://claim", "/models/weights"),
        ("pvc://claim/a/b", "/models/weights/a/b"),
        ("s3://bucket/a", "/models/weights"),
        ("file:///data/m", "/data/m"),
    ],
)
def test_engines_read_the_weights_where_pods_have_them(source: str, path: str) -> None:
    assert parse_source(source).path == path


def test_names_are_short_enough_for_kuberay_and_still_different() -> None:
    long = "a-model-deployment-with-a-rather-long-name-for-one"
    names = {ray_service_name(long, variant) for variant in ("spot", "steady")}
    assert len(names) == 2
    assert all(len(name) <= 47 for name in names)
    assert ray_service_name("chat", "spot") == "chat-spot"


@pytest.mark.parametrize(
    ("text", "value"), [("8", 8), ("500m", 0.5), ("141Gi", 141 * 2**30), ("4.8T", 4.8e12)]
)
def test_quantities_are_those_of_kubernetes(text: str, value: float) -> None:
    assert parse_quantity(text) == pytest.approx(value)


def test_templates_merge_by_name_and_replace_other_lists() -> None:
    base = {"c": [{"name": "ray", "image": "a", "args": ["x", "y"]}, {"name": "b"}], "keep": 1}
    over = {"c": [{"name": "ray", "args": ["z"]}, {"name": "new"}], "keep": None, "more": {"d": 2}}
    assert merge(base, over) == {
        "c": [{"name": "ray", "image": "a", "args": ["z"]}, {"name": "b"}, {"name": "new"}],
        "more": {"d": 2},
    }


def test_equal_manifests_have_one_fingerprint() -> None:
    first, second = (build_ray_services("cpu")[0] for _ in range(2))
    assert fingerprint(first) == fingerprint(second)
    second["spec"]["rayClusterConfig"]["rayVersion"] = "0"
    assert fingerprint(first) != fingerprint(second)


def test_no_replica_is_no_application_and_all_else_stays() -> None:
    # Ray Serve refuses a deployment of no replica; without the application it drains what it has.
    config = yaml.safe_load(
        empty_serve_config('{"proxy_location": "EveryNode", "applications": [1]}')
    )
    assert config == {"proxy_location": "EveryNode", "applications": []}
