"""The jobs, one step at a time, with sealed messages of three parties and no folder at all."""

import json
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parties import EXPAND, MATCH, TRAIN, Parties
from pydantic import ValidationError

from compliance.terms import NoiseSource, Reveal
from federation.errors import MessageError, RefusedError
from federation.jobs.bodies import LinearBody
from federation.jobs.exchange import Outgoing, Relay, Say, Tolerant
from federation.jobs.expand import coordinate_expand
from federation.jobs.match import coordinate_match
from federation.jobs.model import JointModel, Making
from federation.jobs.train import coordinate_train, train_round, training_plan
from federation.messages import (
    Acknowledged,
    Body,
    ExpandDone,
    ExpandRequest,
    MatchAccept,
    MatchBlinded,
    MatchDone,
    MatchOffer,
    MatchOutcome,
    MatchReply,
    MatchRequest,
    MatchSide,
    Message,
    ModelPublished,
    Present,
    Refused,
    TrainRequest,
    TrainUpdate,
    unseal,
    weights_from_bytes,
    weights_to_bytes,
)
from federation.objections import policy_objections
from federation.specification import ExpandSpec, MatchSpec, TrainSpec
from federation.training.publishing import parse_model
from privacy.randomness import seeded_secret

PARTIES = Parties.in_memory()
AGREEMENT = PARTIES.agreement
COLUMNS = ("age", "colour=green", "colour=red", "constant")
PARTNERS = ["retailer", "courier"]


touched: list[str] = []
"""Files and sockets that this process opened while somebody watched."""
watching: list[bool] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if watching and event in {"open", "socket.__new__", "os.listdir", "subprocess.Popen"}:
        touched.append(f"{event} {arguments[0]}")


sys.addaudithook(_watch)  # for good, but asleep while nobody watches


@pytest.fixture
def no_io() -> Iterator[None]:
    """Fail if the test touches a file or a socket, but for importing."""
    touched.clear()
    watching.append(True)
    yield
    watching.clear()
    places = tuple(str(Path(place).resolve()) for place in sys.path if place)
    assert [one for one in touched if not one.split(" ", 1)[1].startswith(places)] == []


def test_the_watch_for_io_would_see_it(tmp_path: Path) -> None:
    watching.append(True)
    (tmp_path / "file").write_bytes(b"")
    watching.clear()
    assert touched[-1] == f"open {tmp_path / 'file'}"


def said(sender: str, recipient: str, job: str, body: Body, payload: bytes = b"") -> Message:
    return PARTIES.message(sender, recipient, job, body, payload)


def refusal(sender: str, job: str = "find") -> Message:
    return said(sender, "coordinator", job, Refused(term="consent", remedy="ask people"))


def heard(item: Outgoing) -> Message:
    """What the coordinator yields, as its recipient hears it."""
    if isinstance(item, Relay):
        return PARTIES.read(item.message.sealed)
    return said("coordinator", item.recipient, item.job, item.body, item.payload)


def carried(*messages: Message) -> list[Message]:
    """Messages as the coordinator has them, which cannot read what is encrypted to others."""
    return [unseal(message.sealed, AGREEMENT) for message in messages]


# --- wrong answers, to every question of every job ----------------------------------------------


def update(name: str, number: int = 1, width: int = 4, values: Any = None) -> Message:
    payload = weights_to_bytes(np.zeros(width) if values is None else np.asarray(values))
    body = TrainUpdate(round=number, width=width)
    return said(name, "coordinator", "model", body, payload)


def acknowledged(name: str) -> Message:
    return said(name, "coordinator", "model", Acknowledged())


Job = Generator[Sequence[Outgoing], Sequence[Message], Any]


SIDE = MatchSide(recipe="0" * 64, points=10, commitment="1" * 64)
OFFER, ACCEPT = MatchOffer(spec=MATCH, side=SIDE), MatchAccept(spec=MATCH, side=SIDE)
BLINDED = [MatchBlinded(spec=MATCH, bucket=number) for number in (0, 1)]
REPLY = [MatchReply(spec=MATCH, bucket=number) for number in (0, 1)]
OUTCOME = MatchOutcome(spec=MATCH, size=None)
DONE = MatchDone()


