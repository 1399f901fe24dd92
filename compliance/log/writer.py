"""Append to a log durably: what was published stays true after a crash at any instant.

Guarantees: one writer at a time (an advisory lock on the directory, which ends with the process);
`append` returns only when the entries are on disk under a signed checkpoint; no two checkpoints
that it signs contradict each other; a published file is never rewritten; work per append depends
on the batch, not on the log. Opening checks the right edge against the signed root. Where keys
change, one head is signed by the old keys and the new ones; no larger one by the old.

Leaves to others: what entries mean (`compliance.records`), checking everything (`verifier`), and
noticing that the whole directory was put back to an earlier state (whoever kept a later
checkpoint notices). Directories below which the log is created are not made durable.
"""

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from compliance.errors import (
    LogBusyError,
    LogCorruptedError,
    LogError,
    RecordError,
    SignatureError,
)
from compliance.log.checkpoint import Checkpoint
from compliance.log.cosignature import CosigningKey
from compliance.log.files import Files, LocalFiles, publish
from compliance.log.merkle import EMPTY_ROOT, leaf_hash
from compliance.log.note import Note, NoteKey, NoteSignature
from compliance.log.tiles import (
    ENTRY_LIMIT,
    TILE_WIDTH,
    RightEdge,
    Tile,
    decode_bundle,
    decode_tile,
    edge_tiles,
    encode_bundle,
)
from compliance.log.verifier import CHECKPOINT_PATH, find_tiles, read_checkpoint, read_tile
from compliance.signing import SigningKey

__all__ = ["LogWriter"]


@dataclass(frozen=True)
class _State:
    """What the next append builds on: the published head, the tree's edge, the open bundle."""

    signed: bytes
    checkpoint: Checkpoint
    edge: RightEdge
    bundle: tuple[bytes, ...]


