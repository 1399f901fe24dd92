"""Policies: what the agreement permits, what a party forbids, and what leaves through the gate."""

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from parties import PURPOSE, TRAIN, World
from test_gate import departure, opened, update
from typer.testing import CliRunner

from compliance import records
from compliance.errors import PolicyError
from compliance.policy import EVERYONE, Flow, Policy, Question
from compliance.terms import Role
from federation.cli import app
from federation.code import running_code
from federation.errors import RefusedError
from federation.policies import policy_of
from federation.routes import ROUTES

OFFICE = """
@id("office-hours")
@remedy("ask between 8 and 18 h UTC")
forbid (principal, action, resource) when { context.hour < 8 || context.hour >= 18 };
"""
NO_TRAINING = """
@id("no-training")
forbid (principal, action == Action::"train.update", resource);
"""
FLOWS = tuple(
    Flow(kind, route.sender, route.recipient, route.concerns_people)
    for kind, route in ROUTES.items()
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path / "workspace")


def update_by_retailer(world: World) -> Question:
    return Question(
        sender="retailer",
        action="train.update",
        recipient="coordinator",
        job="model",
        purpose=PURPOSE,
        charged=True,
        payload_bytes=80,
        time=world.now,
    )


class TestWhatTheAgreementPermits:
    def test_every_route_between_every_pair_of_parties_and_nothing_else(self, made: World) -> None:
        policy = Policy(made.agreement, FLOWS)
        roles = {party.name: party.role for party in made.agreement.parties}
        asked = [
            Question(sender, flow.action, recipient, "job", purpose, False, 0, made.now)
            for flow in FLOWS
            for sender, recipient in itertools.product(roles, [*roles, EVERYONE])
            for purpose in (None, PURPOSE, "another")
        ]
        flows = {flow.action: flow for flow in FLOWS}
        for question, decision in zip(asked, policy.decide_all(asked), strict=True):
            flow = flows[question.action]
            right_roles = roles[question.sender] in flow.senders and (
                question.recipient == EVERYONE or roles[question.recipient] in flow.recipients
            )
            right_purpose = question.purpose == (PURPOSE if flow.concerns_people else None)
            if flow.concerns_people and flow.scenario in {"align", "assist", "measure"}:
                right_purpose = False  # no terms of these are agreed
            assert decision.allowed is (right_roles and right_purpose)
            assert decision.clauses == ((f"agreed:{question.action}",) if decision.allowed else ())
            assert decision.policy_digest == policy.digest

    def test_only_while_the_agreement_is_in_force(self, made: World) -> None:
        policy, question = Policy(made.agreement, FLOWS), update_by_retailer(made)
        for moment, allowed in (
            (made.agreement.valid_from - timedelta(seconds=1), False),
            (made.agreement.valid_from, True),
            (made.agreement.valid_until - timedelta(seconds=1), True),
            (made.agreement.valid_until, False),
        ):
            assert policy.decide(replace(question, time=moment)).allowed is allowed

    def test_nobody_who_is_no_party_and_nothing_that_is_no_kind(self, made: World) -> None:
        policy, question = Policy(made.agreement, FLOWS), update_by_retailer(made)
        for stranger in (
            replace(question, sender="stranger"),
            replace(question, recipient="stranger"),
            replace(question, action="train.everything"),
        ):
            assert not policy.decide(stranger).allowed

    def test_a_question_has_one_digest_in_any_time_zone(self, made: World) -> None:
        question = update_by_retailer(made)
        moved = made.now.astimezone(datetime(2026, 1, 1, tzinfo=UTC).astimezone().tzinfo)
        assert replace(question, time=moved).digest == question.digest
        for other in ({"job": "other"}, {"charged": False}, {"purpose": None}):
            assert replace(question, **other).digest != question.digest


