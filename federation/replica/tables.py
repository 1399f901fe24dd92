"""The tables that keep copies of parties' folders, as of the present format.

```
comity_replicas        a copy: of which party, who holds the folder, how often it was synchronised
comity_replica_files   a file or directory of it
comity_replica_parts   a part of a file's content, of 1 MiB but for the last
```

Leaves to others: making them (`migrations`), reading and writing (`store`).
"""

from typing import Final

import sqlalchemy as sa

from federation.replica.migrations import NUMBER_TABLE

__all__ = ["FILES", "FORMATS", "METADATA", "PARTS", "REPLICAS"]

METADATA: Final = sa.MetaData()

FORMATS: Final = sa.Table(
    NUMBER_TABLE, METADATA, sa.Column("version_num", sa.String(32), primary_key=True)
)

REPLICAS: Final = sa.Table(
    "comity_replicas",
    METADATA,
    sa.Column("party", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("held_since", sa.BigInteger, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("synchronised", sa.BigInteger, nullable=False),
)

FILES: Final = sa.Table(
    "comity_replica_files",
    METADATA,
    sa.Column("party", sa.Text, sa.ForeignKey(REPLICAS.c.party), primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("mode", sa.Integer, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("modified", sa.BigInteger, nullable=False),
    sa.Column("stamp", sa.Text, nullable=False),
    sa.Column("digest", sa.Text),
)

PARTS: Final = sa.Table(
    "comity_replica_parts",
    METADATA,
    sa.Column("party", sa.Text, sa.ForeignKey(REPLICAS.c.party), primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)
