"""Model deployments and accelerator classes that several tests read, and their RayServices.

``python -m tests.unit.operators.deployments`` writes the golden files again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from trierarch.api.v1alpha1.accelerator_class import AcceleratorClass
from trierarch.api.v1alpha1.model_deployment import ModelDeployment
from trierarch_operators.group_plan import choose_layout, find_class, plan_group
from trierarch_operators.model_deployment.manifests import (
    Counts,
    Owner,
    RaySettings,
    build_ray_service,
)
from trierarch_operators.model_deployment.pod_templates import PodSettings

GOLDEN = Path(__file__).parent / "golden"

_GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}

CLASSES: dict[str, dict[str, Any]] = {
    "h200": {
        "priceKey": "H200",
        "resourceName": "nvidia.com/gpu",
        "memory": "141Gi",
        "memoryBandwidth": "4.8T",
        "flops": {"bf16": "989T", "fp8": "1978T"},
        "links": {"scaleUpBandwidth": "450G", "networkBandwidth": "50G"},
        "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H200"},
        "tolerations": [_GPU_TAINT],
        "capacityPools": [
            {
                "capacityType": "Spot",
                "nodeSelector": {"karpenter.sh/capacity-type": "spot"},
                "tolerations": [{"key": "spot", "operator": "Exists"}],
            },
            {
                "capacityType": "OnDemand",
                "nodeSelector": {"karpenter.sh/capacity-type": "on-demand"},
            },
        ],
        "rdma": {"resourceName": "rdma/hca_shared_devices_a", "perNode": 8},
        "runtimeClassName": "nvidia",
    },
    "gb200": {
        "priceKey": "GB200",
        "resourceName": "nvidia.com/gpu",
        "acceleratorsPerNode": 4,
        "memory": "185Gi",
        "links": {
            "scaleUpAccelerators": 72,
            "scaleUpTopologyKey": "nvidia.com/gpu.clique",
        },
        "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-GB200"},
        "tolerations": [_GPU_TAINT],
    },
    "mi355x": {
        "priceKey": "MI355X",
        "resourceName": "amd.com/gpu",
        "memory": "288G",
        "nodeSelector": {"amd.com/gpu.product-name": "AMD_Instinct_MI355X"},
    },
    "cpu": {
        "cpuOnly": True,
        "acceleratorsPerNode": 2,
        "links": {"scaleUpAccelerators": 2},
        "memory": "4Gi",
        "host": {"cpu": "1", "memory": "3Gi", "sharedMemory": "512Mi"},
    },
}


def _variant(name: str, accelerator: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "accelerator": accelerator, "maxReplicas": 4, **fields}


def _expert(data: int) -> dict[str, Any]:
    return {"data": data, "expert": True}


_DEEPSEEK = {"name": "deepseek-v3", "source": "hf://deepseek-ai/DeepSeek-V3"}

DEPLOYMENTS: dict[str, dict[str, Any]] = {
    "one-node-h200-ep8": {
        "model": _DEEPSEEK,
        "variants": [
            _variant(
                "h200",
                "H200",
                parallelism=_expert(8),
                engineArgs={"max-model-len": 32768, "enable-eplb": True},
            )
        ],
    },
    "two-nodes-h200-ep16": {
        "model": {**_DEEPSEEK, "source": "pvc://weights/deepseek-v3"},
        "variants": [_variant("h200", "H200", parallelism=_expert(16), zones=["eu-1a", "eu-1b"])],
        "gangAdmission": {"kueueQueue": "inference"},
    },
    "rack-gb200-nvl72": {
        "model": {**_DEEPSEEK, "source": "file:///data/models/deepseek-v3"},
        "variants": [_variant("rack", "GB200", parallelism=_expert(72), maxReplicas=2)],
        "gangAdmission": {"volcanoQueue": "inference"},
        "gcsFaultTolerance": {
            "redisAddress": "redis.ray.svc:6379",
            "redisPasswordSecret": "ray-redis",
        },
    },
    "spot-and-on-demand": {
        "model": {**_DEEPSEEK, "source": "s3://weights/deepseek-v3"},
        "variants": [
            _variant("spot", "H200", capacityType="Spot", parallelism=_expert(8)),
            _variant("steady", "H200", minReplicas=1, parallelism=_expert(8)),
        ],
    },
    "mi355x": {
        "model": _DEEPSEEK,
        "variants": [
            _variant("mi355x", "MI355X", parallelism={"data": 4, "tensor": 2, "expert": True})
        ],
    },
    "cpu": {
        "model": {"name": "pocket", "source": "file:///var/lib/trierarch/models/pocket"},
        "variants": [
            _variant("cpu", "CPU", parallelism=_expert(2), engineArgs={"max-num-seqs": 8})
        ],
        "podTemplate": {
            "spec": {
                "containers": [{"name": "ray", "env": [{"name": "HOME", "value": "/home/ray"}]}]
            }
        },
    },
}

SETTINGS = RaySettings(
    pods=PodSettings(image="registry.example/trierarch-engine:0.1.0"),
    ray_version="2.60.0",
    announce_url="http://trierarch-operator.trierarch-system.svc:8090/announcements",
)


def accelerator_classes() -> dict[str, AcceleratorClass]:
    """Return the classes of one cluster that has every kind of accelerator."""
    return {name: AcceleratorClass.model_validate({"spec": spec}) for name, spec in CLASSES.items()}


def model_deployment(name: str) -> ModelDeployment:
    """Return one deployment of the table."""
    return ModelDeployment.model_validate({"spec": DEPLOYMENTS[name]})


def build_ray_services(name: str, counts: Counts | None = None) -> list[dict[str, Any]]:
    """Return the RayServices of one deployment of the table, with one group each."""
    deployment = model_deployment(name)
    owner = Owner("models", name, "0d7f1f5e-0000-4000-8000-000000000001")
    found = []
    for variant in deployment.spec.variants:
        accelerator_class = find_class(variant, accelerator_classes())
        layout = choose_layout(deployment.spec, variant, accelerator_class)
        spec = accelerator_class[1].spec
        plan = plan_group(layout, spec.accelerators_per_node, what=variant.name)
        found.append(
            build_ray_service(
                owner, deployment.spec, variant, spec, plan, counts or Counts(1, 1), SETTINGS
            )
        )
    return found


def render(name: str) -> str:
    """Return the golden text of one deployment."""
    return yaml.safe_dump_all(build_ray_services(name), sort_keys=False, width=100)


if __name__ == "__main__":
    for deployment_name in DEPLOYMENTS:
        (GOLDEN / f"{deployment_name}.yaml").write_text(render(deployment_name))