class TestWhatAPartyForbids:
    @pytest.mark.parametrize(("hour", "allowed"), [(7, False), (8, True), (17, True), (18, False)])
    def test_a_clause_decides_with_its_remedy(self, made: World, hour: int, allowed: bool) -> None:
        policy = Policy(made.agreement, FLOWS, OFFICE)
        question = replace(update_by_retailer(made), time=made.now.replace(hour=hour))
        decision = policy.decide(question)
        assert decision.allowed is allowed
        if not allowed:
            assert decision.clauses == ("office-hours",)
            assert decision.remedy == "ask between 8 and 18 h UTC"

    def test_it_can_only_take_away(self, made: World) -> None:
        bare, own = (Policy(made.agreement, FLOWS, text) for text in ("", OFFICE + NO_TRAINING))
        assert bare.digest != own.digest
        for hour in range(24):
            for action in ROUTES:
                question = replace(
                    update_by_retailer(made), action=action, time=made.now.replace(hour=hour)
                )
                assert bare.decide(question).allowed or not own.decide(question).allowed

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("permit (principal, action, resource);", "permits"),
            ('@id("x") permit (principal, action, resource);', "permits"),
            ("forbid (principal, action, resource);", "without a name"),
            ('@id("") forbid (principal, action, resource);', "without a name"),
            (NO_TRAINING + NO_TRAINING, "twice"),
            ('@id("x") forbid (principal, action', "malformed"),
            ('@id("x") forbid (principal, action, resource) when {context.our < 8};', "not found"),
            (
                '@id("x") forbid (principal, action, resource) when {context.purpose == "a"};',
                "safe",
            ),
            ('@id("x") forbid (principal, action == Action::"trian", resource);', "unrecognized"),
            ('@id("x") forbid (principal == ?principal, action, resource);', "template"),
            ("#" * 70_000, "at most 65536"),
            ('@id("late") forbid (principal, action, resource) when {context.our < 8};', "`late`"),
        ],
    )
    def test_anything_else_is_refused(self, made: World, text: str, reason: str) -> None:
        with pytest.raises(PolicyError, match=reason):
            Policy(made.agreement, FLOWS, text)

    def test_a_clause_that_cannot_be_evaluated_forbids(self, made: World) -> None:
        overflow = '@id("big") forbid (principal, action, resource) when '
        overflow += "{ context.time * 9223372036854775807 < 0 };"
        decision = Policy(made.agreement, FLOWS, overflow).decide(update_by_retailer(made))
        assert not decision.allowed
        assert decision.clauses == ("clause-that-cannot-be-evaluated",)


class TestAtTheGate:
    def test_what_is_forbidden_does_not_leave_and_both_leaves_say_so(self, world: World) -> None:
        folder = world.folder("retailer")
        folder.policy.write_text(NO_TRAINING)
        before = len(world.outbox("retailer"))
        with opened(world) as gate, pytest.raises(RefusedError, match="no-training") as caught:
            gate.release(update())
        assert caught.value.term == "policy"
        decided = world.leaves("retailer")[-1]
        assert isinstance(decided, records.AccessDecided)
        assert (decided.allowed, decided.clauses) == (False, ("no-training",))
        assert decided.policy_digest == policy_of(folder, world.agreement).digest
        assert len(world.outbox("retailer")) == before
        assert not world.statement("retailer").charges

    def test_a_question_gets_the_refusal_for_an_answer_and_it_is_a_leaf(self, world: World) -> None:
        folder = world.folder("coordinator")
        folder.policy.write_text(NO_TRAINING)
        world.folder("retailer").policy.write_text(
            '@id("closed") @remedy("ask privacy@retailer") forbid (principal, action, resource);'
        )
        with pytest.raises(RefusedError, match=r"closed: ask privacy@retailer") as caught:
            world.run()
        assert (caught.value.party, caught.value.term) == ("retailer", "policy")
        decided, refused = world.leaves("retailer")[-2:]
        assert isinstance(decided, records.AccessDecided)
        assert isinstance(refused, records.Refusal)
        assert refused.term == "policy"
        assert refused.remedy.endswith("closed: ask privacy at retailer")

    def test_a_file_that_somebody_changed_shows_in_the_log_by_the_next_decision(
        self, world: World
    ) -> None:
        """Each has the digest of all that decided it: with no file, with one, and with none again."""
        folder = world.folder("retailer")
        for number, text in enumerate(("", NO_TRAINING, "")):
            folder.policy.unlink(missing_ok=True)
            if text:
                folder.policy.write_text(text)
            with opened(world) as gate:
                gate.release(departure("present", "coordinator", answers=f"{number:064x}"))
        decided = [
            one for one in world.leaves("retailer") if isinstance(one, records.AccessDecided)
        ]
        before, changed, after = (one.policy_digest for one in decided)
        assert before == after != changed

    def test_the_same_text_is_compiled_once_and_the_file_read_at_each_use(
        self, world: World
    ) -> None:
        folder, agreement = world.folder("retailer"), world.agreement
        bare = policy_of(folder, agreement)
        assert policy_of(folder, agreement) is bare
        folder.policy.write_text(NO_TRAINING)
        forbidding = policy_of(folder, agreement)
        assert "no-training" in forbidding.text
        amended = agreement.model_copy(update={"valid_until": world.now})
        assert policy_of(folder, amended).digest != forbidding.digest
        folder.policy.unlink()
        assert policy_of(folder, agreement) is bare

    @pytest.mark.parametrize("target", ["nowhere", "policy.cedar"])
    def test_a_link_to_nowhere_is_no_missing_file(self, world: World, target: str) -> None:
        world.folder("retailer").policy.symlink_to(target)
        with opened(world) as gate, pytest.raises(PolicyError, match=r"policy\.cedar"):
            gate.release(update())

    @pytest.mark.parametrize("content", [b"permit (principal, action, resource);", b"\xff", b" \n"])
    def test_a_file_that_cannot_be_read_lets_nothing_out(
        self, world: World, content: bytes
    ) -> None:
        world.folder("retailer").policy.write_bytes(content)
        with opened(world) as gate, pytest.raises(PolicyError, match=r"policy\.cedar"):
            gate.release(update())
        assert not world.statement("retailer").charges

    @pytest.mark.parametrize(
        ("condition", "allowed"),
        [
            ('context has computation && context.computation == "train"', False),
            ("context has classification && context.classification >= 2", False),
            ("context has classification && context.classification >= 3", True),
            ("context.approvals == 0 && context.approving_parties == 0", False),
            (f'context.code == "{running_code().digest}"', False),
            ("principal has country || resource has country", True),
        ],
    )
    def test_a_clause_may_ask_for_the_job_its_columns_approvals_and_code(
        self, world: World, condition: str, allowed: bool
    ) -> None:
        text = f'@id("own") forbid (principal, action, resource) when {{ {condition} }};'
        world.folder("retailer").policy.write_text(text)
        with opened(world) as gate:
            gate.spec = TRAIN
            if allowed:
                gate.release(update())
            else:
                with pytest.raises(RefusedError, match="own policy forbids it by own"):
                    gate.release(update())


