"""What parties answered in exchanges that go on without some of them, kept at the coordinator.

```
jobs/JOB/exchange-NNNN.json   who was missing, and what the others answered
```

Guarantees: a job that is run again has each such exchange as it was: whoever was left out stays so,
and whoever answered need not be there to answer again. Of a match, who was left out is kept alone:
its answers are as large as its sets, and parties repeat them. An exchange is kept whole, or not at
all, before anything is said that follows from it; one in which somebody refused is not.

Leaves to others: holding an answer against its question (`coordinator`), which is done each time.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance.canonical import is_unsaid
from federation.errors import WorkspaceError
from federation.messages import Message, SealedMessage
from federation.party import write_atomically

__all__ = ["Had", "KeptExchanges"]

_PATTERN: Final = "exchange-*.json"


class _Closed(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_bytes="base64",
        val_json_bytes="base64",
        hide_input_in_errors=True,
    )


class _Answer(_Closed):
    sender: str
    envelope: bytes
    payload: bytes


class Had(_Closed):
    """One exchange that was had.

    Attributes:
        missing: parties that were asked, and did not answer.
        answers: of all the others; none where these are asked again.
        others: those missing that spoke another version.
    """

    missing: tuple[str, ...]
    answers: tuple[_Answer, ...]
    others: Annotated[tuple[str, ...], Field(exclude_if=is_unsaid)] = ()

    def answer_of(self, party: str) -> SealedMessage | None:
        """Return what a party answered; None where it was missing."""
        for one in self.answers:
            if one.sender == party:
                return SealedMessage(one.envelope, one.payload)
        return None


class KeptExchanges:
    """The exchanges of one job, in order.

    Args:
        directory: of the job.

    Raises:
        WorkspaceError: one that was kept is damaged.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._had = [_read(path) for path in sorted(directory.glob(_PATTERN))]

    @property
    def count(self) -> int:
        """How many were had."""
        return len(self._had)

    @property
    def left_out(self) -> frozenset[str]:
        """Who was missing from any."""
        return frozenset(name for had in self._had for name in had.missing)

    @property
    def others(self) -> frozenset[str]:
        """Who was missing from any because it spoke another version."""
        return frozenset(name for had in self._had for name in had.others)

    @property
    def heard_last(self) -> frozenset[str]:
        """Who answered in the last one."""
        return frozenset(one.sender for one in self._had[-1].answers) if self._had else frozenset()

    def had(self, number: int) -> Had | None:
        """Return the exchange of that number, from 0, if it was had."""
        return self._had[number] if number < len(self._had) else None

    def keep(
        self,
        number: int,
        missing: Sequence[str],
        answers: Sequence[Message] = (),
        *,
        others: Sequence[str] = (),
    ) -> None:
        """Keep the exchange of that number, which follows those had, or was had once more."""
        had = Had(
            missing=tuple(missing),
            others=tuple(others),
            answers=tuple(
                _Answer(
                    sender=one.header.sender,
                    envelope=one.sealed.envelope,
                    payload=one.sealed.payload,
                )
                for one in answers
            ),
        )
        path = self._directory / f"exchange-{number:06d}.json"
        write_atomically(path, had.model_dump_json().encode(), mode=0o600)
        self._had[number:] = [had, *self._had[number + 1 :]]

    def forget(self) -> None:
        """Remove them, once the job has ended."""
        for path in self._directory.glob(_PATTERN):
            path.unlink()


def _read(path: Path) -> Had:
    try:
        return Had.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise WorkspaceError(f"{path} is damaged: run the job under another name") from error
