"""Format 2: the cap of a period, and since when each charge stands.

Guarantees: a charge that was made before counts as made at the moment of the migration, which is
not before it was: it weighs on every period that it may weigh on, and on some that it need not. No
ledger has a period's cap until its agreement is amended by one.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa
from alembic import context, op

revision: Final = "2"
down_revision: Final = None

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def upgrade() -> None:
    """Add the columns, and fill in since when charges stand."""
    in_file = op.get_bind().dialect.name == "sqlite"
    ledgers, charges = ("terms", "charges") if in_file else ("comity_ledgers", "comity_charges")
    moment = (context.config.attributes["moment"] - _EPOCH) // timedelta(microseconds=1)
    real: sa.types.TypeEngine[float] = sa.REAL() if in_file else sa.Double()
    integer = sa.INTEGER() if in_file else sa.BigInteger()

    # 1. what a period allows, nothing yet
    op.add_column(ledgers, sa.Column("period_days", sa.Integer()))
    op.add_column(ledgers, sa.Column("period_epsilon", real))
    op.add_column(ledgers, sa.Column("period_delta", real))

    # 2. since when each charge stands
    op.add_column(charges, sa.Column("since", integer))
    op.execute(sa.table(charges, sa.column("since")).update().values(since=moment))

    # 3. no charge without it, so that an earlier version cannot write one; SQLite's tables are
    #    copied for that
    with op.batch_alter_table(charges, copy_from=_charges() if in_file else None) as table:
        table.alter_column("since", existing_type=integer, nullable=False)


def _charges() -> sa.Table:
    """Return a file's table of charges as it is after step 2."""
    return sa.Table(
        "charges",
        sa.MetaData(),
        sa.Column("position", sa.INTEGER(), primary_key=True),
        sa.Column("charge_id", sa.TEXT(), nullable=False, unique=True),
        sa.Column("event", sa.TEXT(), nullable=False),
        sa.Column("state", sa.TEXT(), nullable=False),
        sa.Column("since", sa.INTEGER()),
        sa.CheckConstraint("state IN ('reserved', 'committed', 'refunded')"),
    )
