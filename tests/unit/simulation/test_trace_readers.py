"""Every trace format, and one clear line for every file that cannot be trusted."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from trierarch.core.errors import InvalidInput
from trierarch.simulation.scenarios import ScenarioChoices, build_scenario
from trierarch.simulation.traces import Tier, Trace, read_spot_trace, read_trace
from trierarch_loadtests.reporting.recording import DROPPED, RecordedRequest, Recording

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:15:46.6805900,374,44\r\n"
    "2023-11-16 18:15:50.9951690,396,109"
)
BURST = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n"
    "6,ChatGPT,9,0,9,Conversation log\n"
    "8,GPT-4,10,20,30,API log\n"
)
MOONCAKE = (
    '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n'
    '{"timestamp": 250, "input_length": 700, "output_length": 6, "hash_ids": [1, 3]}\n'
)
QWEN = (
    '{"chat_id": 1, "timestamp": 0.5, "input_length": 40, "output_length": 5, "hash_ids": [7]}\n'
    '{"chat_id": 2, "timestamp": 2.5, "input_length": 41, "output_length": 6, "hash_ids": [7]}\n'
)
PLAIN = "arrival_seconds,input_tokens,output_tokens,tier\n0,10,1,flex\n1.5,20,2,\n"
CLIENTS = (
    "client,t_s,rate_rps,cv,pattern,arg1,arg2\n"
    "0,0,1.5,1.0,Gamma,1.0,1.0\n"
    "1,600,0.5,2.0,Weibull,0.6,1\n"
)
LENGTHS = (
    "client,t_s,field,requests_in_6h,mean,q01,q05,q10,q25,q50,q75,q90,q95,q99,q100\n"
    + "".join(
        f"{client},0,{field},9,60,1,5,10,25,50,75,90,95,99,400\n"
        for client in (0, 1)
        for field in ("input_tokens", "output_tokens")
    )
)


def read(folder: Path, name: str, text: str) -> Trace:
    """Write a file and read it."""
    (folder / name).write_bytes(text.encode())
    return read_trace(folder / name)


@pytest.mark.parametrize(
    ("text", "times", "inputs", "outputs"),
    [
        (AZURE, [0.0, 4.314579], [374, 396], [44, 109]),
        (MOONCAKE, [0.0, 0.25], [600, 700], [5, 6]),
        (QWEN, [0.0, 2.0], [40, 41], [5, 6]),
        (PLAIN, [0.0, 1.5], [10, 20], [1, 2]),
    ],
    ids=["azure", "mooncake", "qwen-bailian", "csv"],
)
def test_a_format_is_detected_and_read(
    tmp_path: Path, text: str, times: list[float], inputs: list[int], outputs: list[int]
) -> None:
    trace = read(tmp_path, "trace.txt", text)
    np.testing.assert_allclose(trace.arrival_seconds, times, atol=1e-6)
    assert list(trace.input_tokens) == inputs
    assert list(trace.output_tokens) == outputs


def test_what_the_load_tests_record_is_read_back(tmp_path: Path) -> None:
    rows = [
        RecordedRequest(1.5, 20, 5, "flex", "chat/stream", "load", "complete", 0.0, 0.3, 0.02, 1.0),
        RecordedRequest(0.5, 30, 7, "", "chat/stream", "load", "lost_stream", 0.1, None, None, 2.0),
        RecordedRequest(2.0, 40, 9, "priority", "chat/stream", "load", DROPPED),
        RecordedRequest(2.5, 50, 0, "", "embedding", "load", "complete", 0.0, None, None, 0.1),
    ]
    recording = Recording(tmp_path)
    recording.add(rows)
    recording.close()
    trace = read_trace(recording.path)
    assert trace.source_format == "locust"
    # A request that failed or was never sent was asked for; an embedding generates nothing.
    np.testing.assert_allclose(trace.arrival_seconds, [0.0, 1.0, 1.5])
    assert list(trace.input_tokens) == [30, 20, 40]
    assert list(trace.output_tokens) == [7, 5, 9]
    assert list(trace.tiers) == [Tier.DEFAULT, Tier.FLEX, Tier.PRIORITY]
    assert trace.notes == ("1 rows without output tokens dropped",)


def test_failed_calls_of_burstgpt_are_dropped_and_noted(tmp_path: Path) -> None:
    trace = read(tmp_path, "burst.csv", BURST)
    assert list(trace.input_tokens) == [472, 10]
    assert "1 rows without output tokens dropped" in trace.notes


def test_blocks_and_tiers_are_kept(tmp_path: Path) -> None:
    mooncake = read(tmp_path, "m.jsonl", MOONCAKE)
    assert (mooncake.prefix_block_tokens, list(mooncake.prefix_block_ids)) == (512, [1, 2, 1, 3])
    assert read(tmp_path, "q.jsonl", QWEN).prefix_block_tokens == 16
    assert list(read(tmp_path, "p.csv", PLAIN).tiers) == [Tier.FLEX, Tier.DEFAULT]


def test_servegen_draws_the_documented_number_of_requests(tmp_path: Path) -> None:
    (tmp_path / "x-clients.csv.gz").write_bytes(gzip.compress(CLIENTS.encode()))
    (tmp_path / "x-lengths.csv.gz").write_bytes(gzip.compress(LENGTHS.encode()))
    trace = read_trace(tmp_path / "x-clients.csv.gz")
    again = read_trace(tmp_path / "x-clients.csv.gz")
    assert len(trace) == 900 + 300
    assert trace.duration_seconds <= 1200.0
    assert (np.diff(trace.arrival_seconds) >= 0).all()
    assert trace.input_tokens.max() <= 400
    np.testing.assert_array_equal(trace.arrival_seconds, again.arrival_seconds)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the file is empty"),
        ("a,b\n1,2\n", "not those of a known trace"),
        (PLAIN.replace("1.5", "x"), "line 3: arrival_seconds is 'x', not a number"),
        (PLAIN.replace("1.5", "nan"), "not a finite number"),
        (PLAIN.replace("20", "-20"), "token counts are whole numbers"),
        ("Timestamp,User Count,Type,Name,Requests/s\n1,5,GET,/,3\n", "Locust's statistics"),
        ("model,prompt_time,token_time\nx,1,2\n", "measured service times"),
        ("2021-12-11,11:11:30,55\n", "spot-capacity events"),
        (PLAIN.replace("flex", "gold"), "line 2: tier is 'gold'"),
        (PLAIN.splitlines()[0] + "\n", "a header and no requests"),
        (PLAIN + "3,4\n", "fields where the header has 4"),
        (MOONCAKE + "{oops\n", "line 3: not a request"),
        (MOONCAKE.replace('"input_length": 700, ', ""), "line 2: no 'input_length'"),
        (CLIENTS, "beside it for the lengths"),
        (LENGTHS, "ServeGen lengths only"),
    ],
)
def test_a_bad_file_gives_one_clear_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint) as refusal:
        read(tmp_path, "bad.csv", text)
    assert "\n" not in str(refusal.value)


def test_a_file_out_of_order_is_sorted_and_says_so(tmp_path: Path) -> None:
    rows = (
        '{"timestamp": 500, "input_length": 3, "output_length": 5, "hash_ids": [1, 2]}\n'
        '{"timestamp": 100, "input_length": 1, "output_length": 6, "hash_ids": [3]}\n'
        '{"timestamp": 250, "input_length": 2, "output_length": 7, "hash_ids": []}\n'
    )
    trace = read(tmp_path, "t.jsonl", rows)
    np.testing.assert_allclose(trace.arrival_seconds, [0.0, 0.15, 0.4])
    assert list(trace.input_tokens) == [1, 2, 3]
    assert list(trace.prefix_block_ids) == [3, 1, 2]
    assert list(trace.prefix_block_offsets) == [0, 1, 1, 3]
    assert any("sorted" in note for note in trace.notes)


def test_a_long_trace_is_cut_to_its_hardest_part(tmp_path: Path) -> None:
    times = [*range(0, 3600, 100), *range(3600, 5400, 10), *range(5400, 9000, 100)]
    text = "".join(f"{at},10,2\n" for at in times)
    trace = read(tmp_path, "t.csv", "arrival_seconds,input_tokens,output_tokens\n" + text)
    load = np.bincount((trace.arrival_seconds // 300).astype(int)).astype(float)
    part = trace.hardest(1800.0, load, 300.0)
    assert len(part) == 180
    assert part.arrival_seconds[0] == 0.0
    assert any("hardest" in note for note in part.notes)
    assert trace.hardest(9000.0, load, 300.0) is trace


def test_a_cut_gzip_file_and_a_missing_one_are_told(tmp_path: Path) -> None:
    packed = tmp_path / "cut.csv.gz"
    packed.write_bytes(gzip.compress(AZURE.encode() * 50)[:-12])
    with pytest.raises(InvalidInput, match="ends too early"):
        read_trace(packed)
    with pytest.raises(InvalidInput, match="no such file"):
        read_trace(tmp_path / "none.csv")


def test_halves_and_scaling_keep_every_request(tmp_path: Path) -> None:
    rows = "".join(f"{at},{at + 1},2\n" for at in range(101))
    trace = read(tmp_path, "t.csv", "arrival_seconds,input_tokens,output_tokens\n" + rows)
    training, test = trace.halves()
    assert (len(training), len(test)) == (50, 51)
    assert test.arrival_seconds[0] == 0.0
    tripled = trace.scaled(3.0, seed=0)
    assert len(tripled) == 303
    assert tripled.input_tokens.sum() == 3 * trace.input_tokens.sum()
    assert tripled.duration_seconds <= trace.duration_seconds


def test_spot_events_and_counts_become_shares(tmp_path: Path) -> None:
    events, counts = tmp_path / "events.csv", tmp_path / "counts.csv"
    events.write_text("0,add,a\n0,add,b\n5000,remove,a\n", encoding="utf-8")
    counts.write_text("2021-12-01,10:00:00,4\n2021-12-01,10:01:00,1\n", encoding="utf-8")
    first, second = read_spot_trace(events), read_spot_trace(counts)
    assert list(first.available_ratio) == [1.0, 0.5]
    assert list(first.lost_ratio) == [0.0, 0.5]
    assert list(second.time_seconds) == [0.0, 60.0]
    assert list(second.lost_ratio) == [0.0, 0.75]


def test_a_busy_trace_is_cut_to_its_hardest_part_of_so_many_requests(tmp_path: Path) -> None:
    times = [*range(0, 3600, 10), *range(3600, 7200, 1), *range(7200, 14400, 10)]
    text = "".join(f"{at},2000,400\n" for at in times)
    trace = read(tmp_path, "t.csv", "arrival_seconds,input_tokens,output_tokens\n" + text)
    assert len(build_scenario(trace, ScenarioChoices(most_requests=len(trace))).trace) == len(trace)
    part = build_scenario(trace, ScenarioChoices(most_requests=1500)).trace
    # 25 of the 60 busy minutes.
    assert 1200 <= len(part) <= 1500
    assert part.duration_seconds <= 1500.0
    assert any("hardest hours of 4, from hour" in note for note in part.notes)
