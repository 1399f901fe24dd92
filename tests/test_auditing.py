"""Every kind of violation is planted into clean logs, and exactly it is found."""

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from joining import Enrolment
from parties import PURPOSE, World
from test_agreement import party_terms

import federation.audit
import federation.auditing
from compliance import records
from compliance.agreement import MOST_PARTIES, Agreement
from compliance.auditing import Finding, FindingKind, PartyLog, audit, audit_alone
from compliance.auditing.reading import read_log
from compliance.auditing.trust import log_keys
from compliance.errors import RecordError
from compliance.log.note import Note, NoteSignature
from compliance.log.verifier import read_checkpoint
from compliance.log.witness import AddCheckpoint, Evidence
from compliance.log.witnessing import origin_hash
from compliance.log.writer import LogWriter
from compliance.naming import tell_of
from compliance.records import parse_leaf, to_leaf
from compliance.records.leaf import Told
from compliance.signing import SigningKey
from federation.audit import verify_all, verify_party
from federation.audit_rules import rules_for
from federation.auditing import audit_places
from federation.cli import main
from federation.errors import RefusedError, WorkspaceError
from federation.log_fetching import FetchError, Limits, RemoteLog
from federation.log_server import LogServer
from federation.party import PartyFolder
from federation.witnessing import LogWitnessing
from privacy.accounting.accountant import epsilon_of
from privacy.accounting.events import (
    DistributedDiscreteGaussianEvent,
    GaussianEvent,
    to_json,
)

Spec = dict[str, Any]
Logs = dict[str, list[Spec]]
EVENT = GaussianEvent(noise_multiplier=10.0)
SENT, MODEL = "ab" * 32, "cd" * 32
K = FindingKind


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("audited"))


@pytest.fixture(scope="module")
def many(world: World) -> Agreement:
    """The same agreement with as many auditors as there can be, whose names are the longest."""
    terms = world.agreement.model_dump(exclude_none=True)
    auditors = [
        party_terms(f"a{number}", "auditor") | {"name": f"a{number}-".ljust(63, "x")}
        for number in range(len(terms["parties"]), MOST_PARTIES)
    ]
    terms["parties"] = [*auditors[:60], *terms["parties"], *auditors[60:]]
    return Agreement.from_terms(terms)


def by_place(names: tuple[str, ...], agreement: Agreement) -> Told:
    """Tell of parties by place, however few; by name where one is no party."""
    everybody = [party.name for party in agreement.parties]
    known = set(names) <= set(everybody)
    return tuple(sorted(map(everybody.index, names))) if known else names


def said(job: str, computation: str, to: str, *between: Spec, **fields: Any) -> list[Spec]:
    """A decision, what comes between, and the release that it allows."""
    name = fields.pop("name", f"{job}/{computation}/{to}")
    decided = {"of": records.AccessDecided, "job": job, "release_id": name, "allowed": True}
    decided |= {"computation": computation, "recipient": to, "clauses": ("agreed",)}
    decided |= {"policy_digest": "1" * 64, "question_digest": "2" * 64}
    left = {"of": records.Release, "job": job, "release_id": name, "computation": computation}
    left |= {"recipient": to, "content_digest": "0" * 64, "content_bytes": 1} | fields
    return [decided, *between, left]


def read(job: str) -> Spec:
    fields = {"rows": 10, "eligible": 8, "excluded": {"refused": 2}, "consent_log_size": 5}
    return {"of": records.ConsentUsed, "job": job, "purpose": None} | fields


def job(name: str, computation: str, *between: Spec, outcome: str = "done") -> list[Spec]:
    """A job, as the coordinator tells of it."""
    started = {"of": records.JobStarted, "job": name, "computation": computation}
    return [started, *between, started | {"of": records.JobEnded, "outcome": outcome}]


def erasure(of: Any, **fields: Any) -> Spec:
    return {"of": of, "job": None, "request": "r1"} | fields


REFUSED: Spec = {"of": records.CallsRefused, "job": None, "since": timedelta(minutes=1)}
REFUSED |= {"refused": {"token": 3}}


def ended(peer: str) -> Spec:
    return erasure(records.ErasureCompleted, peer=peer, completion_digest="3" * 64)


def heard(peer: str) -> Spec:
    return erasure(records.ErasureAcknowledged, peer=peer, acknowledgement_digest="4" * 64)


def clean(agreement: Agreement) -> Logs:
    budget = agreement.budget
    price = epsilon_of([EVENT], agreement.accounted_delta)
    own = epsilon_of([EVENT], budget.delta)
    names = tuple(party.name for party in agreement.parties)
    opened = {"of": records.AgreementSigned, "job": None, "parties": names}
    asked = erasure(records.ErasureRequested, origin="retailer", deadline=timedelta(days=9))
    held = {"of": records.HoldPlaced, "job": None, "hold": "h", "artefact": "segment"}
    trained = {"of": records.ModelTrained, "job": "model", "model_digest": MODEL, "rounds": 1}
    trained |= {"parties": ("retailer",), "epsilon": own, "delta": budget.delta}
    charge = {"job": "model", "charge_id": "c"}
    reserved = charge | {"of": records.BudgetReserved, "mechanism": to_json(EVENT)}
    reserved |= {"epsilon": own, "delta": budget.delta, "epsilon_cap": budget.epsilon}
    bound = {"of": records.MatchBound, "job": "find"}
    deleted = {"of": records.ArtefactDeleted, "job": None, "artefact": "segment", "name": "s"}
    deleted |= {"purpose": None, "days": 30}
    return {
        "retailer": [
            dict(opened),
            {"of": records.CodeReleased, "job": None, "package": "comity"}
            | {"package_version": "1", "code_digest": "5" * 64},
            *said("find", "match.blinded", "brand", read("find")),
            bound | {"peer": "brand", "own_commitment": "6" * 64, "peer_commitment": "7" * 64},
            *said(
                "model",
                "train.update",
                "coordinator",
                read("model"),
                reserved | {"epsilon_spent": price},
                charge_id="c",
            ),
            charge | {"of": records.BudgetCommitted, "epsilon_spent": price},
            *said(
                "model",
                "acknowledged",
                "coordinator",
                name=f"model/acknowledged/coordinator/{SENT[:16]}",
            ),
            dict(trained),
            *said("best", "expand.done", "coordinator", read("best")),
            {"of": records.SegmentWritten, "job": "best", "segment": "best", "rows": 8}
            | {"share": agreement.expand.maximum_share},
            dict(asked),
            heard("brand"),
            heard("courier"),
            erasure(records.ErasureStep, target="source", outcome_digest="8" * 64),
            ended("brand"),
            ended("courier"),
            ended("retailer"),
            held | {"reason": "dispute"},
            {"of": records.HoldLifted, "job": None, "hold": "h"},
            deleted | {"due": timedelta(days=1), "purpose": "lookalike", "days": 1},
        ],
        "brand": [
            dict(opened),
            *said("find", "match.reply", "retailer", read("find")),
            bound | {"peer": "retailer", "own_commitment": "7" * 64, "peer_commitment": "6" * 64},
            dict(trained),
            dict(asked),
            ended("brand"),
        ],
        "courier": [dict(opened), dict(asked), ended("courier")],
        "coordinator": [
            dict(opened),
            *said("roll-call", "identify", "everyone"),
            *job("find", "match"),
            *job(
                "model",
                "train",
                *said("model", "model.published", "retailer", content_digest=SENT),
                dict(trained),
            ),
            *job("best", "expand"),
        ],
    }


