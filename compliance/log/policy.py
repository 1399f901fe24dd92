"""Which checkpoints count as public: whose logs, cosigned by which witnesses (C2SP tlog-policy).

```
log comity/retailer+…
witness brand comity/brand+…
witness operator comity/operator+…
group others 2 brand operator
quorum others
```

Guarantees: a policy that exists has one quorum, made of names defined before it, each used at most
once, and no key twice; `check` returns a checkpoint only if a listed log signed it and the quorum
cosigned it. Stricter than the format: at most 64 KiB, and the last line ends in a newline too.

Leaves to others: whether the log's entries have the signed root (`verifier`), and what to do with
a head that is not public yet.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from compliance.errors import LogCorruptedError, NotPublicError, SignatureError, WitnessPolicyError
from compliance.log.checkpoint import Checkpoint
from compliance.log.cosignature import Algorithm, CosignerKey, verify_cosignatures
from compliance.log.note import KeyText, Note, NoteKey

__all__ = ["Group", "LogKey", "Policy", "PublicCheckpoint", "open_by_any", "open_checkpoint"]

LogKey = NoteKey | CosignerKey
"""What a log signs its heads with: Ed25519 (0x01) or ML-DSA-44 (0x06)."""

NONE: Final = "none"
"""The quorum that asks for no witness."""

_LIMIT: Final = 65_536
_LINES: Final = 1_024
_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_COUNT: Final = re.compile(r"[1-9][0-9]{0,3}")


@dataclass(frozen=True)
class Group:
    """Witnesses and groups, of whom at least `threshold` must have witnessed."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class PublicCheckpoint:
    """A checkpoint that the policy accepts, and who cosigned it when (POSIX seconds)."""

    checkpoint: Checkpoint
    cosigned: Mapping[str, int]


