"""Add tenants' terms, and their charges by day.

Revision: 0002, after 0001.
"""

from collections import defaultdict
from decimal import Decimal, localcontext

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MICROSECONDS_PER_DAY = 86_400_000_000
DIGITS = 60
"""More than any sum of charges has."""


def upgrade() -> None:
    """Go forward; days before the change are filled in, so that a month's budget sees them."""
    op.create_table(
        "tenants",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_tenants")),
    )
    days = op.create_table(
        "tenant_days",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("charge", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "day", name=op.f("pk_tenant_days")),
    )
    op.create_index(op.f("ix_tenant_days_day"), "tenant_days", ["day"])
    usage = sa.table(
        "usage",
        sa.column("tenant", sa.Text()),
        sa.column("charge", sa.Text()),
        sa.column("finished_unix_microseconds", sa.BigInteger()),
    )
    day = (usage.c.finished_unix_microseconds // MICROSECONDS_PER_DAY).label("day")
    query = sa.select(usage.c.tenant, day, usage.c.charge, sa.func.count()).group_by(
        usage.c.tenant, sa.text("2"), usage.c.charge
    )
    with localcontext() as context:
        context.prec = DIGITS
        sums: dict[tuple[str, int], Decimal] = defaultdict(Decimal)
        for tenant, on_day, charge, count in op.get_bind().execute(query):
            sums[tenant, int(on_day)] += Decimal(charge) * count
    rows = [
        {"tenant": tenant, "day": on_day, "charge": f"{charge:f}"}
        for (tenant, on_day), charge in sums.items()
        if charge
    ]
    if rows:
        op.bulk_insert(days, rows)


def downgrade() -> None:
    """Go back."""
    op.drop_index(op.f("ix_tenant_days_day"), table_name="tenant_days")
    op.drop_table("tenant_days")
    op.drop_table("tenants")
