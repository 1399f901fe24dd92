"""TC strings of the IAB's Transparency and Consent Framework, v2.0 to v2.3.

Guarantees: a string is read whole or refused. Refused are: other characters than the alphabet's;
bits missing or left over; unknown versions, policies, purposes, special features, segments or kinds
of restriction; ranges out of order; a string that holds for more than one service; times that
contradict each other or lie ahead; consent to vendors who were not disclosed; a string made after
2026-02-28 without the segment of disclosed vendors. `permits` says yes only where every rule of the
framework does.

Leaves to others: which purposes a vendor declared and on which basis (the vendor knows), how old a
consent may be, and who the person is. A string carries no signature: whoever can change it can say
anything with it, so take it from the platform that asked the person.

Source: IAB Tech Lab, "Consent string and vendor list formats v2" (TCF v2.3, April 2025).
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, IntEnum
from functools import lru_cache
from typing import Final

from compliance.consent_strings.bits import BitReader, BitWriter, Filling
from compliance.consent_strings.vendors import (
    VendorIds,
    read_ranges,
    read_vendors,
    write_ranges,
    write_vendors,
)
from compliance.errors import ConsentStringError

__all__ = [
    "LegalBasis",
    "PublisherRestriction",
    "PublisherTc",
    "Purpose",
    "RestrictionType",
    "TcfString",
    "decode_tcf",
    "encode_tcf",
]

_VERSION: Final = 2
_POLICIES: Final = range(2, 6)
_POLICY_OF_2_2: Final = 4
_EARLIER_POLICIES_UNTIL: Final = datetime(2023, 10, 1, tzinfo=UTC)
_DISCLOSURE_FROM: Final = datetime(2026, 3, 1, tzinfo=UTC)  # 28 February 2026 is the last day
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DECISECOND: Final = timedelta(milliseconds=100)
_CLOCK_SKEW: Final = timedelta(days=1)
_PURPOSE_BITS: Final = 24
_SPECIAL_FEATURES: Final = 2
_SPECIAL_FEATURE_BITS: Final = 12
_FILLINGS: Final = Filling.BYTE | Filling.THREE_BYTES
_NAME: Final = "TC string"


class Purpose(IntEnum):
    """Purposes of processing that TCF v2.2 and v2.3 define."""

    STORE_AND_ACCESS_INFORMATION = 1
    SELECT_LIMITED_ADVERTISING = 2
    CREATE_ADVERTISING_PROFILES = 3
    SELECT_PERSONALISED_ADVERTISING = 4
    CREATE_CONTENT_PROFILES = 5
    SELECT_PERSONALISED_CONTENT = 6
    MEASURE_ADVERTISING = 7
    MEASURE_CONTENT = 8
    UNDERSTAND_AUDIENCES = 9
    IMPROVE_SERVICES = 10
    SELECT_LIMITED_CONTENT = 11


_NEVER_BY_INTEREST: Final = frozenset(map(Purpose, (1, 3, 4, 5, 6)))


class LegalBasis(Enum):
    """On what a vendor bases a purpose."""

    CONSENT = "consent"
    LEGITIMATE_INTEREST = "legitimate-interest"


class RestrictionType(IntEnum):
    """What a publisher restricts a purpose to, for some vendors."""

    NOT_ALLOWED = 0
    REQUIRE_CONSENT = 1
    REQUIRE_LEGITIMATE_INTEREST = 2


class _Segment(IntEnum):
    DISCLOSED_VENDORS = 1
    PUBLISHER_TC = 3


@dataclass(frozen=True, slots=True)
class PublisherRestriction:
    """A publisher's restriction of one purpose for some vendors."""

    purpose: Purpose
    restriction: RestrictionType
    vendors: VendorIds