def built(
    agreement: Agreement, logs: Logs, tell: Callable[[Any, Agreement], Told] = tell_of
) -> list[PartyLog]:
    """Return logs of which every leaf was written, and read again."""
    begun = agreement.valid_from + timedelta(hours=1)
    found = []
    for party, specs in logs.items():
        leaves = []
        for index, spec in enumerate(specs):
            fields = {key: value for key, value in spec.items() if key != "of"}
            if fields.get("purpose", "") is None:
                fields["purpose"] = agreement.match.purpose
            for key in ("deadline", "due", "since", "time"):
                if isinstance(fields.get(key), timedelta):
                    fields[key] = begun + fields[key]
            for key in {"parties", "recipients", "missing"} & fields.keys():
                fields[key] = tell(fields[key], agreement)
            common = {"time": begun + timedelta(minutes=index), "party": party}
            common["agreement"] = agreement.digest
            leaves.append(parse_leaf(to_leaf(spec["of"](**common | fields))))
        found.append(PartyLog(party, agreement, tuple(leaves)))
    return found


def findings(agreement: Agreement, logs: Logs, **rules: Any) -> tuple[Finding, ...]:
    now: datetime = agreement.valid_from + timedelta(days=30)
    held = rules_for(agreement, now=now)
    return audit(built(agreement, logs), type(held)(held.computations, held.pricer, now, **rules))


def place(specs: list[Spec], of: Any, number: int = 0) -> int:
    return [index for index, spec in enumerate(specs) if spec["of"] is of][number]


Plant = Callable[[Logs, Agreement], None]


def changed(party: str, of: Any, number: int = 0, /, **fields: Any) -> Plant:
    def plant(logs: Logs, agreement: Agreement) -> None:
        specs = logs[party]
        specs[place(specs, of, number)].update(
            {key: value(agreement) if callable(value) else value for key, value in fields.items()}
        )

    return plant


def removed(party: str, of: Any, number: int = 0) -> Plant:
    return lambda logs, _: logs[party].pop(place(logs[party], of, number)) and None


def added(party: str, *specs: Spec, at: int | None = None) -> Plant:
    def plant(logs: Logs, _: Agreement) -> None:
        where = len(logs[party]) if at is None else at
        logs[party][where:where] = [dict(spec) for spec in specs]

    return plant


def again(party: str, of: Any, **fields: Any) -> Plant:
    """A leaf once more, right after itself."""

    def plant(logs: Logs, _: Agreement) -> None:
        specs = logs[party]
        index = place(specs, of)
        specs.insert(index + 1, specs[index] | fields)

    return plant


def all_of(*plants: Plant) -> Plant:
    def plant(logs: Logs, agreement: Agreement) -> None:
        for one in plants:
            one(logs, agreement)

    return plant


R = records
RETIRED: Spec = {"of": R.ModelRetired, "job": None, "model_digest": MODEL, "reason": "erasure"}
ENDED: Spec = {"of": R.AgreementEnded, "job": None, "ended_by": "brand", "reason": "notice"}
ENDED |= {"notice_digest": "8" * 64}
DUE: Spec = {"of": R.ModelDue, "job": "model", "model_digest": MODEL, "due": timedelta(days=9)}
PRESENT = said("roll-call", "present", "coordinator")
OTHER_JOB: Spec = {"of": R.JobStarted, "job": "other", "computation": "match"}
COUNTED: Spec = {"of": R.MeasurementMade, "job": "counts", "measurement_digest": "dd" * 32}
COUNTED |= {"parties": ("retailer",), "epsilon": 0.1, "delta": None}
PRUNED: Spec = {"of": R.LogPruned, "job": None, "kept_from": 999, "root_hash": "9" * 64}
REFUND: Spec = {"of": R.BudgetRefunded, "job": "model", "charge_id": "c", "reason": "taken back"}


def refund(logs: Logs, _: Agreement) -> None:
    logs["retailer"][place(logs["retailer"], R.BudgetCommitted)] = dict(REFUND)


def often(logs: Logs, agreement: Agreement) -> None:
    specs = logs["courier"]
    for number in range(agreement.match.maximum_matches + 1):
        specs.append(
            {"of": R.MatchBound, "job": f"j{number}", "peer": "retailer"}
            | {"own_commitment": "a" * 64, "peer_commitment": "b" * 64}
        )


def forgotten(logs: Logs, _: Agreement) -> None:
    logs["brand"] += said(
        "find", "match.reply", "retailer", read("find") | {"consent_log_size": 4}, name="again"
    )


TOLD: Spec = {"of": R.ConsentRecorded, "job": None, "event": "withdrawn", "sequence": 9}
TOLD |= {"purpose": None, "commitment": "9" * 64}


def read_again(job: str, size: int, name: str) -> list[Spec]:
    return said(job, "match.reply", "retailer", read(job) | {"consent_log_size": size}, name=name)


@pytest.mark.parametrize(
    ("leaves", "expected"),
    [
        ([TOLD, *read_again("other", 9, "a")], []),
        ([TOLD, *read_again("other", 8, "a")], [(0, 2)]),
        ([*read_again("other", 4, "a")], []),
        ([TOLD, *read_again("x", 12, "a"), *read_again("y", 11, "b")], [(2, 5)]),
        ([TOLD, TOLD | {"sequence": 10}, *read_again("x", 9, "a")], [(1, 3)]),
        ([TOLD, TOLD | {"sequence": 9, "commitment": "8" * 64}], [(0, 1)]),
    ],
    ids=["all read", "a withdrawal", "nothing told", "what was read", "the last told", "cut back"],
)
def test_no_job_forgets_what_the_log_told_of_before(
    leaves: list[Spec], expected: list[tuple[int, int]], world: World
) -> None:
    logs = clean(world.agreement)
    begin = len(logs["brand"])
    logs["brand"] += [dict(leaf) for leaf in leaves]
    for name in {leaf["job"] for leaf in leaves} - {None}:
        logs["coordinator"] += job(name, "match")
    found = findings(world.agreement, logs)
    assert {one.kind for one in found} <= {K.CONSENT_FORGOTTEN}
    assert [tuple(at - begin for at in one.leaves) for one in found] == expected


