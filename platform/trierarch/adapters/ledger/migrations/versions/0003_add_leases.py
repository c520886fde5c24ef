"""Add leases of tenants' budgets.

Revision: 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "leases",
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("spool", sa.Text(), nullable=False),
        sa.Column("granted", sa.Text(), nullable=False),
        sa.Column("settled", sa.Text(), nullable=False),
        sa.Column("spare", sa.Text(), nullable=False),
        sa.Column("expires_unix_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("wanted_unix_microseconds", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("holder", "tenant", name=op.f("pk_leases")),
    )
    op.create_index(op.f("ix_leases_tenant"), "leases", ["tenant"])
    op.create_index(op.f("ix_leases_spool"), "leases", ["spool"])


def downgrade() -> None:
    """Go back."""
    op.drop_index(op.f("ix_leases_spool"), table_name="leases")
    op.drop_index(op.f("ix_leases_tenant"), table_name="leases")
    op.drop_table("leases")
