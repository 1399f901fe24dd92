"""What `comity audit` costs: all parties' logs of a busy year, a million leaves together.

Run it on a quiet machine: `make bench-log`. Logs are made of what parties write, in proportions of
a collaboration with many people who say something and a job every few hours: consents, releases
with what comes before each, charges, matches, segments, requests to erase, deletions, heads. Every
log is signed by its party, and its head cosigned by all others. The audit is the command itself, in
a process of its own; nothing may be found.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from compliance import records
from compliance.agreement import Agreement
from compliance.log.checkpoint import Checkpoint
from compliance.log.note import Note
from compliance.terms import Role
from federation.clock import utc_now
from federation.collaboration import load_collaboration
from federation.party import PartyFolder, write_atomically
from federation.trial.workspace import Workspace, prepare_workspace
from privacy.accounting.accountant import Accountant
from privacy.accounting.events import GaussianEvent, to_json

EXAMPLE: Final = Path(__file__).parents[1] / "examples" / "lookalike" / "collaboration.toml"
COUNT: Final = GaussianEvent(noise_multiplier=40.0)
TRAINING: Final = GaussianEvent(noise_multiplier=25.0)
BUCKETS: Final = 24


def digest(*parts: object) -> str:
    """Return 64 hexadecimal digits that nothing else has."""
    return sha256(repr(parts).encode()).hexdigest()


class Diary:
    """What one party writes, leaf by leaf."""

    def __init__(self, party: str, agreement: Agreement) -> None:
        self.leaves: list[bytes] = []
        self.counts: Counter[str] = Counter()
        self._party = party
        self._digest = agreement.digest
        self._agreement = agreement
        self._time = max(
            agreement.valid_from, datetime(2026, 1, 1, tzinfo=agreement.valid_from.tzinfo)
        )
        self._said = 0
        self._spent = Accountant()

    def write(self, kind: type[Any], job: str | None = None, **fields: Any) -> None:
        """Write a leaf a second or so after the one before."""
        self._time += timedelta(milliseconds=317)
        name = kind.model_fields["kind"].default
        whole = {"agreement": self._digest, "job": job, "kind": name, "party": self._party}
        whole |= {"time": records_time(self._time), "version": 1} | fields
        if any(isinstance(value, float) for value in fields.values()):
            leaf = records.to_leaf(kind(**(whole | {"time": self._time})))
        else:
            leaf = json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()
        self.leaves.append(leaf)
        self.counts[name] += 1

    def said(self, number: int) -> None:
        """People say something about a purpose."""
        for _ in range(number):
            self._said += 1
            self.write(
                records.ConsentRecorded,
                sequence=self._said,
                event="withdrawn" if self._said % 9 == 0 else "given",
                purpose=self._agreement.purposes[0],
                commitment=digest("said", self._party, self._said),
            )

    def release(
        self, job: str, kind: str, to: str, *, people: bool = False, place: int | None = None,
        charge: GaussianEvent | None = None,
    ) -> None:  # fmt: skip
        """Something leaves, with all that the gate writes about it."""
        name = f"{job}/{kind}/{to}" + ("" if place is None else f"/bucket-{place}")
        self.write(
            records.AccessDecided,
            job,
            release_id=name,
            computation=kind,
            recipient=to,
            allowed=True,
            clauses=["agreed.parties"],
            policy_digest=digest("policy"),
            question_digest=digest(name),
        )
        if people:
            self.write(
                records.ConsentUsed,
                job,
                purpose=self._agreement.purposes[0],
                consent_log_size=self._said,
                rows=25_000,
                eligible=24_000,
                excluded={"refused": 600, "withdrawn": 400},
                recipients=["brand", "coordinator", "courier", "retailer"],
                cohort_root=digest("cohort", job),
                as_of=records_time(self._time),
            )
        if charge is not None:
            self._reserve(job, name, charge)
        self.write(
            records.Release,
            job,
            release_id=name,
            computation=kind,
            recipient=to,
            content_digest=digest("content", name),
            content_bytes=4096,
            charge_id=None if charge is None else name,
        )
        if charge is not None:
            spent = self._spent.epsilon(self._agreement.accounted_delta)
            self.write(records.BudgetCommitted, job, charge_id=name, epsilon_spent=spent)

    def _reserve(self, job: str, name: str, charge: GaussianEvent) -> None:
        budget = self._agreement.budget
        self._spent.compose(charge)
        self.write(
            records.BudgetReserved,
            job,
            charge_id=name,
            mechanism=to_json(charge),
            epsilon=Accountant().compose(charge).epsilon(budget.delta),
            delta=budget.delta,
            epsilon_spent=self._spent.epsilon(self._agreement.accounted_delta),
            epsilon_cap=budget.epsilon,
        )

    def trained(self, job: str, partners: list[str]) -> None:
        """A model was made of the partners' people."""
        terms = self._agreement.train
        self.write(
            records.ModelTrained,
            job,
            model_digest=digest("model", job),
            rounds=1,
            parties=partners,
            epsilon=terms.epsilon,
            delta=terms.delta,
        )

    def erase(self, number: int, peers: list[str]) -> None:
        """Somebody asked to be erased."""
        request = f"request-{number}"
        deadline = records_time(self._time + timedelta(days=30))
        self.write(records.ErasureRequested, request=request, origin="retailer", deadline=deadline)
        for target in ("source", "models", "segments"):
            self.write(
                records.ErasureStep, request=request, target=target, outcome_digest=digest(target)
            )
        for peer in peers:
            self.write(
                records.ErasureAcknowledged,
                request=request,
                peer=peer,
                acknowledgement_digest=digest(peer, number),
            )
        for peer in (self._party, *peers):
            self.write(
                records.ErasureCompleted,
                request=request,
                peer=peer,
                completion_digest=digest(peer, "completed", number),
            )


