"""The test cluster's own certificate authority; nobody else trusts it, and it lives a day."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=1)
"""A test cluster that lives longer was forgotten."""

CLOCK_SKEW = datetime.timedelta(minutes=5)

_USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclasses.dataclass(frozen=True)
class KeyPair:
    """A certificate with its private key, as PEM files.

    Attributes:
        certificate: Path of the certificate.
        key: Path of the private key; only its owner can read it.
    """

    certificate: Path
    key: Path


def write_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Make a private key and write it where only its owner can read it."""
    key = ec.generate_private_key(ec.SECP256R1())
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            # Kubernetes takes no other form for the key of service accounts.
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return key


class Authority:
    """Signs the certificates of one cluster.

    Args:
        folder: Where certificates and keys are written.
        now: The time from which they count, aware of its zone.
    """

    def __init__(self, folder: Path, now: datetime.datetime) -> None:
        self._folder = folder
        self._now = now
        self.pair = KeyPair(folder / "ca.crt", folder / "ca.key")
        self._key = write_key(self.pair.key)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trierarch-test-cluster")])
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        self._write(builder, self.pair.certificate)

    def issue(
        self,
        file_name: str,
        user: str,
        groups: Sequence[str] = (),
        hosts: Sequence[str] = (),
    ) -> KeyPair:
        """Issue a certificate for a client, a server or both.

        Args:
            file_name: Of the two files, without a suffix.
            user: Who it is: Kubernetes reads the common name as the user.
            groups: Kubernetes reads organizations as the user's groups.
            hosts: Names and addresses of a server.
        """
        pair = KeyPair(self._folder / f"{file_name}.crt", self._folder / f"{file_name}.key")
        key = write_key(pair.key)
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        builder = self._builder(x509.Name(attributes), key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(_USAGES), False)
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, False)
        self._write(builder, pair.certificate)
        return pair

    def _builder(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - CLOCK_SKEW)
            .not_valid_after(self._now + LIFETIME)
        )

    def _write(self, builder: x509.CertificateBuilder, path: Path) -> None:
        certificate = builder.sign(self._key, hashes.SHA256())
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
