"""An agreement before its parties' keys are known: terms, and who is to be bound by them.

Guarantees: a `Draft` that exists becomes an agreement without contradictions once every party's
keys are filled in, whatever they are; it has one spelling in bytes, hence one digest, by which a
party accepts the terms before anybody has a key; whoever has accepted a draft can tell an agreement
that is this draft with keys filled in from every other.

Leaves to others: whose key is whose, and signing (`compliance.agreement`).

Source: RFC 8785 (canonical JSON).
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import rfc8785
from pydantic import ValidationError

from compliance.agreement import Agreement
from compliance.errors import AlteredAgreementError, InvalidAgreementError, describe
from compliance.log.cosignature import CosigningKey
from compliance.log.note import NoteKey
from compliance.signing import SigningKey, encode_base64
from compliance.terms import DATA_ROLES, Name, PartyTerm, Role, Terms

__all__ = ["Draft", "InvitedParty"]


class InvitedParty(Terms):
    """An organisation that is to be bound, whose keys are not known yet.

    Attributes:
        name: as it will be in the agreement.
        role: what it is there for.
    """

    name: Name
    role: Role


@dataclass(frozen=True)
class Draft:
    """The terms of an agreement, with names and roles alone in the place of its parties.

    Attributes:
        canonical_bytes: their one spelling (RFC 8785).
        parties: who is to be bound, in the agreement's order.
    """

    canonical_bytes: bytes
    parties: tuple[InvitedParty, ...]

    @classmethod
    def of(cls, agreement: Agreement) -> Self:
        """Take the keys out of an agreement."""
        parties = tuple(InvitedParty(name=one.name, role=one.role) for one in agreement.parties)
        document = agreement.model_dump(mode="json")
        document["parties"] = [one.model_dump(mode="json") for one in parties]
        return cls(rfc8785.dumps(document), parties)

    @classmethod
    def from_canonical_bytes(cls, data: bytes) -> Self:
        """Read back what `canonical_bytes` spells, and nothing else.

        Raises:
            InvalidAgreementError: not the terms of an agreement, or contradictory.
            AlteredAgreementError: such terms in another spelling.
        """
        return cls(data, _read(data))

    @property
    def digest(self) -> str:
        """SHA-256 of `canonical_bytes`, 64 hexadecimal digits: what a party accepts."""
        return hashlib.sha256(self.canonical_bytes).hexdigest()

    def party(self, name: str) -> InvitedParty:
        """Return the party of that name.

        Raises:
            InvalidAgreementError: no party is called so.
        """
        for party in self.parties:
            if party.name == name:
                return party
        names = ", ".join(party.name for party in self.parties)
        raise InvalidAgreementError(f"the draft has no party {name!r}, only {names}")

    def with_parties(self, parties: Iterable[PartyTerm]) -> Agreement:
        """Fill in the parties' keys.

        Raises:
            InvalidAgreementError: they are other parties, or two of them share a key.
        """
        terms = tuple(parties)
        if tuple(InvitedParty(name=one.name, role=one.role) for one in terms) != self.parties:
            raise InvalidAgreementError(
                "expected the parties of the draft, in its order, got others"
            )
        document: dict[str, Any] = json.loads(self.canonical_bytes)
        document["parties"] = [one.model_dump(mode="json") for one in terms]
        try:
            content = rfc8785.dumps(document)
        except rfc8785.CanonicalizationError as error:
            raise InvalidAgreementError(
                "draft of an agreement: a number is out of range"
            ) from error
        return Agreement.from_canonical_bytes(content)

    def for_reading(self, known: Iterable[PartyTerm] = ()) -> Agreement:
        """Return the terms with keys of nobody: to look at, never to be signed.

        Args:
            known: parties whose own keys stand in it.

        Raises:
            InvalidAgreementError: the known keys contradict the terms, or one stands twice.
        """
        terms = {one.name: one for one in known}
        return self.with_parties(terms.get(one.name) or _stand_in(one) for one in self.parties)

    def check(self, agreement: Agreement) -> None:
        """Return only if the agreement is this draft, with keys filled in and nothing else.

        Raises:
            AlteredAgreementError: it says other things; names them.
        """
        found = Draft.of(agreement)
        if found == self:
            return
        ours, theirs = (json.loads(one.canonical_bytes) for one in (self, found))
        fields = sorted({*ours, *theirs})
        other = ", ".join(name for name in fields if ours.get(name) != theirs.get(name))
        raise AlteredAgreementError(
            f"the agreement is not the draft that was accepted ({self.digest}): it differs in "
            f"{other}; do not sign it, and ask whoever drew it up"
        )


@lru_cache(maxsize=8)
def _read(data: bytes) -> tuple[InvitedParty, ...]:
    """Return the parties of a draft, once it has been looked at as a whole."""
    try:
        document = json.loads(data)
        parties = tuple(
            InvitedParty.model_validate_json(json.dumps(one)) for one in document["parties"]
        )
    except ValidationError as error:
        raise InvalidAgreementError(f"draft of an agreement: {describe(error)}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidAgreementError(
            "expected the draft of an agreement, got no JSON object with parties"
        ) from error
    draft = Draft(data, parties)
    if Draft.of(draft.for_reading()) != draft:
        raise AlteredAgreementError(
            "the draft is not in canonical JSON (RFC 8785): ask its author for the original"
        )
    return parties


@lru_cache(maxsize=64)
def _stand_in(party: InvitedParty) -> PartyTerm:
    """Return a party with well-formed keys that anybody can compute."""

    def seed(use: str) -> bytes:
        return hashlib.sha256(f"draft/{use}/{party.name}".encode()).digest()

    origin = f"comity/{party.name}"
    encryption = hashlib.shake_256(seed("encryption")).digest(1184 + 32)
    return PartyTerm(
        name=party.name,
        role=party.role,
        identity_key=SigningKey.from_seed(seed("identity")).public.to_base64(),
        log_key=NoteKey(origin, SigningKey.from_seed(seed("log")).public).to_string(),
        encryption_key=encode_base64(encryption) if party.role in DATA_ROLES else None,
        cosigning_key=CosigningKey.from_seed(origin, seed("cosigning")).public.to_string(),
    )