class TestCommand:
    def test_shows_and_explains(self, world: World) -> None:
        folder = world.folder("retailer")
        folder.policy.write_text(NO_TRAINING)
        shown = CliRunner().invoke(app, ["policy", "show", str(folder.path)])
        assert shown.exit_code == 0
        assert shown.stdout == policy_of(folder, world.agreement).text
        asked = ["policy", "explain", str(folder.path), "--to", "coordinator"]
        asked += ["--at", f"{world.now:%Y-%m-%dT%H:%M:%S}", "--json"]
        ours = ["--action", "train.update", "--purpose", PURPOSE, "--charged"]
        told = CliRunner().invoke(app, [*asked, *ours])
        assert told.exit_code == 1
        assert json.loads(told.stdout)["clauses"] == ["no-training"]
        told = CliRunner().invoke(app, [*asked, "--action", "expand.done", "--purpose", PURPOSE])
        assert told.exit_code == 0
        assert json.loads(told.stdout)["clauses"] == ["agreed:expand.done"]
        told = CliRunner().invoke(app, [*asked[:-1], "--action", "expand.done", "--purpose", "x"])
        assert told.exit_code == 1
        assert "no clause permits it" in told.stdout

    def test_finds_words_that_nothing_is_called_by(self, world: World) -> None:
        folder = world.folder("retailer")
        asked = ["policy", "check", str(folder.path)]
        assert "agreement alone" in CliRunner().invoke(app, asked).stdout
        folder.policy.write_text(
            OFFICE
            + '@id("a") forbid (principal, action, resource == Party::"curier");'
            + '@id("b") forbid (principal, action, resource) when {'
            + ' ["match", "trian"].contains(context.scenario) || resource.role == "partner" ||'
            + f' (context has purpose && context.purpose != "{PURPOSE}s") }};'
        )
        told = CliRunner().invoke(app, [*asked, "--json"])
        assert told.exit_code == 1
        assert {(one["clause"], one["word"], one["near"]) for one in json.loads(told.stdout)} == {
            ("a", "curier", "courier"),
            ("b", "trian", "train"),
            ("b", f"{PURPOSE}s", PURPOSE),
        }
        folder.policy.write_text(OFFICE)
        assert CliRunner().invoke(app, asked).exit_code == 0

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--action", "train.updat", "--to", "coordinator"], "train.update"),
            (["--action", "present", "--to", "coordinato"], "coordinator"),
            (["--action", "train.update", "--to", "coordinator"], "made from people"),
        ],
    )
    def test_says_what_is_wrong_with_a_question(
        self, world: World, options: list[str], said: str
    ) -> None:
        asked = ["policy", "explain", str(world.folder("retailer").path), *options]
        told = CliRunner().invoke(app, asked)
        assert told.exit_code == 2
        assert said in told.output


def test_roles_are_those_of_the_agreement() -> None:
    assert {role for flow in FLOWS for role in flow.senders} <= set(Role)
