"""Policies: decisions a CPU-second with every clause that an agreement can have; compiling; code.

The bar: 6,000 decisions a CPU-second in batches, on one core, with permits, regions, code,
approvals, views and clauses of a party's own, each decision with the digest of its question.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from compliance import policy as policies
from compliance.agreement import Agreement
from compliance.policy import Question
from compliance.signing import SigningKey
from compliance.terms import (
    DATA_ROLES,
    ApprovalTerms,
    ApproverTerm,
    Classification,
    Computation,
    MeasuredColumn,
    MeasureTerms,
    RegionTerm,
    Role,
)
from federation import code
from federation.collaboration import load_collaboration
from federation.policies import policy_of
from federation.trial.workspace import prepare_workspace
from privacy.randomness import seeded_secret

BAR: Final = 6_000
BATCH: Final = 1_000
ROUNDS: Final = 20
NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
EXAMPLE: Final = Path(__file__).parent.parent / "examples" / "lookalike" / "collaboration.toml"

OWN: Final = """
@id("office-hours") @remedy("ask between 8 and 18 h UTC")
forbid (principal, action, resource) when { context.hour < 8 || context.hour >= 18 };
@id("no-alignment")
forbid (principal, action, resource) when { context.scenario == "align" };
@id("no-sensitive-columns")
forbid (principal, action, resource)
when { context has classification && context.classification > 2 };
@id("no-large-payloads")
forbid (principal, action, resource) when { context.bytes > 1000000000 };
"""


def with_every_clause(agreement: Agreement) -> Agreement:
    """Return an agreement with every term that a clause is written from."""
    names = [party.name for party in agreement.parties]
    people = [party.name for party in agreement.parties if party.role in DATA_ROLES]
    keys = [SigningKey.from_seed(seeded_secret(1, name)) for name in people]
    return agreement.model_copy(
        update={
            "regions": tuple(RegionTerm(party=n, country="DE", reaches=("DE",)) for n in names),
            "code_digests": (code.running_code().digest,),
            "approval": ApprovalTerms(
                approvers=tuple(
                    ApproverTerm(name=f"approver-{place}", party=name, key=key.public.to_base64())
                    for place, (name, key) in enumerate(zip(people, keys, strict=True))
                ),
                approvals=2,
                parties=2,
            ),
            "measure": MeasureTerms(
                purpose=agreement.train.purpose,
                columns=(MeasuredColumn(name=agreement.features[0].name, edges=(30.0, 60.0)),),
                epsilon=1.0,
                minimum_cell=10,
            ),
        }
    )


def questions(agreement: Agreement) -> list[Question]:
    """Return different questions, of which some are denied."""
    (coordinator,) = agreement.by_role(Role.COORDINATOR)
    partner = agreement.by_role(Role.PARTNER)[0].name
    asked = Question(
        partner,
        "train.update",
        coordinator.name,
        "model",
        agreement.train.purpose,
        charged=True,
        payload_bytes=4_096,
        time=max(NOON, agreement.valid_from),
        computation=Computation.TRAIN,
        classification=Classification.PERSONAL,
        approving=tuple(party.name for party in agreement.parties[:2]),
        code=code.running_code().digest,
    )
    return [
        replace(asked, time=asked.time + timedelta(minutes=place), payload_bytes=place)
        for place in range(BATCH)
    ]


def cpu_seconds(work: Callable[[], Any], times: int) -> float:
    """Return what doing it once costs, on average."""
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) / times


def main() -> int:
    """Measure; 1 if the bar is missed."""
    with tempfile.TemporaryDirectory() as scratch:
        workspace = prepare_workspace(
            load_collaboration(EXAMPLE), EXAMPLE, Path(scratch) / "workspace"
        )
        agreement = with_every_clause(workspace.agreement)
        folder = workspace.partners[0]
        folder.policy.write_text(OWN, encoding="utf-8")
        held = policy_of(folder, agreement)
        policy = held.text.removesuffix(OWN)
        asked = questions(agreement)
        allowed = sum(decision.allowed for decision in held.decide_all(asked))
        if not 0 < allowed < BATCH:
            raise RuntimeError(f"{allowed} of {BATCH} decisions allow: expected some, not all")
        batch = cpu_seconds(lambda: held.decide_all(asked), ROUNDS) / BATCH
        single = cpu_seconds(lambda: held.decide(asked[0]), BATCH)
        at_use = cpu_seconds(lambda: policy_of(folder, agreement), BATCH)
    compiled = cpu_seconds(lambda: policies._compile.__wrapped__(held.text), ROUNDS)  # noqa: SLF001
    digest = cpu_seconds(code._read.__wrapped__, ROUNDS)  # noqa: SLF001
    unchanged = cpu_seconds(code.running_code, ROUNDS)
    print(f"{held.text.count('@id('):10,}  clauses, {policy.count('@id(')} of them agreed")
    print(f"{1 / batch:10,.0f}  decisions a CPU-second, {BATCH:,} at a time (bar {BAR:,})")
    print(f"{1 / single:10,.0f}  decisions a CPU-second, one at a time")
    print(f"{at_use * 1e6:10,.0f}  µs to read a party's file, its policies known")
    print(f"{compiled * 1e3:10,.1f}  ms to compile all clauses")
    print(f"{digest * 1e3:10,.1f}  ms for the digest of the code")
    print(f"{unchanged * 1e3:10,.1f}  ms to see that it has not changed")
    return 0 if 1 / batch >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
