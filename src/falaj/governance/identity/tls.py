"""TLS 1.3 with a certificate on both sides, and the other's identity checked within the handshake.

So a connection that stands is one whose peer is known: neither server nor client can forget to look. Files may be
replaced while a server runs; the next connection uses them.
"""

from __future__ import annotations

import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from falaj.governance.identity import peers
from falaj.governance.identity.peers import Peer, SpiffeId, peer_of
from falaj.kernel.errors import Denied, FalajError, Invalid
from falaj.kernel.log import logger

AUTHORITIES = "ca.pem"
_WAITING = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Party(msgspec.Struct, frozen=True):
    """Who we are: `role` is control-plane, data-plane/production, operator, …; its certificate and key lie in `folder`
    as `<role>.pem` and `<role>.key`, with - for /, beside `ca.pem`."""

    folder: str
    domain: str
    role: str

    @property
    def certificate(self) -> Path:
        """The chain, our own certificate first."""
        return Path(self.folder) / f"{self.role.replace('/', '-')}.pem"

    @property
    def key(self) -> Path:
        """The private key, for its owner only."""
        return self.certificate.with_suffix(".key")

    @property
    def authorities(self) -> Path:
        """The certificates of whoever may issue: several while one follows another."""
        return Path(self.folder) / AUTHORITIES

    @property
    def files(self) -> tuple[Path, ...]:
        """All that a change is watched of."""
        return self.certificate, self.key, self.authorities


class Mutual(ssl.SSLContext):
    """A context whose handshake ends only with a peer that `check` accepts."""

    check: Callable[[SpiffeId], None]
    sslobject_class: type[ssl.SSLObject]
    sslsocket_class: type[ssl.SSLSocket]


class _Object(ssl.SSLObject):
    def do_handshake(self) -> None:
        _shake(self, super().do_handshake)


class _Socket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        _shake(self, lambda: super(_Socket, self).do_handshake(block))


def _shake(end: _Object | _Socket, shake: Callable[[], None]) -> None:
    """Finish the handshake, then look who it was with. A server says whom it refused, and why."""
    try:
        shake()
        _check(end)
    except _WAITING:
        raise
    except ssl.SSLError as e:
        if end.server_side:
            logger(__name__).warning("peer_refused", why=_why(e))
        raise


def _why(error: ssl.SSLError) -> str:
    """One made in Python has not the attributes of OpenSSL's own."""
    return str(getattr(error, "verify_message", "") or getattr(error, "reason", "") or error.args[-1])


def _check(end: _Object | _Socket) -> None:
    context, certificate = end.context, end.getpeercert(binary_form=True)
    try:
        if not isinstance(context, Mutual) or certificate is None:
            raise Denied("the peer has shown no certificate", hint="give it one", code="wrong_peer")
        context.check(peer_of(certificate).id)
    except Denied as e:
        raise ssl.SSLCertVerificationError(1, e.message) from e


class Renewed(ssl.SSLContext):
    """A server's context that is made again when its files have changed. What cannot be used, such as a certificate whose
    key is not there yet, is told in the log, and the one before goes on."""

    _party: Party
    _stamp: tuple[tuple[int, int, int], ...]
    _now: Mutual

    def __new__(cls, party: Party) -> Renewed:
        """Raises `Invalid` when there is nothing to begin with."""
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        self._party = party
        self._stamp = _stamp(party)
        self._now = _server(party)
        return self

    def __init__(self, _party: Party) -> None:
        super().__init__()

    def present(self) -> Mutual:
        """The context for the next connection."""
        try:
            stamp = _stamp(self._party)
            if stamp != self._stamp:
                self._stamp = stamp
                self._now = _server(self._party)
                logger(__name__).info("certificate_renewed", until=own_peer(self._party).until.isoformat())
        except (OSError, FalajError) as e:
            logger(__name__).error("certificate_not_renewed", error=str(e))
        return self._now

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """As in the base, by the present files."""
        return self.present().wrap_bio(*arguments, **options)

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """As in the base, by the present files."""
        return self.present().wrap_socket(*arguments, **options)


