"""Whatever the model and the load: better hardware is never worse, more work never faster."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

import trierarch.hardware
from trierarch.hardware.accelerators import ACCELERATORS, Accelerator
from trierarch.hardware.architecture import ModelArchitecture
from trierarch.hardware.calibration import LearnedFactor, learn_factor
from trierarch.hardware.capacity import (
    Capacity,
    Infeasible,
    LatencyTargets,
    Workload,
    predict_capacity,
    predict_service,
)
from trierarch.hardware.config_json import read_architecture
from trierarch.hardware.formats import KvCacheFormat
from trierarch.hardware.layouts import (
    Layout,
    cache_bytes_per_accelerator,
    candidate_layouts,
    weight_bytes_per_accelerator,
)
from trierarch.hardware.roofline import Machine, decode_step, distinct_experts, prefill

FOLDER = Path(trierarch.hardware.__file__).parent / "models"
ARCHITECTURES = {
    path.stem: read_architecture(json.loads(path.read_text())) for path in FOLDER.glob("*.json")
}

few = settings(max_examples=60, deadline=None)

architectures = st.sampled_from(sorted(ARCHITECTURES)).map(ARCHITECTURES.__getitem__)
accelerators = st.sampled_from(sorted(ACCELERATORS)).map(ACCELERATORS.__getitem__)
forms = st.sampled_from(list(KvCacheFormat))
factors = st.floats(1.0, 8.0)
contexts = st.integers(1, 200_000)
batches = st.integers(1, 1024)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    model, accelerator = draw(architectures), draw(accelerators)
    layout = draw(st.sampled_from(candidate_layouts(model, accelerator, 64)))
    return Machine(model, accelerator, layout, draw(forms), hides_exchange=draw(st.booleans()))


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    prompt, answer = draw(st.integers(1, 30_000)), draw(st.integers(1, 8_000))
    return Workload(prompt, answer, prompt + answer + draw(st.integers(0, 100_000)))


def with_hardware(machine: Machine, **changes: object) -> Machine:
    accelerator: Accelerator = dataclasses.replace(machine.accelerator, **changes)  # type: ignore[arg-type]  # any field
    return dataclasses.replace(machine, accelerator=accelerator)


def not_above(smaller: float, larger: float) -> bool:
    return smaller <= larger * (1 + 1e-9)


@few
@given(machines(), batches, contexts, factors)
def test_better_hardware_is_never_slower(
    machine: Machine, batch: int, context: int, factor: float
) -> None:
    chip = machine.accelerator
    better = [
        {"memory_bytes_per_second": chip.memory_bytes_per_second * factor},
        {"scale_up_bytes_per_second": chip.scale_up_bytes_per_second * factor},
        {"network_bytes_per_second": chip.network_bytes_per_second * factor},
        {"flops_per_second": {k: v * factor for k, v in chip.flops_per_second.items()}},
    ]
    for change in better:
        faster = with_hardware(machine, **change)
        assert not_above(
            decode_step(faster, batch, context).seconds,
            decode_step(machine, batch, context).seconds,
        )
        assert not_above(prefill(faster, context).seconds, prefill(machine, context).seconds)


@few
@given(machines(), batches, batches, contexts, contexts)
def test_more_work_is_never_faster(
    machine: Machine, one: int, other: int, context: int, longer: int
) -> None:
    few_sequences, many = sorted((one, other))
    short, long = sorted((context, longer))
    assert not_above(
        decode_step(machine, few_sequences, short).seconds,
        decode_step(machine, many, short).seconds,
    )
    assert not_above(
        decode_step(machine, few_sequences, short).seconds,
        decode_step(machine, few_sequences, long).seconds,
    )
    assert not_above(prefill(machine, short).seconds, prefill(machine, long).seconds)


@few
@given(machines(), batches, contexts)
def test_every_part_of_a_step_is_a_time(machine: Machine, batch: int, context: int) -> None:
    for parts in (decode_step(machine, batch, context), prefill(machine, context)):
        values = dataclasses.astuple(parts)
        assert all(math.isfinite(value) and value >= 0 for value in values)
        assert parts.seconds > 0


@few
@given(machines(), workloads(), st.integers(0, 200_000))
def test_more_context_never_fits_better(machine: Machine, workload: Workload, more: int) -> None:
    longer = dataclasses.replace(workload, context_tokens=workload.context_tokens + more)
    if isinstance(predict_capacity(machine, longer, LatencyTargets()), Capacity):
        assert isinstance(predict_capacity(machine, workload, LatencyTargets()), Capacity)
    layout = machine.layout
    assert not_above(
        cache_bytes_per_accelerator(
            machine.architecture, layout, workload.context_tokens, machine.cache
        ),
        cache_bytes_per_accelerator(
            machine.architecture, layout, longer.context_tokens, machine.cache
        ),
    )


@few
@given(machines(), workloads(), factors)
def test_more_memory_never_serves_less(machine: Machine, workload: Workload, factor: float) -> None:
    larger = with_hardware(machine, memory_bytes=int(machine.accelerator.memory_bytes * factor))
    before = predict_capacity(machine, workload, LatencyTargets())
    after = predict_capacity(larger, workload, LatencyTargets())
    if isinstance(before, Capacity):
        assert isinstance(after, Capacity)
        assert after.sequences_per_rank >= before.sequences_per_rank
        assert not_above(before.tokens_per_second, after.tokens_per_second)


@few
@given(machines(), workloads(), st.floats(0.001, 2.0), st.floats(0.01, 30.0), factors)
def test_tighter_targets_never_serve_more_and_are_kept(
    machine: Machine, workload: Workload, tpot: float, ttft: float, factor: float
) -> None:
    tight = predict_capacity(machine, workload, LatencyTargets(ttft, tpot))
    loose = predict_capacity(machine, workload, LatencyTargets(ttft * factor, tpot * factor))
    if isinstance(tight, Infeasible):
        return
    assert not_above(tight.ttft_seconds, ttft)
    assert not_above(tight.tpot_seconds, tpot)
    assert isinstance(loose, Capacity)
    assert not_above(tight.tokens_per_second, loose.tokens_per_second)


@few
@given(machines(), workloads())
def test_a_prior_is_made_of_times(machine: Machine, workload: Workload) -> None:
    capacity = predict_capacity(machine, workload, LatencyTargets())
    if isinstance(capacity, Infeasible):
        return
    prior = predict_service(machine, workload, sequences_per_rank=capacity.sequences_per_rank)
    assert all(math.isfinite(v) and v >= 0 for v in dataclasses.astuple(prior))
    assert prior.expert_share_ratio <= 1


@few
@given(architectures, st.integers(0, 6), st.integers(0, 3))
def test_more_accelerators_never_hold_more_weights_each(
    architecture: ModelArchitecture, data: int, tensor: int
) -> None:
    smaller = Layout(2**data, 2**tensor, expert=True)
    for larger in (
        Layout(2 ** (data + 1), 2**tensor, expert=True),
        Layout(2**data, 2 ** (tensor + 1), expert=True),
    ):
        assert not_above(
            weight_bytes_per_accelerator(architecture, larger),
            weight_bytes_per_accelerator(architecture, smaller),
        )


@few
@given(st.integers(1, 512), st.integers(1, 16), st.floats(0, 1e6))
def test_no_batch_touches_more_experts_than_there_are(
    routed: int, active: int, tokens: float
) -> None:
    touched = distinct_experts(routed, min(active, routed), tokens)
    assert 0 <= touched <= routed
    if tokens >= 1:
        assert not_above(touched, tokens * active)


@few
@given(st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3)), max_size=50))
def test_a_learned_factor_stays_within_what_was_measured(
    samples: list[tuple[float, float]],
) -> None:
    learned = LearnedFactor()
    for predicted, measured in samples:
        learned = learn_factor(learned, predicted_seconds=predicted, measured_seconds=measured)
    ratios = [measured / predicted for predicted, measured in samples] + [1.0]
    assert min(ratios) * (1 - 1e-9) <= learned.time_factor <= max(ratios) * (1 + 1e-9)
