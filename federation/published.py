"""Models held against the log: what is read is what was finished, or nothing.

Guarantees: a model of which the log tells another digest, or nothing, is not taken for the one that
was published; one that was deleted is refused under the term by which it was.

Leaves to others: what is done with it (`own_rows`, `vertical_rows`, `expanding`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from pydantic import ValidationError

from compliance.agreement import Agreement
from compliance.errors import InvalidAgreementError, ModelAlteredError
from compliance.log.verifier import FileMissingError, verify_log
from compliance.records import ModelTrained, Record, parse_leaf
from federation.artefacts import deleted_in
from federation.errors import WorkspaceError
from federation.jobs.assist import HeldPart
from federation.jobs.model import JointModel
from federation.log_reading import own_leaves
from federation.party import PartyFolder
from federation.specification import TrainSpec, VerticalTrainSpec
from federation.versions import versions_of

__all__ = ["Published", "check_published"]

ModelT = TypeVar("ModelT", JointModel, HeldPart)
SpecT = TypeVar("SpecT", TrainSpec, VerticalTrainSpec)

_KIND: Final = b"model.trained"


@dataclass(frozen=True)
class Published(Generic[ModelT, SpecT]):
    """A model, or a part of one, where a party keeps it.

    Attributes:
        folder: the party's.
        agreement: the version that it was trained under, verified.
        model: the model.
        spec: the job that trained it.
    """

    folder: PartyFolder
    agreement: Agreement
    model: ModelT
    spec: SpecT

    @classmethod
    def open(
        cls, file: Path, model_kind: type[ModelT], spec_kind: type[SpecT]
    ) -> "Published[ModelT, SpecT]":
        """Read a model where a party keeps it, `PARTY/models/JOB.json`.

        Raises:
            WorkspaceError: it lies elsewhere, is malformed, or is of another agreement.
            RefusedError: it was deleted.
            InvalidAgreementError: the party's agreement is unsigned by somebody, or altered.
            ModelAlteredError: it is not the one that the log tells of.
            LogError: the log is damaged.
        """
        path = file.resolve()
        folder = PartyFolder(path.parent.parent)
        try:
            model = model_kind.model_validate_json(path.read_bytes())
            asked = folder.job(model.job) / "specification.json"
            spec = spec_kind.model_validate_json(asked.read_bytes())
        except FileNotFoundError as error:
            for one in deleted_in(folder):
                if one.name == path.stem:
                    raise one.refusal(folder.name) from error
            raise WorkspaceError(
                f"{error.filename} is missing: name PARTY/models/JOB.json of a brand or partner "
                f"whose training has ended; there is {_models_beside(folder)}"
            ) from error
        except ValidationError as error:
            raise WorkspaceError(f"{file} is no model: {error.error_count()} mistakes") from error
        current = folder.agreement()  # it is whole, and this party's
        if folder.model(model.job) != path or spec.name != model.job:
            raise WorkspaceError(f"{file} is of job {model.job!r}: name {folder.model(model.job)}")
        try:
            agreement = versions_of(folder.path).version(model.agreement)
        except InvalidAgreementError as error:
            raise WorkspaceError(
                f"{file} was made under another agreement than its folder has"
            ) from error
        check_published(folder, current, model.job, model.digest)
        return cls(folder, agreement, model, spec)


def check_published(folder: PartyFolder, agreement: Agreement, job: str, digest: str) -> None:
    """Return only if the party's log tells that a job finished with this very model.

    Args:
        folder: the party's.
        agreement: that its folder obeys now, whose key signs the log.
        job: the training.
        digest: of the model, or of the party's part of it.

    Raises:
        ModelAlteredError: it tells another digest, or nothing of the job, as a pruned one may.
        LogError: the log is damaged.
    """
    key = agreement.party(folder.name).log_key
    told: Iterable[Record]
    try:
        entries, is_pruned = verify_log(folder.log, verification_key=key).entries, False
        told = (parse_leaf(entry) for entry in entries if _KIND in entry)  # cheaper than all
    except FileMissingError:
        told, is_pruned = own_leaves(folder, agreement), True
    for leaf in told:
        if isinstance(leaf, ModelTrained) and (leaf.job, leaf.model_digest) == (job, digest):
            return
    if is_pruned:
        raise ModelAlteredError(
            f"the log of {folder.name} was pruned, and what is left does not tell of "
            f"{folder.model(job)}: use a copy of the folder from before"
        )
    raise ModelAlteredError(
        f"{folder.model(job)} was altered since it was published: expected the digest that the log "
        f"of {folder.name} tells of job {job!r}, got {digest[:16]}…; restore the file from a backup"
    )


def _models_beside(folder: PartyFolder) -> str:
    """Return the models that a party keeps, for people to choose from."""
    found = sorted(path.name for path in (folder.path / "models").glob("*.json"))
    return ", ".join(found) or "none"
