"""Four small parties under one contract, for tests that need real keys, messages or folders."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from compliance.agreement import Agreement
from compliance.log.note import NoteKey
from compliance.records import Record
from compliance.signing import Envelope, SigningKey
from compliance.terms import DATA_ROLES, PartyTerm, Role
from federation.audit import verify_party
from federation.channel import Parcel
from federation.collaboration import Collaboration, build_agreement
from federation.coordinator import Coordinator
from federation.enclosure import decrypt, encrypt
from federation.errors import PartyUnreachableError
from federation.members import Members, load_people
from federation.messages import (
    HEADER_TYPE,
    Body,
    Encrypted,
    Header,
    Message,
    SealedMessage,
    content_digest,
    unseal,
)
from federation.node import Node
from federation.party import PartyFolder
from federation.routes import ROUTES
from federation.specification import ExpandSpec, MatchSpec, TrainSpec
from federation.trial.workspace import Workspace, prepare_workspace
from federation.wire import other_bundle
from privacy.accounting.ledger import Budget, Ledger, Statement
from privacy.encryption import DecryptionKey
from privacy.randomness import seeded_secret

PURPOSE = "lookalike-audiences"
ROLES = {
    "brand": Role.BRAND,
    "retailer": Role.PARTNER,
    "courier": Role.PARTNER,
    "coordinator": Role.COORDINATOR,
}
PEOPLE = {"brand": range(30), "retailer": range(10, 60), "courier": range(20, 70)}
"""Which of the people 0 … 69 each party knows."""

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MATCH = MatchSpec(name="find")
TRAIN = TrainSpec(
    name="model", match="find", epsilon=1.0, delta=1e-5, steps=4, rounds=2, sampling_probability=0.5
)
EXPAND = ExpandSpec(name="best", train="model", share=0.2)
JOBS = (MATCH, TRAIN, EXPAND)


def email(person: int) -> str:
    return f"person{person}@gmx.net"


def phone(person: int) -> str:
    return f"+1212736{5000 + person}"


def record(party: str, person: int) -> str:
    return f"{party[0].upper()}#{700 + person}"


def table(party: str) -> pd.DataFrame:
    """A party's people; two in three have a phone that it knows."""
    people = list(PEOPLE[party])
    columns: dict[str, list[Any]] = {
        "record": [record(party, person) for person in people],
        "email": [email(person).upper() if person % 4 else email(person) for person in people],
        "phone": [phone(person) if person % 3 else "" for person in people],
    }
    if party != "brand":
        columns["age"] = [18 + person for person in people]
        columns["colour"] = ["green" if person % 2 else "red" for person in people]
    return pd.DataFrame(columns)


def consents(party: str, *, without: Sequence[int] = ()) -> pd.DataFrame:
    """Everybody consented in 2025; the people `without` withdrew the day before `NOW`."""
    given = [(record(party, person), "given", "2025-06-01T00:00:00Z") for person in PEOPLE[party]]
    gone = [(record(party, person), "withdrawn", "2026-02-28T00:00:00Z") for person in without]
    book = pd.DataFrame(given + gone, columns=["subject", "event", "time"])
    return book.assign(purpose=PURPOSE)


def terms(**changes: Mapping[str, object]) -> dict[str, Any]:
    """The contract's own terms, each section with its changes."""
    sections: dict[str, dict[str, Any]] = {
        "match": {
            "purpose": PURPOSE,
            "default_region": "US",
            "email_rule": "provider_rules",
            "reveal": "partner-learns-members",
            "minimum_match": 5,
            "set_size_bucket": 10,
        },
        "train": {
            "purpose": PURPOSE,
            "models": ["logistic-regression"],
            "epsilon": 1.0,
            "delta": 1e-5,
            "max_parties_per_person": 2,
            "clipping_norm": 1.0,
            "max_steps": 100,
            "max_rounds": 5,
        },
        "expand": {"purpose": PURPOSE, "maximum_share": 0.5, "minimum_segment": 3},
        "budget": {"epsilon": 1.2, "delta": 1e-5},
    }
    return {
        "title": "A small trial",
        "purposes": [PURPOSE, "newsletter"],
        "valid_from": datetime(2026, 1, 1, tzinfo=UTC),
        "valid_until": datetime(2027, 1, 1, tzinfo=UTC),
        "features": [
            {"name": "age", "type": "numeric", "minimum": 18, "maximum": 90},
            {"name": "colour", "type": "categorical", "categories": ["green", "red"]},
        ],
        **{name: section | dict(changes.get(name, {})) for name, section in sections.items()},
        **{
            name: dict(section) if isinstance(section, Mapping) else section
            for name, section in changes.items()
            if name not in sections
        },
    }


