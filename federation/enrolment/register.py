"""Who was invited, who has joined with which keys, who has signed: the coordinator's side.

```
 party                                        coordinator
   ◄──────────── invitation (a file) ──────────  invite: keeps the token's public half
 registration ──────────────────────────────►    admit: 1 token · 2 time · 3 once · 4 draft · 5 keys
   ◄──────── standing: who is missing ─────────
 registration, again ───────────────────────►
   ◄── standing: agreement with all keys, a challenge sealed to the encryption key
 signature, and the challenge opened ───────►    sign: 1 all, signature · 2 challenge
   ◄──────── standing: who has signed ─────────
```

Guarantees: nothing is admitted but by who holds an invitation's token, in time, once: a name that
is taken keeps its keys; the agreement is the draft with the keys that were admitted, and no party's
signature enters it before that party showed that it can open what is encrypted to it. Each method
returns a new register, or raises and changes nothing; the same request twice is the same as once.
It needs no secret of the coordinator's.

Leaves to others: how requests are spelt (`request`), disk (`store`), transport (`app`, `exchange`),
entropy, clock, and the question whether the keys are those of the organisation that a name stands
for: people compare them.
"""

import hashlib
import hmac
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import Field

from compliance.agreement import Agreement, SignedAgreement, iso
from compliance.draft import Draft
from compliance.errors import ComplianceError, InvalidAgreementError
from compliance.signing import Envelope, Signature, VerifyingKey, decode_base64, encode_base64
from compliance.terms import Digest, Moment, Name, PartyTerm, Terms
from federation.enrolment.invitation import Invitation
from federation.enrolment.registration import Registration, Statement
from federation.enrolment.request import Base64, Standing, Submission
from federation.errors import EnrolmentError
from privacy.encryption import EncryptionKey
from privacy.errors import InvalidParameterError
from privacy.randomness import SECRET_BYTES, Secret

__all__ = ["Register", "challenge_context"]

_UNKNOWN: Final = (
    "the coordinator knows no such invitation: it was replaced by another, or is another "
    "coordinator's; ask for a new one"
)
_UNSIGNED: Final = (
    "it is no party's signature under the agreement that this coordinator has drawn up, if all "
    "have joined: run `comity party fetch`, compare the keys in both, and tell the coordinator "
    "where they differ"
)


class Invited(Terms):
    """What a coordinator keeps of an invitation: nothing by which anybody could join."""

    party: Name
    invitation: Digest
    token_key: Annotated[str, Field(max_length=44)]
    expires: Moment


class Admitted(Terms):
    """A party that has joined.

    Attributes:
        registration: as it came.
        challenge: sealed to its encryption key, where it has one.
        answer_digest: SHA-256 of what was sealed.
    """

    registration: Registration
    challenge: Base64 | None = None
    answer_digest: Digest | None = None

    @property
    def statement(self) -> Statement:
        """What the party said of itself."""
        return self.registration.unverified()


