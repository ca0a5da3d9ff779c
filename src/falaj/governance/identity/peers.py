"""Who stands at the other end of a connection: SPIFFE ids in X.509 certificates, and who may call whom.
https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md

    spiffe://<trust domain>/control-plane
    spiffe://<trust domain>/data-plane/<environment>
    spiffe://<trust domain>/operator/<principal>
    spiffe://<trust domain>/caller/<environment>/<name>

Kernel and cryptography only, so that the data plane can use it.
"""

from __future__ import annotations

import re
from datetime import datetime

import msgspec
from cryptography import x509

from falaj.kernel.errors import Denied, Invalid

_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z")
_LONGEST = 2048  # bytes of an id

CONTROL_PLANE = "control-plane"
DATA_PLANE = "data-plane"
OPERATOR = "operator"
CALLER = "caller"


class SpiffeId(msgspec.Struct, frozen=True):
    """`spiffe://<domain>/<segments joined by />`."""

    domain: str
    segments: tuple[str, ...]

    def __str__(self) -> str:
        return f"spiffe://{self.domain}/{'/'.join(self.segments)}"


class Peer(msgspec.Struct, frozen=True):
    """Who a certificate says its holder is, and until when."""

    id: SpiffeId
    until: datetime


def spiffe_id(text: str) -> SpiffeId:
    """An id from its URI. Raises `Invalid` for anything that the standard does not allow."""
    scheme, separator, rest = text.partition("://")
    domain, slash, path = rest.partition("/")
    segments = tuple(path.split("/"))
    well = scheme == "spiffe" and separator and slash and len(text) <= _LONGEST and _DOMAIN.match(domain)
    if not well or not all(_SEGMENT.match(s) and s not in (".", "..") for s in segments):
        raise Invalid(
            f"{text[:80]!r} is no SPIFFE id",
            hint="write it like spiffe://example.org/control-plane: lower-case domain, letters, digits, . _ - in each part",
            code="bad_spiffe_id",
        )
    return SpiffeId(domain, segments)


def known_role(own: SpiffeId) -> bool:
    """Whether anything here goes by such an id."""
    match own.segments:
        case ("control-plane",) | ("operator", _) | ("caller", _, _):
            return True
        case ("data-plane", environment):
            return bool(environment)
    return False


def peer_of(certificate: bytes) -> Peer:
    """Whose a certificate (DER) is. Raises `Denied` unless it is a leaf with exactly one URI, a SPIFFE id.

    That it was issued by somebody trusted, and holds now, is what the handshake has verified before.
    """
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        authority = _authority(parsed)
    except x509.ExtensionNotFound:
        raise _refused("its certificate names nobody") from None
    except (ValueError, x509.DuplicateExtension) as e:
        raise _refused(f"its certificate cannot be read ({type(e).__name__})") from e
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if authority:
        raise _refused("its certificate is an authority's own")
    if len(uris) != 1:
        raise _refused(f"its certificate has {len(uris)} URIs, not exactly one")
    try:
        return Peer(spiffe_id(uris[0]), parsed.not_valid_after_utc)
    except Invalid as e:
        raise _refused(e.message) from e


def check_call(caller: SpiffeId, server: SpiffeId) -> None:
    """Raise `Denied` unless `caller` may call `server`.

    The control plane is for operators; a data plane for the control plane, operators, and callers of its environment.
    """
    if caller.domain != server.domain:
        raise _refused(f"{caller} is of another trust domain than {server.domain}")
    match server.segments, caller.segments:
        case (("control-plane",), ("operator", _)) | (("data-plane", _), ("control-plane",) | ("operator", _)):
            return
        case ("data-plane", here), ("caller", there, _) if here == there:
            return
    raise _refused(f"{caller} has no business with {server}")


def check_server(found: SpiffeId, wanted: SpiffeId) -> None:
    """Raise `Denied` unless the server is the one that was meant."""
    if found != wanted:
        raise _refused(f"it is {found}, and {wanted} was meant")


def check_bearer(peer: SpiffeId | None, principal: str) -> None:
    """Raise `Denied` when a token or a session comes over somebody else's certificate. `None`: it came over loopback."""
    if peer is not None and peer.segments != (OPERATOR, principal):
        raise refused_bearer(principal, str(peer))


def bearers(environment: str, principal: str) -> tuple[tuple[str, ...], ...]:
    """Over whose certificates a principal's token is good at a data plane: the principal's own, as operator or as caller."""
    return (OPERATOR, principal), (CALLER, environment, principal)


def refused_bearer(principal: str, peer: str = "somebody else") -> Denied:
    """What to say of a token that comes over another certificate than its principal's."""
    return Denied(
        f"the token is not of whoever holds the certificate ({peer})",
        hint=f"connect with a certificate for operator/{principal} (a program: caller/ENVIRONMENT/{principal}): `falaj certs issue`",
        code="certificate_of_another",
    )


def _authority(certificate: x509.Certificate) -> bool:
    """Whether it may issue others; the standard forbids that of a leaf."""
    extensions = certificate.extensions
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return True
    except x509.ExtensionNotFound:
        pass
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return usage.key_cert_sign or usage.crl_sign


def _refused(why: str) -> Denied:
    return Denied(
        f"the peer is not who it should be: {why}",
        hint="give it a certificate for what it is: `falaj certs issue`; docs/how-to/serve-beyond-loopback.md has the names",
        code="wrong_peer",
    )