def above(agreement: Agreement) -> float:
    return agreement.train.epsilon * 2


def _reserve(logs: Logs, agreement: Agreement, **fields: Any) -> None:
    source = logs["retailer"][place(logs["retailer"], R.BudgetReserved)]
    logs["courier"].append(source | fields)


def _measure(logs: Logs, agreement: Agreement) -> None:
    _reserve(logs, agreement)
    logs["courier"] += said("model", "measure.counts", "coordinator", read("model"), charge_id="c")


def _train(logs: Logs, agreement: Agreement, **fields: Any) -> None:
    source = logs["retailer"][place(logs["retailer"], R.ModelTrained)]
    logs["courier"].append(source | {"model_digest": "ee" * 32, "job": "theirs"} | fields)
    del logs["retailer"]  # whose part in it would be asked for
    del logs["coordinator"]  # that would have to tell of it


PLANTED: dict[K, tuple[str, Plant]] = {
    K.NOT_OPENED: ("courier", removed("courier", R.AgreementSigned)),
    K.OPENED_AGAIN: ("courier", again("courier", R.AgreementSigned)),
    K.OTHER_PARTIES: ("courier", changed("courier", R.AgreementSigned, parties=("brand",))),
    K.FOREIGN_PARTY: ("brand", changed("brand", R.ConsentUsed, party="courier")),
    K.FOREIGN_AGREEMENT: ("brand", changed("brand", R.ConsentUsed, agreement="f" * 64)),
    K.TIME_BACKWARDS: ("brand", changed("brand", R.ConsentUsed, time=timedelta(minutes=-1))),
    K.CALLS_COUNTED_TWICE: (
        "coordinator",
        all_of(
            added("coordinator", REFUSED),
            again("coordinator", R.CallsRefused),
        ),
    ),
    K.OUTSIDE_VALIDITY: (
        "courier",
        all_of(
            added("courier", *PRESENT),
            changed("courier", R.Release, time=lambda one: one.valid_until),
        ),
    ),
    K.AFTER_END: ("courier", added("courier", ENDED, *PRESENT)),
    K.UNKNOWN_COMPUTATION: (
        "courier",
        added("courier", *said("model", "train.more", "coordinator")),
    ),
    K.OFF_ROUTE: ("courier", added("courier", *said("x", "present", "brand"))),
    K.UNDECIDED: ("brand", removed("brand", R.AccessDecided)),
    K.DENIED: ("brand", changed("brand", R.AccessDecided, allowed=False)),
    K.CONSENT_UNREAD: ("brand", removed("brand", R.ConsentUsed)),
    K.CONSENT_MISCOUNTED: ("brand", changed("brand", R.ConsentUsed, eligible=9)),
    K.PURPOSE_NOT_AGREED: ("brand", changed("brand", R.ConsentUsed, purpose="spying")),
    K.UNCHARGED: ("retailer", changed("retailer", R.Release, 1, charge_id=None)),
    K.CHARGED_FOR_NOTHING: ("brand", changed("brand", R.Release, charge_id="c")),
    K.CHARGE_NOT_OPEN: ("retailer", changed("retailer", R.Release, 1, charge_id="other")),
    K.CHARGE_REUSED: (
        "retailer",
        lambda logs, _: logs["retailer"].__setitem__(
            slice(10, 10),
            said("model", "train.update", "coordinator", read("model"), charge_id="c"),
        ),
    ),
    K.RESERVED_TWICE: ("retailer", again("retailer", R.BudgetReserved)),
    K.SETTLED_UNOPENED: ("retailer", again("retailer", R.BudgetCommitted)),
    K.NEVER_SETTLED: ("retailer", removed("retailer", R.BudgetCommitted)),
    K.REFUNDED_THOUGH_USED: ("retailer", refund),
    K.OTHER_CAP: ("courier", lambda logs, one: _reserve(logs, one, epsilon_cap=9.0)),
    K.OTHER_DELTA: ("courier", lambda logs, one: _reserve(logs, one, delta=1e-3)),
    K.OVER_CAP: ("courier", lambda logs, one: _reserve(logs, one, epsilon_spent=9.0)),
    K.OTHER_PERIOD: ("courier", lambda logs, one: _reserve(logs, one, period_epsilon_spent=0.1)),
    K.UNPRICEABLE: ("courier", lambda logs, one: _reserve(logs, one, mechanism="{}")),
    K.UNDERSTATED: ("courier", lambda logs, one: _reserve(logs, one, epsilon=0.001)),
    K.OVER_MEASURED: ("courier", _measure),
    K.MODEL_OVER_TERMS: (
        "courier",
        lambda logs, one: _train(logs, one, epsilon=above(one)),
    ),
    K.MODEL_UNPROTECTED: (
        "courier",
        lambda logs, one: _train(logs, one, epsilon=None, delta=None),
    ),
    K.MODEL_OF_STRANGER: ("courier", lambda logs, one: _train(logs, one, parties=("spy",))),
    K.MODELS_DIFFER: ("brand", changed("brand", R.ModelTrained, epsilon=0.5)),
    K.RESULTS_DIFFER: ("brand", changed("brand", R.ModelTrained, model_digest="e" * 64)),
    K.PART_NOT_GIVEN: (
        "brand",
        all_of(
            changed("brand", R.ModelTrained, rounds=2),
            removed("retailer", R.ModelTrained),
            lambda logs, _: logs.pop("coordinator") and None,
        ),
    ),
    K.MODEL_RETIRED: ("brand", added("brand", RETIRED, at=1)),
    K.SEGMENT_OVER_SHARE: (
        "retailer",
        changed("retailer", R.SegmentWritten, share=lambda one: one.expand.maximum_share + 0.01),
    ),
    K.SEGMENT_TOO_SMALL: (
        "retailer",
        changed("retailer", R.SegmentWritten, rows=lambda one: one.expand.minimum_segment - 1),
    ),
    K.CONSENT_FORGOTTEN: ("brand", forgotten),
    K.OTHER_RECIPIENTS: ("brand", changed("brand", R.ConsentUsed, recipients=("courier",))),
    K.TOO_MANY_MATCHES: ("courier", often),
    K.MATCH_DIFFERS: ("retailer", changed("brand", R.MatchBound, peer_commitment="e" * 64)),
    K.JOB_NOT_STARTED: (
        "coordinator",
        added("coordinator", OTHER_JOB | {"of": R.JobEnded, "outcome": "failed"}),
    ),
    K.JOB_NOT_TOLD: (
        "retailer",
        all_of(removed("coordinator", R.JobStarted, 2), removed("coordinator", R.JobEnded, 2)),
    ),
    K.RESULT_NOT_TOLD: ("coordinator", removed("coordinator", R.ModelTrained)),
    K.JOB_NEVER_ENDED: (
        "coordinator",
        added("coordinator", OTHER_JOB, at=1),
    ),
    K.NOT_SENT: ("retailer", changed("coordinator", R.Release, 1, content_digest="0" * 64)),
    K.ERASURE_UNREQUESTED: ("courier", removed("courier", R.ErasureRequested)),
    K.ERASURE_LATE: ("courier", removed("courier", R.ErasureCompleted)),
    K.RETRAIN_OVERDUE: ("courier", added("courier", DUE)),
    K.ERASURE_DIFFERS: (
        "retailer",
        changed("brand", R.ErasureCompleted, completion_digest="e" * 64),
    ),
    K.HELD_DELETED: ("retailer", removed("retailer", R.HoldLifted)),
    K.HOLD_NOT_PLACED: ("retailer", removed("retailer", R.HoldPlaced)),
    K.PRUNED_TOO_FAR: ("courier", added("courier", PRUNED)),
}