def exchanged(partner: str, *bodies: Body) -> list[Message]:
    """What a partner and the brand say in turns, as the coordinator has it, then the last word."""
    names = (partner, "brand")
    words = [
        said(names[turn % 2], names[(turn + 1) % 2], "find", body)
        for turn, body in enumerate(bodies)
    ]
    last = said(names[len(bodies) % 2], "coordinator", "find", DONE)
    return [*carried(*words), last]


def match_of_several_buckets() -> list[list[Message]]:
    """Answers of a match that ends at the courier after a bucket, and at the brand after two."""
    pairs = {
        "retailer": exchanged(
            "retailer", OFFER, ACCEPT, BLINDED[0], REPLY[0], BLINDED[1], REPLY[1], OUTCOME
        ),
        "courier": exchanged("courier", OFFER, ACCEPT, BLINDED[0], REPLY[0]),
    }
    longest = max(map(len, pairs.values()))
    return [
        [pairs[name][turn] for name in PARTNERS if turn < len(pairs[name])]
        for turn in range(longest)
    ]


MATCH_ANSWERS = match_of_several_buckets()
NEXT = {"match.blinded", "match.outcome", "match.done"}
MAY_FOLLOW = dict(
    enumerate(
        [
            {"match.offer"},
            {"match.accept"},
            {"match.blinded"},
            {"match.reply"},
            NEXT,  # how many buckets there are, only the pair knows
            {"match.reply"},
            NEXT,
            {"match.done"},
        ],
        start=1,
    )
)
"""What may be said at each turn of a match."""
LAST = {f"match {len(MATCH_ANSWERS)}", "train 3", "expand 1"}


def stages() -> Iterator[tuple[str, Callable[[], Job], list[list[Message]], list[Message]]]:
    """Yield every question of every job: how to get there, and the right answers to it."""
    updates = [[update(name, number) for name in PARTNERS] for number in (1, 2)]
    people = [acknowledged(name) for name in (*PARTNERS, "brand")]
    written = [said(name, "coordinator", "best", ExpandDone()) for name in PARTNERS]
    scripts: dict[str, tuple[Callable[[], Job], list[list[Message]]]] = {
        "match": (lambda: coordinate_match(AGREEMENT, MATCH), MATCH_ANSWERS),
        "train": (lambda: coordinate_train(AGREEMENT, TRAIN, COLUMNS), [*updates, people]),
        "expand": (lambda: coordinate_expand(AGREEMENT, EXPAND), [written]),
    }
    for name, (start, script) in scripts.items():
        for number, answers in enumerate(script):
            yield f"{name} {number + 1}", start, script[:number], answers


STAGES = {name: rest for name, *rest in stages()}


def at(name: str) -> tuple[Job, list[Message]]:
    """Drive a job to its question of that name; return it with the right answers."""
    start, before, answers = STAGES[name]
    job = start()
    next(job)
    for earlier in before:
        job.send(earlier)
    return job, list(answers)


@pytest.mark.parametrize("name", STAGES)
def test_every_question_takes_the_right_answers(name: str) -> None:
    job, answers = at(name)
    try:
        exchange = job.send(answers)
        said = exchange.outgoing if isinstance(exchange, Tolerant) else exchange
        assert len(said) > 0
    except StopIteration:
        assert name in LAST


@pytest.mark.parametrize("name", STAGES)
def test_a_refusal_ends_the_job_with_the_term_that_refused(name: str) -> None:
    for position in range(len(at(name)[1])):
        job, answers = at(name)
        sender = answers[position].header.sender
        answers[position] = refusal(sender, answers[position].header.job)
        with pytest.raises(RefusedError) as caught:
            job.send(answers)
        assert (caught.value.party, caught.value.term) == (sender, "consent")
        assert caught.value.remedy == "ask people"


