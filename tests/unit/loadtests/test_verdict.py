import json
from decimal import Decimal

import pytest

from trierarch_loadtests.exchange import Exchange
from trierarch_loadtests.openai_stream import Answer, Outcome, Usage
from trierarch_loadtests.plan import make_plan
from trierarch_loadtests.reporting.ledger import (
    Account,
    NoAccount,
    TokenCounts,
    UnreadableAccount,
    compare,
    read_account,
    settle,
)
from trierarch_loadtests.reporting.markdown import render_markdown, render_verdict
from trierarch_loadtests.reporting.slo import Judgement, judge
from trierarch_loadtests.reporting.summary import RunFacts, build_summary, write_results
from trierarch_loadtests.reporting.tally import Measurement, Tally
from trierarch_loadtests.scenario import Slo, parse_scenario

USAGE = Usage(20, 4, 5)
SLO = Slo(ttft_seconds=1.0, tpot_seconds=0.1)


def scenario(**changes):
    content = {
        "name": "unit",
        "description": "For the verdict.",
        "shape": {
            "kind": "steady", "rate_per_second": 10.0, "duration_seconds": 10.0,
            "warm_up_seconds": 1.0,
        },
        "arrivals": {"law": "constant"},
        "mix": [
            {
                "kind": "chat",
                "input_tokens": {"law": "constant", "tokens": 30},
                "output_tokens": {"law": "constant", "tokens": 5},
            }
        ],
        "slo": {"ttft_seconds": 1.0, "tpot_seconds": 0.1},
        "thresholds": {},
    }  # fmt: skip
    return parse_scenario(content | changes, source="test")


def measurement(outcome=Outcome.COMPLETE, *, ttft=0.5, tpot=0.05, lag=0.0, usage=USAGE):
    """A request planned at second 100 whose answer has the given times."""
    complete = outcome is Outcome.COMPLETE
    content = tuple(100.0 + ttft + tpot * index for index in range(5)) if complete else ()
    return Measurement(
        planned_seconds=100.0,
        started_seconds=100.0 + lag,
        connected_seconds=100.0 + lag,
        ended_seconds=100.0 + ttft + 5 * tpot,
        answer=Answer(outcome, None, content, usage if complete else None, None),
    )


def tally_of(*measurements, plan=None, warm_up=0):
    """A tally of requests; the first ``warm_up`` of them fall into the warm-up stage."""
    plan = plan or make_plan(scenario(), kinds=frozenset({"chat"}))
    requests = list(plan.requests())
    first = next(index for index, one in enumerate(requests) if one.stage.measured)
    tally = Tally()
    for index, done in enumerate(measurements):
        planned = requests[index] if index < warm_up else requests[first + index]
        tally.plan(planned)
        if done is None:
            tally.drop(planned)
        else:
            tally.record(planned, done, SLO)
    return tally


ACCOUNT = Account(10, 1000, 100, 500, Decimal("0.5"), "USD")


def account(requests=0, input_tokens=0, cached_tokens=0, output_tokens=0):
    return Account(
        ACCOUNT.requests + requests,
        ACCOUNT.input_tokens + input_tokens,
        ACCOUNT.cached_tokens + cached_tokens,
        ACCOUNT.output_tokens + output_tokens,
        ACCOUNT.spend + Decimal("0.001"),
        "USD",
    )


CLIENT = TokenCounts(20, 4, 5)
AGREES = compare(ACCOUNT, account(1, 20, 4, 5), CLIENT, usage_unknown_requests=0)


def check_of(thresholds, tally, found=AGREES, name=None, unfinished=None, **changes):
    checked = scenario(thresholds=thresholds, **changes)
    verdict = judge(checked, tally, found, unfinished=unfinished)
    if name is None:
        (check,) = verdict.checks
        return check
    return next(check for check in verdict.checks if check.name == name)