def test_clean_logs_give_no_alarm(world: World) -> None:
    assert findings(world.agreement, clean(world.agreement)) == ()
    allowed = frozenset({"5" * 64})
    assert findings(world.agreement, clean(world.agreement), allowed_code=allowed) == ()


@pytest.mark.parametrize("kind", PLANTED, ids=str)
def test_exactly_what_was_planted_is_found(kind: K, world: World) -> None:
    party, plant = PLANTED[kind]
    logs = clean(world.agreement)
    plant(logs, world.agreement)
    (found,) = findings(world.agreement, logs)
    assert (found.kind, found.party) == (kind, party), found
    assert all(0 <= index < len(logs[party]) for index in found.leaves)
    assert party in found.sentence
    assert found.leaves


MANY: dict[K, tuple[str, Plant]] = PLANTED | {
    K.OTHER_PARTIES: (
        "courier",
        changed(
            "courier",
            R.AgreementSigned,
            parties=lambda one: tuple(party.name for party in one.parties[1:]),
        ),
    ),
    K.MODEL_OF_STRANGER: (
        "courier",
        lambda logs, one: _train(logs, one, parties=(one.parties[0].name,)),
    ),
    K.MODELS_DIFFER: (
        "brand",
        changed("brand", R.ModelTrained, parties=("brand",)),
    ),
}
"""What is planted where parties are many; these are told of by place alone."""


@pytest.mark.parametrize("tell", [tell_of, by_place])
def test_clean_logs_of_many_parties_give_no_alarm(
    tell: Callable[[Any, Agreement], Told], many: Agreement
) -> None:
    logs = clean(many)
    logs["brand"][place(logs["brand"], R.ConsentUsed)]["recipients"] = ("coordinator", "retailer")
    assert audit(built(many, logs, tell), rules_for(many, now=many.valid_from)) == ()


@pytest.mark.parametrize("kind", MANY, ids=str)
def test_exactly_what_was_planted_is_found_among_many_parties(kind: K, many: Agreement) -> None:
    party, plant = MANY[kind]
    logs = clean(many)
    plant(logs, many)
    now = many.valid_from + timedelta(days=30)
    read_again = built(many, logs, by_place)
    (found,) = audit(read_again, rules_for(many, now=now))
    assert (found.kind, found.party) == (kind, party), found


def test_whoever_alone_names_the_brand_passes_no_other_result_by(world: World) -> None:
    specs = clean(world.agreement)
    told = {"model_digest": "e" * 64, "parties": ("brand", "retailer")}
    changed("coordinator", R.ModelTrained, **told)(specs, world.agreement)
    (found,) = findings(world.agreement, specs)
    assert (found.kind, found.party) == (K.RESULTS_DIFFER, "coordinator")


@pytest.mark.parametrize(
    ("by_rows", "expected"),
    [(False, [("brand", "courier"), ("coordinator", "courier")]), (True, [("brand", "courier")])],
    ids=["as if over columns", "over rows"],
)
def test_brand_and_coordinator_together_name_nobody_who_did_nothing(
    by_rows: bool, expected: list[tuple[str, str]], world: World
) -> None:
    """Naming the brand too does not make a model over rows one over columns."""
    logs = clean(world.agreement)
    if by_rows:
        logs["coordinator"].pop(place(logs["coordinator"], R.ModelTrained))
        logs["retailer"].pop(place(logs["retailer"], R.ModelTrained))  # it never got it
        changed("coordinator", R.JobEnded, 1, outcome="failed")(logs, world.agreement)
        told = {"parties": ("brand", "courier", "retailer")}
        changed("brand", R.ModelTrained, **told)(logs, world.agreement)
    else:
        source = logs["brand"][place(logs["brand"], R.ModelTrained)]
        model = source | {"job": "columns", "model_digest": "ee" * 32}
        model |= {"parties": ("brand", "courier")}
        logs["brand"] += [*said("columns", "assist.heard", "coordinator", read("columns")), model]
        logs["coordinator"] += job("columns", "train-vertical", dict(model))
    found = [one for one in findings(world.agreement, logs) if one.kind is K.PART_NOT_GIVEN]
    named = [(one.party, re.search(r"names (\w+)", one.sentence)) for one in found]
    assert sorted((party, name and name[1]) for party, name in named)[: len(expected)] == expected


def test_a_job_that_failed_leaves_nothing_at_anybody(world: World) -> None:
    logs = clean(world.agreement)
    changed("coordinator", R.JobEnded, 1, outcome="failed")(logs, world.agreement)
    removed("coordinator", R.ModelTrained)(logs, world.agreement)
    assert findings(world.agreement, logs) == ()  # its log tells that the model was sent
    changed("coordinator", R.Release, 1, computation="train.request")(logs, world.agreement)
    changed("coordinator", R.AccessDecided, 1, computation="train.request")(logs, world.agreement)
    (found,) = findings(world.agreement, logs)
    assert (found.kind, found.party) == (K.RESULT_NOT_TOLD, "retailer")
    logs["coordinator"] += job("model", "train")[:1]  # it goes on
    assert findings(world.agreement, logs) == ()
    logs["coordinator"] += job("model", "match")[1:]  # as if it had been another
    (found,) = findings(world.agreement, logs)
    assert (found.kind, found.party) == (K.RESULT_NOT_TOLD, "retailer")


def test_a_job_that_is_done_as_another_hides_its_result_though_it_was_sent(world: World) -> None:
    logs = clean(world.agreement)
    changed("coordinator", R.JobEnded, 1, computation="match")(logs, world.agreement)
    removed("coordinator", R.ModelTrained)(logs, world.agreement)
    (found,) = findings(world.agreement, logs)
    assert (found.kind, found.party) == (K.RESULT_NOT_TOLD, "retailer")


@pytest.mark.parametrize("gone", ["coordinator", "retailer"])
def test_what_a_log_that_is_not_given_tells_is_not_asked(gone: str, world: World) -> None:
    logs = clean(world.agreement)
    for kind in (R.JobStarted, R.JobEnded):
        removed("coordinator", kind, 2)(logs, world.agreement)
    del logs[gone]
    assert findings(world.agreement, logs) == ()


