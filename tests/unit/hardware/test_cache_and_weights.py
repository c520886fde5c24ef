"""Memory: cache and weights are what the makers of models and engines publish."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trierarch.core.errors import InvalidInput
from trierarch.hardware.accelerators import ACCELERATORS, GIB, find_accelerator
from trierarch.hardware.architecture import ModelArchitecture
from trierarch.hardware.attention import capped_mean
from trierarch.hardware.formats import Arithmetic, KvCacheFormat
from trierarch.hardware.layouts import (
    Layout,
    cache_bytes_per_accelerator,
    cache_space_bytes,
    candidate_layouts,
    default_cache_format,
    weight_bytes_per_accelerator,
)

Bundled = Callable[[str], ModelArchitecture]

MIB = 1 << 20
BF16, FP8, FP8_FP4 = KvCacheFormat.BF16, KvCacheFormat.FP8, KvCacheFormat.FP8_FP4_INDEX


@pytest.mark.parametrize(
    "name",
    [
        "H100", "H200", "H800", "H20", "A100", "B200", "B300", "GB200", "GB300",
        "MI300X", "MI325X", "MI355X", "L40S", "Ascend-910B", "Ascend-910C",
    ],
)  # fmt: skip
def test_every_accelerator_has_plausible_figures(name: str) -> None:
    accelerator = ACCELERATORS[name]
    assert 40 * GIB < accelerator.memory_bytes < 300 * GIB
    assert 0.5e12 < accelerator.memory_bytes_per_second <= 8e12
    assert 1e14 < accelerator.flops_for(Arithmetic.BF16) <= 2.5e15
    assert accelerator.flops_for(Arithmetic.FP8) >= accelerator.flops_for(Arithmetic.BF16)
    assert accelerator.flops_for(Arithmetic.FP4) >= accelerator.flops_for(Arithmetic.FP8)
    assert accelerator.scale_up_accelerators >= accelerator.node_accelerators >= 4


def test_names_are_found_in_any_capitals_and_unknown_ones_list_the_known() -> None:
    assert find_accelerator("h100").name == "H100"
    with pytest.raises(InvalidInput, match=r"'TPU' is not known; known are A100, .*MI355X"):
        find_accelerator("TPU")


def test_weights_that_hardware_cannot_multiply_are_widened() -> None:
    a100, h100 = find_accelerator("A100"), find_accelerator("H100")
    assert a100.flops_for(Arithmetic.FP8) == a100.flops_per_second[Arithmetic.BF16]
    assert h100.flops_for(Arithmetic.FP4) == h100.flops_per_second[Arithmetic.FP8]
    assert find_accelerator("Ascend-910C").flops_for(Arithmetic.FP8) == 1500e12


@pytest.mark.parametrize(
    ("name", "form", "bytes_per_token"),
    [
        ("deepseek-v3", BF16, 70_272),
        ("deepseek-v3", FP8, 35_136),
        ("deepseek-v3.2", BF16, 85_888),
        ("deepseek-v3.2", FP8, 48_068),
        ("deepseek-v4-pro", BF16, 9_848),
        ("deepseek-v4-pro", FP8_FP4, 5_031),
        ("deepseek-v4-flash", BF16, 6_880),
        ("deepseek-v4-flash", FP8_FP4, 3_514),
        ("qwen3-30b-a3b", BF16, 98_304),
    ],
)
def test_cache_grows_by_the_known_bytes_per_token(
    bundled: Bundled, name: str, form: KvCacheFormat, bytes_per_token: int
) -> None:
    """V3's 70 KB are in DeepSeek's paper; the others follow from their layouts in vLLM."""
    grown = bundled(name).kv_bytes_of_next_token(8192, form)
    assert grown == pytest.approx(bytes_per_token, abs=1)


@pytest.mark.parametrize(
    ("name", "form", "tokens", "published_bytes"),
    [
        ("deepseek-v3", BF16, 1 << 20, 68.6 * GIB),
        ("deepseek-v3.2", BF16, 1 << 20, 83.9 * GIB),
        ("deepseek-v4-pro", BF16, 1 << 20, 9.62 * GIB),
        ("deepseek-v4-pro", BF16, 8192, 84.6 * MIB),
        ("deepseek-v4-pro", FP8_FP4, 1 << 20, 4.92 * GIB),
        ("deepseek-v4-pro", FP8_FP4, 8192, 43.7 * MIB),
        ("deepseek-v4-flash", BF16, 1 << 20, 6.72 * GIB),
        ("deepseek-v4-flash", FP8_FP4, 131_072, 442 * MIB),
    ],
)
def test_cache_of_a_sequence_is_what_was_published(
    bundled: Bundled, name: str, form: KvCacheFormat, tokens: int, published_bytes: float
) -> None:
    """9.62 GiB of V4-Pro and 83.9 GiB of V3.2 at a million tokens: vLLM's blog, 2026-04-24."""
    cached = bundled(name).kv_bytes_of_sequence(tokens, form)
    assert cached == pytest.approx(published_bytes, rel=0.005)


def test_the_first_tokens_of_a_compressed_cache_cost_more_than_later_ones(
    bundled: Bundled,
) -> None:
    pro = bundled("deepseek-v4-pro")
    assert pro.kv_bytes_of_sequence(128, BF16) > 128 * pro.kv_bytes_of_next_token(8192, BF16)


def test_a_windowed_layer_forgets(bundled: Bundled) -> None:
    flash = bundled("deepseek-v4-flash")
    windows = [kind for kind, _ in flash.attention if kind.name == "window"]
    assert windows[0].cache_bytes(128, BF16) == windows[0].cache_bytes(1 << 20, BF16)


