"""The coordinator's own certificate authority, and the certificate of its listeners.

Guarantees: keys are P-256, from `privacy.randomness`; a server's certificate names its hosts and
loopback as alternative names, and vouches for nobody else (RFC 5280, section 4.2.1.9).

Leaves to others: files (`folder`), the handshake (OpenSSL).
"""

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from federation.errors import WorkspaceError
from privacy.randomness import new_secret

__all__ = ["Issued", "issue_authority", "issue_server", "new_key"]

_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of P-256's group (FIPS 186-5 by SP 800-186, section 3.2.1.3)."""
_AUTHORITY_DAYS: Final = 3650
_SERVER_DAYS: Final = 397
_RENEWED_DAYS: Final = 30
_BEFORE: Final = timedelta(hours=1)
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def new_key() -> ec.EllipticCurvePrivateKey:
    """Draw a P-256 key."""
    value = 0
    while not 0 < value < _ORDER:
        value = int.from_bytes(new_secret())
    return ec.derive_private_key(value, ec.SECP256R1())


class Issued:
    """A certificate and its key."""

    def __init__(
        self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, source: str
    ) -> None:
        self.certificate = certificate
        self.key = key
        self._source = source

    @classmethod
    def parse(cls, certificate: bytes, key: bytes, *, source: str) -> Self:
        """Read both from PEM.

        Args:
            certificate: PEM.
            key: PEM, without a password.
            source: what to call them in an error.

        Raises:
            WorkspaceError: either is none, or they do not belong together.
        """
        try:
            found = x509.load_pem_x509_certificate(certificate)
            private = load_pem_private_key(key, None)
        except (ValueError, TypeError) as error:
            raise WorkspaceError(f"{source}: expected a certificate and its key in PEM") from error
        if (
            not isinstance(private, ec.EllipticCurvePrivateKey)
            or found.public_key() != private.public_key()
        ):
            raise WorkspaceError(f"{source}: the key is not the certificate's: restore both")
        return cls(found, private, source)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def key_pem_under(self, password: str) -> bytes:
        """Return the key, encrypted under a password that nobody can guess."""
        encryption = BestAvailableEncryption(password.encode())
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def is_due(self, now: datetime, hosts: Sequence[str]) -> bool:
        """Whether a server's certificate ends soon, or names other hosts than these."""
        ends = self.certificate.not_valid_after_utc - timedelta(days=_RENEWED_DAYS)
        names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return now > ends or list(names.value) != _names(hosts)

    def check_valid(self, now: datetime) -> None:
        """Refuse a certificate that is not valid now.

        Raises:
            WorkspaceError: it has expired, or begins later.
        """
        begins = self.certificate.not_valid_before_utc
        ends = self.certificate.not_valid_after_utc
        if not begins <= now <= ends:
            raise WorkspaceError(
                f"{self._source}: the certificate is valid from {begins:%Y-%m-%d} to "
                f"{ends:%Y-%m-%d}, and now is {now:%Y-%m-%d}: run `comity coordinator init` "
                "again, which renews a server's certificate"
            )


def issue_authority(now: datetime) -> Issued:
    """Make a certificate authority of its own, valid for ten years."""
    key = new_key()
    name = _called("comity coordinator CA")
    builder = _builder(name, key, now, _AUTHORITY_DAYS).issuer_name(name)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Issued(certificate, key, "CA")


def issue_server(
    authority: Issued, hosts: Sequence[str], now: datetime, *, key: ec.EllipticCurvePrivateKey
) -> Issued:
    """Make a certificate for a server, valid for 397 days.

    Args:
        authority: who vouches for it.
        hosts: names and addresses by which it is called, beside loopback's.
        now: an aware moment.
        key: the server's.
    """
    issuer = authority.key.public_key()
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer)
    certificate = (
        _builder(_called("comity coordinator"), key, now, _SERVER_DAYS)
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Issued(certificate, key, "server")


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    serial = int.from_bytes(new_secret()[:19]) | 1  # 20 octets at most, and positive
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + timedelta(days=days))
    )


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for host in dict.fromkeys((*hosts, *_LOOPBACK)):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            found.append(x509.DNSName(host))
    return found


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
