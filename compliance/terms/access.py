"""Where data may be, which code may run, and whose people must say yes to a job.

Guarantees: a country is one of ISO 3166-1; an approver has a sound key, and as many approvals can
be had as are asked for.

Leaves to others: what these mean beside the other terms (`compliance.agreement`), what an approval
is (`compliance.approval`), and holding a release against them (`compliance.policy`).
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from compliance.errors import SignatureError
from compliance.signing import VerifyingKey
from compliance.terms.party import PartyTerm, Role
from compliance.terms.vocabulary import Line, Name, Terms, repeated, unique

__all__ = [
    "COUNTRIES",
    "RELEASES_ROWS",
    "ApprovalTerms",
    "ApproverTerm",
    "Computation",
    "RegionTerm",
    "approver_mistakes",
    "region_mistakes",
]

_CODES: Final = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ
BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM
DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS
GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN
KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ
MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM
PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV
SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI
VN VU WF WS YE YT ZA ZM ZW
"""

COUNTRIES: Final = frozenset(_CODES.split())
"""The officially assigned codes of ISO 3166-1 alpha-2, 249 of them, as of 2026."""


def _country(text: str) -> str:
    if text not in COUNTRIES:
        raise ValueError("expected a country by its two letters of ISO 3166-1, such as DE")
    return text


def _key(text: str) -> str:
    try:
        VerifyingKey.from_base64(text)
    except SignatureError as error:
        raise ValueError(str(error)) from error
    return text


Country = Annotated[str, AfterValidator(_country)]


class Computation(StrEnum):
    """A kind of job."""

    MATCH = "match"
    ALIGN = "align"
    TRAIN = "train"
    TRAIN_VERTICAL = "train-vertical"
    SCORE_VERTICAL = "score-vertical"
    EXPAND = "expand"
    MEASURE = "measure"


RELEASES_ROWS: Final = frozenset(
    {
        Computation.MATCH,
        Computation.ALIGN,
        Computation.TRAIN_VERTICAL,
        Computation.SCORE_VERTICAL,
        Computation.EXPAND,
    }
)
"""Jobs that leave somebody with lines about single people: members, numbers per row, segments."""


class RegionTerm(Terms):
    """Where a party keeps data and results, and where what it lets out may go.

    Attributes:
        party: whose.
        country: where its data and results are.
        reaches: countries of the parties to which it may let anything out; its own is among them.
    """

    party: Name
    country: Country
    reaches: Annotated[tuple[Country, ...], Field(max_length=249), AfterValidator(unique)]

    def _mistakes(self) -> Iterator[str]:
        if self.country not in self.reaches:
            yield f"regions: {self.party!r} is in {self.country}, which its reaches lack: add it"


class ApproverTerm(Terms):
    """A person of a party who may approve jobs.

    Attributes:
        name: a pseudonym; whose it is, the party knows.
        party: whose person it is.
        key: base64 of the Ed25519 key that signs approvals.
    """

    name: Name
    party: Name
    key: Annotated[Line, AfterValidator(_key)]

    @property
    def verifying_key(self) -> VerifyingKey:
        """The key that `key` spells."""
        return VerifyingKey.from_base64(self.key)


class ApprovalTerms(Terms):
    """Who must have approved a job before anything made from people leaves in it.

    Every job that releases rows (`RELEASES_ROWS`) needs approvals; of a match, where members are
    revealed.

    Attributes:
        approvers: people who may approve.
        approvals: how many of them must.
        parties: of so many different parties, at least two.
        also: further kinds of job that need approvals.
    """

    approvers: Annotated[tuple[ApproverTerm, ...], Field(min_length=2, max_length=64)]
    approvals: Annotated[int, Field(strict=True, ge=2, le=16)] = 2
    parties: Annotated[int, Field(strict=True, ge=2, le=16)] = 2
    also: Annotated[tuple[Computation, ...], AfterValidator(unique)] = ()

    def approver(self, name: str) -> ApproverTerm | None:
        """Return the approver of that name, if there is one."""
        return next((one for one in self.approvers if one.name == name), None)

    def _mistakes(self) -> Iterator[str]:
        for name in repeated(one.name for one in self.approvers):
            yield f"approval.approvers: two are called {name!r}"
        for key in repeated(one.key for one in self.approvers):
            among = ", ".join(one.name for one in self.approvers if one.key == key)
            yield f"approval.approvers: one key stands twice (at {among})"
        if self.approvals > len(self.approvers):
            yield f"approval.approvals: {self.approvals} of {len(self.approvers)} approvers"
        if self.parties > self.approvals:
            yield f"approval.parties: {self.parties}, of only {self.approvals} approvals"
        if self.parties > (most := len({one.party for one in self.approvers})):
            yield f"approval.parties: {self.parties}, and the approvers are of {most}"


def region_mistakes(regions: Sequence[RegionTerm], parties: Sequence[PartyTerm]) -> Iterator[str]:
    """Say what contradicts itself between regions and parties; nothing where there are none."""
    if not regions:
        return
    found = {region.party: region for region in regions}
    for name in repeated(region.party for region in regions):
        yield f"regions: {name!r} has two: merge them"
    for name in sorted(found.keys() - {party.name for party in parties}):
        yield f"regions: {name!r} is no party"
    for party in parties:
        if party.name not in found and party.role is not Role.AUDITOR:
            yield f"regions: {party.name!r} has none: say where its data and results are"
    relays = [party.name for party in parties if party.role is Role.COORDINATOR]
    for relay in (found[name] for name in relays if name in found):
        for region in found.values():
            for sender, recipient in ((region, relay), (relay, region)):
                if recipient.country not in sender.reaches:
                    yield (
                        f"regions: {sender.party!r} does not reach {recipient.country}, where "
                        f"{recipient.party!r} is, and all that is said passes the coordinator"
                    )


def approver_mistakes(terms: ApprovalTerms, parties: Sequence[PartyTerm]) -> Iterator[str]:
    """Say what contradicts itself between approvers and parties."""
    names = {party.name for party in parties}
    keys = {party.identity_key for party in parties}
    for approver in terms.approvers:
        if approver.party not in names:
            yield f"approval.approvers: {approver.name!r} is of {approver.party!r}, no party"
        if approver.key in keys:
            yield f"approval.approvers: {approver.name!r} has a party's key: give it its own"
