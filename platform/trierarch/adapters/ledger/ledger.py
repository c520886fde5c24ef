"""The ledger: what was used, what it was charged, what it cost, and what was decided.

Calls block and are safe from many threads; an event loop calls them in a thread.
A call that raises has written nothing, so it can be repeated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from trierarch.adapters.ledger import (
    audit,
    capacity,
    decisions,
    keys,
    leases,
    prices,
    reports,
    tenants,
    usage,
    windows,
)
from trierarch.adapters.ledger.capacity import CapacityUnit, ObservedReplica, Touched
from trierarch.adapters.ledger.database import BUSY_SECONDS, Database
from trierarch.adapters.ledger.instants import to_microseconds
from trierarch.adapters.ledger.keys import StoredKey
from trierarch.adapters.ledger.reports import CurrentSpend, SpendRate
from trierarch.adapters.price_files import load_default_prices
from trierarch.core.clock import Clock
from trierarch.core.errors import InvalidInput
from trierarch.core.identifiers import HolderId, KeyId, ModelName, ReplicaId, TenantId, VariantName
from trierarch.core.quantities import Money
from trierarch.core.replicas import ReplicaState
from trierarch.core.usage import UsageRecord
from trierarch.cost.allocation import Allocation, AllocationRule, capacity_cost
from trierarch.cost.budgets import Period, TenantTerms, day_of, first_day
from trierarch.cost.documents import PriceDocument
from trierarch.cost.exact import exact_sum
from trierarch.cost.leases import LeaseAsk, LeaseRound
from trierarch.cost.prices import PriceBook
from trierarch.cost.rates import RateCard
from trierarch.cost.report import Report, ReportBy
from trierarch.cost.unit_cost import ServingWeights
from trierarch.ports import ApiKey, TenantBook, TenantUsage

ALLOCATION_WINDOW_SECONDS = 300.0
"""Length of an allocation window: OpenCost's, so that the two can be compared."""

ALLOCATION_GRACE_SECONDS = 30.0
"""How long usage of a window may arrive before it is closed; later usage splits it again."""