@pytest.fixture(scope="module")
def counting(world: World) -> Agreement:
    """The agreement, with terms of measuring."""
    terms = world.agreement.model_dump(exclude_none=True)
    columns = [{"name": world.agreement.features[0].name, "edges": [20.0, 30.0]}]
    counts = {"columns": columns, "noise": ["discrete-gaussian"], "minimum_cell": 5}
    terms["measure"] = counts | {"purpose": PURPOSE, "epsilon": 0.5, "delta": 1e-6}
    return Agreement.from_terms(terms)


MEASURED: dict[str, tuple[K | None, str, Plant]] = {
    "clean": (None, "", all_of()),
    "of the brand": (
        K.MEASUREMENT_OF_STRANGER,
        "coordinator",
        changed("coordinator", R.MeasurementMade, parties=("brand",)),
    ),
    "too much": (
        K.OVER_MEASURED,
        "coordinator",
        all_of(
            changed("coordinator", R.MeasurementMade, epsilon=0.6),
            removed("brand", R.MeasurementMade),
        ),
    ),
    "too likely to fail": (
        K.OVER_MEASURED,
        "coordinator",
        all_of(
            changed("coordinator", R.MeasurementMade, delta=0.5),
            removed("brand", R.MeasurementMade),
        ),
    ),
    "told otherwise": (
        K.RESULTS_DIFFER,
        "coordinator",
        changed("coordinator", R.MeasurementMade, epsilon=0.2),
    ),
    "missing otherwise": (
        K.RESULTS_DIFFER,
        "coordinator",
        changed("coordinator", R.MeasurementMade, missing=("courier",)),
    ),
    "not told": (K.RESULT_NOT_TOLD, "coordinator", removed("coordinator", R.MeasurementMade)),
}


@pytest.mark.parametrize("name", MEASURED)
def test_a_measurement_is_held_against_what_a_model_is(name: str, counting: Agreement) -> None:
    kind, party, plant = MEASURED[name]
    logs = clean(counting)
    del logs["retailer"]  # whose part would be asked for
    logs["brand"].append(dict(COUNTED))
    logs["coordinator"] += job("counts", "measure", dict(COUNTED))
    plant(logs, counting)
    found = {(one.kind, one.party) for one in findings(counting, logs)}
    if name == "of the brand":  # which its log contradicts
        found.remove((K.RESULTS_DIFFER, "coordinator"))
    assert found == ({(kind, party)} if kind else set())


def test_counts_that_nobody_agreed_on_are_found_where_they_are_told(world: World) -> None:
    logs = clean(world.agreement)
    logs["courier"].append(COUNTED | {"parties": ("courier",)})
    logs["coordinator"] += job("counts", "measure", dict(COUNTED), outcome="failed")
    kinds = [one.kind for one in findings(world.agreement, logs) if one.party == "courier"]
    assert K.OVER_MEASURED in kinds


@pytest.mark.parametrize("field", ["rounds", "missing"])
def test_a_model_is_told_of_alike_in_all_there_is(field: str, world: World) -> None:
    logs = clean(world.agreement)
    del logs["retailer"]
    told = {"rounds": 9, "missing": ("courier",)}[field]
    changed("coordinator", R.ModelTrained, **{field: told})(logs, world.agreement)
    (found,) = findings(world.agreement, logs)
    assert (found.kind, found.party) == (K.MODELS_DIFFER, "coordinator")


def test_a_model_that_fails_likelier_than_agreed_is_over_the_terms(world: World) -> None:
    logs = clean(world.agreement)
    _train(logs, world.agreement, delta=0.5)
    (found,) = findings(world.agreement, logs)
    assert (found.kind, found.party) == (K.MODEL_OVER_TERMS, "courier")


def test_a_place_that_the_agreement_has_not_is_a_stranger(world: World) -> None:
    logs = clean(world.agreement)
    _train(logs, world.agreement, parties=("spy",))
    (*others, log) = sorted(built(world.agreement, logs), key=lambda one: one.party == "courier")
    trained = log.records[-1].model_copy(update={"parties": (99,)})
    trained = parse_leaf(to_leaf(trained))
    log = replace(log, records=(*log.records[:-1], trained))
    rules = rules_for(world.agreement, now=world.agreement.valid_from)
    (found,) = audit([*others, log], rules)
    assert found.kind is K.MODEL_OF_STRANGER
    assert "place 99" in found.sentence


@pytest.mark.parametrize(
    ("ending", "on_time"),
    [
        ({"of": R.ModelRetired, "model_digest": MODEL, "reason": "trained again"}, True),
        ({"of": R.ModelRetired, "model_digest": "a" * 64, "reason": "trained again"}, False),
        ({"of": R.ModelRetired, "model_digest": MODEL, "reason": "late", "time": 18}, False),
        ({"of": R.ArtefactDeleted, "artefact": "model", "name": "model"}, True),
        ({"of": R.ArtefactDeleted, "artefact": "model", "name": "other"}, False),
        ({"of": R.ArtefactDeleted, "artefact": "segment", "name": "model"}, False),
    ],
    ids=str,
)
def test_a_model_to_be_trained_again_is_retired_or_deleted_in_time(
    ending: Spec, on_time: bool, world: World
) -> None:
    logs = clean(world.agreement)
    end = ending | {"job": None}
    if "time" in end:
        end["time"] = timedelta(days=end["time"])
    if end["of"] is R.ArtefactDeleted:
        end |= {"purpose": None, "days": 1, "due": timedelta(days=1)}
    logs["courier"] += [dict(DUE), end]
    found = [one.kind for one in findings(world.agreement, logs)]
    assert found == ([] if on_time else [K.RETRAIN_OVERDUE])


def test_an_origin_owes_what_others_did_not_do_in_time(world: World) -> None:
    logs = clean(world.agreement)
    specs = logs["retailer"]
    specs.remove(ended("courier"))
    late = erasure(records.ErasureOverdue, peer="courier", evidence_digest="2" * 64)
    specs.append(late)
    (found,) = findings(world.agreement, logs)
    assert (found.kind, found.party) == (K.ERASURE_LATE, "retailer")
    assert "courier before its deadline" in found.sentence
    assert len(specs) - 1 in found.leaves  # what says so is cited


def test_an_origin_owes_what_nobody_ever_acknowledged(world: World) -> None:
    logs = clean(world.agreement)
    for one in (heard("courier"), ended("courier")):
        logs["retailer"].remove(one)
    (found,) = findings(world.agreement, logs)
    assert (found.kind, found.party) == (K.ERASURE_LATE, "retailer")