@dataclass(frozen=True, slots=True)
class PublisherTc:
    """What a person said to the publisher's own purposes.

    Attributes:
        consents: purposes consented to.
        legitimate_interests: purposes disclosed as legitimate interests and not objected to.
        custom_purposes: how many purposes of its own the publisher has, 0 to 63.
        custom_consents: those consented to, of 1 to `custom_purposes`.
        custom_legitimate_interests: those disclosed and not objected to, likewise.
    """

    consents: frozenset[Purpose] = frozenset()
    legitimate_interests: frozenset[Purpose] = frozenset()
    custom_purposes: int = 0
    custom_consents: frozenset[int] = frozenset()
    custom_legitimate_interests: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class TcfString:
    """What a TC string says.

    Attributes:
        created: when it was first made; v2.2 and later make this equal to:
        last_updated: when it was made as it is, to a tenth of a second (v2.2 on: to the day).
        cmp_id: the consent-management platform, 0 to 4,095.
        cmp_version: its version, likewise.
        consent_screen: on which of its screens the person answered, 0 to 63.
        consent_language: in which language, two capital letters.
        vendor_list_version: version of the list of vendors, 0 to 4,095.
        policy_version: 2 (TCF v2.0) to 5.
        non_standard_texts: whether the texts were not the standard ones.
        special_features: those opted in to, of 1 and 2.
        consents: purposes consented to.
        legitimate_interests: purposes disclosed as legitimate interests and not objected to.
        purpose_one_undisclosed: whether the publisher's law needs no consent to purpose 1, so that
            nobody asked.
        publisher_country: two capital letters.
        vendor_consents: vendors consented to.
        vendor_legitimate_interests: vendors disclosed and not objected to.
        restrictions: of the publisher, each of a purpose and kind of its own.
        disclosed_vendors: who was shown; None where the string does not say.
        publisher: the publisher's own purposes; None where the string does not say.

    Raises:
        ConsentStringError: the parts contradict each other.
    """

    created: datetime
    last_updated: datetime
    cmp_id: int
    cmp_version: int
    consent_screen: int = 0
    consent_language: str = "EN"
    vendor_list_version: int
    policy_version: int = 5
    non_standard_texts: bool = False
    special_features: frozenset[int] = frozenset()
    consents: frozenset[Purpose] = frozenset()
    legitimate_interests: frozenset[Purpose] = frozenset()
    purpose_one_undisclosed: bool = False
    publisher_country: str = "AA"
    vendor_consents: VendorIds = field(default_factory=VendorIds)
    vendor_legitimate_interests: VendorIds = field(default_factory=VendorIds)
    restrictions: tuple[PublisherRestriction, ...] = ()
    disclosed_vendors: VendorIds | None = None
    publisher: PublisherTc | None = None

    def __post_init__(self) -> None:
        if self.policy_version not in _POLICIES:
            raise ConsentStringError(
                f"{_NAME}: policy version {self.policy_version}, expected 2 to 5"
            )
        if self.created > self.last_updated:
            raise ConsentStringError(f"{_NAME}: updated before it was created")
        disclosed = self.disclosed_vendors
        if disclosed is None:
            if self.last_updated >= _DISCLOSURE_FROM:
                raise ConsentStringError(
                    f"{_NAME}: made after 2026-02-28 without the segment of disclosed vendors"
                )
        elif not (self.vendor_consents <= disclosed >= self.vendor_legitimate_interests):
            raise ConsentStringError(f"{_NAME}: consent to vendors who were not disclosed")
        if self.policy_version >= _POLICY_OF_2_2 and self.legitimate_interests & _NEVER_BY_INTEREST:
            raise ConsentStringError(
                f"{_NAME}: a legitimate interest in a purpose that may not have one"
            )
        kinds = {(one.purpose, one.restriction) for one in self.restrictions}
        if len(kinds) != len(self.restrictions):
            raise ConsentStringError(f"{_NAME}: a restriction said twice")

    @property
    def is_outdated(self) -> bool:
        """Whether its policy was over when it was made: such a string permits nothing."""
        return self.policy_version < _POLICY_OF_2_2 and self.last_updated >= _EARLIER_POLICIES_UNTIL

    def permits(self, vendor: int, purpose: Purpose, basis: LegalBasis) -> bool:
        """Tell whether a vendor may process for a purpose that it bases on `basis`.

        Args:
            vendor: id in the global vendor list.
            purpose: what for; the vendor must have declared it on this basis, or as flexible.
            basis: consent, or legitimate interest, which purposes 1 and 3 to 6 never have.
        """
        by_consent = basis is LegalBasis.CONSENT
        purposes = self.consents if by_consent else self.legitimate_interests
        vendors = self.vendor_consents if by_consent else self.vendor_legitimate_interests
        if self.is_outdated or purpose not in purposes or vendor not in vendors:
            return False
        if not by_consent and purpose in _NEVER_BY_INTEREST:
            return False
        if purpose is Purpose.STORE_AND_ACCESS_INFORMATION and self.purpose_one_undisclosed:
            return False
        agreeable = (
            RestrictionType.REQUIRE_CONSENT
            if by_consent
            else RestrictionType.REQUIRE_LEGITIMATE_INTEREST
        )
        return all(
            one.restriction is agreeable
            for one in self.restrictions
            if one.purpose is purpose and vendor in one.vendors
        )


