"""Format 1: the first tables."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "1"
down_revision: Final = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "comity_replicas",
        sa.Column("party", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("held_since", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("synchronised", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "comity_replica_files",
        sa.Column("party", sa.Text, primary_key=True),
        sa.Column("path", sa.Text, primary_key=True),
        sa.Column("mode", sa.Integer, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("modified", sa.BigInteger, nullable=False),
        sa.Column("stamp", sa.Text, nullable=False),
        sa.Column("digest", sa.Text),
        sa.ForeignKeyConstraint(["party"], ["comity_replicas.party"]),
    )
    op.create_table(
        "comity_replica_parts",
        sa.Column("party", sa.Text, primary_key=True),
        sa.Column("path", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(["party"], ["comity_replicas.party"]),
    )
