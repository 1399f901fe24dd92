"""Bringing a party's folder back from its copy, on another machine.

Guarantees: the folder appears whole, or not at all; a folder that is there is not touched; once one
is brought back, that from which it was copied is refused. What lies in the database is believed no
further than that a name must lie within the folder, and a content be what it was when it was kept.

Leaves to others: the copy (`replica`); what files say, which is verified where they are read.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from federation.clock import Clock, utc_now
from federation.errors import ReplicaError
from federation.replica.contents import parts_of
from federation.replica.description import DESCRIPTION, outside_of, with_database
from federation.replica.kept import KeptFile, Standing, digest_of
from federation.replica.replica import head_file, holder_file, new_holder
from federation.replica.scan import OWN
from federation.replica.store import ReplicaStore, ReplicaTransaction

__all__ = ["Restored", "restore"]

Tell = Callable[[int, int], None]
"""Told how many bytes are there, of how many."""

_PERMISSIONS: Final = 0o777


@dataclass(frozen=True)
class Restored:
    """What was brought back.

    Attributes:
        standing: of the copy, before.
        files: how many there are.
        size: of all of them, in bytes.
        in_clear: names of secrets of which no content is kept, as they lay in clear.
        lacking: keys of `party.json` whose URL may need a password.
        left: files outside of the folder that were there, and later than what was kept of them.
    """

    standing: Standing
    files: int
    size: int
    in_clear: tuple[str, ...]
    lacking: tuple[str, ...]
    left: tuple[Path, ...] = ()


def restore(
    store: ReplicaStore,
    target: Path,
    *,
    database: str,
    party: str | None = None,
    tell: Tell = lambda _, __: None,
    clock: Clock = utc_now,
) -> Restored:
    """Bring a party's folder back.

    1. The copy is held, so that nobody changes it meanwhile.
    2. The folder is written beside its place, with an id of its own, and flushed to disk.
    3. The database takes that folder for the party's from here on.
    4. It is put in its place. A crash before leaves nothing there, and is made up for by another
       call.

    Args:
        store: where the copy is.
        target: where the folder is to be; nothing is there, or an empty directory.
        database: URL of the store, which `party.json` is to name.
        party: whose; may be left out where there is one copy alone.
        tell: told how far it is.
        clock: tells when now is.

    Raises:
        ReplicaError: something is there, there is no such copy, it is damaged, or a file cannot be
            written.
    """
    target = target.absolute()
    beside = target.with_name(f".{target.name}.restoring")
    try:
        with store.transaction() as kept:
            standing = _standing(store, kept, party)  # 1
            _check_absent(target)
            shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
            beside.mkdir(mode=0o700, parents=True)
            restoring = _Restoring(standing.party, kept, beside, target)
            with _removed_unless_whole(beside):
                restored = restoring.run(standing, database, tell)  # 2
                holder = new_holder()
                _mark(beside, holder)
                os.sync()
            kept.take_over(standing.party, holder, clock())  # 3
        beside.rename(target)  # 4
        _flush(target.parent)
    except OSError as error:
        raise ReplicaError(
            f"{error.filename or target} cannot be written ({error.strerror}): name a folder that "
            "can be made, on a disk with room, and not a mount itself"
        ) from error
    return restored


def _standing(store: ReplicaStore, kept: ReplicaTransaction, party: str | None) -> Standing:
    parties = kept.parties()
    if party is None and len(parties) == 1:
        (party,) = parties
    if party is None or party not in parties:
        raise ReplicaError(
            f"{store.name} keeps copies of {', '.join(parties) or 'nobody'}: expected "
            f"{party or 'one alone'}; name the party, or the right database or schema"
        )
    standing = kept.standing(party, lock=True)
    if standing is None:
        raise ReplicaError(f"{store.name} has lost its copy of {party}")
    return standing


@contextmanager
def _removed_unless_whole(directory: Path) -> Iterator[None]:
    """Leave nothing of people where nobody would look for it, should it not become whole."""
    try:
        yield
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _check_absent(target: Path) -> None:
    if target.is_mount():
        raise ReplicaError(f"{target} is itself a mount: name a folder within it")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ReplicaError(
            f"{target} is there already, and is not overwritten: if it is the party's, it may be "
            "the later one; move it away, or name another folder"
        )


class _Restoring:
    """One folder on its way back.

    Args:
        party: whose.
        kept: the transaction in which its copy is held.
        root: where it is written.
        target: where it is going to be.
    """

    def __init__(self, party: str, kept: ReplicaTransaction, root: Path, target: Path) -> None:
        self._party = party
        self._kept = kept
        self._root = root
        self._target = target
        self._left: list[Path] = []

    def run(self, standing: Standing, database: str, tell: Tell) -> Restored:
        """Write everything."""
        files = self._kept.files(self._party)
        if (described := files.pop(DESCRIPTION, None)) is None:
            raise ReplicaError(
                f"the copy of {self._party} has no {DESCRIPTION}: it never was whole"
            )
        content, lacking = with_database(b"".join(self._contents(described)), database)
        self._write(described, self._root / DESCRIPTION, [content])
        outside = outside_of(content, self._target)
        in_clear = tuple(sorted(one.path for one in files.values() if one.digest is None))
        whole = [one for one in sorted(files.values(), key=_name) if one.digest is not None]
        size, total = 0, sum(one.size for one in whole)
        for one in whole:
            self._bring(one, outside)
            size += one.size
            tell(size, total)
        for one in reversed(whole):
            if one.is_directory:
                self._place(one.path).chmod(one.mode & _PERMISSIONS)
        count = 1 + sum(not one.is_directory for one in whole)
        size += described.size
        return Restored(standing, count, size, in_clear, tuple(lacking), tuple(self._left))

    def _bring(self, one: KeptFile, outside: dict[str, Path]) -> None:
        if one.path.startswith("/"):
            place = outside.get(one.path)
            if place is not None and not self._is_left(one, place):
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                beside = place.with_name(f".{place.name}.restoring")
                beside.unlink(missing_ok=True)
                self._write(one, beside, self._contents(one))
                beside.rename(place)
        elif one.is_directory:
            self._place(one.path).mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            self._write(one, self._place(one.path), self._contents(one))

    def _is_left(self, one: KeptFile, place: Path) -> bool:
        """Tell whether a file elsewhere is there: what is kept, or what somebody wrote since.

        Raises:
            ReplicaError: it is what it was before: people may have said otherwise since.
        """
        if not place.exists():
            return False
        found = place.stat()
        with place.open("rb") as file:
            digests = [hashlib.sha256(part).hexdigest() for part in parts_of(file)]
        if digest_of(digests) == one.digest:
            return True
        if found.st_mtime_ns <= one.modified:
            raise ReplicaError(
                f"{place} is there, and older than what is kept of it: what people said since "
                "would be forgotten; move it away, then restore again"
            )
        self._left.append(place)
        return True

    def _place(self, path: str) -> Path:
        """Return where a file is written; none lies outside of the folder, or is another's.

        Raises:
            ReplicaError: its name is none that was ever kept.
        """
        names = path.split("/")
        if {"", ".", ".."} & {*names} or "\0" in path or names[0] == OWN:
            raise ReplicaError(
                f"the copy of {self._party} is damaged: it has a file whose name is none of a "
                "folder's; see who may write to the database, and restore that from a backup"
            )
        return self._root / PurePosixPath(path)

    def _contents(self, one: KeptFile) -> Iterable[bytes]:
        """Yield the content of a file, part by part.

        Raises:
            ReplicaError: it is not what was kept.
        """
        digests = []
        for part in self._kept.parts(self._party, one.path):
            digests.append(part.digest)
            if hashlib.sha256(part.content).hexdigest() != part.digest:
                raise self._damaged(one)
            yield part.content
        if digest_of(digests) != one.digest:
            raise self._damaged(one)

    def _damaged(self, one: KeptFile) -> ReplicaError:
        return ReplicaError(
            f"the copy of {self._party} is damaged: {one.path} is not what was kept; restore the "
            "database from a backup"
        )

    @staticmethod
    def _write(one: KeptFile, place: Path, contents: Iterable[bytes]) -> None:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(contents)
            file.flush()
            os.fchmod(file.fileno(), one.mode & _PERMISSIONS)
        os.utime(place, ns=(one.modified, one.modified))


def _mark(root: Path, holder: str) -> None:
    """Give a folder its id, and the head that its log may show."""
    own = holder_file(root)
    own.parent.mkdir(mode=0o700)
    own.write_text(holder, encoding="ascii")
    if (head := root / "log" / "checkpoint").exists():
        shutil.copyfile(head, head_file(root))


def _name(one: KeptFile) -> str:
    return one.path


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
