"""The party's side of joining: its keys are made in its folder, and never leave it.

```
PARTY/keys/                         identity, log, cosigning, encryption, erasure, node
PARTY/node.toml                     what `comity node up` needs
PARTY/enrolment/invitation.json     the invitation that was accepted
PARTY/enrolment/ca.pem              the authority that vouches for the coordinator
PARTY/enrolment/registration.json   what was said to it
PARTY/enrolment/agreement.json      the agreement as it was first seen, with signatures so far
PARTY/enrolment/challenge           sealed; opened when the party signs
```

Guarantees: nothing is made before the terms were accepted; keys are made once, so that a join that
was cut anywhere goes on with the same; what leaves is public halves, proofs and signatures. What a
coordinator answers is used only if it is the accepted draft, names this party's own keys and the
invitation's coordinator, and is the agreement that was seen before: keys that change are seen.

Leaves to others: showing people terms and fingerprints (`commands`), and their comparing them: that
other parties' keys are theirs is nothing a coordinator could prove.
"""

from datetime import datetime
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

from compliance.agreement import Agreement, iso
from compliance.log.verifier import read_regular
from compliance.signing import ENVELOPE_LIMIT, decode_base64, encode_base64
from compliance.terms import DATA_ROLES, PartyTerm
from federation import adoption
from federation.enrolment.invitation import Invitation
from federation.enrolment.register import challenge_context
from federation.enrolment.registration import (
    PartyKeys,
    Registration,
    Statement,
    spell_node_key,
)
from federation.enrolment.request import Standing, Submission, read_request
from federation.errors import EnrolmentError, WorkspaceError
from federation.party import PartyConfig, PartyFolder, copied, read_agreement, write_atomically
from privacy.errors import PeerMessageError
from privacy.randomness import SecretStream

__all__ = ["Membership", "join", "open_invitation", "sign_submission"]

_EXTRA_BYTES: Final = 48  # 128 bits more than the order has: FIPS 186-5, A.2.1


def open_invitation(file: Path) -> Invitation:
    """Read and verify an invitation.

    Raises:
        WorkspaceError: there is no such file.
        EnrolmentError: it is none, or altered.
    """
    try:
        return Invitation.open(read_regular(file, ENVELOPE_LIMIT + 1))
    except OSError as error:
        raise WorkspaceError(f"{file} cannot be read ({error.strerror}): name another") from error


def join(
    file: Path, path: Path, *, accepted: str, means: PartyConfig | None, now: datetime
) -> "Membership":
    """Make a party's folder and keys, and what it says to the coordinator; again goes on.

    1. The invitation holds, its terms are those that were accepted, and it has not expired, or was
       used in time.
    2. The folder is this party's, and under no other invitation's terms.
    3. All keys are made.
    4. What the invitation says is kept, and what a node needs.
    5. The registration is made, unless the same was.

    Args:
        file: the invitation.
        path: the party's folder, to be made or gone on with.
        accepted: digest of the draft, as somebody read and accepted it.
        means: where its people lie; as before, or nowhere yet, where left out.
        now: by the party's clock.

    Raises:
        EnrolmentError: step 1 or 2 fails.
        WorkspaceError: the folder is another party's, or a key in it is damaged.
    """
    invitation, path = open_invitation(file), path.resolve()  # 1
    place = path / "enrolment"
    before = (place / "invitation.json").exists()
    in_time = (before and (place / "registration.json").exists()) or now < invitation.expires
    _check_accepted(invitation, accepted, in_time=in_time)
    if before:  # 2
        _check_same(_accepted(PartyFolder(path)), invitation, path)
    folder = _prepare(path, invitation, means)
    term = folder.term()  # 3
    folder.erasure_key()
    node = _node_key(folder) if term.role in DATA_ROLES else None
    write_atomically(place / "ca.pem", invitation.certificate.encode())  # 4
    if node is not None:
        write_atomically(path / "node.toml", _node_file(invitation))
    folder.keep_secret(place / "invitation.json", read_regular(file, ENVELOPE_LIMIT + 1))
    statement = Statement(  # 5
        invitation=invitation.digest,
        draft=accepted,
        party=term,
        node_key=None if node is None else spell_node_key(node.public_key()),
    )
    kept = place / "registration.json"
    if not kept.exists() or _registration(kept).statement.encode() != statement.canonical_bytes:
        keys = PartyKeys(
            identity=folder.identity_key(),
            log=folder.log_key(),
            cosigning=folder.cosigning_key(),
            node=node,
            token=invitation.token_key,
        )
        write_atomically(kept, Registration.make(statement, keys).model_dump_json().encode())
    copied(folder)  # nobody hears of keys that could be lost
    return Membership(folder, invitation)


