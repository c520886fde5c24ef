"""Keys, decisions, and what the gateway asks from memory."""

import re
import sqlite3
import time
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import text

from trierarch.adapters.ledger import CachedKeySource, CachedRateCard, Ledger, key_sha256
from trierarch.core.clock import SystemClock
from trierarch.core.errors import InvalidInput, Unavailable
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.usage import Outcome, ServiceTier
from trierarch.cost.documents import parse_price_document

NOW = 1_800_000_000.0


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def audit(ledger):
    with ledger._database.read() as connection:
        rows = connection.execute(text("SELECT action, subject, actor FROM audit ORDER BY id"))
        return [tuple(row) for row in rows]


def test_key_has_enough_entropy_and_its_public_part_in_front(ledger):
    text, key = ledger.create_key("acme", "laptop")
    assert re.fullmatch(r"trk_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", text), "43 x 6 bits"
    assert text.startswith(f"{key.key_id}_")
    other, _ = ledger.create_key("acme", "server")
    assert text != other


def test_text_of_a_key_is_stored_nowhere(sqlite_url, clock):
    ledger = Ledger.open(sqlite_url, clock)
    text, key = ledger.create_key("acme", "laptop")
    ledger.close()
    secret = text.removeprefix(f"{key.key_id}_")
    folder = Path(sqlite_url.removeprefix("sqlite:///")).parent
    for file in folder.iterdir():
        assert secret.encode() not in file.read_bytes()


def test_keys_are_listed_with_what_became_of_them(ledger, clock):
    _, first = ledger.create_key("acme", "laptop", ["pocket", "m"], actor="ann")
    ledger.create_key("other")
    clock.advance(5)
    assert ledger.revoke_key(first.key_id, actor="bob")
    assert not ledger.revoke_key(first.key_id), "revoking twice is harmless"
    (stored,) = ledger.keys("acme")
    assert stored.key.allowed_models == {"pocket", "m"}
    assert (stored.created_unix_seconds, stored.revoked_unix_seconds) == (NOW, NOW + 5)
    assert len(ledger.keys()) == 2
    assert audit(ledger) == [
        ("key.create", first.key_id, "ann"),
        ("key.create", ledger.keys("other")[0].key.key_id, ""),
        ("key.revoke", first.key_id, "bob"),
    ]


def test_key_allowed_nothing_is_not_a_key_allowed_everything(ledger):
    _, nothing = ledger.create_key("acme", "none", [])
    _, everything = ledger.create_key("acme", "all")
    stored_keys = ledger.keys()
    by_id = {stored.key.key_id: stored.key for stored in stored_keys}
    assert by_id[nothing.key_id].allowed_models == frozenset()
    assert by_id[everything.key_id].allowed_models is None


def test_name_of_a_live_key_cannot_be_taken_again(ledger):
    _, key = ledger.create_key("acme", "laptop")
    with pytest.raises(InvalidInput, match="has a live key named 'laptop'"):
        ledger.create_key("acme", "laptop")
    ledger.create_key("other", "laptop")
    ledger.revoke_key(key.key_id)
    ledger.create_key("acme", "laptop")


def test_key_needs_a_tenant(ledger):
    with pytest.raises(InvalidInput, match="needs a tenant"):
        ledger.create_key(" ")


def test_revoked_key_dies_within_seconds_without_being_asked(ledger):
    text, key = ledger.create_key("acme")
    source = CachedKeySource(ledger, SystemClock(), refresh_seconds=0.05)
    try:
        assert source.find(key_sha256(text)) == key
        assert source.find(key_sha256("trk_wrong")) is None
        ledger.revoke_key(key.key_id)
        wait_until(lambda: source.find(key_sha256(text)) is None)
        new_text, new_key = ledger.create_key("acme")
        wait_until(lambda: source.find(key_sha256(new_text)) == new_key)
    finally:
        source.close()


def test_finding_a_key_asks_no_database(ledger):
    text, key = ledger.create_key("acme")
    source = CachedKeySource(ledger, SystemClock(), refresh_seconds=60.0)
    try:
        ledger.revoke_key(key.key_id)
        assert source.find(key_sha256(text)) == key, "still what was read last"
        assert source.refresh()
        assert source.find(key_sha256(text)) is None
    finally:
        source.close()


def test_keys_hold_while_the_ledger_is_lost_and_their_age_says_so(sqlite_url, clock):
    ledger = Ledger.open(sqlite_url, clock)
    text, key = ledger.create_key("acme")
    source = CachedKeySource(ledger, clock, refresh_seconds=60.0)
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    try:
        ledger.close()
        hidden = path.with_suffix(".hidden")
        path.rename(hidden)
        path.mkdir()
        clock.advance(30)
        assert not source.refresh()
        assert source.find(key_sha256(text)) == key
        assert source.age_seconds == 30
        path.rmdir()
        hidden.rename(path)
        assert source.refresh()
        assert source.age_seconds == 0
    finally:
        source.close()
        ledger.close()


