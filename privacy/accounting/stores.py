"""Every kind of store of a ledger, by the place where it is kept."""

import time
from collections.abc import Callable
from pathlib import Path

from privacy.accounting.store import LedgerStore, SqliteStore

__all__ = ["ledger_store"]


def ledger_store(
    place: Path | str, *, party: str, agreement: str, pause: Callable[[float], None] = time.sleep
) -> LedgerStore:
    """Return the store at a place.

    Args:
        place: a SQLite file, which is one party's under one agreement; or the URL of a PostgreSQL
            database, which keeps the ledgers of many apart by both.
        party: whose ledger it is.
        agreement: digest of the agreement.
        pause: waits for so many seconds between two attempts to reach a database.

    Raises:
        LedgerError: the URL is malformed or none of PostgreSQL's, or its driver is not installed.
    """
    if isinstance(place, Path):
        return SqliteStore(place)
    from privacy.accounting.postgresql_store import PostgresqlStore  # needs a driver

    return PostgresqlStore(place, party=party, agreement=agreement, pause=pause)