@pytest.mark.parametrize(
    ("thresholds", "done", "judgement"),
    [
        ({"ttft_p95_seconds": 0.51}, measurement(ttft=0.5), Judgement.PASSED),
        ({"ttft_p95_seconds": 0.49}, measurement(ttft=0.5), Judgement.MISSED),
        ({"tpot_p95_seconds": 0.06}, measurement(tpot=0.05), Judgement.PASSED),
        ({"tpot_p95_seconds": 0.04}, measurement(tpot=0.05), Judgement.MISSED),
        ({"gap_p99_seconds": 0.04}, measurement(tpot=0.05), Judgement.MISSED),
        ({"latency_p95_seconds": 0.5}, measurement(ttft=0.5), Judgement.MISSED),
        ({"goodput_ratio": 1.0}, measurement(), Judgement.PASSED),
        ({"goodput_ratio": 1.0}, measurement(tpot=0.2), Judgement.MISSED),
        ({"start_lag_p99_seconds": 0.1}, measurement(lag=0.2), Judgement.MISSED),
        ({"start_lag_p99_seconds": 0.1}, measurement(lag=0.05), Judgement.PASSED),
        ({"error_ratio": 0}, measurement(), Judgement.PASSED),
        ({"error_ratio": 0}, measurement(Outcome.SERVER_ERROR), Judgement.MISSED),
        ({"error_ratio": 0}, measurement(Outcome.RATE_LIMITED), Judgement.MISSED),
        ({"error_ratio": 0}, measurement(Outcome.FAILED_BEFORE_FIRST_BYTE), Judgement.MISSED),
        ({"lost_streams": 0}, measurement(), Judgement.PASSED),
        ({"lost_streams": 0}, measurement(Outcome.LOST_STREAM), Judgement.MISSED),
        ({"lost_streams": 0}, measurement(Outcome.SERVER_ERROR), Judgement.PASSED),
        ({"dropped_requests": 0}, measurement(), Judgement.PASSED),
        ({"dropped_requests": 0}, None, Judgement.MISSED),
    ],
)
def test_each_threshold_is_judged_by_what_it_names(thresholds, done, judgement):
    assert check_of(thresholds, tally_of(done)).judgement is judgement


@pytest.mark.parametrize(
    "thresholds",
    [
        {"ttft_p95_seconds": 9.0},
        {"tpot_p95_seconds": 9.0},
        {"error_ratio": 1.0},
        {"goodput_ratio": 0.1},
        {"start_lag_p99_seconds": 9.0},
    ],
)
def test_nothing_measured_passes_nothing(thresholds):
    check = check_of(thresholds, Tally())
    assert (check.judgement, check.observed, check.note) == (Judgement.MISSED, None, "no sample")


def test_failed_requests_have_no_latency_so_failing_fast_is_not_fast():
    tally = tally_of(measurement(Outcome.SERVER_ERROR, ttft=0.001), measurement(ttft=5.0))
    assert check_of({"ttft_p50_seconds": 1.0}, tally).judgement is Judgement.MISSED


def test_warm_up_is_not_judged_but_a_stream_lost_in_it_is():
    tally = tally_of(measurement(Outcome.LOST_STREAM), measurement(), warm_up=1)
    limits = {"error_ratio": 0, "lost_streams": 0}
    assert check_of(limits, tally, name="error_ratio").judgement is Judgement.PASSED
    assert check_of(limits, tally, name="lost_streams").judgement is Judgement.MISSED


def test_a_stage_can_have_limits_of_its_own():
    limits = {"stages": {"steady": {"ttft_p95_seconds": 0.1}}}
    check = check_of(limits, tally_of(measurement()))
    assert (check.name, check.judgement) == ("steady/ttft_p95_seconds", Judgement.MISSED)


def test_a_dropped_request_lowers_goodput():
    tally = tally_of(measurement(), None)
    assert check_of({"goodput_ratio": 1.0}, tally).observed == 0.5


def test_a_plan_not_carried_out_never_passes():
    check = check_of({}, tally_of(measurement()), unfinished="interrupted")
    assert (check.judgement, check.note) == (Judgement.MISSED, "interrupted")