def _check_accepted(invitation: Invitation, accepted: str, *, in_time: bool) -> None:
    if accepted != invitation.terms.digest:
        raise EnrolmentError(
            f"the terms have digest {invitation.terms.digest}, and {accepted} was accepted: read "
            "them, and accept those"
        )
    if not in_time:
        raise EnrolmentError(
            f"the invitation expired at {iso(invitation.expires)}: ask the coordinator for another"
        )


class Membership:
    """A party that has accepted an invitation, in its folder."""

    def __init__(self, folder: PartyFolder, invitation: Invitation) -> None:
        self.folder = folder
        self.invitation = invitation
        self._place = folder.path / "enrolment"
        self._agreement = self._place / "agreement.json"
        self._challenge = self._place / "challenge"

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of a party that has joined.

        Raises:
            WorkspaceError: it has not, or the folder is none.
            EnrolmentError: what is kept there was altered.
        """
        folder = PartyFolder(path)
        if not (folder.path / "enrolment" / "registration.json").exists():
            raise WorkspaceError(
                f"{folder.path} has not joined: run `comity party join INVITATION --folder "
                f"{folder.path}`"
            )
        return cls(folder, _accepted(folder))

    @property
    def registration(self) -> bytes:
        """What the party says of itself; asked again, it also asks how things stand."""
        return (self._place / "registration.json").read_bytes()

    @property
    def seen(self) -> Standing:
        """How things stood when the coordinator was last asked; nobody is missing by name."""
        if not self._agreement.exists():
            return Standing()
        return Standing(agreement=read_agreement(self._agreement).to_json().decode())

    def take(self, answer: bytes, *, now: datetime) -> Standing:
        """Check what a coordinator answered, and keep it.

        1. It is an answer; while parties are missing there is nothing to check.
        2. The agreement is the accepted draft, with keys filled in.
        3. This party's keys are its own, and the coordinator's those of the invitation.
        4. It is the agreement that was seen before, if any was.
        5. All signatures in it are valid.
        6. It is kept, with the challenge; once all have signed, the party obeys it.

        Raises:
            EnrolmentError, InvalidAgreementError: at the first step that fails; nothing is kept.
        """
        standing = Standing.from_json(answer)  # 1
        signed, seen = standing.signed, self.seen.signed
        if signed is None:
            if seen is not None:
                raise EnrolmentError(
                    "the coordinator says that parties are missing, and all had joined before: "
                    "ask it what it did"
                )
            return standing
        agreement = signed.unverified()
        self.invitation.terms.check(agreement)  # 2
        self.folder.check_named(agreement, self._agreement)  # 3
        if agreement.party(self.invitation.coordinator.name) != self.invitation.coordinator:
            raise EnrolmentError(
                "the agreement names other keys for the coordinator than the invitation: do not "
                "sign it, and ask the coordinator over another channel"
            )
        if seen is not None and (before := seen.unverified()) != agreement:  # 4
            raise EnrolmentError(
                f"keys of {', '.join(_changed(before, agreement))} are others than this "
                "party saw before: do not sign, and ask those parties over another channel"
            )
        signers = signed.signed_by  # 5
        if standing.challenge is not None:  # 6
            write_atomically(self._challenge, standing.challenge.encode())
        write_atomically(self._agreement, signed.to_json())
        if len(signers) == len(agreement.parties):
            adoption.adopt(self.folder, self._agreement, now=now)
        return standing

    def submission(self, accepted: str) -> Submission:
        """Sign the agreement that was seen, and open the challenge.

        Args:
            accepted: digest of the agreement, keys and all, as somebody compared and accepted it.

        Raises:
            EnrolmentError: none was seen yet, or it is another; or the challenge does not open.
        """
        if not self._agreement.exists():
            raise EnrolmentError(
                f"parties have yet to join: run `comity party fetch {self.folder.path}` until all "
                "have"
            )
        return sign_submission(self.folder, self._agreement, accepted, answer=self._answer())

    def _answer(self) -> str | None:
        if self.folder.config.role not in DATA_ROLES:
            return None
        context = challenge_context(_registration(self._place / "registration.json"))
        try:
            sealed = decode_base64(self._challenge.read_text(encoding="ascii"))
            return encode_base64(self.folder.decryption_key().open(sealed, context))
        except (PeerMessageError, FileNotFoundError, ValueError) as error:
            raise EnrolmentError(
                "the coordinator's challenge is missing, or not sealed to this party's encryption "
                f"key: run `comity party fetch {self.folder.path}`"
            ) from error


def sign_submission(
    folder: PartyFolder, file: Path, accepted: str, *, answer: str | None = None
) -> Submission:
    """Sign an agreement as a party, once somebody accepted it by its digest.

    Raises:
        EnrolmentError: it has another digest.
        WorkspaceError: it names other keys for this party.
    """
    agreement = read_agreement(file).unverified()
    if accepted != agreement.digest:
        raise EnrolmentError(
            f"the agreement has digest {agreement.digest}, and {accepted} was accepted: compare "
            "keys with the other parties again"
        )
    envelope = adoption.sign(folder, file).envelope
    (signature,) = (one for one in envelope.signatures if one.keyid == folder.name)
    return Submission(agreement=agreement.digest, signature=signature, answer=answer)


def _accepted(folder: PartyFolder) -> Invitation:
    """Return the invitation that a party accepted; it holds the token by which it proves that."""
    path = folder.path / "enrolment" / "invitation.json"
    try:
        return Invitation.open(folder.read_secret(path))
    except OSError as error:
        raise WorkspaceError(f"{path} cannot be read ({error.strerror}): restore it") from error


def _check_same(before: Invitation, invitation: Invitation, path: Path) -> None:
    same = ("party", "coordinator", "draft")
    other = [name for name in same if getattr(before, name) != getattr(invitation, name)]
    if other:
        raise EnrolmentError(
            f"{path} has accepted another invitation (it differs in {', '.join(other)}): name "
            "another folder, or use that invitation"
        )


def _prepare(path: Path, invitation: Invitation, means: PartyConfig | None) -> PartyFolder:
    """Make the folder, or open it; what it brings may be told later, as long as nothing runs."""
    file = path / "party.json"
    if file.exists():
        found = PartyFolder(path)
        if (found.name, found.config.role) != (invitation.party, invitation.role):
            raise WorkspaceError(
                f"{file} is that of {found.name}, and {invitation.party} is invited: name another "
                "folder"
            )
        if means is None or means == found.config:
            return found
        if not (path / "agreement.json").exists():
            file.unlink()
    blank = PartyConfig(name=invitation.party, role=invitation.role)
    return PartyFolder.create(path, means or blank)


def _node_key(folder: PartyFolder) -> ec.EllipticCurvePrivateKey:
    """Return the key of the party's node, made at first use (FIPS 186-5, A.2.1)."""
    path = folder.path / "keys" / "node"
    if path.exists():
        try:
            key = load_ssh_private_key(folder.read_secret(path), None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise WorkspaceError(f"{path} is damaged: restore it") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise WorkspaceError(f"{path} holds no key of P-256: restore it")
        return key
    drawn = SecretStream(folder.fresh_secret("node"), "node key").take(_EXTRA_BYTES)
    order = ec.SECP256R1().group_order
    made = ec.derive_private_key(int.from_bytes(drawn) % (order - 1) + 1, ec.SECP256R1())
    content = made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    folder.keep_secret(path, content)
    return made


def _node_file(invitation: Invitation) -> bytes:
    return (
        'party = "."\n'
        f'superlink = "{invitation.address}"\n'
        'root-certificates = "enrolment/ca.pem"\n'
        'auth-supernode-private-key = "keys/node"\n'
    ).encode()


def _registration(file: Path) -> Registration:
    found = read_request(file.read_bytes())
    if not isinstance(found, Registration):
        raise WorkspaceError(f"{file} is damaged: remove it, and join again")
    return found


def _changed(before: Agreement, after: Agreement) -> list[str]:
    def named(agreement: Agreement) -> dict[str, PartyTerm]:
        return {party.name: party for party in agreement.parties}

    ours, theirs = named(before), named(after)
    return [name for name in ours if ours[name] != theirs.get(name)]