def collaboration(*, unsafe_seed: int | None = None, **changes: Mapping[str, object]) -> Any:
    """The collaboration; files are looked for beside wherever it is said to lie."""

    def party(name: str, role: Role) -> dict[str, Any]:
        if role is Role.COORDINATOR:
            return {"name": name, "role": role}
        identifiers = {"email": "email", "phone": "phone"}
        data = {"path": f"{name}.csv", "key": "record", "identifiers": identifiers}
        consent = f"{name}-consents.csv"
        return {"name": name, "role": role, "declared_rows": 50, "data": data, "consent": consent}

    return Collaboration.model_validate(
        {
            "version": 1,
            "name": "trial",
            "unsafe_seed": unsafe_seed,
            "parties": [party(name, role) for name, role in ROLES.items()],
            "agreement": terms(**changes),
            "jobs": [spec.model_dump() for spec in JOBS],
        }
    )


@dataclass(frozen=True)
class Parties:
    """Everybody's keys and the contract: seals whatever anybody might want to say."""

    agreement: Agreement
    keys: Mapping[str, SigningKey]
    decryption_keys: Mapping[str, DecryptionKey]

    @classmethod
    def in_memory(cls, **changes: Mapping[str, object]) -> "Parties":
        def key(use: str, name: str) -> SigningKey:
            return SigningKey.from_seed(seeded_secret(1, f"{use}/{name}"))

        keys = {name: key("identity", name) for name in ROLES}
        decryption_keys = {
            name: DecryptionKey(seeded_secret(1, f"encryption/{name}"))
            for name, role in ROLES.items()
            if role in DATA_ROLES
        }
        named = [
            PartyTerm(
                name=name,
                role=role,
                identity_key=keys[name].public.to_base64(),
                log_key=NoteKey(f"comity/{name}", key("log", name).public).to_string(),
                encryption_key=(
                    decryption_keys[name].public.to_base64() if role in DATA_ROLES else None
                ),
            )
            for name, role in ROLES.items()
        ]
        return cls(build_agreement(collaboration(**changes), named), keys, decryption_keys)

    def seal(
        self,
        sender: str,
        recipient: str,
        job: str,
        body: Body | Encrypted,
        payload: bytes = b"",
        *,
        answers: str | None = None,
        changes: Mapping[str, object] | None = None,
        in_clear: bool = False,
    ) -> SealedMessage:
        """Seal a message, with any changes of its header made before it is signed.

        What its route says is encrypted to the recipient, unless `in_clear`.
        """
        header = Header(
            agreement=self.agreement.digest,
            job=job,
            sender=sender,
            recipient=recipient,
            answers=answers,
            body=body,
            payload_digest=content_digest(payload),
            payload_bytes=len(payload),
        )
        in_clear |= isinstance(body, Encrypted) or not ROUTES[body.kind].encrypted
        if not in_clear and recipient in self.decryption_keys:
            header, payload = encrypt(header, payload, self.agreement)
        content = header.model_dump(mode="json") | dict(changes or {})
        return self.sign(sender, json.dumps(content).encode(), payload)

    def sign(self, sender: str, content: bytes, payload: bytes = b"") -> SealedMessage:
        """Sign any bytes as a header."""
        envelope = Envelope.sign(HEADER_TYPE, content, {sender: self.keys[sender]})
        return SealedMessage(envelope.to_json(), payload)

    def message(self, *arguments: Any, **fields: Any) -> Message:
        """Seal a message, and have it verified and read by its recipient."""
        return self.read(self.seal(*arguments, **fields))

    def read(self, sealed: SealedMessage) -> Message:
        """Verify a message, and read it as its recipient does."""
        message = unseal(sealed, self.agreement)
        key = self.decryption_keys.get(message.header.recipient)
        return decrypt(message, key) if key is not None else message


Listener = Callable[[str, SealedMessage, SealedMessage], SealedMessage]
"""Gets (party, question, answer), returns the answer to pass on."""


