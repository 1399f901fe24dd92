"""A coordinator and the parties that it invites, each in a folder of its own, for tests."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from trials import document, save, write_tables

from federation.collaboration import load_collaboration
from federation.enrolment.joining import Membership, join, open_invitation
from federation.enrolment.means import load_means
from federation.enrolment.request import Standing
from federation.enrolment.store import EnrolmentStore
from federation.operations.folder import CoordinatorConfig, CoordinatorFolder

WEEK = timedelta(days=7)
INVITED = ("brand", "retailer", "courier")


def write_terms(directory: Path, **changes: Any) -> Path:
    """The terms as an operator writes them, who has no data."""
    content = document(**changes)
    del content["unsafe_seed"]
    del content["evaluate"]
    directory.mkdir(parents=True, exist_ok=True)
    return save(content, directory / "terms.toml")


def write_means(directory: Path, name: str, **changes: Any) -> Path:
    """A party's own file, beside its tables."""
    content: dict[str, Any] = {
        "consent": f"{name}-consents.csv",
        "data": {
            "path": f"{name}.csv",
            "key": "record",
            "identifiers": {"email": "email", "phone": "phone"},
        },
    }
    return save(content | changes, directory / f"{name}.toml")


@dataclass
class Enrolment:
    """A coordinator, and what it needs to invite parties."""

    directory: Path
    address: str = "127.0.0.1:9091"
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        config = CoordinatorConfig.for_address(
            self.address, listen=self.address, control="127.0.0.1:1"
        )
        self.folder = CoordinatorFolder.init(self.directory / "coordinator", config, now=self.now)
        self.store = EnrolmentStore(self.folder.path, clock=lambda: self.now)
        terms = write_terms(self.directory)
        self.store.begin(load_collaboration(terms, elsewhere=True))

    def invite(self, name: str, *, replacing: bool = False, file: str | None = None) -> Path:
        content = self.store.invite(
            name,
            address=self.address,
            certificate=self.folder.ca_certificate.read_text(),
            lifetime=WEEK,
            replacing=replacing,
        )
        path = self.directory / (file or f"{name}.invitation")
        path.write_bytes(content)
        return path

    def join(
        self, name: str, *, folder: str | None = None, invitation: Path | None = None
    ) -> Membership:
        """Have a party accept an invitation in its own folder; nothing is sent yet."""
        file = invitation or self.invite(name)
        accepted = open_invitation(file).terms.digest
        path = self.directory / (folder or name)
        return join(file, path, accepted=accepted, means=None, now=self.now)

    def joined(self) -> Mapping[str, Membership]:
        """Have all parties join; everybody has seen the agreement."""
        members = {name: self.join(name) for name in INVITED}
        for member in members.values():
            self.store.answer(member.registration)
        for member in members.values():
            self.ask(member)
        return members

    def ask(self, member: Membership) -> Standing:
        """Have a party ask how things stand."""
        return member.take(self.store.answer(member.registration), now=self.now)

    def sign(self, member: Membership) -> Standing:
        """Have a party sign what it has seen."""
        signed = member.seen.signed
        assert signed is not None
        request = member.submission(signed.unverified().digest)
        return member.take(self.store.answer(request.model_dump_json().encode()), now=self.now)

    def signed(self) -> Mapping[str, Membership]:
        """Have all parties join and sign, the coordinator too."""
        members = self.joined()
        for member in members.values():
            self.sign(member)
        signed = self.store.standing().signed
        assert signed is not None
        self.store.sign(signed.unverified().digest)
        return members


def changed(request: bytes, **changes: Any) -> bytes:
    """A request with other members."""
    return json.dumps(json.loads(request) | changes).encode()


def means_of(directory: Path, member_name: str, invitation: Path) -> Any:
    """What a party brings, with its tables written."""
    write_tables(directory)
    return load_means(
        write_means(directory, member_name), open_invitation(invitation).terms, member_name
    )
