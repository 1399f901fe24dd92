"""Words in a party's own clauses that nothing is called by, so that the clause never matches.

Guarantees: every text that a clause compares a scenario, a purpose, a computation, a role, a
country or a party's name with is looked at, and every party that it names.

Leaves to others: whether a policy is well-formed (`compliance.policy`), and what is known.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

__all__ = ["UnknownWord", "unknown_words"]

_COMPARISONS: Final = frozenset({"==", "!=", "contains", "containsAny", "containsAll", "in"})


@dataclass(frozen=True)
class UnknownWord:
    """A word that nothing is called by.

    Attributes:
        clause: name of the clause.
        attribute: what it is compared with; `party` for a party named outright.
        word: as it stands there.
        near: what may have been meant, if anything comes near.
    """

    clause: str
    attribute: str
    word: str
    near: str | None

    def __str__(self) -> str:
        """Say it in a sentence."""
        hint = f": did you mean {self.near!r}?" if self.near else ""
        return f"clause {self.clause!r}: no {self.attribute} is called {self.word!r}{hint}"


def unknown_words(text: str, known: Mapping[str, Collection[str]]) -> tuple[UnknownWord, ...]:
    """Find words that never match.

    Args:
        text: clauses in Cedar that a `Policy` has accepted.
        known: attribute (`scenario`, `purpose`, `name`, …) → what it can be; `party` for parties.
    """
    import cedarpy

    if not text.strip():
        return ()
    found: dict[UnknownWord, None] = {}
    for clause in json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values():
        name = clause.get("annotations", {}).get("id") or ""
        for attribute, word in _compared(clause):
            if attribute in known and word not in known[attribute]:
                near = get_close_matches(word, known[attribute], n=1)
                found[UnknownWord(name, attribute, word, near[0] if near else None)] = None
    return tuple(found)


def _compared(node: Any) -> Iterator[tuple[str, str]]:
    """Yield (attribute, text) of every comparison, and ("party", name) of every party."""
    if isinstance(node, list):
        for item in node:
            yield from _compared(item)
    if not isinstance(node, dict):
        return
    if node.get("type") == "Party" and isinstance(node.get("id"), str):
        yield "party", node["id"]
    for key, value in node.items():
        if key in _COMPARISONS and isinstance(value, dict) and "left" in value:
            sides = value["left"], value["right"]
            for attribute in map(_attribute, sides):
                if attribute is not None:
                    yield from ((attribute, text) for side in sides for text in _texts(side))
        yield from _compared(value)


def _attribute(node: Any) -> str | None:
    access = node.get(".") if isinstance(node, dict) else None
    return access["attr"] if access else None


def _texts(node: Any) -> Iterator[str]:
    if not isinstance(node, dict):
        return
    if isinstance(text := node.get("Value"), str):
        yield text
    for item in node.get("Set", ()):
        yield from _texts(item)