def client(party: Party, server: SpiffeId) -> Mutual:
    """The context of a client that means one server, whatever its address. Raises `Invalid` for files that do not do."""
    _own(party)
    context = _mutual(party, ssl.PROTOCOL_TLS_CLIENT)
    context.check = lambda found: peers.check_server(found, server)
    return context


def client_of(folder: str, domain: str, role: str, server: str) -> Mutual:
    """`client`, for those who know both by their roles."""
    return client(Party(folder, domain, role), SpiffeId(domain, tuple(server.split("/"))))


def own_peer(party: Party) -> Peer:
    """What our own certificate says. Raises `Invalid`."""
    try:
        return peer_of(ssl.PEM_cert_to_DER_cert(_first(party.certificate.read_text("ascii"))))
    except (OSError, ValueError) as e:
        raise _unusable(party.certificate, getattr(e, "strerror", None) or str(e)) from e
    except Denied as e:
        raise _unusable(party.certificate, e.message) from e


def _server(party: Party) -> Mutual:
    own = _own(party)
    context = _mutual(party, ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # no session is resumed: each connection shows its certificate again
    context.check = lambda found: peers.check_call(found, own)
    return context


def _mutual(party: Party, protocol: int) -> Mutual:
    context = Mutual(protocol)
    context.sslobject_class, context.sslsocket_class = _Object, _Socket
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # identities are SPIFFE ids, not addresses
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(party.authorities)
        context.load_cert_chain(party.certificate, party.key, password=lambda: b"")  # never ask at a terminal
    except (OSError, ValueError) as e:
        reason = getattr(e, "reason", None) or getattr(e, "strerror", None) or str(e)
        raise _unusable(party.certificate, f"with its key and {AUTHORITIES}: {reason}") from e
    return context


def _own(party: Party) -> SpiffeId:
    """Our own id, as our certificate proves it: of this domain, of this role, in its time, issued by our authorities."""
    own, now = (
        own_peer(party),
        datetime.now(UTC),
    )  # real time: what peers hold against it, whatever a home's clock shows
    role = tuple(party.role.split("/"))
    if own.id.domain != party.domain or own.id.segments[: len(role)] != role or not peers.known_role(own.id):
        raise _unusable(party.certificate, f"it is for {own.id}, not for spiffe://{party.domain}/{party.role}")
    if own.until <= now:
        raise _unusable(party.certificate, f"it has expired at {own.until.isoformat()}")
    try:
        mode = stat.S_IMODE(party.key.stat().st_mode)
        chain = x509.load_pem_x509_certificates(party.certificate.read_bytes())
        authorities = x509.load_pem_x509_certificates(party.authorities.read_bytes())
    except (OSError, ValueError) as e:
        raise _unusable(party.certificate, getattr(e, "strerror", None) or str(e)) from e
    if mode & 0o077:
        raise Invalid(
            f"the private key {party.key.name} is open to others (mode {mode:04o})",
            hint=f"chmod 600 {party.key}; if others may have read it, issue another certificate",
            code="key_open_to_others",
        )
    if not any(_issued(chain[-1], a) for a in authorities) or not all(
        _issued(below, above) for below, above in pairwise(chain)
    ):
        raise _unusable(party.certificate, f"nobody in {AUTHORITIES} has issued it")
    return own.id


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _first(chain: str) -> str:
    end = "-----END CERTIFICATE-----"
    return chain[chain.find("-----BEGIN CERTIFICATE-----") : chain.find(end) + len(end)]


def _stamp(party: Party) -> tuple[tuple[int, int, int], ...]:
    """What changes with the files. Raises `Invalid` when one is missing."""
    try:
        return tuple((s.st_mtime_ns, s.st_ino, s.st_size) for s in (f.stat() for f in party.files))
    except OSError as e:
        raise _unusable(Path(e.filename or party.certificate), "there is no such file") from e


def _unusable(file: Path, why: str) -> Invalid:
    return Invalid(
        f"the certificate in {file} cannot be used: {why}",
        hint="issue one: `falaj certs issue`, or point FALAJ_TLS and FALAJ_TRUST_DOMAIN at the right ones",
        code="bad_certificate",
    )
