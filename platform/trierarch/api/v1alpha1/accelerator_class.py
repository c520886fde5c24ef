"""``AcceleratorClass``: one kind of accelerator of this cluster, as nodes offer it."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from trierarch.api.v1alpha1.fields import (
    ApiModel,
    CapacityType,
    Labels,
    Quantity,
    ResourceName,
    Toleration,
    map_list,
    rule,
    rules,
)


class Links(ApiModel):
    """How accelerators reach each other."""

    scale_up_bandwidth: Quantity | None = None
    """Bytes per second in one direction inside the scale-up domain (NVLink and alike)."""
    scale_up_accelerators: int = Field(default=8, ge=1, le=4_096)
    """Accelerators of one scale-up domain: 8 in an HGX machine, 72 in an NVL72 rack."""
    scale_up_topology_key: str | None = Field(default=None, max_length=253)
    """Node label that is equal on all nodes of one scale-up domain, where a domain is wider
    than a machine, for example nvidia.com/gpu.clique."""
    network_bandwidth: Quantity | None = None
    """Bytes per second in one direction per accelerator between domains."""


class Rdma(ApiModel):
    """Network cards that engine pods of groups wider than one node ask for."""

    resource_name: ResourceName = Field(max_length=253)
    """Resource that a device plugin offers, for example rdma/hca_shared_devices_a."""
    per_node: int = Field(default=1, ge=1, le=64)
    """How many an engine pod asks for."""


class CapacityPool(ApiModel):
    """How nodes of one capacity type are told from others."""

    capacity_type: CapacityType
    """OnDemand, Spot or Reserved."""
    node_selector: Labels = Field(default_factory=dict)
    """Labels that these nodes carry, beside the class's own."""
    tolerations: list[Toleration] = Field(default_factory=list, max_length=16)
    """Of the taints of these nodes."""


class HostResources(ApiModel):
    """What an engine pod asks of its node for each accelerator."""

    cpu: Quantity = "8"
    """Cores."""
    memory: Quantity = "64Gi"
    """Main memory."""
    shared_memory: Quantity = "16Gi"
    """Size of /dev/shm; counts as memory where it is used."""


class AcceleratorClassSpec(ApiModel):
    """What the accelerator is and how nodes offer it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.links.scaleUpAccelerators % self.acceleratorsPerNode == 0 ||"
                " self.acceleratorsPerNode % self.links.scaleUpAccelerators == 0",
                "links.scaleUpAccelerators: must be whole nodes of acceleratorsPerNode, or"
                " divide one",
                ".links.scaleUpAccelerators",
            ),
            rule(
                "has(self.resourceName) != (has(self.cpuOnly) && self.cpuOnly)",
                "resourceName: set it, or set cpuOnly to true for engines on CPU cores",
                ".resourceName",
            ),
        )
    )

    price_key: str | None = Field(default=None, min_length=1, max_length=63)
    """Name in the price book and in the planner's tables, for example H200; left out, the
    object's own name in capitals."""
    resource_name: ResourceName | None = Field(default=None, max_length=253)
    """Resource that nodes offer, for example nvidia.com/gpu or amd.com/gpu."""
    cpu_only: bool = False
    """Engines run on CPU cores: each rank is a process with one core."""
    accelerators_per_node: int = Field(default=8, ge=1, le=1_024)
    """Accelerators of one node."""
    memory: Quantity
    """Of one accelerator, for example 141Gi."""
    memory_bandwidth: Quantity | None = None
    """Bytes per second of one accelerator's memory, for example 4.8T."""
    flops: dict[str, Quantity] = Field(default_factory=dict)
    """Dense operations per second by format: bf16, fp8, fp4, int8; for example bf16: 989T."""
    links: Links = Links()
    """How accelerators reach each other."""
    node_selector: Labels = Field(default_factory=dict)
    """Labels that nodes of this class carry."""
    tolerations: list[Toleration] = Field(default_factory=list, max_length=16)
    """Of the taints of nodes of this class."""
    capacity_pools: list[CapacityPool] = Field(
        default_factory=list, max_length=3, json_schema_extra=map_list("capacityType")
    )
    """How Spot, OnDemand and Reserved nodes are told apart."""
    rdma: Rdma | None = None
    """Left out, groups wider than one node use the pod network."""
    runtime_class_name: str | None = Field(default=None, max_length=253)
    """Of engine pods, for example nvidia."""
    host: HostResources = HostResources()
    """What an engine pod asks of its node for each accelerator."""
    region: str | None = Field(default=None, max_length=63)
    """Key of the price book, with priceKey and the capacity type; left out, prices of any
    region."""


class AcceleratorClass(ApiModel):
    """One kind of accelerator: what it can do, and how to find its nodes."""

    spec: AcceleratorClassSpec
    """What the accelerator is and how nodes offer it."""
