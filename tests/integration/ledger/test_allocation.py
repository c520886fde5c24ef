"""Allocation in the ledger: parts add up, whatever arrives late."""

from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from trierarch.adapters.ledger import Ledger
from trierarch.core.clock import ManualClock
from trierarch.core.errors import InvalidInput
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.replicas import ReplicaState
from trierarch.core.usage import Outcome
from trierarch.cost.allocation import AllocationRule, IdlePayer, Part
from trierarch.cost.exact import exact_sum
from trierarch.cost.report import ReportBy
from trierarch.cost.unit_cost import UnitCost, UnitCostMissing

NOW = 1_800_000_000.0
ZERO = Money.of(0)


def sql(ledger, statement):
    with ledger._database.write() as connection:
        result = connection.execute(text(statement))
        return result.all() if result.returns_rows else None


def stored(ledger):
    return {
        (tenant, part): amount
        for tenant, part, amount in sql(ledger, "SELECT tenant, part, amount FROM allocations")
    }


@pytest.fixture
def served(ledger, clock, unit, usage):
    """One replica, ready for 100 seconds at 3.60 per hour, busy for 40 of them."""
    ledger.begin_capacity(unit(), state=ReplicaState.READY, at_unix_seconds=NOW)
    ledger.end_capacity("r1", at_unix_seconds=NOW + 100)
    ledger.record_usage([usage("q1", start=NOW + 10, seconds=40)])
    clock.advance(1000)
    return ledger


def test_window_is_split_and_stored(served):
    allocation = served.allocate_window("m", NOW, NOW + 100)
    assert allocation.capacity_cost == Money.of("0.1")
    assert stored(served) == {
        ("a", "serving"): "0.040000000000",
        ("", "idle"): "0.060000000000",
    }
    assert served.ledger_drift() == ZERO


def test_same_window_again_is_split_again_not_counted_twice(served):
    served.allocate_window("m", NOW, NOW + 100)
    rule = AllocationRule(idle_payer=IdlePayer.PROPORTIONAL)
    served.allocate_window("m", NOW, NOW + 100, rule)
    assert stored(served) == {
        ("a", "serving"): "0.040000000000",
        ("a", "idle"): "0.060000000000",
    }


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        (NOW + 50, NOW + 150, "overlaps the one of 'm'"),
        (NOW + 100, NOW + 100, "end after it starts"),
        (NOW + 100, NOW + 1001, "before it is over"),
    ],
)
def test_window_that_makes_no_sense_is_refused(served, start, end, says):
    served.allocate_window("m", NOW, NOW + 100)
    with pytest.raises(InvalidInput, match=says):
        served.allocate_window("m", start, end)


def test_adjoining_windows_are_fine(served):
    served.allocate_window("m", NOW, NOW + 33)
    served.allocate_window("m", NOW + 33, NOW + 100)
    assert served.ledger_drift() == ZERO


def test_due_windows_are_closed_once_and_only_after_the_grace(ledger, clock, unit, usage):
    ledger.begin_capacity(unit(), state=ReplicaState.READY)
    clock.advance(300)
    ledger.heartbeat(["r1"])
    assert ledger.allocate_due() == 0, "usage of the last seconds may still be on its way"
    clock.advance(30)
    ledger.heartbeat(["r1"])
    assert ledger.allocate_due() == 1
    assert ledger.allocate_due() == 0
    clock.advance(3600)
    ledger.heartbeat(["r1"])
    assert ledger.allocate_due() == 12
    assert ledger.ledger_drift() == ZERO


def test_time_without_capacity_has_no_windows(ledger, clock, unit):
    ledger.begin_capacity(unit("r1"))
    ledger.end_capacity("r1", at_unix_seconds=NOW + 10)
    clock.advance(86_400)
    ledger.begin_capacity(unit("r2"))
    ledger.end_capacity("r2", at_unix_seconds=NOW + 86_410)
    clock.advance(3600)
    assert ledger.allocate_due() == 2


def test_usage_that_arrives_late_is_split_in_the_next_round(served, usage):
    served.allocate_window("m", NOW, NOW + 100)
    served.record_usage([usage("late", tenant="b", start=NOW + 60, seconds=20)])
    assert served.ledger_drift() == ZERO
    assert served.allocate_due(window_seconds=100.0) == 1
    assert stored(served)[("b", "serving")] == "0.030000000000"
    assert served.ledger_drift() == ZERO
    assert served.allocate_due(window_seconds=100.0) == 0


