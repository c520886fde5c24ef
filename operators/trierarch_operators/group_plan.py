"""How one whole expert-parallel group lies on nodes: pure.

A rank never straddles two nodes, and every node of a group holds the same number
of ranks, so that one pod template serves the whole group.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping

from trierarch.api.v1alpha1.accelerator_class import AcceleratorClass, AcceleratorClassSpec
from trierarch.api.v1alpha1.model_deployment import ModelDeploymentSpec, Variant
from trierarch.core.errors import InvalidInput
from trierarch.hardware.accelerators import Accelerator, find_accelerator
from trierarch.hardware.capacity import LatencyTargets, Workload
from trierarch.hardware.config_json import read_architecture
from trierarch.hardware.formats import Arithmetic
from trierarch.hardware.layouts import Layout
from trierarch.hardware.planning import PlannedLayout, plan_layouts

_SUFFIXES = {
    "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50,
}  # fmt: skip

PLANNED_INPUT_TOKENS = 2_048
PLANNED_OUTPUT_TOKENS = 512
"""A mean chat request, for variants that leave their layout to the planner."""


class CannotRun(InvalidInput):
    """A variant cannot be run in this cluster as it is written.

    Attributes:
        reason: CamelCase word; the condition's.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True, slots=True)
class GroupPlan:
    """One replica.

    Attributes:
        layout: Data, tensor and expert parallel sizes.
        hosts: Nodes of the group, one pod on each.
        ranks_per_host: Data-parallel ranks of each pod.
    """

    layout: Layout
    hosts: int
    ranks_per_host: int

    @property
    def accelerators_per_host(self) -> int:
        """Accelerators of each pod."""
        return self.ranks_per_host * self.layout.tensor


