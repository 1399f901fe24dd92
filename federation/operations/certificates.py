"""The coordinator's certificate authority, its own or given, and its listeners' certificate.

Guarantees: keys are P-256, from `privacy.randomness`; a server's certificate names its hosts and
loopback as alternative names, and vouches for nobody else (RFC 5280, section 4.2.1.9).

Leaves to others: files (`folder`), the handshake (OpenSSL).
"""

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
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
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from federation.errors import WorkspaceError
from privacy.randomness import new_secret

__all__ = ["Issued", "issue_authority", "issue_server", "new_key", "read_authority"]

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
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise WorkspaceError(
                f"{source}: expected a certificate and its key in PEM, without a password"
            ) from error
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise WorkspaceError(
                f"{source}: expected a key of an elliptic curve, such as P-256, got one of another "
                "kind: make key and certificate anew"
            )
        if found.public_key() != private.public_key():
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

    def is_due(self, now: datetime, hosts: Sequence[str], authority: "Issued") -> bool:
        """Whether a server's certificate ends soon, which it need not, or names other hosts."""
        soon = now > self.ends - timedelta(days=_RENEWED_DAYS) and self.ends < authority.ends
        names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return soon or now > self.ends or list(names.value) != _names(hosts)

    @property
    def ends(self) -> datetime:
        """Until when it is valid."""
        return self.certificate.not_valid_after_utc

    def is_another_of(self, other: "Issued") -> bool:
        """Tell whether it stands for the same authority: who believes either believes both."""
        mine, its = self.certificate, other.certificate
        return (
            mine.public_key() == its.public_key()
            and mine.subject == its.subject
            and _identifier(self) == _identifier(other)
        )

    def check_valid(self, now: datetime, *, remedy: str) -> None:
        """Refuse a certificate that is not valid now.

        Raises:
            WorkspaceError: it has expired, or begins later; says the remedy.
        """
        begins = self.certificate.not_valid_before_utc
        if not begins <= now <= self.ends:
            raise WorkspaceError(
                f"{self._source}: the certificate is valid from {begins:%Y-%m-%d} to "
                f"{self.ends:%Y-%m-%d}, and now is {now:%Y-%m-%d}: {remedy}"
            )


def issue_authority(now: datetime) -> Issued:
    """Make a certificate authority of its own, valid for ten years."""
    key = new_key()
    name = _called("comity coordinator CA")
    builder = _builder(name, key, now, now + timedelta(days=_AUTHORITY_DAYS)).issuer_name(name)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Issued(certificate, key, "CA")


def read_authority(
    certificate: bytes, key: bytes, now: datetime, hosts: Sequence[str], *, source: str
) -> Issued:
    """Read a certificate authority that an organisation has made for its coordinator.

    Args:
        certificate: PEM.
        key: PEM, without a password, of an elliptic curve.
        now: an aware moment.
        hosts: by which the coordinator is called; it has to vouch for them, and for loopback.
        source: what to call them in an error.

    Raises:
        WorkspaceError: they do not belong together or are not valid now; or the certificate is
            vouched for by another, which no node would be given, or clients would take nothing by
            it.
    """
    found = Issued.parse(certificate, key, source=source)
    try:
        constraints = found.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        found.certificate.verify_directly_issued_by(found.certificate)
        vouches = constraints.value.ca
    except (x509.ExtensionNotFound, InvalidSignature, ValueError, TypeError):
        vouches = False
    if not vouches:
        raise WorkspaceError(
            f"{source}: expected a certificate authority that vouches for itself (RFC 5280, "
            "section 4.2.1.9: CA), got another certificate: make one for this coordinator alone"
        )
    found.check_valid(now, remedy="make a new one")
    try:
        _believe(found, hosts, now)
    except (VerificationError, x509.ExtensionNotFound, ValueError) as error:
        raise WorkspaceError(
            f"{source}: a party's node would take no certificate for {', '.join(hosts)} by it "
            f"({error}): it needs key usage keyCertSign and a subject key identifier (RFC 5280, "
            "sections 4.2.1.3 and 4.2.1.2), and name constraints, if any, that permit localhost, "
            "127.0.0.1 and ::1 too"
        ) from error
    return found


def _believe(authority: Issued, hosts: Sequence[str], now: datetime) -> None:
    """Return only if strict clients believe what an authority vouches for.

    Raises:
        VerificationError, ExtensionNotFound: they do not.
    """
    authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    tried = issue_server(authority, hosts, now, key=new_key())
    strict = PolicyBuilder().store(Store([authority.certificate])).time(now)
    for name in _names(hosts):
        strict.build_server_verifier(name).verify(tried.certificate, [])  # type: ignore[arg-type]


def issue_server(
    authority: Issued, hosts: Sequence[str], now: datetime, *, key: ec.EllipticCurvePrivateKey
) -> Issued:
    """Make a certificate for a server, valid for 397 days, or as long as its authority is.

    Args:
        authority: who vouches for it.
        hosts: names and addresses by which it is called, beside loopback's.
        now: an aware moment.
        key: the server's.
    """
    ends = min(now + timedelta(days=_SERVER_DAYS), authority.ends)
    certificate = (
        _builder(_called("comity coordinator"), key, now, ends)
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_identifier(authority), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Issued(certificate, key, "server")


def _identifier(authority: Issued) -> x509.AuthorityKeyIdentifier:
    """Name the authority's key as its own certificate does."""
    extensions = authority.certificate.extensions
    try:
        named = extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(named.value)


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    serial = int.from_bytes(new_secret()[:19]) | 1  # 20 octets at most, and positive
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - _BEFORE)
        .not_valid_after(ends)
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