@pytest.mark.parametrize("name", STAGES)
def test_an_answer_to_another_question_is_refused(name: str) -> None:
    right: set[type] = {type(message.body) for message in at(name)[1]}
    right |= {MatchDone} if name in {"match 5", "match 7"} else set()  # the end of a pair
    others = [Present(), MatchDone(), ExpandDone(), Acknowledged(), TrainUpdate(round=1, width=4)]
    for body in others:
        if type(body) in right:
            continue
        job, answers = at(name)
        header = answers[-1].header
        answers[-1] = said(header.sender, header.recipient, header.job, body)
        with pytest.raises(MessageError, match=f"said {body.kind}"):
            job.send(answers)


ENCRYPTED = (OFFER, ACCEPT, BLINDED[0], REPLY[0], OUTCOME)


@pytest.mark.parametrize("body", ENCRYPTED, ids=lambda body: body.kind)
@pytest.mark.parametrize("turn", MAY_FOLLOW)
def test_the_coordinator_carries_what_is_encrypted_and_whose_turn_it_is(
    turn: int, body: Body
) -> None:
    for in_clear in (False, True):
        job, answers = at(f"match {turn}")
        sender = answers[0].header.sender
        recipient = "retailer" if sender == "brand" else "brand"
        sealed = PARTIES.seal(sender, recipient, "find", body, in_clear=in_clear)
        answers[0] = unseal(sealed, AGREEMENT)
        if body.kind in MAY_FOLLOW[turn] and not in_clear:
            assert Relay(answers[0]) in job.send(answers)
            continue
        with pytest.raises(MessageError, match=f"said {body.kind}"):
            job.send(answers)


# --- match ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_io")
def test_a_match_is_asked_of_every_learner_and_carried_until_each_pair_has_ended() -> None:
    job = coordinate_match(AGREEMENT, MATCH)
    outgoing = next(job)
    assert outgoing == [
        Say(name, "find", MatchRequest(spec=MATCH, peer="brand")) for name in PARTNERS
    ]
    for answers in MATCH_ANSWERS[:-1]:
        outgoing = job.send(answers)
        assert outgoing == [Relay(one) for one in answers if one.body != DONE]
    with pytest.raises(StopIteration):
        job.send(MATCH_ANSWERS[-1])


@pytest.mark.parametrize("reveal", Reveal)
def test_who_learns_is_asked_first(reveal: Reveal) -> None:
    terms = AGREEMENT.match.model_copy(update={"reveal": reveal})
    agreement = AGREEMENT.model_copy(update={"match": terms})
    asked = next(coordinate_match(agreement, MATCH))
    found = [(item.recipient, item.body.peer) for item in asked]
    brand_learns = reveal is Reveal.BRAND_LEARNS_MEMBERS
    assert found == [("brand", one) if brand_learns else (one, "brand") for one in PARTNERS]


# --- train ------------------------------------------------------------------------------------


