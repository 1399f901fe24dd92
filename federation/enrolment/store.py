"""The coordinator's register on disk, and what follows from it there.

```
FOLDER/enrolment/register.json    who was invited, has joined, has signed: public halves alone
FOLDER/nodes/NAME.pub             key of a party's node, by which the SuperLink knows it
FOLDER/party/                     the coordinator's own folder as a party
```

Guarantees: requests are handled one at a time, whoever brings them (a listener, an operator's
command); a crash leaves the register before or after a request, never between, and the request
again does what was left undone. Answering requests needs no key.

Leaves to others: what is admitted (`register`), certificate and address (the coordinator's).
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from compliance.agreement import SignedAgreement
from compliance.draft import Draft
from compliance.errors import InvalidAgreementError, describe
from compliance.terms import Role
from federation.clock import Clock, utc_now
from federation.enrolment.invitation import Invitation
from federation.enrolment.joining import sign_submission
from federation.enrolment.register import Register
from federation.enrolment.registration import Registration
from federation.enrolment.request import Standing, read_request
from federation.errors import EnrolmentError, WorkspaceError
from federation.party import PartyConfig, PartyFolder, write_atomically
from privacy.randomness import new_secret

if TYPE_CHECKING:
    from federation.collaboration import Collaboration

__all__ = ["EnrolmentStore"]


class EnrolmentStore:
    """What a coordinator keeps of who joins, in its state folder.

    Args:
        folder: the coordinator's state folder.
        clock: the present moment.
    """

    def __init__(self, folder: Path, *, clock: Clock = utc_now) -> None:
        self._folder = folder
        self._file = folder / "enrolment" / "register.json"
        self._clock = clock

    @property
    def party(self) -> Path:
        """The coordinator's own folder as a party."""
        return self._folder / "party"

    def begin(self, collaboration: "Collaboration") -> None:
        """Draw up the draft, and make the coordinator's own keys; again changes nothing.

        Raises:
            EnrolmentError: the file has an unsafe seed, or other terms than those begun with.
        """
        from federation.collaboration import drafted_agreement
        from federation.coordinator import write_jobs

        if collaboration.unsafe_seed is not None:
            raise EnrolmentError(
                "the collaboration file has an unsafe_seed, which is for trials on one machine: "
                "remove it"
            )
        draft = Draft.of(drafted_agreement(collaboration))
        (coordinator,) = collaboration.by_role(Role.COORDINATOR)
        with self._held():
            if self._file.exists() and self.read().terms != draft:
                raise EnrolmentError(
                    f"parties were invited to other terms ({self.read().terms.digest}): go on with "
                    "those, or begin anew in another folder"
                )
            config = PartyConfig(name=coordinator.name, role=Role.COORDINATOR)
            folder = PartyFolder.create(self.party, config)
            if not self._file.exists():
                write_jobs(folder, collaboration.jobs)
                term = folder.term()
                self._write(Register(draft=draft.canonical_bytes.decode(), coordinator=term))

    def invite(
        self, party: str, *, address: str, certificate: str, lifetime: timedelta, replacing: bool
    ) -> bytes:
        """Invite a party; an earlier invitation to it ends.

        Args:
            party: its name in the draft.
            address: host:port of the public listener.
            certificate: of the authority that vouches for it, PEM.
            lifetime: after which it is too late to register.
            replacing: drop the keys with which it has joined, as long as not all have.

        Returns:
            The file to give to the party; it holds a secret, which is kept nowhere else.

        Raises:
            EnrolmentError: it cannot be invited; says why.
            WorkspaceError: there is no register yet, or no such party in the draft.
        """
        now = self._clock()
        with self._held():
            register = self.read()
            own = register.coordinator.name
            names = [one.name for one in register.terms.parties if one.name != own]
            if party not in names:
                raise WorkspaceError(
                    f"{party!r} is no party of the draft to invite: expected {' or '.join(names)}"
                )
            invitation = Invitation.issue(
                party,
                address=address,
                certificate=certificate,
                coordinator=register.coordinator,
                draft=register.terms,
                token=new_secret(),
                issued=now,
                expires=now + lifetime,
            )
            changed = register.invite(invitation, replacing=replacing)
            if changed.admitted != register.admitted:
                self._node(party).unlink(missing_ok=True)
            self._write(changed)
        return invitation.sign(PartyFolder(self.party).identity_key())

    def answer(self, request: bytes) -> bytes:
        """Answer a party's request, as it came from whatever carries it.

        1. Read it.
        2. Admit or sign.
        3. The node's key of who is new is put where the SuperLink's launcher looks for it; if an
           operator removes it there, it stays away. Then the register is written.
        4. An agreement that all have signed becomes the coordinator's.

        Raises:
            EnrolmentError: it was refused; says why.
            WorkspaceError: nobody was invited here.
        """
        asked = read_request(request)  # 1
        with self._held():
            before = self.read()
            if isinstance(asked, Registration):  # 2
                now, challenge = self._clock(), new_secret()
                register = before.admit(asked, now=now, challenge=challenge)
                name = asked.unverified().party.name
            else:
                register, name = before.sign(asked), asked.signature.keyid
            if register != before:  # 3
                if isinstance(asked, Registration):
                    self._register_node(asked)
                self._write(register)
            self._adopt(register.agreement)  # 4
            return register.standing(name).model_dump_json().encode()

    def standing(self) -> Standing:
        """Return what the coordinator itself is told."""
        register = self.read()
        return register.standing(register.coordinator.name)

    def check_signed(self) -> None:
        """Return only if all have joined and signed, or nobody was invited here.

        Raises:
            WorkspaceError: somebody has yet to; says who.
        """
        if not self._file.exists():
            return
        standing = self.standing()
        if standing.missing:
            raise WorkspaceError(f"not joined yet by {', '.join(standing.missing)}: all sign after")
        if standing.unsigned:
            raise WorkspaceError(
                f"not signed yet by {', '.join(standing.unsigned)}: each runs "
                "`comity party sign FOLDER`"
            )

    def sign(self, accepted: str) -> None:
        """Sign the agreement as the coordinator.

        Args:
            accepted: digest of the agreement, keys and all, as somebody compared and accepted it.

        Raises:
            EnrolmentError: not all have joined, or another agreement was accepted.
        """
        standing = self.standing()
        signed = standing.signed
        if signed is None:
            missing = ", ".join(standing.missing)
            raise EnrolmentError(f"{missing} have yet to join: sign once all have")
        file = self._folder / "enrolment" / "agreement.json"
        write_atomically(file, signed.to_json())
        submission = sign_submission(PartyFolder(self.party), file, accepted)
        self.answer(submission.model_dump_json().encode())

    def read(self) -> Register:
        """Return the register.

        Raises:
            WorkspaceError: there is none, or it is damaged.
        """
        try:
            return Register.model_validate_json(self._file.read_bytes())
        except FileNotFoundError as error:
            raise WorkspaceError(
                f"nobody was invited in {self._folder}: begin with `comity party invite NAME "
                f"--coordinator {self._folder} --terms FILE`"
            ) from error
        except ValidationError as error:
            raise WorkspaceError(f"{self._file}: is damaged: {describe(error)}") from error

    def _write(self, register: Register) -> None:
        write_atomically(self._file, register.model_dump_json().encode(), mode=_OWNER_ONLY)

    def _node(self, party: str) -> Path:
        return self._folder / "nodes" / f"{party}.pub"

    def _register_node(self, asked: Registration) -> None:
        statement = asked.unverified()
        if statement.node_key is not None:
            place = self._node(statement.party.name)
            write_atomically(place, f"{statement.node_key}\n".encode())

    def _adopt(self, signed: SignedAgreement | None) -> None:
        place = self.party / "agreement.json"
        if signed is None or place.exists():
            return
        try:
            signed.verify()
        except InvalidAgreementError:  # somebody has yet to sign
            return
        write_atomically(place, signed.to_json())

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the register for this thread; others, in any process, wait their turn."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with (self._file.parent / "lock").open("w", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


_OWNER_ONLY: Final = 0o600
