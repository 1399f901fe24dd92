"""Erasing at a party: what is gone, what is kept out for ever, and what proves it."""

import io
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from object_server import Bucket
from object_server import bucket as bucket  # noqa: PLC0414 - a fixture
from object_server import object_server as object_server  # noqa: PLC0414 - a fixture
from test_connectors import postgres as postgres  # noqa: PLC0414 - a fixture

from compliance import records
from compliance.erasure.completion import Step, read_completion
from compliance.erasure.models import model_step
from compliance.errors import ErasureError
from compliance.log.verifier import verify_log
from compliance.records import ErasureOutcome
from compliance.subject_keys import SubjectKeys
from compliance.terms import ErasureTerms
from connectors import SqlSource, open_connector
from connectors.errors import ConnectorError, SourceReadOnlyError, SourceUnavailableError
from federation import erasing as module
from federation.cli import main
from federation.clock import utc_now
from federation.desk import Desk
from federation.erased import Erased
from federation.erasing import Erasing
from federation.erasure_places import ErasurePlaces
from federation.errors import RefusedError, WorkspaceError
from federation.expanding import Expanding
from federation.gate import Gate
from federation.matching.token_set import MatchingSet
from federation.members import load_people
from federation.own_rows import KeptModel, OwnRows
from federation.party import PartyFolder, locked
from privacy.randomness import new_secret


@pytest.fixture
def party(finished: tuple[Path, Path], tmp_path: Path) -> Path:
    """A partner's folder after a whole collaboration, of its own data."""
    workspace = tmp_path / "workspace"
    shutil.copytree(finished[1], workspace)
    folders = [path.parent for path in sorted(workspace.glob("*/segments"))]
    folder = folders[0]
    table = table_of(folder)
    own = folder / "own.csv"
    shutil.copy(table, own)
    document = json.loads((folder / "party.json").read_bytes())
    document["data"]["path"] = "own.csv"
    (folder / "party.json").write_text(json.dumps(document))
    return folder


def table_of(directory: Path) -> Path:
    folder = PartyFolder(directory)
    assert folder.config.data is not None
    path = folder.config.data.within(folder.path).path
    assert path is not None
    return path


@contextmanager
def opened(directory: Path) -> Iterator[Erasing]:
    folder = PartyFolder(directory)
    agreement = folder.agreement()
    with locked(folder), folder.open_log() as log:
        gate = Gate(folder, agreement, log, None, clock=utc_now)
        yield Erasing(folder, agreement, gate, clock=utc_now)


def chosen(directory: Path) -> tuple[str, str]:
    """Return reference and e-mail address of somebody in the party's segment."""
    (segment,) = (directory / "segments").iterdir()
    listed = set(pd.read_csv(segment, dtype=str)["record"])
    table = pd.read_csv(table_of(directory), dtype=str)
    row = table[table["record"].isin(listed) & table["email"].notna()].iloc[0]
    return str(row["record"]), str(row["email"])


def leaves(directory: Path) -> list[records.Record]:
    folder = PartyFolder(directory)
    key = folder.agreement().party(folder.name).log_key
    return [records.parse_leaf(one) for one in verify_log(folder.log, verification_key=key).entries]


def test_somebody_is_erased_everywhere_and_it_is_proved(party: Path) -> None:
    reference, email = chosen(party)
    store = SubjectKeys.open(PartyFolder(party).subject_keys, draw=new_secret)
    store.of([reference])
    with opened(party) as erasing:
        asked = erasing.request("email", email)
        (done,) = erasing.run()
        signed, outcomes = erasing.receipt(asked.execution.request)
    told = {step.target.split(" ")[0]: step.outcome for step in outcomes.steps}
    assert told["source"] is told["segment"] is told["subject"] is ErasureOutcome.DELETED
    assert reference not in set(pd.read_csv(table_of(party), dtype=str)["record"])
    (segment,) = (party / "segments").iterdir()
    assert reference not in set(pd.read_csv(segment, dtype=str)["record"])
    assert store.count() == 0
    folder = PartyFolder(party)
    key = folder.agreement().party(folder.name).verifying_key
    completion = read_completion(
        signed, request=asked.execution.request, party=folder.name, key=key
    )
    completion.check_outcomes(outcomes)
    kinds = [leaf.kind for leaf in leaves(party)]
    assert kinds.count("erasure.requested") == kinds.count("erasure.completed") == 1
    assert kinds.count("erasure.step") == len(done.execution.targets)