@dataclass(frozen=True)
class Policy:
    """A trust policy.

    Attributes:
        logs: keys of the logs that are accepted.
        every_key: whether each key in the name of a checkpoint's origin must have signed it, so
            that no signature can be left off; else one suffices, as in the format.
        witnesses: keys by the name that the policy gives them.
        groups: by name; members are defined before the group that lists them.
        quorum: a witness, a group, or `none`.

    Raises:
        WitnessPolicyError: names or keys repeated or undefined, or thresholds out of range.
    """

    quorum: str
    logs: tuple[LogKey, ...] = ()
    witnesses: Mapping[str, CosignerKey] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    every_key: bool = False

    def __post_init__(self) -> None:
        if problem := next(self._problems(), None):
            raise WitnessPolicyError(f"policy: {problem}")

    def _problems(self) -> Iterator[str]:
        if len({_raw(key) for key in self.logs}) != len(self.logs):
            yield "two logs have one key"
        if len({key.raw for key in self.witnesses.values()}) != len(self.witnesses):
            yield "two witnesses have one key"
        yield from self._misnamed()
        if NONE in {*self.witnesses, *self.groups}:
            yield f"{NONE!r} is no name for a witness or a group"
        if self.quorum not in {*self.witnesses, *self.groups, NONE}:
            yield f"quorum {self.quorum!r} is not defined before it"

    def _misnamed(self) -> Iterator[str]:
        defined, used = set(self.witnesses), set[str]()
        for name, group in self.groups.items():
            if name in defined:
                yield f"{name!r} is defined twice"
            if not 1 <= group.threshold <= len(group.members):
                yield f"group {name!r} needs {group.threshold} of {len(group.members)} members"
            for member in group.members:
                if member not in defined:
                    yield f"group {name!r} lists {member!r}, which no line before it defines"
                if member in used:
                    yield f"{member!r} is a member twice"
                used.add(member)
            defined.add(name)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a policy file.

        Raises:
            WitnessPolicyError: wherever the bytes depart from the format; the line is named.
        """
        if len(data) > _LIMIT:
            raise WitnessPolicyError(f"policy: expected at most {_LIMIT} bytes, got {len(data)}")
        if data and not data.endswith(b"\n"):
            raise WitnessPolicyError("policy: expected every line to end in a newline")
        if _FORBIDDEN.search(data):
            raise WitnessPolicyError("policy: expected no control character but tab and newline")
        parser = _Parser()
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            if number > _LINES:
                raise WitnessPolicyError(f"policy: expected at most {_LINES} lines")
            try:
                parser.read(line)
            except (WitnessPolicyError, SignatureError) as error:
                raise WitnessPolicyError(f"policy, line {number}: {error}") from error
        if parser.quorum is None:
            raise WitnessPolicyError("policy: expected one quorum line, got none")
        return cls(parser.quorum, tuple(parser.logs), parser.witnesses, parser.groups)

    def to_bytes(self) -> bytes:
        """Write the policy as `parse` reads it, which is without `every_key`."""
        lines = [
            *(f"log {key.to_string()}" for key in self.logs),
            *(f"witness {name} {key.to_string()}" for name, key in self.witnesses.items()),
            *(
                f"group {name} {group.threshold} {' '.join(group.members)}"
                for name, group in self.groups.items()
            ),
            f"quorum {self.quorum}",
        ]
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")

    def check(self, signed: bytes) -> PublicCheckpoint:
        """Return the checkpoint if a listed log signed it and the quorum cosigned it.

        Raises:
            LogCorruptedError: malformed, by no listed log, or with a signature that is not valid.
            NotPublicError: too few witnesses cosigned it.
        """
        checkpoint, note = open_checkpoint(signed, self.logs, every=self.every_key)
        keys = tuple(self.witnesses.values())
        times = verify_cosignatures(checkpoint, note, keys)
        cosigned = {name: times[key] for name, key in self.witnesses.items() if key in times}
        if not self._met(self.quorum, cosigned):
            raise NotPublicError(
                f"checkpoint of {checkpoint.origin!r} with {checkpoint.tree_size} entries: "
                f"expected cosignatures as quorum {self.quorum!r} asks, got those of: "
                f"{', '.join(cosigned) or 'nobody'}"
            )
        return PublicCheckpoint(checkpoint, cosigned)

    def _met(self, name: str, cosigned: Mapping[str, int]) -> bool:
        if name == NONE or name in cosigned:
            return True
        group = self.groups.get(name)
        if group is None:
            return False
        return sum(self._met(member, cosigned) for member in group.members) >= group.threshold


def open_checkpoint(
    signed: bytes, keys: tuple[LogKey, ...], *, every: bool = True
) -> tuple[Checkpoint, Note]:
    """Read a checkpoint that the keys of its log signed, none of them wrongly.

    Args:
        signed: the note.
        keys: of logs; those in the name of the checkpoint's origin are of its log.
        every: whether each of these must have signed; else one of them, at least.

    Raises:
        LogCorruptedError: in every other case.
    """
    try:
        note = Note.parse(signed)
        checkpoint = Checkpoint.from_body(note.text)
        own = [key for key in keys if key.name == checkpoint.origin]
        signers = {(entry.name, entry.key_id) for entry in note.signatures}
        signing = [key for key in own if (key.name, key.key_id) in signers]
        for key in signing:
            if isinstance(key, NoteKey):
                note.verify(key)
            else:
                key.verify(checkpoint, note)
    except SignatureError as error:
        raise LogCorruptedError(f"checkpoint: {error}") from error
    if not signing:
        raise LogCorruptedError(
            f"checkpoint: expected a signature of a known log, got origin {checkpoint.origin!r} "
            "without a signature by a known key of that name"
        )
    if every and len(signing) < len(own):
        raise LogCorruptedError(
            f"checkpoint of {checkpoint.origin!r}: expected signatures by all {len(own)} keys of "
            f"the log, got {len(signing)}: one was left off"
        )
    return checkpoint, note


def open_by_any(
    signed: bytes, sets: Sequence[tuple[LogKey, ...]]
) -> tuple[Checkpoint, Note, tuple[LogKey, ...]]:
    """Read a checkpoint that every key of one of these sets signed; return that set too.

    Raises:
        LogCorruptedError: none did so; what is wrong by the first set is said.
    """
    problem: LogCorruptedError | None = None
    for keys in sets:
        try:
            return (*open_checkpoint(signed, keys), keys)
        except LogCorruptedError as error:
            problem = problem or error
    raise problem or LogCorruptedError("checkpoint: expected keys of its log, got none")


class _Parser:
    def __init__(self) -> None:
        self.logs: list[LogKey] = []
        self.witnesses: dict[str, CosignerKey] = {}
        self.groups: dict[str, Group] = {}
        self.quorum: str | None = None

    def read(self, line: bytes) -> None:
        stripped = line.strip(b" \t")
        if not stripped or stripped.startswith(b"#"):
            return
        word, *items = (
            item.decode("utf-8", "surrogateescape") for item in re.split(rb"[ \t]+", stripped)
        )
        match word, items:
            case "log", [text] | [text, _]:
                self.logs.append(_log_key(text))
            case "witness", [name, text] | [name, text, _]:
                self._define(name)
                self.witnesses[name] = CosignerKey.from_string(text)
            case "group", [name, threshold, *members] if members:
                self._define(name, *members)
                self.groups[name] = Group(_threshold(threshold, len(members)), tuple(members))
            case "quorum", [name]:
                if self.quorum is not None:
                    raise WitnessPolicyError("a second quorum line")
                self._require(name)
                self.quorum = name
            case _:
                raise WitnessPolicyError(
                    "expected log KEY [URL], witness NAME KEY [URL], group NAME all|any|K NAME…, "
                    "or quorum NAME"
                )

    def _define(self, name: str, *members: str) -> None:
        if name == NONE or name in self.witnesses or name in self.groups:
            raise WitnessPolicyError(f"the name {name!r} is taken")
        for member in members:
            if member == NONE:
                raise WitnessPolicyError(f"{NONE!r} is no member of a group")
            self._require(member)

    def _require(self, name: str) -> None:
        if name != NONE and name not in self.witnesses and name not in self.groups:
            raise WitnessPolicyError(f"{name!r} is not defined on a line before")


def _threshold(text: str, members: int) -> int:
    if text in {"all", "any"}:
        return members if text == "all" else 1
    if not _COUNT.fullmatch(text):
        raise WitnessPolicyError(f"expected all, any or a number of members from 1, got {text!r}")
    return int(text)


def _log_key(text: str) -> LogKey:
    if KeyText.parse(text).type == Algorithm.ML_DSA_44:
        return CosignerKey.from_string(text)
    return NoteKey.from_string(text)


def _raw(key: LogKey) -> bytes:
    return key.key.raw if isinstance(key, NoteKey) else key.raw
