"""The copy of a party's folder in a database: nothing leaves the party before it is there.

```
PARTY/replica/holder       id of this folder, by which the database knows that the copy is of it
PARTY/replica/checkpoint   the log's head as the copy has it: what may be shown
```

Guarantees: after `synchronise` the database has the folder as it is, wholly, or else as it was; so
what is removed here is removed there. Only one folder is copied: once it was restored elsewhere,
this one is refused. A crash between two steps is made up for by the next `synchronise`, since of
one folder and its copy the folder counts.

Leaves to others: when it is called (`federation.party.lock`, the gate), and that nobody else is at
work in the folder (that lock); what is kept (`scan`, `contents`); the database (`store`).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from compliance.log.verifier import read_checkpoint
from federation.clock import Clock, utc_now
from federation.errors import ReplicaError, TakenOverError
from federation.replica.contents import PART_BYTES, opened, parts_of
from federation.replica.description import DESCRIPTION
from federation.replica.kept import Extent, KeptFile, Part, Standing, digest_of
from federation.replica.scan import OWN, Found, Scope, is_same, is_same_inode, scan
from federation.replica.store import ReplicaStore, ReplicaTransaction
from privacy.randomness import new_secret

__all__ = ["Replica", "head_file", "holder_file", "new_holder"]

Write = Callable[[Path, bytes], None]

_TOGETHER_BYTES: Final = 4 * PART_BYTES
"""Contents that are held before they are written."""


def holder_file(root: Path) -> Path:
    """Return where a folder's id lies."""
    return root / OWN / "holder"


def head_file(root: Path) -> Path:
    """Return where the head lies that the log of a folder with a copy may show."""
    return root / OWN / "checkpoint"


def new_holder() -> str:
    """Return an id of a folder that no other has."""
    return new_secret().hex()[:32]


class Replica:
    """The copy of one party's folder.

    Args:
        party: whose.
        scope: what is kept of it.
        store: the database.
        write: writes a file of the folder, whole or not at all.
        clock: tells when now is.
    """

    def __init__(
        self,
        party: str,
        scope: Scope,
        store: ReplicaStore,
        *,
        write: Write,
        clock: Clock = utc_now,
    ) -> None:
        if store.file is not None and store.file.resolve().is_relative_to(scope.root):
            raise ReplicaError(
                f"{store.name} lies in {scope.root}, and would be lost with it: name another disk"
            )
        self._party = party
        self._scope = scope
        self._store = store
        self._write = write
        self._clock = clock
        self._known: tuple[int, dict[str, KeptFile]] | None = None

    @property
    def shown(self) -> Path:
        """Directory of the log's head that may be shown: the one that the copy has."""
        return head_file(self._scope.root).parent

    def check(self) -> None:
        """Return only if the database takes this folder for the party's; the first one is.

        Raises:
            TakenOverError: it takes another for that.
            ReplicaError: it cannot be reached.
        """
        holder = self._own_holder()
        with self._store.transaction() as kept:
            standing = kept.standing(self._party, lock=holder is None)
            if standing is None:
                if holder is None:
                    holder = new_holder()
                    self._write(holder_file(self._scope.root), holder.encode())
                kept.begin(self._party, holder, self._clock())
            else:
                self._check_holder(standing, holder)

    def synchronise(self, *within: str) -> None:
        """Have the database keep what the folder holds now.

        Args:
            within: names of the files and directories to copy, of which none hangs together with
                what else there is; everything where left out.

        Raises:
            TakenOverError: the folder was restored elsewhere meanwhile.
            ReplicaError: the database cannot be reached, or something cannot be copied.
        """
        try:
            self._known = self._synchronised(within)
        except OSError as error:
            raise ReplicaError(
                f"{error.filename or self._scope.root} cannot be copied into {self._store.name} "
                f"({error.strerror}), and nothing leaves {self._party} before it is: mend that, "
                "then run again"
            ) from error
        if not within:
            self._show_head()

    def _synchronised(self, within: Sequence[str]) -> tuple[int, dict[str, KeptFile]]:
        """Copy what has changed; return how often that was done, and what is kept."""
        with self._store.transaction() as kept:
            standing = kept.standing(self._party, lock=True)
            if standing is None:
                raise self._not_begun()
            self._check_holder(standing, self._own_holder())
            known = self._files(kept, standing)
            if within and DESCRIPTION not in known:
                raise self._not_begun()
            found = scan(self._scope, within)
            copying = _Copying(self._party, self._scope, kept)
            after = dict(known)
            for path in sorted(known.keys() - found.keys()):
                if not within or any(path == one or path.startswith(f"{one}/") for one in within):
                    copying.remove(after.pop(path))
            for one in found.values():
                copied = copying.copy(one, known.get(one.path))
                if copied is None:  # removed meanwhile
                    if (gone := after.pop(one.path, None)) is not None:
                        copying.remove(gone)
                    continue
                after[one.path] = copied
            sequence = standing.sequence
            if copying.finish():
                sequence += 1
                kept.advance(self._party, sequence, self._clock())
        return sequence, after

    def standing(self) -> Standing | None:
        """Return where the copy stands; None if there is none. It waits for nobody.

        Raises:
            TakenOverError: it is of another folder.
            ReplicaError: the database cannot be reached now.
        """
        if (standing := self._store.look(self._party)) is not None:
            self._check_holder(standing, self._own_holder())
        return standing

    def extent(self) -> tuple[Standing | None, Extent]:
        """Return where the copy stands, and what is in it.

        Raises:
            TakenOverError, ReplicaError: as `standing`.
        """
        if (standing := self.standing()) is None:
            return None, Extent(0, 0, 0)
        with self._store.transaction() as kept:
            files = [one for one in kept.files(self._party).values() if not one.is_directory]
        whole = [one for one in files if one.digest is not None]
        size = sum(one.size for one in whole)
        return standing, Extent(len(whole), size, len(files) - len(whole))

    def _files(self, kept: ReplicaTransaction, standing: Standing) -> Mapping[str, KeptFile]:
        if self._known is not None and self._known[0] == standing.sequence:
            return self._known[1]
        return kept.files(self._party)

    def _not_begun(self) -> ReplicaError:
        return ReplicaError(
            f"{self._store.name} has no copy of {self._party} yet: whatever holds its folder makes "
            "one, such as `comity secrets seal DIR`, `comity retention run DIR`, or a job"
        )

    def _own_holder(self) -> str | None:
        try:
            return holder_file(self._scope.root).read_text(encoding="ascii")
        except FileNotFoundError:
            return None

    def _check_holder(self, standing: Standing, holder: str | None) -> None:
        if standing.holder == holder:
            return
        when = f"{standing.held_since:%Y-%m-%d %H:%M:%S} UTC"
        if holder is None:
            raise TakenOverError(
                f"{self._store.name} keeps the state of {self._party} since {when}, and "
                f"{self._scope.root} is not of it: bring that back by `comity node restore`; if "
                "this is another party of that name, name another database or schema"
            )
        raise TakenOverError(
            f"{self._party} was restored elsewhere at {when}, and goes on there: stop what runs on "
            f"{self._scope.root}, which is out of date; nothing leaves it any more"
        )

    def _show_head(self) -> None:
        """Keep the log's head, which the database has by now, for those who show it."""
        shown = head_file(self._scope.root)
        if not (self._scope.root / "log" / "checkpoint").exists():
            return
        head = read_checkpoint(self._scope.root / "log")
        if not shown.exists() or shown.read_bytes() != head:
            self._write(shown, head)


