"""Predicted kernels against measured ones, with the error of each.

Measured: NVIDIA aiconfigurator (Apache-2.0), snapshot of August 2026, DeepEP and
DeepSeek-V4 modules. The bounds are what the model reaches, so that a change for the
worse is seen; they are no claim about other hardware.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable

import pytest

from trierarch.hardware.accelerators import find_accelerator
from trierarch.hardware.architecture import ModelArchitecture
from trierarch.hardware.calibration import KERNELS
from trierarch.hardware.formats import FP8_BLOCKS, KvCacheFormat
from trierarch.hardware.layouts import Layout, default_cache_format
from trierarch.hardware.roofline import (
    EXPERT_OPERATIONS,
    Machine,
    _projection_seconds,
    all_to_all_bytes_per_token,
    decode_step,
    distinct_experts,
    expert_seconds,
    prefill,
)

Bundled = Callable[[str], ModelArchitecture]

EXPERT_POINTS = [
    # model, accelerator, ranks, tokens of the group, balanced milliseconds per layer
    *[("deepseek-v4-pro", "H200", 8, n, ms) for n, ms in [(256, 0.84), (1024, 0.89), (4096, 1.13), (16384, 2.50)]],  # noqa: E501
    *[("deepseek-v4-pro", "B200", 8, n, ms) for n, ms in [(256, 0.28), (1024, 0.34), (4096, 0.46), (16384, 0.97)]],  # noqa: E501
    *[("deepseek-v4-flash", "H200", 8, n, ms) for n, ms in [(256, 0.25), (1024, 0.29), (4096, 0.43), (16384, 1.25)]],  # noqa: E501
    *[("deepseek-v4-flash", "B200", 8, n, ms) for n, ms in [(256, 0.13), (1024, 0.17), (4096, 0.17), (16384, 0.45)]],  # noqa: E501
    ("deepseek-v4-pro", "H200", 16, 1024, 0.48),
    ("deepseek-v4-pro", "H200", 32, 1024, 0.28),
    ("deepseek-v4-pro", "B200", 16, 1024, 0.26),
    ("deepseek-v4-pro", "B200", 32, 1024, 0.17),
]  # fmt: skip


def machine(model: ModelArchitecture, accelerator: str, ranks: int, skew: float = 1.0) -> Machine:
    kind = find_accelerator(accelerator)
    return Machine(
        model,
        kind,
        Layout(data=ranks, expert=True),
        default_cache_format(model, kind),
        dataclasses.replace(KERNELS, expert_skew=skew),
    )


def expert_error(
    bundled: Bundled, name: str, accelerator: str, ranks: int, tokens: int, milliseconds: float
) -> float:
    model = bundled(name)
    if accelerator == "H200":
        # These were measured with experts widened to FP8.
        model = dataclasses.replace(model, expert_format=FP8_BLOCKS)
    assert model.experts is not None
    read, compute = expert_seconds(machine(model, accelerator, ranks), tokens / ranks)
    starts = EXPERT_OPERATIONS * KERNELS.operation_seconds
    return ((read + compute) / model.experts.layers + starts) * 1e3 / milliseconds - 1.0


def test_expert_layers_take_about_the_measured_time(bundled: Bundled) -> None:
    errors = [expert_error(bundled, *point) for point in EXPERT_POINTS]
    assert statistics.median(map(abs, errors)) < 0.12
    assert max(map(abs, errors)) < 0.40


ATTENTION_POINTS = [
    # model, accelerator, ratio, batch, context, milliseconds of one layer
    ("deepseek-v4-pro", "H200", 4, 1, 8192, 0.155),
    ("deepseek-v4-pro", "H200", 4, 64, 8192, 0.235),
    ("deepseek-v4-pro", "H200", 4, 128, 4096, 0.331),
    ("deepseek-v4-pro", "H200", 4, 256, 4096, 0.539),
    ("deepseek-v4-pro", "H200", 128, 1, 8192, 0.126),
    ("deepseek-v4-pro", "H200", 128, 64, 8192, 0.161),
    ("deepseek-v4-pro", "H200", 128, 256, 4096, 0.318),
    ("deepseek-v4-pro", "B200", 4, 1, 8192, 0.130),
    ("deepseek-v4-pro", "B200", 4, 64, 8192, 0.176),
    ("deepseek-v4-pro", "B200", 4, 256, 4096, 0.343),
    ("deepseek-v4-pro", "B200", 128, 64, 8192, 0.124),
    ("deepseek-v4-flash", "H200", 4, 1, 8192, 0.105),
    ("deepseek-v4-flash", "H200", 4, 256, 4096, 0.279),
    ("deepseek-v4-flash", "H200", 128, 256, 4096, 0.176),
    ("deepseek-v4-flash", "B200", 4, 64, 8192, 0.127),
    ("deepseek-v4-flash", "B200", 4, 1, 65536, 0.102),
]


def only(model: ModelArchitecture, ratio: int) -> ModelArchitecture:
    """Return a model of one attention layer with this compression and nothing else."""
    layer = next(k for k, _ in model.attention if getattr(k, "ratio", None) == ratio)
    return dataclasses.replace(model, attention=((layer, 1),))


def test_attention_layers_take_about_the_measured_time(bundled: Bundled) -> None:
    errors = []
    for name, accelerator, ratio, batch, context, milliseconds in ATTENTION_POINTS:
        one = dataclasses.replace(
            machine(only(bundled(name), ratio), accelerator, 1), cache=KvCacheFormat.FP8
        )
        errors.append(decode_step(one, batch, context).attention_seconds * 1e3 / milliseconds - 1)
    assert statistics.median(map(abs, errors)) < 0.15
    assert max(map(abs, errors)) < 0.40


PREFILL_POINTS = [
    ("deepseek-v4-pro", "H200", 4, 8192, 12.75),
    ("deepseek-v4-pro", "H200", 128, 8192, 7.26),
    ("deepseek-v4-pro", "H200", 4, 65536, 100.5),
    ("deepseek-v4-pro", "H200", 128, 65536, 65.1),
    ("deepseek-v4-pro", "B200", 4, 8192, 6.89),
    ("deepseek-v4-pro", "B200", 4, 65536, 49.3),
    ("deepseek-v4-flash", "H200", 4, 8192, 7.53),
    ("deepseek-v4-flash", "H200", 4, 65536, 49.8),
    ("deepseek-v4-flash", "B200", 4, 65536, 29.0),
]


def test_attention_of_prompts_takes_about_the_measured_time(bundled: Bundled) -> None:
    errors = []
    for name, accelerator, ratio, tokens, milliseconds in PREFILL_POINTS:
        one = machine(only(bundled(name), ratio), accelerator, 1)
        errors.append(prefill(one, tokens).attention_seconds * 1e3 / milliseconds - 1.0)
    assert statistics.median(map(abs, errors)) < 0.30
    assert max(map(abs, errors)) < 0.60


EXCHANGE_POINTS = [
    # machines of 8 H100, tokens per rank, microseconds of dispatch plus combine, top 8 of 256
    (1, 32, 18 + 26), (1, 64, 25 + 40), (1, 128, 37 + 67), (1, 256, 67 + 136),
    (2, 32, 40 + 61), (2, 64, 58 + 102), (2, 128, 102 + 186), (2, 256, 183 + 337),
    (4, 32, 55 + 86), (4, 64, 83 + 152), (4, 128, 143 + 263), (4, 256, 264 + 500),
    (8, 32, 63 + 96), (8, 64, 94 + 160), (8, 128, 167 + 305), (8, 256, 301 + 580),
]  # fmt: skip


@pytest.mark.parametrize(("machines", "tokens", "microseconds"), EXCHANGE_POINTS)
def test_the_exchange_of_a_decode_step_takes_about_the_measured_time(
    bundled: Bundled, machines: int, tokens: int, microseconds: float
) -> None:
    model = bundled("deepseek-v3")
    assert model.experts is not None
    step = decode_step(machine(model, "H100", 8 * machines), tokens, 1)
    per_layer = step.exchange_seconds / model.experts.layers * 1e6
    assert per_layer == pytest.approx(microseconds, rel=0.15)


@pytest.mark.parametrize(
    ("name", "megabytes"),
    [("deepseek-v3", 10.0), ("deepseek-v4-pro", 7.9), ("deepseek-v4-flash", 3.2)],
)
def test_a_token_sends_the_known_bytes_to_its_experts(
    bundled: Bundled, name: str, megabytes: float
) -> None:
    assert all_to_all_bytes_per_token(bundled(name)) / 1e6 == pytest.approx(megabytes, rel=0.02)


def test_reading_experts_saturates_with_the_batch() -> None:
    touched = [distinct_experts(256, 8, tokens) for tokens in (0, 1, 32, 256, 4096)]
    assert touched[:2] == [0.0, pytest.approx(8.0)]
    assert touched == sorted(touched)
    assert touched[2] < 256 * 0.65
    assert touched[3] > 256 * 0.99
    assert touched[4] <= 256
    assert distinct_experts(8, 8, 1) == 8


def test_uneven_experts_cost_time_where_computing_counts(bundled: Bundled) -> None:
    model = bundled("deepseek-v4-pro")
    even, skewed = machine(model, "B200", 8), machine(model, "B200", 8, skew=1.6)
    for tokens, least, most in [(8, 1.0, 1.05), (8192, 1.3, 1.6)]:
        ratio = sum(expert_seconds(skewed, tokens)) / sum(expert_seconds(even, tokens))
        assert least <= ratio <= most


def test_a_rack_of_one_scale_up_domain_needs_no_network(bundled: Bundled) -> None:
    model = bundled("deepseek-v3")
    rack, machines = machine(model, "GB200", 64), machine(model, "B200", 64)
    ratio = (
        decode_step(machines, 128, 4096).exchange_seconds
        / decode_step(rack, 128, 4096).exchange_seconds
    )
    assert ratio > 3


def test_two_half_batches_hide_the_exchange_but_no_more_than_it(bundled: Bundled) -> None:
    plain = machine(bundled("deepseek-v3"), "H800", 32)
    hiding = dataclasses.replace(plain, hides_exchange=True)
    for alone, hidden in [
        (decode_step(plain, 128, 4096), decode_step(hiding, 128, 4096)),
        (prefill(plain, 4096), prefill(hiding, 4096)),
    ]:
        assert alone.hidden_seconds == 0
        assert 0 < hidden.hidden_seconds <= hidden.exchange_seconds
        assert hidden.seconds == pytest.approx(alone.seconds - hidden.hidden_seconds)


def test_tensor_parallelism_reads_less_and_talks_more(bundled: Bundled) -> None:
    model = bundled("qwen3-30b-a3b")
    one = dataclasses.replace(machine(model, "H100", 1), layout=Layout())
    four = dataclasses.replace(one, layout=Layout(tensor=4))
    kind = model.attention[0][0]
    assert _projection_seconds(four, kind, 64) < _projection_seconds(one, kind, 64)
    assert decode_step(one, 64, 4096).exchange_seconds == 0
    assert decode_step(four, 64, 4096).exchange_seconds > 0


def test_short_prompts_are_cheaper_together(bundled: Bundled) -> None:
    replica = machine(bundled("deepseek-v3"), "H100", 32)
    alone, together = prefill(replica, 1024), prefill(replica, 1024, prompts=8)
    assert alone.seconds < together.seconds < 8 * alone.seconds
    # Prompts do not see each other.
    assert together.seconds < prefill(replica, 8192).seconds
