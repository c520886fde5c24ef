"""Predictions beside steps of an engine on an H100, with the error of each as it is."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import pytest
from benchmarks.hardware.comparing import (
    MEASURED_FOLDER,
    build_tables,
    compare_memory,
    compare_steps,
    read_measured,
)
from benchmarks.hardware.engine import count_distinct, shorten_profile

from trierarch.hardware.calibration import KERNELS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "hardware.md"

QWEN, PART_OF_QWEN, DEEPSEEK = "qwen3-30b-a3b", "qwen3-30b-a3b/16", "deepseek-v2-lite"

ERRORS_PERCENT = {
    # model, phase, prompt tokens: percent by batch, smallest first
    (QWEN, "decode", 256): [21, 18, 13, 14, 16, 16, 14, 11, 12],
    (QWEN, "decode", 4096): [19, 17, 13, 13, 15, 16],
    (QWEN, "prefill", 512): [50, -9],
    (QWEN, "prefill", 2048): [-13],
    (QWEN, "prefill", 8192): [0],
    (DEEPSEEK, "decode", 256): [27, 22, 16, 16, 15, 15, 14, 14, 16],
    (DEEPSEEK, "decode", 4096): [21, 20, 14, 15, 14, 14, 14, 13],
    (PART_OF_QWEN, "decode", 256): [-2, 10, 34, 27, 24, 25, 21, 17, -6],
    (PART_OF_QWEN, "decode", 4096): [13, -2, 12, 27, 23, 22, 20, 17, 17],
    (PART_OF_QWEN, "prefill", 512): [-68, -17],
    (PART_OF_QWEN, "prefill", 2048): [-52],
    (PART_OF_QWEN, "prefill", 8192): [-5],
}
"""Golden; a change of the model changes it, and the page, on purpose."""


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return [read_measured(path) for path in sorted(MEASURED_FOLDER.glob("*.json"))]


def test_the_error_of_every_measured_step_is_known(documents: list[dict[str, Any]]) -> None:
    found: dict[tuple[str, str, int], list[int]] = {}
    for document in documents:
        for row in compare_steps(document):
            errors = found.setdefault((row.model, row.phase, row.prompt_tokens), [])
            errors.append(round(row.error_ratio * 100))
    assert found == ERRORS_PERCENT


def test_decode_steps_of_whole_models_are_predicted_too_slow_by_a_seventh(
    documents: list[dict[str, Any]],
) -> None:
    errors = [
        row.error_ratio
        for document in documents
        for row in compare_steps(document)
        if row.phase == "decode" and row.model != PART_OF_QWEN
    ]
    assert len(errors) == 32
    assert min(errors) > 0.1
    assert max(errors) < 0.28
    assert statistics.median(errors) == pytest.approx(0.145, abs=0.01)


def test_two_constants_would_explain_them(documents: list[dict[str, Any]]) -> None:
    fitted = dataclasses.replace(KERNELS, memory_efficiency=0.9, step_seconds=0.4e-3)
    errors = [
        row.error_ratio
        for document in documents
        for row in compare_steps(document, fitted)
        if row.phase == "decode" and row.model != PART_OF_QWEN
    ]
    assert max(map(abs, errors)) < 0.05


def test_weights_are_exact_and_the_cache_is_a_little_larger_than_predicted(
    documents: list[dict[str, Any]],
) -> None:
    for document in documents:
        weights, cache = compare_memory(document)
        assert weights.error_ratio == pytest.approx(0.0, abs=0.005)
        assert -0.05 < cache.error_ratio < 0.0


def test_the_page_shows_the_tables_as_the_command_prints_them(
    documents: list[dict[str, Any]],
) -> None:
    page = PAGE.read_text()
    for table in build_tables(documents):
        assert table in page


def test_documents_say_what_they_were_measured_on(documents: list[dict[str, Any]]) -> None:
    for document in documents:
        assert document["platform"]["card"] == "NVIDIA H100 80GB HBM3"
        assert document["platform"]["versions"]["vllm"] == "0.32.0"
        assert document["command"].startswith("python -m benchmarks.hardware --")


def test_distinct_experts_are_counted_per_layer() -> None:
    alike = [[0, 1]] * 4
    apart = [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert count_distinct([alike, apart], [1, 4, 5]) == {1: 2.0, 4: 5.0}


def test_a_profile_keeps_the_sum_of_what_it_leaves_out() -> None:
    found = shorten_profile({f"kernel {number}": float(number) for number in range(40)})
    assert found["all kernels"] == sum(range(40))
    assert list(found)[1] == "kernel 39"
    assert len(found) < 40
