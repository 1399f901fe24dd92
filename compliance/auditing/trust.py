"""Whom an auditor believes about a party's log: its keys and its witnesses, by the agreement.

Leaves to others: reading the agreement, and a policy file that an auditor brings instead; until
which size of a log keys hold that were replaced (`cryptoperiod`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from compliance.agreement import Agreement
from compliance.log.cosignature import CosignerKey
from compliance.log.note import NoteKey
from compliance.log.policy import Group, LogKey, Policy
from compliance.terms import MOST_WITNESSES, EarlierParty, PartyTerm, Role

__all__ = ["WitnessKeys", "every_party", "keys_of_others", "log_keys", "origin_of", "policy_for"]

_QUORUM: Final = "others"


def log_keys(party: PartyTerm) -> tuple[LogKey, ...]:
    """Return the keys with which a party signs its log."""
    key = NoteKey.from_string(party.log_key)
    return (key,) if party.cosigner is None else (key, party.cosigner)


def origin_of(party: PartyTerm | EarlierParty) -> str:
    """Return the name of a party's log."""
    return NoteKey.from_string(party.log_key).name


def every_party(versions: Iterable[Agreement]) -> Iterator[PartyTerm | EarlierParty]:
    """Yield the parties of versions, and those that any version before them had."""
    for version in versions:
        yield from version.parties
        yield from version.earlier


def keys_of_others(agreement: Agreement, name: str) -> dict[str, tuple[LogKey, ...]]:
    """Return the keys of all logs but one party's, by origin."""
    return {origin_of(one): log_keys(one) for one in agreement.parties if one.name != name}


@dataclass(frozen=True)
class WitnessKeys:
    """The keys of one witness and of the logs that it witnesses, over versions of an agreement.

    Attributes:
        logs: what each other party's log is signed with, by origin.
        former: what it was signed with before, by origin.
        cosigner: the witness's key; None if it witnesses nobody.
        former_cosigners: its keys before.
    """

    logs: dict[str, tuple[LogKey, ...]]
    former: dict[str, tuple[tuple[LogKey, ...], ...]]
    cosigner: CosignerKey | None
    former_cosigners: tuple[CosignerKey, ...]

    @classmethod
    def of(cls, versions: Sequence[Agreement], witness: str) -> "WitnessKeys":
        """Collect them from versions in order, of which the last is the one obeyed."""
        *before, latest = versions
        logs = keys_of_others(latest, witness)
        former: dict[str, list[tuple[LogKey, ...]]] = {}
        own: list[CosignerKey | None] = []
        for version in reversed(before):
            for origin, keys in keys_of_others(version, witness).items():
                known = former.setdefault(origin, [])
                if keys not in (logs.get(origin), *known):
                    known.append(keys)
            own.extend(one.cosigner for one in version.parties if one.name == witness)
        cosigner = latest.party(witness).cosigner
        others = dict.fromkeys(one for one in own if one not in (None, cosigner))
        return cls(
            logs,
            {origin: tuple(keys) for origin, keys in former.items()},
            cosigner,
            tuple(one for one in others if one is not None),
        )


def policy_for(agreement: Agreement, party: str) -> Policy:
    """Return the policy under which heads of a party's log are public (C2SP tlog-policy).

    Any two quorums share a witness, so that two heads of one size and different roots cannot both
    be public unless a witness cheats too. Auditors count where the agreement says how many must
    cosign, since it is more than half of all; where it leaves that out, everybody else has to, and
    auditors are listed without counting, where all parties can be listed. Each key of the log must
    have signed.
    """
    term, counted = agreement.party(party), agreement.witnesses_of(party)
    auditors = (one.name for one in agreement.by_role(Role.AUDITOR) if one.name != party)
    listed = frozenset(auditors) if len(agreement.parties) <= MOST_WITNESSES + 1 else frozenset()
    keys: dict[str, CosignerKey] = {
        other.name: other.cosigner
        for other in agreement.parties
        if other.cosigner is not None and (other.name in counted or other.name in listed)
    }
    quorum = agreement.witness_quorum or len(counted)
    groups = {_QUORUM: Group(quorum, counted)} if counted else {}
    name = _QUORUM if counted else "none"
    return Policy(name, log_keys(term), keys, groups, every_key=True)