class Register(Terms):
    """All that a coordinator knows of who joins; frozen.

    Attributes:
        version: of this format.
        draft: the terms, in their canonical spelling.
        coordinator: the coordinator as the agreement names it.
        invited, admitted: by party, one each.
        signatures: under the agreement, in the order of signing.
    """

    version: Literal[1] = 1
    draft: str
    coordinator: PartyTerm
    invited: tuple[Invited, ...] = ()
    admitted: tuple[Admitted, ...] = ()
    signatures: tuple[Signature, ...] = ()

    @property
    def terms(self) -> Draft:
        """The draft that `draft` spells."""
        return Draft.from_canonical_bytes(self.draft.encode())

    @property
    def missing(self) -> tuple[str, ...]:
        """Who has yet to join, in the draft's order."""
        there = {self.coordinator.name, *(one.statement.party.name for one in self.admitted)}
        return tuple(one.name for one in self.terms.parties if one.name not in there)

    @property
    def agreement(self) -> SignedAgreement | None:
        """The agreement with the signatures so far, once all have joined."""
        if self.missing:
            return None
        envelope = SignedAgreement.draft(self._drawn_up()).envelope
        return SignedAgreement(envelope.model_copy(update={"signatures": self.signatures}))

    def invite(self, invitation: Invitation, *, replacing: bool = False) -> Self:
        """Know an invitation, in the place of an earlier one to the same party.

        Args:
            invitation: freshly issued.
            replacing: drop the keys with which the party has joined, as long as not all have.

        Raises:
            EnrolmentError: it is of other terms; or the party has joined, and is not to be
                replaced, or all have.
        """
        name = invitation.party
        if invitation.terms != self.terms or invitation.coordinator != self.coordinator:
            raise EnrolmentError("the invitation is of other terms, or another coordinator's")
        if self._admitted(name) is not None:
            if not self.missing:
                raise EnrolmentError(
                    f"all have joined, {name} too, and may have signed: begin anew, in another "
                    "folder"
                )
            if not replacing:
                raise EnrolmentError(
                    f"{name} has joined: nothing is to be done. If its keys are lost, ask it, and "
                    "invite it with --replace"
                )
        known = Invited(
            party=name,
            invitation=invitation.digest,
            token_key=invitation.token_key.public.to_base64(),
            expires=invitation.expires,
        )
        return self.model_copy(
            update={
                "invited": (*(one for one in self.invited if one.party != name), known),
                "admitted": tuple(one for one in self.admitted if one.statement.party.name != name),
            }
        )

    def admit(self, registration: Registration, *, now: datetime, challenge: Secret) -> Self:
        """Admit a party with its keys; the same statement again changes nothing.

        1. The token of a known invitation was used for this statement.
        2. It has not expired, or had not when the party joined.
        3. Nobody has joined in this name with other keys.
        4. The statement is the invited party's, and of this draft.
        5. Every key is proved, and nobody else's.

        Args:
            registration: as it came.
            now: by the coordinator's clock.
            challenge: fresh; what the party is to open with its encryption key.

        Raises:
            EnrolmentError: at the first step that fails.
        """
        statement = registration.unverified()
        invited = self._invited(registration, statement)  # 1
        joined = self._admitted(invited.party)
        if joined is not None:
            if joined.registration.statement == registration.statement:
                return self
            raise EnrolmentError(  # 3
                f"{invited.party} has joined with other keys: use the folder that it joined with. "
                "If that was somebody else, tell the coordinator at once"
            )
        if now >= invited.expires:  # 2
            raise EnrolmentError(
                f"the invitation of {invited.party} expired at {iso(invited.expires)}: ask the "
                "coordinator for a new one"
            )
        draft, party = self.terms, statement.party
        if statement.draft != draft.digest:  # 4
            raise EnrolmentError(
                f"{party.name} accepted draft {statement.draft}, not {draft.digest}"
            )
        if party.name != invited.party or draft.party(party.name).role is not party.role:
            raise EnrolmentError(
                f"the invitation is for {invited.party}, a {draft.party(invited.party).role}, and "
                f"not for {party.name}, a {party.role}"
            )
        self._check_keys(registration.verify())  # 5
        return self.model_copy(
            update={"admitted": (*self.admitted, _with_challenge(registration, party, challenge))}
        )

    def sign(self, submission: Submission) -> Self:
        """Add a party's signature; the same again changes nothing.

        1. All have joined, and it is a party's under this agreement: nobody else learns anything.
        2. The party has opened the challenge, where there is one.

        Raises:
            EnrolmentError: at the first step that fails.
        """
        if self.missing:  # 1
            raise EnrolmentError(_UNSIGNED)
        _check_signature(self._drawn_up(), submission)
        signature, name = submission.signature, submission.signature.keyid
        joined = self._admitted(name)
        if joined is not None and joined.answer_digest is not None:  # 2
            answer = hashlib.sha256(decode_base64(submission.answer or "")).hexdigest()
            if not hmac.compare_digest(answer, joined.answer_digest):
                raise EnrolmentError(
                    f"{name} has not opened what was encrypted to it: have it run "
                    "`comity party fetch`, and sign after that"
                )
        if name in {one.keyid for one in self.signatures}:
            return self
        return self.model_copy(update={"signatures": (*self.signatures, signature)})

    def standing(self, party: str) -> Standing:
        """Return what a party that has joined is told."""
        agreement, joined = self.agreement, self._admitted(party)
        if agreement is None:
            return Standing(missing=self.missing)
        return Standing(
            agreement=agreement.to_json().decode(),
            challenge=None if joined is None else joined.challenge,
        )

    def _drawn_up(self) -> Agreement:
        found = {one.statement.party.name: one.statement.party for one in self.admitted}
        found[self.coordinator.name] = self.coordinator
        return self.terms.with_parties(found[one.name] for one in self.terms.parties)

    def _invited(self, registration: Registration, statement: Statement) -> Invited:
        for one in self.invited:
            if one.invitation == statement.invitation:
                registration.check_token(VerifyingKey.from_base64(one.token_key))
                return one
        raise EnrolmentError(_UNKNOWN)

    def _admitted(self, party: str) -> Admitted | None:
        found = (one for one in self.admitted if one.statement.party.name == party)
        return next(found, None)

    def _check_keys(self, statement: Statement) -> None:
        others = [one.statement for one in self.admitted]
        try:
            known = (self.coordinator, *(one.party for one in others), statement.party)
            self.terms.for_reading(known)
        except InvalidAgreementError as error:
            raise EnrolmentError(f"{statement.party.name} cannot join so: {error}") from error
        if statement.node_key is not None and statement.node_key in {o.node_key for o in others}:
            raise EnrolmentError(f"{statement.party.name}: its node key is another party's")


def challenge_context(registration: Registration) -> bytes:
    """Return the context in which the challenge to who registered is sealed."""
    return b"comity enrolment challenge " + registration.digest.encode()


def _with_challenge(registration: Registration, party: PartyTerm, challenge: Secret) -> Admitted:
    if party.encryption_key is None:
        return Admitted(registration=registration)
    if len(challenge) != SECRET_BYTES:
        raise RuntimeError(f"expected a challenge of {SECRET_BYTES} bytes")
    try:
        key = EncryptionKey.from_base64(party.encryption_key)
    except InvalidParameterError as error:
        raise EnrolmentError(f"{party.name}: {error}") from error
    sealed = key.seal(challenge, challenge_context(registration))
    return Admitted(
        registration=registration,
        challenge=encode_base64(sealed),
        answer_digest=hashlib.sha256(challenge).hexdigest(),
    )


def _check_signature(agreement: Agreement, submission: Submission) -> None:
    if submission.agreement != agreement.digest:
        raise EnrolmentError(_UNSIGNED)
    envelope = SignedAgreement.draft(agreement).envelope
    try:
        content = envelope.model_copy(update={"signatures": (submission.signature,)}).to_json()
        _ = SignedAgreement(Envelope.from_json(content)).signed_by
    except ComplianceError as error:
        raise EnrolmentError(_UNSIGNED) from error
