"""Measured steps beside what ``trierarch.hardware`` predicts for them; needs no accelerator."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trierarch.hardware.accelerators import find_accelerator
from trierarch.hardware.calibration import KERNELS, Calibration
from trierarch.hardware.config_json import read_architecture
from trierarch.hardware.formats import KvCacheFormat
from trierarch.hardware.layouts import (
    Layout,
    cache_bytes_per_accelerator,
    cache_space_bytes,
    weight_bytes_per_accelerator,
)
from trierarch.hardware.roofline import Machine, decode_step, prefill

MEASURED_FOLDER = Path(__file__).parent / "measured"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One measured figure and its prediction, before any factor between kernels and system.

    Attributes:
        phase: ``decode``, ``prefill`` or ``memory``.
        batch: Sequences of a decode step, prompts of a prefill step.
        prompt_tokens: Length of each prompt.
        measured: Seconds; bytes or tokens of ``memory``.
    """

    model: str
    phase: str
    batch: int
    prompt_tokens: int
    measured: float
    predicted: float

    @property
    def error_ratio(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1.0


def read_measured(path: Path) -> dict[str, Any]:
    """Return one document that the benchmark wrote."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def build_machine(document: Mapping[str, Any], calibration: Calibration = KERNELS) -> Machine:
    """Return what a measured document ran on, in the planner's terms."""
    return Machine(
        read_architecture(document["model"]["config"]),
        find_accelerator(document["accelerator"]),
        Layout(),
        KvCacheFormat.BF16,
        calibration,
    )


def compare_steps(document: Mapping[str, Any], calibration: Calibration = KERNELS) -> list[Row]:
    """Return every measured step of a document beside its prediction."""
    machine = build_machine(document, calibration)
    name = document["model"]["name"]
    rows = [
        Row(
            name,
            "decode",
            point["sequences"],
            point["prompt_tokens"],
            point["median_seconds"],
            decode_step(machine, point["sequences"], point["context_tokens"]).seconds,
        )
        for point in document["decode"]
    ]
    rows += [
        Row(
            name,
            "prefill",
            point["prompts"],
            point["prompt_tokens"],
            point["median_seconds"],
            prefill(machine, point["prompt_tokens"], prompts=point["prompts"]).seconds,
        )
        for point in document["prefill"]
    ]
    return rows


def compare_memory(document: Mapping[str, Any], calibration: Calibration = KERNELS) -> list[Row]:
    """Return bytes of the weights and tokens in the cache, at the engine's share of memory."""
    machine = build_machine(document, calibration)
    model, layout, engine = machine.architecture, machine.layout, document["engine"]
    share = dataclasses.replace(calibration, memory_utilization=engine["memory_utilization"])
    space = cache_space_bytes(model, machine.accelerator, layout, share)
    per_token = cache_bytes_per_accelerator(model, layout, 1.0, machine.cache)
    weights = weight_bytes_per_accelerator(model, layout)
    name = document["model"]["name"]
    return [
        Row(name, "memory", 0, 0, engine["weight_bytes"], weights),
        Row(name, "memory", 0, 0, engine["cache_tokens"], space / per_token),
    ]


def build_step_table(rows: Sequence[Row], phase: str) -> str:
    """Return a Markdown table of one phase: a line per batch, a column per model and length.

    A cell is measured milliseconds, predicted milliseconds, and the error.
    """
    chosen = [row for row in rows if row.phase == phase]
    columns = list(dict.fromkeys((row.model, row.prompt_tokens) for row in chosen))
    cells = {(row.batch, row.model, row.prompt_tokens): row for row in chosen}
    heads = "".join(f" {model}, {tokens:,} tokens |" for model, tokens in columns)
    lines = [f"| {phase}, batch |{heads}", "|---" * (len(columns) + 1) + "|"]
    for batch in sorted({row.batch for row in chosen}):
        found = (cells.get((batch, *column)) for column in columns)
        lines.append(f"| {batch} |" + "".join(f" {_cell(row)} |" for row in found))
    return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    measured, predicted = row.measured * 1e3, row.predicted * 1e3
    return f"{measured:.2f}, {predicted:.2f}, {row.error_ratio * 100:+.0f} %"


def build_memory_table(rows: Sequence[Row]) -> str:
    """Return a Markdown table of weights and cache, as ``compare_memory`` gives them in pairs."""
    lines = [
        "| model | weights, GB: measured, predicted | cache, tokens: measured, predicted | error |",
        "|---|---|---|---|",
    ]
    for weights, cache in zip(rows[::2], rows[1::2], strict=True):
        lines.append(
            f"| {weights.model} | {weights.measured / 1e9:.2f}, {weights.predicted / 1e9:.2f}"
            f" | {cache.measured:,.0f}, {cache.predicted:,.0f} | {cache.error_ratio * 100:+.1f} % |"
        )
    return "\n".join(lines)


def build_tables(
    documents: Sequence[Mapping[str, Any]], calibration: Calibration = KERNELS
) -> list[str]:
    """Return the tables of some documents: decode, prefill, memory."""
    steps = [row for document in documents for row in compare_steps(document, calibration)]
    memory = [row for document in documents for row in compare_memory(document, calibration)]
    phases = [phase for phase in ("decode", "prefill") if any(row.phase == phase for row in steps)]
    return [*(build_step_table(steps, phase) for phase in phases), build_memory_table(memory)]