@pytest.mark.parametrize("sensitivity", [1e-300, 1e-200])
def test_a_mechanism_of_which_no_price_comes_out_is_said(sensitivity: float, world: World) -> None:
    event = DistributedDiscreteGaussianEvent(
        noise_scale=1.0, honest_parties=1, dimension=1, l2_sensitivity=sensitivity
    )
    logs = clean(world.agreement)
    _reserve(logs, world.agreement, mechanism=to_json(event), charge_id="c")
    (found,) = findings(world.agreement, logs)
    assert (found.kind, found.party) == (K.UNPRICEABLE, "courier")


@pytest.mark.parametrize("year", [1, 1969, 3000, 9999])
def test_no_leaf_is_of_a_time_with_which_nobody_can_reckon(year: int, world: World) -> None:
    log, *_ = built(world.agreement, clean(world.agreement))
    leaf = records.to_leaf(log.records[1])
    moved = re.sub(
        rb'"time":"[0-9]{4}-[0-9]{2}-[0-9]{2}', f'"time":"{year:04}-01-01'.encode(), leaf
    )
    assert moved != leaf
    with pytest.raises(RecordError, match="a year of 1970 to 2999"):
        records.parse_leaf(moved)


def test_code_that_is_not_allowed(world: World) -> None:
    logs = clean(world.agreement)
    (found,) = findings(world.agreement, logs, allowed_code=frozenset({"0" * 64}))
    assert (found.kind, found.party, found.leaves) == (K.CODE_NOT_ALLOWED, "retailer", (1,))


def test_an_empty_log_and_another_contract(world: World) -> None:
    logs = clean(world.agreement) | {"courier": []}
    (found,) = findings(world.agreement, logs)
    assert (found.kind, found.leaves) == (K.NOT_OPENED, ())
    first, *rest = built(world.agreement, clean(world.agreement))
    other = world.agreement.model_copy(update={"title": "Another"})
    kinds = {
        one.kind
        for one in audit(
            [first, PartyLog(rest[0].party, other, ())],
            rules_for(other, now=other.valid_from),
        )
    }
    assert K.AGREEMENT_DIFFERS in kinds


# --- files --------------------------------------------------------------------------------------


def of_files(*places: Path | str, scratch: Path, agreement: Path | None = None) -> list[Finding]:
    now = datetime.fromisoformat("2026-06-01T00:00:00+00:00")
    told = tuple(map(str, places))
    own = () if agreement is None else (agreement,)
    return list(audit_places(told, agreements=own, policy=None, scratch=scratch, now=now)[1])


@pytest.fixture
def workspace(finished: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[1], tmp_path / "w"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])


def of_another(log: Path) -> None:
    shutil.copy(log.parents[1] / "brand" / "log" / "checkpoint", log)


def other_key(log: Path) -> None:
    text, _, lines = (log / "checkpoint").read_bytes().partition(b"\n\n")
    (log / "checkpoint").write_bytes(text + b"\n\n" + lines.splitlines(keepends=True)[0])


def tile(log: Path, kind: str) -> Path:
    return max((log / "tile" / kind / "000.p").iterdir(), key=lambda path: int(path.name))


FILES: dict[K, Callable[[Path], object]] = {
    K.FOREIGN_ORIGIN: of_another,
    K.WRONG_KEY: other_key,
    K.BAD_SIGNATURE: lambda log: flip(log / "checkpoint"),
    K.FILE_MISSING: lambda log: tile(log, "entries").unlink(),
    K.FILE_CUT: lambda log: cut(tile(log, "entries")),
    K.TREE_MISMATCH: lambda log: flip(tile(log, "entries")),
    K.AGREEMENT_UNSIGNED: lambda log: cut(log.parent / "agreement.json"),
}


@pytest.mark.parametrize("kind", FILES, ids=str)
def test_what_is_wrong_with_files(kind: K, workspace: Path, tmp_path: Path) -> None:
    FILES[kind](workspace / "courier" / "log")
    found = of_files(workspace, scratch=tmp_path)
    assert [(one.kind, one.party) for one in found] == [(kind, "courier")]


