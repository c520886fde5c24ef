"""Create the ledger.

Revision: 0001, after None.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "allocation_windows",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("start_unix_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("end_unix_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("capacity_cost", sa.Text(), nullable=False),
        sa.Column("unmatched_requests", sa.BigInteger(), nullable=False),
        sa.Column("idle_payer", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("input_weight", sa.Text(), nullable=False),
        sa.Column("cached_weight", sa.Text(), nullable=False),
        sa.Column("output_weight", sa.Text(), nullable=False),
        sa.Column("stale", sa.Boolean(), nullable=False),
        sa.Column("allocated_unix_microseconds", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_allocation_windows")),
        sa.UniqueConstraint(
            "model",
            "start_unix_microseconds",
            name=op.f("uq_allocation_windows_model_start_unix_microseconds"),
        ),
    )
    op.create_table(
        "audit",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("time_unix_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_table(
        "capacity",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("replica_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("accelerator", sa.Text(), nullable=False),
        sa.Column("capacity_type", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("accelerators", sa.BigInteger(), nullable=False),
        sa.Column("usd_per_accelerator_hour", sa.Text(), nullable=False),
        sa.Column("price_is_given", sa.Boolean(), nullable=False),
        sa.Column("started_unix_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_unix_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("ended_unix_microseconds", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_capacity")),
    )
    op.create_index(
        op.f("ix_capacity_model_started_unix_microseconds"),
        "capacity",
        ["model", "started_unix_microseconds"],
        unique=False,
    )
    op.create_index(
        "uq_capacity_open_replica_id",
        "capacity",
        ["replica_id"],
        unique=True,
        sqlite_where=sa.text("ended_unix_microseconds IS NULL"),
        postgresql_where=sa.text("ended_unix_microseconds IS NULL"),
    )
    op.create_table(
        "decisions",
        sa.Column("sequence", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("time_unix_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_decisions")),
        sa.UniqueConstraint("id", name=op.f("uq_decisions_id")),
    )
    op.create_index(
        op.f("ix_decisions_deployment_time_unix_microseconds"),
        "decisions",
        ["deployment", "time_unix_microseconds"],
        unique=False,
    )
    op.create_table(
        "keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("allowed_models", sa.Text(), nullable=True),
        sa.Column("created_unix_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("revoked_unix_microseconds", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_keys_sha256")),
    )
    op.create_index(op.f("ix_keys_tenant"), "keys", ["tenant"], unique=False)
    op.create_table(
        "price_book",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("accelerator", sa.Text(), nullable=False),
        sa.Column("capacity_type", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("usd_per_accelerator_hour", sa.Text(), nullable=False),
        sa.Column("effective_from_unix_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("effective_until_unix_microseconds", sa.BigInteger(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_book")),
        sa.UniqueConstraint(
            "accelerator",
            "capacity_type",
            "region",
            "effective_from_unix_microseconds",
            name="uq_price_book_key",
        ),
    )
    op.create_table(
        "rate_card",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("usd_per_million_input_tokens", sa.Text(), nullable=False),
        sa.Column("usd_per_million_cached_tokens", sa.Text(), nullable=False),
        sa.Column("usd_per_million_output_tokens", sa.Text(), nullable=False),
        sa.Column("effective_from_unix_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rate_card")),
        sa.UniqueConstraint(
            "model",
            "tier",
            "effective_from_unix_microseconds",
            name=op.f("uq_rate_card_model_tier_effective_from_unix_microseconds"),
        ),
    )
    op.create_table(
        "tenant_totals",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.Column("charge", sa.Text(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_tenant_totals")),
    )
    op.create_table(
        "tier_factors",
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("factor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tier", name=op.f("pk_tier_factors")),
    )
    op.create_table(
        "usage",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.Column("charge", sa.Text(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("replica_id", sa.Text(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column("started_unix_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("finished_unix_microseconds", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_usage")),
    )
    op.create_index(
        op.f("ix_usage_finished_unix_microseconds"),
        "usage",
        ["finished_unix_microseconds"],
        unique=False,
    )
    op.create_index(
        op.f("ix_usage_model_finished_unix_microseconds"),
        "usage",
        ["model", "finished_unix_microseconds"],
        unique=False,
    )
    op.create_index(
        op.f("ix_usage_tenant_finished_unix_microseconds"),
        "usage",
        ["tenant", "finished_unix_microseconds"],
        unique=False,
    )
    op.create_table(
        "allocations",
        sa.Column("window_id", ROW_ID, nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("amount", sa.Text(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.ForeignKeyConstraint(
            ["window_id"],
            ["allocation_windows.id"],
            name=op.f("fk_allocations_window_id_allocation_windows"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "window_id", "variant", "tenant", "part", name=op.f("pk_allocations")
        ),
    )


def downgrade() -> None:
    """Go back."""
    op.drop_table("allocations")
    op.drop_index(op.f("ix_usage_tenant_finished_unix_microseconds"), table_name="usage")
    op.drop_index(op.f("ix_usage_model_finished_unix_microseconds"), table_name="usage")
    op.drop_index(op.f("ix_usage_finished_unix_microseconds"), table_name="usage")
    op.drop_table("usage")
    op.drop_table("tier_factors")
    op.drop_table("tenant_totals")
    op.drop_table("rate_card")
    op.drop_table("price_book")
    op.drop_index(op.f("ix_keys_tenant"), table_name="keys")
    op.drop_table("keys")
    op.drop_index(op.f("ix_decisions_deployment_time_unix_microseconds"), table_name="decisions")
    op.drop_table("decisions")
    op.drop_index(
        "uq_capacity_open_replica_id",
        table_name="capacity",
        sqlite_where=sa.text("ended_unix_microseconds IS NULL"),
        postgresql_where=sa.text("ended_unix_microseconds IS NULL"),
    )
    op.drop_index(op.f("ix_capacity_model_started_unix_microseconds"), table_name="capacity")
    op.drop_table("capacity")
    op.drop_table("audit")
    op.drop_table("allocation_windows")
