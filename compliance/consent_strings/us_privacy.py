"""What a person in the United States said: sections 6 to 23 of a GPP string.

Guarantees: every section is read whole or refused: a value that its specification does not define,
a missing or superfluous bit, an unknown version, contradictory parts. `permits` says yes only if
notice was given, the person did not opt out, and no global signal says otherwise.

Leaves to others: which section is in force for a person (the platform that asked says so), and
whether the law asks for more than these answers.

Source: IAB Tech Lab, GPP, "US National" (v2), the state sections (v1), and "US Privacy string" 1.0.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import cache
from types import MappingProxyType
from typing import Final

from compliance.consent_strings.bits import BitReader, BitWriter, Filling
from compliance.errors import ConsentStringError

__all__ = [
    "LAYOUTS",
    "Answer",
    "Processing",
    "UsPrivacy",
    "UsSection",
    "decode_us_privacy",
    "decode_us_section",
    "encode_us_privacy",
    "encode_us_section",
]

_VERSION_BITS: Final = 6
_ANSWER_BITS: Final = 2
_CORE, _GPC = 0, 1
_US_PRIVACY: Final = re.compile(r"1([YN-])([YN-])([YN-])")


class Processing(Enum):
    """What a person can say no to."""

    SALE = "sale"
    SHARING = "sharing"
    TARGETED_ADVERTISING = "targeted-advertising"


class Answer(IntEnum):
    """A two-bit answer. What 1 and 2 say depends on the field.

    A notice: 1 given, 2 not given. An opt-out: 1 opted out, 2 did not. A consent: 1 no, 2 yes.
    """

    NOT_APPLICABLE = 0
    FIRST = 1
    SECOND = 2


@dataclass(frozen=True, slots=True)
class _Layout:
    """The fields of a section's core, each of one answer or of several."""

    versions: frozenset[int]
    fields: tuple[tuple[str, int], ...]
    gpc: bool

    @property
    def bits(self) -> int:
        """Bits of the core."""
        return _VERSION_BITS + _ANSWER_BITS * sum(count for _, count in self.fields)


_MSPA: Final = ("MspaCoveredTransaction", "MspaOptOutOptionMode", "MspaServiceProviderMode")
_SENSITIVE: Final = "SensitiveDataProcessing"
_CHILD: Final = "KnownChildSensitiveDataConsents"
_ADDITIONAL: Final = "AdditionalDataProcessingConsent"
_OPT_OUTS: Final = ("SaleOptOut", "TargetedAdvertisingOptOut")
_NOTICES: Final = ("SaleOptOutNotice", "TargetedAdvertisingOptOutNotice")


def _layout(
    first: tuple[str, ...],
    sensitive: int,
    child: int,
    last: tuple[str, ...] = (),
    *,
    gpc: bool = True,
    versions: tuple[int, ...] = (1,),
) -> _Layout:
    fields = (
        *((name, 1) for name in first),
        (_SENSITIVE, sensitive),
        (_CHILD, child),
        *((name, 1) for name in (*last, *_MSPA)),
    )
    return _Layout(frozenset(versions), fields, gpc)


_SHARING: Final = ("SharingNotice", *_NOTICES, *_OPT_OUTS)
_PROCESSING: Final = ("ProcessingNotice", *_NOTICES, *_OPT_OUTS)
_NATIONAL: Final = (
    "SharingNotice",
    "SaleOptOutNotice",
    "SharingOptOutNotice",
    "TargetedAdvertisingOptOutNotice",
    "SensitiveDataProcessingOptOutNotice",
    "SensitiveDataLimitUseNotice",
    "SaleOptOut",
    "SharingOptOut",
    "TargetedAdvertisingOptOut",
)
_PERSONAL: Final = ("PersonalDataConsents",)
_MORE: Final = (_ADDITIONAL,)

LAYOUTS: Final[Mapping[int, tuple[_Layout, ...]]] = MappingProxyType(
    {
        7: (
            _layout(_NATIONAL, 16, 3, _PERSONAL, versions=(1, 2)),
            _layout(_NATIONAL, 12, 2, _PERSONAL),
        ),
        8: (
            _layout(
                (
                    "SaleOptOutNotice",
                    "SharingOptOutNotice",
                    "SensitiveDataLimitUseNotice",
                    "SaleOptOut",
                    "SharingOptOut",
                ),
                9,
                2,
                _PERSONAL,
            ),
        ),
        9: (_layout(_SHARING, 8, 1, gpc=False),),
        10: (_layout(_SHARING, 7, 1),),
        11: (
            _layout(
                (
                    "SharingNotice",
                    *_NOTICES,
                    "SensitiveDataProcessingOptOutNotice",
                    *_OPT_OUTS,
                ),
                8,
                1,
                gpc=False,
            ),
        ),
        12: (_layout(_SHARING, 8, 3),),
        13: (_layout(_PROCESSING, 8, 3, _MORE, gpc=False),),
        14: (_layout(_SHARING, 8, 3, _MORE),),
        15: (_layout(_PROCESSING, 11, 3, _MORE),),
        16: (_layout(_PROCESSING, 8, 1, _MORE),),
        17: (_layout(_PROCESSING, 9, 5, _MORE),),
        18: (
            _layout(("ProcessingNotice", *_NOTICES, "SensitiveDataOptOutNotice", *_OPT_OUTS), 8, 1),
        ),
        19: (_layout(_PROCESSING, 8, 1, _MORE),),
        20: (_layout(_PROCESSING, 8, 3, _MORE),),
        21: (_layout(_PROCESSING, 10, 5, _MORE),),
        22: (_layout(_PROCESSING, 8, 1, _MORE),),
        23: (_layout(_PROCESSING, 8, 1, _MORE),),
    }
)
"""The layouts of each section, by its id: the present one first."""

