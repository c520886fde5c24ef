"""What a replica serves, what it costs, and why a layout cannot serve."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest

from trierarch.autoscaling.specification import ServicePrior
from trierarch.hardware.accelerators import ACCELERATORS, find_accelerator
from trierarch.hardware.architecture import ModelArchitecture
from trierarch.hardware.calibration import (
    LARGEST_STEP_RATIO,
    LEARNED_MEMORY_SAMPLES,
    LearnedFactor,
    learn_factor,
)
from trierarch.hardware.capacity import (
    Bound,
    Capacity,
    Infeasible,
    InfeasibleReason,
    LatencyTargets,
    PredictedService,
    Workload,
    largest_batch,
    predict_capacity,
    predict_service,
)
from trierarch.hardware.layouts import Layout, default_cache_format
from trierarch.hardware.planning import cost_per_million, plan_layouts
from trierarch.hardware.roofline import Machine, decode_step, prefill

Bundled = Callable[[str], ModelArchitecture]

CHAT = Workload(input_tokens=2048, output_tokens=512, context_tokens=32768)
ANY = LatencyTargets()
SLO = LatencyTargets(ttft_seconds=2.0, tpot_seconds=0.05)


def machine(model: ModelArchitecture, accelerator: str, layout: Layout) -> Machine:
    kind = find_accelerator(accelerator)
    return Machine(model, kind, layout, default_cache_format(model, kind))


def wide(ranks: int) -> Layout:
    return Layout(data=ranks, expert=True)


def served(answer: Capacity | Infeasible) -> Capacity:
    assert isinstance(answer, Capacity), answer
    return answer


@pytest.mark.parametrize(
    ("name", "accelerator", "layout", "workload", "targets", "reason", "words"),
    [
        ("deepseek-v3", "H100", wide(8), CHAT, ANY, "WeightsDoNotFit", "weights take 10"),
        (
            "deepseek-v3", "H800", wide(16), Workload(2048, 512, 163_840),
            ANY, "ContextDoesNotFit", "one sequence of 163840 tokens takes 11.5 GB of",
        ),
        ("qwen3-30b-a3b", "H100", Layout(tensor=3), CHAT, ANY, "TensorDoesNotDivide", "32 att"),
        ("qwen3-30b-a3b", "H100", wide(256), CHAT, ANY, "TooFewExperts", "128 experts for 256"),
        (
            "deepseek-v3", "H200", wide(16), Workload(32000, 512, 32768),
            SLO, "TTFTTooLong", "the first token of a single request takes",
        ),
        (
            "deepseek-v3", "H200", wide(16), CHAT,
            LatencyTargets(tpot_seconds=0.001), "TPOTTooLong", "allowed are 1 ms",
        ),
        ("deepseek-v4-flash", "MI300X", wide(8), CHAT, ANY, "EngineDoesNotSupport", "MI300X"),
    ],
)  # fmt: skip
def test_a_layout_that_cannot_serve_says_why(
    bundled: Bundled,
    name: str,
    accelerator: str,
    layout: Layout,
    workload: Workload,
    targets: LatencyTargets,
    reason: str,
    words: str,
) -> None:
    answer = predict_capacity(machine(bundled(name), accelerator, layout), workload, targets)
    assert isinstance(answer, Infeasible)
    assert answer.reason == InfeasibleReason(reason)
    assert words in answer.message


def test_the_batch_is_the_largest_within_the_target(bundled: Bundled) -> None:
    flash = machine(bundled("deepseek-v4-flash"), "B200", wide(4))
    capacity = served(predict_capacity(flash, CHAT, SLO))
    assert capacity.bound is Bound.TPOT
    assert capacity.tpot_seconds <= 0.05
    tighter = LatencyTargets(tpot_seconds=capacity.tpot_seconds * 0.999)
    assert served(predict_capacity(flash, CHAT, tighter)).sequences_per_rank == (
        capacity.sequences_per_rank - 1
    )


def test_without_targets_memory_or_seats_end_the_batch(bundled: Bundled) -> None:
    v3 = machine(bundled("deepseek-v3"), "H200", wide(8))
    assert served(predict_capacity(v3, CHAT, ANY)).bound is Bound.CACHE_MEMORY
    flash = machine(bundled("deepseek-v4-flash"), "B300", wide(8))
    capacity = served(predict_capacity(flash, CHAT, ANY, most_sequences=64))
    assert (capacity.bound, capacity.sequences_per_rank) == (Bound.SEATS, 64)
    assert capacity.max_running_requests == 512


def test_rate_batch_and_times_obey_littles_law(bundled: Bundled) -> None:
    flash = machine(bundled("deepseek-v4-flash"), "B200", wide(4))
    capacity = served(predict_capacity(flash, CHAT, SLO, efficiency=1.0))
    own_prompt = prefill(flash, CHAT.input_tokens).seconds
    inside_seconds = own_prompt + CHAT.output_tokens * capacity.tpot_seconds
    ongoing = capacity.requests_per_second * inside_seconds
    assert ongoing == pytest.approx(capacity.max_running_requests)
    assert capacity.output_tokens_per_second == pytest.approx(
        capacity.requests_per_second * CHAT.output_tokens
    )


def test_a_learned_factor_slows_the_prediction(bundled: Bundled) -> None:
    flash = machine(bundled("deepseek-v4-flash"), "B200", wide(4))
    base = served(predict_capacity(flash, CHAT, ANY))
    slow = served(predict_capacity(flash, CHAT, ANY, time_factor=2.0))
    assert slow.sequences_per_rank == base.sequences_per_rank
    assert slow.tokens_per_second == pytest.approx(base.tokens_per_second / 2)
    assert slow.tpot_seconds == pytest.approx(base.tpot_seconds * 2)


@pytest.mark.parametrize(
    "lengths", [(0, 1, 10), (1, 0, 10), (-5, 1, 10), (8, 8, 15)],
    ids=["no-input", "no-output", "negative", "longer-than-context"],
)  # fmt: skip
def test_a_workload_that_makes_no_sense_is_refused(lengths: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"token"):
        Workload(*lengths)


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, 64), (1000.0, 64), (10.0, 10), (10.9, 10), (0.5, 1)]
)
def test_the_largest_batch_is_found(limit: float | None, expected: int) -> None:
    assert largest_batch(float, limit, 64) == expected


def test_layouts_come_cheapest_first_then_unpriced_then_impossible(bundled: Bundled) -> None:
    rows = plan_layouts(
        bundled("deepseek-v4-flash"),
        [find_accelerator(name) for name in ("H200", "B200", "GB300", "L40S")],
        CHAT,
        SLO,
        usd_per_accelerator_hour={"H200": 3.38, "B200": 5.30, "L40S": 1.0},
    )
    kinds = [
        "priced" if row.usd_per_million_tokens is not None
        else "unpriced" if row.is_feasible else "impossible"
        for row in rows
    ]  # fmt: skip
    order = ["priced", "unpriced", "impossible"]
    assert kinds == sorted(kinds, key=order.index)
    assert set(kinds) == set(order)
    costs = [row.usd_per_million_tokens for row in rows if row.usd_per_million_tokens is not None]
    assert costs == sorted(costs)
    assert all(row.accelerator.name == "GB300" for row, k in zip(rows, kinds, strict=True)
               if k == "unpriced")  # fmt: skip
    assert all(row.infeasible is not None for row in rows if not row.is_feasible)


def test_a_price_of_zero_is_a_price(bundled: Bundled) -> None:
    rows = plan_layouts(
        bundled("qwen3-30b-a3b"),
        [find_accelerator("H100")],
        CHAT,
        SLO,
        usd_per_accelerator_hour={"H100": 0.0},
        most_accelerators=1,
    )
    assert rows[0].usd_per_million_tokens == 0.0


def test_dollars_per_million_tokens_are_price_over_rate() -> None:
    """The published sums: 1,850 tokens per second on $2 hardware are $0.300, 10,100 are $0.055."""
    assert cost_per_million(2.0, 1850) == pytest.approx(0.300, abs=0.001)
    assert cost_per_million(2.0, 10100) == pytest.approx(0.055, abs=0.001)


def test_the_prior_has_the_fields_that_the_autoscaler_asks_for() -> None:
    names = {field.name for field in dataclasses.fields(PredictedService)}
    assert names == set(ServicePrior.model_fields)


@pytest.mark.parametrize("name", ["deepseek-v3", "deepseek-v4-flash", "qwen3-30b-a3b"])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_prior_gives_the_predicted_steps_back(
    bundled: Bundled, name: str, share: float
) -> None:
    replica = machine(bundled(name), "H200", wide(8))
    capacity = served(predict_capacity(replica, CHAT, ANY))
    prior = predict_service(
        replica, CHAT, sequences_per_rank=capacity.sequences_per_rank, efficiency=1.0
    )
    ServicePrior(**dataclasses.asdict(prior))
    requests = max(8, round(share * capacity.max_running_requests))
    touched = 1.0 - (1.0 - prior.expert_share_ratio) ** requests
    straight = prior.step_seconds + prior.expert_seconds * touched
    straight += requests * prior.decode_token_seconds
    straight += requests * prior.context_token_seconds * CHAT.mean_context_tokens
    exact = decode_step(replica, requests / 8, CHAT.mean_context_tokens).seconds
    assert straight == pytest.approx(exact, rel=0.05)


def test_nothing_learned_changes_nothing() -> None:
    assert LearnedFactor().time_factor == 1.0


def test_a_deployment_learns_its_factor() -> None:
    learned = LearnedFactor()
    for _ in range(100):
        learned = learn_factor(learned, predicted_seconds=0.02, measured_seconds=0.03)
    assert learned.time_factor == pytest.approx(1.5, rel=0.03)


def test_one_sample_moves_the_factor_a_little_and_an_outlier_not_much_more() -> None:
    once = learn_factor(LearnedFactor(), predicted_seconds=0.02, measured_seconds=0.03)
    wild = learn_factor(LearnedFactor(), predicted_seconds=0.02, measured_seconds=1e6)
    assert 1.0 < once.time_factor < 1.1
    assert wild.time_factor <= math.exp(math.log(LARGEST_STEP_RATIO) / 6) * 1.0001


def test_what_was_learned_fades() -> None:
    learned = LearnedFactor(math.log(3.0), LEARNED_MEMORY_SAMPLES)
    for _ in range(1000):
        learned = learn_factor(learned, predicted_seconds=1.0, measured_seconds=1.0)
    assert learned.samples == LEARNED_MEMORY_SAMPLES
    assert learned.time_factor == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_sample_that_says_nothing_changes_nothing(seconds: float) -> None:
    learned = LearnedFactor(0.3, 7)
    assert learn_factor(learned, predicted_seconds=seconds, measured_seconds=1.0) == learned
    assert learn_factor(learned, predicted_seconds=1.0, measured_seconds=seconds) == learned


def test_every_accelerator_serves_a_model_that_fits_it(bundled: Bundled) -> None:
    rows = plan_layouts(
        bundled("qwen3-30b-a3b"), ACCELERATORS.values(), Workload(512, 128, 8192), ANY,
        usd_per_accelerator_hour={}, most_accelerators=8,
    )  # fmt: skip
    assert {row.accelerator.name for row in rows if row.is_feasible} == set(ACCELERATORS)
