"""What a restoration needs to know: where the folder is to be, and in which database its copy is.

Guarantees: both come from the file that a node has, or are given instead; no password is told.

Leaves to others: everything else in that file (`federation.apps.launchers`).
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from compliance.errors import describe
from federation.errors import ReplicaError
from federation.replica.store import ReplicaStore

__all__ = ["RestorePlace"]


class RestorePlace(BaseModel):
    """Where a folder comes from, and goes to.

    Attributes:
        party: where the folder is to be.
        database: URL of the one that has its copy.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    party: Path
    database: SecretStr

    @classmethod
    def of(cls, file: Path | None, given: Mapping[str, Any]) -> Self:
        """Return what a node's file says, its path from its own place, and what is given instead.

        Raises:
            ReplicaError: neither says it, or the file is none of a node's.
        """
        try:
            found = tomllib.loads(file.read_text(encoding="utf-8")) if file is not None else {}
            if file is not None and isinstance(party := found.get("party"), str):
                found["party"] = file.absolute().parent / party
            named = {key: one for key, one in given.items() if one is not None}
            return cls.model_validate(found | named)
        except ValidationError as error:
            raise ReplicaError(
                f"{file or 'to restore'}: {describe(error)}: give --party and --database, or name "
                "a file that holds them by --config"
            ) from error
        except OSError as error:
            raise ReplicaError(f"{file} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ReplicaError(f"{file} is no file of a node: {error}") from error

    def reason_to_leave(self, store: ReplicaStore, party: str | None) -> str | None:
        """Say why there is nothing to restore, if so: the folder is there, or no copy is.

        Args:
            store: where the copy is.
            party: whose; where nobody looks, the only copy there is may be another's.

        Raises:
            ReplicaError: the party is not named, or the database cannot be reached.
        """
        if (self.party / "party.json").exists():
            return f"{self.party} is there: nothing was restored"
        if party is None:
            raise ReplicaError(
                "with --if-there, give --name: the only copy in the database may be of another "
                "party, which would be refused from then on"
            )
        with store.transaction() as kept:
            if party not in kept.parties():
                return f"{store.name} keeps no copy of {party} yet: nothing was restored"
        return None
