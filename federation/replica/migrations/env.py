"""What Alembic runs: the steps that are due, on the connection of `migrate`, in its transaction.

Leaves to others: single steps (`versions`).
"""

from alembic import context

from federation.replica.migrations import NUMBER_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=NUMBER_TABLE)
context.run_migrations()