def rows(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    features = random.normal(size=(count, 4)) / 10
    return features, (features[:, 0] > 0).astype(float)


@pytest.mark.usefixtures("no_io")
def test_training_hands_round_the_average_and_publishes_it() -> None:
    job = coordinate_train(AGREEMENT, TRAIN, COLUMNS)
    first = next(job)
    zeros = weights_to_bytes(np.zeros(4))
    assert first == [
        Say(name, "model", TrainRequest(spec=TRAIN, round=1, width=4), zeros) for name in PARTNERS
    ]
    second = job.send(
        [update("retailer", 1, 4, [1, 2, 3, 4]), update("courier", 1, 4, [3, 2, 1, 0])]
    )
    assert {item.payload for item in second} == {weights_to_bytes(np.full(4, 2.0))}
    assert [item.body.round for item in second] == [2, 2]
    last = [update("retailer", 2, 4, [8, 0, 0, 0]), update("courier", 2, 4, [0, 0, 0, 4])]
    publication = job.send(last)
    assert publication.most_missing == 3  # whoever is away gets the model later
    published = publication.outgoing
    assert [item.recipient for item in published] == [*PARTNERS, "brand"]
    with pytest.raises(StopIteration) as end:
        job.send([acknowledged(name) for name in (*PARTNERS, "brand")])
    model = end.value.value
    assert model.body.weights == (4.0, 0.0, 0.0, 2.0)
    assert (model.epsilon, model.delta, model.making.rounds) == (1.0, 1e-5, 2)
    assert model.making.parties == ("retailer", "courier")
    assert model.making.one_shot == (2.0, 2.0, 2.0, 2.0)
    for item in published:
        assert parse_model(heard(item), AGREEMENT, COLUMNS) == model


WRONG_UPDATES: dict[str, Callable[[], Message]] = {
    "the round before": lambda: update("courier", 1),
    "a round after": lambda: update("courier", 3),
    "fewer weights": lambda: update("courier", 2, 3),
    "a width that its weights do not have": lambda: said(
        "courier", "coordinator", "model", TrainUpdate(round=2, width=3), bytes(32)
    ),
    "more weights": lambda: update("courier", 2, 5),
    "weights missing": lambda: said(
        "courier", "coordinator", "model", TrainUpdate(round=2, width=4), bytes(24)
    ),
    "no number": lambda: update("courier", 2, 4, [0, 0, np.nan, 0]),
    "endless": lambda: update("courier", 2, 4, [0, 0, np.inf, 0]),
}


@pytest.mark.parametrize("wrong", WRONG_UPDATES.values(), ids=WRONG_UPDATES)
def test_an_update_that_does_not_fit_is_not_averaged(wrong: Callable[[], Message]) -> None:
    job, answers = at("train 2")
    answers[1] = wrong()
    with pytest.raises(MessageError):
        job.send(answers)


def request(
    *, spec: TrainSpec = TRAIN, number: int = 1, width: int = 4, values: Any = None
) -> Message:
    payload = weights_to_bytes(np.zeros(width) if values is None else np.asarray(values))
    body = TrainRequest(spec=spec, round=number, width=width)
    return said("coordinator", "retailer", spec.name, body, payload)


def trained(message: Message, label: str = "one") -> np.ndarray:
    plan = training_plan(TRAIN, AGREEMENT, expected_rows=40)
    body, payload = train_round(message, plan, *rows(), seeded_secret(3, label))
    return weights_from_bytes(payload, body.width)


@pytest.mark.usefixtures("no_io")
def test_a_round_of_training_follows_from_the_question_and_the_secret() -> None:
    assert trained(request()).tobytes() == trained(request()).tobytes()
    assert trained(request()).tobytes() != trained(request(), "two").tobytes()
    assert trained(request()).tobytes() != trained(request(number=2)).tobytes()
    far = trained(request(values=[1e3, 0, 0, 0]))
    assert far[0] > 500 > trained(request())[0]


WRONG_REQUESTS: dict[str, Callable[[], Message]] = {
    "width": lambda: request(width=5),
    "round": lambda: request(number=3),
    "no number": lambda: request(values=[0, np.nan, 0, 0]),
    "too few weights": lambda: request(values=[0, 0, 0]),
}


@pytest.mark.parametrize("wrong", WRONG_REQUESTS.values(), ids=WRONG_REQUESTS)
def test_a_round_that_does_not_fit_is_not_trained(wrong: Callable[[], Message]) -> None:
    with pytest.raises(MessageError):
        trained(wrong())


def test_noise_follows_from_epsilon_and_never_from_the_question() -> None:
    plan = training_plan(TRAIN, AGREEMENT, expected_rows=40)
    assert plan.parameters.clipping_norm == AGREEMENT.train.clipping_norm
    assert plan.parameters.steps == TRAIN.steps // TRAIN.rounds
    looser = TRAIN.model_copy(update={"epsilon": 2.0})
    quieter = training_plan(looser, AGREEMENT, expected_rows=40).parameters.noise_multiplier
    assert plan.parameters.noise_multiplier > quieter
    assert plan.charge.count == AGREEMENT.train.max_parties_per_person
    assert "noise_multiplier" not in str(TrainSpec.model_fields) + str(TrainRequest.model_fields)
    lonely = training_plan(TRAIN, AGREEMENT, expected_rows=40, parties=1)
    assert lonely.parameters.noise_multiplier < plan.parameters.noise_multiplier


def model(
    *,
    making: Mapping[str, object] | None = None,
    body: Mapping[str, object] | None = None,
    **changes: object,
) -> bytes:
    noise = training_plan(TRAIN, AGREEMENT, expected_rows=1).parameters.noise_multiplier
    right = JointModel(
        agreement=AGREEMENT.digest,
        job="model",
        match="find",
        body=LinearBody(columns=COLUMNS, weights=(1.0, 2.0, 3.0, 4.0)),
        noise=NoiseSource.LOCAL,
        epsilon=1.0,
        delta=1e-5,
        making=Making(
            rounds=2,
            noise_multiplier=noise,
            parties=("retailer", "courier"),
            one_shot=(1.0, 2.0, 2.0, 4.0),
        ),
    )
    fields = right.model_dump(mode="json") | changes
    fields["making"] = {**fields["making"], **(making or {})}
    fields["body"] = {**fields["body"], **(body or {})}
    return json.dumps(fields).encode()


def published(payload: bytes) -> Message:
    return said("coordinator", "retailer", "model", ModelPublished(spec=TRAIN), payload)


def test_a_published_model_is_read() -> None:
    found = parse_model(published(model()), AGREEMENT, COLUMNS)
    assert found.score(np.eye(4)).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert parse_model(published(found.canonical_bytes), AGREEMENT, COLUMNS) == found


WRONG_MODELS: Mapping[str, Callable[[], bytes]] = {  # made where they are met: noise takes long
    "nothing": bytes,
    "no JSON": lambda: b"\xff",
    "another version": partial(model, version=2),
    "another agreement": partial(model, agreement="0" * 64),
    "another job": partial(model, job="other"),
    "another match": partial(model, match="other"),
    "another epsilon": partial(model, epsilon=0.1),
    "another delta": partial(model, delta=1e-9),
    "other rounds": partial(model, making={"rounds": 3}),
    "other parties": partial(model, making={"parties": ["retailer"]}),
    "no average of the first round": partial(model, making={"one_shot": None}),
    "noise of others": partial(model, noise="distributed"),
    "other columns": partial(model, body={"columns": ["age", "height", "colour=red", "constant"]}),
    "columns in another order": partial(model, body={"columns": list(reversed(COLUMNS))}),
    "a column missing": partial(model, body={"columns": COLUMNS[:3], "weights": [1.0, 2.0, 3.0]}),
    "a weight missing": partial(model, body={"weights": [1.0, 2.0, 3.0]}),
    "a weight too many": partial(model, body={"weights": [1.0] * 5}),
    "a weight that is no number": partial(model, body={"weights": [1.0, 2.0, 3.0, float("nan")]}),
    "an endless weight": partial(model, body={"weights": [1.0, 2.0, 3.0, float("inf")]}),
    "a body of another kind": partial(
        model, body={"kind": "network", "shape": {"hidden": [1]}, "weights": [1.0] * 7}
    ),
    "a body of no kind": partial(model, body={"kind": "oracle"}),
    "less noise": partial(model, making={"noise_multiplier": 0.1}),
    "noise that is no number": partial(model, making={"noise_multiplier": float("nan")}),
    "rounds beyond any": partial(model, making={"rounds": 10**30}),
    "an unknown field": partial(model, more=1),
}


@pytest.mark.parametrize("make", WRONG_MODELS.values(), ids=WRONG_MODELS)
def test_another_model_than_announced_is_refused(make: Callable[[], bytes]) -> None:
    wrong = published(make())
    with pytest.raises(MessageError, match="published model"):
        parse_model(wrong, AGREEMENT, COLUMNS)


# --- expand -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_io")
def test_expansion_asks_every_partner_once() -> None:
    job = coordinate_expand(AGREEMENT, EXPAND)
    assert next(job) == [Say(name, "best", ExpandRequest(spec=EXPAND)) for name in PARTNERS]
    with pytest.raises(StopIteration):
        job.send([said(name, "coordinator", "best", ExpandDone()) for name in PARTNERS])


# --- what a job may ask -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "term"),
    [
        ({"epsilon": 1.001}, "train.epsilon"),
        ({"delta": 1.1e-5}, "train.delta"),
        ({"steps": 102}, "train.max_steps"),
        ({"steps": 12, "rounds": 6}, "train.max_rounds"),
        ({"steps": 5}, "train.max_rounds"),
    ],
)
def test_a_training_beyond_the_contract_names_the_term(
    changes: dict[str, float], term: str
) -> None:
    spec = TrainSpec.model_validate(TRAIN.model_dump() | changes)
    assert [objection[0] for objection in policy_objections(spec, AGREEMENT)] == [term]


