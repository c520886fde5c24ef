"""Capacity: what a replica cost, from provision to release."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from sqlalchemy import text

from trierarch.adapters.ledger import ObservedReplica
from trierarch.core.errors import InvalidInput
from trierarch.core.quantities import Money
from trierarch.core.replicas import ReplicaState
from trierarch.cost.allocation import Part
from trierarch.cost.documents import PriceDocument, parse_price_document
from trierarch.cost.report import ReportBy

NOW = 1_800_000_000.0


def intervals(ledger):
    with ledger._database.read() as connection:
        rows = connection.execute(
            text(
                "SELECT replica_id, state, usd_per_accelerator_hour, started_unix_microseconds,"
                " heartbeat_unix_microseconds, ended_unix_microseconds FROM capacity ORDER BY id"
            )
        ).all()
    return [
        (
            row[0],
            row[1],
            row[2],
            row[3] / 1e6 - NOW,
            row[4] / 1e6 - NOW,
            None if row[5] is None else row[5] / 1e6 - NOW,
        )
        for row in rows
    ]


def total(ledger):
    return ledger.report(ReportBy.MODEL, until_unix_seconds=NOW + 10_000).total


def at(seconds):
    return {"at_unix_seconds": NOW + seconds}


def test_life_of_a_replica_is_one_interval_per_state(ledger, unit):
    assert ledger.begin_capacity(unit(), **at(0))
    ledger.transition("r1", ReplicaState.READY, **at(10))
    ledger.transition("r1", ReplicaState.DRAINING, **at(30))
    assert ledger.end_capacity("r1", **at(35))
    assert intervals(ledger) == [
        ("r1", "starting", "3.6", 0, 10, 10),
        ("r1", "ready", "3.6", 10, 30, 30),
        ("r1", "draining", "3.6", 30, 35, 35),
    ]
    assert total(ledger).actual == Money.of("0.035")
    assert total(ledger).part(Part.WARM_UP) == Money.of("0.01")


def test_a_group_costs_all_its_accelerators(ledger, unit):
    ledger.begin_capacity(unit(count=8), **at(0))
    ledger.end_capacity("r1", **at(10))
    assert total(ledger).actual == Money.of("0.08")


def test_repeating_a_call_changes_nothing(ledger, unit):
    assert ledger.begin_capacity(unit(), **at(0))
    assert not ledger.begin_capacity(unit(), **at(5))
    ledger.transition("r1", ReplicaState.READY, **at(10))
    ledger.transition("r1", ReplicaState.READY, **at(20))
    assert ledger.end_capacity("r1", **at(30))
    assert not ledger.end_capacity("r1", **at(40))
    assert [row[1:] for row in intervals(ledger)] == [
        ("starting", "3.6", 0, 10, 10),
        ("ready", "3.6", 10, 30, 30),
    ]


def test_replica_that_was_never_begun_cannot_change_state(ledger):
    with pytest.raises(InvalidInput, match="no open capacity interval"):
        ledger.transition("ghost", ReplicaState.READY)


def test_open_interval_costs_until_its_last_heartbeat_only(ledger, unit):
    ledger.begin_capacity(unit(), **at(0))
    assert total(ledger).actual == Money.of(0)
    ledger.heartbeat(["r1", "unknown"], **at(7))
    assert total(ledger).actual == Money.of("0.007")


def test_orphan_ends_at_its_last_heartbeat_and_costs_nothing_more(ledger, unit):
    ledger.begin_capacity(unit("r1"), **at(0))
    ledger.begin_capacity(unit("r2"), **at(0))
    ledger.heartbeat(["r1", "r2"], **at(20))
    ledger.heartbeat(["r2"], **at(100))
    assert ledger.close_orphans({"r2"}) == ["r1"]
    assert intervals(ledger) == [
        ("r1", "starting", "3.6", 0, 20, 20),
        ("r2", "starting", "3.6", 0, 100, None),
    ]


def test_clock_that_goes_back_takes_nothing_back(ledger, unit):
    ledger.begin_capacity(unit(), **at(0))
    ledger.heartbeat(["r1"], **at(50))
    ledger.heartbeat(["r1"], **at(20))
    ledger.transition("r1", ReplicaState.READY, **at(30))
    ledger.end_capacity("r1", **at(40))
    assert intervals(ledger) == [
        ("r1", "starting", "3.6", 0, 50, 50),
        ("r1", "ready", "3.6", 50, 50, 50),
    ]


def test_price_comes_from_the_book(ledger, unit):
    ledger.begin_capacity(unit(accelerator="CPU", usd=None, count=2), **at(0))
    ledger.heartbeat(["r1"], **at(3600))
    assert total(ledger).actual == Money.of("0.0892")


def test_replica_without_a_price_is_refused_with_what_to_do(ledger, unit):
    with pytest.raises(InvalidInput, match=r"no accelerator 'X9'.*prices import"):
        ledger.begin_capacity(unit(accelerator="X9", usd=None))


def document(*prices):
    found, problems = parse_price_document(
        {
            "price": [
                {
                    "accelerator": "X9",
                    "capacity_type": "OnDemand",
                    "usd_per_accelerator_hour": usd,
                    "effective_from": datetime.fromtimestamp(NOW + start, UTC),
                }
                for usd, start in prices
            ]
        }
    )
    assert problems == []
    return found


def test_interval_is_cut_where_the_price_changes(ledger, unit):
    ledger.import_prices(document(("3.6", -1000), ("7.2", 20), ("0", 30)))
    ledger.begin_capacity(unit(accelerator="X9", usd=None), **at(0))
    ledger.transition("r1", ReplicaState.READY, **at(10))
    ledger.heartbeat(["r1"], **at(100))
    assert [row[1:5] for row in intervals(ledger)] == [
        ("starting", "3.6", 0, 10),
        ("ready", "3.6", 10, 20),
        ("ready", "7.2", 20, 30),
        ("ready", "0", 30, 100),
    ]


def test_price_imported_late_does_not_change_what_was_paid(ledger, unit):
    ledger.import_prices(document(("3.6", -1000)))
    ledger.begin_capacity(unit(accelerator="X9", usd=None), **at(0))
    ledger.heartbeat(["r1"], **at(50))
    ledger.import_prices(document(("36", 10)))
    ledger.heartbeat(["r1"], **at(60))
    assert [row[2:5] for row in intervals(ledger)] == [("3.6", 0, 50), ("36", 50, 60)]


def test_given_price_is_not_changed_by_the_book(ledger, unit):
    ledger.import_prices(document(("3.6", -1000), ("7.2", 20)))
    ledger.begin_capacity(unit(accelerator="X9", usd="1"), **at(0))
    ledger.heartbeat(["r1"], **at(50))
    assert [row[2:5] for row in intervals(ledger)] == [("1", 0, 50)]


def test_imported_price_that_overlaps_one_in_force_is_refused(ledger):
    ledger.import_prices(document(("1", 0)))
    overlapping = PriceDocument(
        prices=(
            document(("2", -100))
            .prices[0]
            .__class__(
                key=document(("2", -100)).prices[0].key,
                usd_per_accelerator_hour=Decimal(2),
                effective_from_unix_seconds=NOW - 100,
                effective_until_unix_seconds=NOW + 100,
            ),
        )
    )
    with pytest.raises(InvalidInput, match="two prices of X9 OnDemand in any region hold from"):
        ledger.import_prices(overlapping)
    assert len([entry for entry in ledger.price_book() if entry.key.accelerator == "X9"]) == 1


def observed(unit, state, *, started=0.0, since=None):
    return ObservedReplica(unit, state, NOW + started, None if since is None else NOW + since)


def test_observation_begins_moves_and_ends_replicas(ledger, unit):
    starting, ready = ReplicaState.STARTING, ReplicaState.READY
    ledger.observe_capacity([observed(unit("r1"), starting)], **at(2))
    ledger.observe_capacity(
        [observed(unit("r1"), ready, since=11), observed(unit("r2"), starting, started=12)],
        **at(15),
    )
    ledger.observe_capacity([observed(unit("r2"), ready, started=12)], **at(20))
    assert [(row[0], row[1], *row[3:]) for row in intervals(ledger)] == [
        ("r1", "starting", 0, 11, 11),
        ("r1", "ready", 11, 15, 15),
        ("r2", "starting", 12, 20, 20),
        ("r2", "ready", 20, 20, None),
    ]


def test_replica_first_seen_ready_has_its_cold_start_on_record(ledger, unit):
    ledger.observe_capacity([observed(unit(), ReplicaState.READY, started=-30, since=-10)], **at(0))
    assert [(row[1], *row[3:]) for row in intervals(ledger)] == [
        ("starting", -30, -10, -10),
        ("ready", -10, 0, None),
    ]


def test_ready_time_before_the_last_heartbeat_takes_nothing_back(ledger, unit):
    ledger.observe_capacity([observed(unit(), ReplicaState.STARTING)], **at(10))
    ledger.observe_capacity([observed(unit(), ReplicaState.READY, since=5)], **at(20))
    assert [(row[1], *row[3:]) for row in intervals(ledger)] == [
        ("starting", 0, 10, 10),
        ("ready", 10, 20, None),
    ]
