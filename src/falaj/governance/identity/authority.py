"""A certificate authority for development, and for whoever has no other: a folder with a key.

    ca.pem        its certificate, for everybody
    ca.key        its private key, for its owner only
    issued.jsonl  what it has issued, a line each

Any other authority will do as well, such as SPIRE or a company's own: what counts is what stands in the certificates.
"""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from falaj.governance.identity.peers import SpiffeId, known_role, spiffe_id
from falaj.governance.identity.tls import AUTHORITIES, Party
from falaj.kernel.clock import Clock, iso, parse_iso
from falaj.kernel.errors import Conflict, Invalid
from falaj.kernel.files import flush, write_private

AUTHORITY_DAYS = 365
MOST_HOURS = 90 * 24
_SKEW = timedelta(minutes=2)  # by how much a peer's clock may be behind


class Issued(msgspec.Struct, frozen=True):
    """A line of `issued.jsonl`."""

    serial: str
    id: str
    names: tuple[str, ...]
    at: str
    until: str
    fingerprint: str


def create(folder: Path, domain: str, clock: Clock) -> str:
    """Make an authority for a trust domain in a new folder; returns its certificate's fingerprint. Raises `Conflict`."""
    own = spiffe_id(f"spiffe://{domain}/x").domain
    if own != domain:
        raise Invalid(
            f"{domain[:80]!r} is no trust domain",
            hint="name one like example.org: lower-case letters, digits, . _ -",
            code="bad_trust_domain",
        )
    key, now = ec.generate_private_key(ec.SECP256R1()), clock.now()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Falaj development CA for {own}"[:64])])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{own}")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        write_private(folder / "ca.key", _pem(key))
    except FileExistsError as e:
        raise Conflict(
            f"{folder} has an authority already",
            hint="name another folder; what it issues is shown by `falaj certs list`",
            code="authority_exists",
        ) from e
    (folder / AUTHORITIES).write_bytes(certificate.public_bytes(Encoding.PEM))
    flush(folder)
    return certificate.fingerprint(hashes.SHA256()).hex()