def test_what_the_contract_allows_meets_no_objection() -> None:
    edge = TRAIN.model_copy(update={"epsilon": 1.0, "delta": 1e-5, "steps": 100, "rounds": 5})
    most = EXPAND.model_copy(update={"share": 0.5})
    for spec in (MATCH, TRAIN, edge, EXPAND, most):
        assert policy_objections(spec, AGREEMENT) == ()
    beyond = EXPAND.model_copy(update={"share": 0.51})
    assert [term for term, _ in policy_objections(beyond, AGREEMENT)] == ["expand.maximum_share"]


@pytest.mark.parametrize("reveal", Reveal)
def test_partners_train_on_members_only_where_they_may_know_them(reveal: Reveal) -> None:
    terms = AGREEMENT.match.model_copy(update={"reveal": reveal})
    found = policy_objections(TRAIN, AGREEMENT.model_copy(update={"match": terms}))
    knows = reveal in {Reveal.PARTNER_LEARNS_MEMBERS, Reveal.BOTH_LEARN_MEMBERS}
    assert [term for term, _ in found] == ([] if knows else ["match.reveal"])


def test_a_bucket_grows_with_the_memory_that_a_party_may_take() -> None:
    limits = ["512MiB", "1GiB", "4GiB", 1 << 40]
    points = [MatchSpec(name="find", memory_limit=limit).bucket_points for limit in limits]
    assert points == sorted(points)
    assert 1 <= points[0] < points[-1] == MatchSpec(name="find", memory_limit=1 << 39).bucket_points
    assert MatchSpec(name="find") == MatchSpec(name="find", memory_limit="1GiB")