@dataclass
class World:
    """Four folders on disk, and a coordinator's channel that calls their nodes directly."""

    workspace: Workspace
    now: datetime = NOW
    wire: list[SealedMessage] = field(default_factory=list)
    listener: Listener = lambda _, __, answer: answer
    unreachable: set[str] = field(default_factory=set)
    """Parties whose nodes give no answer."""
    away: set[str] = field(default_factory=set)
    """Parties whose nodes are not connected."""
    outdated: dict[str, str] = field(default_factory=dict)
    """Parties whose nodes take no run of this version, and the version that they run."""

    @classmethod
    def make(
        cls, path: Path, *, unsafe_seed: int | None = None, **changes: Mapping[str, object]
    ) -> "World":
        path.mkdir(parents=True, exist_ok=True)
        for name in PEOPLE:
            table(name).to_csv(path / f"{name}.csv", index=False)
            consents(name).to_csv(path / f"{name}-consents.csv", index=False)
        document = collaboration(unsafe_seed=unsafe_seed, **changes)
        return cls(prepare_workspace(document, path / "trial.toml", path / "workspace"))

    def copy(self, path: Path) -> "World":
        """The same world, elsewhere."""
        shutil.copytree(self.workspace.path, path)
        folders = tuple(PartyFolder(path / folder.name) for folder in self.workspace.folders)
        return World(Workspace(path, self.workspace.agreement, folders), self.now)

    def apart(self, path: Path) -> "World":
        """The same world, elsewhere, whose tables and consents are its own too."""
        copied = self.copy(path)
        for name in PEOPLE:
            config = path / name / "party.json"
            for file in (self.table(name), self.consents(name)):
                shutil.copy(file, path.parent / file.name)
                moved = config.read_text().replace(str(file.parent), str(path.parent))
                config.write_text(moved)
        folders = tuple(PartyFolder(folder.path) for folder in copied.workspace.folders)
        return World(replace(copied.workspace, folders=folders), self.now)

    @property
    def agreement(self) -> Agreement:
        return self.workspace.agreement

    @property
    def parties(self) -> Parties:
        keys = {folder.name: folder.identity_key() for folder in self.workspace.folders}
        decryption_keys = {folder.name: folder.decryption_key() for folder in self.workspace.people}
        return Parties(self.agreement, keys, decryption_keys)

    def read(self, sealed: SealedMessage) -> Message:
        """Verify a message, and read it as its recipient does."""
        message = unseal(sealed, self.agreement)
        if all(folder.name != message.header.recipient for folder in self.workspace.people):
            return message
        return decrypt(message, self.folder(message.header.recipient).decryption_key())

    def folder(self, name: str) -> PartyFolder:
        return next(folder for folder in self.workspace.folders if folder.name == name)

    def clock(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now

    def node(self, name: str) -> Node:
        return Node.open(self.folder(name).path, clock=self.clock)

    def handle(self, name: str, message: SealedMessage) -> SealedMessage:
        """Have a party's node answer."""
        return self.node(name).handle(message).message

    def ask(self, name: str, message: SealedMessage) -> Message:
        """Have a party's node answer, and read the answer as its recipient does."""
        return self.read(self.handle(name, message))

    def run(self) -> None:
        """Have the coordinator run all jobs."""
        coordinator = Coordinator.open(self.folder("coordinator").path, clock=self.clock)
        coordinator.run(self)

    def nodes(self, at_least: int, **patience: float) -> Sequence[int]:
        return [node for node, name in enumerate(PEOPLE) if name not in self.away]

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        names = list(PEOPLE)
        answers: list[SealedMessage | None] = []
        for parcel in parcels:
            name = names[parcel.node]
            if name in self.outdated:
                error = other_bundle(parcel.addressee, f"{name} runs Comity {self.outdated[name]}")
                if parcel.on_version is None:
                    raise error
                parcel.on_version(error)
                answers.append(None)
                continue
            if name in self.unreachable:
                if most_missing == 0:
                    raise PartyUnreachableError(f"no answer from {name}")
                most_missing -= 1
                answers.append(None)
                continue
            answer = self.handle(name, parcel.message)
            self.wire += [parcel.message, answer]
            answers.append(self.listener(name, parcel.message, answer))
        return answers

    def table(self, party: str) -> Path:
        """File of a party's people."""
        folder = self.folder(party)
        return folder.resolve(folder.config.data.path)

    def consents(self, party: str) -> Path:
        """File of a party's consents."""
        folder = self.folder(party)
        return folder.resolve(folder.config.consent)

    def withdraw(self, party: str, people: Sequence[int]) -> None:
        """Have people of a party withdraw their consent, as of the day before `NOW`."""
        consents(party, without=people).to_csv(self.consents(party), index=False)

    def leaves(self, name: str) -> tuple[Record, ...]:
        """A party's log, verified."""
        return verify_party(self.folder(name).path).leaves

    def statement(self, name: str) -> Statement:
        """A party's budget."""
        budget = Budget(self.agreement.budget.epsilon, self.agreement.accounted_delta)
        path = self.folder(name).ledger
        return Ledger.open(path, agreement=self.agreement.lineage, budget=budget).statement()

    def spent(self, name: str) -> Statement:
        """A party's budget, whenever its charges came to stand where they are."""
        statement = self.statement(name)
        charges = (replace(one, since=NOW) for one in statement.charges)
        return replace(statement, charges=tuple(charges))

    def outbox(self, name: str) -> Mapping[str, bytes]:
        """Everything that a party keeps for repetition, by file name."""
        found = self.folder(name).outbox
        return {path.name: path.read_bytes() for path in sorted(found.glob("*"))}

    def members(self, name: str) -> np.ndarray:
        """Record references that a party's match found."""
        return self.listed(name, "find/members.npz")

    def listed(self, name: str, file: str) -> np.ndarray:
        """Record references that a file of members under `jobs` lists, in its order."""
        path = self.folder(name).job(file)
        people = load_people(self.folder(name).job(file.partition("/")[0]) / "people")
        return np.asarray(Members.load(path, people).references().to_numpy(zero_copy_only=False))
