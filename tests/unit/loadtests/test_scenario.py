import gzip

import pytest

from trierarch_loadtests.errors import UsageError
from trierarch_loadtests.plan import Plan, make_plan
from trierarch_loadtests.scenario import available_scenarios, load_scenario, parse_scenario
from trierarch_loadtests.shapes.stages import total_seconds
from trierarch_loadtests.shapes.trace_replay import TraceReplayShape, TraceRequest, read_trace
from trierarch_loadtests.workloads.seeds import stream

MINIMAL = {
    "name": "minimal",
    "description": "The least a scenario can say.",
    "shape": {"kind": "steady", "rate_per_second": 5.0, "duration_seconds": 10.0},
    "mix": [
        {
            "kind": "chat",
            "input_tokens": {"law": "constant", "tokens": 30},
            "output_tokens": {"law": "uniform", "minimum_tokens": 4, "maximum_tokens": 8},
        }
    ],
    "slo": {"ttft_seconds": 1.0, "tpot_seconds": 0.1},
    "thresholds": {},
}
REPLAY = MINIMAL | {
    "shape": {
        "kind": "trace_replay",
        "path": "unused.csv",
        "duration_seconds": 24.0,
        "maximum_input_tokens": 100,
        "maximum_output_tokens": 50,
    }
}
CHAT = frozenset({"chat"})


def scenario(**changes):
    return parse_scenario(MINIMAL | changes, source="test")


@pytest.mark.parametrize("name", ["smoke", "autoscale_step", "moe_burst", "cost_day"])
def test_every_scenario_that_ships_loads_and_judges_what_matters(name):
    loaded = load_scenario(name)
    assert loaded.name == name
    limits = loaded.thresholds
    assert limits.lost_streams == 0
    assert limits.ledger_token_difference == 0
    assert None not in (limits.ttft_p95_seconds, limits.tpot_p95_seconds, limits.error_ratio)


def test_no_scenario_ships_untested():
    assert available_scenarios() == ["autoscale_step", "cost_day", "moe_burst", "smoke"]


def test_the_step_lasts_through_a_cold_start_and_its_rate_can_be_set():
    loaded = load_scenario("autoscale_step").override(rate_per_second=9.0)
    rates = {stage.name: stage.rate_per_second for stage in loaded.shape.stages()}
    assert rates["overload"] == rates["scaled"] == 9.0
    assert rates["quiet"] < 1.0
    step = [s for s in loaded.shape.stages() if s.name in ("overload", "scaled")]
    # A second replica takes 45 to 75 s on two cores.
    assert total_seconds(step) >= 75.0


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        pytest.param({"shape": {"kind": "wave"}}, "shape", id="unknown-shape"),
        pytest.param({"thresholds": {"ttft_p95": 1}}, "thresholds.ttft_p95", id="misspelt"),
        pytest.param({"name": "Has Spaces"}, "name", id="bad-name"),
        pytest.param({"mix": []}, "mix", id="nothing-to-send"),
        pytest.param({"mix": MINIMAL["mix"] * 2}, "merge them", id="same-kind-twice"),
        pytest.param(
            {"mix": [{"kind": "chat", "input_tokens": {"law": "constant", "tokens": 3}}]},
            "needs output_tokens",
            id="no-output-length",
        ),
        pytest.param(
            {"thresholds": {"stages": {"nowhere": {"ttft_p95_seconds": 1}}}},
            "nowhere",
            id="threshold-for-no-stage",
        ),
    ],
)
def test_a_bad_scenario_is_one_line_that_names_the_field(changes, part):
    with pytest.raises(UsageError) as caught:
        scenario(**changes)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rate_cannot_be_set_for_a_trace_nor_a_trace_for_a_rate():
    with pytest.raises(UsageError, match="--rate has no meaning"):
        parse_scenario(REPLAY, source="test").override(rate_per_second=2.0)
    with pytest.raises(UsageError, match="needs a trace_replay"):
        scenario().override(trace="some.csv")


