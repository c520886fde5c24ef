"""``trierarch plan``: what it prints, and one clear line for what it cannot use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import trierarch.hardware
from trierarch.cli.main import commands, execute

FLASH = Path(trierarch.hardware.__file__).parent / "models" / "deepseek-v4-flash.json"


@pytest.fixture(autouse=True)
def _no_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIERARCH_DATA_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("TRIERARCH_LEDGER_URL", raising=False)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(FLASH.read_text())
    return folder


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert execute(commands, ["plan", *arguments, "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_a_folder_its_file_and_a_bundled_name_give_the_same_plan(
    model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = [
        run_json(capsys, "--model", name, "--accelerator", "H200")["layouts"]
        for name in (str(model_dir), str(model_dir / "config.json"), "deepseek-v4-flash")
    ]
    assert plans[0] == plans[1] == plans[2]


def test_the_cheapest_layout_comes_first_and_the_others_say_why_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = run_json(
        capsys, "--model", str(FLASH), "--accelerator", "h200", "--accelerator", "L40S"
    )
    layouts = answer["layouts"]
    serving = [row for row in layouts if row["is_feasible"]]
    prices = [row["usd_per_million_tokens"] for row in serving if row["usd_per_million_tokens"]]
    assert prices == sorted(prices)
    assert layouts[: len(serving)] == serving
    assert serving[0]["parallelism"]["expert"] is True
    assert serving[0]["capacity"]["tpot_seconds"] <= 0.05
    refused = [row for row in layouts if not row["is_feasible"]]
    assert refused
    assert all(row["reason"] and row["message"] and row["capacity"] is None for row in refused)
    assert answer["price_remarks"] == {"L40S": "No OnDemand price is known"}


def test_dollars_follow_from_the_price_book(capsys: pytest.CaptureFixture[str]) -> None:
    best = run_json(capsys, "--model", str(FLASH), "--accelerator", "B200")["layouts"][0]
    rate = best["capacity"]["tokens_per_second"]
    assert best["usd_per_hour"] == pytest.approx(5.30 * best["accelerators"])
    assert best["usd_per_million_tokens"] == pytest.approx(best["usd_per_hour"] / 3600 / rate * 1e6)


def test_the_table_names_the_cheapest_and_the_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", "deepseek-v4-pro", "--accelerator", "B200", "--accelerator", "H200"]
    assert execute(commands, ["plan", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("deepseek-v4-pro: deepseek_v4, 1572.9 B parameters, 49.7 B active")
    assert lines[2].startswith("KV cache in BF16: 9,848 bytes per token")
    assert any(line.startswith("Cheapest: DP") for line in lines)
    assert any("WeightsDoNotFit" in line and "weights take" in line for line in lines)


def test_exit_code_1_says_that_nothing_serves(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", "deepseek-v4-pro", "--accelerator", "L40S", "--max-accelerators", "8"]
    assert execute(commands, ["plan", *arguments]) == 1
    assert "WeightsDoNotFit" in capsys.readouterr().out


def test_published_points_are_shown_with_their_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(commands, ["plan", "--published"]) == 0
    assert "median error" in capsys.readouterr().out
    assert execute(commands, ["plan", "--published", "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert all(point["published_tokens_per_second"] > 0 for point in points)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a model: --model"),
        (["--model", "no-such-model"], "no-such-model: no such file; --model takes a folder"),
        (["--model", "{tmp}/empty"], "empty/config.json: no such file"),
        (["--model", "{tmp}/text.json"], "text.json is not JSON"),
        (["--model", "{tmp}/list.json"], "holds no JSON object"),
        (["--model", "{tmp}/binary.json"], "is not a text file"),
        (["--model", "{tmp}/other.json"], "architecture 'mamba' is not known; known are"),
        (["--model", "{tmp}/none.json"], "'model_type' is missing"),
        (["--model", "{flash}", "--accelerator", "TPU"], "accelerator 'TPU' is not known; known"),
        (["--model", "{flash}", "--context", "-1"], "--context must be above zero, got -1"),
        (["--model", "{flash}", "--context", "0"], "--context must be above zero"),
        (["--model", "{flash}", "--context", "2000000"], "made for 1048576 tokens"),
        (["--model", "{flash}", "--input-tokens", "-5"], "--input-tokens must be above zero"),
        (["--model", "{flash}", "--output-tokens", "0"], "--output-tokens must be above zero"),
        (["--model", "{flash}", "--ttft-seconds", "-0.5"], "--ttft-seconds must be above zero"),
        (["--model", "{flash}", "--tpot-seconds", "nan"], "--tpot-seconds must be above zero"),
        (["--model", "{flash}", "--max-accelerators", "-8"], "--max-accelerators must be above"),
        (
            ["--model", "{flash}", "--context", "1000", "--input-tokens", "900",
             "--output-tokens", "200"],
            "900 input and 200 output tokens are more than a context of 1000",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.json").write_text("{not json")
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "other.json").write_text('{"model_type": "mamba"}')
    (tmp_path / "none.json").write_text("{}")
    filled = [argument.format(tmp=tmp_path, flash=FLASH) for argument in arguments]
    assert execute(commands, ["plan", *filled]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert error.startswith("trierarch: ")


def test_a_small_model_gets_lengths_that_fit_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = json.loads((FLASH.parent / "qwen3-30b-a3b.json").read_text())
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**small, "max_position_embeddings": 512}))
    workload = run_json(capsys, "--model", str(path), "--accelerator", "H100")["workload"]
    assert workload == {"input_tokens": 384, "output_tokens": 128, "context_tokens": 512}


def test_a_long_prompt_stretches_the_default_context(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(FLASH), "--accelerator", "B200", "--ttft-seconds", "60"]
    workload = run_json(capsys, *arguments, "--input-tokens", "100000")["workload"]
    assert workload["context_tokens"] >= 100_000 + workload["output_tokens"]
