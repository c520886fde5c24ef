"""No interleaving of gateway processes, crashes and lost answers lets a tenant overspend.

The ledger is the real one, on SQLite; processes are what a gateway keeps in memory, with their
spools as lists.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import tempfile
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trierarch.adapters.ledger import Ledger
from trierarch.core.clock import ManualClock
from trierarch.core.identifiers import (
    HolderId,
    KeyId,
    ModelName,
    ReplicaId,
    RequestId,
    TenantId,
    VariantName,
)
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.usage import Outcome, ServiceTier, UsageRecord
from trierarch.cost.budgets import Budget, Period, TenantTerms
from trierarch.cost.leases import LeaseRound
from trierarch.gateway.admission.leases import Reservation, TenantLeases

NIGHT = 86_400.0 * 20_000 - 40.0
"""Forty seconds before a day ends, not the last one of its month."""

TENANT = TenantId("acme")
DAY_USD, MONTH_USD = Decimal("1.00"), Decimal("2.20")
TERMS = TenantTerms(TENANT, budgets=(Budget(Period.DAY, DAY_USD), Budget(Period.MONTH, MONTH_USD)))
LEASE_SECONDS = 30.0
PROCESSES = st.integers(0, 2)
CENTS = st.integers(1, 60).map(lambda cents: Decimal(cents) / 100)
SHARES = st.fractions(0, Fraction(3, 2), max_denominator=8)


@dataclasses.dataclass
class Process:
    """A gateway process and the spool folder that outlives it."""

    spool: str
    holder: HolderId
    leases: TenantLeases
    running: list[Reservation] = dataclasses.field(default_factory=list)
    told: tuple[LeaseRound, float] | None = None
    records: list[UsageRecord] = dataclasses.field(default_factory=list)
    left_by_predecessors: int = 0


class SeveralProcesses(RuleBasedStateMachine):
    """Requests begin and end in several processes while ledger, spools and processes have luck."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(self.template, self.folder / "ledger.db")
        self.clock = ManualClock(NIGHT)
        self.ledger = Ledger.open(f"sqlite:///{self.folder}/ledger.db", self.clock)
        self.ledger.replace_tenants([TERMS])
        self.numbers = itertools.count()
        self.processes: list[Process] = []
        self.served: dict[str, Decimal] = {}

    def teardown(self) -> None:
        try:
            self.settle_all()
            # The ledger has what was served, to the last digit.
            assert self.ledger.tenant_usage(TENANT).spend.amount == sum(self.served.values())
            self.budgets_hold()
        finally:
            self.ledger.close()
            shutil.rmtree(self.folder)

    @initialize()
    def start(self) -> None:
        self.processes = [self.begin_process(f"spool{number}") for number in range(3)]

    def begin_process(self, spool: str) -> Process:
        holder = HolderId(f"{spool}/{next(self.numbers)}.")
        return Process(spool, holder, TenantLeases(holder, LEASE_SECONDS, self.clock))

    @rule(which=PROCESSES, worst=CENTS)
    def begin(self, which: int, worst: Decimal) -> None:
        process = self.processes[which]
        lease = process.leases.lease_of(TENANT)
        reservation = process.leases.try_reserve(TENANT, worst)
        if reservation is None and process.told is None:
            with process.leases.waiting(lease, worst):
                self.exchange(which, loses_answer=False, applies_late=False)
            reservation = process.leases.try_reserve(TENANT, worst)
        if reservation is not None:
            assert process.leases.is_alive(reservation.lease)
            process.running.append(reservation)

    @precondition(lambda self: any(process.running for process in self.processes))
    @rule(data=st.data(), share=SHARES)
    def end(self, data: st.DataObject, share: Fraction) -> None:
        process = data.draw(st.sampled_from([one for one in self.processes if one.running]))
        index = data.draw(st.integers(0, len(process.running) - 1))
        reservation = process.running.pop(index)
        # Some cost more than they seemed.
        cost = reservation.amount_usd * share.numerator / share.denominator
        charge = reservation.settle(cost.quantize(Decimal("0.0001")))
        now = self.clock.unix_seconds()
        name = f"q{next(self.numbers)}"
        self.served[name] = charge
        process.records.append(
            UsageRecord(
                RequestId(name),
                TENANT,
                KeyId("key"),
                ModelName("m"),
                VariantName("v"),
                ServiceTier.DEFAULT,
                TokenCounts(1, 0, 1),
                Outcome.COMPLETED,
                Money(charge),
                ReplicaId("r"),
                now - 1.0,
                now,
                holder=reservation.holder,
            )
        )

    @rule(which=PROCESSES, loses_answer=st.booleans(), applies_late=st.booleans())
    def exchange(self, which: int, loses_answer: bool, applies_late: bool) -> None:
        process = self.processes[which]
        if process.told is not None:
            return
        asked_seconds = self.clock.monotonic_seconds()
        asks = process.leases.collect()
        told = self.ledger.exchange_leases(process.spool, asks, LEASE_SECONDS)
        if loses_answer:
            return
        process.told = (told, asked_seconds)
        if not applies_late:
            self.hear(which)

    @rule(which=PROCESSES)
    def hear(self, which: int) -> None:
        process = self.processes[which]
        if process.told is not None:
            told, asked_seconds = process.told
            process.told = None
            process.leases.apply(told, asked_seconds, lambda _tenant: TERMS)

    @rule(which=PROCESSES, most=st.integers(1, 5))
    def settle(self, which: int, most: int) -> None:
        process = self.processes[which]
        batch = process.records[:most]
        self.ledger.record_usage(batch)
        # A batch may be settled again: the process died before it had noted that it was.
        process.records = process.records[len(batch) :]
        self.end_predecessors(process, len(batch))

    def end_predecessors(self, process: Process, settled: int) -> None:
        process.left_by_predecessors = max(0, process.left_by_predecessors - settled)
        if not process.left_by_predecessors:
            self.ledger.end_leases(process.spool, except_holder=process.holder)

    @rule(which=PROCESSES)
    def kill(self, which: int) -> None:
        before = self.processes[which]
        self.processes[which] = after = self.begin_process(before.spool)
        after.records = before.records
        after.left_by_predecessors = len(before.records)

    @rule(seconds=st.sampled_from([0.3, 5.0, 12.0, 29.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def budgets_hold(self) -> None:
        days = self.ledger.tenant_book().spent_by_day.get(TENANT, {})
        # What is on lapsed leases counts as spent here, so this is the harder promise.
        assert all(usd <= DAY_USD for usd in days.values()), days
        assert sum(days.values()) <= MONTH_USD

    @invariant()
    def what_may_still_be_charged_fits_too(self) -> None:
        charged = sum(self.served.values())
        running = sum(one.amount_usd for process in self.processes for one in process.running)
        assert charged + running <= MONTH_USD

    def settle_all(self) -> None:
        for which, process in enumerate(self.processes):
            while process.records:
                self.settle(which, 5)


TestSeveralProcesses = SeveralProcesses.TestCase
TestSeveralProcesses.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


def setup_module() -> None:
    folder = tempfile.mkdtemp()
    SeveralProcesses.template = Path(folder) / "ledger.db"
    Ledger.open(f"sqlite:///{SeveralProcesses.template}", ManualClock(NIGHT)).close()


def teardown_module() -> None:
    shutil.rmtree(SeveralProcesses.template.parent)
