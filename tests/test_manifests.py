"""Manifests: who was in a training, written down before it leaves, sealed, and held by the log."""

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import parties
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parties import MATCH, NOW, PEOPLE, TRAIN, World

from compliance.errors import ManifestError
from compliance.subject_keys import SubjectKeys
from federation import desk as desk_module
from federation import retaining
from federation.coordinator import write_jobs
from federation.erasing import Erasing
from federation.errors import WorkspaceError
from federation.gate import Gate
from federation.gate.outbox import Outbox
from federation.party import PartyFolder, locked
from federation.people_used import PeopleUsed
from federation.references import References
from federation.training import manifests
from federation.training.manifests import Manifest, keep_manifest
from privacy.randomness import new_secret

PARTNER = "retailer"
QUICK = TRAIN.model_copy(update={"steps": 2, "rounds": 2})


@pytest.fixture(scope="module")
def matched(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Everybody after the match, before any training."""
    world = World.make(
        tmp_path_factory.mktemp("matched") / "world",
        retention=({"artefact": "model", "days": 10, "basis": "the campaign"},),
    )
    write_jobs(world.folder("coordinator"), (MATCH,))
    world.run()
    write_jobs(world.folder("coordinator"), (MATCH, QUICK))
    return world


@pytest.fixture(scope="module")
def trained(matched: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = matched.copy(tmp_path_factory.mktemp("trained") / "world")
    world.run()
    return world


@pytest.fixture
def world(trained: World, tmp_path: Path) -> World:
    return trained.copy(tmp_path / "world")


def opened(world: World, job: str = "model") -> Manifest:
    found = Manifest.open(world.folder(PARTNER), job)
    assert found is not None
    return found


def erasing(world: World, party: str, people: Sequence[int]) -> None:
    folder = world.folder(party)
    with locked(folder), folder.open_log() as log:
        gate = Gate(folder, world.agreement, log, None, clock=world.clock)
        for person in people:
            kind = Erasing(folder, world.agreement, gate, clock=world.clock)
            kind.request("email", parties.email(person))


def files(world: World) -> dict[str, bytes]:
    directory = world.folder(PARTNER).job("model") / "manifest"
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def damage(world: World, pattern: str, content: Any) -> None:
    (path, *_) = sorted((world.folder(PARTNER).job("model") / "manifest").glob(pattern))
    path.write_bytes(content(path.read_bytes()))


def test_every_answer_of_a_training_is_in_it_and_the_log_tells_the_same(world: World) -> None:
    found = opened(world)
    assert [one.computation for one in found.entries] == ["train.update"] * 2
    (entry, _) = found.entries
    assert (entry.used.count, entry.rows, entry.source) == (50, 50, "find")
    assert (entry.epsilon, entry.agreement) == (1.0, world.agreement.digest)
    found.check(world.leaves(PARTNER))
    assert Manifest.open(world.folder("brand"), "model") is None  # it brought no rows
    assert Manifest.open(world.folder(PARTNER), "other") is None


@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    withdrawn=st.sets(st.sampled_from(PEOPLE[PARTNER]), max_size=5),
    erased=st.sets(st.sampled_from(PEOPLE[PARTNER]), max_size=2),
    between=st.sets(st.sampled_from(PEOPLE[PARTNER]), max_size=5),
)
def test_it_names_exactly_who_was_used(
    matched: World,
    tmp_path_factory: pytest.TempPathFactory,
    withdrawn: set[int],
    erased: set[int],
    between: set[int],
) -> None:
    """The oracle: of each round, everybody but who had withdrawn, or asked to be erased, by then."""
    world = matched.copy(tmp_path_factory.mktemp("drawn") / "world")
    world.withdraw(PARTNER, sorted(withdrawn))
    erasing(world, PARTNER, sorted(erased))

    def listener(name: str, _: Any, answer: Any) -> Any:
        if name == PARTNER and world.read(answer).header.kind == "train.update":
            world.withdraw(PARTNER, sorted(withdrawn | between))
        return answer

    world.listener = listener
    world.run()
    first = set(PEOPLE[PARTNER]) - withdrawn - erased
    found = opened(world)
    named = {person for person in PEOPLE[PARTNER] if found.names([parties.record(PARTNER, person)])}
    assert named == first  # of two rounds, the first is the larger one
    last = found.entries[-1]
    assert last.used.count == len(first - between)
    assert found.entries[0].erased.count == len(erased)
    assert found.knew_erased([parties.record(PARTNER, one) for one in erased])
    found.check(world.leaves(PARTNER))


answers = st.lists(
    st.tuples(
        st.sets(st.integers(0, 9), max_size=6),
        st.sets(st.integers(10, 14), max_size=3),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=answers)
def test_only_what_left_counts(
    trained: World, tmp_path_factory: pytest.TempPathFactory, answers: list[Any]
) -> None:
    folder = fresh(trained, tmp_path_factory.mktemp("party"))
    seen: set[int] = set()
    for number, (used, linked, leaves) in enumerate(answers):
        question = f"{number:064x}"
        keep(trained, folder, sorted(used), sorted(linked), question=question)
        if leaves:
            (folder.outbox / f"{question}.{'0' * 64}.json").write_bytes(b"")
            seen |= used | linked
    found = Manifest.open(folder, "model")
    assert found is not None
    assert {one for one in range(15) if found.names([f"R#{one}"])} == seen
    assert not found.names([])
    lists = {path.name for path in (folder.job("model") / "manifest").glob("people-*")}
    assert len(lists) <= len({one.people for one in found.entries}) + 1  # swept with the next


def fresh(world: World, path: Path) -> PartyFolder:
    """A party's folder with keys and contract, and nothing done."""
    source = world.folder(PARTNER).path
    shutil.copytree(source / "keys", path / "keys", ignore=shutil.ignore_patterns("*.sqlite"))
    for name in ("party.json", "agreement.json"):
        shutil.copy(source / name, path)
    (path / "outbox").mkdir()
    return PartyFolder(path)


def keep(
    world: World,
    folder: PartyFolder,
    used: Sequence[Any],
    linked: Sequence[Any] = (),
    *,
    question: str = "0" * 64,
) -> None:
    people = PeopleUsed(
        parties.PURPOSE,
        References.of([f"R#{one}" for one in used]),
        99,
        linked=References.of([f"R#{one}" for one in linked]),
    )
    keep_manifest(
        folder,
        world.agreement,
        TRAIN,
        people,
        question=question,
        computation="train.update",
        now=NOW,
    )


class Cut(Exception):  # noqa: N818
    """The process ends here."""


def cuts() -> Iterator[Any]:
    """Every place at which a process can end around one answer: writes, the gate, the outbox."""
    yield from (("write", number) for number in range(2))
    yield ("gate", 0)
    yield ("outbox", 0)


@pytest.mark.parametrize("place", tuple(cuts()), ids=str)
def test_a_process_that_is_cut_anywhere_leaves_no_answer_without_its_people(
    matched: World, tmp_path: Path, place: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = matched.copy(tmp_path / "world")
    module, survives = place
    calls = 0

    def cutting(call: Any) -> Any:
        def cut(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > survives:
                raise Cut
            return call(*arguments, **named)

        return cut

    with monkeypatch.context() as patch:
        if module == "write":
            patch.setattr(manifests, "write_atomically", cutting(manifests.write_atomically))
        elif module == "gate":
            kept = desk_module.keep_manifest
            after = cutting(lambda: None)
            patch.setattr(desk_module, "keep_manifest", lambda *a, **n: (kept(*a, **n), after()))
        else:
            patch.setattr(Outbox, "keep", _only(world, cutting))
        with pytest.raises(Cut):
            world.run()
    asked = Manifest.open(world.folder(PARTNER), "model")
    assert asked is None or not asked.entries
    world.withdraw(PARTNER, [59])  # so that the question, repeated, is of other people
    world.run()
    found = opened(world)
    found.check(world.leaves(PARTNER))
    assert not found.names([parties.record(PARTNER, 59)])


def _only(world: World, cutting: Any) -> Any:
    """Cut before a partner's first update is kept; all else goes on."""
    keep_answer = Outbox.keep
    cut = cutting(keep_answer)

    def kept(outbox: Outbox, key: str, release_id: str, *rest: Any) -> None:
        call = cut if release_id.startswith("model/train.update") else keep_answer
        call(outbox, key, release_id, *rest)

    return kept


class TestDamage:
    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (lambda sealed: sealed[:-1], "cut short or changed"),
            (lambda sealed: sealed[:40], "cut short or changed"),
            (lambda _: b"", "cut short or changed"),
            (lambda sealed: sealed[:99] + bytes([sealed[99] ^ 1]) + sealed[100:], "cut short"),
        ],
        ids=("short", "stub", "empty", "bit"),
    )
    def test_a_list_that_does_not_open(self, world: World, content: Any, what: str) -> None:
        damage(world, "people-*", content)
        with pytest.raises(WorkspaceError, match=what):
            opened(world).names(["R#1"])

    def test_a_missing_list(self, world: World) -> None:
        (path,) = (world.folder(PARTNER).job("model") / "manifest").glob("people-*")
        path.unlink()
        with pytest.raises(WorkspaceError, match="is missing"):
            opened(world).names(["R#1"])

    def test_another_key(self, world: World) -> None:
        keys = world.folder(PARTNER).path / "keys" / "manifests.sqlite"
        keys.unlink()
        with pytest.raises(WorkspaceError, match="the key of job 'model' is not in"):
            opened(world).names(["R#1"])
        SubjectKeys.open(keys, draw=new_secret).of(["model"])
        with pytest.raises(WorkspaceError, match="the key is another"):
            opened(world).names(["R#1"])

    def test_no_second_key_is_made_beside_lists_of_the_first(self, world: World) -> None:
        folder = world.folder(PARTNER)
        (folder.path / "keys" / "manifests.sqlite").unlink()
        with pytest.raises(WorkspaceError, match="is not in"):
            keep(world, folder, [1, 2])

    def test_a_damaged_entry(self, world: World) -> None:
        damage(world, "answer-*", lambda content: content[:-9])
        with pytest.raises(WorkspaceError, match=r"answer-.* is damaged"):
            opened(world)

    @pytest.mark.parametrize("field", ["used", "linked", "erased"])
    def test_an_entry_that_names_another_root(self, world: World, field: str) -> None:
        entry = opened(world).entries[0]
        root = getattr(entry, field).root
        damage(world, "answer-*", lambda content: content.replace(root.encode(), b"0" * 64))
        with pytest.raises(ManifestError, match="other roots"):
            opened(world).check(world.leaves(PARTNER))

    def test_an_answer_without_an_entry(self, world: World) -> None:
        found = opened(world)
        directory = world.folder(PARTNER).job("model") / "manifest"
        (directory / f"answer-{found.entries[1].question}.json").unlink()
        with pytest.raises(ManifestError, match="1 answer"):
            opened(world).check(world.leaves(PARTNER))

    def test_a_list_of_other_people_than_the_log_tells_of(self, world: World) -> None:
        folder, found = world.folder(PARTNER), opened(world)
        directory = folder.job("model") / "manifest"
        for entry in found.entries:
            (directory / f"answer-{entry.question}.json").unlink()
        outbox = folder.outbox
        hidden = list(outbox.glob("*.json"))
        for path in hidden:
            path.rename(path.with_suffix(".kept"))
        for entry in found.entries:  # written anew, of others, by the very software
            keep(world, folder, [1, 2], question=entry.question)
            (outbox / f"{entry.question}.x.json").write_bytes(b"")
        for path in outbox.glob("*.x.json"):
            path.unlink()
        for path in hidden:
            path.with_suffix(".kept").rename(path)
        with pytest.raises(ManifestError, match="the log tells of other people"):
            opened(world).check(world.leaves(PARTNER))


class TestSecrecy:
    def test_its_length_tells_of_the_count_alone(self, trained: World, tmp_path: Path) -> None:
        lengths = set()
        for name, people in (("a", range(300)), ("b", range(300, 600)), ("c", range(99, 399))):
            (tmp_path / name).mkdir()
            folder = fresh(trained, tmp_path / name)
            keep(trained, folder, people)
            (path,) = (folder.job("model") / "manifest").glob("people-*")
            lengths.add(path.stat().st_size)
        assert len(lengths) == 1

    def test_without_the_key_no_candidate_is_recognised(self, world: World) -> None:
        """Neither references nor their plain digests are in it, alone or all together."""
        people = [parties.record(PARTNER, person) for person in PEOPLE[PARTNER]]
        told = [one.encode() for one in people]
        digests = [hashlib.sha256(one).digest() for one in told]
        needles = [*told, *digests, *(one.hex().encode() for one in digests)]
        needles.append(References.of(people).digest.encode())
        for content in files(world).values():
            assert not [one for one in needles if one in content]

    def test_two_lists_of_the_same_people_have_nothing_in_common(
        self, trained: World, tmp_path: Path
    ) -> None:
        found = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            folder = fresh(trained, tmp_path / name)
            keep(trained, folder, range(9))
            (path,) = (folder.job("model") / "manifest").glob("people-*")
            found.append(path.read_bytes())
        shared = sum(one == other for one, other in zip(*found, strict=True))
        assert shared < len(found[0]) / 32  # by chance one in 256

    def test_with_the_model_its_key_is_destroyed(self, world: World, tmp_path: Path) -> None:
        folder = world.folder(PARTNER)
        backup = tmp_path / "backup"
        shutil.copytree(folder.job("model") / "manifest", backup)
        raw = _raw_key(folder)
        for days in (6, 12):
            retaining.run(folder, now=world.now + timedelta(days=days))
        assert not (folder.job("model") / "manifest").exists()
        keys = folder.path / "keys" / "manifests.sqlite"
        assert raw not in keys.read_bytes()
        shutil.copytree(backup, folder.job("model") / "manifest")
        with pytest.raises(WorkspaceError, match="is not in"):
            opened(world).names(["R#1"])


def _raw_key(folder: PartyFolder) -> bytes:
    with sqlite3.connect(folder.path / "keys" / "manifests.sqlite") as store:
        return bytes(store.execute("SELECT key FROM subject_key").fetchone()[0])
