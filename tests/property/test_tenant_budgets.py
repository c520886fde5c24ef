"""One gateway process never lets a tenant overspend its budget, in whatever order things happen."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from trierarch.core.clock import ManualClock
from trierarch.core.identifiers import TenantId
from trierarch.cost.budgets import Budget, Period, TenantTerms, day_of
from trierarch.gateway.admission.tenants import TenantDesk
from trierarch.gateway.errors import GatewayError
from trierarch.ports import TenantBook
from trierarch.testing.books import InMemoryTenants

NOON = 86_400.0 * 20_000 + 43_200.0
TENANT, OTHER = TenantId("acme"), TenantId("other")
AMOUNT = Decimal("1.00")
CENTS = st.integers(0, 60).map(lambda cents: Decimal(cents) / 100)


class OneProcess(RuleBasedStateMachine):
    """Requests begin and end, records are settled in order, and the ledger is read now and then."""

    running: Bundle[Decimal] = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.tenants = InMemoryTenants()
        self.terms = TenantTerms(TENANT, budgets=(Budget(Period.DAY, AMOUNT),))
        self.desk = TenantDesk(self.tenants, ManualClock(NOON))
        self.records: list[tuple[TenantId, Decimal]] = []
        self.reserved = Decimal(0)
        self.read_ledger(0)

    @rule(target=running, worst=CENTS)
    def begin(self, worst: Decimal) -> object:
        charged = sum((usd for tenant, usd in self.records if tenant == TENANT), Decimal(0))
        fits = charged + self.reserved + worst <= AMOUNT
        try:
            self.desk.check_budgets(self.terms, worst)
        except GatewayError:
            # Only what would not fit is refused: nothing leaks, nothing counts twice.
            assert not fits
            return multiple()
        assert fits
        self.desk.begin(TENANT, worst)
        self.reserved += worst
        return worst

    @rule(worst=consumes(running), share=st.fractions(0, 1))
    def end(self, worst: Decimal, share: object) -> None:
        charge = (worst * Decimal(float(share))).quantize(Decimal("0.001"))  # type: ignore[arg-type]
        charge = min(charge, worst)
        self.records.append((TENANT, charge))
        self.desk.note_record(TENANT, charge)
        self.desk.end(TENANT, worst)
        self.reserved -= worst

    @rule(charge=CENTS)
    def somebody_elses_request_ends(self, charge: Decimal) -> None:
        self.records.append((OTHER, charge))
        self.desk.note_record(OTHER, charge)

    @rule(behind=st.integers(0, 5))
    def read_ledger(self, behind: int) -> None:
        known = self.tenants.read.settled_records
        settled = max(known, len(self.records) - behind)
        spent = sum((usd for who, usd in self.records[:settled] if who == TENANT), Decimal(0))
        days = {day_of(NOON): spent}
        self.tenants.read = TenantBook({TENANT: self.terms}, {TENANT: days}, settled)

    @invariant()
    def the_budget_holds(self) -> None:
        charged = sum((usd for tenant, usd in self.records if tenant == TENANT), Decimal(0))
        assert charged + self.reserved <= AMOUNT
        [left] = self.desk.budgets_of(TENANT)
        assert left.spent_usd == charged


TestOneProcess = OneProcess.TestCase
TestOneProcess.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