def test_capacity_that_changes_a_closed_window_splits_it_in_the_same_transaction(served, unit):
    served.allocate_window("m", NOW, NOW + 100)
    served.begin_capacity(unit("r2"), at_unix_seconds=NOW + 50)
    served.heartbeat(["r2"], at_unix_seconds=NOW + 80)
    assert stored(served)[("", "warm_up")] == "0.030000000000"
    assert served.ledger_drift() == ZERO


def test_drift_shows_what_does_not_add_up(served):
    served.allocate_window("m", NOW, NOW + 100)
    sql(served, "UPDATE allocations SET amount = '0.050000000001' WHERE part = 'serving'")
    assert served.ledger_drift() == Money.of("-0.010000000001")
    assert served.ledger_drift(NOW + 100) == ZERO, "only windows that end later"


def test_unmatched_requests_are_counted(served, usage):
    served.record_usage([usage("q2", replica="ghost", start=NOW + 1)])
    assert served.allocate_window("m", NOW, NOW + 100).unmatched_requests == 1


# Reports


@pytest.mark.parametrize("closed", [False, True], ids=["before-any-window", "after-the-windows"])
def test_report_is_complete_at_any_time(served, usage, closed):
    if closed:
        served.allocate_window("m", NOW, NOW + 50)
    report = served.report(ReportBy.TENANT)
    platform, tenant = report.rows
    assert (tenant.charged, tenant.actual) == (Money.of("0.001"), Money.of("0.04"))
    assert tenant.variance == Money.of("-0.039")
    assert platform.part(Part.IDLE) == Money.of("0.06")
    assert report.capacity_cost == report.total.actual == Money.of("0.1")
    assert report.unallocated_drift == ZERO


@pytest.mark.parametrize(
    ("since", "until", "cost"),
    [(-50, 20, "0.02"), (20, 70, "0.05"), (90, 1000, "0.01"), (10, 60, "0.05")],
)
def test_report_that_cuts_through_windows_still_adds_up(served, since, until, cost):
    served.allocate_window("m", NOW, NOW + 40)
    served.allocate_window("m", NOW + 60, NOW + 100)
    report = served.report(
        ReportBy.CHARGE, since_unix_seconds=NOW + since, until_unix_seconds=NOW + until
    )
    assert report.total.actual == report.capacity_cost == Money.of(cost)


def test_report_counts_a_request_when_it_finished(served):
    before = served.report(ReportBy.TENANT, until_unix_seconds=NOW + 50)
    after = served.report(ReportBy.TENANT, since_unix_seconds=NOW + 50)
    assert (before.total.requests, after.total.requests) == (0, 1)


def test_open_time_is_split_by_the_rule_of_the_last_window(served):
    rule = AllocationRule(idle_payer=IdlePayer.OWNER, owner="team")
    served.allocate_window("m", NOW, NOW + 20, rule)
    (_, team) = served.report(ReportBy.TENANT, since_unix_seconds=NOW + 20).rows
    assert team.subject.tenant == "team"
    assert team.part(Part.IDLE) == Money.of("0.05")


def test_report_of_an_empty_ledger_is_empty(ledger):
    report = ledger.report(ReportBy.MODEL)
    assert report.rows == ()
    assert report.unallocated_drift == ZERO
    assert isinstance(report.total.unit_cost(), UnitCostMissing)


def test_report_that_ends_before_it_starts_is_refused(ledger):
    with pytest.raises(InvalidInput, match="--since before --until"):
        ledger.report(ReportBy.MODEL, since_unix_seconds=2.0, until_unix_seconds=1.0)


# The autoscaler's signal