@pytest.mark.parametrize(
    ("after", "difference"),
    [
        (account(1, 20, 4, 5), 0),
        (account(1, 21, 4, 5), 1),
        (account(1, 20, 0, 5), 4),
        (account(1, 20, 4, 3), 2),
    ],
)
def test_the_ledger_differs_in_any_class_of_tokens(after, difference):
    result = compare(ACCOUNT, after, CLIENT, usage_unknown_requests=0)
    assert result.difference_tokens == difference
    judgement = check_of({"ledger_token_difference": 0}, Tally(), result).judgement
    assert judgement is (Judgement.MISSED if difference else Judgement.PASSED)


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize(
    ("after", "optional"),
    [
        pytest.param(NoAccount("status 404"), Judgement.NOT_AVAILABLE, id="no-account"),
        pytest.param(UnreadableAccount("status 500"), Judgement.MISSED, id="unreadable"),
    ],
)
def test_a_missing_account_never_passes(after, optional, required):
    result = compare(ACCOUNT, after, CLIENT, usage_unknown_requests=0)
    check = check_of({"ledger_token_difference": 0}, Tally(), result, ledger={"required": required})
    assert check.judgement is (Judgement.MISSED if required else optional)
    assert check.note == after.reason


def test_an_account_is_read_from_the_wire():
    body = {
        "object": "usage", "tenant": "default", "requests": 3,
        "tokens": {"input": 30, "cached": 6, "output": 9},
        "spend": {"amount": "0.000123", "currency": "USD"}, "budgets": [],
    }  # fmt: skip
    done = Exchange(started_seconds=0.0, status=200, body=json.dumps(body).encode())
    assert read_account(done) == Account(3, 30, 6, 9, Decimal("0.000123"), "USD")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, b"", NoAccount),
        (501, b"", NoAccount),
        (401, b"", UnreadableAccount),
        (500, b"", UnreadableAccount),
        (None, b"", UnreadableAccount),
        (200, b"{}", UnreadableAccount),
        (200, b"<html>", UnreadableAccount),
        (200, b"[]", UnreadableAccount),
        (
            200,
            b'{"requests": 1, "tokens": {"input": 1, "cached": 0, "output": 1},'
            b' "spend": {"amount": "cheap", "currency": "USD"}}',
            UnreadableAccount,
        ),
    ],
)
def test_no_account_and_a_broken_one_are_told_apart(status, body, kind):
    done = Exchange(started_seconds=0.0, status=status, body=body)
    assert isinstance(read_account(done), kind)


class Settling:
    """An account that changes with each look, and a clock that only sleeping moves."""

    def __init__(self, *readings):
        self.readings = list(readings)
        self.now_seconds = 0.0

    def read(self):
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]

    def sleep(self, seconds):
        self.now_seconds += seconds

    def settle(self):
        return settle(
            self.read, ACCOUNT, CLIENT, usage_unknown_requests=0, limit_seconds=5.0,
            now=lambda: self.now_seconds, sleep=self.sleep,
        )  # fmt: skip


def test_a_late_account_is_waited_for():
    late = Settling(ACCOUNT, ACCOUNT, account(1, 20, 4, 5))
    assert late.settle().difference_tokens == 0
    assert late.now_seconds < 5.0


def test_an_account_that_goes_past_the_client_is_caught():
    beyond = Settling(account(1, 20, 4, 5), account(2, 40, 8, 10))
    assert beyond.settle().difference_tokens == 20


def test_an_account_that_never_agrees_ends_the_wait():
    never = Settling(account(1, 20, 4, 6))
    assert never.settle().difference_tokens == 1
    assert 5.0 <= never.now_seconds < 6.5


def test_counts_survive_the_way_to_the_master_and_add_up():
    left = tally_of(measurement(), measurement(Outcome.LOST_STREAM), None)
    right = tally_of(measurement(ttft=0.9))
    merged = Tally.from_message(json.loads(json.dumps(left.to_message())))
    merged.merge(Tally.from_message(json.loads(json.dumps(right.to_message()))))
    row = merged.everything()
    assert row.counts["planned"] == 4
    assert row.counts["complete"] == 2
    assert row.counts["lost_stream"] == 1
    assert row.counts["dropped"] == 1
    assert row.counts["output_tokens"] == 10
    assert row.histograms["ttft_seconds"].count == 2
    assert row.counts["usage_unknown"] == 1
    assert len(merged.failures) == 1
    # Requests are not added up: they go to the recording, report by report.
    assert merged.requests == left.requests
    assert [one.outcome for one in merged.requests] == ["complete", "lost_stream", "dropped"]
    # The server counted the first; the others stand with what was planned.
    assert [one.input_tokens for one in merged.requests] == [20, 30, 30]
    assert [one.output_tokens for one in merged.requests] == [5, 5, 5]
    assert sum(one.counts["planned"] for one in merged.timeline.values()) == 4