def records_time(moment: datetime) -> str:
    """Write a moment as leaves do."""
    return moment.isoformat().replace("+00:00", "Z")


def year(agreement: Agreement, leaves: int) -> dict[str, Diary]:
    """Write as many leaves as there are to be, all parties' together."""
    diaries = {party.name: Diary(party.name, agreement) for party in agreement.parties}
    names = [party.name for party in agreement.parties]
    partners = [party.name for party in agreement.by_role(Role.PARTNER)]
    (brand,) = (party.name for party in agreement.by_role(Role.BRAND))
    (operator,) = (party.name for party in agreement.by_role(Role.COORDINATOR))
    for diary in diaries.values():
        diary.write(records.AgreementSigned, parties=names, supersedes=None)
    jobs = 0
    while sum(len(diary.leaves) for diary in diaries.values()) < leaves:
        jobs += 1
        one_day(diaries, brand, partners, operator, jobs)
    return diaries


def one_day(
    diaries: dict[str, Diary], brand: str, partners: list[str], operator: str, day: int
) -> None:
    """A match, a training of it, a segment, and what people say and ask for meanwhile."""
    find, train, best = (f"{word}-{day}" for word in ("find", "train", "best"))
    charged = day % 26 == 0
    for party in (brand, *partners):
        diaries[party].said(200)
    centre = diaries[operator]
    for job, kind in ((find, "match"), (train, "train"), (best, "expand")):
        centre.write(records.JobStarted, job, computation=kind)
        for partner in partners:
            own = diaries[partner]
            if kind == "match":
                centre.release(job, "match.request", partner)
                match(diaries, job, brand, partner, bind=day % 120 == 1)
            elif kind == "train" and charged:
                centre.release(job, "train.request", partner)
                own.release(job, "train.update", operator, people=True, charge=TRAINING)
            elif kind == "expand":
                centre.release(job, "expand.request", partner)
                own.release(job, "expand.done", operator, people=True)
                own.write(
                    records.SegmentWritten, job, segment=job, rows=1200, share=0.05, size=None
                )
        made = kind != "train" or charged
        if kind == "train" and made:
            centre.trained(job, partners)
        centre.write(records.JobEnded, job, computation=kind, outcome="done" if made else "failed")
    for party in (brand, *partners):
        diaries[party].erase(day, [peer for peer in (brand, *partners) if peer != party])
        diaries[party].write(
            records.WitnessReceived,
            peer=operator,
            tree_size=len(centre.leaves),
            root_hash=digest("head", day),
        )
        due = records_time(diaries[party]._time)  # noqa: SLF001
        diaries[party].write(
            records.ArtefactDeleted,
            artefact="match",
            name=find,
            purpose="lookalike-audiences",
            days=30,
            due=due,
        )


