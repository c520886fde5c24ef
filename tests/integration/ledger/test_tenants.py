"""Tenants' terms, and their charges by day, in both databases."""

from decimal import Decimal

from sqlalchemy import insert, text

from trierarch.adapters.ledger.database import Database
from trierarch.adapters.ledger.tables import UsageRow
from trierarch.core.identifiers import ModelName, TenantId
from trierarch.core.quantities import Money
from trierarch.core.replicas import ReplicaState
from trierarch.cost.budgets import Budget, Period, TenantTerms, day_of, first_day

A, B = TenantId("a"), TenantId("b")
BUDGET = Budget(Period.MONTH, Decimal("10.00"))
DAY_SECONDS = 86_400.0


def test_terms_are_replaced_as_a_whole_and_every_change_is_on_record(ledger):
    first = [TenantTerms(A, priority=1), TenantTerms(B, allowed_models=frozenset({ModelName("m")}))]
    assert ledger.replace_tenants(first, actor="operator") == 2
    assert ledger.replace_tenants(first, actor="operator") == 0
    assert ledger.tenant_book().terms == {one.tenant: one for one in first}
    second = [TenantTerms(A, priority=2)]
    assert ledger.replace_tenants(second, actor="operator") == 2
    assert ledger.tenant_book().terms == {A: second[0]}
    with ledger._database.read() as connection:
        rows = connection.execute(text("SELECT action, subject FROM audit ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [
        ("tenant.set", "a"), ("tenant.set", "b"), ("tenant.set", "a"), ("tenant.remove", "b"),
    ]  # fmt: skip


def test_charges_are_summed_by_the_day_on_which_requests_end(ledger, usage, clock):
    ledger.replace_tenants([TenantTerms(A, budgets=(BUDGET,))])
    now = clock.unix_seconds()
    day = day_of(now)
    ledger.record_usage([usage("q1", charge="0.1"), usage("q2", charge="0.02")])
    ledger.record_usage([usage("q2", charge="0.02"), usage("q3", charge="0.003")])
    ledger.record_usage([usage("q4", charge="1", tenant="b")])
    ledger.record_usage([usage("q5", charge="7", start=now + DAY_SECONDS)])
    spent = ledger.tenant_book().spent_by_day
    assert spent[A] == {day: Decimal("0.123"), day + 1: Decimal(7)}
    assert spent[B] == {day: Decimal(1)}


def test_what_was_spent_before_the_month_is_not_read(ledger, usage, clock):
    ledger.replace_tenants([TenantTerms(A, budgets=(BUDGET,))])
    before = first_day(Period.MONTH, day_of(clock.unix_seconds())) * DAY_SECONDS - 10.0
    ledger.record_usage([usage("old", start=before), usage("new")])
    assert list(ledger.tenant_book().spent_by_day[A]) == [day_of(clock.unix_seconds())]


def test_without_a_budget_nothing_is_summed_up(ledger, usage):
    ledger.replace_tenants([TenantTerms(A)])
    ledger.record_usage([usage("q1")])
    assert ledger.tenant_book().spent_by_day == {}


def test_capacity_counts_from_a_date_on_in_every_state(ledger, unit, clock):
    start = clock.unix_seconds()
    ledger.begin_capacity(unit("r1"), state=ReplicaState.STARTING, at_unix_seconds=start - 3600)
    ledger.begin_capacity(unit("r2"), state=ReplicaState.DRAINING, at_unix_seconds=start - 1800)
    for replica in ("r1", "r2"):
        ledger.end_capacity(replica, at_unix_seconds=start)
    assert ledger.capacity_spend(ModelName("m"), start - 3600) == Money.of("5.4")
    assert ledger.capacity_spend(ModelName("m"), start - 900) == Money.of("1.8")
    assert ledger.capacity_spend(ModelName("other"), 0.0) == Money.of(0)


def test_days_before_the_migration_are_filled_in(url):
    database = Database(url)
    charges = [("a", "0.1"), ("a", "0.1"), ("b", "0.000001")]
    with database.write() as connection:
        for table in ("leases", "tenant_days", "tenants"):
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        for number, (tenant, charge) in enumerate(charges):
            names = ("key_id", "model", "variant", "replica_id", "trace_id")
            counts = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
            connection.execute(
                insert(UsageRow).values(
                    request_id=f"q{number}",
                    tenant=tenant,
                    tier="default",
                    outcome="completed",
                    charge=Decimal(charge),
                    currency="USD",
                    started_unix_microseconds=0,
                    finished_unix_microseconds=int(3.5 * DAY_SECONDS * 1e6),
                    **dict.fromkeys(names, "x"),
                    **dict.fromkeys(counts, 1),
                )
            )
    database.close()
    database = Database(url)
    with database.read() as connection:
        rows = connection.execute(text("SELECT tenant, day, charge FROM tenant_days ORDER BY 1"))
        assert [tuple(row) for row in rows] == [("a", 3, "0.2"), ("b", 3, "0.000001")]
    database.close()