class Authority:
    """An authority that exists. Raises `Invalid` when the folder holds none that can be used."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        try:
            self._pem = (folder / AUTHORITIES).read_bytes()
            self._certificate = x509.load_pem_x509_certificate(self._pem)
            key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
            names = self._certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            (own,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        except (OSError, ValueError, TypeError, x509.ExtensionNotFound) as e:
            raise Invalid(
                f"there is no authority in {folder}: {getattr(e, 'strerror', None) or e}",
                hint="make one: `falaj certs init FOLDER --trust-domain NAME`",
                code="no_authority",
            ) from e
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Invalid(
                f"the authority's key in {folder} is of another kind than it makes",
                hint="issue with the tool that made it",
                code="no_authority",
            )
        self._key = key
        self.domain = own.removeprefix("spiffe://")

    def issue(self, role: str, names: Sequence[str], hours: int, to: Path) -> Issued:
        """Write a fresh key and certificate for an identity into a folder, over those that it has. Raises `Invalid`.

        `names` are DNS names and addresses, for browsers; programs go by the identity.
        """
        own = spiffe_id(f"spiffe://{self.domain}/{role}")
        if not known_role(own):
            raise Invalid(
                f"nothing here is called {role!r}",
                hint="use control-plane, data-plane/ENVIRONMENT, operator/PRINCIPAL or caller/ENVIRONMENT/NAME",
                code="bad_role",
            )
        if not 1 <= hours <= MOST_HOURS:
            raise Invalid(
                f"a certificate cannot last {hours} hours",
                hint=f"choose 1 to {MOST_HOURS} hours; short ones need no revocation",
                code="bad_lifetime",
            )
        key, now = ec.generate_private_key(ec.SECP256R1()), self._clock.now()
        until = min(now + timedelta(hours=hours), self._certificate.not_valid_after_utc)
        certificate = self._signed(key, own, names, (now - _SKEW, until))
        party = Party(str(to), self.domain, _file_role(own))
        to.mkdir(parents=True, exist_ok=True, mode=0o700)
        _replace(party.key, _pem(key))
        _replace(party.certificate, certificate.public_bytes(Encoding.PEM))
        if not party.authorities.exists():
            party.authorities.write_bytes(self._pem)
        flush(to)
        found = Issued(
            f"{certificate.serial_number:x}",
            str(own),
            tuple(names),
            iso(now),
            iso(until),
            certificate.fingerprint(hashes.SHA256()).hex(),
        )
        with (self._folder / "issued.jsonl").open("ab") as f:
            f.write(msgspec.json.encode(found) + b"\n")
        return found

    def issued(self) -> list[Issued]:
        """All that it has issued, the newest last."""
        try:
            lines = (self._folder / "issued.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [msgspec.json.decode(line, type=Issued) for line in lines]

    def renew(self, folders: Sequence[Path]) -> tuple[list[Issued], datetime | None]:
        """Issue anew what lies in these folders, was issued here and has a third of its time left or less, for as long as before.

        Returns what was renewed, and when the next is due; None when none ever will be. Raises `Invalid` for a folder in which
        there is nothing of this authority's, before anything is renewed.
        """
        now, known = self._clock.now(), {i.serial: i for i in self.issued()}
        renewed, dues = list[Issued](), list[datetime]()
        for folder, found in [(folder, self._own(folder, known)) for folder in folders]:
            for own in found:
                due = self._due(own)
                if due is not None and due <= now:
                    hours = max(1, math.ceil(_lifetime(own) / timedelta(hours=1)))
                    renewed.append(
                        self.issue(own.id.removeprefix(f"spiffe://{self.domain}/"), own.names, hours, folder)
                    )
                    due = self._due(renewed[-1])
                dues += [] if due is None else [due]
        return renewed, min(dues, default=None)

    def _own(self, folder: Path, known: Mapping[str, Issued]) -> list[Issued]:
        """What lies in a folder and was issued here, by the name that its identity has; copies are somebody's own affair."""
        found = []
        for path in sorted(folder.glob("*.pem")):
            try:
                certificate = x509.load_pem_x509_certificate(path.read_bytes())
                certificate.verify_directly_issued_by(self._certificate)
            except (OSError, ValueError, TypeError, InvalidSignature):  # somebody else's, or none
                continue
            issued = known.get(f"{certificate.serial_number:x}")
            if (
                issued is not None
                and path == Party(str(folder), self.domain, _file_role(spiffe_id(issued.id))).certificate
            ):
                found.append(issued)
        if not found:
            raise Invalid(
                f"nothing in {folder} was issued by this authority",
                hint="name the folders that `falaj certs issue --to` wrote into",
                code="nothing_to_renew",
            )
        return found

    def _due(self, issued: Issued) -> datetime | None:
        """When a certificate is to be renewed; None when a new one would not last longer: the authority itself ends then."""
        until = parse_iso(issued.until)
        return until - _lifetime(issued) / 3 if until < self._certificate.not_valid_after_utc else None

    def _signed(
        self, key: ec.EllipticCurvePrivateKey, own: SpiffeId, names: Sequence[str], times: tuple[object, object]
    ) -> x509.Certificate:
        alternative: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(own)), *map(_name, names)]
        issuer = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        begin, end = times
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "/".join(own.segments)[:64])]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)  # type: ignore[arg-type]  # both are moments
            .not_valid_after(end)  # type: ignore[arg-type]
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _lifetime(issued: Issued) -> timedelta:
    return parse_iso(issued.until) - parse_iso(issued.at)


def _file_role(own: SpiffeId) -> str:
    """What its files are called: people and callers have one each, which lies in a folder of their own."""
    return own.segments[0] if own.segments[0] in ("operator", "caller") else "/".join(own.segments)


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all, and for its owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    write_private(temporary, data)
    temporary.replace(path)
