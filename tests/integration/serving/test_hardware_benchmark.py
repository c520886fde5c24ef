"""The benchmark of an accelerator also runs where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.hardware.__main__ import TINY

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parents[3]


def run(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_a_tiny_model_is_measured_and_compared(tmp_path: Path) -> None:
    out = tmp_path / "measured.json"

    shown = run("benchmarks.hardware", "--smoke", "--out", str(out))

    document = json.loads(out.read_text())
    assert [point["sequences"] for point in document["decode"]] == [1, 4]
    assert all(point["median_seconds"] > 0 for point in document["decode"] + document["prefill"])
    assert document["routing"]["distinct_experts"]["1"] == TINY["num_experts_per_tok"]
    assert "| decode, batch | tiny, 32 tokens |" in shown
    assert run("benchmarks.hardware", "--compare", str(out)) in shown


def test_an_engine_with_a_replicas_options_answers(tmp_path: Path) -> None:
    config, out = tmp_path / "config.json", tmp_path / "found.json"
    config.write_text(json.dumps(TINY))

    run("benchmarks.hardware.serving", "--device", "cpu", "--model", str(config), "--out", str(out))

    found = json.loads(out.read_text())
    assert set(found["parser"].values()) == {"accepted"}
    assert [usage["completion_tokens"] for usage in found["engine"]["usage"]] == [32, 32]
    assert found["engine"]["same_tokens"]