def test_objections_come_all_at_once() -> None:
    greedy = TRAIN.model_copy(update={"epsilon": 9.0, "delta": 0.1, "steps": 1000, "rounds": 7})
    assert len(policy_objections(greedy, AGREEMENT)) == 5


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (MatchSpec, {"name": "Find"}),
        (MatchSpec, {"name": "find/../up"}),
        (MatchSpec, {"name": "find\n"}),
        (MatchSpec, {"name": "a" * 33}),
        (MatchSpec, {"name": "find", "memory_limit": (512 << 20) - 1}),
        (MatchSpec, {"name": "find", "memory_limit": (1 << 40) + 1}),
        (MatchSpec, {"name": "find", "memory_limit": "a lot"}),
        (MatchSpec, {"name": "find", "bucket_points": 1}),
        (TrainSpec, TRAIN.model_dump() | {"epsilon": 0}),
        (TrainSpec, TRAIN.model_dump() | {"epsilon": float("nan")}),
        (TrainSpec, TRAIN.model_dump() | {"epsilon": float("inf")}),
        (TrainSpec, TRAIN.model_dump() | {"delta": 1.0}),
        (TrainSpec, TRAIN.model_dump() | {"sampling_probability": 0}),
        (TrainSpec, TRAIN.model_dump() | {"noise_multiplier": 0}),
        (ExpandSpec, EXPAND.model_dump() | {"share": 0}),
        (ExpandSpec, EXPAND.model_dump() | {"share": 1.01}),
        (ExpandSpec, EXPAND.model_dump() | {"size": 10}),
        (ExpandSpec, EXPAND.model_dump() | {"share": None}),
        (ExpandSpec, EXPAND.model_dump() | {"share": None, "size": 0}),
    ],
)
def test_a_job_that_makes_no_sense_cannot_be_written(
    kind: type[Any], fields: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(fields)