class Ledger:
    """One ledger database and the clock that dates its entries."""

    def __init__(self, database: Database, clock: Clock, defaults: PriceDocument) -> None:
        """Use a database that is open.

        Args:
            database: Opened and migrated.
            clock: Dates everything for which the caller gives no time.
            defaults: Prices and rates that hold where nothing was imported.
        """
        self._database = database
        self._clock = clock
        self._defaults = defaults

    @classmethod
    def open(cls, url: str, clock: Clock, *, busy_seconds: float = BUSY_SECONDS) -> Ledger:
        """Open a ledger, creating or migrating it; safe from several processes at once.

        Raises:
            InvalidInput: If the URL cannot be used.
            Unavailable: If the database does not answer.
        """
        return cls(Database(url, busy_seconds=busy_seconds), clock, load_default_prices())

    def close(self) -> None:
        """Close idle connections."""
        self._database.close()

    @property
    def name(self) -> str:
        """Where the ledger is, for messages; without a password."""
        return self._database.name

    def _at(self, at_unix_seconds: float | None) -> int:
        return to_microseconds(
            self._clock.unix_seconds() if at_unix_seconds is None else at_unix_seconds
        )

    # Usage

    def record_usage(self, records: Sequence[UsageRecord]) -> int:
        """Add finished requests and return how many were new; known ids change nothing."""
        with self._database.write() as connection:
            new = usage.insert_usage(connection, records)
            windows.mark_stale(connection, new)
            return len(new)

    def tenant_usage(self, tenant: TenantId) -> TenantUsage:
        """Return a tenant's totals since its first request."""
        with self._database.read() as connection:
            return usage.tenant_usage(connection, tenant)

    # Capacity

    def _split_again(self, connection: Connection, touched: Iterable[Touched | None]) -> None:
        changes = [change for change in touched if change is not None]
        windows.split_touched(connection, changes, self._at(None))

    def begin_capacity(
        self,
        unit: CapacityUnit,
        *,
        state: ReplicaState = ReplicaState.STARTING,
        at_unix_seconds: float | None = None,
    ) -> bool:
        """Open a replica's first interval; False if it has an open one.

        Raises:
            InvalidInput: If the price book has no price for it and the unit names none.
        """
        with self._database.write() as connection:
            book = prices.price_book(connection, self._defaults)
            touched = capacity.begin(connection, book, unit, state, self._at(at_unix_seconds))
            self._split_again(connection, [touched])
            return touched is not None

    def transition(
        self, replica_id: ReplicaId, state: ReplicaState, *, at_unix_seconds: float | None = None
    ) -> None:
        """Move a replica to another state.

        Raises:
            InvalidInput: If it has no open interval.
        """
        with self._database.write() as connection:
            book = prices.price_book(connection, self._defaults)
            at = self._at(at_unix_seconds)
            touched = capacity.transition(connection, book, replica_id, state, at)
            self._split_again(connection, [touched])

    def heartbeat(
        self, replica_ids: Iterable[ReplicaId], *, at_unix_seconds: float | None = None
    ) -> None:
        """Say that replicas are alive: their open intervals cost until here."""
        with self._database.write() as connection:
            book = prices.price_book(connection, self._defaults)
            at = self._at(at_unix_seconds)
            self._split_again(connection, capacity.heartbeat(connection, book, replica_ids, at))

    def end_capacity(self, replica_id: ReplicaId, *, at_unix_seconds: float | None = None) -> bool:
        """Release a replica; False if it has no open interval."""
        with self._database.write() as connection:
            book = prices.price_book(connection, self._defaults)
            touched = capacity.end(connection, book, replica_id, self._at(at_unix_seconds))
            self._split_again(connection, [touched])
            return touched is not None

    def close_orphans(self, alive: Collection[ReplicaId]) -> list[ReplicaId]:
        """End, at its last heartbeat, every open interval of a replica that is gone."""
        with self._database.write() as connection:
            return capacity.close_orphans(connection, alive)

    def observe_capacity(
        self, observed: Sequence[ObservedReplica], *, at_unix_seconds: float | None = None
    ) -> None:
        """Make the intervals say what is seen now; a controller's one call per round.

        New replicas begin, others move to their state and stay alive, and whatever is
        not seen ends at its last heartbeat. Give every replica of every model.
        """
        with self._database.write() as connection:
            book = prices.price_book(connection, self._defaults)
            at = self._at(at_unix_seconds)
            self._split_again(connection, capacity.observe(connection, book, observed, at))

    # Allocation

    def allocate_window(
        self,
        model: ModelName,
        start_unix_seconds: float,
        end_unix_seconds: float,
        rule: AllocationRule | None = None,
    ) -> Allocation:
        """Close a window that is over; the same window again is split again.

        Raises:
            InvalidInput: If it is empty, not over yet, or cuts into another window.
        """
        with self._database.write() as connection:
            return windows.close_window(
                connection,
                model,
                to_microseconds(start_unix_seconds),
                to_microseconds(end_unix_seconds),
                rule or AllocationRule(),
                self._at(None),
            )

    def allocate_due(
        self,
        rules: Mapping[ModelName, AllocationRule] | None = None,
        *,
        window_seconds: float = ALLOCATION_WINDOW_SECONDS,
        grace_seconds: float = ALLOCATION_GRACE_SECONDS,
    ) -> int:
        """Close every window that is due, split the stale ones again, return how many.

        Each window is its own transaction, so that settlements get their turn between.

        Args:
            rules: How to split, by model; the default rule for the others.
            window_seconds: Length of new windows, which start at multiples of it.
            grace_seconds: How long after its end a window is closed.
        """
        length, now = to_microseconds(window_seconds), self._at(None)
        if length <= 0:
            raise InvalidInput("an allocation window must be longer than zero")
        count = 0
        with self._database.read() as connection:
            models = windows.models_with_capacity(connection)
            stale = windows.load_windows(connection, only_stale=True)
        for window in stale:
            with self._database.write() as connection:
                count += windows.split_again(connection, [window], now)
        before = now - to_microseconds(grace_seconds)
        for model in models:
            rule = (rules or {}).get(model) or AllocationRule()
            while self._close_next(model, length, before, rule, now):
                count += 1
        return count

    def _close_next(
        self, model: ModelName, length: int, before: int, rule: AllocationRule, now: int
    ) -> bool:
        with self._database.read() as connection:
            if windows.next_due(connection, model, length, before) is None:
                return False
        with self._database.write() as connection:
            # Asked again as the only writer: another process may have closed it meanwhile.
            due = windows.next_due(connection, model, length, before)
            if due is None:
                return False
            windows.close_window(connection, model, *due, rule, now)
            return True

    def ledger_drift(self, since_unix_seconds: float = 0.0) -> Money:
        """Return capacity cost minus stored parts over closed windows: 0, or a defect.

        Both sides are counted from their own tables. Give a recent ``since`` where it is
        asked often: the whole history of a busy ledger takes seconds.
        """
        with self._database.read() as connection:
            return windows.drift(connection, to_microseconds(since_unix_seconds))

    # Questions

    def report(
        self,
        by: ReportBy,
        *,
        since_unix_seconds: float | None = None,
        until_unix_seconds: float | None = None,
    ) -> Report:
        """Return charges and actual cost of a span of time; all of it by default."""
        until = self._clock.unix_seconds() if until_unix_seconds is None else until_unix_seconds
        if since_unix_seconds is not None and since_unix_seconds >= until:
            raise InvalidInput("a report must end after it starts: give --since before --until")
        with self._database.read() as connection:
            return reports.report(connection, by, since_unix_seconds, until)

    def spend_rate(
        self,
        model: ModelName,
        window_seconds: float,
        *,
        variant: VariantName | None = None,
        weights: ServingWeights | None = None,
    ) -> SpendRate:
        """Return how fast a model, or one variant of it, spent and served until now.

        Args:
            model: Served model name.
            window_seconds: Length of the window that ends now.
            variant: None counts all of them together.
            weights: What each class of token costs to serve; the published ones if None.
        """
        if not window_seconds > 0:
            raise InvalidInput(f"a window must be longer than zero seconds, got {window_seconds}")
        with self._database.read() as connection:
            return reports.spend_rate(
                connection, model, variant, self._at(None), window_seconds, weights
            )

    def current_spend(self) -> list[CurrentSpend]:
        """Return what the replicas that exist now cost per hour, by variant."""
        with self._database.read() as connection:
            return reports.current_spend(connection)

    # Decisions

    def record_decision(self, record: Mapping[str, Any]) -> None:
        """Keep a decision: JSON values and Decimals, with id, time, deployment and reason.

        Raises:
            InvalidInput: If a field is missing or a value is no JSON.
        """
        with self._database.write() as connection:
            decisions.insert_decision(connection, record)

    def decisions(
        self,
        deployment: str | None = None,
        last: int = 20,
        decision_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return the last decisions that match, oldest first."""
        with self._database.read() as connection:
            return decisions.find_decisions(
                connection, deployment=deployment, last=last, decision_id=decision_id
            )

    # Keys

    def create_key(
        self,
        tenant: TenantId,
        name: str = "",
        allowed_models: Iterable[ModelName] | None = None,
        *,
        actor: str = "",
    ) -> tuple[str, ApiKey]:
        """Make a key and return its text, which is stored nowhere, and what is stored.

        Raises:
            InvalidInput: If the tenant is empty or has a live key of that name.
        """
        at = self._at(None)
        with self._database.write() as connection:
            text, key = keys.insert_key(connection, tenant, name, allowed_models, at)
            audit.record_change(
                connection,
                at_unix_microseconds=at,
                actor=actor,
                action="key.create",
                subject=key.key_id,
                details={"tenant": tenant, "name": name},
            )
        return text, key

    def keys(self, tenant: TenantId | None = None) -> list[StoredKey]:
        """Return keys, live and revoked, in the order they were made."""
        with self._database.read() as connection:
            return keys.stored_keys(connection, tenant)

    def revoke_key(self, key_id: KeyId, *, actor: str = "") -> bool:
        """Revoke a key and return whether it was live."""
        at = self._at(None)
        with self._database.write() as connection:
            revoked = keys.revoke(connection, key_id, at)
            if revoked:
                audit.record_change(
                    connection,
                    at_unix_microseconds=at,
                    actor=actor,
                    action="key.revoke",
                    subject=key_id,
                    details={},
                )
            return revoked

    def keys_version(self) -> tuple[int, int]:
        """Return a value that changes whenever a key is made or revoked."""
        with self._database.read() as connection:
            return keys.keys_version(connection)

    def live_keys(self) -> dict[bytes, ApiKey]:
        """Return every live key by the SHA-256 of its text."""
        with self._database.read() as connection:
            return keys.live_keys(connection)

    # Tenants

    def replace_tenants(self, terms: Sequence[TenantTerms], *, actor: str = "") -> int:
        """Make these the terms of all tenants and return how many changed.

        A tenant that is left out has no terms any more: nothing limits it.
        """
        with self._database.read() as connection:
            if tenants.load_terms(connection) == {one.tenant: one for one in terms}:
                return 0
        with self._database.write() as connection:
            return tenants.replace_terms(connection, terms, actor, self._at(None))

    def tenant_book(self) -> TenantBook:
        """Return the terms of all tenants, and what each has spent since the month began.

        What may still be charged on a lapsed lease counts as spent until its charges come.
        """
        day = day_of(self._clock.unix_seconds())
        with self._database.read() as connection:
            terms = tenants.load_terms(connection)
            spent: tenants.SpentByDay = {}
            if any(one.budgets for one in terms.values()):
                since = first_day(Period.MONTH, day)
                spent = _sum_days(
                    tenants.spent_by_day(connection, since),
                    leases.lapsed_by_day(connection, since, self._clock.unix_seconds()),
                )
        return TenantBook(terms, spent)

    # Leases

    def exchange_leases(
        self, spool: str, asks: Sequence[LeaseAsk], lease_seconds: float
    ) -> LeaseRound:
        """Renew, grant and take back leases of tenants' budgets, for one gateway process.

        Args:
            spool: Identity of the spool folder that brings the charges.
            asks: One at most for each lease; with none only what others lack is read.
            lease_seconds: How long a lease lives without being renewed.
        """
        now = self._clock.unix_seconds()
        if not asks:
            with self._database.read() as connection:
                return LeaseRound((), leases.wanted(connection, spool, now))
        with self._database.write() as connection:
            return leases.exchange(connection, spool, asks, lease_seconds, now)

    def end_leases(self, spool: str, *, except_holder: HolderId | None = None) -> None:
        """Forget the leases of a spool folder from which every charge has come.

        Args:
            spool: Identity of the folder.
            except_holder: The process that has it now, if it goes on.
        """
        with self._database.write() as connection:
            leases.end_leases(connection, spool, except_holder)

    def capacity_spend(self, model: ModelName, since_unix_seconds: float) -> Money:
        """Return what a model's replicas have cost since an instant, in whatever state."""
        start, now = to_microseconds(since_unix_seconds), self._at(None)
        with self._database.read() as connection:
            return capacity_cost(capacity.load_intervals(connection, model, start, now), start, now)

    # Prices

    def price_book(self) -> PriceBook:
        """Return the prices in force: the imported ones over the defaults."""
        with self._database.read() as connection:
            return prices.price_book(connection, self._defaults)

    def rate_card(self) -> RateCard:
        """Return the rates in force: the imported ones over the defaults."""
        with self._database.read() as connection:
            return prices.rate_card(connection, self._defaults)

    def import_prices(self, document: PriceDocument, *, actor: str = "", source: str = "") -> None:
        """Add prices and rates; they win over entries of the same key and start.

        Raises:
            InvalidInput: If prices would overlap with others that are in force.
        """
        at = self._at(None)
        with self._database.write() as connection:
            known = {
                problem.message
                for problem in prices.price_book(connection, self._defaults).problems()
            }
            prices.import_document(connection, document)
            for problem in prices.price_book(connection, self._defaults).problems():
                if problem.message not in known:
                    raise InvalidInput(f"with the prices in force, {problem.message}")
            audit.record_change(
                connection,
                at_unix_microseconds=at,
                actor=actor,
                action="prices.import",
                subject=source,
                details={"prices": len(document.prices), "rates": len(document.rates)},
            )


def _sum_days(one: tenants.SpentByDay, other: tenants.SpentByDay) -> tenants.SpentByDay:
    total = {tenant: dict(days) for tenant, days in one.items()}
    for tenant, days in other.items():
        mine = total.setdefault(tenant, {})
        for day, usd in days.items():
            mine[day] = exact_sum([mine.get(day, Decimal(0)), usd])
    return total
