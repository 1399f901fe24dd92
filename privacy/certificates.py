"""A certificate that serves one match: made by its holder, trusted by one other party.

Guarantees: key and certificate are functions of a secret, so a party stores nothing but that;
certificates are told over a channel that is authentic already, and trusted by being the very one
that was told: they name nobody and never end.

Leaves to others: telling it, TLS itself, and destroying the secret.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID, PublicKeyAlgorithmOID

from privacy.errors import PeerMessageError
from privacy.randomness import Secret, derive_secret

__all__ = ["OwnCertificate", "check_certificate"]

_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "comity direct link")])
_BEGINS = datetime(2000, 1, 1, tzinfo=UTC)
_ENDS = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280, 4.1.2.5: never
_SERIAL_BYTES = 19  # RFC 5280, 4.1.2.2: at most 20 bytes, and positive
_MOST_CHARACTERS = 2_048
_EXPECTED = "expected one Ed25519 certificate in PEM for the direct link"


@dataclass(frozen=True)
class OwnCertificate:
    """A self-signed Ed25519 certificate and its private key.

    Attributes:
        pem: the certificate, for others to see.
        private_key_pem: its key (PKCS 8), unencrypted.
    """

    pem: str
    private_key_pem: str

    @classmethod
    def from_secret(cls, secret: Secret) -> Self:
        """Make the certificate of a secret: the same one each time."""
        key = Ed25519PrivateKey.from_private_bytes(derive_secret(secret, "certificate key"))
        serial = derive_secret(secret, "certificate serial number")[:_SERIAL_BYTES]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_NAME)
            .issuer_name(_NAME)
            .public_key(key.public_key())
            .serial_number(int.from_bytes(serial, "big") | 1)
            .not_valid_before(_BEGINS)
            .not_valid_after(_ENDS)
            .sign(key, None)
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return cls(certificate.public_bytes(Encoding.PEM).decode(), private.decode())

    def key_pem_under(self, password: str) -> str:
        """Return the key, encrypted under a password that nobody can guess."""
        key = load_pem_private_key(self.private_key_pem.encode(), password=None)
        encryption = BestAvailableEncryption(password.encode())
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()

    def __repr__(self) -> str:
        return "OwnCertificate(…)"


def check_certificate(pem: str) -> None:
    """Return only if the text is one certificate as `OwnCertificate` makes them.

    Raises:
        PeerMessageError: it is none, or of another kind of key.
    """
    try:
        (certificate,) = x509.load_pem_x509_certificates(pem[:_MOST_CHARACTERS].encode())
        certificate.verify_directly_issued_by(certificate)
        one = certificate.public_bytes(Encoding.PEM).decode() == pem
        kind = certificate.public_key_algorithm_oid
    except Exception as error:  # the library raises whatever it meets in foreign bytes
        raise PeerMessageError(_EXPECTED) from error
    if not one or kind != PublicKeyAlgorithmOID.ED25519:
        raise PeerMessageError(_EXPECTED)
