"""An agreement's life: what follows what, who ends it, and what a change does to protection."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from test_agreement import IDENTITY, PURPOSE, make_agreement, make_terms, seeded, signed_by_all

from compliance.agreement import Agreement, SignedAgreement
from compliance.comparison import Change, Effect, compare
from compliance.errors import AlteredAgreementError, InvalidAgreementError, UnsignedAgreementError
from compliance.lifecycle import (
    Ending,
    State,
    Succession,
    amend,
    check_amendment,
    in_force,
    replaced_keys,
    status_of,
)
from compliance.log.cosignature import CosigningKey
from compliance.log.note import NoteKey
from compliance.notice import Notice, SignedNotice
from compliance.rendering import render, render_html

DAY = timedelta(days=1)
FIRST = make_agreement(termination={"notice_days": 30, "text": "In writing."})
CHANGE = FIRST.valid_from + 100 * DAY
SECOND = amend(FIRST, {"valid_from": CHANGE, "budget": {"epsilon": 4.0, "delta": 1e-6}})
THIRD = amend(SECOND, {"valid_from": CHANGE + 100 * DAY})


def notice(
    agreement: Agreement = FIRST,
    party: str = "courier",
    *,
    after: int = 30,
    at: datetime | None = None,
) -> SignedNotice:
    given = at or FIRST.valid_from + 10 * DAY
    return SignedNotice.sign(
        Notice(
            agreement=agreement.digest,
            party=party,
            given=given,
            effective_from=given + after * DAY,
            reason="the campaign is over",
        ),
        IDENTITY[party],
    )


def logged(name: str, seed: str) -> str:
    return NoteKey(name, seeded(seed).public).to_string()


def signed(agreement: Agreement, *names: str) -> SignedAgreement:
    found = SignedAgreement.draft(agreement)
    for name in names:
        found = found.sign(name, IDENTITY[name])
    return found


ALL = tuple(IDENTITY)
FOLLOWS: Mapping[State, frozenset[State]] = {
    State.DRAFT: frozenset(State) - {State.DRAFT},
    State.PARTLY_SIGNED: frozenset(State) - {State.DRAFT, State.PARTLY_SIGNED},
    State.SIGNED: frozenset({State.ACTIVE, State.AMENDED, State.ENDED}),
    State.ACTIVE: frozenset({State.AMENDED, State.ENDED}),
    State.AMENDED: frozenset({State.ENDED}),  # by a notice that takes effect before
    State.ENDED: frozenset({State.AMENDED}),  # all signed anew, from before the end
}
"""Every pair of states that may follow each other as documents come and time passes."""


class TestStates:
    def histories(self) -> set[tuple[State, State]]:
        """Every pair that occurs while documents are added and time goes on."""
        signatures = signed(FIRST), signed(FIRST, "acme"), signed_by_all(FIRST)
        second = signed_by_all(SECOND)
        moments = (
            FIRST.valid_from - DAY,
            FIRST.valid_from,
            FIRST.valid_from + 40 * DAY,
            CHANGE,
            FIRST.valid_until,
        )
        # What there may be beside the version itself: notices and later versions only grow.
        beside = [
            (versions, notices) for versions in ((), (second,)) for notices in ((), (notice(),))
        ]
        points = list(itertools.product(range(3), range(5), range(4)))
        states: dict[tuple[int, int, int], State] = {}
        for point in points:
            by, when, extra = point
            versions, notices = beside[extra]
            states[point] = status_of(
                signatures[by],
                moments[when],
                versions=versions,
                notices=notices,
            ).state
        later = {0: {0, 1, 2, 3}, 1: {1, 3}, 2: {2, 3}, 3: {3}}
        return {
            (states[a], states[b])
            for a, b in itertools.product(points, points)
            if a[0] <= b[0] and a[1] <= b[1] and b[2] in later[a[2]] and states[a] != states[b]
        }

    def test_no_pair_follows_that_must_not_and_all_that_may_do(self) -> None:
        found = self.histories()
        for pair in itertools.product(State, State):
            assert (pair in found) == (pair[1] in FOLLOWS[pair[0]]), pair

    def test_a_draft_names_who_has_yet_to_sign(self) -> None:
        status = status_of(signed(FIRST, "acme"), FIRST.valid_from)
        assert status.missing == ("courier", "retailer", "operator")
        assert status.ends is None

    @pytest.mark.parametrize(
        ("at", "expected"),
        [
            (FIRST.valid_from - timedelta(microseconds=1), None),
            (FIRST.valid_from, FIRST),
            (CHANGE - timedelta(microseconds=1), FIRST),
            (CHANGE, SECOND),
            (THIRD.valid_from, THIRD),
            (THIRD.valid_until, None),
        ],
        ids=str,
    )
    def test_one_version_is_in_force(self, at: datetime, expected: Agreement | None) -> None:
        versions = [signed_by_all(one) for one in (THIRD, FIRST, SECOND, FIRST)]
        assert in_force(versions, (), at) == expected

    def test_a_notice_ends_its_version_and_those_before(self) -> None:
        told = notice(SECOND, at=FIRST.valid_from + DAY)
        held = Succession.of([signed_by_all(FIRST), signed_by_all(SECOND)], [told])
        at = FIRST.valid_from + 31 * DAY
        assert held.in_force(at - timedelta(microseconds=1)) == FIRST
        assert held.in_force(at) is None
        assert held.in_force(CHANGE) is None
        assert held.status(FIRST, at).ending is Ending.NOTICE

    def test_a_version_that_all_sign_goes_on_after_a_notice_about_the_one_before(self) -> None:
        held = Succession.of([signed_by_all(FIRST), signed_by_all(SECOND)], [notice()])
        assert held.in_force(FIRST.valid_from + 50 * DAY) is None
        assert held.in_force(CHANGE) == SECOND

    def test_the_earliest_notice_counts(self) -> None:
        later = notice(party="acme", after=60)
        held = Succession.of([signed_by_all(FIRST)], [later, notice()])
        assert held.status(FIRST, FIRST.valid_from).notice == notice().verify(FIRST)


class TestNotices:
    def test_a_shorter_one_than_agreed(self) -> None:
        with pytest.raises(InvalidAgreementError, match="30 days of notice are agreed"):
            notice(after=29).verify(FIRST)

    def test_without_terms_of_termination(self) -> None:
        with pytest.raises(InvalidAgreementError, match="no terms of termination"):
            notice(make_agreement()).verify(make_agreement())

    def test_of_a_stranger(self) -> None:
        strange = Notice.model_validate(notice().unverified().model_dump() | {"party": "stranger"})
        with pytest.raises(InvalidAgreementError, match="no party 'stranger'"):
            SignedNotice.sign(strange, IDENTITY["acme"]).verify(FIRST)

    def test_signed_by_another(self) -> None:
        told = notice().unverified()
        with pytest.raises(AlteredAgreementError, match="notice of 'courier'"):
            SignedNotice.sign(told, IDENTITY["acme"]).verify(FIRST)
        twice = replace(
            notice(), envelope=notice().envelope.add_signature("acme", IDENTITY["acme"])
        )
        with pytest.raises(AlteredAgreementError, match="another's signature"):
            twice.verify(FIRST)

    def test_about_a_version_that_is_not_at_hand(self) -> None:
        with pytest.raises(InvalidAgreementError, match="not at hand"):
            Succession.of([signed_by_all(FIRST)], [notice(SECOND)])

    def test_it_comes_back_from_its_file_and_no_agreement_does(self) -> None:
        assert SignedNotice.from_json(notice().to_json()) == notice()
        for wrong in (signed_by_all(FIRST).to_json(), b"", b"{}"):
            with pytest.raises(InvalidAgreementError, match="no signed notice"):
                SignedNotice.from_json(wrong)

    def test_a_reason_holds_no_address(self) -> None:
        with pytest.raises(ValueError, match="no '@'"):
            Notice.model_validate(
                notice().unverified().model_dump() | {"reason": "ask a@b.example"}
            )


class TestAmendments:
    def test_numbers_and_digests_are_a_chain(self) -> None:
        assert (FIRST.number, SECOND.number, THIRD.number) == (1, 2, 3)
        assert (SECOND.supersedes, THIRD.supersedes) == (FIRST.digest, SECOND.digest)
        assert FIRST.lineage == SECOND.lineage == THIRD.lineage == FIRST.digest

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"name": "autumn"}, "it is called 'autumn'"),
            ({"valid_from": FIRST.valid_from}, "valid_from: expected after"),
        ],
        ids=str,
    )
    def test_what_cannot_follow(self, changes: dict[str, Any], problem: str) -> None:
        with pytest.raises(InvalidAgreementError, match=problem):
            amend(FIRST, {"valid_from": CHANGE} | changes)

    def test_a_version_is_left_out(self) -> None:
        with pytest.raises(InvalidAgreementError, match="expected number 2, got 3"):
            Succession.of([signed_by_all(FIRST), signed_by_all(THIRD)])

    def test_a_version_of_another_agreement(self) -> None:
        other = make_agreement(title="Another")
        with pytest.raises(InvalidAgreementError, match="it supersedes"):
            check_amendment(other, SECOND)

    def test_not_signed_by_all(self) -> None:
        with pytest.raises(UnsignedAgreementError, match="operator"):
            Succession.of([signed_by_all(FIRST), signed(SECOND, *ALL[:3])])

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"log_key": logged("comity/other", "2"), "cosigning_key": None}, "keep its name"),
            ({"cosigning_key": None}, "gives up its cosigning key"),
        ],
        ids=["log", "cosigning"],
    )
    def test_what_of_a_log_stays(self, changes: dict[str, Any], problem: str) -> None:
        brand, *others = FIRST.parties
        changed = brand.model_copy(update=changes)
        with pytest.raises(InvalidAgreementError, match=problem):
            amend(FIRST, {"valid_from": CHANGE, "parties": (changed, *others)})

    @pytest.mark.parametrize("key", ["log_key", "cosigning_key"])
    def test_a_key_that_a_log_gave_up_never_comes_back(self, key: str) -> None:
        brand, *others = FIRST.parties
        name = f"comity/{brand.name}"
        cosigning = CosigningKey.from_seed(name, bytes([9]) * 32).public.to_string()
        fresh = {"log_key": logged(name, "2"), "cosigning_key": cosigning}[key]
        changed = brand.model_copy(update={key: fresh})
        second = amend(FIRST, {"valid_from": CHANGE, "parties": (changed, *others)})
        third = amend(second, {"valid_from": CHANGE + DAY, "parties": FIRST.parties})
        held = Succession.of(map(signed_by_all, (FIRST, second)))
        assert [one.key for one in replaced_keys(brand, changed)] == [key]
        with pytest.raises(InvalidAgreementError, match="version 3 names a key of the log of"):
            held.check_next(third)
        with pytest.raises(InvalidAgreementError, match="make a new one"):
            Succession.of(map(signed_by_all, (FIRST, second, third)))

    def test_a_party_that_comes_back_keeps_its_log(self) -> None:
        out = FIRST.party("courier")
        without = amend(
            FIRST,
            {
                "valid_from": CHANGE,
                "parties": tuple(one for one in FIRST.parties if one != out),
                "datasets": tuple(one for one in FIRST.datasets if one.party != "courier"),
                "train": FIRST.train.model_copy(update={"max_parties_per_person": 1}),
            },
        )
        other = NoteKey("comity/courier", seeded("another log").public).to_string()
        new_log = out.model_copy(update={"log_key": other, "cosigning_key": None})
        renamed = out.model_copy(update={"name": "carrier"})
        for one, problem in (
            (new_log, "comes back with another log key"),
            (renamed, "log key of 'courier'"),
        ):
            datasets = [
                each if each.party != "courier" else each.model_copy(update={"party": one.name})
                for each in FIRST.datasets
            ]
            terms = {
                "valid_from": CHANGE + DAY,
                "parties": (*without.parties, one),
                "datasets": tuple(datasets),
            }
            with pytest.raises(InvalidAgreementError, match=problem):
                amend(without, terms)
        terms |= {"parties": FIRST.parties, "datasets": FIRST.datasets}
        back = amend(without, terms)
        assert [one.name for one in back.earlier] == sorted(one.name for one in FIRST.parties)
        assert back.amends is not None
        forged = back.model_copy(update={"amends": back.amends.model_copy(update={"earlier": ()})})
        with pytest.raises(InvalidAgreementError, match=r"amends\.earlier"):
            check_amendment(without, forged)

    def test_a_party_keeps_its_role(self) -> None:
        terms = make_terms()["parties"]
        terms[0]["role"], terms[1]["role"] = "partner", "brand"
        with pytest.raises(InvalidAgreementError, match="'acme' changes its role"):
            amend(FIRST, {"valid_from": CHANGE, "parties": terms})

    def test_the_delta_of_cut_noise_counts_over_all_versions(self) -> None:
        sizes = make_terms()["match"] | {
            "reveal": "size-only",
            "size_epsilon": 1.0,
            "keys": ["email"],
        }
        datasets = [one | {"identifiers": ["email"]} for one in make_terms()["datasets"]]
        first = make_agreement(match=sizes, datasets=datasets)
        second = amend(first, {"valid_from": CHANGE})
        periods = 12 * 2 * 1e-12  # matches a period, partners, size_delta
        assert second.amends is not None
        assert second.amends.cut_delta == pytest.approx(4 * periods)  # 100 days of 30
        assert second.cut_delta == pytest.approx((4 + 9) * periods)  # and 265 days
        forged = second.model_copy(
            update={"amends": second.amends.model_copy(update={"cut_delta": 0.0})}
        )
        with pytest.raises(InvalidAgreementError, match=r"amends\.cut_delta"):
            check_amendment(first, forged)


def change(path: str, value: object) -> Agreement:
    terms: Any = make_terms()
    *steps, last = path.split(".")
    at = terms
    for step in steps:
        at = at[int(step)] if step.isdigit() else at[step]
    at[last] = value
    return Agreement.from_terms(terms)


class TestComparison:
    @pytest.mark.parametrize(
        ("path", "value", "term", "effect"),
        [
            ("budget.epsilon", 4.0, "budget.epsilon", Effect.WEAKENS),
            ("budget.epsilon", 2.5, "budget.epsilon", Effect.STRENGTHENS),
            ("match.minimum_match", 50, "match.minimum_match", Effect.WEAKENS),
            ("match.minimum_match", 200, "match.minimum_match", Effect.STRENGTHENS),
            ("match.reveal", "both-learn-members", "match.reveal", Effect.WEAKENS),
            ("match.reveal", "brand-learns-members", "match.reveal", Effect.WEAKENS),
            ("match.reveal_keys", True, "match.reveal_keys", Effect.WEAKENS),
            ("match.size_epsilon", 1.0, "match.size_epsilon", Effect.WEAKENS),
            ("expand.minimum_segment", 10, "expand.minimum_segment", Effect.WEAKENS),
            ("purposes", [PURPOSE], "purposes.newsletter", Effect.STRENGTHENS),
            (
                "purposes",
                [PURPOSE, "newsletter", "resale"],
                "purposes.resale",
                Effect.WEAKENS,
            ),
            (
                "features.1.classification",
                "public",
                "features.capital-gain.classification",
                Effect.WEAKENS,
            ),
            ("features.0.unit", None, "features.age.unit", Effect.READ),
            ("parties.0.cosigning_key", None, "parties.acme.cosigning_key", Effect.READ),
            ("terms_text", "Nothing else.", "terms_text", Effect.READ),
            ("valid_until", datetime(2028, 1, 1, tzinfo=UTC), "valid_until", Effect.WEAKENS),
        ],
        ids=str,
    )
    def test_one_change(self, path: str, value: object, term: str, effect: Effect) -> None:
        (found,) = compare(make_agreement(), change(path, value))
        assert (found.term, found.effect) == (term, effect)
        assert found.term in found.sentence

    def test_the_same_terms(self) -> None:
        assert compare(make_agreement(), make_agreement()) == ()

    def test_what_comes_and_goes(self) -> None:
        kept = {"artefact": "model", "days": 30, "basis": "contract"}
        old = make_agreement(retention=[kept], termination={"notice_days": 5})
        new = make_agreement(retention=[kept | {"days": 60}])
        found = {one.term: one.effect for one in compare(old, new)}
        assert found == {"retention.model.days": Effect.WEAKENS, "termination": Effect.WEAKENS}
        gone = {one.term: one.effect for one in compare(old, make_agreement())}
        assert gone["retention.model"] is Effect.WEAKENS

    def test_an_order_that_changes_is_told(self) -> None:
        (found,) = compare(make_agreement(), change("match.keys", ["phone", "email"]))
        assert found.term == "match.keys.order"

    def test_a_sentence_says_which_way(self) -> None:
        raised = Change("budget.epsilon", 3, 4, Effect.WEAKENS, "people")
        assert raised.sentence == (
            "budget.epsilon is raised from 3 to 4; it weakens the protection of people"
        )

    def test_whole_keys_are_not_told_but_what_people_compare(self) -> None:
        brand, *others = make_agreement().parties
        away = make_agreement().model_copy(update={"parties": tuple(others)})
        (gone,) = compare(make_agreement(), away)
        other = next(one for one in others if one.encryption_key is not None)
        changed = brand.model_copy(update={"encryption_key": other.encryption_key})
        new = make_agreement().model_copy(update={"parties": (changed, *others)})
        (one,) = compare(make_agreement(), new)
        assert one.sentence.startswith(
            f'parties.{brand.name}.encryption_key changes from "{brand.encryption_fingerprint}" to '
            f'"{other.encryption_fingerprint}"'
        )
        assert brand.verifying_key.fingerprint in gone.sentence
        assert brand.cosigner is not None
        assert brand.cosigner.key_id.hex() in gone.sentence
        assert len(gone.sentence) < 600

    def test_what_weakens_comes_first(self) -> None:
        new = make_agreement(title="Other", budget={"epsilon": 9.0, "delta": 1e-6})
        assert [one.term for one in compare(make_agreement(), new)] == ["budget.epsilon", "title"]


class TestRendering:
    KEPT = ({"artefact": "segment", "purpose": PURPOSE, "days": 90, "basis": "law `of` <b>it</b>"},)
    AGREED = make_agreement(
        retention=KEPT,
        termination={"notice_days": 7, "text": "line\n## Budget\n- epsilon: `0.1`"},
        dispute="Before <court>\n# of Bonn",
    )

    def test_terms_that_were_added_are_shown(self) -> None:
        shown = render(self.AGREED)
        assert "## Retention\n\n| artefact | purpose | days | basis |" in shown
        assert "- notice days: `7`" in shown
        assert "> Before &lt;court>\n> # of Bonn" in shown

    def test_values_are_told_in_words(self) -> None:
        shown = render(self.AGREED)
        assert "- protocols: `ecdh`" in shown
        assert "- reveal keys: `no`" in shown
        assert not re.search("None|True|False|[(][)]|<[A-Z]", shown.replace("\\", ""))

    def test_text_cannot_pass_for_a_term(self) -> None:
        lines = render(self.AGREED).splitlines()
        assert lines.count("## Budget") == 1
        assert sum(line.startswith("- epsilon") for line in lines) == 2  # train and budget

    def test_the_page_holds_every_term_and_runs_nothing(self) -> None:
        page = render_html(self.AGREED, ("acme",))
        assert "<b>it" not in page
        assert "<script" not in page
        assert "http" not in page.replace("http-equiv", "")
        for said in (
            "Retention",
            "notice days",
            "90",
            self.AGREED.digest,
            'lang="en"',
            "@media print",
        ):
            assert said in page

    def test_a_version_says_which_one_it_replaces(self) -> None:
        assert f"Version `2`, in the place of `{FIRST.digest}`." in render(SECOND)