def parse_quantity(text: str) -> float:
    """Return a Kubernetes quantity as a number.

    Raises:
        ValueError: If it is none.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)", text)
    if found is None or (found[2] and found[2] not in _SUFFIXES):
        raise ValueError(f"no quantity: {text!r}")
    return float(found[1]) * _SUFFIXES.get(found[2], 1.0)


def price_key(name: str, spec: AcceleratorClassSpec) -> str:
    """Return the accelerator's name in price books and in the planner's tables."""
    return spec.price_key or name.upper()


def find_class(
    variant: Variant, classes: Mapping[str, AcceleratorClass]
) -> tuple[str, AcceleratorClass]:
    """Return the name and the class that a variant asks for: by price key or by name.

    Raises:
        InvalidInput: If there is none; the message says which there are.
    """
    wanted = variant.accelerator.casefold()
    for name, found in sorted(classes.items()):
        if wanted in (name.casefold(), price_key(name, found.spec).casefold()):
            return name, found
    known = ", ".join(sorted(classes)) or "none"
    raise CannotRun(
        "AcceleratorClassMissing",
        f"variants[{variant.name}].accelerator: there is no AcceleratorClass"
        f" {variant.accelerator}; there is {known}",
    )


def plan_group(layout: Layout, per_node: int, *, what: str) -> GroupPlan:
    """Return how a layout lies on nodes of ``per_node`` accelerators.

    Args:
        layout: The replica's sizes.
        per_node: Accelerators of one node.
        what: Words for messages.

    Raises:
        InvalidInput: If a rank is larger than a node.
    """
    if layout.tensor > per_node:
        raise CannotRun(
            "NoLayout",
            f"{what}.parallelism.tensor: {layout.tensor} do not fit on a node of {per_node}",
        )
    most = per_node // layout.tensor
    ranks = next(
        count for count in range(min(most, layout.data), 0, -1) if layout.data % count == 0
    )
    return GroupPlan(layout, layout.data // ranks, ranks)


def choose_layout(
    spec: ModelDeploymentSpec,
    variant: Variant,
    accelerator_class: tuple[str, AcceleratorClass],
) -> Layout:
    """Return the given layout, or the planner's cheapest that meets the latency objective.

    Raises:
        InvalidInput: If the planner cannot read the model or finds no layout; says why.
    """
    wanted = variant.parallelism
    if not wanted.auto:
        return Layout(wanted.data or 1, wanted.tensor or 1, expert=bool(wanted.expert))
    what = f"variants[{variant.name}].parallelism.auto"
    try:
        architecture = read_architecture(json.loads(spec.model.config_json or "{}"))
    except json.JSONDecodeError as error:
        raise CannotRun("NoLayout", f"model.configJson: is no JSON: {error}") from error
    except InvalidInput as error:
        raise CannotRun("NoLayout", f"model.configJson: {error}") from error
    name, found = accelerator_class
    accelerator = _accelerator(name, found.spec)
    slo = spec.scaling.slo
    targets = LatencyTargets(
        ttft_seconds=float(slo.ttft_seconds) if slo and slo.ttft_seconds else None,
        tpot_seconds=float(slo.tpot_seconds) if slo and slo.tpot_seconds else None,
    )
    context = variant.engine_args.get("max-model-len")
    longest = PLANNED_INPUT_TOKENS + PLANNED_OUTPUT_TOKENS
    planned = plan_layouts(
        architecture,
        [accelerator],
        Workload(
            PLANNED_INPUT_TOKENS,
            PLANNED_OUTPUT_TOKENS,
            max(longest, context) if isinstance(context, int) else longest,
        ),
        targets,
        # All layouts are on one kind of accelerator, so any price gives the same order.
        usd_per_accelerator_hour={accelerator.name: 1.0},
    )
    for one in planned:
        if one.is_feasible and one.layout.tensor <= found.spec.accelerators_per_node:
            return one.layout
    raise CannotRun("NoLayout", f"{what}: no layout fits on {name}: {_last_reason(planned)}")


def _last_reason(planned: Iterable[PlannedLayout]) -> str:
    reasons = [one.infeasible.message for one in planned if one.infeasible is not None]
    return reasons[-1] if reasons else "there is no layout to look at"


def _accelerator(name: str, spec: AcceleratorClassSpec) -> Accelerator:
    """Return the accelerator as the class states it; what it leaves out is the planner's row.

    Raises:
        InvalidInput: If the planner does not know the accelerator and the class leaves
            something out, or the class names an unknown arithmetic.
    """
    key = price_key(name, spec)
    try:
        flops = {
            Arithmetic(form.casefold()): parse_quantity(text) for form, text in spec.flops.items()
        }
    except ValueError as error:
        raise InvalidInput(f"AcceleratorClass {name}: flops: {error}") from error
    given = {
        "memory_bytes_per_second": spec.memory_bandwidth,
        "scale_up_bytes_per_second": spec.links.scale_up_bandwidth,
        "network_bytes_per_second": spec.links.network_bandwidth,
    }
    rates = {field: parse_quantity(text) for field, text in given.items() if text is not None}
    try:
        row = find_accelerator(key)
    except InvalidInput:
        if len(rates) < len(given) or Arithmetic.BF16 not in flops:
            raise InvalidInput(
                f"AcceleratorClass {name}: the planner does not know {key}; state"
                " memoryBandwidth, flops.bf16, links.scaleUpBandwidth and links.networkBandwidth,"
                " or give the variant its data, tensor and expert"
            ) from None
        row = None
    known = {} if row is None else {"casts_fp8_to_int8": row.casts_fp8_to_int8}
    return Accelerator(
        name=key,
        memory_bytes=int(parse_quantity(spec.memory)),
        memory_bytes_per_second=rates.get(
            "memory_bytes_per_second", row.memory_bytes_per_second if row else 0.0
        ),
        flops_per_second={**(row.flops_per_second if row else {}), **flops},
        scale_up_bytes_per_second=rates.get(
            "scale_up_bytes_per_second", row.scale_up_bytes_per_second if row else 0.0
        ),
        network_bytes_per_second=rates.get(
            "network_bytes_per_second", row.network_bytes_per_second if row else 0.0
        ),
        scale_up_accelerators=spec.links.scale_up_accelerators,
        node_accelerators=spec.accelerators_per_node,
        is_estimate=row is None or row.is_estimate,
        **known,
    )
