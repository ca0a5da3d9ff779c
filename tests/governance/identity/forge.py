"""Certificates as nobody should make them, beside right ones."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from falaj.governance.identity.tls import Party
from falaj.kernel.files import write_private

DOMAIN = "example.org"
KINDS = ("wrong CA", "expired", "0 SAN", "2 SANs", "foreign domain", "right")
"""What `Forge.write` can make of an identity."""


class Forge:
    """An authority that signs anything."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forge")])
        self.certificate = _builder(name, name, self.key, timedelta(hours=-1), timedelta(hours=1)).sign(
            self.key, hashes.SHA256()
        )

    def leaf(
        self,
        uris: Sequence[str],
        *,
        since: timedelta = timedelta(hours=-1),
        until: timedelta = timedelta(hours=1),
        authority: bool = False,
        addresses: Sequence[str] = (),
    ) -> tuple[bytes, bytes]:
        """(PEM certificate, PEM key) with these URIs."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
        builder = _builder(subject, self.certificate.subject, key, since, until, authority=authority)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(u) for u in uris]
        if addresses:
            names += [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = builder.sign(self.key, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return made.public_bytes(Encoding.PEM), private

    def write(
        self, folder: Path, role: str, identity: str, kind: str = "right", *, addresses: Sequence[str] = ()
    ) -> Party:
        """A folder as `Party` has it, whose certificate for `identity` is of a kind. Files that are there go."""
        good = f"spiffe://{DOMAIN}/{identity}"
        issuer = Forge() if kind == "wrong CA" else self
        match kind:
            case "expired":
                made = issuer.leaf([good], since=timedelta(hours=-2), until=timedelta(seconds=-1), addresses=addresses)
            case "0 SAN":
                made = issuer.leaf([], addresses=addresses)
            case "2 SANs":
                made = issuer.leaf([good, f"{good}2"], addresses=addresses)
            case "foreign domain":
                made = issuer.leaf([f"spiffe://example.com/{identity}"], addresses=addresses)
            case _:
                made = issuer.leaf([good], addresses=addresses)
        party = Party(str(folder), DOMAIN, role)
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in zip(party.files, (*made, self.pem), strict=True):
            path.unlink(missing_ok=True)
            write_private(path, data)
        return party

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.certificate.public_bytes(Encoding.PEM)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    since: timedelta,
    until: timedelta,
    *,
    authority: bool = True,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now + since)
        .not_valid_after(now + until)
        .add_extension(x509.BasicConstraints(ca=subject == issuer or authority, path_length=None), critical=True)
    )
