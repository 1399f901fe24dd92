"""What a party says of itself when it joins: its public keys, and proof that each is its own.

```
statement   canonical JSON: invitation, accepted draft, the party's term, its node's key
proofs      identity · log · cosigning · node · token, each over PAE(type, statement)
```

Guarantees: a `Registration` that was verified was made by who holds the secret half of every
signing key in it and the token of the invitation, for this invitation and this draft and no other.
Proofs of one key never pass for anything else that it signs: they are DSSE messages of a type of
their own, and the cosigning key's have a context.

Leaves to others: the encryption key, which signs nothing: who holds it shows so by opening a
challenge (`register`); whether the invitation is known, and in time (`register`).

Sources: DSSE v1.0 (pre-authentication encoding); RFC 4211 §4 (proof of possession).
"""

import hashlib
from collections.abc import Iterator
from typing import Annotated, Final, Literal, Self

import rfc8785
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)
from pydantic import AfterValidator, Field, ValidationError

from compliance.errors import SignatureError, describe
from compliance.log.cosignature import CosigningKey
from compliance.log.note import NoteKey
from compliance.signing import SigningKey, VerifyingKey, decode_base64, encode_base64, pae
from compliance.terms import DATA_ROLES, Digest, PartyTerm, Terms
from federation.errors import EnrolmentError

__all__ = ["REGISTRATION_TYPE", "PartyKeys", "Registration", "Statement", "spell_node_key"]

REGISTRATION_TYPE: Final = "application/vnd.comity.registration+json"
"""Type under which a statement is signed."""


def spell_node_key(key: ec.EllipticCurvePublicKey) -> str:
    """Write a node's public key on one line, as OpenSSH does, without a comment."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _read_node_key(text: str) -> ec.EllipticCurvePublicKey:
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("expected a public key in OpenSSH's format") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("expected a key of P-256")  # noqa: TRY004 -- a validator's error
    return key


def _node_key(text: str) -> str:
    if spell_node_key(_read_node_key(text)) != text:
        raise ValueError("expected a public key on one line, without a comment")
    return text


def _proof(text: str) -> str:
    decode_base64(text)
    return text


Proof = Annotated[str, Field(max_length=3_300), AfterValidator(_proof)]


class Statement(Terms):
    """What a party says of itself.

    Attributes:
        version: of this format.
        invitation: digest of the invitation that it answers.
        draft: digest of the draft that it accepts.
        party: itself, as the agreement is to name it.
        node_key: the key by which the SuperLink is to know its node, P-256, in OpenSSH's spelling;
            of the brand and partners, and of them alone.
    """

    version: Literal[1] = 1
    invitation: Digest
    draft: Digest
    party: PartyTerm
    node_key: Annotated[str, Field(max_length=500), AfterValidator(_node_key)] | None = None

    def _mistakes(self) -> Iterator[str]:
        name, origin = self.party.name, NoteKey.from_string(self.party.log_key).name
        if origin != f"comity/{name}":
            yield f"party.log_key: expected a log called 'comity/{name}', got {origin!r}"
        if self.party.cosigning_key is None:
            yield "party.cosigning_key: is missing"
        if (self.node_key is None) is (self.party.role in DATA_ROLES):
            yield "node_key: expected of the brand and partners, and of nobody else"

    @property
    def canonical_bytes(self) -> bytes:
        """Its one spelling in bytes (RFC 8785)."""
        return rfc8785.dumps(self.model_dump(mode="json"))


class PartyKeys:
    """The secret halves of what a party registers, and the token that it shows."""

    def __init__(
        self,
        *,
        identity: SigningKey,
        log: SigningKey,
        cosigning: CosigningKey,
        node: ec.EllipticCurvePrivateKey | None,
        token: SigningKey,
    ) -> None:
        self.identity = identity
        self.log = log
        self.cosigning = cosigning
        self.node = node
        self.token = token


class Registration(Terms):
    """A statement, and a proof by each key that can sign.

    Attributes:
        kind: tells it from a signature.
        statement: canonical JSON of a `Statement`.
        identity, log, token: base64 of Ed25519 signatures.
        cosigning: base64 of one of ML-DSA-44.
        node: base64 of one of ECDSA (DER), where there is a node.
    """

    kind: Literal["registration"] = "registration"
    statement: Annotated[str, Field(max_length=16_384)]
    identity: Proof
    log: Proof
    cosigning: Proof
    token: Proof
    node: Proof | None = None

    @classmethod
    def make(cls, statement: Statement, keys: PartyKeys) -> Self:
        """Prove the possession of every key."""
        content = statement.canonical_bytes
        message = pae(REGISTRATION_TYPE, content)
        node = keys.node
        return cls(
            statement=content.decode(),
            identity=encode_base64(keys.identity.sign(message)),
            log=encode_base64(keys.log.sign(message)),
            cosigning=encode_base64(keys.cosigning.prove_possession(message)),
            token=encode_base64(keys.token.sign(message)),
            node=None if node is None else encode_base64(node.sign(message, _ECDSA)),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the statement, in hexadecimal."""
        return hashlib.sha256(self.statement.encode()).hexdigest()

    def unverified(self) -> Statement:
        """Return the statement whatever its proofs say.

        Raises:
            EnrolmentError: it is none.
        """
        try:
            found = Statement.model_validate_json(self.statement)
        except ValidationError as error:
            raise EnrolmentError(f"no registration: {describe(error)}") from error
        if found.canonical_bytes != self.statement.encode():
            raise EnrolmentError("the registration is not in canonical JSON (RFC 8785)")
        return found

    def check_token(self, key: VerifyingKey) -> None:
        """Return only if whoever made it holds the token with that public half.

        Raises:
            EnrolmentError: in every other case.
        """
        self._check("token", self.token, key)

    def verify(self) -> Statement:
        """Return the statement of who holds the secret half of every signing key in it.

        Raises:
            EnrolmentError: a proof is missing or does not verify; names the key.
        """
        found = self.unverified()
        party = found.party
        self._check("identity", self.identity, party.verifying_key)
        self._check("log", self.log, NoteKey.from_string(party.log_key).key)
        if (cosigner := party.cosigner) is not None:
            try:
                cosigner.verify_possession(decode_base64(self.cosigning), self._message)
            except SignatureError as error:
                raise _unproved("cosigning") from error
        if found.node_key is not None:
            try:
                proof = decode_base64(self.node or "")
                _read_node_key(found.node_key).verify(proof, self._message, _ECDSA)
            except InvalidSignature as error:
                raise _unproved("node") from error
        return found

    @property
    def _message(self) -> bytes:
        return pae(REGISTRATION_TYPE, self.statement.encode())

    def _check(self, which: str, proof: str, key: VerifyingKey) -> None:
        try:
            key.verify(decode_base64(proof), self._message)
        except SignatureError as error:
            raise _unproved(which) from error


_ECDSA: Final = ec.ECDSA(hashes.SHA256())


def _unproved(which: str) -> EnrolmentError:
    return EnrolmentError(
        f"the registration does not prove that its sender holds the {which} key: have the party "
        "run `comity party join` again"
    )