def decode_tcf(text: str, *, now: datetime) -> TcfString:
    """Read a TC string.

    Args:
        text: the core segment, and the others after dots, in any order.
        now: the present, with a time zone; strings of more than a day later are refused.

    Raises:
        ConsentStringError: it is malformed, or breaks a rule that this module lists.
    """
    core, *others = text.split(".")
    segments: dict[_Segment, VendorIds | PublisherTc] = {}
    for other in others:
        kind, content = _read_segment(other)
        if kind in segments:
            raise ConsentStringError(f"{_NAME}: a segment said twice")
        segments[kind] = content
    decoded = _read_core(core, segments)
    if decoded.last_updated > now + _CLOCK_SKEW:
        raise ConsentStringError(f"{_NAME}: made in the future")
    return decoded


def encode_tcf(string: TcfString) -> str:
    """Write a TC string, filled to 24 bits a segment as most platforms do.

    Raises:
        ConsentStringError: a part is out of range.
    """
    writer = BitWriter().put(_VERSION, 6)
    for moment in (string.created, string.last_updated):
        writer.put((moment - _EPOCH) // _DECISECOND, 36)
    writer.put(string.cmp_id, 12).put(string.cmp_version, 12).put(string.consent_screen, 6)
    _write_letters(writer, string.consent_language)
    writer.put(string.vendor_list_version, 12).put(string.policy_version, 6)
    writer.put(1, 1).put(string.non_standard_texts, 1)
    writer.put(_mask(string.special_features, _SPECIAL_FEATURE_BITS), _SPECIAL_FEATURE_BITS)
    writer.put(_mask(string.consents, _PURPOSE_BITS), _PURPOSE_BITS)
    writer.put(_mask(string.legitimate_interests, _PURPOSE_BITS), _PURPOSE_BITS)
    writer.put(string.purpose_one_undisclosed, 1)
    _write_letters(writer, string.publisher_country)
    write_vendors(writer, string.vendor_consents)
    write_vendors(writer, string.vendor_legitimate_interests)
    writer.put(len(string.restrictions), 12)
    for one in string.restrictions:
        writer.put(one.purpose, 6).put(one.restriction, 2)
        write_ranges(writer, one.vendors)
    segments = [writer]
    if string.disclosed_vendors is not None:
        segments.append(BitWriter().put(_Segment.DISCLOSED_VENDORS, 3))
        write_vendors(segments[-1], string.disclosed_vendors)
    if string.publisher is not None:
        segments.append(_write_publisher(string.publisher))
    return ".".join(segment.text(Filling.THREE_BYTES) for segment in segments)


def _read_core(text: str, segments: dict[_Segment, VendorIds | PublisherTc]) -> TcfString:
    reader = BitReader(text, _NAME)
    take = reader.take
    if take(6) != _VERSION:
        raise ConsentStringError(f"{_NAME}: a version other than {_VERSION}")
    moments = take(36), take(36)
    platform = take(12), take(12), take(6)
    language, list_version, policy_version = _letters(take(12)), take(12), take(6)
    if not take(1):
        raise ConsentStringError(f"{_NAME}: holds for more than one service")
    texts, features, consents, interests = take(1), take(12), take(24), take(24)
    undisclosed, country = take(1), _letters(take(12))
    vendor_consents = read_vendors(reader, _NAME)
    vendor_interests = read_vendors(reader, _NAME)
    restrictions = tuple(_read_restriction(reader) for _ in range(take(12)))
    reader.finish(_FILLINGS)
    disclosed = segments.get(_Segment.DISCLOSED_VENDORS)
    publisher = segments.get(_Segment.PUBLISHER_TC)
    return TcfString(
        created=_EPOCH + moments[0] * _DECISECOND,
        last_updated=_EPOCH + moments[1] * _DECISECOND,
        cmp_id=platform[0],
        cmp_version=platform[1],
        consent_screen=platform[2],
        consent_language=language,
        vendor_list_version=list_version,
        policy_version=policy_version,
        non_standard_texts=bool(texts),
        special_features=_special_features(features),
        consents=_purposes(consents),
        legitimate_interests=_purposes(interests),
        purpose_one_undisclosed=bool(undisclosed),
        publisher_country=country,
        vendor_consents=vendor_consents,
        vendor_legitimate_interests=vendor_interests,
        restrictions=restrictions,
        disclosed_vendors=disclosed if isinstance(disclosed, VendorIds) else None,
        publisher=publisher if isinstance(publisher, PublisherTc) else None,
    )


def _read_restriction(reader: BitReader) -> PublisherRestriction:
    purpose, restriction = reader.take(6), reader.take(2)
    if not 1 <= purpose <= len(Purpose) or restriction >= len(RestrictionType):
        raise ConsentStringError(f"{_NAME}: a restriction of an unknown purpose or kind")
    vendors = read_ranges(reader, _NAME)
    return PublisherRestriction(Purpose(purpose), RestrictionType(restriction), vendors)


def _read_segment(text: str) -> tuple[_Segment, VendorIds | PublisherTc]:
    reader = BitReader(text, _NAME)
    content: VendorIds | PublisherTc
    match reader.take(3):
        case _Segment.DISCLOSED_VENDORS as kind:
            content = read_vendors(reader, _NAME)
        case _Segment.PUBLISHER_TC as kind:
            consents, interests = reader.take(24), reader.take(24)
            custom = reader.take(6)
            content = PublisherTc(
                consents=_purposes(consents),
                legitimate_interests=_purposes(interests),
                custom_purposes=custom,
                custom_consents=_members(reader.take(custom), custom),
                custom_legitimate_interests=_members(reader.take(custom), custom),
            )
        case _:
            raise ConsentStringError(f"{_NAME}: an unknown segment")
    reader.finish(_FILLINGS)
    return _Segment(kind), content


def _write_publisher(publisher: PublisherTc) -> BitWriter:
    writer = BitWriter().put(_Segment.PUBLISHER_TC, 3)
    for purposes in (publisher.consents, publisher.legitimate_interests):
        writer.put(_mask(purposes, _PURPOSE_BITS), _PURPOSE_BITS)
    width = publisher.custom_purposes
    writer.put(width, 6)
    for customs in (publisher.custom_consents, publisher.custom_legitimate_interests):
        writer.put(_mask(customs, width), width)
    return writer


def _letters(code: int) -> str:
    first, second = divmod(code, 64)
    if max(first, second) >= 26:
        raise ConsentStringError(f"{_NAME}: a code that is not two letters")
    return chr(65 + first) + chr(65 + second)


def _write_letters(writer: BitWriter, letters: str) -> None:
    if len(letters) != 2 or not (letters.isascii() and letters.isalpha() and letters.isupper()):
        raise ConsentStringError(f"{_NAME}: expected two capital letters")
    for letter in letters:
        writer.put(ord(letter) - 65, 6)


def _members(bits: int, width: int) -> frozenset[int]:
    """Places, from 1 at the left, of the bits that are set."""
    return frozenset(place for place in range(1, width + 1) if bits >> (width - place) & 1)


def _mask(members: frozenset[int] | frozenset[Purpose], width: int) -> int:
    if not all(1 <= member <= width for member in members):
        raise ConsentStringError(f"{_NAME}: expected numbers from 1 to {width}")
    return sum(1 << (width - member) for member in members)


@lru_cache(maxsize=4096)
def _purposes(bits: int) -> frozenset[Purpose]:
    members = _members(bits, _PURPOSE_BITS)
    if max(members, default=0) > len(Purpose):
        raise ConsentStringError(f"{_NAME}: a purpose that nobody defined")
    return frozenset(map(Purpose, members))


@lru_cache(maxsize=4096)
def _special_features(bits: int) -> frozenset[int]:
    members = _members(bits, _SPECIAL_FEATURE_BITS)
    if max(members, default=0) > _SPECIAL_FEATURES:
        raise ConsentStringError(f"{_NAME}: a special feature that nobody defined")
    return members
