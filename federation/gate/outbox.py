"""The answers that a party has given, kept so that a repeated question gets the same bytes.

Guarantees: an answer is whole or not there: its payload lies beside it before it does.

Leaves to others: how long answers are kept (`artefacts`), and whether they may leave again
(`charges`).
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from federation.messages import SealedMessage, content_digest
from federation.party import write_atomically

__all__ = ["Outbox", "release_digest", "release_of"]

_PAID: Final = ".paid"
"""Suffix of the file beside an answer that names its `paid_by`."""


class Outbox:
    """What left a party, in files called by the question that it answers and the release's id."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, key: str, release_id: str, paid_by: str | None, sealed: SealedMessage) -> None:
        """Keep what is about to leave."""
        path = self._directory / f"{key}.{release_digest(release_id)}.json"
        if paid_by is not None:
            write_atomically(path.with_suffix(_PAID), paid_by.encode(), mode=0o600)
        write_atomically(path.with_suffix(".bin"), sealed.payload, mode=0o600)
        write_atomically(path, sealed.envelope, mode=0o600)

    def kept(self, question: str) -> Path | None:
        """Return where the whole answer to a message lies; None once it is deleted."""
        answers = self._found(f"{question}.", ".json")
        whole = (path for path in answers if path.with_suffix(".bin").exists())  # see `artefacts`
        return next(whole, None)

    def keeps_answer(self, question: str) -> bool:
        """Tell whether a message got an answer, which is not deleted."""
        return self.kept(question) is not None

    def read(self, path: Path) -> tuple[bytes, bytes]:
        """Return envelope and payload of an answer that is kept."""
        payload = path.with_suffix(".bin").read_bytes()
        return path.read_bytes(), payload

    def paid_by(self, path: Path) -> str | None:
        """Return the id of the earlier release whose charge paid for an answer, if any."""
        try:
            return path.with_suffix(_PAID).read_text(encoding="ascii")
        except FileNotFoundError:
            return None

    def releases(self) -> set[str]:
        """Return the digests of the ids of all releases that are here."""
        return {release_of(path) for path in self._directory.glob("*.*.json")}

    def has_answered(self, question: str) -> bool:
        """Tell whether a message got an answer, even if that is deleted since."""
        return bool(self._found(f"{question}.", ".json"))

    def has_sent(self, digest: str | None) -> bool:
        """Tell whether this party has sent the message of that digest."""
        sent = self._directory.glob("*.json")
        return any(content_digest(path.read_bytes()) == digest for path in sent)

    def forget_payload(self, digest: str | None) -> None:
        """Delete the payload of a message that this party has sent and will not repeat."""
        for path in self._directory.glob("*.json"):
            if content_digest(path.read_bytes()) == digest:
                path.with_suffix(".bin").unlink(missing_ok=True)

    def has_left(self, job: str, kind: str, recipient: str) -> bool:
        """Tell whether what a job says once to a recipient has left."""
        name = release_digest(f"{job}/{kind}/{recipient}")
        return bool(self._found("", f".{name}.json"))

    def _found(self, prefix: str, suffix: str) -> list[Path]:
        """Return the files so called; a pattern for each question would be compiled each time."""
        with suppress(FileNotFoundError), os.scandir(self._directory) as found:
            names = (one.name for one in found)
            return [
                self._directory / name
                for name in names
                if name.startswith(prefix) and name.endswith(suffix)
            ]
        return []


def release_digest(release_id: str) -> str:
    """Return what stands for a release in its answer's name."""
    return content_digest(release_id.encode())


def release_of(path: Path) -> str:
    """Return the digest of the id of the release that an answer is."""
    _, digest, _ = path.name.split(".")
    return digest
