"""Erasing at a party: what is gone, what is kept out for ever, and what proves it."""

import io
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from compliance import records
from compliance.erasure.completion import read_completion
from compliance.erasure.models import model_step
from compliance.errors import ErasureError
from compliance.log.verifier import verify_log
from compliance.records import ErasureOutcome
from compliance.subject_keys import SubjectKeys
from compliance.terms import ErasureTerms
from connectors import SqlSource, open_connector
from connectors.errors import SourceReadOnlyError
from federation import erasing as module
from federation.cli import main
from federation.clock import utc_now
from federation.desk import Desk
from federation.erased import Erased
from federation.erasing import Erasing
from federation.errors import RefusedError, WorkspaceError
from federation.expanding import Expanding
from federation.gate import Gate
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


def test_the_same_person_twice_gets_the_same_receipt(party: Path) -> None:
    _, email = chosen(party)
    with opened(party) as erasing:
        first = erasing.request("email", email)
        assert erasing.request("email", f"  {email.upper()} ") == first
        erasing.run()
        receipt = erasing.receipt(first.execution.request)
        assert erasing.request("email", email).execution.request == first.execution.request
        erasing.run()
        assert erasing.receipt(first.execution.request) == receipt


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


def test_somebody_unknown_is_not_held_and_the_completion_does_not_say_so(party: Path) -> None:
    with opened(party) as erasing:
        request = erasing.request("email", "nobody-here@shop.com").execution.request
        erasing.run()
        signed, outcomes = erasing.receipt(request)
    told = {step.outcome for step in outcomes.steps}
    assert told <= {ErasureOutcome.NOT_HELD, ErasureOutcome.UNAFFECTED}
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
        with pytest.raises(WorkspaceError, match="not completed here"):
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
    code, out = comity("receipt", str(party), asked["request"], "--outcomes")
    assert code == 0
    assert json.loads(out)["steps"][0]["outcome"] == "deleted"
    assert comity("receipt", str(party), "rq-none")[0] == 2
    assert comity("request", str(party), told="")[0] == 1
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
