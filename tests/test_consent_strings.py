"""TC and GPP strings: published vectors, an oracle of its own, and damage that must permit nothing.

Vectors marked IAB are from the specifications that the modules name; those marked iabgpp-java are
from that library's tests (IAB Tech Lab, Apache-2.0), whose fields they set are repeated here.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.consent_strings import (
    Answer,
    GppString,
    LegalBasis,
    PublisherRestriction,
    PublisherTc,
    Purpose,
    RestrictionType,
    SectionId,
    TcfString,
    UsPrivacy,
    UsSection,
    VendorIds,
    decode_gpp,
    decode_tcf,
    encode_gpp,
    encode_tcf,
)
from compliance.consent_strings.bits import BitReader, BitWriter, Filling
from compliance.consent_strings.us_privacy import LAYOUTS, Processing
from compliance.errors import ConsentStringError

NOW = datetime(2026, 11, 27, tzinfo=UTC)
SOME_DAY = datetime(2026, 6, 1, tzinfo=UTC)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
IAB_TCF = "CQSbk4AQSbk4ANwAAAENAwCgAAAAAAAAAAYgACPAAAAA.IDKQA4AAgAKAGQAygAAA.YAAAAAAAAAAA"


def consenting(**changes: Any) -> TcfString:
    """A string of TCF v2.3 that permits something, changed."""
    whole = TcfString(
        created=SOME_DAY,
        last_updated=SOME_DAY,
        cmp_id=10,
        cmp_version=2,
        vendor_list_version=120,
        consents=frozenset({Purpose(1), Purpose(2), Purpose(4), Purpose(7)}),
        legitimate_interests=frozenset({Purpose(2), Purpose(7), Purpose(9)}),
        vendor_consents=VendorIds.of([2, 3, 4, 5, 76, 900]),
        vendor_legitimate_interests=VendorIds.of([3, 76, 77]),
        disclosed_vendors=VendorIds.of([*range(1, 80), 900, 901]),
    )
    return replace(whole, **changes)


def permitted(string: TcfString) -> set[tuple[int, Purpose, LegalBasis]]:
    """Everything that a string permits to vendors up to 1,000."""
    vendors = [*string.vendor_consents, *string.vendor_legitimate_interests]
    return {
        (vendor, purpose, basis)
        for vendor in vendors
        for purpose in Purpose
        for basis in LegalBasis
        if string.permits(vendor, purpose, basis)
    }


vendor_sets = st.frozensets(st.integers(1, 400), max_size=30).map(VendorIds.of)
purpose_sets = st.frozensets(st.sampled_from(Purpose))


@st.composite
def tcf_strings(draw: st.DrawFn) -> TcfString:
    consents, interests = draw(vendor_sets), draw(vendor_sets)
    day = datetime(2021, 1, 1, tzinfo=UTC) + timedelta(days=draw(st.integers(0, 2100)))
    disclosed = VendorIds(consents.bits | interests.bits | draw(vendor_sets).bits)
    policy = draw(st.integers(2, 5))
    kinds = draw(
        st.lists(
            st.tuples(st.sampled_from(Purpose), st.sampled_from(RestrictionType)),
            unique=True,
            max_size=4,
        )
    )
    custom = draw(st.integers(0, 63))
    customs = st.frozensets(st.integers(1, max(custom, 1)), max_size=custom)
    allowed = draw(purpose_sets)
    return TcfString(
        created=day,
        last_updated=day,
        cmp_id=draw(st.integers(0, 4095)),
        cmp_version=draw(st.integers(0, 4095)),
        consent_screen=draw(st.integers(0, 63)),
        consent_language=draw(st.sampled_from(["EN", "DE", "ZH"])),
        vendor_list_version=draw(st.integers(0, 4095)),
        policy_version=policy,
        non_standard_texts=draw(st.booleans()),
        special_features=draw(st.frozensets(st.integers(1, 2))),
        consents=draw(purpose_sets),
        legitimate_interests=allowed
        - ({Purpose(1), Purpose(3), Purpose(4), Purpose(5), Purpose(6)} if policy > 3 else set()),
        purpose_one_undisclosed=draw(st.booleans()),
        vendor_consents=consents,
        vendor_legitimate_interests=interests,
        restrictions=tuple(PublisherRestriction(*kind, draw(vendor_sets)) for kind in kinds),
        disclosed_vendors=disclosed,
        publisher=draw(
            st.none()
            | st.builds(
                PublisherTc,
                consents=purpose_sets,
                legitimate_interests=purpose_sets,
                custom_purposes=st.just(custom),
                custom_consents=customs,
                custom_legitimate_interests=customs,
            )
        ),
    )


class TestBits:
    @pytest.mark.parametrize(
        ("number", "code"),  # IAB, "Fibonacci Encoding"
        [(1, "11"), (2, "011"), (3, "0011"), (4, "1011"), (5, "00011"), (6, "10011"), (7, "01011")],
    )
    def test_numbers_are_coded_as_published(self, number: int, code: str) -> None:
        writer = BitWriter().put_fibonacci(number)
        assert writer.size == len(code)
        assert writer.text(Filling.CHARACTER) == ALPHABET[int(code.ljust(6, "0"), 2)]

    @given(st.lists(st.integers(1, (1 << 16) - 1), min_size=1, max_size=20))
    def test_numbers_come_back(self, numbers: list[int]) -> None:
        writer = BitWriter()
        for number in numbers:
            writer.put_fibonacci(number)
        reader = BitReader(writer.text(Filling.CHARACTER), "numbers")
        assert [reader.take_fibonacci() for _ in numbers] == numbers
        reader.finish(Filling.CHARACTER)

    @pytest.mark.parametrize("text", ["", "=", "AAA=", "AA A", "AA+A", "ÄÄÄÄ", "A" * 20_000, "A\n"])
    def test_other_characters_are_refused(self, text: str) -> None:
        with pytest.raises(ConsentStringError):
            BitReader(text, "text")

    def test_numbers_out_of_range_are_refused(self) -> None:
        with pytest.raises(ConsentStringError):
            BitWriter().put(4, 2)
        with pytest.raises(ConsentStringError):
            BitWriter().put_fibonacci(0)
        with pytest.raises(ConsentStringError, match="above 65535"):
            BitReader("AAAAAAAAAAAAAA", "zeros").take_fibonacci()


class TestVendors:
    @given(st.frozensets(st.integers(1, 65_535), max_size=40))
    def test_are_a_set(self, ids: frozenset[int]) -> None:
        vendors = VendorIds.of(ids)
        assert list(vendors) == sorted(ids)
        assert len(vendors) == len(ids)
        assert all(one in vendors for one in ids)
        assert 0 not in vendors
        assert (max(ids, default=1) + 1) not in vendors
        assert vendors.largest == max(ids, default=0)

    def test_ids_out_of_range_are_refused(self) -> None:
        for wrong in ([0], [-1], [65_536]):
            with pytest.raises(ConsentStringError):
                VendorIds.of(wrong)


class TestTcf:
    def test_reads_the_published_example(self) -> None:  # IAB, "TC String Format"
        string = decode_tcf(IAB_TCF, now=NOW)
        assert string.last_updated == datetime(2025, 6, 3, tzinfo=UTC)
        assert (string.cmp_id, string.vendor_list_version, string.policy_version) == (880, 48, 2)
        assert (string.consent_language, string.publisher_country) == ("EN", "DE")
        assert list(string.vendor_consents) == [1, 2, 3, 4]
        assert string.disclosed_vendors is not None
        assert string.vendor_consents <= string.disclosed_vendors
        assert string.publisher == PublisherTc()
        assert encode_tcf(string) == IAB_TCF

    def test_reads_what_another_library_wrote(self) -> None:  # iabgpp-java, TcfEuV2Test
        text = "CPSG_8APSG_8AAAAAAENAACgAAAAAAAAAAAAAAAAAAAA.YAAAAAAAAAAA"
        string = decode_tcf(text, now=NOW)
        assert string.created == string.last_updated == datetime(2022, 1, 1, tzinfo=UTC)
        assert (string.policy_version, string.consents, len(string.vendor_consents)) == (
            2,
            frozenset(),
            0,
        )
        assert encode_tcf(string) == text

    @settings(max_examples=60)
    @given(tcf_strings())
    def test_what_is_written_is_read(self, string: TcfString) -> None:
        assert decode_tcf(encode_tcf(string), now=NOW) == string

    @settings(max_examples=60)
    @given(tcf_strings())
    def test_an_oracle_reads_the_same(self, string: TcfString) -> None:
        assert permitted(string) == oracle(encode_tcf(string))

    def test_permits_what_was_consented_to_and_nothing_else(self) -> None:
        string = consenting()
        assert string.permits(2, Purpose(1), LegalBasis.CONSENT)
        assert string.permits(3, Purpose(2), LegalBasis.LEGITIMATE_INTEREST)
        assert not string.permits(2, Purpose(3), LegalBasis.CONSENT)  # purpose without consent
        assert not string.permits(6, Purpose(1), LegalBasis.CONSENT)  # vendor without consent
        assert not string.permits(2, Purpose(2), LegalBasis.LEGITIMATE_INTEREST)
        assert not string.permits(0, Purpose(1), LegalBasis.CONSENT)
        assert not string.permits(-3, Purpose(1), LegalBasis.CONSENT)

    @pytest.mark.parametrize(
        ("restriction", "consent", "interest"),
        [
            (RestrictionType.NOT_ALLOWED, False, False),
            (RestrictionType.REQUIRE_CONSENT, True, False),
            (RestrictionType.REQUIRE_LEGITIMATE_INTEREST, False, True),
        ],
    )
    def test_a_publisher_may_restrict(
        self, restriction: RestrictionType, consent: bool, interest: bool
    ) -> None:
        restrictions = (PublisherRestriction(Purpose(7), restriction, VendorIds.of([3])),)
        string = consenting(restrictions=restrictions)
        assert string.permits(3, Purpose(7), LegalBasis.CONSENT) is consent
        assert string.permits(3, Purpose(7), LegalBasis.LEGITIMATE_INTEREST) is interest
        assert string.permits(76, Purpose(7), LegalBasis.CONSENT)

    def test_permits_nothing_by_a_policy_that_was_over(self) -> None:
        old = consenting(policy_version=3)
        assert old.is_outdated
        assert permitted(consenting())
        assert not permitted(old)
        moment = datetime(2023, 9, 30, tzinfo=UTC)
        assert permitted(replace(old, created=moment, last_updated=moment))

    def test_permits_no_purpose_one_that_nobody_disclosed(self) -> None:
        string = consenting(purpose_one_undisclosed=True)
        assert not string.permits(2, Purpose(1), LegalBasis.CONSENT)
        assert string.permits(2, Purpose(2), LegalBasis.CONSENT)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"disclosed_vendors": None}, "without the segment of disclosed vendors"),
            ({"disclosed_vendors": VendorIds.of([2, 3])}, "not disclosed"),
            ({"policy_version": 6}, "policy version 6"),
            ({"policy_version": 1}, "policy version 1"),
            ({"created": SOME_DAY + timedelta(days=1)}, "before it was created"),
            ({"legitimate_interests": frozenset({Purpose(3)})}, "may not have one"),
        ],
    )
    def test_contradictions_are_refused(self, changes: dict[str, Any], reason: str) -> None:
        with pytest.raises(ConsentStringError, match=reason):
            consenting(**changes)

    @pytest.mark.parametrize("day", [datetime(2026, 2, 28, tzinfo=UTC)])
    def test_disclosed_vendors_may_lack_until_the_day(self, day: datetime) -> None:
        string = consenting(created=day, last_updated=day, disclosed_vendors=None)
        assert decode_tcf(encode_tcf(string), now=NOW) == string
        after = day + timedelta(days=1)
        with pytest.raises(ConsentStringError, match="disclosed"):
            replace(string, created=after, last_updated=after)

    def test_the_future_is_refused(self) -> None:
        text = encode_tcf(consenting())
        assert decode_tcf(text, now=SOME_DAY - timedelta(hours=23))
        with pytest.raises(ConsentStringError, match="future"):
            decode_tcf(text, now=SOME_DAY - timedelta(days=2))

    @pytest.mark.parametrize(
        ("at", "width", "value", "reason"),  # bits of the core segment
        [
            (0, 6, 1, "version"),
            (0, 6, 3, "version"),
            (108, 6, 26, "two letters"),
            (132, 6, 9, "policy"),
            (138, 1, 0, "more than one service"),
            (140, 12, 1, "special feature"),
            (152, 24, 1, "purpose that nobody defined"),
            (176, 24, 1, "purpose that nobody defined"),
            (201, 6, 63, "two letters"),
        ],
    )
    def test_values_out_of_range_are_refused(
        self, at: int, width: int, value: int, reason: str
    ) -> None:
        core, *others = encode_tcf(consenting()).split(".")
        bits = "".join(f"{ALPHABET.index(letter):06b}" for letter in core)
        bits = bits[:at] + f"{value:0{width}b}" + bits[at + width :]
        changed = "".join(ALPHABET[int(bits[k : k + 6], 2)] for k in range(0, len(bits), 6))
        with pytest.raises(ConsentStringError, match=reason):
            decode_tcf(".".join([changed, *others]), now=NOW)

    @pytest.mark.parametrize(
        ("purpose", "kind", "ranges"),
        [
            (0, 0, [(3, 3)]),
            (12, 0, [(3, 3)]),
            (2, 3, [(3, 3)]),
            (2, 0, [(0, 0)]),
            (2, 0, [(5, 4)]),
            (2, 0, [(4, 6), (6, 8)]),
            (2, 0, [(9, 9), (3, 3)]),
        ],
    )
    def test_restrictions_out_of_order_are_refused(
        self, purpose: int, kind: int, ranges: list[tuple[int, int]]
    ) -> None:
        _, *others = encode_tcf(consenting()).split(".")
        core = _with_restriction(consenting(), purpose, kind, ranges)
        with pytest.raises(ConsentStringError):
            decode_tcf(".".join([core, *others]), now=NOW)

    def test_a_restriction_in_order_is_read(self) -> None:
        _, *others = encode_tcf(consenting()).split(".")
        core = _with_restriction(consenting(), 2, 1, [(3, 3), (5, 9)])
        (found,) = decode_tcf(".".join([core, *others]), now=NOW).restrictions
        assert found.restriction is RestrictionType.REQUIRE_CONSENT
        assert list(found.vendors) == [3, 5, 6, 7, 8, 9]

    @pytest.mark.parametrize("text", ["", ".", "!!!!", "C", "CP", "C" * 60, IAB_TCF[:-1] + "B"])
    def test_what_is_no_string_is_refused(self, text: str) -> None:
        with pytest.raises(ConsentStringError):
            decode_tcf(text, now=NOW)


def _with_restriction(
    string: TcfString, purpose: int, kind: int, ranges: list[tuple[int, int]]
) -> str:
    """The core of a string without restrictions, with one that need not be in order."""
    probe = PublisherRestriction(Purpose(2), RestrictionType(0), VendorIds.of([3]))
    core = encode_tcf(replace(string, restrictions=(probe,))).split(".")[0]
    bits = "".join(f"{ALPHABET.index(letter):06b}" for letter in core)
    said = f"{1:012b}{2:06b}{0:02b}{1:012b}0{3:016b}"
    bits = bits[: bits.rindex(said)] + f"{1:012b}{purpose:06b}{kind:02b}{len(ranges):012b}"
    for first, last in ranges:
        bits += f"0{first:016b}" if first == last else f"1{first:016b}{last:016b}"
    bits = bits.ljust(-(-len(bits) // 24) * 24, "0")
    return "".join(ALPHABET[int(bits[k : k + 6], 2)] for k in range(0, len(bits), 6))


def oracle(text: str) -> set[tuple[int, Purpose, LegalBasis]]:
    """What a string permits, read another way: as text of zeros and ones, by the specification."""
    segments = ["".join(f"{ALPHABET.index(c):06b}" for c in part) for part in text.split(".")]
    core, *others = segments
    place = 213

    def number(width: int) -> int:
        nonlocal place
        place += width
        return int(core[place - width : place], 2)

    def ranges() -> set[int]:
        found: set[int] = set()
        for _ in range(number(12)):
            several, first = number(1), number(16)
            found.update(range(first, (number(16) if several else first) + 1))
        return found

    def vendors() -> set[int]:
        most = number(16)
        if number(1):
            return ranges()
        return {vendor for vendor in range(1, most + 1) if number(1)}

    by_basis = {LegalBasis.CONSENT: vendors(), LegalBasis.LEGITIMATE_INTEREST: vendors()}
    restricted = [(number(6), number(2), ranges()) for _ in range(number(12))]
    purposes = {LegalBasis.CONSENT: core[152:176], LegalBasis.LEGITIMATE_INTEREST: core[176:200]}
    policy, seconds = int(core[132:138], 2), int(core[42:78], 2) / 10
    if policy < 4 and seconds >= datetime(2023, 10, 1, tzinfo=UTC).timestamp():
        return set()
    disclosed = next((part for part in others if part.startswith("001")), None)
    if disclosed is None and seconds >= datetime(2026, 3, 1, tzinfo=UTC).timestamp():
        return set()
    return {
        (vendor, purpose, basis)
        for basis in LegalBasis
        for vendor in by_basis[basis]
        for purpose in Purpose
        if purposes[basis][purpose - 1] == "1"
        and not (purpose == 1 and core[200] == "1")
        and not (basis is LegalBasis.LEGITIMATE_INTEREST and purpose in (1, 3, 4, 5, 6))
        and all(
            kind == (1 if basis is LegalBasis.CONSENT else 2)
            for restricted_purpose, kind, some in restricted
            if restricted_purpose == purpose and vendor in some
        )
    }


def damaged(text: str, chance: random.Random) -> Iterator[str]:
    """A string cut short, lengthened, padded, or with parts lost, doubled or moved."""
    place = chance.randrange(len(text))
    letter = chance.choice(ALPHABET)
    parts = text.split(".")
    yield text[:place]
    yield text[place:]
    yield text + "A" * chance.randint(1, 8)
    yield text + letter
    yield text + "=" * chance.randint(1, 3)
    yield text + chance.choice([" ", "\n", ".", "..", "~", "\0"])
    yield text[:place] + chance.choice("+/=*% \n.~") + text[place:]
    yield ".".join(chance.sample(parts, len(parts)))
    yield ".".join(parts[: chance.randint(0, len(parts) - 1)])
    yield ".".join([*parts, chance.choice(parts)])


def changed(text: str, chance: random.Random) -> Iterator[str]:
    """A string with letters changed, lost or put in, which may be another good string."""
    place = chance.randrange(len(text))
    letter = chance.choice(ALPHABET)
    yield text[:place] + letter + text[place + 1 :]
    yield text[:place] + text[place + 1 :]
    yield text[:place] + letter + text[place:]


class TestDamage:
    @settings(max_examples=60)
    @given(tcf_strings(), st.randoms(use_true_random=False))
    def test_permits_nothing_that_the_whole_did_not(
        self, string: TcfString, chance: random.Random
    ) -> None:
        text = encode_tcf(string)
        for other in damaged(text, chance):
            try:
                read = decode_tcf(other, now=NOW)
            except ConsentStringError:
                continue
            assert permitted(read) <= permitted(string)

    @settings(max_examples=60)
    @given(tcf_strings(), st.randoms(use_true_random=False))
    def test_what_was_changed_says_what_its_bits_say_or_is_refused(
        self, string: TcfString, chance: random.Random
    ) -> None:
        for other in changed(encode_tcf(string), chance):
            try:
                read = decode_tcf(other, now=NOW)
            except ConsentStringError:
                continue
            assert permitted(read) <= oracle(other)
            assert decode_tcf(encode_tcf(read), now=NOW) == read

    @given(st.text(max_size=80))
    def test_any_text_is_refused_or_read_as_ours(self, text: str) -> None:
        for decode in (decode_tcf, decode_gpp):
            try:
                decode(text, now=NOW)
            except ConsentStringError:
                continue


# iabgpp-java, Us*Test: the sections that its tests encode with no answers, and with some.
US_VECTORS = {
    7: ("BAAAAAAAAABA.QA", "BVVVkkkkkpFY.YA"),
    8: ("BAAAAABA.QA", "BVWSSSVY.YA"),
    9: ("BAAAABA", "BVWSSVY"),
    10: ("BAAAAEA.QA", "BVWSSVg.YA"),
    11: ("BAAAAAQA", "BVVkklWA"),
    12: ("BAAAAAEA.QA", "BVWSSZFg.YA"),
    13: ("BAAAAABA", "BVWSSZlY"),
    14: ("BAAAAABA.QA", "BVWSSZFY.YA"),
    15: ("BAAAAAABAA.QA", "BVWSSRpFYA.YA"),
    16: ("BAAAAAQA.QA", "BVWSSVWA.YA"),
    17: ("BAAAAAABAA.QA", "BVWSSSSVYA.YA"),
    18: ("BAAAAAQA.QA", "BVVkklWA.YA"),
    19: ("BAAAAAQA.QA", "BVWSSVWA.YA"),
    20: ("BAAAAABA.QA", "BVWSSZFY.YA"),
    21: ("BAAAAAAAQA.QA", "BVWSSRklWA.YA"),
    22: ("BAAAAAQA.QA", "BVWSSVWA.YA"),
    23: ("BAAAAAQA.QA", "BVWSSVWA.YA"),
}


def gpp_of(section: int, text: str) -> str:
    """A GPP string of one section."""
    header = BitWriter().put(3, 6).put(1, 6).put(1, 12).put(0, 1).put_fibonacci(section)
    return f"{header.text(Filling.BYTE)}~{text}"


class TestGpp:
    @pytest.mark.parametrize(
        ("header", "sections"),  # IAB, "GPP String Examples": filled to a character
        [("DBABM", [2]), ("DBACNY", [2, 6])],
    )
    def test_reads_the_published_headers(self, header: str, sections: list[int]) -> None:
        bodies = ["CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA", "1YNN"][: len(sections)]
        string = decode_gpp("~".join([header, *bodies]), now=NOW)
        assert list(string.sections) == sections
        filled = "~".join([header + "A", *bodies])  # iabgpp-java fills to a byte
        assert encode_gpp(string) == filled
        assert decode_gpp(filled, now=NOW) == string

    def test_reads_many_sections(self) -> None:  # iabgpp-java, GppModelTest, without section 5
        bodies = {
            2: "CPSG_8APSG_8AAAAAAENAACgAAAAAAAAAAAAAAAAAAAA",
            6: "1---",
            **{section: texts[0] for section, texts in US_VECTORS.items()},
        }
        header = BitWriter().put(3, 6).put(1, 6).put(2, 12).put(0, 1).put_fibonacci(2)
        header.put(1, 1).put_fibonacci(4).put_fibonacci(17)
        text = "~".join([header.text(Filling.BYTE), *bodies.values()])
        string = decode_gpp(text, now=NOW)
        assert list(string.sections) == [2, *range(6, 24)]
        assert encode_gpp(string) == text

    @pytest.mark.parametrize("section", US_VECTORS)
    def test_reads_every_us_section(self, section: int) -> None:
        for text, gpc in zip(US_VECTORS[section], (False, True), strict=True):
            string = decode_gpp(gpp_of(section, text), now=NOW)
            found = string.sections[SectionId(section)]
            assert isinstance(found, UsSection)
            assert found.gpc is (gpc if "." in text else None)
            assert found.answers["MspaCoveredTransaction"] == (Answer.FIRST,)
            assert encode_gpp(string) == gpp_of(section, text)

    def test_reads_a_national_section_field_by_field(self) -> None:
        string = decode_gpp(gpp_of(7, "BVVVkkkkkpFY.YA"), now=NOW)
        found = string.sections[SectionId.US_NATIONAL]
        assert isinstance(found, UsSection)
        assert found.answers["SaleOptOut"] == (1,)
        sensitive = (2, 1, 0, 2, 1, 0, 2, 1, 0, 2, 1, 0, 2, 1, 0, 2)
        assert found.answers["SensitiveDataProcessing"] == sensitive
        assert found.answers["KnownChildSensitiveDataConsents"] == (2, 1, 0)
        assert found.answers["MspaServiceProviderMode"] == (2,)

    def test_reads_the_shorter_national_section(self) -> None:  # iabgpp-java, UsNatTest
        found = decode_gpp(gpp_of(7, "BVQqAAAACg"), now=NOW).sections[SectionId.US_NATIONAL]
        assert isinstance(found, UsSection)
        assert len(found.answers["SensitiveDataProcessing"]) == 12

    @pytest.mark.parametrize("processing", Processing)
    def test_a_us_section_permits_only_after_notice_and_without_opt_out(
        self, processing: Processing
    ) -> None:
        layout = LAYOUTS[7][0]
        yes = {name: (Answer.NOT_APPLICABLE,) * count for name, count in layout.fields}
        for name in yes:
            if name.endswith("OptOutNotice"):
                yes[name] = (Answer.FIRST,)
            elif name.endswith("OptOut"):
                yes[name] = (Answer.SECOND,)
        section = UsSection(7, 1, yes, gpc=False)
        assert section.permits(processing)
        for silent in (True, None):
            assert not replace(section, gpc=silent).permits(processing)
        for name, answers in yes.items():
            for answer in Answer:
                other = replace(section, answers={**yes, name: (answer,) * len(answers)})
                assert not other.permits(processing) or section.permits(processing)
        none = {name: (Answer.NOT_APPLICABLE,) * count for name, count in layout.fields}
        assert not replace(section, answers=none).permits(processing)
        child = {"KnownChildSensitiveDataConsents": (Answer.SECOND, Answer.FIRST, Answer.SECOND)}
        assert not replace(section, answers={**yes, **child}).permits(processing)

    @pytest.mark.parametrize(
        ("text", "sale"),
        [("1YNN", True), ("1YNY", True), ("1YYN", False), ("1NNN", False), ("1---", False)],
    )
    def test_reads_us_privacy(self, text: str, sale: bool) -> None:
        string = decode_gpp(gpp_of(6, text), now=NOW)
        found = string.sections[SectionId.US_PRIVACY]
        assert isinstance(found, UsPrivacy)
        assert found.permits(Processing.SALE) is sale
        assert not found.permits(Processing.TARGETED_ADVERTISING)
        assert encode_gpp(string) == gpp_of(6, text)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "DBABM",
            "DBABM~",
            "DBABM~~",
            "DBABMAA~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA",
            "DBABTA~1YN",
            "DBABTA~1YNNN",
            "DBABTA~2YNN",
            "DBABTA~1ynn",
            "DBABTA~1YNN~1YNN",
            gpp_of(1, "BAAA"),
            gpp_of(3, "BAAA"),
            gpp_of(5, "BPSG_8APSG_8AAAAAAENAACAAAAAAAAAAAAAAAAAAAA.YAAAAAAAAAA"),
            gpp_of(24, "BAAAAAQA"),
            gpp_of(28, "BAAAAAQA"),
            gpp_of(8, "BAAAAABA.QA.QA"),
            gpp_of(8, "BAAAAABA.AA"),
            gpp_of(8, "BAAAAABA.QB"),
            gpp_of(8, "BAAAAAAA"),  # not said whether covered
            gpp_of(8, "CAAAAABA"),  # version 2
            gpp_of(8, "B_AAAABA"),  # answers of 3
            gpp_of(8, "BAAAAA"),
            gpp_of(8, "BAAAAABAAA"),
            gpp_of(9, "BAAAABA.QA"),  # Virginia has no such part
        ],
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(ConsentStringError):
            decode_gpp(text, now=NOW)

    def test_a_string_may_have_no_section(self) -> None:  # iabgpp-java, GppModelTest
        assert dict(decode_gpp("DBAA", now=NOW).sections) == {}

    def test_sections_out_of_order_are_not_written(self) -> None:
        string = decode_gpp(gpp_of(6, "1YNN"), now=NOW)
        one = string.sections[SectionId.US_PRIVACY]
        wrong = GppString({SectionId.US_PRIVACY: one, SectionId.EU_TCF: consenting()})
        with pytest.raises(ConsentStringError, match="ascend"):
            encode_gpp(wrong)

    @settings(max_examples=60)
    @given(st.sampled_from(sorted(LAYOUTS)), st.booleans(), st.randoms(use_true_random=False))
    def test_damage_permits_nothing_that_the_whole_did_not(
        self, section: int, gpc: bool, chance: random.Random
    ) -> None:
        answers = {
            name: tuple(chance.choice([Answer(0), Answer(1), Answer(2)]) for _ in range(count))
            for name, count in LAYOUTS[section][0].fields
        }
        answers["MspaCoveredTransaction"] = (Answer.FIRST,)
        before = UsSection(section, 1, answers, gpc if LAYOUTS[section][0].gpc else None)
        whole = encode_gpp(GppString({SectionId(section): before}))
        assert decode_gpp(whole, now=NOW).sections[SectionId(section)] == before
        for other in damaged(whole, chance):
            try:
                sections = decode_gpp(other, now=NOW).sections
            except ConsentStringError:
                continue
            for found in sections.values():
                assert isinstance(found, UsSection)
                for processing in Processing:
                    assert before.permits(processing) or not found.permits(processing)