def test_what_a_crash_left_waiting_for_its_place_lists_nobody_afterwards(party: Path) -> None:
    reference, email = chosen(party)
    folder = PartyFolder(party)
    answered = next(folder.outbox.glob("*.bin")).name.split(".")[0]
    waiting = [
        folder.pending(folder.segment(job), question)
        for job, question in (("told", answered), ("untold", "0" * 64))
    ]
    for path in waiting:
        path.write_text(f"record,score\n{reference},1.0\nR#other,0.5\n")
    with opened(party) as erasing:
        erasing.request("email", email)
        erasing.run()
    assert not any(path.exists() for path in (*waiting, folder.segment("untold")))
    assert pd.read_csv(folder.segment("told"))["record"].tolist() == ["R#other"]


def test_the_same_person_twice_gets_the_same_request_while_it_is_open(party: Path) -> None:
    _, email = chosen(party)
    with opened(party) as erasing:
        first = erasing.request("email", email)
        assert erasing.request("email", f"  {email.upper()} ") == first
        erasing.run()
        receipt = erasing.receipt(first.execution.request)
        erasing.run()
        assert erasing.receipt(first.execution.request) == receipt


def test_who_asks_again_once_it_is_done_is_looked_for_again(party: Path) -> None:
    reference, email = chosen(party)
    before = pd.read_csv(table_of(party), dtype=str)
    with opened(party) as erasing:
        first = erasing.request("email", email).execution.request
        erasing.run()
        receipt = erasing.receipt(first)
        before.to_csv(table_of(party), index=False)  # an import
        again = erasing.request("email", email)
        assert again.execution.request != first
        assert again.peers
        assert erasing.request("email", email) == again
        erasing.run_pending()
        assert erasing.receipt(first) == receipt
        steps = erasing.receipt(again.execution.request)[1].steps
    assert reference not in set(pd.read_csv(table_of(party), dtype=str)["record"])
    (match,) = {one.outcome for one in steps if one.target.startswith("match")}
    assert match is ErasureOutcome.SUPPRESSED  # known by what the first request found


