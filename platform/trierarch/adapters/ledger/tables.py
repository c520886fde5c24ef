"""The ledger's tables.

Money is stored as the text of a ``Decimal`` and instants as integer microseconds: both
databases then give back exactly what was put in, and neither ever sees a binary float.
"""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import (
    BigInteger,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Names for constraints, so that a later migration can name what it changes."""


class ExactDecimal(TypeDecorator[Decimal]):
    """A ``Decimal`` as plain text: exact in every database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        """Return plain digits, never an exponent."""
        if value is None:
            return None
        if not isinstance(value, Decimal) or not value.is_finite():
            raise ValueError(f"the ledger stores finite Decimals, not {value!r}")
        return f"{value:f}"

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:
        """Return the same number."""
        return None if value is None else Decimal(value)


RowId = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts rows up only in a column of its own integer type."""


class Base(DeclarativeBase):
    """Every table of the ledger."""

    metadata = MetaData(naming_convention=NAMING)


class UsageRow(Base):
    """One finished request; its id makes a second insert harmless."""

    __tablename__ = "usage"
    __table_args__ = (
        Index(None, "model", "finished_unix_microseconds"),
        Index(None, "tenant", "finished_unix_microseconds"),
        Index(None, "finished_unix_microseconds"),
    )

    request_id: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    variant: Mapped[str] = mapped_column(Text)
    tier: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(Text)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    charge: Mapped[Decimal] = mapped_column(ExactDecimal)
    currency: Mapped[str] = mapped_column(String(3))
    replica_id: Mapped[str] = mapped_column(Text)
    trace_id: Mapped[str] = mapped_column(Text)
    started_unix_microseconds: Mapped[int] = mapped_column(BigInteger)
    finished_unix_microseconds: Mapped[int] = mapped_column(BigInteger)


class TenantTotalRow(Base):
    """What a tenant used since its first request; written together with ``usage``."""

    __tablename__ = "tenant_totals"

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    charge: Mapped[Decimal] = mapped_column(ExactDecimal)
    currency: Mapped[str] = mapped_column(String(3))


class TenantDayRow(Base):
    """What a tenant was charged on a calendar day in UTC; written together with ``usage``."""

    __tablename__ = "tenant_days"
    __table_args__ = (Index(None, "day"),)

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    day: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    charge: Mapped[Decimal] = mapped_column(ExactDecimal)


class TenantRow(Base):
    """What a tenant may do and spend, where anybody has said so."""

    __tablename__ = "tenants"

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    terms: Mapped[str] = mapped_column(Text)
    """JSON."""


class LeaseRow(Base):
    """What one gateway process may still charge one tenant: granted less settled.

    A lease that expired and was used stays as long as its charges may come.
    """

    __tablename__ = "leases"
    __table_args__ = (Index(None, "tenant"), Index(None, "spool"))

    holder: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    spool: Mapped[str] = mapped_column(Text)
    """Identity of the spool folder that brings the charges, whichever process has it."""
    granted: Mapped[Decimal] = mapped_column(ExactDecimal)
    settled: Mapped[Decimal] = mapped_column(ExactDecimal)
    spare: Mapped[Decimal] = mapped_column(ExactDecimal)
    expires_unix_microseconds: Mapped[int] = mapped_column(BigInteger)
    wanted_unix_microseconds: Mapped[int] = mapped_column(BigInteger)
    """When another process last lacked what this one holds; 0 if never."""


class CapacityRow(Base):
    """A replica in one state at one price.

    An open interval (no end) is known to have lasted until its heartbeat, and costs
    until then; a process that dies leaves an interval that costs nothing more.
    """

    __tablename__ = "capacity"
    __table_args__ = (
        Index(None, "model", "started_unix_microseconds"),
        Index(
            "uq_capacity_open_replica_id",
            "replica_id",
            unique=True,
            sqlite_where=text("ended_unix_microseconds IS NULL"),
            postgresql_where=text("ended_unix_microseconds IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    replica_id: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    variant: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    accelerator: Mapped[str] = mapped_column(Text)
    capacity_type: Mapped[str] = mapped_column(Text)
    region: Mapped[str] = mapped_column(Text)
    accelerators: Mapped[int] = mapped_column(BigInteger)
    usd_per_accelerator_hour: Mapped[Decimal] = mapped_column(ExactDecimal)
    price_is_given: Mapped[bool]
    started_unix_microseconds: Mapped[int] = mapped_column(BigInteger)
    heartbeat_unix_microseconds: Mapped[int] = mapped_column(BigInteger)
    ended_unix_microseconds: Mapped[int | None] = mapped_column(BigInteger)


class WindowRow(Base):
    """A closed window of a model and the rule by which its cost was split."""

    __tablename__ = "allocation_windows"
    __table_args__ = (UniqueConstraint("model", "start_unix_microseconds"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    model: Mapped[str] = mapped_column(Text)
    start_unix_microseconds: Mapped[int] = mapped_column(BigInteger)
    end_unix_microseconds: Mapped[int] = mapped_column(BigInteger)
    capacity_cost: Mapped[Decimal] = mapped_column(ExactDecimal)
    unmatched_requests: Mapped[int] = mapped_column(BigInteger)
    idle_payer: Mapped[str] = mapped_column(Text)
    owner: Mapped[str] = mapped_column(Text)
    input_weight: Mapped[Decimal] = mapped_column(ExactDecimal)
    cached_weight: Mapped[Decimal] = mapped_column(ExactDecimal)
    output_weight: Mapped[Decimal] = mapped_column(ExactDecimal)
    stale: Mapped[bool]
    """Usage that ran in the window arrived after it was closed."""
    allocated_unix_microseconds: Mapped[int] = mapped_column(BigInteger)


class AllocationRow(Base):
    """One part of a window's cost and who pays for it."""

    __tablename__ = "allocations"

    window_id: Mapped[int] = mapped_column(
        RowId, ForeignKey("allocation_windows.id", ondelete="CASCADE"), primary_key=True
    )
    variant: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    part: Mapped[str] = mapped_column(Text, primary_key=True)
    amount: Mapped[Decimal] = mapped_column(ExactDecimal)
    currency: Mapped[str] = mapped_column(String(3))


class DecisionRow(Base):
    """One scaling decision as it was made."""

    __tablename__ = "decisions"
    __table_args__ = (Index(None, "deployment", "time_unix_microseconds"),)

    sequence: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(Text, unique=True)
    time_unix_microseconds: Mapped[int] = mapped_column(BigInteger)
    deployment: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    record: Mapped[str] = mapped_column(Text)
    """JSON, exactly as it was given."""


class PriceRow(Base):
    """One imported line of the price book."""

    __tablename__ = "price_book"
    __table_args__ = (
        UniqueConstraint(
            "accelerator",
            "capacity_type",
            "region",
            "effective_from_unix_microseconds",
            name="uq_price_book_key",
        ),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    accelerator: Mapped[str] = mapped_column(Text)
    capacity_type: Mapped[str] = mapped_column(Text)
    region: Mapped[str] = mapped_column(Text)
    usd_per_accelerator_hour: Mapped[Decimal] = mapped_column(ExactDecimal)
    effective_from_unix_microseconds: Mapped[int] = mapped_column(BigInteger)
    effective_until_unix_microseconds: Mapped[int | None] = mapped_column(BigInteger)
    source: Mapped[str] = mapped_column(Text)


class RateRow(Base):
    """One imported line of the rate card; an empty tier is the rate without a tier."""

    __tablename__ = "rate_card"
    __table_args__ = (UniqueConstraint("model", "tier", "effective_from_unix_microseconds"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    model: Mapped[str] = mapped_column(Text)
    tier: Mapped[str] = mapped_column(Text)
    usd_per_million_input_tokens: Mapped[Decimal] = mapped_column(ExactDecimal)
    usd_per_million_cached_tokens: Mapped[Decimal] = mapped_column(ExactDecimal)
    usd_per_million_output_tokens: Mapped[Decimal] = mapped_column(ExactDecimal)
    effective_from_unix_microseconds: Mapped[int] = mapped_column(BigInteger)
    source: Mapped[str] = mapped_column(Text)


class TierFactorRow(Base):
    """An imported factor for rates that name no tier."""

    __tablename__ = "tier_factors"

    tier: Mapped[str] = mapped_column(Text, primary_key=True)
    factor: Mapped[Decimal] = mapped_column(ExactDecimal)


class KeyRow(Base):
    """An API key: its hash and its public part, never its text."""

    __tablename__ = "keys"
    __table_args__ = (Index(None, "tenant"),)

    key_id: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(Text, unique=True)
    allowed_models: Mapped[str | None] = mapped_column(Text)
    """JSON list; NULL allows all."""
    created_unix_microseconds: Mapped[int] = mapped_column(BigInteger)
    revoked_unix_microseconds: Mapped[int | None] = mapped_column(BigInteger)


class AuditRow(Base):
    """Who changed what."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    time_unix_microseconds: Mapped[int] = mapped_column(BigInteger)
    actor: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    subject: Mapped[str] = mapped_column(Text)
    details: Mapped[str] = mapped_column(Text)
    """JSON."""
