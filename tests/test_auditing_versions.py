"""Logs that go on under another version of the contract, or under terms that few have."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from parties import World
from test_adoption import TERMINATION, amended
from test_auditing import ENDED, K, Logs, R, built, clean, job, place, read, said

from compliance import records
from compliance.agreement import Agreement
from compliance.auditing import Finding, PartyLog, audit, audit_alone
from compliance.lifecycle import Succession, amend, replaced_keys
from compliance.log.merkle import leaf_hash, root_hash
from compliance.log.note import NoteKey
from compliance.notice import Notice
from compliance.signing import SigningKey
from compliance.terms import ApprovalTerms, ApproverTerm
from federation.audit_rules import rules_for
from federation.auditing import audit_places

CHANGE = timedelta(days=10)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("versions"), termination=TERMINATION)


@pytest.fixture(scope="module")
def second(world: World) -> Agreement:
    """Version 2: fewer people in a segment, more budget, other code."""
    before = world.agreement
    expand = before.expand.model_dump(mode="json") | {"minimum_segment": 20}
    changes = {"valid_from": before.valid_from + CHANGE, "expand": expand}
    changes |= {"budget": {"epsilon": before.budget.epsilon + 1, "delta": before.budget.delta}}
    return amend(before, changes | {"code_digests": ["5" * 64]})


def going_on(first: Agreement, second: Agreement) -> Logs:
    """Clean logs that end with version 2, and some leaves under it."""
    logs = clean(first)
    names = tuple(party.name for party in second.parties)
    for specs in logs.values():
        opened = {"of": R.AgreementSigned, "job": None, "parties": names}
        specs.append(opened | {"supersedes": first.digest})
    logs["retailer"] += [
        {"of": R.CodeReleased, "job": None, "package": "comity"}
        | {"package_version": "2", "code_digest": "5" * 64},
        *said("next", "expand.done", "coordinator", read("next")),
        {"of": R.SegmentWritten, "job": "next", "segment": "next", "rows": 20, "share": 0.01},
    ]
    logs["coordinator"] += job("next", "expand")
    for specs in logs.values():
        start = place(specs, R.AgreementSigned, 1)
        for number, spec in enumerate(specs[start:]):
            spec |= {"agreement": second.digest, "time": CHANGE + timedelta(minutes=number)}
    return logs


def findings(
    first: Agreement, second: Agreement, logs: Logs, *notices: Notice
) -> tuple[Finding, ...]:
    now = first.valid_from + timedelta(days=30)
    succession = Succession((first, second), {one: one.effective_from for one in notices})
    told = [replace(one, agreement=second, versions=succession) for one in built(first, logs)]
    rules = rules_for(second, now=now)
    versions = {one.digest: rules_for(one, now=now) for one in (first, second)}
    return audit(told, replace(rules, versions=versions))


def test_an_amended_log_gives_no_alarm(world: World, second: Agreement) -> None:
    assert findings(world.agreement, second, going_on(world.agreement, second)) == ()


def under_old_terms(logs: Logs) -> None:
    logs["retailer"][place(logs["retailer"], R.SegmentWritten, 1)]["rows"] = 8


def with_other_code(logs: Logs) -> None:
    logs["retailer"][place(logs["retailer"], R.CodeReleased, 1)]["code_digest"] = "6" * 64


def supersedes_nothing(logs: Logs) -> None:
    logs["courier"][place(logs["courier"], R.AgreementSigned, 1)]["supersedes"] = None


def stays_behind(logs: Logs) -> None:
    logs["courier"].pop()


def too_soon(logs: Logs) -> None:
    specs = logs["retailer"]
    start = place(specs, R.AgreementSigned, 1)
    for spec in specs[start:]:
        spec["time"] -= timedelta(days=1)


def under_the_first_again(logs: Logs) -> None:
    del logs["retailer"][-1]["agreement"]


def after_the_end(logs: Logs) -> None:
    specs = logs["retailer"]
    tail = {key: specs[-1][key] for key in ("agreement", "time")}
    specs += [one | tail for one in (ENDED, *said("x", "present", "coordinator"))]


@pytest.mark.parametrize(
    ("kind", "party", "plant"),
    [
        (K.SEGMENT_TOO_SMALL, "retailer", under_old_terms),
        (K.CODE_NOT_ALLOWED, "retailer", with_other_code),
        (K.OTHER_VERSION, "courier", supersedes_nothing),
        (K.OTHER_VERSION, "courier", stays_behind),
        (K.OUTSIDE_VALIDITY, "retailer", too_soon),
        (K.FOREIGN_AGREEMENT, "retailer", under_the_first_again),
        (K.AFTER_END, "retailer", after_the_end),
    ],
)
def test_each_version_s_rules_hold_for_its_leaves(
    kind: K, party: str, plant: Callable[[Logs], None], world: World, second: Agreement
) -> None:
    logs = going_on(world.agreement, second)
    plant(logs)
    (found,) = findings(world.agreement, second, logs)
    assert (found.kind, found.party) == (kind, party), found


# --- keys that a version replaces ---------------------------------------------------------------


def replacing(first: Agreement) -> Agreement:
    """Version 2: another identity key of the courier, and another key of its log."""
    parties = []
    for party in first.parties:
        key = SigningKey.from_seed(b"2" * 32).public
        changes = {"identity_key": key.to_base64()}
        other = SigningKey.from_seed(b"3" * 32).public
        changes["log_key"] = NoteKey("comity/courier", other).to_string()
        parties.append(party.model_copy(update=changes if party.name == "courier" else {}))
    return amend(first, {"valid_from": first.valid_from + CHANGE, "parties": tuple(parties)})


def told(first: Agreement, second: Agreement) -> list[dict[str, Any]]:
    keys = replaced_keys(first.party("courier"), second.party("courier"))
    return [
        {"of": R.KeyRotated, "job": None, "key": one.key}
        | {"old_key_digest": one.old_digest, "new_key_digest": one.new_digest}
        for one in keys
    ]


def test_keys_that_are_replaced_are_told_right_then(world: World) -> None:
    first, second = world.agreement, replacing(world.agreement)
    identity, log = told(first, second)
    assert (identity["key"], log["key"]) == ("identity_key", "log_key")
    code = {"of": R.CodeReleased, "job": None, "package": "comity"}
    code |= {"package_version": "2", "code_digest": "5" * 64}

    def found(*leaves: dict[str, Any]) -> list[tuple[K, str, tuple[int, ...]]]:
        logs = going_on(first, second)
        for number, leaf in enumerate(leaves, 1):
            time = CHANGE + timedelta(hours=number)
            logs["courier"].append(leaf | {"agreement": second.digest, "time": time})
        return [(one.kind, one.party, one.leaves) for one in findings(first, second, logs)]

    start = len(going_on(first, second)["courier"]) - 1
    otherwise = (K.ROTATED_OTHERWISE, "courier")
    assert found(identity, log) == found(log, identity) == found(log, identity, code) == []
    assert found(identity) == found() == [(*otherwise, (start,))]
    assert found(identity, code, log) == [(*otherwise, (start,)), (*otherwise, (start + 3,))]
    assert found(identity, log, log) == [(*otherwise, (start + 3,))]
    false = log | {"new_key_digest": "0" * 64}
    assert found(identity, false) == [(*otherwise, (start + 2,)), (*otherwise, (start,))]


def test_a_release_after_notice_took_effect(world: World, second: Agreement) -> None:
    given = world.agreement.valid_from
    fields: dict[str, Any] = {"party": "courier", "reason": "enough"}
    notice = Notice(agreement=second.digest, given=given, effective_from=given + CHANGE, **fields)
    found = findings(world.agreement, second, going_on(world.agreement, second), notice)
    assert {(one.kind, one.party) for one in found} == {(K.AFTER_END, "retailer")}
    assert "courier" in found[0].sentence


# --- terms that few have ------------------------------------------------------------------------


def alone(agreement: Agreement, logs: Logs) -> tuple[Finding, ...]:
    return audit(
        built(agreement, logs), rules_for(agreement, now=agreement.valid_from + 3 * CHANGE)
    )


def test_code_is_that_of_the_agreement(world: World) -> None:
    agreed = world.agreement.model_copy(update={"code_digests": ("5" * 64,)})
    assert alone(agreed, clean(agreed)) == ()
    other = world.agreement.model_copy(update={"code_digests": ("6" * 64,)})
    (found,) = alone(other, clean(other))
    assert found.kind is K.CODE_NOT_ALLOWED


def test_consent_is_for_the_purpose_of_what_is_released(world: World) -> None:
    purposes = (*world.agreement.purposes, "counting")
    agreed = world.agreement.model_copy(update={"purposes": purposes})
    logs = clean(agreed)
    assert alone(agreed, logs) == ()
    logs["brand"][place(logs["brand"], R.ConsentUsed)]["purpose"] = "counting"
    (found,) = alone(agreed, logs)
    assert (found.kind, found.party) == (K.OTHER_PURPOSE, "brand")


def approvals(*people: tuple[str, str]) -> list[dict[str, Any]]:
    common = {"of": R.ApprovalReceived, "job_digest": "a" * 64, "approval_digest": "b" * 64}
    return [common | {"approver": name, "of_party": party} for name, party in people]


@pytest.mark.parametrize(
    ("people", "enough"),
    [
        ((("ann", "brand"), ("bob", "retailer")), True),
        ((("ann", "brand"),), False),
        ((("ann", "brand"), ("ann", "brand")), False),
        ((("ann", "brand"), ("abe", "brand")), False),
        ((("ann", "brand"), ("eve", "retailer")), False),
        ((("ann", "brand"), ("bob", "courier")), False),
        ((), False),
    ],
)
def test_rows_leave_after_enough_people_approved(
    people: tuple[tuple[str, str], ...], enough: bool, world: World
) -> None:
    named = (("ann", "brand"), ("abe", "brand"), ("bob", "retailer"))
    terms = ApprovalTerms.model_construct(
        approvers=tuple(
            ApproverTerm.model_construct(name=name, party=party, key="") for name, party in named
        ),
        approvals=2,
        parties=2,
        also=(),
    )
    agreed = world.agreement.model_copy(update={"approval": terms})
    logs = clean(agreed)
    everybody = approvals(("ann", "brand"), ("bob", "retailer"))
    for party, name in (("brand", "find"), ("retailer", "find")):
        logs[party][1:1] = [one | {"job": name} for one in everybody]
    logs["retailer"][1:1] = [one | {"job": "best"} for one in approvals(*people)]
    found = alone(agreed, logs)
    expected = set() if enough else {(K.UNAPPROVED, "retailer")}
    assert {(one.kind, one.party) for one in found} == expected
    assert len(found) == len(expected)


def test_the_root_that_a_pruning_names(world: World) -> None:
    def told(root: str) -> tuple[Finding, ...]:
        logs = clean(world.agreement)
        pruned = {"of": R.LogPruned, "job": None, "kept_from": 2, "root_hash": root}
        logs["courier"].append(pruned)
        whole = [
            replace(one, entries=tuple(map(records.to_leaf, one.records)))
            for one in built(world.agreement, logs)
        ]
        rules = rules_for(world.agreement, now=world.agreement.valid_from + CHANGE)
        return tuple(one for one in audit(whole, rules) if one.kind is K.PRUNED_OTHERWISE)

    courier: PartyLog = built(world.agreement, {"courier": clean(world.agreement)["courier"]})[0]
    root = root_hash([leaf_hash(records.to_leaf(leaf)) for leaf in courier.records]).hex()
    assert told(root) == ()
    (found,) = told("0" * 64)
    assert found.leaves == (len(courier.records),)


def test_a_segment_under_a_version_that_leaves_its_party_out(world: World) -> None:
    first = world.agreement
    left = {
        "valid_from": first.valid_from + timedelta(days=1),
        "train": first.train.model_copy(update={"max_parties_per_person": 1}),
        "parties": tuple(one for one in first.parties if one.name != "courier"),
        "datasets": tuple(one for one in first.datasets if one.party != "courier"),
    }
    second = amend(first, left)
    back = {"parties": first.parties, "datasets": first.datasets}
    third = amend(second, {"valid_from": first.valid_from + timedelta(days=2), **back})

    def leaf(kind: type[records.Record], under: Agreement, **fields: Any) -> Any:
        common = {"time": under.valid_from, "party": "courier", "agreement": under.digest}
        return kind(**common, **fields)

    def signed(one: Agreement) -> Any:
        names = tuple(party.name for party in one.parties)
        return leaf(records.AgreementSigned, one, parties=names, supersedes=one.supersedes)

    segment = leaf(records.SegmentWritten, second, job="x", segment="x", rows=1, share=0.1)
    leaves = (signed(first), signed(second), segment, signed(third))
    log = PartyLog("courier", third, leaves, versions=Succession((first, second, third), {}))
    found = audit_alone(log, rules_for(third, now=third.valid_from))
    assert [(one.kind, one.leaves) for one in found] == [(K.SEGMENT_TOO_SMALL, (2,))]


def test_folders_of_an_amended_agreement(world: World, tmp_path: Path) -> None:
    copy = world.copy(tmp_path / "copy")
    copy.run()
    after = amended(copy, tmp_path / "next.json", title="Changed")

    def found() -> set[K]:
        _, told, _ = audit_places(
            [str(after.workspace.path)],
            agreements=[after.workspace.path / "agreement.json"],
            policy=None,
            scratch=tmp_path,
            now=after.now,
        )
        return {one.kind for one in told}

    assert found() <= {K.NOT_PUBLIC}
    shutil.rmtree(after.workspace.path / "courier" / "agreements")
    assert K.VERSION_MISSING in found()