class _Copying:
    """Files on their way into a copy, within one transaction."""

    def __init__(self, party: str, scope: Scope, kept: ReplicaTransaction) -> None:
        self._party = party
        self._scope = scope
        self._kept = kept
        self._parts: list[Part] = []
        self._held_bytes = 0
        self._files: list[KeptFile] = []
        self._gone: list[str] = []
        self._is_changed = False

    def remove(self, gone: KeptFile) -> None:
        """Have a file or directory be kept no more."""
        self._gone.append(gone.path)
        self._is_changed = True

    def copy(self, found: Found, before: KeptFile | None) -> KeptFile | None:
        """Keep a file or directory as it is now, and return that; None if it went meanwhile."""
        if before is not None and found.mode == before.mode and _is_same(found, before):
            return before
        if found.is_directory:
            if before is not None:  # which may have been a file
                self._kept.cut(self._party, found.path, 0)
            after = KeptFile(found.path, found.mode, 0, 0, "", "")
        else:
            try:
                after = self._copied(found, before)
            except FileNotFoundError:
                return None
        self._is_changed |= before is None or not after.is_like(before)
        self._files.append(after)
        return after

    def finish(self) -> bool:
        """Write what is left to write; return whether anything is kept otherwise than before."""
        if self._is_changed:
            self._flush()
            self._kept.remove_files(self._party, self._gone)
            self._kept.put_files(self._party, self._files)
        return self._is_changed

    def _copied(self, found: Found, before: KeptFile | None) -> KeptFile:
        had = [] if before is None else [*self._kept.digests(self._party, found.path)]
        size, digests, digest = 0, list[str](), None
        with opened(self._scope, found) as file:
            if file is not None:
                if before is not None and self._is_grown(found, before, file, had):
                    digests = had[:-1]
                file.seek(len(digests) * PART_BYTES)
                for content in parts_of(file):
                    self._put(found.path, content, digests, had)
                size, digest = file.tell(), digest_of(digests)
        if len(digests) < len(had):
            self._kept.cut(self._party, found.path, len(digests))
        return KeptFile(found.path, found.mode, size, found.modified, found.stamp, digest)

    def _put(self, path: str, content: bytes, digests: list[str], had: Sequence[str]) -> None:
        """Write the next part of a file, unless it is there, and note its digest."""
        number, digest = len(digests), hashlib.sha256(content).hexdigest()
        digests.append(digest)
        if number < len(had) and had[number] == digest:
            return
        self._parts.append(Part(path, number, digest, content))
        self._held_bytes += len(content)
        if self._held_bytes >= _TOGETHER_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._kept.put_parts(self._party, self._parts)
        self._parts, self._held_bytes = [], 0

    def _is_grown(self, found: Found, before: KeptFile, file: BinaryIO, had: Sequence[str]) -> bool:
        """Tell whether a file that is only appended to was, so that its end alone is read.

        Its first and its last part must be what they were: one that was replaced twice may have the
        inode that it had before.
        """
        if found.path not in self._scope.appended or len(had) < 2 or found.size < before.size:
            return False
        if not is_same_inode(found.stamp, before.stamp):
            return False
        last = (len(had) - 1) * PART_BYTES
        for start, end, digest in ((0, PART_BYTES, had[0]), (last, before.size, had[-1])):
            file.seek(start)
            if hashlib.sha256(file.read(end - start)).hexdigest() != digest:
                return False
        return True


def _is_same(found: Found, before: KeptFile) -> bool:
    return found.is_directory or is_same(found.stamp, before.stamp)