_FIELDS_OF: Final[Mapping[Processing, tuple[str, str]]] = MappingProxyType(
    {
        Processing.SALE: ("SaleOptOutNotice", "SaleOptOut"),
        Processing.SHARING: ("SharingOptOutNotice", "SharingOptOut"),
        Processing.TARGETED_ADVERTISING: (
            "TargetedAdvertisingOptOutNotice",
            "TargetedAdvertisingOptOut",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class UsSection:
    """One national or state section.

    Attributes:
        section: its id, 7 to 23.
        version: of its specification.
        answers: by the name that its specification gives a field, one answer or several.
        gpc: what the Global Privacy Control said; None where the section does not say.
    """

    section: int
    version: int
    answers: Mapping[str, tuple[Answer, ...]]
    gpc: bool | None = None

    def permits(self, processing: Processing) -> bool:
        """Tell whether a person's data may be sold, shared, or used to target advertising.

        Yes only if the section has the question, notice was given, the person did not opt out, no
        known child is concerned without consent, and no Global Privacy Control is set. A section
        that has a part for that control and lacks it may have been cut short: it permits nothing.
        """
        notice, opt_out = _FIELDS_OF[processing]
        child = self.answers[_CHILD]
        clear = self.gpc is False or not LAYOUTS[self.section][0].gpc
        return (
            clear
            and self.answers.get(notice) == (Answer.FIRST,)
            and self.answers.get(opt_out) == (Answer.SECOND,)
            and Answer.FIRST not in child
        )


@dataclass(frozen=True, slots=True)
class UsPrivacy:
    """The older US Privacy string, four characters long; None stands for `-`, not applicable."""

    notice_given: bool | None
    opted_out: bool | None
    service_provider_agreement: bool | None

    def permits(self, processing: Processing) -> bool:
        """Tell whether a person's data may be sold; of anything else the string says nothing."""
        return (
            processing is Processing.SALE and self.notice_given is True and self.opted_out is False
        )


def decode_us_section(section: int, text: str) -> UsSection:
    """Read a section: its core, and after a dot, where it has one, the Global Privacy Control.

    Raises:
        ConsentStringError: it is malformed, or says what its specification does not define.
    """
    name = f"GPP section {section}"
    core, *others = text.split(".")
    layouts = LAYOUTS[section]
    layout = next((one for one in layouts if len(core) in _lengths(one.bits)), layouts[0])
    reader = BitReader(core, name)
    version = reader.take(_VERSION_BITS)
    if version not in layout.versions:
        raise ConsentStringError(f"{name}: version {version} of a section of that length")
    answers = {
        field: tuple(_answer(reader, name) for _ in range(count)) for field, count in layout.fields
    }
    reader.finish(Filling.BYTE)
    if answers[_MSPA[0]] == (Answer.NOT_APPLICABLE,):
        raise ConsentStringError(f"{name}: does not say whether the transaction is covered")
    if len(others) > layout.gpc:
        raise ConsentStringError(f"{name}: a part too many")
    gpc = _gpc(others[0], name) if others else None
    return UsSection(section, version, MappingProxyType(answers), gpc)


def encode_us_section(section: UsSection) -> str:
    """Write what `decode_us_section` reads.

    Raises:
        ConsentStringError: it has other fields than its specification.
    """
    name = f"GPP section {section.section}"
    shape = tuple((field, len(answers)) for field, answers in section.answers.items())
    for layout in LAYOUTS.get(section.section, ()):
        if layout.fields == shape and section.version in layout.versions:
            break
    else:
        raise ConsentStringError(f"{name}: no version {section.version} has these fields")
    writer = BitWriter().put(section.version, _VERSION_BITS)
    for answers in section.answers.values():
        for answer in answers:
            writer.put(answer, _ANSWER_BITS)
    text = writer.text(Filling.BYTE)
    if section.gpc is None:
        return text
    if not layout.gpc:
        raise ConsentStringError(f"{name}: has no part for the Global Privacy Control")
    return f"{text}.{BitWriter().put(_GPC, 2).put(section.gpc, 1).text(Filling.BYTE)}"


def decode_us_privacy(text: str) -> UsPrivacy:
    """Read a US Privacy string, `1YNN` for example.

    Raises:
        ConsentStringError: it is malformed.
    """
    found = _US_PRIVACY.fullmatch(text)
    if found is None:
        raise ConsentStringError("US Privacy string: expected '1' and three of Y, N and -")
    return UsPrivacy(*(None if letter == "-" else letter == "Y" for letter in found.groups()))


def encode_us_privacy(string: UsPrivacy) -> str:
    """Write what `decode_us_privacy` reads."""
    said = (string.notice_given, string.opted_out, string.service_provider_agreement)
    return "1" + "".join("-" if one is None else "NY"[one] for one in said)


@cache
def _lengths(bits: int) -> frozenset[int]:
    writer = BitWriter().put(0, bits)
    return frozenset(len(writer.text(one)) for one in (Filling.CHARACTER, Filling.BYTE))


def _answer(reader: BitReader, name: str) -> Answer:
    value = reader.take(_ANSWER_BITS)
    if value >= len(Answer):
        raise ConsentStringError(f"{name}: an answer that nobody defined")
    return Answer(value)


def _gpc(text: str, name: str) -> bool:
    reader = BitReader(text, name)
    if reader.take(2) != _GPC:
        raise ConsentStringError(f"{name}: an unknown part")
    said = bool(reader.take(1))
    reader.finish(Filling.BYTE)
    return said
