"""What a witness keeps on disk: the last head of each log that it cosigned, and evidence.

```
DIRECTORY/
  <SHA-256 of the origin>/
    checkpoint              the head with the log's signatures and this witness's
    evidence/D.seen         two heads of one size with different roots: the one cosigned, …
    evidence/D.submitted    … and the request with the other; D is the digest of the pair
```

Guarantees: of one log, one request at a time, in any process; a cosignature is answered only when
its head is on disk, so that no crash makes a witness forget what it vouched for; evidence is on
disk before the refusal is raised, and never overwritten; what does not prove a split view is no
evidence, whoever put it there. What was kept before a log or the witness changed its keys goes on
to count; nothing is cosigned any more that the earlier keys alone signed.

Leaves to others: the decision itself (`witness`), the wire.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

from compliance.errors import LogCorruptedError, LogError, NotWitnessedError, Objection
from compliance.log.cosignature import CosignerKey, CosigningKey
from compliance.log.files import Files, LocalFiles, publish
from compliance.log.note import NOTE_LIMIT
from compliance.log.policy import LogKey
from compliance.log.verifier import read_regular
from compliance.log.witness import (
    REQUEST_LIMIT,
    AddCheckpoint,
    Cosigned,
    Evidence,
    SplitViewError,
    decide,
)

__all__ = ["Witness", "WitnessRecord", "origin_hash"]

_MOST_EVIDENCE: Final = 16
"""Pairs of heads kept of one log: each proves as much as all of them."""


def origin_hash(origin: str) -> str:
    """Return the lower-case hexadecimal SHA-256 of an origin, which names it in paths."""
    return hashlib.sha256(origin.encode()).hexdigest()


class WitnessRecord:
    """What a witness keeps, for whoever reads it.

    Args:
        directory: the witness's own.
        logs: the keys of each log by origin; each of them must have signed a head.
        cosigner: the witness's public key.
        former: sets of keys that logs had before, by origin.
        former_cosigners: keys that the witness had before.
    """

    def __init__(
        self,
        directory: Path,
        *,
        logs: Mapping[str, tuple[LogKey, ...]],
        cosigner: CosignerKey,
        former: Mapping[str, Sequence[tuple[LogKey, ...]]] = MappingProxyType({}),
        former_cosigners: Sequence[CosignerKey] = (),
    ) -> None:
        self._directory = directory
        self._logs = logs
        self._cosigner = cosigner
        self._former = former
        self._former_cosigners = former_cosigners

    def last(self, origin: str) -> Cosigned | None:
        """Return what was cosigned last of a log; None if nothing was.

        Raises:
            LogCorruptedError: what is kept is damaged.
            LogError: it cannot be read.
        """
        path = self._directory / origin_hash(origin) / "checkpoint"
        try:
            data = read_regular(path, NOTE_LIMIT + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LogError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            return Cosigned.parse(
                data,
                self._logs.get(origin, ()),
                self._cosigner,
                former=self._former.get(origin, ()),
                former_cosigners=self._former_cosigners,
            )
        except LogCorruptedError as error:
            raise LogCorruptedError(f"{path}: {error}") from error

    def evidence(self, origin: str) -> tuple[Evidence, ...]:
        """Return what is kept against a log and proves a split view; all else is left out.

        Raises:
            LogError: it cannot be read.
        """
        directory = self._directory / origin_hash(origin) / "evidence"
        paths = sorted(directory.glob("*.submitted"))
        try:
            pairs = [
                Evidence(
                    read_regular(path.with_suffix(".seen"), NOTE_LIMIT + 1),
                    read_regular(path, REQUEST_LIMIT + 1),
                )
                for path in paths
            ]
        except OSError as error:
            raise LogError(f"{directory}: cannot be read: {error.strerror}") from error
        keys, former = self._logs.get(origin, ()), self._former.get(origin, ())
        return tuple(pair for pair in pairs if _proves(pair, keys, former))


class Witness(WitnessRecord):
    """Cosigns heads of the logs it knows; safe to use from several threads and processes.

    Args:
        directory: its own; created if there is none.
        logs: the keys of each log by origin; each of them must have signed a head.
        cosigner: signs.
        former: sets of keys that logs had before, by origin; they sign nothing that is cosigned.
        former_cosigners: keys that the witness had before.
        files: does the writing; this machine's file system if None.
    """

    def __init__(
        self,
        directory: Path,
        *,
        logs: Mapping[str, tuple[LogKey, ...]],
        cosigner: CosigningKey,
        former: Mapping[str, Sequence[tuple[LogKey, ...]]] = MappingProxyType({}),
        former_cosigners: Sequence[CosignerKey] = (),
        files: Files | None = None,
    ) -> None:
        super().__init__(
            directory,
            logs=logs,
            cosigner=cosigner.public,
            former=former,
            former_cosigners=former_cosigners,
        )
        self._signing = cosigner
        self._files = files or LocalFiles()

    def add_checkpoint(self, body: bytes, *, now: int) -> bytes:
        """Answer an add-checkpoint request (C2SP tlog-witness).

        Args:
            body: the request.
            now: POSIX seconds.

        Returns:
            The signature line.

        Raises:
            NotWitnessedError: the witness does not cosign; `SplitViewError` if what it saw is
                evidence against the log, which is kept.
            LogError: the clock went backwards, or the disk refused; nothing was answered.
        """
        request = AddCheckpoint.parse(body)
        origin = _origin(request.checkpoint)
        keys = self._logs.get(origin, ())
        if not keys:
            raise NotWitnessedError(
                "add-checkpoint: no known log has this origin", Objection.UNKNOWN_LOG
            )
        directory = self._directory / origin_hash(origin)
        try:
            self._files.make_directory(directory)
            with _locked(directory):
                # 1. A crash from here to 3 leaves the head cosigned before, and no answer.
                seen = self.last(origin)
                # 2. Decide.
                try:
                    cosigned = decide(
                        request, logs=keys, seen=seen, cosigner=self._signing, now=now
                    )
                except SplitViewError as split:
                    self._keep(origin, split.evidence)
                    raise
                # 3. Persist. A crash leaves the old head or the new one; whoever asks again is told
                #    the size of either.
                publish(self._files, directory / "checkpoint", cosigned.note.to_bytes())
                self._files.sync([self._directory, self._directory.parent])
                # 4. Only then answer.
                return cosigned.lines
        except OSError as error:
            raise LogError(
                f"{directory}: the witness cannot write: {error.strerror or error}: free the disk "
                "or its permissions; nothing was cosigned"
            ) from error

    def _keep(self, origin: str, evidence: Evidence) -> None:
        """Keep both heads, the second file last: a crash leaves both, or what counts for none."""
        directory = self._directory / origin_hash(origin)
        folder = directory / "evidence"
        self._files.make_directory(folder)
        there = {pair.digest for pair in self.evidence(origin)}
        if evidence.digest in there or len(there) >= _MOST_EVIDENCE:
            return
        path = folder / f"{evidence.digest}.submitted"
        publish(self._files, path.with_suffix(".seen"), evidence.seen)
        publish(self._files, path, evidence.submitted)
        self._files.sync([directory, self._directory])


def _proves(
    evidence: Evidence, keys: tuple[LogKey, ...], former: Sequence[tuple[LogKey, ...]]
) -> bool:
    try:
        evidence.verify(keys, former=former)
    except LogError:
        return False
    return True


def _origin(checkpoint: bytes) -> str:
    try:
        return checkpoint.partition(b"\n")[0].decode()
    except UnicodeDecodeError as error:
        raise NotWitnessedError(
            "add-checkpoint: expected a checkpoint in UTF-8", Objection.MALFORMED
        ) from error


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
