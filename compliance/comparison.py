"""What changes between two versions of an agreement, and whom it protects less or more.

Guarantees: every term that differs is a change, those that this module does not know by name too;
what is known to weaken protection is never called anything else. Where nobody said which way is
safer, a change is to be read.

Leaves to others: whether one version may follow the other (`compliance.lifecycle`).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from compliance.agreement import Agreement
from compliance.log.cosignature import CosignerKey
from compliance.signing import decode_base64
from compliance.terms import Classification, Reveal

__all__ = ["Change", "Effect", "compare"]


_Path = tuple[str, ...]


class Effect(StrEnum):
    """What a change does to protection."""

    WEAKENS = "weakens"
    STRENGTHENS = "strengthens"
    READ = "read"
    """Nobody can say without reading it."""


@dataclass(frozen=True)
class Change:
    """One term that differs.

    Attributes:
        term: dotted path; an entry of a list by its name, such as `features.age.maximum`.
        before: as JSON has it; None where there was none.
        after: likewise.
        effect: what it does to protection.
        whom: whose protection.
    """

    term: str
    before: object
    after: object
    effect: Effect
    whom: str

    @property
    def sentence(self) -> str:
        """The change in words."""
        name = self.term.rpartition(".")[2]
        before, after = (_show(_readable(name, one)) for one in (self.before, self.after))
        if self.before is None:
            told = f"{self.term} is added: {after}"
        elif self.after is None:
            told = f"{self.term} is removed: it was {before}"
        elif _is_number(self.before) and _is_number(self.after):
            verb = "raised" if _rises(self.before, self.after) else "lowered"
            told = f"{self.term} is {verb} from {before} to {after}"
        else:
            told = f"{self.term} changes from {before} to {after}"
        if self.effect is Effect.READ:
            return f"{told}; read what it means"
        return f"{told}; it {self.effect} the protection of {self.whom}"


_HIGHER_WEAKENS: Final = (
    *("budget.epsilon", "budget.delta", "train.epsilon", "train.delta"),
    *("train.hidden_share_epsilon", "match.size_epsilon", "match.size_delta"),
    *("match.alignment.epsilon", "match.alignment.delta", "match.maximum_matches"),
    *("match.maximum_change", "match.reveal_keys", "expand.count_epsilon"),
    *("expand.maximum_share", "measure.epsilon", "measure.delta", "vertical.label_epsilon"),
    *("vertical.unsafe_labels", "valid_until", "retention.*.days"),
    *("datasets.*.identifiers_per_person", "budget.period.epsilon", "budget.period.delta"),
)
_HIGHER_STRENGTHENS: Final = (
    *("match.minimum_match", "match.set_size_bucket", "match.period_days"),
    *("expand.minimum_segment", "measure.minimum_cell", "vertical.minimum_people"),
    *("train.colluding_partners", "train.max_parties_per_person", "witness_quorum"),
    "budget.period.days",
)
_MORE_WEAKENS: Final = (
    *("purposes.*", "parties.*", "datasets.*", "features.*", "vertical", "vertical.columns.*"),
    *("match.keys.*", "match.alignment", "measure", "measure.columns.*", "train.noise.unsafe-none"),
    "datasets.*.identifiers.*",
)
"""Entries and sections whose coming weakens, and whose going strengthens."""
_LESS_WEAKENS: Final = ("retention.*", "termination")
"""Entries and sections whose going weakens."""

_MORE_STRENGTHENS: Final = ("budget.period",)
"""Sections whose coming strengthens, and whose going weakens."""

_WHOM: Final = {
    "witness_quorum": "every party, against a log shown differently to different people",
    "termination": "every party, which may want to end it",
}
_PEOPLE: Final = "the people whose data are used"

_LEARNERS: Final = {
    Reveal.SIZE_ONLY: frozenset[str](),
    Reveal.PARTNER_LEARNS_MEMBERS: frozenset({"partner"}),
    Reveal.BRAND_LEARNS_MEMBERS: frozenset({"brand"}),
    Reveal.BOTH_LEARN_MEMBERS: frozenset({"brand", "partner"}),
}
_LEFT_OUT: Final = frozenset({"amends"})
"""What only says that one version follows another."""


def compare(before: Agreement, after: Agreement) -> tuple[Change, ...]:
    """Return every term that differs, what weakens protection first."""
    fields = Agreement.model_fields.keys() - _LEFT_OUT
    old = before.model_dump(mode="json", include=set(fields))
    new = after.model_dump(mode="json", include=set(fields))
    order = list(Effect)
    return tuple(
        sorted(_changes((), old, new), key=lambda one: (order.index(one.effect), one.term))
    )


def _changes(path: _Path, before: Any, after: Any) -> Iterator[Change]:
    if before == after:
        return
    if isinstance(before, list) and isinstance(after, list):
        old, new = _named(before), _named(after)
        stay = [name for name in old if name in new], [name for name in new if name in old]
        if stay[0] != stay[1]:
            yield _change((*path, "order"), *stay)
        before, after = old, new
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys((*before, *after)):
            yield from _changes((*path, name), before.get(name), after.get(name))
        return
    yield _change(path, before, after)


def _named(entries: list[Any]) -> Mapping[str, Any]:
    """Name the entries of a list by what tells them apart."""
    named: dict[str, Any] = {}
    for entry in entries:
        parts = [entry]
        if isinstance(entry, dict):
            parts = [
                entry[key] for key in ("party", "artefact", "name", "purpose") if entry.get(key)
            ]
        name = "/".join(map(str, parts)) or json.dumps(entry, sort_keys=True)
        while name in named:
            name += "'"
        named[name] = entry
    return named


def _change(path: _Path, before: Any, after: Any) -> Change:
    term = ".".join(path)
    whom = next((told for path, told in _WHOM.items() if term.startswith(path)), _PEOPLE)
    return Change(term, before, after, _effect(path, before, after), whom)


def _effect(path: _Path, before: Any, after: Any) -> Effect:
    term = ".".join(path)
    if term == "match.reveal":
        old, new = _LEARNERS[Reveal(before)], _LEARNERS[Reveal(after)]
        return Effect.STRENGTHENS if new < old else Effect.WEAKENS  # another learner: weaker
    if term.endswith(".classification") and None not in (before, after):
        order = [str(one) for one in Classification]
        return _rising(order.index(before), order.index(after), weakens=False)
    for known, weakens in ((_HIGHER_WEAKENS, True), (_HIGHER_STRENGTHENS, False)):
        if _matches(path, known):
            unsaid = term == "witness_quorum" and None in (before, after)  # None: all of them
            rising = _rising(_number(before), _number(after), weakens=weakens)
            return Effect.READ if unsaid else rising
    if None in (before, after) and _matches(path, _MORE_WEAKENS):
        return Effect.WEAKENS if before is None else Effect.STRENGTHENS
    if None in (before, after) and _matches(path, _MORE_STRENGTHENS):
        return Effect.STRENGTHENS if before is None else Effect.WEAKENS
    return Effect.WEAKENS if after is None and _matches(path, _LESS_WEAKENS) else Effect.READ


def _matches(path: _Path, patterns: tuple[str, ...]) -> bool:
    """Tell whether a path is one of those, `*` standing for one name, whatever is in it."""
    return any(
        len(path) == len(steps := pattern.split("."))
        and all(step in ("*", name) for step, name in zip(steps, path, strict=True))
        for pattern in patterns
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rises(before: Any, after: Any) -> bool:
    return bool(after > before)


def _rising(before: Any, after: Any, *, weakens: bool) -> Effect:
    return Effect.WEAKENS if _rises(before, after) is weakens else Effect.STRENGTHENS


def _number(value: Any) -> Any:
    """Return what can be compared: nothing agreed is less than anything agreed."""
    return float("-inf") if value is None else value


def _readable(name: str, value: object) -> object:
    """Return a value with keys by what people compare, as the rendered contract has them."""
    if isinstance(value, dict):
        return {field: _readable(field, of) for field, of in value.items()}
    if isinstance(value, list):
        return [_readable(name, one) for one in value]
    if not isinstance(value, str):
        return value
    if name == "cosigning_key":
        return CosignerKey.from_string(value).key_id.hex()
    if name in {"identity_key", "encryption_key"}:
        return hashlib.sha256(decode_base64(value)).hexdigest()[:16]
    return value


def _show(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