def test_latency_counts_from_the_planned_start_and_lag_is_part_of_it():
    late = measurement(ttft=2.0, lag=1.5)
    assert late.ttft_seconds == pytest.approx(2.0)
    assert late.start_lag_seconds == pytest.approx(1.5)
    assert not late.meets(SLO)


def summary_of(tally, ledger=AGREES, unfinished=None, cpu_saturated=False):
    checked = scenario(thresholds={"ttft_p95_seconds": 1.0, "lost_streams": 0})
    plan = make_plan(checked, kinds=frozenset({"chat"}))
    facts = RunFacts(
        run_id="r", started_at="2026-01-01T00:00:00+00:00", workers=1, duration_factor=1.0,
        requests=109, base_url="http://x:80/v1", model="pocket", engine="vllm-0.32.0",
        environment={"python": "3.11"}, commit="abc", command="locust", notes=("a note",),
        cpu_saturated=cpu_saturated, unfinished=unfinished,
    )  # fmt: skip
    verdict = judge(checked, tally, ledger, unfinished=unfinished)
    return build_summary(facts, plan, tally, ledger, verdict), plan


def test_a_summary_says_how_it_was_made_and_what_it_found(tmp_path):
    summary, plan = summary_of(tally_of(measurement(), measurement(Outcome.LOST_STREAM)))
    write_results(tmp_path / "new", summary, render_markdown(summary), plan)
    stored = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert stored["verdict"]["passed"] is False
    assert stored["seed"] == plan.scenario.seed
    assert stored["run"]["commit"] == "abc"
    assert stored["ledger"]["spend"] == {"amount": "0.001", "currency": "USD"}
    # 0.001 dollars for 5 output tokens are 200 dollars per million.
    assert stored["ledger"]["per_million_output_tokens"]["amount"] == "200.000000"
    assert stored["measured"]["planned_requests_per_second"] == pytest.approx(2 / 10.0)
    page = (tmp_path / "new" / "summary.md").read_text()
    for part in ("missed", "vllm-0.32.0", "abc", "lost streams | 1 | 1", "a note"):
        assert part in page
    saved = (tmp_path / "new" / "scenario.yaml").read_text()
    assert "rate_per_second: 10.0" in saved


@pytest.mark.parametrize(
    ("tally", "changes", "warning"),
    [
        pytest.param(tally_of(None), {}, "1 of 1 planned requests were dropped", id="drops"),
        pytest.param(tally_of(measurement(lag=0.5)), {}, "generator itself was late", id="lag"),
        pytest.param(tally_of(measurement()), {"cpu_saturated": True}, "CPU core", id="cpu"),
        pytest.param(tally_of(measurement(usage=None)), {}, "no usage", id="no-usage"),
        pytest.param(tally_of(measurement()), {"unfinished": "stopped"}, "stopped", id="cut-short"),
    ],
)
def test_what_makes_figures_doubtful_is_said(tally, changes, warning):
    summary, _ = summary_of(tally, **changes)
    (found,) = summary["warnings"]
    assert warning in found
    assert f"warning: {found}" in render_verdict(summary)


def test_a_good_run_has_no_warnings_and_ends_on_its_verdict():
    summary, _ = summary_of(tally_of(measurement()))
    assert summary["warnings"] == []
    assert render_verdict(summary).endswith("PASSED: scenario unit")


@pytest.mark.parametrize("after", [NoAccount("status 404"), UnreadableAccount("status 500")])
def test_a_page_without_ledger_says_so(after):
    result = compare(ACCOUNT, after, CLIENT, usage_unknown_requests=0)
    summary, _ = summary_of(tally_of(measurement()), ledger=result)
    assert after.reason in render_markdown(summary)
    assert summary["ledger"]["spend"] is None
