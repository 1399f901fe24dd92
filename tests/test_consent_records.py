"""Journals, cohorts, records: crash-safe, keyed, closed."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import PURPOSE, World
from pydantic import ValidationError
from test_agreement import make_terms
from test_measure import MEASURE_TERMS

from compliance.agreement import Agreement
from compliance.consent import (
    ConsentBook,
    ConsentEvent,
    ConsentEventKind,
    ConsentJournal,
    SeparateConsent,
    cohort_root,
    commitment,
)
from compliance.consent.exports import to_dpv, to_kantara
from compliance.consent.record import ConsentNotice, ConsentReceipt, ConsentRecord, json_schema
from compliance.errors import ConsentError
from compliance.records import ConsentUsed
from compliance.subject_keys import SubjectKey
from federation import cli
from federation.consent_reading import ConsentReading
from federation.members import load_people

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
GIVEN, WITHDRAWN = ConsentEventKind.GIVEN, ConsentEventKind.WITHDRAWN
KEY = bytes(range(32))


def event(subject: str = "R1", kind: ConsentEventKind = GIVEN, *, step: int = 0) -> ConsentEvent:
    separate = frozenset([SeparateConsent.SENSITIVE])
    return ConsentEvent(
        subject,
        PURPOSE,
        kind,
        NOON + timedelta(seconds=step),
        separate,
        expires=NOON.replace(year=2030),
    )


def load(path: Path) -> ConsentBook:
    return ConsentBook.load(path, purposes=[PURPOSE])


class TestJournal:
    def test_what_is_appended_is_read(self, tmp_path: Path) -> None:
        journal = ConsentJournal(tmp_path / "consents.csv")
        events = [event('a,"b'), event("ä", WITHDRAWN, step=1)]
        assert [journal.append(events[0]), journal.append(events[1])] == [1, 2]
        assert load(tmp_path / "consents.csv") == ConsentBook.empty(purposes=[PURPOSE]).append(
            events
        )

    def test_a_crash_anywhere_in_a_row_loses_that_row_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "consents.csv"
        ConsentJournal(path).append(event())
        before = path.stat().st_size
        ConsentJournal(path).append(event(kind=WITHDRAWN, step=1))
        whole = path.read_bytes()
        for size in range(before + 1, len(whole)):
            path.write_bytes(whole[:size])
            if size < len(whole) - 1:
                with pytest.raises(ConsentError):
                    load(path)
            assert ConsentJournal(path).append(event("R2")) == 2
            assert load(path).log_size == 2

    def test_a_file_of_other_columns_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "consents.csv"
        path.write_text("subject,purpose,event,time\n")
        with pytest.raises(ConsentError, match="other columns"):
            ConsentJournal(path).append(event())

    def test_a_line_break_in_a_subject_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConsentError, match="line break"):
            ConsentJournal(tmp_path / "consents.csv").append(event("a\nb"))

    def test_a_commitment_binds_key_and_body(self) -> None:
        key = SubjectKey(KEY)
        found = {commitment(key, event()), commitment(SubjectKey(bytes(32)), event())}
        found |= {commitment(key, event("R2")), commitment(key, event(step=1))}
        assert len(found) == 4


class TestInterleavings:
    @settings(max_examples=15)
    @given(seed=st.integers(0, 2**32 - 1))
    def test_nobody_is_used_after_a_withdrawal(self, seed: int) -> None:
        steps = np.random.default_rng(seed).integers(0, 3, (20, 6))
        book = ConsentBook.empty(purposes=[PURPOSE])
        subjects = np.array([f"R{n}" for n in range(20)])
        state = np.zeros(20, dtype=bool)
        for step in range(6):
            kinds = (GIVEN, WITHDRAWN)
            told = np.flatnonzero(steps[:, step] < 2)
            book = book.append(
                event(str(subjects[n]), kinds[steps[n, step]], step=step) for n in told
            )
            state[told] = steps[told, step] == 0
            at = NOON + timedelta(seconds=step)
            assert book.decide(subjects, purpose=PURPOSE, at=at).allowed.tolist() == state.tolist()


class TestRecipients:
    @pytest.mark.parametrize(
        ("computation", "expected"),
        [
            ("match", {"acme", "operator"}),
            ("train", {"acme", "operator", "courier"}),
            ("expand", {"acme", "operator"}),
            ("measure", {"acme", "operator"}),
        ],
    )
    def test_whoever_is_told_in_the_end_is_one(
        self, tmp_path: Path, computation: str, expected: set[str]
    ) -> None:
        purposes = ("match", "train", "expand", "measure")
        found = make_terms()
        for name in purposes[:3]:
            found[name]["purpose"] = name
        found["measure"] = MEASURE_TERMS | {
            "purpose": "measure",
            "delta": 1e-6,
            "columns": [{"name": "age", "edges": [40]}],
        }
        agreement = Agreement.from_terms(found | {"purposes": purposes})
        reading = ConsentReading(
            tmp_path / "none.csv", agreement.purposes, agreement=agreement, party="retailer"
        )
        assert set(reading.conditions(computation).recipients) == expected


class TestCohort:
    @given(st.sets(st.text(min_size=1, max_size=4).filter(lambda t: t.isprintable()), max_size=8))
    def test_order_does_not_matter_and_people_and_key_do(self, people: set[str]) -> None:
        def root(names: list[str], key: bytes = KEY) -> str:
            return cohort_root(key, [pa.array(names, pa.large_string())])

        there = root(sorted(people))
        assert root(sorted(people, reverse=True)) == there
        assert root([*people, "longer than any"]) != there
        assert root(sorted(people), bytes(32)) != there

    def test_where_a_subject_ends_matters(self) -> None:
        roots = {cohort_root(KEY, [pa.array(names)]) for names in (["ab", "c"], ["a", "bc"])}
        assert len(roots) == 2

    def test_an_auditor_folds_the_consents_again(self, tmp_path: Path) -> None:
        world = World.make(tmp_path)
        world.run()
        folder = world.folder("retailer")
        people = folder.job("find") / "people"
        (used, *_) = [
            leaf
            for leaf in world.leaves("retailer")
            if isinstance(leaf, ConsentUsed) and leaf.job == "find"
        ]
        agreement = folder.agreement()
        assert set(used.recipients) == {"brand", "coordinator", "courier"}
        reading = ConsentReading(
            folder.resolve(folder.config.consent),
            agreement.purposes,
            agreement=agreement,
            party="retailer",
        )
        key, cohort = folder.cohort_key(agreement.digest), load_people(people).keys
        reading.check_cohort(used, cohort, key, tmp_path / "one")
        for number, change in enumerate(({"cohort_root": "0" * 64}, {"consent_log_size": 1})):
            forged = used.model_copy(update=change)
            with pytest.raises(ConsentError):
                reading.check_cohort(forged, cohort, key, tmp_path / f"other-{number}")


PARTY = {
    "party_id": "retailer",
    "party_name": "Retailer",
    "party_role": "pii_controller",
    "party_address": "1 High Street",
    "party_email": "privacy@example.org",
    "party_url": "https://example.org",
    "party_country": "GB",
    "party_type": "retailer",
    "party_contact": "The data protection officer",
}
NOTICE = {
    "purpose": PURPOSE,
    "text": "We find people like you.",
    "language": "en",
    "privacy_notice": "https://example.org/privacy",
    "withdrawal_method": "https://example.org/withdraw",
    "separate": {"sensitive": "We use what you told us of your health."},
    "pii_types": ["age"],
    "parties": [PARTY],
    "jurisdiction": ["GB"],
    "storage_locations": ["GB"],
    "retention_period": "P1Y",
    "collection_method": "web form",
    "steps_to_give": 2,
    "steps_to_withdraw": 2,
}


class TestRecords:
    @pytest.mark.parametrize(
        "change",
        [
            {"default": True},
            {"preselected": ["sensitive"]},
            {"steps_to_withdraw": 3},
            {"withdrawal_method": ""},
            {"text": ""},
            {"parties": []},
        ],
    )
    def test_a_notice_that_would_mislead_is_refused(self, change: dict[str, Any]) -> None:
        ConsentNotice.model_validate(NOTICE)
        with pytest.raises(ValidationError):
            ConsentNotice.model_validate(NOTICE | change)

    def test_a_receipt_fits_its_published_schema(self) -> None:
        events = (event(), event(kind=WITHDRAWN, step=1))
        kept = ConsentRecord.of("r-1", ConsentNotice.model_validate(NOTICE), events)
        receipt = json.loads(ConsentReceipt.of(kept, NOON).model_dump_json())
        schema = json_schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(receipt, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**receipt, "ticked": True}, schema)
        kantara, dpv = to_kantara(kept), to_dpv(kept)
        assert (kantara["version"], kantara["sensitive"]) == ("KI-CR-v1.1.0", True)
        statuses: Any = dpv["dpv:hasConsentStatus"]
        assert [s["@type"] for s in statuses] == ["dpv:ConsentGiven", "dpv:ConsentWithdrawn"]

    def test_withdrawing_asks_for_nothing_that_giving_does_not(self) -> None:
        group: Any = typer.main.get_command(cli.app)
        consent = group.commands["consent"].commands
        needed = {name: {p.name for p in consent[name].params} for name in ("give", "withdraw")}
        assert needed["withdraw"] < needed["give"]
