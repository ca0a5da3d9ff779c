"""Whose signatures count, and until when.

A key that was replaced or revoked keeps a moment `until`: what was signed before it counts, nothing after. When a
signature was made is what was filed with it; who holds a key can write any time into what it signs, so whoever reads must
take that time from somewhere else where a key may have leaked (`docs/explanation/trust-boundaries.md`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from falaj.governance.signing.dsse import PublicKey, load_public_key
from falaj.kernel.clock import parse_iso

SIGNING = ("attestation", "dev", "staging", "production", "model")
"""The keys that sign what others check; the log's own key is the log's affair."""


ROTATED, REVOKED = "rotated", "revoked"
NEVER = "0001-01-01T00:00:00.000Z"
"""The end of a key none of whose signatures counts."""


class KeyRecord(msgspec.Struct, frozen=True):
    """A public key as it is told: PEM, fingerprint, `Ed25519` or `ECDSA P-256`; `until` (RFC 3339) is empty while it signs.

    `why` says how it came to an end, rotated or revoked, and `reason` what whoever did it said.
    """

    name: str
    pem: str
    fingerprint: str
    algorithm: str
    until: str = ""
    why: str = ""
    reason: str = ""

    @property
    def revoked(self) -> bool:
        """Whether somebody else may hold the key."""
        return self.why == REVOKED


class Trusted(msgspec.Struct, frozen=True):
    """A key, and until when its signatures count (RFC 3339; empty: without end).

    Of a revoked one only what somebody who is trusted says was made before counts: no bundle, which says so itself.
    """

    key: PublicKey
    until: str = ""
    revoked: bool = False


Keys = Sequence[PublicKey | Trusted]
"""Keys without a window count always."""


def every(keys: Keys) -> list[PublicKey]:
    """All keys, whatever their windows: to read what a signature is of, before it is asked when it was made."""
    return [k.key if isinstance(k, Trusted) else k for k in keys]


def unrevoked(keys: Keys, moment: str) -> list[PublicKey]:
    """As `valid_at`, without those that somebody else may hold: for what says itself when it was made."""
    return valid_at([k for k in keys if not (isinstance(k, Trusted) and k.revoked)], moment)


def valid_at(keys: Keys, moment: str) -> list[PublicKey]:
    """The keys whose signatures of that moment (RFC 3339) count; of an empty moment, those without an end."""
    return [
        k.key if isinstance(k, Trusted) else k
        for k in keys
        if not isinstance(k, Trusted) or not k.until or before(moment, k.until)
    ]


def before(moment: str, until: str) -> bool:
    """Whether a moment (RFC 3339) is before another; one that is not known, or is no moment, is not."""
    try:
        return bool(moment) and parse_iso(moment) < parse_iso(until)
    except ValueError:
        return False


def trusted(records: Iterable[KeyRecord], name: str) -> tuple[Trusted, ...]:
    """The keys of one name."""
    return tuple(Trusted(load_public_key(r.pem), r.until, r.revoked) for r in records if r.name == name)