def match(diaries: dict[str, Diary], job: str, brand: str, partner: str, *, bind: bool) -> None:
    """Two parties match, bucket by bucket."""
    for bucket in range(BUCKETS):
        diaries[partner].release(job, "match.blinded", brand, people=True, place=bucket)
        diaries[brand].release(job, "match.reply", partner, people=True, place=bucket)
    ours, theirs = digest("set", brand), digest("set", partner)
    for own, peer, first, second in (
        (brand, partner, ours, theirs),
        (partner, brand, theirs, ours),
    ):
        if bind:
            diaries[own].write(
                records.MatchBound, job, peer=peer, own_commitment=first, peer_commitment=second
            )


def keep(workspace: Workspace, diaries: dict[str, Diary]) -> None:
    """Write the logs to disk, under heads that everybody else cosigned."""
    cosigners = {folder.name: folder.cosigning_key() for folder in workspace.folders}
    for folder in workspace.folders:
        leaves = diaries[folder.name].leaves
        with folder.open_log() as log:
            for start in range(0, len(leaves), 1 << 14):
                log.append(leaves[start : start + (1 << 14)])
            head = log.checkpoint
        write_atomically(folder.log / "witness" / "public", cosigned(folder, head, cosigners))


def cosigned(folder: PartyFolder, head: Checkpoint, cosigners: dict[str, Any]) -> bytes:
    """Return a head with everybody's signature."""
    note = Note.parse((folder.log / "checkpoint").read_bytes())
    now = int(utc_now().timestamp())
    lines = [
        key.cosign(head, timestamp=now) for name, key in cosigners.items() if name != folder.name
    ]
    return Note(note.text, (*note.signatures, *lines)).to_bytes()


def audited(path: Path) -> Iterator[str]:
    """Audit a workspace in a process of its own, and say what it took."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [
        sys.executable,
        "-c",
        "from federation.cli import main; main()",
        "audit",
        str(path),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told = json.loads(done.stdout)
    for finding in told["findings"][:5]:
        yield f"  {finding['kind']}: {finding['sentence']}"
    read = sum(log["leaves"] for log in told["logs"])
    yield (
        f"comity audit, {read:,} leaves of {len(told['logs'])} parties: {wall:.1f} s wall, "
        f"{cpu:.1f} CPU-s, {len(told['findings'])} findings, prices "
        f"{'computed again' if told['repriced'] else 'read'}, "
        f"{after.ru_maxrss / 1e6:.1f} GB at most in a process"
    )
    if told["findings"]:
        raise RuntimeError("nothing is wrong with these logs, so their cost says nothing")


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=1_000_000, help="of all logs together")
    parser.add_argument("--keep", type=Path, help="folder to make the logs in, and to leave")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path()) as scratch:
        place = options.keep or Path(scratch) / "year"
        if not place.exists():
            collaboration = load_collaboration(EXAMPLE)
            workspace = prepare_workspace(collaboration, EXAMPLE, place)
            diaries = year(workspace.agreement, options.leaves)
            keep(workspace, diaries)
            counts = sum((diary.counts for diary in diaries.values()), Counter())
            print(", ".join(f"{name} {count:,}" for name, count in counts.most_common()))
        for line in audited(place):
            print(line)


if __name__ == "__main__":
    main()