@pytest.mark.parametrize(
    ("name", "ranks", "gigabytes"),
    [
        ("deepseek-v4-pro", 4, 236),
        ("deepseek-v4-pro", 8, 131),
        ("deepseek-v4-pro", 16, 79),
        ("deepseek-v4-flash", 4, 46),
        ("deepseek-v4-flash", 8, 27),
        ("deepseek-v4-flash", 32, 13),
        ("deepseek-v3", 8, 104),
        ("deepseek-v3", 32, 41),
    ],
)
def test_weights_per_accelerator_agree_with_published_sizes(
    bundled: Bundled, name: str, ranks: int, gigabytes: float
) -> None:
    """The comparison includes draft heads, which are not loaded here: 2 to 4 % of the experts."""
    weights = weight_bytes_per_accelerator(bundled(name), Layout(data=ranks, expert=True))
    assert weights / 1e9 == pytest.approx(gigabytes, rel=0.08)


@pytest.mark.parametrize(
    ("name", "accelerator", "ranks", "fits"),
    [
        ("deepseek-v4-pro", "B200", 8, True),
        ("deepseek-v4-pro", "GB300", 4, True),
        ("deepseek-v4-pro", "H200", 16, True),
        ("deepseek-v4-pro", "H200", 4, False),
        ("deepseek-v4-pro", "B200", 4, False),
        ("deepseek-v4-flash", "H200", 4, True),
        ("deepseek-v3", "H100", 8, False),
        ("deepseek-v3", "H200", 8, True),
    ],
)
def test_published_smallest_layouts_fit_and_smaller_ones_do_not(
    bundled: Bundled, name: str, accelerator: str, ranks: int, fits: bool
) -> None:
    layout = Layout(data=ranks, expert=True)
    space = cache_space_bytes(bundled(name), find_accelerator(accelerator), layout)
    assert (space > 0) is fits


def test_tensor_parallelism_divides_grouped_keys_but_not_a_latent_vector(
    bundled: Bundled,
) -> None:
    one, four, eight = Layout(), Layout(tensor=4), Layout(tensor=8)
    for name, shares in [("qwen3-30b-a3b", (4, 4)), ("deepseek-v3", (1, 1))]:
        whole = cache_bytes_per_accelerator(bundled(name), one, 4096, BF16)
        for layout, share in zip((four, eight), shares, strict=True):
            part = cache_bytes_per_accelerator(bundled(name), layout, 4096, BF16)
            assert whole / part == share


def test_experts_are_divided_whole_or_sliced(bundled: Bundled) -> None:
    qwen = bundled("qwen3-30b-a3b")
    whole = weight_bytes_per_accelerator(qwen, Layout(tensor=8, expert=True))
    sliced = weight_bytes_per_accelerator(qwen, Layout(tensor=8))
    assert whole == sliced
    # 128 experts over 3 ranks: one holds 43.
    uneven = weight_bytes_per_accelerator(qwen, Layout(data=3, expert=True))
    even = weight_bytes_per_accelerator(qwen, Layout(data=4, expert=True))
    assert uneven - even == pytest.approx(11 / 128 * qwen.routed_parameters * 2)


def test_layouts_are_powers_of_two_within_a_machine(bundled: Bundled) -> None:
    layouts = candidate_layouts(bundled("deepseek-v3"), find_accelerator("GB200"), 16)
    assert [str(layout) for layout in layouts if layout.accelerators == 4] == [
        "TP4", "DP4+EP4", "DP2+TP2+EP4", "TP4+EP4",
    ]  # fmt: skip
    assert max(layout.tensor for layout in layouts) == 4
    assert max(layout.accelerators for layout in layouts) == 16
    assert len(set(layouts)) == len(layouts)


def test_a_dense_model_is_never_split_by_data_or_experts(bundled: Bundled) -> None:
    import dataclasses

    dense = dataclasses.replace(bundled("qwen3-30b-a3b"), experts=None)
    layouts = candidate_layouts(dense, find_accelerator("H100"), 64)
    assert [str(layout) for layout in layouts] == ["TP1", "TP2", "TP4", "TP8"]


def test_a_layout_needs_ranks() -> None:
    with pytest.raises(ValueError, match="at least one rank"):
        Layout(data=0)


@pytest.mark.parametrize(
    ("name", "accelerator", "form"),
    [
        ("deepseek-v4-flash", "B200", FP8_FP4),
        ("deepseek-v4-flash", "H200", FP8),
        ("deepseek-v3.2", "B200", FP8),
        ("deepseek-v3", "B200", BF16),
        ("deepseek-v4-flash", "Ascend-910B", BF16),
    ],
)
def test_the_cache_format_follows_model_and_hardware(
    bundled: Bundled, name: str, accelerator: str, form: KvCacheFormat
) -> None:
    assert default_cache_format(bundled(name), find_accelerator(accelerator)) is form


@pytest.mark.parametrize(
    ("length", "stride", "cap"), [(1000, 1, 128), (1000, 4, 512), (8192, 4, 512), (100, 128, 8)]
)
def test_the_mean_of_what_a_prompt_sees_is_the_sum_over_its_positions(
    length: int, stride: int, cap: int
) -> None:
    exact = sum(min(position / stride, cap) for position in range(length)) / length
    assert capped_mean(length, stride, cap) == pytest.approx(exact, rel=0.01, abs=0.01)


def test_an_empty_prompt_sees_nothing() -> None:
    assert capped_mean(0, 4, 512) == 0
