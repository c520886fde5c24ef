"""Run migrations on the connection that ``Database`` hands over.

The caller owns the transaction: a migration that fails, or a process that dies in the
middle of one, leaves the database as it was.
"""

from alembic import context

from trierarch.adapters.ledger.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
context.run_migrations()
