"""Training by secure sums: what is promised, what each side says, who may be missing."""

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import parties
import pytest
from parties import MATCH, PEOPLE, ROLES, Parties, World
from pydantic import ValidationError
from renamings import killed_at

from compliance import records
from compliance.errors import InvalidAgreementError
from compliance.terms import NoiseSource, Role
from federation.audit import verify_party
from federation.coordinator import write_jobs
from federation.errors import MessageError, PartyUnreachableError, RefusedError
from federation.jobs.model import JointModel
from federation.jobs.secure_sum import AgreedKeys, partners_of, sum_plan
from federation.jobs.spread import ERASING
from federation.jobs.sums import sums_for, whole_charge
from federation.messages import (
    ModelPublished,
    Refused,
    SealedMessage,
    SumAsk,
    SumExact,
    SumNoised,
    SumPhase,
    SumSaid,
    unseal,
    weights_from_bytes,
    weights_to_bytes,
)
from federation.objections import policy_objections
from federation.roll_call import ROLL_CALL
from federation.specification import ExpandSpec, TrainSpec
from privacy.accounting.accountant import epsilon_of
from privacy.accounting.charge import ChargeState
from privacy.errors import PeerMessageError
from privacy.randomness import SecretStream, seeded_secret
from privacy.secagg import Server
from privacy.secagg.messages import KeyAdvertisement, MaskedVector, SealedShares

NOISED = TrainSpec(
    name="model", match="find", noise=NoiseSource.DISTRIBUTED, epsilon=1.0, delta=1e-5, rounds=2
)
EXACT = TrainSpec(name="model", match="find", noise=NoiseSource.UNSAFE_NONE, rounds=3)
SUMS = {
    "noise": [one.value for one in NoiseSource],
    "max_rounds": 30,
    "max_parties_per_person": 1,
    "colluding_partners": 0,
}
WIDTH = 4
ZEROS = weights_to_bytes(np.zeros(WIDTH))


def agreement(partners: int = 2, **train: object) -> Any:
    """The contract, with the first of five partners."""
    with pytest.MonkeyPatch.context() as patch:
        with_partners(patch, partners)
        return Parties.in_memory(train=SUMS | train).agreement


def with_partners(patch: pytest.MonkeyPatch, partners: int) -> None:
    """Add partners to the small world: each knows forty people."""
    for number in range(2, partners):
        patch.setitem(parties.ROLES, f"shop-{number}", Role.PARTNER)
        patch.setitem(parties.PEOPLE, f"shop-{number}", range(5 * number, 5 * number + 40))