def test_a_place_out_of_reach_hinders_no_other_request(
    party: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, email = chosen(party)
    deal = ErasurePlaces.deal_with
    with opened(party) as erasing:
        blocked = erasing.request("email", "nobody-here@shop.com").execution.request

        def away(self: ErasurePlaces, target: str, *rest: Any, request: str, **told: Any) -> Step:
            if request == blocked:
                raise SourceUnavailableError("the database is away")
            return deal(self, target, *rest, request=request, **told)

        other = erasing.request("email", email).execution.request
        with monkeypatch.context() as patch:
            patch.setattr(ErasurePlaces, "deal_with", away)
            for run in (erasing.run_pending, erasing.run):
                with pytest.raises(ConnectorError, match="away"):
                    run()
        assert erasing.receipt(other)
        assert reference not in set(pd.read_csv(table_of(party), dtype=str)["record"])
        erasing.run_pending()
        assert erasing.receipt(blocked)


def test_who_is_imported_again_stays_out(party: Path) -> None:
    reference, email = chosen(party)
    table = pd.read_csv(table_of(party), dtype=str)
    row = table[table["record"] == reference].assign(record="another-reference")
    with opened(party) as erasing:
        request = erasing.request("email", email).execution.request
        erasing.run()
        receipt = erasing.receipt(request)
        again = pd.concat([pd.read_csv(table_of(party), dtype=str), row])
        again.to_csv(table_of(party), index=False)
        folder = PartyFolder(party)
        listed = Erased(folder, folder.agreement()).references()
        assert "another-reference" in {one for part in listed for one in part.to_pylist()}
        erasing.run()
        assert erasing.receipt(request) == receipt
    assert "another-reference" not in set(pd.read_csv(table_of(party), dtype=str)["record"])


def test_nobody_is_judged_by_a_model_who_asked_to_be_erased(party: Path) -> None:
    reference, email = chosen(party)
    (file,) = (party / "models").glob("*.json")
    assert reference in OwnRows.read(KeptModel.open(file), utc_now).people.keys
    with opened(party) as erasing:
        erasing.request("email", email)
    assert reference not in OwnRows.read(KeptModel.open(file), utc_now).people.keys


def test_whose_row_left_the_table_is_found_by_the_matches_that_are_kept(party: Path) -> None:
    reference, email = chosen(party)
    table = pd.read_csv(table_of(party), dtype=str)
    table[table["record"] != reference].to_csv(table_of(party), index=False)  # an import
    with opened(party) as erasing:
        request = erasing.request("email", email).execution.request
        erasing.run()
        steps = erasing.receipt(request)[1].steps
    told = {step.target.split(" ")[0]: step.outcome for step in steps}
    assert told["segment"] is ErasureOutcome.DELETED
    assert told["match"] is ErasureOutcome.SUPPRESSED
    (segment,) = (party / "segments").iterdir()
    assert reference not in set(pd.read_csv(segment, dtype=str)["record"])


def test_who_bore_the_identifier_by_mistake_stays(party: Path) -> None:
    reference, email = chosen(party)
    table = pd.read_csv(table_of(party), dtype=str)
    table.loc[table["record"] == reference, "email"] = "ann.smith@gmx.net"  # corrected
    table.to_csv(table_of(party), index=False)
    with opened(party) as erasing:
        request = erasing.request("email", email).execution.request
        erasing.run()
        steps = erasing.receipt(request)[1].steps
        folder = PartyFolder(party)
        listed = Erased(folder, folder.agreement()).references()
        assert reference not in {one for part in listed for one in part.to_pylist()}
    assert reference in set(pd.read_csv(table_of(party), dtype=str)["record"])
    (segment,) = (party / "segments").iterdir()
    assert reference in set(pd.read_csv(segment, dtype=str)["record"])
    told = {step.target.split(" ")[0]: step.outcome for step in steps}
    assert told["source"] is ErasureOutcome.NOT_HELD


def test_whom_nothing_here_knows_is_told_as_unknown_and_the_completion_does_not_say_so(
    party: Path,
) -> None:
    with opened(party) as erasing:
        request = erasing.request("email", "nobody-here@shop.com").execution.request
        erasing.run()
        signed, outcomes = erasing.receipt(request)
    told = {step.outcome for step in outcomes.steps}
    assert told == {ErasureOutcome.NOT_HELD, ErasureOutcome.UNKNOWN}
    assert outcomes.steps[0] == Step(target="source", outcome=ErasureOutcome.NOT_HELD)
    assert b"not_held" not in signed
    assert not list((party / "models").glob("*.retired"))


def test_a_source_that_can_only_be_read_is_suppressed(party: Path) -> None:
    _, email = chosen(party)
    table = pd.read_csv(table_of(party), dtype=str)
    with sqlite3.connect(party / "own.sqlite") as connection:
        table.to_sql("people", connection, index=False)
        connection.execute("CREATE VIEW shown AS SELECT * FROM people")
    document = json.loads((party / "party.json").read_bytes())
    document["data"] |= {"path": None, "url": "sqlite:///own.sqlite", "table": "shown"}
    (party / "party.json").write_text(json.dumps(document))
    with opened(party) as erasing:
        request = erasing.request("email", email).execution.request
        erasing.run()
        steps = erasing.receipt(request)[1].steps
    assert (steps[0].target, steps[0].outcome) == ("source", ErasureOutcome.SUPPRESSED)
    source = SqlSource(url=f"sqlite:///{party / 'own.sqlite'}", table="shown")
    with pytest.raises(SourceReadOnlyError, match="can only be read"):
        open_connector(source).delete("record", table["record"][:1])
    assert open_connector(source).count() == len(table)


def test_a_retired_model_scores_nobody(party: Path) -> None:
    folder = PartyFolder(party)
    (model,) = (party / "models").glob("*.json")
    # Somebody of the match itself: whom the model saw.
    from federation.jobs.model import JointModel
    from federation.members import load_people

    match = JointModel.model_validate_json(model.read_bytes()).match
    people = load_people(folder.job(match) / "people").keys
    seen = str(next(iter(people.batches()))[0])
    table = pd.read_csv(table_of(party), dtype=str)
    email = table[table["record"] == seen]["email"].iloc[0]
    if not isinstance(email, str):
        pytest.skip("the first of them has no e-mail address")
    with opened(party) as erasing:
        erasing.request("email", email)
        erasing.run()
    assert folder.retired(model.stem).exists()
    assert [leaf.kind for leaf in leaves(party)].count("model.retired") == 1
    with locked(folder), folder.open_log() as log:
        gate = Gate(folder, folder.agreement(), log, None, clock=utc_now)
        desk = Desk(folder, folder.agreement(), gate, None, clock=utc_now)  # type: ignore[arg-type]
        with pytest.raises(RefusedError, match="retired"):
            Expanding(desk)._load_model(model.stem)


@pytest.fixture
def listing(party: Path, postgres: str) -> tuple[str, str, str]:
    """The party's segment as a table in PostgreSQL: its URL, and whom is in it."""
    reference, email = chosen(party)
    (file,) = (party / "segments").iterdir()
    segment = pd.read_csv(file, dtype=str)
    file.unlink()
    document = json.loads((party / "party.json").read_bytes())
    document["segments"] = {"kind": "sql", "url": postgres}
    (party / "party.json").write_text(json.dumps(document))
    engine = sa.create_engine(postgres, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for kind in ("VIEW", "TABLE"):
            name = f"segment_{file.stem}" if kind == "VIEW" else f"kept_{file.stem}"
            connection.execute(sa.text(f"DROP {kind} IF EXISTS {name} CASCADE"))
        segment.to_sql(f"kept_{file.stem}", connection, index=False)
    return f"segment_{file.stem}", reference, email


def execute(url: str, command: str) -> list[tuple[str, ...]]:
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        result = connection.execute(sa.text(command))
        return [tuple(row) for row in result] if result.returns_rows else []


def outcome_at(party: Path, place: str, email: str) -> ErasureOutcome:
    with opened(party) as erasing:
        request = erasing.request("email", email).execution.request
        erasing.run()
        steps = erasing.receipt(request)[1].steps
    (found,) = [step.outcome for step in steps if step.target.startswith(place)]
    return found


def test_somebody_leaves_a_segment_in_postgresql_and_once_the_database_is_there(
    party: Path, postgres: str, listing: tuple[str, str, str]
) -> None:
    table, reference, email = listing
    execute(postgres, f"ALTER TABLE {table.replace('segment', 'kept')} RENAME TO {table}")
    before = len(execute(postgres, f"SELECT record FROM {table}"))
    config = (party / "party.json").read_text()
    away = sa.make_url(postgres).set(query={}, host="127.0.0.1", port=1)
    gone = json.loads(config)
    gone["segments"]["url"] = away.render_as_string(hide_password=False)
    (party / "party.json").write_text(json.dumps(gone))
    with pytest.raises(ConnectorError):
        outcome_at(party, "segment table", email)
    (party / "party.json").write_text(config)
    assert outcome_at(party, "segment table", email) is ErasureOutcome.DELETED
    left = execute(postgres, f"SELECT record FROM {table}")
    assert (reference,) not in left
    assert len(left) == before - 1
    execute(postgres, f"DROP TABLE {table}")


def test_somebody_leaves_objects_and_stays_out_where_these_can_only_be_read(
    party: Path, bucket: Bucket, tmp_path: Path
) -> None:
    reference, email = chosen(party)
    (file,) = (party / "segments").iterdir()
    table = table_of(party)
    document = json.loads((party / "party.json").read_bytes())
    document["segments"] = {"kind": "csv", "url": f"s3://{bucket.name}/crm/segments"}
    document["data"].pop("path")
    document["data"]["url"] = bucket.put("own/people-1.csv", table.read_bytes())
    bucket.put(f"segments/{file.name}", file.read_bytes())
    file.unlink()
    (party / "party.json").write_text(json.dumps(document))
    held = shutil.copytree(party, tmp_path / "held" / party.name)

    assert outcome_at(party, "segment object", email) is ErasureOutcome.DELETED
    for key in ("own/people-1.csv", f"segments/{file.name}"):
        assert reference not in set(pd.read_csv(io.BytesIO(bucket.get(key)), dtype=str)["record"])

    bucket.put("own/people-1.csv", table.read_bytes())
    bucket.deny("s3:PutObject")
    assert outcome_at(held, "source", email) is ErasureOutcome.SUPPRESSED
    assert bucket.get("own/people-1.csv") == table.read_bytes()


def test_a_view_in_postgresql_is_suppressed_and_a_table_that_went_holds_nobody(
    party: Path, postgres: str, listing: tuple[str, str, str], tmp_path: Path
) -> None:
    table, reference, email = listing
    kept = table.replace("segment", "kept")
    execute(postgres, f"CREATE VIEW {table} AS SELECT DISTINCT * FROM {kept}")
    without = shutil.copytree(party, tmp_path / "without" / party.name)
    assert outcome_at(party, "segment table", email) is ErasureOutcome.SUPPRESSED
    assert (reference,) in execute(postgres, f"SELECT record FROM {table}")
    execute(postgres, f"DROP VIEW {table}")
    assert outcome_at(without, "segment table", email) is ErasureOutcome.NOT_HELD


def test_no_hash_of_whoever_was_erased_stays_of_the_last_set(party: Path) -> None:
    """Whoever copies it needs no key to try candidates."""
    reference, email = chosen(party)
    (file,) = (party / "matches").glob("last-set*.bin")
    (own,) = map(MatchingSet.open, (party / "jobs").glob("*/set"))
    assert own is not None
    people = load_people(own.directory.parent / "people").keys
    tokens, rows, _ = own.bucket(0, 1)
    mine = people.at(rows).to_numpy(zero_copy_only=False) == reference
    tails = tokens[mine][:, -8:].copy().view("<u8").ravel()
    before = np.frombuffer(file.read_bytes(), "<u8")
    assert len(tails)
    assert np.isin(tails, before).all()
    with opened(party) as erasing:
        erasing.request("email", email)
        erasing.run()
    after = np.frombuffer(file.read_bytes(), "<u8")
    assert after.tolist() == sorted(set(before.tolist()) - set(tails.tolist()))
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("is_there_a_backup", [True, False])
def test_nobody_is_said_to_be_erased_while_a_hash_may_stay_of_the_last_set(
    party: Path, is_there_a_backup: bool
) -> None:
    """A full disk hinders the writing of a large file where small ones are still written."""
    reference, email = chosen(party)
    (file,) = (party / "matches").glob("last-set*.bin")
    whole = file.read_bytes()
    file.write_bytes(b"cut")
    with opened(party) as erasing:
        request = erasing.request("email", email).execution.request
        with pytest.raises(WorkspaceError, match="from a backup, then requests to erase are"):
            erasing.run_pending()
        assert reference not in set(pd.read_csv(table_of(party), dtype=str)["record"])
        with pytest.raises(WorkspaceError, match="is not completed here"):
            erasing.receipt(request)
        if is_there_a_backup:
            file.write_bytes(whole)
        else:
            file.unlink()
        erasing.run_pending()  # as every look at requests does, before a job
        assert erasing.receipt(request)
    assert not is_there_a_backup or len(file.read_bytes()) < len(whole)


def test_what_a_killed_command_had_read_goes_with_whoever_is_erased(party: Path) -> None:
    reference, email = chosen(party)
    left = party / "jobs" / "model" / "own-rows.tmp"
    left.mkdir(parents=True)
    (left / "people").write_text(reference)
    with opened(party) as erasing:
        erasing.request("email", email)
        erasing.run()
    assert not left.exists()


def test_what_went_before_a_cut_is_told_as_deleted(
    party: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, email = chosen(party)
    deal = ErasurePlaces.deal_with

    def dying(self: ErasurePlaces, target: str, *rest: Any, **told: Any) -> Step:
        step = deal(self, target, *rest, **told)
        if target.startswith("segment"):
            raise Cut
        return step

    with opened(party) as erasing:
        request = erasing.request("email", email).execution.request
        with monkeypatch.context() as patch:
            patch.setattr(ErasurePlaces, "deal_with", dying)
            with pytest.raises(Cut):
                erasing.run()
        erasing.run()
        steps = erasing.receipt(request)[1].steps
    (segment,) = [step for step in steps if step.target.startswith("segment")]
    assert segment.outcome is ErasureOutcome.DELETED
    told = [leaf.target for leaf in leaves(party) if isinstance(leaf, records.ErasureStep)]
    assert len(told) == len(set(told)) == len(steps)


class Cut(Exception):  # noqa: N818
    """The process ends here."""


@pytest.mark.parametrize("survives", range(8))
def test_a_run_that_is_cut_goes_on_where_it_was(
    party: Path, survives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, email = chosen(party)
    with opened(party) as erasing:
        request = erasing.request("email", email).execution.request
    written = 0
    write = module.write_atomically

    def dying(path: Path, content: bytes, *, mode: int = 0o644) -> None:
        nonlocal written
        written += 1
        if written > survives:
            raise Cut
        write(path, content, mode=mode)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", dying)
        try:
            with opened(party) as erasing:
                erasing.run()
        except Cut:
            pass
    with opened(party) as erasing:
        erasing.run()
        _, outcomes = erasing.receipt(request)
    told = {step.target: step.outcome for step in outcomes.steps}
    assert told["source"] is ErasureOutcome.DELETED


def test_a_bad_identifier_and_an_unknown_request_are_refused(party: Path) -> None:
    with opened(party) as erasing:
        with pytest.raises(ErasureError, match="normalises to nothing"):
            erasing.request("email", "  ")
        with pytest.raises(WorkspaceError, match="there is none"):
            erasing.receipt("rq-none")
        assert erasing.status() == ()


def test_a_lost_entry_stops_instead_of_letting_somebody_back(party: Path) -> None:
    _, email = chosen(party)
    with opened(party) as erasing:
        request = erasing.request("email", email).execution.request
        (party / "erasures" / f"{request}.person").write_bytes(b"damaged")
        with pytest.raises(WorkspaceError, match="would come back"):
            erasing.run()


def test_the_commands(
    party: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, email = chosen(party)

    def comity(*arguments: str, told: str = "") -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(told))
        with pytest.raises(SystemExit) as left:
            main(["erase", *arguments])
        return int(left.value.code or 0), capsys.readouterr().out

    code, out = comity("request", str(party), "--json", told=email)
    (asked,) = json.loads(out)
    assert (code, asked["standing"]) == (0, "acknowledged")
    assert comity("run", str(party))[0] == 0
    assert "completed" in comity("status", str(party))[1]
    (state,) = json.loads(comity("status", str(party), "--json")[1])
    assert {one["state"] for one in state["peers"]} == {"queued"}
    code, out = comity("spread", str(party.parent))
    assert code == 0
    assert out.count("completed") > 1
    assert comity("spread", str(party))[0] == 2
    told = json.loads(comity("receipt", str(party), asked["request"], "--json", "--outcomes")[1])
    assert told["request"] == told["outcomes"]["request"] == asked["request"]
    assert told["completion"]["signatures"]
    assert set(told["peers"]) == {one["peer"] for one in state["peers"]}
    code, out = comity("receipt", str(party), asked["request"], "--outcomes")
    assert code == 0
    assert json.loads(out)["steps"][0]["outcome"] == "deleted"
    with pytest.raises(SystemExit):
        main(["erase", "receipt", str(party), asked["request"]])
    printed = capsys.readouterr()
    assert json.loads(printed.out) == told["completion"]
    assert "--outcomes prints what was done" in printed.err
    assert comity("receipt", str(party), "rq-none")[0] == 2
    assert comity("request", str(party), told="\n")[0] == 2
    assert comity("request", str(party), told="nobody")[0] == 1
    assert comity("request", str(party), told="a" * 5000)[0] == 2


@pytest.mark.parametrize(
    ("terms", "saw", "epsilon", "outcome"),
    [
        ({}, False, None, ErasureOutcome.UNAFFECTED),
        ({"tolerated_epsilon": 1.0}, True, 1.0, ErasureOutcome.TOLERATED_DP),
        ({"tolerated_epsilon": 1.0}, True, 1.1, ErasureOutcome.RETIRED),
        ({"tolerated_epsilon": 1.0}, True, None, ErasureOutcome.RETIRED),
        ({"retrain_days": 5}, True, 0.1, ErasureOutcome.RETRAIN),
        ({}, True, 0.1, ErasureOutcome.RETIRED),
    ],
)
def test_what_becomes_of_a_model(
    terms: dict[str, float], saw: bool, epsilon: float | None, outcome: ErasureOutcome
) -> None:
    clause = ErasureTerms.model_validate(terms)
    assert model_step(clause, "march", saw=saw, epsilon=epsilon, now=utc_now()).outcome is outcome