def test_keys_need_a_ledger_that_answers_at_the_start(sqlite_url, clock):
    ledger = Ledger.open(sqlite_url, clock)
    ledger.close()
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    path.unlink()
    path.mkdir()
    with pytest.raises(Unavailable, match="cannot be opened"):
        CachedKeySource(ledger, clock)


def test_rates_are_charged_from_memory_and_follow_an_import(ledger):
    card = CachedRateCard(ledger, SystemClock(), refresh_seconds=0.05)
    million = TokenCounts(1_000_000)
    document, problems = parse_price_document(
        {
            "rate": [
                {
                    "model": "pocket",
                    "usd_per_million_input_tokens": "7",
                    "usd_per_million_cached_tokens": "0",
                    "usd_per_million_output_tokens": "0",
                    "effective_from": "2026-01-01",
                }
            ],
            "tier_factors": {"flex": "0.1"},
        }
    )
    assert problems == []

    def charge(tier=ServiceTier.DEFAULT, outcome=Outcome.COMPLETED):
        return card.charge("pocket", tier, million, NOW, outcome)

    try:
        assert charge() == Money.of("0.10")
        assert charge(outcome=Outcome.FAILED) == Money.of(0)
        ledger.import_prices(document, actor="ann", source="mine.toml")
        wait_until(lambda: charge() == Money.of(7))
        assert charge(ServiceTier.FLEX) == Money.of("0.7")
        assert card.charge("unheard-of", ServiceTier.DEFAULT, million, NOW) == Money.of("0.15")
        assert audit(ledger) == [("prices.import", "mine.toml", "ann")]
    finally:
        card.close()


def test_importing_again_replaces_the_same_entry(ledger):
    for usd in ("1", "2"):
        document, _ = parse_price_document(
            {
                "price": [
                    {
                        "accelerator": "H200",
                        "capacity_type": "Reserved",
                        "usd_per_accelerator_hour": usd,
                        "effective_from": "2027-01-01",
                        "region": "eu",
                    }
                ]
            }
        )
        ledger.import_prices(document)
    (entry,) = [entry for entry in ledger.price_book() if entry.key.region == "eu"]
    assert entry.usd_per_accelerator_hour == Decimal(2)


# Decisions


def decision(number, deployment="ns/a"):
    return {
        "id": f"d{number}",
        "time": NOW + number,
        "deployment": deployment,
        "reason": "QueueTooLong",
        "inputs": {"waiting": 12.5, "price": Decimal("3.410000"), "missing": None},
        "steps": ["analyze", "recommend"],
    }


def test_decisions_come_back_as_they_were_made(ledger):
    ledger.record_decision(decision(1))
    (record,) = ledger.decisions()
    expected = decision(1)
    expected["inputs"]["price"] = "3.410000"
    assert record == expected
    assert list(record) == list(expected), "in their order"


def test_decisions_are_asked_for_by_deployment_number_and_id(ledger):
    for number in range(6):
        ledger.record_decision(decision(number, f"ns/{'ab'[number % 2]}"))
    assert [record["id"] for record in ledger.decisions(last=2)] == ["d4", "d5"]
    assert [record["id"] for record in ledger.decisions("ns/b")] == ["d1", "d3", "d5"]
    assert [record["id"] for record in ledger.decisions(decision_id="d0")] == ["d0"]
    assert ledger.decisions("ns/c") == []


def test_decision_is_recorded_once(ledger):
    ledger.record_decision(decision(1))
    ledger.record_decision(decision(1) | {"reason": "Other"})
    assert [record["reason"] for record in ledger.decisions()] == ["QueueTooLong"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"inputs": float("nan")}, "cannot be stored"),
        ({"inputs": object()}, "cannot be stored"),
        ({"time": "noon"}, "cannot be stored"),
    ],
)
def test_decision_that_is_no_record_is_refused(ledger, change, says):
    with pytest.raises(InvalidInput, match=says):
        ledger.record_decision(decision(1) | change)


def test_decision_without_a_reason_is_refused(ledger):
    record = decision(1)
    del record["reason"]
    with pytest.raises(InvalidInput, match="lacks reason"):
        ledger.record_decision(record)


def test_ledger_can_be_read_with_plain_tools(sqlite_url, clock, usage):
    ledger = Ledger.open(sqlite_url, clock)
    ledger.record_usage([usage()])
    ledger.record_decision(decision(1))
    ledger.close()
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    row = connection.execute(
        "SELECT request_id, tenant, charge, output_tokens FROM usage"
    ).fetchone()
    assert row == ("q1", "a", "0.001", 20)
    assert connection.execute("SELECT id, reason FROM decisions").fetchone() == (
        "d1",
        "QueueTooLong",
    )
    connection.close()