def test_the_command_says_whose_log_it_could_not_read(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(tile(workspace / "courier" / "log", "entries"))
    with pytest.raises(SystemExit) as left:
        main(["audit", str(workspace)])
    assert left.value.code == 1
    told = "courier could not be read; checks that need it were not made"
    assert told in capsys.readouterr().out


def test_a_party_without_a_log_is_found_and_one_that_is_not_there_is_named(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(workspace / "courier" / "log")
    (workspace / "courier" / "register.json").touch()  # as if it were no party's
    (found,) = of_files(workspace, scratch=tmp_path)
    assert (found.kind, found.party) == (K.FILE_MISSING, "courier")
    shutil.rmtree(workspace / "courier")
    assert of_files(workspace, scratch=tmp_path) == []
    with suppress(SystemExit):
        main(["audit", str(workspace)])
    assert "\nnot looked at: courier\n" in capsys.readouterr().out


def test_a_coordinators_folder_is_that_of_one_party(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enrolment = Enrolment(tmp_path / "joined")
    enrolment.signed()
    folder = enrolment.folder.path
    assert (folder / "enrolment" / "agreement.json").is_file()
    shutil.rmtree(folder / "party")
    shutil.copytree(workspace / "coordinator", folder / "party")
    assert of_files(folder, scratch=tmp_path) == []
    with pytest.raises(SystemExit) as left:
        main(["log", "verify", str(folder)])
    assert left.value.code == 0
    told = capsys.readouterr()
    assert re.search(r"^coordinator +verify ", told.err, re.MULTILINE)
    assert not re.search(r"^party ", told.err, re.MULTILINE)
    shutil.rmtree(folder / "party" / "log")
    with pytest.raises(WorkspaceError, match="holds no log"):
        of_files(folder, scratch=tmp_path)


def test_real_logs_give_no_alarm_and_fewer_witnesses_do(workspace: Path, tmp_path: Path) -> None:
    assert of_files(workspace, scratch=tmp_path) == []
    (workspace / "courier" / "log" / "witness" / "public").unlink()
    (alone,) = of_files(workspace / "courier", scratch=tmp_path)
    assert (alone.kind, alone.party) == (K.NOT_PUBLIC, "courier")


def test_logs_over_http(workspace: Path, tmp_path: Path) -> None:
    contract = workspace / "agreement.json"
    names = ("brand", "coordinator", "courier", "retailer")
    servers = [
        LogServer(("127.0.0.1", 0), workspace / name / "log", witness=None, now=lambda: 0)
        for name in names
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    urls = [f"http://127.0.0.1:{server.server_port}/" for server in servers]
    try:
        assert of_files(*urls, scratch=tmp_path / "a", agreement=contract) == []
        assert of_files(urls[3], scratch=tmp_path / "e", agreement=contract) == []  # one alone
        last = tile(workspace / "courier" / "log", "entries")
        moved = last.rename(tmp_path / "moved")
        (found,) = of_files(*urls, scratch=tmp_path / "f", agreement=contract)
        assert (found.kind, found.party) == (K.UNREADABLE, "courier")
        assert "the log of courier: " in found.sentence
        moved.rename(last)
        cut(last)
        (found,) = of_files(*urls, scratch=tmp_path / "b", agreement=contract)
        assert (found.kind, found.party) == (K.FILE_CUT, "courier")
        with pytest.raises(WorkspaceError, match="--agreement"):
            of_files(urls[0], scratch=tmp_path / "c")
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
    (gone,) = of_files(urls[0], scratch=tmp_path / "d", agreement=contract)
    assert gone.kind is K.UNREADABLE


def test_a_served_log_of_nobody_and_one_under_another_key(workspace: Path, tmp_path: Path) -> None:
    contract, log = workspace / "agreement.json", tmp_path / "log"
    key = SigningKey.from_seed(b"k" * 32)
    for origin, kind in (
        ("example.com/log", K.FOREIGN_ORIGIN),
        ("comity/courier", K.WRONG_KEY),
    ):
        shutil.rmtree(log, ignore_errors=True)
        with LogWriter.open(log, origin=origin, key=key) as writer:
            writer.append([b"{}"])
        with LogServer(("127.0.0.1", 0), log, witness=None, now=lambda: 0) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}"
            (found,) = of_files(url, scratch=tmp_path / kind, agreement=contract)
            server.shutdown()
        assert found.kind is kind


def test_a_server_of_a_log_ends_well_when_it_is_told_to(workspace: Path) -> None:
    """As the first process of a container, which gets no signal that it does not ask for."""
    before = signal.getsignal(signal.SIGTERM)

    def tell() -> None:
        while signal.getsignal(signal.SIGTERM) is before:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell, daemon=True).start()
    try:
        with pytest.raises(SystemExit) as left:
            main(["log", "serve", str(workspace / "retailer"), "--port", "0"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert left.value.code == 0


NEVER = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 9


@pytest.mark.parametrize(
    ("answer", "limits", "told"),
    [
        (b"nonsense\r\n\r\n", Limits(), "cannot be fetched"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc", Limits(), "Incomplete"),
        (NEVER, Limits(octets=len(NEVER) - 1), "bytes in all"),
        (NEVER, Limits(seconds=3), "more than 3 seconds in all"),
    ],
    ids=["no status", "cut chunk", "too much", "too slow"],
)
def test_a_server_that_answers_wrongly(
    world: World, tmp_path: Path, answer: bytes, limits: Limits, told: str
) -> None:
    ticks = itertools.count()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(2):
                with suppress(OSError):
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(4096)
                        for octet in answer:
                            connection.send(bytes([octet]))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        remote = RemoteLog(url, tmp_path, limits=limits, clock=lambda: next(ticks))
        with pytest.raises(FetchError, match=told):
            remote.fetch_heads([world.agreement])


def test_every_kind_but_those_of_a_cheating_witnessed_log_is_planted_here() -> None:
    elsewhere = {K.UNREADABLE, K.MALFORMED_LEAF, K.NOT_PUBLIC, K.REWRITTEN, K.SPLIT_VIEW}
    elsewhere |= {K.KEY_NOT_IN_FORCE, K.VERSION_MISSING, K.ROTATED_OTHERWISE}
    elsewhere |= {K.GIVEN_TWICE, K.AGREEMENT_DIFFERS, K.CODE_NOT_ALLOWED, K.OVER_PERIOD}
    elsewhere |= {
        K.MEASUREMENT_OF_STRANGER,
        K.UNAPPROVED,
        K.OTHER_VERSION,
        K.OTHER_PURPOSE,
        K.PRUNED_OTHERWISE,
        K.PRUNED,
    }
    assert set(K) == {*PLANTED, *FILES, *elsewhere}


def test_a_log_put_back_is_told_by_its_witnesses(workspace: Path, tmp_path: Path) -> None:
    log = workspace / "courier" / "log"
    assert read_checkpoint(log)
    folder = PartyFolder(workspace / "courier")
    shutil.rmtree(log)
    leaf = built(folder.agreement(), {"courier": clean(folder.agreement())["courier"][:1]})[0]
    with folder.open_log() as writer:
        writer.append([records.to_leaf(leaf.records[0])])
    found = of_files(workspace, scratch=tmp_path)
    assert {one.kind for one in found} >= {K.REWRITTEN}
    with folder.open_log() as writer:
        writer.append([b"{}"])
    kinds = {one.kind for one in of_files(workspace / "courier", scratch=tmp_path)}
    assert kinds == {K.MALFORMED_LEAF}


@pytest.mark.parametrize("says", ["what broke its log", "a witness"])
def test_an_address_that_says_it_is_of_another_party_hides_nothing(
    says: str, workspace: Path, tmp_path: Path
) -> None:
    contract, courier = workspace / "agreement.json", folders(workspace)["courier"]
    leaf = records.to_leaf(verify_party(courier.path).leaves[0])
    kept = courier.witnessed.rename(tmp_path / "kept")
    shutil.rmtree(courier.log)
    with courier.open_log() as log:
        log.append([leaf])
    kept.rename(courier.witnessed)
    (courier.witnessed / "public").unlink()
    pair = (workspace / "brand", workspace / "courier")
    honest = of_files(*pair, scratch=tmp_path / "a", agreement=contract)
    assert [one.kind for one in honest] == [K.REWRITTEN, K.NOT_PUBLIC, K.PART_NOT_GIVEN]
    served = tmp_path / "served"
    if says == "a witness":  # a mirror of its log, without what it witnessed
        shutil.copytree(workspace / "brand" / "log", served)
        shutil.rmtree(served / "witness")
    else:  # a head, and no log
        served.mkdir()
        shutil.copy(courier.log / "checkpoint", served)
    with LogServer(("127.0.0.1", 0), served, witness=None, now=lambda: 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        for number, places in enumerate([(*pair, url), (url, *pair)]):
            found = of_files(*places, scratch=tmp_path / str(number), agreement=contract)
            for one in honest:
                assert any(
                    (other.kind, other.party) == (one.kind, one.party)
                    and other.sentence.endswith(one.sentence)
                    for other in found
                )
            (twice,) = (one for one in found if one.kind is K.GIVEN_TWICE)
            assert url in twice.sentence
        server.shutdown()


@pytest.mark.parametrize(
    "said", ["{}", '{"name": 1}', '{"name": "\\ud800"}', '{"name": "\\u001b[2J"}', "[" * 100_000]
)
def test_a_folder_that_says_no_name_ends_no_audit(
    said: str, workspace: Path, tmp_path: Path
) -> None:
    (workspace / "brand" / "party.json").write_text(said)
    (found,) = of_files(workspace, scratch=tmp_path)
    assert (found.kind, found.party) == (K.UNREADABLE, str(workspace / "brand"))


def test_a_name_that_reads_as_markup_ends_no_verification_of_others(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "brand" / "party.json").write_text('{"name": "[/nobody]"}')
    with pytest.raises(SystemExit) as left:
        main(["log", "verify", str(workspace)])
    told = capsys.readouterr()
    assert left.value.code == 1
    assert "[/nobody]" in told.err
    assert told.err.endswith("2 do not hold; these do: coordinator, courier, retailer\n")


def test_a_log_that_no_check_can_take_stops_no_audit_of_others(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(log: PartyLog, rules: Any) -> tuple[Finding, ...]:
        if log.party == "courier":
            raise OverflowError("date value out of range")
        return audit_alone(log, rules)

    monkeypatch.setattr(federation.auditing, "audit_alone", fails)
    (found,) = of_files(workspace, scratch=tmp_path)
    assert (found.kind, found.party) == (K.UNREADABLE, "courier")
    assert "OverflowError" in found.sentence


def test_a_line_that_a_witness_makes_up_spoils_no_log(workspace: Path, tmp_path: Path) -> None:
    """The brand keeps a head with a line in the name of another witness."""
    courier, brand = folders(workspace)["courier"], folders(workspace)["brand"]
    agreement, now = courier.agreement(), datetime.now(UTC)
    shown = LogWitnessing(courier, agreement, clock=lambda: now).show()
    witness = LogWitnessing(brand, agreement, clock=lambda: now)
    (answer,) = witness.cosign([one for one in shown if one.witness == "brand"])
    assert answer.cosignature
    file = brand.witnessed / origin_hash("comity/courier") / "checkpoint"
    note = Note.parse(file.read_bytes())
    key = agreement.party("coordinator").cosigner
    assert key is not None
    *log, own = note.signatures
    made_up = NoteSignature(key.name, key.key_id, bytes(len(own.signature)))
    file.write_bytes(Note(note.text, (*log, made_up, own)).to_bytes())
    assert of_files(workspace, scratch=tmp_path) == []


# --- logs that grow, and logs that fork ---------------------------------------------------------


def folders(workspace: Path) -> dict[str, PartyFolder]:
    names = ("brand", "coordinator", "courier", "retailer")
    return {name: PartyFolder(workspace / name) for name in names}


def grow(workspace: Path, name: str) -> None:
    """Append a leaf, and have everybody else cosign the head."""
    parties = folders(workspace)
    agreement = parties[name].agreement()
    now = datetime.now(UTC)
    leaf = records.CodeReleased(
        time=now,
        party=name,
        agreement=agreement.digest,
        package="comity",
        package_version="1",
        code_digest="5" * 64,
    )
    with parties[name].open_log() as log:
        log.append([records.to_leaf(leaf)])
    logs = {
        one: LogWitnessing(folder, agreement, clock=lambda: now) for one, folder in parties.items()
    }
    shown = logs[name].show()
    logs[name].keep([answer for one in shown for answer in logs[one.witness].cosign([one])])


@pytest.mark.parametrize("where", ["folders", "served", "verified"])
def test_logs_that_grow_while_they_are_audited_were_not_rewritten(
    where: str, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after each log was read it grows, and all others cosign more than was read."""
    grown = []

    def growing(read: Callable[..., Any]) -> Callable[..., Any]:
        def then_grow(*arguments: Any, **options: Any) -> Any:
            found = read(*arguments, **options)
            name = sorted(folders(workspace))[len(grown) % 4]
            grow(workspace, name)
            grown.append(name)
            return found

        return then_grow

    if where == "verified":
        monkeypatch.setattr(federation.audit, "verify_party", growing(verify_party))
        assert verify_all([workspace])[1] == ()
    elif where == "folders":
        monkeypatch.setattr(federation.auditing, "read_log", growing(read_log))
        assert of_files(workspace, scratch=tmp_path / "s") == []
    else:
        monkeypatch.setattr(RemoteLog, "fetch_log", growing(RemoteLog.fetch_log))
        with ExitStack() as stack:
            urls = []
            for name in sorted(folders(workspace)):
                log = workspace / name / "log"
                server = LogServer(("127.0.0.1", 0), log, witness=None, now=lambda: 0)
                stack.enter_context(server)
                threading.Thread(target=server.serve_forever, daemon=True).start()
                stack.callback(server.shutdown)
                urls.append(f"http://127.0.0.1:{server.server_port}")
            contract = workspace / "agreement.json"
            assert of_files(*urls, scratch=tmp_path / "s", agreement=contract) == []
    assert grown == sorted(folders(workspace))


@pytest.mark.parametrize("shows", ["what was cosigned", "the fork"])
def test_a_log_forked_after_a_witness_saw_it(shows: str, workspace: Path, tmp_path: Path) -> None:
    courier, brand = folders(workspace)["courier"], folders(workspace)["brand"]
    agreement, now = courier.agreement(), datetime.now(UTC)
    base = Path(shutil.copytree(courier.log, tmp_path / "base"))
    own = LogWitnessing(courier, agreement, clock=lambda: now)
    witness = LogWitnessing(brand, agreement, clock=lambda: now)
    leaf = verify_party(courier.path).leaves[1]

    def shown(package: str) -> Path:
        """A log with one leaf more, whose head the brand is asked to cosign."""
        shutil.rmtree(courier.log)
        shutil.copytree(base, courier.log)
        fields = {"time": now, "party": "courier", "agreement": leaf.agreement}
        told = records.CodeReleased(
            **fields, package=package, package_version="1", code_digest="5" * 64
        )
        with courier.open_log() as log:
            log.append([records.to_leaf(told)])
        with suppress(RefusedError):
            witness.cosign([one for one in own.show() if one.witness == "brand"])
        return Path(shutil.copytree(courier.log, tmp_path / package))

    first, fork = shown("first"), shown("fork")
    shutil.rmtree(courier.log)
    shutil.copytree(first if shows == "what was cosigned" else fork, courier.log)
    assert [(one.kind, one.party) for one in of_files(workspace, scratch=tmp_path / "s")] == [
        (K.SPLIT_VIEW, "courier")
    ]
    kept = brand.witnessed / origin_hash("comity/courier") / "evidence"
    (seen,), (submitted,) = kept.glob("*.seen"), kept.glob("*.submitted")
    pair = Evidence(seen.read_bytes(), submitted.read_bytes())
    pair.verify(log_keys(agreement.party("courier")))
    assert Note.parse(read_checkpoint(first)).text == Note.parse(pair.seen).text
    assert read_checkpoint(fork) == AddCheckpoint.parse(pair.submitted).checkpoint


def test_the_command_needs_base_dependencies_only(workspace: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('flwr', 'torch', 'dp_accounting', 'nacl', 'sqlalchemy', 'llvmlite'):\n"
        "    sys.modules[name] = None\n"
        "from federation.cli import main\n"
        "main(['audit', sys.argv[1], '--json'])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(workspace)], check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["findings"] == []