# --- terms and plans --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "rounds"),
    [
        ({"noise": "local", "epsilon": 1, "delta": 1e-5}, 1),
        ({"noise": "distributed", "epsilon": 1, "delta": 1e-5}, 10),
        ({"noise": "unsafe-none"}, 10),
        ({"noise": "distributed", "epsilon": 1, "delta": 1e-5, "rounds": 3}, 3),
    ],
)
def test_every_kind_of_noise_has_its_rounds(spec: Mapping[str, object], rounds: int) -> None:
    found = TrainSpec.model_validate({"name": "model", "match": "find", **spec})
    assert found.rounds == rounds
    assert TrainSpec.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    "spec",
    [
        {"noise": "distributed"},
        {"noise": "distributed", "epsilon": 1},
        {"noise": "local"},
        {"noise": "unsafe-none", "epsilon": 1, "delta": 1e-5},
        {"noise": "none"},
        {"noise": "distributed", "epsilon": 1, "delta": 1e-5, "steps": 20},
        {"noise": "distributed", "epsilon": 1, "delta": 1e-5, "learning_rate": 1},
        {"noise": "distributed", "epsilon": -1, "delta": 1e-5},
        {"noise": "distributed", "epsilon": float("inf"), "delta": 1e-5},
    ],
)
def test_a_job_says_what_its_noise_has_and_no_more(spec: Mapping[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainSpec.model_validate({"name": "model", "match": "find", **spec})


@pytest.mark.parametrize("noise", NoiseSource)
def test_only_agreed_noise_is_used(noise: NoiseSource) -> None:
    asked = NOISED if noise is NoiseSource.DISTRIBUTED else EXACT
    if noise is NoiseSource.LOCAL:
        asked = TrainSpec(name="model", match="find", epsilon=1, delta=1e-5, steps=10)
    others = [one.value for one in NoiseSource if one is not noise]
    terms = [term for term, _ in policy_objections(asked, agreement(noise=others))]
    assert terms == ["train.noise"]
    assert policy_objections(asked, agreement(noise=[noise.value])) == ()


@pytest.mark.parametrize(
    ("partners", "colluding", "absent", "problem"),
    [
        (2, 1, 0, None),
        (2, 0, 0, None),
        (3, 0, 1, None),
        (4, 1, 1, None),
        (5, 1, 1, None),
        (5, 2, 1, None),
        (5, 4, 0, None),
        (2, 2, 0, "leave nobody"),
        (2, 0, 1, "may not be missing"),
        (2, 1, 1, "leave nobody"),
        (3, 1, 1, None),  # one is left, whose noise is whole
        (4, 2, 1, None),
        (5, 2, 2, None),
        (5, 1, 2, "may not be missing"),
        (4, 0, 2, "may not be missing"),
    ],
)
def test_an_agreement_on_sums_that_could_not_be_is_refused(
    partners: int, colluding: int, absent: int, problem: str | None
) -> None:
    terms = {"colluding_partners": colluding, "absent_partners": absent, "noise": ["distributed"]}
    if problem is not None:
        with pytest.raises(InvalidAgreementError, match=problem):
            agreement(partners, **terms)
        return
    signed = agreement(partners, **terms)
    plan = sum_plan(NOISED, signed, 1, length=7, weights=ZEROS)
    assert plan.parties == partners_of(signed)
    assert plan.threshold == partners - absent
    # What is counted on is there however many are missing and collude.
    charge = sums_for(NOISED, signed, width=WIDTH).charge(2)
    assert charge.honest_parties == plan.threshold - colluding


@pytest.mark.parametrize(
    ("partners", "colluding", "absent", "problem"),
    [
        (2, 0, 0, None),
        (3, 1, 0, None),
        (3, 0, 1, None),
        (3, 1, 1, None),
        (5, 1, 2, None),
        (2, 1, 0, "could read"),
        (4, 3, 0, "could read"),
    ],
)
def test_exact_sums_are_over_all_partners_and_count_on_two(
    partners: int, colluding: int, absent: int, problem: str | None
) -> None:
    terms = {"colluding_partners": colluding, "absent_partners": absent, "noise": ["unsafe-none"]}
    if problem is not None:
        with pytest.raises(InvalidAgreementError, match=problem):
            agreement(partners, **terms)
        return
    plan = sum_plan(EXACT, agreement(partners, **terms), 1, length=7, weights=ZEROS)
    # Of two sums, one with a partner and one without, the difference would be its own part.
    assert (plan.colluding, plan.threshold) == (colluding, partners)


def test_every_round_of_every_job_is_a_sum_of_its_own() -> None:
    signed, other = agreement(), agreement(max_rounds=29)
    another = NOISED.model_copy(update={"name": "another"})
    quieter = NOISED.model_copy(update={"epsilon": 0.5})
    plans = [
        sum_plan(spec, one, number, length=7, weights=weights)
        for spec in (NOISED, another, quieter)
        for one in (signed, other)
        for number in (1, 2)
        for weights in (ZEROS, weights_to_bytes(np.ones(WIDTH)))
    ]
    assert len({plan.context for plan in plans}) == len(plans) == 24


def test_a_job_costs_what_it_asks_for_and_not_more() -> None:
    signed = agreement(5)
    whole = whole_charge(sums_for(NOISED, signed, width=WIDTH), NOISED)
    assert whole is not None
    assert 0.9 < epsilon_of([whole], 1e-5) <= 1.0
    assert whole_charge(sums_for(EXACT, signed, width=WIDTH), EXACT) is None


def test_only_a_party_of_the_agreement_signs() -> None:
    made = Parties.in_memory(train=SUMS)
    keys, message = AgreedKeys(made.agreement), b"these are my keys"
    keys.verify("retailer", made.keys["retailer"].sign(message), message)
    for name, signer in (("courier", "retailer"), ("stranger", "retailer")):
        with pytest.raises(PeerMessageError):
            keys.verify(name, made.keys[signer].sign(message), message)


# --- whole jobs -------------------------------------------------------------------------------


def world(path: Path, spec: TrainSpec, **train: object) -> World:
    made = World.make(path, train=SUMS | train)
    write_jobs(made.folder("coordinator"), (MATCH, spec))
    return made


def matched(path: Path, **train: object) -> World:
    """A world that has matched, and is about to train with noise."""
    made = world(path, NOISED, **train)
    write_jobs(made.folder("coordinator"), (MATCH,))
    made.run()
    write_jobs(made.folder("coordinator"), (MATCH, NOISED))
    return made


@pytest.fixture(scope="module")
def matched_two(tmp_path_factory: pytest.TempPathFactory) -> World:
    return matched(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def matched_three(tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        with_partners(patch, 3)
        return matched(tmp_path_factory.mktemp("three"), absent_partners=1)


@pytest.fixture
def two(matched_two: World, tmp_path: Path) -> World:
    """Two partners that have matched."""
    return matched_two.apart(tmp_path / "workspace")


@pytest.fixture
def three(matched_three: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Three that have, of whom one may be missing."""
    with_partners(monkeypatch, 3)
    return matched_three.apart(tmp_path / "workspace")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, World]:
    """A job with noise and one without, of three partners, brought to their end."""
    with pytest.MonkeyPatch.context() as patch:
        with_partners(patch, 3)
        made = {
            spec.noise.value: world(tmp_path_factory.mktemp(spec.noise.value), spec)
            for spec in (NOISED, EXACT)
        }
        for one in made.values():
            one.run()
    return made


def model_of(made: World, name: str) -> JointModel:
    return JointModel.model_validate_json(made.folder(name).model("model").read_bytes())


@pytest.mark.parametrize("noise", ["distributed", "unsafe-none"])
def test_everybody_has_the_same_model(ended: Mapping[str, World], noise: str) -> None:
    made = ended[noise]
    models = [
        model_of(made, name) for name in ("coordinator", "brand", *partners_of(made.agreement))
    ]
    assert all(one == models[0] for one in models)
    assert models[0].making.parties == partners_of(made.agreement)


def test_every_round_is_charged_to_every_partner_once(ended: Mapping[str, World]) -> None:
    made = ended["distributed"]
    for name in partners_of(made.agreement):
        charges = made.statement(name).charges
        assert [one.charge_id for one in charges] == [
            f"model/sum.noised/coordinator/round-{number}" for number in (1, 2)
        ]
        assert {one.state for one in charges} == {ChargeState.COMMITTED}
        assert 0.9 < made.statement(name).epsilon_spent <= 1.0
    assert not made.statement("brand").charges


def test_exact_sums_are_named_in_the_log_and_promise_nothing(ended: Mapping[str, World]) -> None:
    made = ended["unsafe-none"]
    for name in partners_of(made.agreement):
        assert made.statement(name).epsilon_spent == 0
        said = [leaf for leaf in made.leaves(name) if isinstance(leaf, records.Release)]
        assert sum(leaf.computation == "sum.exact" for leaf in said) == 3
        (trained,) = (leaf for leaf in made.leaves(name) if isinstance(leaf, records.ModelTrained))
        assert (trained.epsilon, trained.delta) == (None, None)


def test_exact_sums_train_what_all_rows_in_one_place_would(ended: Mapping[str, World]) -> None:
    """The parts are made anew from the parties' tables, and added in the open."""
    made = ended["unsafe-none"]
    from federation.population import encoder_for

    sums, parts = sums_for(EXACT, made.agreement, width=WIDTH), {}
    for name in partners_of(made.agreement):
        table = pd.read_csv(made.table(name))
        members = set(made.members(name).tolist())
        columns = {"age": table["age"].to_numpy(float), "colour": table["colour"].to_numpy(str)}
        features = encoder_for(made.agreement).encode(columns)
        labels = table["record"].isin(members).to_numpy(float)
        parts[name] = features, labels
    standing = sums.start()
    stream = SecretStream(seeded_secret(1, "unused"), "unused")
    for number in (1, 2, 3):
        if standing.finished:
            break
        total = sum(
            sums.contribution(number, place, standing.weights, *parts[name], stream)
            for place, name in enumerate(parts)
        )
        standing = sums.step(total, standing, range(3))
    model = model_of(made, "coordinator")
    assert model.body.weights == tuple(standing.model.tolist())
    assert model.making.one_shot == tuple(standing.one_shot.tolist())


def test_rows_and_secrets_are_gone_when_the_model_is_there(ended: Mapping[str, World]) -> None:
    for made in ended.values():
        for name in partners_of(made.agreement):
            job = made.folder(name).job("model")
            left = {one.name for one in job.rglob("*.*") if one.parent != job / "manifest"}
            assert left == {"people.json", "used.arrow", "linked.arrow"} | {
                "specification.json",
                "consents-read.json",
                "cohort.json",
                "unmask.json",
            }


def test_whoever_reads_the_wire_finds_no_part_in_clear(ended: Mapping[str, World]) -> None:
    """Two partners' masked parts, as far as they are the same numbers: none."""
    made = ended["unsafe-none"]
    masked = [
        MaskedVector.model_validate_json(message.payload).vector
        for message in map(made.read, made.wire)
        if isinstance(message.body, SumExact) and message.body.round == 1
    ]
    assert len(masked) == 3
    numbers = [np.frombuffer(one, "<i8") for one in masked]
    assert all((np.abs(one) > 1 << 50).any() for one in numbers)


def test_what_was_trained_can_be_verified_by_anybody(ended: Mapping[str, World]) -> None:
    for made in ended.values():
        for folder in made.workspace.folders:
            verify_party(folder.path)


# --- who may be missing -----------------------------------------------------------------------


@pytest.mark.parametrize("phase", SumPhase)
def test_a_partner_lost_at_any_phase_is_left_out_from_there(three: World, phase: SumPhase) -> None:
    lost: list[int] = []

    def lose(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        body = three.read(question).body
        if isinstance(body, SumAsk) and (body.round, body.phase) == (1, phase):
            three.unreachable.add("courier")
            lost.append(1)
        return answer

    # The brand and the retailer are asked before the courier hears of the phase, or after it.
    three.listener = lose
    three.run()
    assert lost
    model = model_of(three, "brand")
    assert model.making.parties == ("retailer", "shop-2")
    assert not three.folder("courier").model("model").exists()
    report = verify_party(three.folder("courier").path)
    assert report.counts["release"] >= 1


def test_more_missing_than_agreed_end_the_job_and_it_goes_on_when_they_are_back(
    two: World,
) -> None:
    rounds = []

    def lose(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        body = two.read(question).body
        if isinstance(body, SumAsk):
            rounds.append(body.round)
            if (body.round, body.phase) == (2, SumPhase.SHARE):
                two.unreachable.add("courier")
        return answer

    two.listener = lose
    with pytest.raises(PartyUnreachableError):
        two.run()
    two.unreachable.clear()
    two.listener = lambda _, __, answer: answer
    spent = two.statement("courier").epsilon_spent
    two.run()
    assert max(rounds) == 2
    assert model_of(two, "brand").making.parties == ("courier", "retailer")
    assert spent < two.statement("courier").epsilon_spent <= 1.0


def test_a_partner_that_refused_in_a_phase_goes_on_from_there_once_it_has_mended_it(
    matched_two: World, tmp_path: Path, thorough: bool
) -> None:
    for phase in SumPhase if thorough else [SumPhase.MASK]:
        made = matched_two.apart(tmp_path / phase / "workspace")
        made.listener = Spoiling(made, phase)
        with pytest.raises(RefusedError, match="courier"):
            made.run()
        made.listener = lambda _, __, answer: answer
        (made.folder("courier").path / "policy.cedar").unlink()
        made.run()
        assert model_of(made, "brand").making.parties == ("courier", "retailer")
        assert made.statement("courier").epsilon_spent == made.statement("retailer").epsilon_spent


@dataclass(frozen=True)
class Spoiling:
    """Has the courier refuse whatever it is asked once the retailer has answered in a phase."""

    made: World
    phase: SumPhase

    def __call__(self, name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        body = self.made.read(question).body
        is_due = isinstance(body, SumAsk) and (body.round, body.phase) == (1, self.phase)
        if is_due and name == "retailer":  # which is asked before
            (self.made.folder("courier").path / "policy.cedar").write_text("no policy")
        return answer


def test_who_was_left_out_once_stays_so_when_the_job_is_run_again(
    three: World,
) -> None:

    def lose(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        body = three.read(question).body
        if isinstance(body, SumAsk) and (body.round, body.phase) == (1, SumPhase.CONFIRM):
            three.unreachable.add("courier")
        if isinstance(body, ModelPublished):
            raise KeyboardInterrupt
        return answer

    three.listener = lose
    with pytest.raises(KeyboardInterrupt):
        three.run()
    three.unreachable.clear()
    three.listener = lambda _, __, answer: answer
    before = len(three.wire)
    three.run()
    assert asked_since(three, before) == []  # what was answered is kept
    assert model_of(three, "brand").making.parties == ("retailer", "shop-2")
    assert not three.folder("courier").model("model").exists()
    assert (three.folder("courier").job("model") / "rows.npz").exists()
    three.run()
    assert model_of(three, "courier") == model_of(three, "brand")
    assert secrets_of(three, "courier") == set()
    before = len(three.wire)
    three.run()
    later = {three.read(message).header.job for message in three.wire[before:]}
    assert later <= {ROLL_CALL, ERASING}  # whoever asked to be erased meanwhile


def asked_since(made: World, before: int) -> list[tuple[str, int]]:
    """Who was asked for which round of a sum, for the first time."""
    asked = map(made.read, made.wire[before:])
    return list(
        dict.fromkeys(
            (message.header.recipient, message.body.round)
            for message in asked
            if isinstance(message.body, SumAsk)
        )
    )


def secrets_of(made: World, name: str) -> set[str]:
    """Files that a party keeps of a job for as long as it may be asked in it."""
    left = {path.name for path in made.folder(name).job("model").rglob("*.*")}
    return left & {"rows.npz", "weights.bin", *(f"{phase}.json" for phase in list(SumPhase)[:-1])}


def test_a_killed_coordinator_goes_on_where_it_was_without_who_has_left_since(
    three: World,
) -> None:

    def kill(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        body = three.read(question).body
        if isinstance(body, SumAsk) and body.round == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    child = os.fork()
    if child == 0:
        three.listener = kill
        try:
            three.run()
        finally:  # this process must not return
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    three.away.add("courier")
    three.run()
    assert asked_since(three, 0) == [("retailer", 2), ("shop-2", 2)]
    assert model_of(three, "brand").making.parties == ("retailer", "shop-2")
    for name, rounds in (("courier", 1), ("retailer", 2), ("shop-2", 2)):
        charges = three.statement(name).charges
        assert [one.charge_id for one in charges] == [
            f"model/sum.noised/coordinator/round-{number}" for number in range(1, rounds + 1)
        ]
        assert {one.state for one in charges} == {ChargeState.COMMITTED}
    assert not list(three.folder("coordinator").job("model").glob("exchange-*"))


def test_a_training_begins_without_as_many_as_agreed_and_a_match_without_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_partners(monkeypatch, 3)
    made = world(tmp_path, NOISED, colluding_partners=0, absent_partners=1)
    made.away.add("courier")
    with pytest.raises(
        PartyUnreachableError, match=r"no node of courier .* 'find' .* none of them"
    ):
        made.run()
    write_jobs(made.folder("coordinator"), (MATCH,))
    made.away.clear()
    made.run()
    write_jobs(made.folder("coordinator"), (MATCH, NOISED))
    for away in ({"courier", "retailer"}, {"brand"}):
        made.away = away
        with pytest.raises(PartyUnreachableError, match=f"no node of {', '.join(sorted(away))} "):
            made.run()
    made.away = {"courier"}
    made.run()
    assert model_of(made, "brand").making.parties == ("retailer", "shop-2")
    expand = ExpandSpec(name="best", train="model", share=0.2)
    write_jobs(made.folder("coordinator"), (MATCH, NOISED, expand))
    with pytest.raises(PartyUnreachableError, match=r"no node of courier .* 'best'"):
        made.run()
    made.away.clear()
    made.run()  # it is given the model before it is asked to score by it
    assert made.folder("courier").segment("best").exists()
    assert model_of(made, "courier") == model_of(made, "brand")


def test_rows_and_secrets_of_who_was_left_out_go_when_another_job_begins_or_the_agreement_ends(
    two: World, tmp_path: Path
) -> None:
    questions, _ = to_the_mask(two)
    two.ask("retailer", questions["retailer"])
    later = two.copy(tmp_path / "later")
    assert {"rows.npz", "mask.json", "weights.bin"} <= secrets_of(two, "retailer")
    another = NOISED.model_copy(update={"name": "another", "epsilon": 0.1})
    two.ask("retailer", ask(two, SumPhase.ADVERTISE, ZEROS, spec=another))
    assert secrets_of(two, "retailer") == set()
    assert secrets_of(two, "courier") != set()
    assert (two.folder("retailer").job("another") / "rows.npz").exists()
    assert refused(two, ask(two, SumPhase.CONFIRM, b"{}")) == "train"
    later.now = later.agreement.valid_until
    assert refused(later, ask(later, SumPhase.CONFIRM, b"{}")) == "train"
    assert secrets_of(later, "retailer") == set()


def test_a_round_follows_the_end_of_the_one_before_and_is_then_over(two: World) -> None:
    """Else a round that was cut could be begun again, at weights of another's choice."""
    second = ask(two, SumPhase.ADVERTISE, weights_to_bytes(np.ones(WIDTH)), number=2)
    assert refused(two, second) == "message"
    questions, _ = to_the_mask(two)
    two.ask("retailer", questions["retailer"])
    assert refused(two, second) == "message"
    assert {"rows.npz", "mask.json", "weights.bin"} <= secrets_of(two, "retailer")


# --- a coordinator that breaks the protocol ---------------------------------------------------


def ask(
    made: World,
    phase: SumPhase,
    payload: bytes,
    *,
    number: int = 1,
    spec: TrainSpec = NOISED,
    name: str = "retailer",
) -> SealedMessage:
    body = SumAsk(spec=spec, round=number, phase=phase)
    return made.parties.seal("coordinator", name, spec.name, body, payload)


def refused(made: World, message: SealedMessage, name: str = "retailer") -> str:
    body = made.ask(name, message).body
    assert isinstance(body, Refused)
    assert isinstance(made.leaves(name)[-1], records.Refusal)
    return body.term


@pytest.mark.parametrize("phase", list(SumPhase)[1:])
def test_no_phase_comes_before_the_one_before_it(two: World, phase: SumPhase) -> None:
    assert refused(two, ask(two, phase, b"{}")) == "message"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        weights_to_bytes(np.zeros(WIDTH + 1)),
        weights_to_bytes(np.full(WIDTH, np.nan)),
        weights_to_bytes(np.full(WIDTH, np.inf)),
    ],
    ids=["nothing", "too many", "no number", "endless"],
)
def test_weights_that_are_none_begin_nothing(two: World, payload: bytes) -> None:
    assert refused(two, ask(two, SumPhase.ADVERTISE, payload)) == "message"
    assert isinstance(two.ask("retailer", ask(two, SumPhase.ADVERTISE, ZEROS)).body, SumSaid)


def test_a_round_is_begun_once_and_repeats_its_answer(two: World) -> None:
    first = ask(two, SumPhase.ADVERTISE, ZEROS)
    answer = two.handle("retailer", first)
    assert two.handle("retailer", first) == answer
    elsewhere = weights_to_bytes(np.ones(WIDTH))
    assert refused(two, ask(two, SumPhase.ADVERTISE, elsewhere)) == "message"


def test_rounds_and_noise_that_the_job_does_not_have_are_refused(two: World) -> None:
    assert refused(two, ask(two, SumPhase.ADVERTISE, ZEROS, number=3)) == "message"
    local = TrainSpec(name="other", match="find", epsilon=1, delta=1e-5, steps=10)
    assert refused(two, ask(two, SumPhase.ADVERTISE, ZEROS, spec=local)) == "message"


def test_a_job_that_the_budget_cannot_bear_is_refused_before_anything_is_computed(
    tmp_path: Path,
) -> None:
    made = World.make(tmp_path, train=SUMS | {"epsilon": 1.2}, budget={"epsilon": 1.2})
    write_jobs(made.folder("coordinator"), (MATCH,))
    made.run()
    first = NOISED.model_copy(update={"epsilon": 1.1, "name": "first"})
    write_jobs(made.folder("coordinator"), (MATCH, first))
    made.run()
    assert refused(made, ask(made, SumPhase.ADVERTISE, ZEROS)) == "budget.epsilon"
    assert not (made.folder("retailer").job("model") / "rows.npz").exists()


def to_the_mask(made: World) -> tuple[Mapping[str, SealedMessage], Server]:
    """Bring both partners to the question for their parts."""
    plan = sum_plan(
        NOISED,
        made.agreement,
        1,
        length=sums_for(NOISED, made.agreement, width=WIDTH).length(1),
        weights=ZEROS,
    )
    server = Server(plan, AgreedKeys(made.agreement))
    state = server.open()
    for name in plan.parties:
        answer = made.ask(name, ask(made, SumPhase.ADVERTISE, ZEROS, name=name))
        state = server.take_keys(state, KeyAdvertisement.from_json(answer.payload, plan))
    state, roster = server.close_keys(state)
    for name in plan.parties:
        answer = made.ask(name, ask(made, SumPhase.SHARE, roster.to_json(), name=name))
        state = server.take_shares(state, SealedShares.from_json(answer.payload, plan))
    _, deliveries = server.close_shares(state)
    questions = {
        one.recipient: ask(made, SumPhase.MASK, one.to_json(), name=one.recipient)
        for one in deliveries
    }
    return questions, server


@pytest.mark.parametrize("difference", ["weights", "epsilon"])
def test_partners_that_were_told_different_things_share_nothing(
    two: World, difference: str
) -> None:
    """Else one could be two at weights that single it out, or counted on for more noise."""
    told = {"retailer": (NOISED, ZEROS), "courier": (NOISED, weights_to_bytes(np.ones(WIDTH)))}
    if difference == "epsilon":
        told["courier"] = (NOISED.model_copy(update={"epsilon": 0.5}), ZEROS)
    said = []
    for name, (spec, weights) in told.items():
        question = ask(two, SumPhase.ADVERTISE, weights, spec=spec, name=name)
        said.append(json.loads(two.ask(name, question).payload))
    assert said[0]["aggregation"] != said[1]["aggregation"]
    for name, (spec, _) in told.items():
        for mixed in (said[0]["aggregation"], said[1]["aggregation"]):
            roster = {
                "aggregation": mixed,
                "advertisements": sorted(
                    ({**one, "aggregation": mixed} for one in said), key=lambda one: one["sender"]
                ),
            }
            question = ask(two, SumPhase.SHARE, json.dumps(roster).encode(), spec=spec, name=name)
            assert refused(two, question, name) == "message"


def test_a_round_that_is_over_does_not_begin_again(ended: Mapping[str, World]) -> None:
    made = ended["unsafe-none"]
    elsewhere = weights_to_bytes(np.ones(WIDTH))
    for number in (1, 3, 4):
        question = ask(made, SumPhase.ADVERTISE, elsewhere, number=number, spec=EXACT)
        assert refused(made, question) == "message"


def test_a_phase_that_was_passed_is_not_had_again(two: World) -> None:
    questions, _ = to_the_mask(two)
    two.ask("retailer", questions["retailer"])
    elsewhere = weights_to_bytes(np.ones(WIDTH))
    assert refused(two, ask(two, SumPhase.ADVERTISE, elsewhere)) == "message"


def test_rows_of_a_refused_question_serve_no_other_match(two: World) -> None:
    bad = ask(two, SumPhase.ADVERTISE, ZEROS[:-1])
    assert refused(two, bad) == "message"
    assert not (two.folder("retailer").job("model") / "rows.npz").exists()
    other = NOISED.model_copy(update={"match": "never-run"})
    assert refused(two, ask(two, SumPhase.ADVERTISE, ZEROS, spec=other)) == "train.match"


def test_another_partners_shares_are_no_reason_to_compute(two: World) -> None:
    questions, _ = to_the_mask(two)
    misled = two.read(questions["courier"]).payload
    assert refused(two, ask(two, SumPhase.MASK, misled)) == "message"
    assert not two.statement("retailer").charges
    assert isinstance(two.ask("retailer", questions["retailer"]).body, SumNoised)
    assert len(two.statement("retailer").charges) == 1


def test_consent_withdrawn_between_two_phases_stops_the_part(two: World) -> None:
    questions, _ = to_the_mask(two)
    two.withdraw("retailer", [15])
    assert refused(two, questions["retailer"]) == "consent"
    assert two.statement("retailer").epsilon_spent == 0


def test_killed_at_any_renaming_a_part_is_the_same_and_charged_once(
    two: World, tmp_path: Path
) -> None:
    questions, _ = to_the_mask(two)
    undisturbed = two.copy(tmp_path / "undisturbed")
    expected = undisturbed.ask("retailer", questions["retailer"]).payload
    kills = 0
    for after in range(1, 40):
        status = killed_at(after, lambda: two.handle("retailer", questions["retailer"]))
        assert status in (0, -signal.SIGKILL)
        if status == 0:
            break
        kills += 1
    assert kills > 4
    assert two.ask("retailer", questions["retailer"]).payload == expected
    (charge,) = two.statement("retailer").charges
    assert charge.state is ChargeState.COMMITTED
    verify_party(two.folder("retailer").path)


# --- partners that break the protocol ---------------------------------------------------------


@pytest.mark.parametrize("phase", SumPhase)
def test_a_partner_that_says_something_else_ends_the_job(two: World, phase: SumPhase) -> None:

    def lie(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        asked = two.read(question)
        if name != "courier" or not isinstance(asked.body, SumAsk) or asked.body.phase is not phase:
            return answer
        body = two.read(answer).body
        words = json.loads(two.read(answer).payload)
        words["sender"] = "retailer"
        return two.parties.seal(
            "courier",
            "coordinator",
            "model",
            body,
            json.dumps(words).encode(),
            answers=question.digest,
        )

    two.listener = lie
    with pytest.raises(MessageError, match="courier"):
        two.run()


def test_a_model_that_names_other_partners_or_less_noise_is_refused(two: World) -> None:
    wrong: list[str] = []

    def watch(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        message = two.read(question)
        if isinstance(message.body, ModelPublished) and name == "brand" and not wrong:
            model = json.loads(message.payload)
            for changes in (
                {"parties": ["retailer"]},
                {"parties": ["courier", "stranger"]},
                {"noise_multiplier": 0.5},
                {"rounds": 1},
                {"one_shot": [0.0] * WIDTH},
            ):
                lie = {**model, "making": {**model["making"], **changes}}
                payload = json.dumps(lie).encode()
                sealed = two.parties.seal("coordinator", "courier", "model", message.body, payload)
                wrong.append(refused(two, sealed, "courier"))
        return answer

    two.listener = watch
    two.run()
    assert wrong == ["message"] * 5


def test_a_refusal_ends_the_job_and_names_who_refused(two: World) -> None:

    def withdraw(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        body = two.read(question).body
        if isinstance(body, SumAsk) and body.phase is SumPhase.SHARE:
            two.withdraw("courier", [25])
        return answer

    two.listener = withdraw
    with pytest.raises(RefusedError) as raised:
        two.run()
    assert (raised.value.party, raised.value.term) == ("courier", "consent")


def test_no_weights_are_told_but_the_coordinators_own(ended: Mapping[str, World]) -> None:
    made = ended["distributed"]
    for message in map(made.read, made.wire):
        if isinstance(message.body, SumAsk) and message.body.phase is SumPhase.ADVERTISE:
            assert weights_from_bytes(message.payload, WIDTH).shape == (WIDTH,)
    assert set(PEOPLE) <= set(ROLES)


def test_a_sum_that_is_read_after_the_days_weighs_in_the_days_in_which_it_is_read(
    tmp_path: Path,
) -> None:
    period = {"days": 30, "epsilon": 1.15, "delta": 1e-5}
    world = World.make(
        tmp_path / "world", train=SUMS, budget={"epsilon": 1.2, "delta": 1e-5, "period": period}
    )
    write_jobs(world.folder("coordinator"), (MATCH, NOISED.model_copy(update={"rounds": 1})))

    def weighs() -> float:
        with world.node("retailer").desk() as desk:
            told = desk.ledger.statement().period
            assert told is not None
            return told.epsilon_spent

    def stop(_: str, __: SealedMessage, answer: SealedMessage) -> SealedMessage:
        body = unseal(answer, world.agreement).body
        if isinstance(body, SumSaid) and body.phase is SumPhase.CONFIRM:
            world.unreachable.update(("retailer", "courier"))
        return answer

    world.listener = stop
    with pytest.raises(PartyUnreachableError):
        world.run()
    assert weighs() > 0.9
    world.now += timedelta(days=31)
    assert weighs() == 0.0
    world.unreachable.clear()
    world.listener = lambda _, __, answer: answer
    world.run()
    assert world.folder("coordinator").model("model").exists()
    assert weighs() > 0.9
