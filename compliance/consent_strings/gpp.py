"""GPP strings of the IAB's Global Privacy Platform, version 1.

Guarantees: the header names the sections that follow, each once and in order, and each of them is
read whole by its own rules; a section that is deprecated, unknown or still a draft has the whole
string refused.

Leaves to others: the sections (`tcf`, `us_privacy`), and which of them is in force.

Source: IAB Tech Lab, "Global Privacy Platform String", version 1.0, and "Section Information".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from compliance.consent_strings.bits import BitReader, BitWriter, Filling
from compliance.consent_strings.tcf import TcfString, decode_tcf, encode_tcf
from compliance.consent_strings.us_privacy import (
    UsPrivacy,
    UsSection,
    decode_us_privacy,
    decode_us_section,
    encode_us_privacy,
    encode_us_section,
)
from compliance.errors import ConsentStringError

__all__ = ["GppString", "Section", "SectionId", "decode_gpp", "encode_gpp"]

_HEADER_TYPE: Final = 3
_VERSION: Final = 1
_NAME: Final = "GPP string"
_LONGEST_RANGE: Final = 64  # of section ids: there are 27

Section = TcfString | UsPrivacy | UsSection


class SectionId(IntEnum):
    """Sections that can be read here."""

    EU_TCF = 2
    US_PRIVACY = 6
    US_NATIONAL = 7
    US_CALIFORNIA = 8
    US_VIRGINIA = 9
    US_COLORADO = 10
    US_UTAH = 11
    US_CONNECTICUT = 12
    US_FLORIDA = 13
    US_MONTANA = 14
    US_OREGON = 15
    US_TEXAS = 16
    US_DELAWARE = 17
    US_IOWA = 18
    US_NEBRASKA = 19
    US_NEW_HAMPSHIRE = 20
    US_NEW_JERSEY = 21
    US_TENNESSEE = 22
    US_MINNESOTA = 23


@dataclass(frozen=True, slots=True)
class GppString:
    """What a GPP string says.

    Attributes:
        sections: by id, ascending.
    """

    sections: Mapping[SectionId, Section]


def decode_gpp(text: str, *, now: datetime) -> GppString:
    """Read a GPP string.

    Args:
        text: header and sections, joined by `~`.
        now: the present, as `decode_tcf` wants it.

    Raises:
        ConsentStringError: it is malformed, or has a section that cannot be read here.
    """
    header, *bodies = text.split("~")
    ids = _read_header(header)
    if len(ids) != len(bodies):
        raise ConsentStringError(
            f"{_NAME}: the header names {len(ids)} sections, and {len(bodies)} follow"
        )
    sections = {one: _read_section(one, body, now) for one, body in zip(ids, bodies, strict=True)}
    return GppString(MappingProxyType(sections))


def encode_gpp(string: GppString) -> str:
    """Write a GPP string.

    Raises:
        ConsentStringError: the sections are not in order, or a part is out of range.
    """
    ids = list(string.sections)
    if ids != sorted(ids):
        raise ConsentStringError(f"{_NAME}: sections that do not ascend")
    writer = BitWriter().put(_HEADER_TYPE, 6).put(_VERSION, 6)
    runs: list[list[int]] = []
    for one in ids:
        if runs and runs[-1][1] == one - 1:
            runs[-1][1] = one
        else:
            runs.append([one, one])
    writer.put(len(runs), 12)
    before = 0
    for first, last in runs:
        writer.put(first < last, 1).put_fibonacci(first - before)
        if first < last:
            writer.put_fibonacci(last - first)
        before = last
    header = writer.text(Filling.BYTE)
    return "~".join([header, *map(_write_section, string.sections.values())])


def _read_header(text: str) -> list[SectionId]:
    reader = BitReader(text, f"{_NAME}, header")
    if (reader.take(6), reader.take(6)) != (_HEADER_TYPE, _VERSION):
        raise ConsentStringError(f"{_NAME}: expected a header of version {_VERSION}")
    numbers: list[int] = []
    last = 0
    for _ in range(reader.take(12)):
        several = reader.take(1)
        first = last + reader.take_fibonacci()
        last = first + (reader.take_fibonacci() if several else 0)
        if last > _LONGEST_RANGE:
            raise ConsentStringError(f"{_NAME}: a section that nobody defined")
        numbers += range(first, last + 1)
    reader.finish(Filling.BYTE)
    known = frozenset(SectionId)
    if not known.issuperset(numbers):
        raise ConsentStringError(f"{_NAME}: a section that is deprecated, unknown or a draft")
    return [SectionId(number) for number in numbers]


def _read_section(section: SectionId, text: str, now: datetime) -> Section:
    if section is SectionId.EU_TCF:
        return decode_tcf(text, now=now)
    if section is SectionId.US_PRIVACY:
        return decode_us_privacy(text)
    return decode_us_section(section, text)


def _write_section(section: Section) -> str:
    if isinstance(section, TcfString):
        return encode_tcf(section)
    if isinstance(section, UsPrivacy):
        return encode_us_privacy(section)
    return encode_us_section(section)
