"""What an attack by a party on a training found, as it is kept.

```
PARTY/attacks/JOB.json    readable by the party only
```

Leaves to others: the attacks (`attack`, `vertical_attack`).
"""

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from federation.errors import WorkspaceError
from federation.party import PartyFolder, write_atomically
from privacy.attacks import Flaw

__all__ = ["FoundAttack", "too_few_coins"]


class FoundAttack(BaseModel):
    """What every attack tells.

    Attributes:
        party: whose rows it ran on.
        job: the training.
        model: digest of the model that it left, or of the party's part of it.
        made: when, UTC.
        stated_epsilon: ε that the job promises; None without noise.
        flaw: what was broken on purpose; None in earnest.
        confidence: of what is refuted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    party: str
    job: str
    model: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    made: datetime
    stated_epsilon: float | None
    flaw: Flaw | None
    confidence: float

    @classmethod
    def kept(cls, folder: PartyFolder, job: str, model: str) -> Self | None:
        """Return what an attack found of this very model; None where nothing is kept.

        Raises:
            WorkspaceError: it is damaged.
        """
        file = folder.attack(job)
        if not file.exists():
            return None
        try:
            found = cls.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise WorkspaceError(f"{file} is damaged: run `comity attack` again") from error
        return found if found.model == model else None

    def keep(self, folder: PartyFolder) -> None:
        """Keep what was found, unless something was broken on purpose."""
        if self.flaw is None:
            content = self.model_dump_json(indent=2).encode() + b"\n"
            write_atomically(folder.attack(self.job), content, mode=0o600)


def too_few_coins(coins: int, most: float, stated: float | None) -> str | None:
    """Say that an attack by planted coins could refute nothing; None where it could.

    Args:
        coins: planted.
        most: ε that they show if every guess is right.
        stated: ε that is held against it; where none is, 0.
    """
    if most > (stated or 0.0):
        return None
    claim = "" if stated is None else f", and {stated:g} is stated"
    return (
        f"{coins} canaries can refute nothing: had every guess been right, they would show an "
        f"epsilon of {most:.3f} at most{claim}; ask for more --canaries"
    )
