"""Limits and budgets of tenants: what is let in, what is counted, what is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from trierarch.core.clock import ManualClock
from trierarch.core.identifiers import KeyId, ModelName, TenantId
from trierarch.cost.budgets import Action, Budget, Period, TenantTerms, day_of
from trierarch.gateway.admission.limits import RateLimiter
from trierarch.gateway.admission.tenants import THROTTLE_BURST_SECONDS, TenantDesk
from trierarch.gateway.errors import GatewayError
from trierarch.ports import TenantBook
from trierarch.testing.books import InMemoryTenants

NOON = 86_400.0 * 20_000 + 43_200.0
TENANT = TenantId("acme")
CHEAP = ModelName("cheap")


class Office:
    """A desk and what the ledger would have told last."""

    def __init__(self, *budgets: Budget, **terms: Any) -> None:
        self.clock = ManualClock(NOON)
        self.terms = TenantTerms(TENANT, budgets=budgets, **terms)
        self.tenants = InMemoryTenants(clock=self.clock)
        self.tell(Decimal(0))
        self.desk = TenantDesk(self.tenants, self.clock)

    def tell(self, spent: Decimal, settled: int = 0) -> None:
        days = {day_of(self.clock.unix_seconds()): spent}
        self.tenants.read = TenantBook({TENANT: self.terms}, {TENANT: days}, settled)


def daily(amount: str, action: Action = Action.BLOCK, **fields: Any) -> Budget:
    return Budget(Period.DAY, Decimal(amount), action, **fields)


def test_a_tenant_without_terms_has_none() -> None:
    desk = TenantDesk(InMemoryTenants(), ManualClock(NOON))
    assert desk.terms_of(TENANT) is None
    assert desk.budgets_of(TENANT) == []
    desk.note_record(TENANT, Decimal(1))


def test_what_is_charged_here_counts_before_the_ledger_has_told_it() -> None:
    office = Office(daily("1.00"))
    office.desk.note_record(TenantId("other"), Decimal(5))
    office.desk.note_record(TENANT, Decimal("0.05"))
    office.tell(Decimal("0.60"))
    [left] = office.desk.budgets_of(TENANT)
    assert (left.spent_usd, left.remaining_usd) == (Decimal("0.65"), Decimal("0.35"))
    assert left.ends_unix_seconds == NOON + 43_200.0
    # The first record is settled, and that was the other's.
    office.tell(Decimal("0.60"), settled=1)
    assert office.desk.budgets_of(TENANT)[0].spent_usd == Decimal("0.65")
    office.tell(Decimal("0.65"), settled=2)
    assert office.desk.budgets_of(TENANT)[0].spent_usd == Decimal("0.65")


def test_throttle_spreads_the_last_fifth_over_the_rest_of_the_period() -> None:
    office = Office(daily("100.00", Action.THROTTLE))
    office.tell(Decimal("79.99"))
    office.desk.check_pace(office.terms)
    office.tell(Decimal("80.00"))
    # Twenty dollars for half a day; a minute's pace is saved up.
    pace = 20.0 / 43_200.0
    office.desk.check_pace(office.terms)
    office.desk.note_record(TENANT, Decimal(str(pace * THROTTLE_BURST_SECONDS + pace * 30)))
    office.tell(Decimal("80.00"), settled=1)
    with pytest.raises(GatewayError) as caught:
        office.desk.check_pace(office.terms)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.retry_after_seconds == pytest.approx(30.0, rel=0.01)
    office.clock.advance(31.0)
    office.desk.check_pace(office.terms)


def test_only_so_many_requests_at_the_same_time() -> None:
    office = Office(parallel_requests=2)
    for _ in range(2):
        office.desk.check_parallel(office.terms)
        office.desk.begin(TENANT)
    with pytest.raises(GatewayError) as caught:
        office.desk.check_parallel(office.terms)
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
    assert caught.value.retry_after_seconds
    office.desk.end(TENANT)
    office.desk.check_parallel(office.terms)


def test_models_that_are_not_allowed_are_refused() -> None:
    office = Office(allowed_models=frozenset({CHEAP}))
    office.desk.check_model(office.terms, CHEAP)
    with pytest.raises(GatewayError) as caught:
        office.desk.check_model(office.terms, ModelName("dear"))
    assert (caught.value.status, caught.value.code) == (403, "model_not_allowed")


def test_keys_of_a_tenant_share_the_limits_that_its_terms_name() -> None:
    clock = ManualClock(NOON)
    limiter = RateLimiter(clock.monotonic_seconds, requests_per_minute=100, tokens_per_minute=1000)
    terms = TenantTerms(TENANT, requests_per_minute=2)
    one, two = KeyId("one"), KeyId("two")
    assert limiter.admit(one, 10, terms).requests.remaining == 1
    assert limiter.admit(two, 10, terms).requests.remaining == 0
    with pytest.raises(GatewayError, match="2 requests per minute"):
        limiter.admit(one, 10, terms)
    # Tokens are not named: each key has the gateway's own.
    assert limiter.limits_of(one, terms).tokens.remaining == 990
    # New terms hold from the next request on; so does their end.
    more = TenantTerms(TENANT, requests_per_minute=5)
    assert limiter.admit(one, 10, more).requests.remaining == 4
    assert limiter.admit(one, 10).requests.remaining == 99
