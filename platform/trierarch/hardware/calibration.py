"""From peaks to what is reached: constants with their source, and one learned factor.

The constants describe kernels. They were set once, against measured kernel times that
NVIDIA's aiconfigurator publishes (Apache-2.0; DeepEP and DeepSeek-V4 modules on H100,
H200 and B200), and not against the published throughput of whole systems: that is left
for checking the prediction. Between kernels and a system lies one more factor, by how
prefill and decode share the accelerators, and what is left is learned per deployment.
"""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True, slots=True)
class Calibration:
    """How far from its peak each part of an accelerator runs.

    Attributes:
        memory_efficiency: Share of memory bandwidth; aiconfigurator's own constant.
        compute_efficiency: Share of matrix peak; fits its expert and projection times.
        scale_up_efficiency: Share of a scale-up link in small messages; fits DeepEP's
            low-latency kernels inside one H100 machine within 10 %.
        network_efficiency: Share of the network; fits the same kernels on 2, 4 and 8 machines.
        bulk_scale_up_efficiency: Share of a scale-up link in large messages (DeepEP normal mode).
        operation_seconds: Start of one kernel; aiconfigurator adds 3 us to each.
        exchange_seconds: Start of a dispatch or a combine inside a scale-up domain (DeepEP).
        network_seconds: What a network adds to that (DeepEP).
        all_reduce_seconds: Start of a tensor-parallel sum; aiconfigurator's point-to-point time.
        step_seconds: Host time of an engine step: schedule, sample, send.
        expert_skew: Load of the busiest rank over the mean; aiconfigurator's power law with
            exponent 1.01 takes 1.4 to 1.6 times as long in large batches.
        other_memory_bytes: Activations, graphs and libraries; aiconfigurator's constant.
        memory_utilization: Share of memory the engine takes; vLLM's default until it became 0.92.
    """

    memory_efficiency: float = 0.8
    compute_efficiency: float = 0.5
    scale_up_efficiency: float = 0.5
    network_efficiency: float = 0.85
    bulk_scale_up_efficiency: float = 0.6
    operation_seconds: float = 3e-6
    exchange_seconds: float = 12e-6
    network_seconds: float = 3e-6
    all_reduce_seconds: float = 10e-6
    step_seconds: float = 1e-3
    expert_skew: float = 1.6
    other_memory_bytes: float = 3.5e9
    memory_utilization: float = 0.9


KERNELS = Calibration()
"""The constants as measured."""

AGGREGATED_EFFICIENCY = 0.5
"""Measured over predicted where one replica does prefill and decode: SGLang with
DeepSeek-V4-Flash on four H200 reached 4.6k to 4.9k of 9.6k tokens per second and accelerator."""

DISAGGREGATED_EFFICIENCY = 0.75
"""The same where prefill and decode have replicas of their own; middle of 0.7 to 0.8."""

PRIOR_WEIGHT_SAMPLES = 5.0
"""So many measurements weigh as much as the belief that the prediction is right."""

LEARNED_MEMORY_SAMPLES = 200.0
"""Older measurements fade beyond this many, so that an engine upgrade is noticed."""

LARGEST_STEP_RATIO = 4.0
"""One measurement never counts as more than this many times off the factor so far."""


@dataclasses.dataclass(frozen=True, slots=True)
class LearnedFactor:
    """Measured over predicted time of one deployment, as a geometric mean.

    Attributes:
        log_ratio: Logarithm of the factor.
        samples: Measurements taken in, at most ``LEARNED_MEMORY_SAMPLES``.
    """

    log_ratio: float = 0.0
    samples: float = 0.0

    @property
    def time_factor(self) -> float:
        """What predicted times are multiplied by; 1 before anything was measured."""
        return math.exp(self.log_ratio)


def learn_factor(
    learned: LearnedFactor, *, predicted_seconds: float, measured_seconds: float
) -> LearnedFactor:
    """Return the factor after one more measurement.

    Args:
        learned: The factor so far.
        predicted_seconds: Prediction without any learned factor.
        measured_seconds: What was measured under the same batch and lengths.

    Returns:
        The factor itself if either time is not positive and finite: such a sample says
        nothing, and must not undo what was learned.
    """
    for seconds in (predicted_seconds, measured_seconds):
        if not (math.isfinite(seconds) and seconds > 0):
            return learned
    limit = math.log(LARGEST_STEP_RATIO)
    miss = math.log(measured_seconds / predicted_seconds) - learned.log_ratio
    miss = min(limit, max(-limit, miss))
    samples = min(LEARNED_MEMORY_SAMPLES, learned.samples + 1.0)
    return LearnedFactor(learned.log_ratio + miss / (samples + PRIOR_WEIGHT_SAMPLES), samples)
