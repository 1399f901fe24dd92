"""Models held against the log: what is read is what was finished, or nothing.

Guarantees: a model of which the log tells another digest, or nothing, is not taken for the one that
was published.

Leaves to others: reading models (`own_rows`, `vertical_rows`, `expanding`).
"""

from collections.abc import Iterable
from typing import Final

from compliance.agreement import Agreement
from compliance.errors import ModelAlteredError
from compliance.log.verifier import FileMissingError, verify_log
from compliance.records import ModelTrained, Record, parse_leaf
from federation.log_reading import own_leaves
from federation.party import PartyFolder

__all__ = ["check_published", "models_beside"]

_KIND: Final = b"model.trained"


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


def models_beside(folder: PartyFolder) -> str:
    """Return the models that a party keeps, for people to choose from."""
    found = sorted(path.name for path in (folder.path / "models").glob("*.json"))
    return ", ".join(found) or "none"
