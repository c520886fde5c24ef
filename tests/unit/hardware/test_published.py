"""Predictions beside published throughput, with the error of each as it is."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from trierarch.cli.plan import check_published, published_table
from trierarch.hardware.published import PUBLISHED_POINTS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "concepts" / "hardware.md"

ERRORS_PERCENT = {
    ("DeepSeek profile 2025-02", "H800", "prefill", 7838): +4,
    ("DeepSeek profile 2025-02", "H800", "decode", 2325): +10,
    ("DeepSeek production 2025-03", "H800", "decode", 1850): +19,
    ("SGLang 2025-05", "H100", "prefill", 7209): +31,
    ("SGLang 2025-05", "H100", "prefill", 6818): +32,
    ("SGLang 2025-05", "H100", "prefill", 6288): +30,
    ("SGLang 2025-05", "H100", "decode", 2785): +23,
    ("vLLM and llm-d 2025-12", "H200", "decode", 2200): +79,
    ("vLLM 2026-02", "GB200", "prefill", 26200): -20,
    ("vLLM 2026-02", "GB200", "decode", 10100): -34,
    ("CloudMatrix 2025-06", "Ascend-910C", "prefill", 6688): -7,
    ("CloudMatrix 2025-06", "Ascend-910C", "decode", 1943): +2,
    ("CloudMatrix 2025-06", "Ascend-910C", "decode", 538): -100,
    ("Huawei Atlas 800I A2 2025-05", "Ascend-910B", "decode", 765): -67,
    ("SGLang 2026-07", "H200", "total", 4573): +63,
    ("InferenceX 2026", "GB300", "total", 6182): +40,
    ("InferenceX 2026", "GB200", "total", 2189): +296,
    ("InferenceX 2026", "GB300", "total", 10000): -8,
    ("InferenceX 2026", "GB200", "total", 8500): +9,
    ("InferenceX 2026", "MI355X", "total", 2256): +37,
    ("InferenceX 2026", "B200", "total", 5857): -68,
    ("InferenceX 2026", "B200", "total", 2558): -100,
    ("InferenceX 2026", "GB200", "total", 5790): -79,
    ("InferenceX 2026", "MI300X", "total", 725): +14,
    ("InferenceX 2026", "MI325X", "total", 854): -2,
    ("InferenceX 2026", "H100", "total", 266): -76,
}
"""Golden; a change of the model changes it, and the page, on purpose."""


@pytest.fixture(scope="module")
def errors() -> dict[tuple[str, str, str, int], int]:
    return {
        (
            row.point.source,
            row.point.accelerator,
            row.point.phase.value,
            round(row.point.tokens_per_second),
        ): round(row.error_ratio * 100)
        for row in check_published()
    }


def test_the_error_of_every_published_point_is_known(
    errors: dict[tuple[str, str, str, int], int],
) -> None:
    assert errors == ERRORS_PERCENT


def test_the_page_shows_the_table_as_the_command_prints_it() -> None:
    assert published_table(check_published()) in PAGE.read_text()


def test_wide_groups_are_predicted_within_a_third(
    errors: dict[tuple[str, str, str, int], int],
) -> None:
    """What the model is for: full batches with expert parallelism in stated conditions."""
    stated = [
        errors[source, accelerator, phase, rate]
        for source, accelerator, phase, rate in errors
        if source.startswith(("DeepSeek", "SGLang 2025"))
    ]
    assert len(stated) == 7
    assert max(map(abs, stated)) <= 33
    assert statistics.median(map(abs, stated)) <= 25


def test_assumed_conditions_are_called_so() -> None:
    for point in PUBLISHED_POINTS:
        if point.sequences_per_rank is not None and "per rank" not in point.conditions:
            pytest.fail(f"{point.source}: the batch is not stated in {point.conditions!r}")