class LogWriter:
    """The one writer of a log; a context manager, safe to share between threads.

    After an append that raised, nothing more can be appended: close it and open the log again,
    which finds out whether the entries were published.
    """

    def __init__(
        self, directory: Path, *, signer: "_Signer", files: Files, lock: int, state: _State
    ) -> None:
        self._directory = directory
        self._signer = signer
        self._files = files
        self._lock: int | None = lock
        self._state = state
        self._interrupted = False
        self._mutex = threading.Lock()
        self._durable: set[Path] = set()

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        origin: str,
        key: SigningKey,
        second_key: CosigningKey | None = None,
        files: Files | None = None,
    ) -> Self:
        """Create the log in `directory`, or resume it where its checkpoint stands.

        Args:
            directory: the log's own directory; created if there is none.
            origin: the log's name, no whitespace or `+`; `<agreement>/<party>` is a good one.
            key: signs the checkpoints.
            second_key: signs them too, with ML-DSA-44, under the origin's name; it states no time.
            files: does the writing; this machine's file system if None.

        Raises:
            LogBusyError: another writer has it open.
            LogCorruptedError: what is there is not a log by this origin and key, or its right edge
                does not have the signed root.
            LogError: the directory cannot be read or written.
            SignatureError: the origin cannot name a key, or is not the name of the second.
        """
        files = files or LocalFiles()
        signer = _Signer(origin, key, second_key)
        with _os_errors(directory):
            files.make_directory(directory)
            lock = _acquire(directory)
            try:
                state = _resume(directory, signer, files)
            except BaseException:
                os.close(lock)
                raise
        return cls(directory, signer=signer, files=files, lock=lock, state=state)

    @property
    def tree_size(self) -> int:
        """Number of entries published."""
        return self._state.checkpoint.tree_size

    @property
    def verification_key(self) -> str:
        """The key string by which the head is verified."""
        return self._signer.name.to_string()

    @property
    def checkpoint(self) -> Checkpoint:
        """The head published last."""
        return self._state.checkpoint

    def append(self, entries: Sequence[bytes]) -> range:
        """Publish entries, in order and all together, and return their indexes.

        Raises:
            RecordError: an entry is over 2 KiB; nothing was written.
            LogError: the disk refused (open the log again), or an earlier append had raised.
            RuntimeError: the writer is closed.
        """
        return self._append(tuple(entries), self._signer)

    def hand_over(
        self, entries: Sequence[bytes], *, key: SigningKey, second_key: CosigningKey | None = None
    ) -> range:
        """Append entries that tell of new keys, under a head that old and new keys sign.

        With the n entries that stood before, n is the largest size of a head that the old keys sign
        alone. The head with these entries bears the signatures of both; every later one those of
        the new keys alone. It is one publication: a crash leaves the old head, or that one.

        Args:
            entries: one or more, as for `append`.
            key: signs the checkpoints from here on, in the name of the same origin.
            second_key: likewise.

        Raises:
            RecordError: there is no entry, or one is over 2 KiB; nothing was written.
            SignatureError: the second key has another name; nothing was written.
            LogError: as `append`.
            RuntimeError: the writer is closed.
        """
        if not entries:
            raise RecordError("expected an entry that tells of the new keys, got none")
        return self._append(tuple(entries), _Signer(self._signer.name.name, key, second_key))

    def _append(self, entries: tuple[bytes, ...], following: "_Signer") -> range:
        for position, entry in enumerate(entries):
            if len(entry) > ENTRY_LIMIT:
                raise RecordError(
                    f"entry {position} of the batch: expected at most {ENTRY_LIMIT} bytes, "
                    f"got {len(entry)}"
                )
        with self._mutex:
            if self._lock is None:
                raise RuntimeError("append to a closed LogWriter")
            if self._interrupted:
                raise LogError(
                    f"{self._directory}: an earlier append was interrupted: open the log again"
                )
            old = self._state
            if entries:
                self._interrupted = True
                with _os_errors(self._directory):
                    self._commit(old, entries, following)
                self._interrupted = False
            return range(old.checkpoint.tree_size, self._state.checkpoint.tree_size)

    def _commit(self, old: _State, entries: tuple[bytes, ...], following: "_Signer") -> None:
        edge, tiles = old.edge.extend([leaf_hash(entry) for entry in entries])
        bundle = old.bundle + entries
        first = old.edge.tree_size // TILE_WIDTH
        bundles = {
            Tile(None, first + start // TILE_WIDTH, len(chunk)): encode_bundle(chunk)
            for start in range(0, len(bundle), TILE_WIDTH)
            if (chunk := bundle[start : start + TILE_WIDTH])
        }
        # 1. Data first, under names that no published checkpoint promises. A crash from here to
        #    step 3 leaves them beyond the checkpoint, where readers do not look and the next
        #    `open` removes them; nothing was signed before all of them were on disk.
        self._write_durably(bundles | tiles)
        # 2. Compare: what stands published is what this append builds on. The lock keeps other
        #    writers out; a directory put back or exchanged meanwhile must not be forked. A crash
        #    leaves what step 1 left.
        if read_checkpoint(self._directory) != old.signed:
            raise LogBusyError(
                f"{self._directory}: another checkpoint is published than the one that this writer "
                "left: somebody else wrote it, or put back a copy; nothing was published"
            )
        # 3. ... and swap: sign, and publish by one rename. A crash leaves the old checkpoint or the
        #    new one, never a part, and all that either promises is on disk.
        checkpoint = Checkpoint(old.checkpoint.origin, edge.tree_size, edge.root_hash)
        signed = self._signer.sign(checkpoint, following)
        publish(self._files, self._directory / CHECKPOINT_PATH, signed)
        self._signer = following
        rest = bundle[len(bundle) // TILE_WIDTH * TILE_WIDTH :]
        self._state = _State(signed, checkpoint, edge, rest)
        # 4. Housekeeping: partial tiles that have become full. A crash leaves some, which the next
        #    `open` removes; that a disk refuses to delete makes no entry less published.
        with suppress(OSError):
            for tile in (*bundles, *tiles):
                if tile.width == TILE_WIDTH:
                    _remove_partials(self._directory, tile, self._files)

    def _write_durably(self, contents: dict[Tile, bytes]) -> None:
        """Write files, and flush them with every new name above them: once for the whole batch."""
        paths = [self._directory / tile.path for tile in contents]
        directories = dict.fromkeys(
            each for path in paths for each in (*self._make_directory(path.parent), path.parent)
        )
        for path, data in zip(paths, contents.values(), strict=True):
            self._files.write(path, data)
        self._files.sync((*paths, *directories))
        self._durable.update(directories)

    def _make_directory(self, path: Path) -> list[Path]:
        """Create a directory; return those whose lists of names may not be durable."""
        if path in self._durable or path == self._directory:
            return []
        above = self._make_directory(path.parent)
        self._files.make_directory(path)
        # Also if it existed: a process that died between creating and syncing leaves it volatile.
        return [*above, path.parent]

    def close(self) -> None:
        """Let another writer open the log; closing twice does no harm."""
        with self._mutex:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Signer:
    """The log's keys."""

    def __init__(self, origin: str, key: SigningKey, second: CosigningKey | None) -> None:
        self.name = NoteKey(origin, key.public)
        if second is not None and second.public.name != origin:
            raise SignatureError(
                f"expected a second key in the name of the log, {origin!r}, got one of "
                f"{second.public.name!r}"
            )
        self._key = key
        self._second = second

    def sign(self, checkpoint: Checkpoint, following: "_Signer | None" = None) -> bytes:
        """Sign with these keys, and with those that follow where they are others."""
        signatures = self.signatures(checkpoint)
        if following is not None and following is not self:
            both = (*signatures, *following.signatures(checkpoint))
            signatures = tuple({(one.name, one.key_id): one for one in both}.values())
        return Note(checkpoint.body(), signatures).to_bytes()

    def signatures(self, checkpoint: Checkpoint) -> tuple[NoteSignature, ...]:
        signatures = checkpoint.note(self._key).signatures
        if self._second is None:
            return signatures
        return (*signatures, self._second.cosign(checkpoint, timestamp=0))


def _resume(directory: Path, signer: _Signer, files: Files) -> _State:
    path = directory / CHECKPOINT_PATH
    if not path.exists():
        if any(find_tiles(directory)):
            raise LogCorruptedError(
                f"{CHECKPOINT_PATH}: missing from {directory} although there are tiles: restore "
                "it, since starting again would contradict what was published"
            )
        # A crash before this returns leaves an empty directory, or a log without entries.
        files.sync([directory.parent])
        publish(files, path, signer.sign(Checkpoint(signer.name.name, 0, EMPTY_ROOT)))
    # The last rename may not be durable yet: make it so before anything is built on it.
    files.sync([directory])
    signed = read_checkpoint(directory)
    state = _read_edge(directory, signed, Checkpoint.open(signed, signer.name))
    _tidy(directory, state.checkpoint.tree_size, files)
    return state


def _read_edge(directory: Path, signed: bytes, checkpoint: Checkpoint) -> _State:
    tiles = edge_tiles(checkpoint.tree_size)
    edge = RightEdge(
        checkpoint.tree_size,
        tuple(decode_tile(tile, read_tile(directory, tile)) if tile else () for tile in tiles),
    )
    if edge.root_hash != checkpoint.root_hash:
        raise LogCorruptedError(
            f"{CHECKPOINT_PATH}: expected root hash {checkpoint.root_hash.hex()} of "
            f"{checkpoint.tree_size} entries, got partial tiles with another: verify the log"
        )
    bundle: tuple[bytes, ...] = ()
    if tiles and tiles[0]:
        last = Tile(None, tiles[0].index, tiles[0].width)
        bundle = decode_bundle(last, read_tile(directory, last))
        for offset, (entry, promised) in enumerate(zip(bundle, edge.rows[0], strict=True)):
            if leaf_hash(entry) != promised:
                raise LogCorruptedError(
                    f"{last.path}: entry {last.start + offset} does not have the hash in "
                    f"{tiles[0].path}"
                )
    return _State(signed, checkpoint, edge, bundle)


def _tidy(directory: Path, tree_size: int, files: Files) -> None:
    """Remove what a crash left: files beyond the checkpoint, and partials of full tiles."""
    for path, tile in list(find_tiles(directory)):
        # A file with any other name is not ours to delete; the verifier reports it.
        if tile and (not tile.is_within(tree_size) or _is_superseded(tile, tree_size)):
            files.remove(directory / path)
            # Else a loss of power could bring it back under a later checkpoint.
            files.sync([(directory / path).parent])


def _is_superseded(tile: Tile, tree_size: int) -> bool:
    return tile.width < TILE_WIDTH and tile.full.is_within(tree_size)


def _remove_partials(directory: Path, tile: Tile, files: Files) -> None:
    parent = directory / f"{tile.path}.p"
    if parent.is_dir():
        for partial in list(parent.iterdir()):
            files.remove(partial)
        files.remove(parent)


def _acquire(directory: Path) -> int:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise LogBusyError(
            f"{directory}: another writer has this log open: wait for it, or stop it"
        ) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _os_errors(directory: Path) -> Iterator[None]:
    """Turn what the operating system refuses into this package's error, once."""
    try:
        yield
    except OSError as error:
        raise LogError(
            f"{directory}: the log cannot be written: {error.strerror or error}: free the disk or "
            "its permissions, then open the log again"
        ) from error
