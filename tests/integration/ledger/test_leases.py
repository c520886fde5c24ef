"""Leases of tenants' budgets in both databases."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from trierarch.adapters.ledger import Ledger
from trierarch.adapters.ledger.leases import WANTED_SECONDS
from trierarch.core.clock import ManualClock
from trierarch.core.identifiers import HolderId, TenantId
from trierarch.cost.budgets import Budget, Period, TenantTerms, day_of
from trierarch.cost.leases import LeaseAsk

A = TenantId("a")
ONE, TWO = HolderId("spool1/one"), HolderId("spool2/two")
DAY_SECONDS = 86_400.0
LEASE_SECONDS = 30.0


@pytest.fixture(autouse=True)
def terms(ledger):
    ledger.replace_tenants([TenantTerms(A, budgets=(Budget(Period.DAY, Decimal("1.00")),))])


def ask(ledger, holder, *, has="0", spare="0", wants="0"):
    """Ask for exactly so much more and return the answer."""
    amount = Decimal(wants)
    asked = LeaseAsk(A, holder, Decimal(has), Decimal(spare), amount, amount)
    told = ledger.exchange_leases(holder.split("/")[0], [asked], LEASE_SECONDS)
    [answer] = told.answers
    return answer


def spent_today(ledger, clock):
    return ledger.tenant_book().spent_by_day.get(A, {}).get(day_of(clock.unix_seconds()), 0)


def test_what_one_holds_another_cannot_have(ledger):
    assert ask(ledger, ONE, wants="0.70").granted_usd == Decimal("0.70")
    assert ask(ledger, TWO, wants="0.31").granted_usd == 0
    assert ask(ledger, TWO, wants="0.30").granted_usd == Decimal("0.30")
    ask(ledger, ONE, has="0.50")
    assert ask(ledger, TWO, has="0.30", wants="0.20").granted_usd == Decimal("0.20")


def test_a_charge_moves_from_the_lease_to_what_is_spent(ledger, usage):
    ask(ledger, ONE, wants="0.70")
    charged = dataclasses.replace(usage("q1", charge="0.25"), holder=ONE)
    # The second time it is known: nothing moves.
    for _ in range(2):
        ledger.record_usage([charged])
    answer = ask(ledger, ONE, has="0.70")
    assert answer.settled_usd == Decimal("0.25")
    assert answer.room_usd == Decimal("0.30")
    assert answer.most_usd == Decimal("0.75")


def test_a_lapsed_lease_counts_as_spent_until_its_charges_have_come(ledger, usage, clock):
    ask(ledger, ONE, wants="0.70")
    clock.advance(LEASE_SECONDS + 1.0)
    assert spent_today(ledger, clock) == Decimal("0.70")
    assert ask(ledger, TWO, wants="0.31").granted_usd == 0
    late = dataclasses.replace(usage("q1", charge="0.25"), holder=ONE)
    ledger.record_usage([late])
    assert spent_today(ledger, clock) == Decimal("0.70")
    # Whoever has the spool folder now has brought everything there was.
    ledger.end_leases("spool1", except_holder=HolderId("spool1/next"))
    assert spent_today(ledger, clock) == Decimal("0.25")
    assert ask(ledger, TWO, wants="0.75").granted_usd == Decimal("0.75")


def test_a_charge_of_a_lapsed_lease_counts_on_the_day_it_lapsed(ledger, usage, clock):
    day = day_of(clock.unix_seconds())
    clock.advance((day + 1) * DAY_SECONDS - clock.unix_seconds() - LEASE_SECONDS - 1.0)
    ask(ledger, ONE, wants="0.70")
    clock.advance(LEASE_SECONDS + 2.0)
    # A new day: others can have all of it, and what the lapsed lease brings must not count in it.
    assert ask(ledger, TWO, wants="1.00").granted_usd == Decimal("1.00")
    late = usage("q1", charge="0.60", start=clock.unix_seconds())
    ledger.record_usage([dataclasses.replace(late, holder=ONE)])
    spent = ledger.tenant_book().spent_by_day[A]
    assert spent == {day: Decimal("0.70")}
    assert ledger.tenant_usage(A).spend.amount == Decimal("0.60")


def test_the_living_keep_their_leases_when_their_predecessors_are_forgotten(ledger):
    lapsed_of_mine = HolderId(f"{ONE}.1")
    for holder in (ONE, lapsed_of_mine, HolderId("spool1/before"), TWO):
        ask(ledger, holder, wants="0.25")
    ledger.end_leases("spool1", except_holder=ONE)
    assert ask(ledger, TWO, has="0.25", wants="0.26").granted_usd == 0
    assert ask(ledger, TWO, has="0.25", wants="0.25").granted_usd == Decimal("0.25")


def test_who_lacks_something_is_heard_by_those_who_hold_it(ledger, clock):
    ask(ledger, ONE, wants="0.70")
    nothing = ledger.exchange_leases("spool1", [], LEASE_SECONDS)
    assert (nothing.answers, nothing.wanted) == ((), frozenset())
    ask(ledger, TWO, wants="0.31")
    assert ledger.exchange_leases("spool1", [], LEASE_SECONDS).wanted == {A}
    assert ledger.exchange_leases("spool2", [], LEASE_SECONDS).wanted == frozenset()
    clock.advance(WANTED_SECONDS)
    assert ledger.exchange_leases("spool1", [], LEASE_SECONDS).wanted == frozenset()


def test_a_lapsed_lease_that_was_not_used_is_forgotten(ledger, clock):
    ask(ledger, ONE, wants="0.70")
    clock.advance(LEASE_SECONDS + 1.0)
    answer = ask(ledger, ONE, has="0", wants="0.10")
    assert answer.has_lapsed
    assert answer.granted_usd == 0
    # Told that nothing of it was used, the ledger begins again with the next ask.
    assert not ask(ledger, ONE, wants="1.00").has_lapsed


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_many_at_once_get_no_more_than_there_is(kind, request):
    url = request.getfixturevalue(f"migrated_{kind}_url")
    # A ledger of its own for each, as processes have.
    ledgers = [Ledger.open(url, ManualClock(1_800_000_000.0)) for _ in range(6)]
    ledgers[0].replace_tenants([TenantTerms(A, budgets=(Budget(Period.DAY, Decimal("1.00")),))])

    def take(number):
        holder, held = HolderId(f"spool{number}/x"), Decimal(0)
        for _ in range(10):
            held += ask(ledgers[number], holder, has=str(held), wants="0.03").granted_usd
        return held

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(take, range(6))) == Decimal("0.99")
    for ledger in ledgers:
        ledger.close()
