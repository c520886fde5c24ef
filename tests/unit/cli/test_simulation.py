"""``simulate``, ``compare`` and ``explain`` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trierarch.cli.main import commands, execute

HEADER = "arrival_seconds,input_tokens,output_tokens\n"
SUMMARY_KEYS = {
    "cost_usd", "usd_per_million_tokens", "usd_per_million_slo_tokens", "slo_attainment",
    "replica_hours", "scale_events", "reversals", "max_queue", "lost_requests", "requests",
}  # fmt: skip


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Return a file of twenty minutes in which the load triples."""
    times = [*range(0, 600, 2), *(600 + index * 0.5 for index in range(1200))]
    path = tmp_path / "trace.csv"
    path.write_text(HEADER + "".join(f"{at},1200,300\n" for at in times), encoding="utf-8")
    return path


def test_simulate_prints_the_keys_that_are_promised(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(commands, ["simulate", "--trace", str(trace), "--policy", "hpa", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary.keys() >= SUMMARY_KEYS
    assert set(summary["slo_attainment"]) == {"ttft", "tpot", "both"}
    assert summary["requests"] == 1500


def test_a_seed_gives_the_same_summary(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for seed in ("3", "3", "4"):
        command = ["simulate", "--trace", str(trace), "--policy", "trierarch", "--seed", seed]
        assert execute(commands, [*command, "--rate-factor", "6", "--json"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert outputs[0] != outputs[2]


def test_a_simulated_decision_can_be_explained(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    command = ["simulate", "--trace", str(trace), "--policy", "trierarch", "--rate-factor", "12"]
    assert execute(commands, [*command, "--out", out]) == 0
    capsys.readouterr()
    assert execute(commands, ["explain", "--decisions", out]) == 0
    told = capsys.readouterr().out
    assert "bound by" in told
    assert "one fewer" in told
    assert "one more" in told
    assert execute(commands, ["explain", "--decisions", out, "--all", "--json"]) == 0
    [record] = json.loads(capsys.readouterr().out)
    assert execute(commands, ["explain", record["id"], "--decisions", out]) == 0
    assert capsys.readouterr().out.startswith(record["id"])


def test_compare_writes_table_plots_and_the_promised_json(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["compare", "--trace", str(trace), "--policies", "trierarch,static,static:tuned"]
    assert execute(commands, [*command, "--jobs", "1", "--seeds", "2", "--out", str(out)]) == 0
    table = capsys.readouterr().out
    assert "clairvoyant" in table
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert "<script" not in page
    document = json.loads((out / "compare.json").read_text(encoding="utf-8"))
    assert document["trace"] == "trace (test half)"
    assert [row["policy"] for row in document["policies"]] == [
        "trierarch", "static", "static:tuned", "clairvoyant",
    ]  # fmt: skip
    for row in document["policies"]:
        assert row.keys() >= SUMMARY_KEYS
    best = document["policies"][-1]
    for row in document["policies"][:-1]:
        if row["meets_target"]:
            assert best["cost_usd"] <= row["cost_usd"]


@pytest.mark.parametrize(
    "rows",
    ["0,100,50\n", "0,100,50\n" * 300, "".join(f"{3 * at},100,50\n" for at in range(10))],
    ids=["one-request", "all-at-once", "ten-requests"],
)
def test_a_trace_too_small_to_tune_on_is_compared_all_the_same(
    tmp_path: Path, rows: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.csv"
    path.write_text(HEADER + rows, encoding="utf-8")
    command = ["compare", "--trace", str(path), "--policies", "hpa,hpa:tuned,trierarch"]
    assert execute(commands, [*command, "--jobs", "1", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert "Peers are not tuned" in shown.err
    assert "clairvoyant" in shown.out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["compare", "--policies", "nope"], "no policy 'nope'"),
        (["simulate", "--policy", "nope"], "no policy 'nope'"),
        (["simulate", "--policy", "hpa", "--option", "foo=1"], "no option 'foo'"),
        (["simulate", "--policy", "hpa", "--option", "target"], "NAME=VALUE"),
        (["simulate", "--policy", "trierarch", "--option", "slo.percentile=200"], "percentile"),
        (["compare", "--fleet", "mixed", "--spot-trace", "/nowhere"], "no such file"),
    ],
)
def test_bad_input_is_one_line_and_ends_with_2(
    trace: Path, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(commands, [*arguments, "--trace", str(trace)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert complaint in line


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("decisions.jsonl", "nonsense\n", "not a file of decisions"),
        ("decisions.jsonl", "[1]\n", "not a decision"),
        ("other.txt", "", "no such file"),
    ],
)
def test_decisions_that_are_none_are_told(
    tmp_path: Path, name: str, text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert execute(commands, ["explain", "--decisions", str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert complaint in line
