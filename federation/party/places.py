"""Where everything lies in a party's folder.

A result waits under another name while the gate decides on the answer that tells of it, and is put
in its place once that was let go (`keep_pending`).

Leaves to others: what is written there (`node`, `gate`).
"""

from pathlib import Path

from pydantic import ValidationError

from compliance.errors import describe
from connectors import SqlSource
from federation.errors import WorkspaceError
from federation.party.configuration import FileOrTable, PartyConfig, SegmentsConfig

__all__ = ["PartyPlaces"]


class PartyPlaces:
    """Where everything lies in the folder of one party, which its `party.json` describes."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        file = self.path / "party.json"
        try:
            self.config = PartyConfig.model_validate_json(file.read_bytes())
        except FileNotFoundError as error:
            raise WorkspaceError(
                f"{self.path} is no party's folder: there is no party.json in it"
            ) from error
        except ValidationError as error:
            raise WorkspaceError(
                f"{file}: {error.error_count()} mistakes: {describe(error)}"
            ) from error

    @property
    def name(self) -> str:
        """The party's name."""
        return self.config.name

    @property
    def log(self) -> Path:
        """Directory of the party's log."""
        return self.path / "log"

    @property
    def witnessed(self) -> Path:
        """Directory of what this party witnessed of others' logs, and they of its own."""
        return self.log / "witness"

    @property
    def shown(self) -> Path:
        """Directory of what must be remembered until other parties have cosigned a head."""
        return self.path / "shown"

    @property
    def log_origin(self) -> str:
        """Origin line of the party's log."""
        return f"comity/{self.name}"

    @property
    def ledger(self) -> Path:
        """File of the privacy ledger, where it is kept in one."""
        return self.path / "ledger.sqlite"

    @property
    def policy(self) -> Path:
        """File of the party's own prohibitions, in Cedar, if it has any."""
        return self.path / "policy.cedar"

    @property
    def outbox(self) -> Path:
        """Directory of the answers given."""
        return self.path / "outbox"

    def resolve(self, path: Path) -> Path:
        """Return a configured path, relative ones taken from the party's folder."""
        return self.path / path

    @property
    def consents(self) -> Path | SqlSource | None:
        """Where the party's consent events are, if it keeps any."""
        return self._named(self.config.consent)

    @property
    def suppressed(self) -> Path | SqlSource | None:
        """Where the list of who is in no segment is, if the party keeps one."""
        return self._named(self.config.suppression)

    def _named(self, place: FileOrTable | None) -> Path | SqlSource | None:
        if place is None:
            return None
        return self.resolve(place) if isinstance(place, Path) else place.source(self.path)

    def job(self, job: str) -> Path:
        """Directory of what a job must remember."""
        return self.path / "jobs" / job

    def ended(self, job: str) -> Path:
        """File of what a job left, which the coordinator writes once it has ended."""
        return self.job(job) / "ended.json"

    def has_ended(self, job: str) -> bool:
        """Tell whether a job has ended, at the coordinator: it is not run again."""
        return self.ended(job).exists()

    def members(self, match: str) -> Path:
        """File of the members that a match found here."""
        return self.job(match) / "members.npz"

    def model(self, job: str) -> Path:
        """File of the model that a training job made."""
        return self.path / "models" / f"{job}.json"

    def attack(self, job: str) -> Path:
        """File of what an attack on a training job found."""
        return self.path / "attacks" / f"{job}.json"

    def card(self, name: str) -> Path:
        """Files of the card of a model, without their suffix."""
        return self.path / "cards" / name

    def segment(self, job: str) -> Path:
        """File of the segment that an expansion job made, where it goes into a file."""
        kind = (self.config.segments or SegmentsConfig()).kind
        return self.path / "segments" / f"{job}.{kind}"

    def measurement(self, job: str) -> Path:
        """File of the counts that a measuring job made."""
        return self.job(job) / "measurement.json"

    @property
    def erasures(self) -> Path:
        """Directory of requests to erase, and of whom they are about."""
        return self.path / "erasures"

    @property
    def subject_keys(self) -> Path:
        """File of the subjects' keys, where the party keeps some."""
        return self.path / "keys" / "subjects.sqlite"

    def retired(self, job: str) -> Path:
        """File whose presence says that nobody is scored with a model any more."""
        return self.path / "models" / f"{job}.retired"

    def due_model(self, job: str) -> Path:
        """File that says by when a model has to be trained again."""
        return self.path / "retraining" / f"{job}.json"

    def pending(self, result: Path, question: str) -> Path:
        """Where a result waits while the gate decides on the answer to a question."""
        return result.with_name(f".{result.name}.{question}.pending")

    def keep_pending(self, question: str) -> None:
        """Put a result in its place that a crash left waiting though its answer was let go."""
        for folder in ("jobs", "models", "segments"):
            for pending in (self.path / folder).glob(f"**/.*.{question}.pending"):
                pending.replace(pending.with_name(pending.name[1 : -len(f".{question}.pending")]))

    def pending_results(self) -> dict[str, tuple[Path, ...]]:
        """Return results that a crash left waiting, by the question whose answer tells of them."""
        found: dict[str, tuple[Path, ...]] = {}
        for folder in ("jobs", "models", "segments"):
            for path in sorted((self.path / folder).glob("**/.*.pending")):
                question = path.name.split(".")[-2]
                found[question] = (*found.get(question, ()), path)
        return found

    @property
    def next_agreement(self) -> Path:
        """Where an amendment lies while it is being taken over."""
        return self.path / "agreement.next.json"