def test_shares_of_any_number_of_workers_are_the_whole_plan():
    plan = make_plan(scenario(), kinds=CHAT)
    whole = list(plan.requests())
    assert len(whole) > 20
    for workers in (1, 2, 3, 7):
        shares = [list(plan.share(worker, workers)) for worker in range(workers)]
        together = sorted((one for share in shares for one in share), key=lambda one: one.index)
        assert together == whole


def test_a_plan_survives_the_way_to_a_worker():
    trace = [TraceRequest(1.0, 10, 5)]
    for plan in (
        make_plan(load_scenario("moe_burst"), kinds=frozenset({"chat", "completion"})),
        make_plan(parse_scenario(REPLAY, source="test"), kinds=CHAT, trace=trace),
    ):
        copy = Plan.from_message(plan.to_message())
        assert list(copy.requests()) == list(plan.requests())


def test_lengths_do_not_change_the_arrivals():
    longer = [MINIMAL["mix"][0] | {"output_tokens": {"law": "constant", "tokens": 9}}]
    first = [one.seconds for one in make_plan(scenario(), kinds=CHAT).requests()]
    second = [one.seconds for one in make_plan(scenario(mix=longer), kinds=CHAT).requests()]
    assert first == second


def test_a_kind_the_endpoint_lacks_leaves_its_share_to_the_others():
    day = load_scenario("cost_day")
    with_embeddings = list(make_plan(day, kinds=frozenset({"chat", "embedding"})).requests())
    without = list(make_plan(day, kinds=CHAT).requests())
    assert {one.entry.kind for one in with_embeddings} == {"chat", "embedding"}
    assert {one.entry.kind for one in without} == {"chat"}
    assert len(without) == len(with_embeddings)


def test_a_longer_run_keeps_its_rates():
    short = make_plan(scenario(), kinds=CHAT, duration_factor=0.5)
    assert total_seconds(short.stages) == 5.0
    assert short.stages[0].rate_per_second == 5.0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param(
            "azure.csv",
            b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
            b"2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:05.2299600,9,44",
            id="azure",
        ),
        pytest.param(
            "mooncake.jsonl",
            b'{"timestamp": 1000, "input_length": 4808, "output_length": 10, "hash_ids": [1]}\n'
            b'{"timestamp": 2250, "input_length": 9, "output_length": 44, "hash_ids": [2]}\n',
            id="mooncake",
        ),
        pytest.param(
            "plain.csv",
            b"seconds,input_tokens,output_tokens\n7.0,4808,10\n8.25,9,44\n",
            id="plain",
        ),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_trace_format_is_read_packed_or_not(tmp_path, name, content, packed):
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    first, second = read_trace(path)
    assert (first.seconds, first.input_tokens, first.output_tokens) == (0.0, 4808, 10)
    assert second.seconds == pytest.approx(1.25, abs=1e-6)
    assert (second.input_tokens, second.output_tokens) == (9, 44)


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"", b"seconds,input_tokens,output_tokens\n"])
def test_what_is_no_trace_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "odd.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"odd\.csv"):
        read_trace(path)


def test_a_replay_keeps_times_and_lengths_within_its_limits():
    trace = [TraceRequest(0.0, 500, 5), TraceRequest(4.0, 10, 500), TraceRequest(99.0, 1, 1)]
    plan = make_plan(parse_scenario(REPLAY, source="test"), kinds=CHAT, trace=trace)
    sent = [(one.seconds, one.input_tokens, one.output_tokens) for one in plan.requests()]
    assert sent == [(0.0, 100, 5), (4.0, 10, 50)]
    assert plan.arrivals_summary == {"law": "recorded"}
    assert sum(stage.rate_per_second * stage.duration_seconds for stage in plan.stages) == 2


def test_jitter_spreads_a_coarse_clock_and_keeps_the_order_sorted():
    shape = TraceReplayShape(
        kind="trace_replay", path="x", duration_seconds=100.0, jitter_seconds=3.0,
        maximum_input_tokens=9, maximum_output_tokens=9,
    )  # fmt: skip
    moved = shape.requests([TraceRequest(3.0, 1, 1)] * 50, stream(1, "jitter"))
    instants = [one.seconds for one in moved]
    assert instants == sorted(instants)
    assert len(set(instants)) == 50
    assert 3.0 <= min(instants) <= max(instants) <= 6.0