def test_spend_rate_is_spend_and_tokens_per_hour(ledger, clock, unit, usage):
    ledger.begin_capacity(unit(), state=ReplicaState.READY)
    clock.advance(100)
    ledger.heartbeat(["r1"])
    ledger.record_usage([usage("q1", start=NOW + 10, tokens=TokenCounts(900, 0, 100))])
    rate = ledger.spend_rate("m", 600.0)
    assert rate.observed_seconds == 100.0
    assert rate.usd_per_hour == Decimal("3.6")
    assert rate.tokens_per_hour == pytest.approx(36_000)
    assert rate.current_usd_per_hour == Decimal("3.6")
    assert isinstance(rate.unit_cost, UnitCost)
    assert rate.unit_cost.usd_per_million_tokens == Decimal(100)


def test_spend_rate_forgets_what_is_older_than_its_window(ledger, clock, unit, usage):
    ledger.begin_capacity(unit(), state=ReplicaState.READY)
    ledger.record_usage([usage("q1", start=NOW + 10)])
    clock.advance(1000)
    ledger.heartbeat(["r1"])
    rate = ledger.spend_rate("m", 60.0)
    assert rate.spend == Money.of("0.06")
    assert rate.tokens == TokenCounts()
    assert isinstance(rate.unit_cost, UnitCostMissing)


def test_spend_rate_of_a_model_that_never_ran_is_zero_with_a_missing_unit_cost(ledger):
    rate = ledger.spend_rate("m", 60.0)
    assert (rate.usd_per_hour, rate.tokens_per_hour, rate.observed_seconds) == (0, 0.0, 0.0)
    assert isinstance(rate.unit_cost, UnitCostMissing)


def test_spend_of_one_variant(ledger, clock, unit, usage):
    ledger.begin_capacity(unit("r1", variant="v"), state=ReplicaState.READY)
    ledger.begin_capacity(unit("r2", variant="w", usd="7.2", count=2))
    ledger.begin_capacity(unit("r3", variant="w", usd="7.2", count=2))
    clock.advance(100)
    ledger.heartbeat(["r1", "r2", "r3"])
    ledger.record_usage([usage("q1", start=NOW + 10)])
    cheap, dear = (ledger.spend_rate("m", 600.0, variant=variant) for variant in ("v", "w"))
    assert (cheap.usd_per_hour, dear.usd_per_hour) == (Decimal("3.6"), Decimal("28.8"))
    assert (cheap.tokens.total_tokens, dear.tokens.total_tokens) == (120, 0)
    assert dear.current_usd_per_hour == Decimal("28.8")
    assert [(s.variant, s.replicas, s.usd_per_hour) for s in ledger.current_spend()] == [
        ("v", 1, Decimal("3.6")),
        ("w", 2, Decimal("28.8")),
    ]


# Whatever happens, in whatever order

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["begin", "ready", "drain", "end", "heartbeat", "usage", "allocate", "orphans"]
        ),
        st.integers(0, 2),
        st.floats(0, 200),
    ),
    max_size=25,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_ledger_never_drifts(tmp_path_factory, unit, usage, steps):
    clock = ManualClock(NOW)
    ledger = Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('l') / 'ledger.db'}", clock)
    count = 0
    for step, number, seconds in steps:
        replica = f"r{number}"
        clock.advance(seconds)
        live = ledger.begin_capacity(unit(replica, usd="1.234567")) if step == "begin" else False
        if step in {"ready", "drain"} and not live:
            state = ReplicaState.READY if step == "ready" else ReplicaState.DRAINING
            ledger.begin_capacity(unit(replica, usd="1.234567"))
            ledger.transition(replica, state)
        elif step == "end":
            ledger.end_capacity(replica)
        elif step == "heartbeat":
            ledger.heartbeat([replica])
        elif step == "orphans":
            ledger.close_orphans({replica})
        elif step == "usage":
            count += 1
            start = clock.unix_seconds() - seconds
            outcome = list(Outcome)[count % len(Outcome)]
            ledger.record_usage(
                [usage(f"q{count}", replica=replica, start=start, seconds=7, outcome=outcome)]
            )
        elif step == "allocate":
            ledger.allocate_due(window_seconds=60.0, grace_seconds=0.0)
        assert ledger.ledger_drift() == ZERO
    report = ledger.report(ReportBy.CHARGE, until_unix_seconds=clock.unix_seconds() + 1000)
    assert report.unallocated_drift == ZERO
    assert exact_sum(row.actual.amount for row in report.rows) == report.capacity_cost.amount
    assert report.total.requests == count
    ledger.close()
