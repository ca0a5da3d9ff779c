"""Admissions and rehearsals as in-toto statements, and read back only through their signatures. Pure.

Both are simple verification results (https://github.com/in-toto/attestation/blob/main/spec/predicates/svr.md): the
subject is the version's digest, the property says what was found, and `falaj` holds the whole of it. Each is signed with
the key of its environment, so that what one environment says means nothing in another. The data plane reads
admissions here too.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from falaj.governance.signing.dsse import STATEMENT_TYPE, verify_envelope
from falaj.governance.signing.trust import Keys, every, valid_at
from falaj.kernel.clock import parse_iso
from falaj.kernel.digests import manifest_digest
from falaj.kernel.errors import Integrity
from falaj.lifecycle.evidence.statements import STATEMENT, statement
from falaj.lifecycle.registry.model import Admission, Rehearsal

SVR = "https://in-toto.io/attestation/svr/v0.2"
ADMITTED = "FALAJ_ADMITTED"
REHEARSED = "FALAJ_REHEARSED"

T = TypeVar("T", Admission, Rehearsal)


def admission_statement(admission: Admission) -> dict[str, Any]:
    """The statement of an admission."""
    return _statement(admission, admission.issued_at, [ADMITTED])


def rehearsal_statement(rehearsal: Rehearsal) -> dict[str, Any]:
    """The statement of a rehearsal; one that failed proves nothing, so it has no property."""
    return _statement(rehearsal, rehearsal.at, [REHEARSED] if rehearsal.passed else [])


def read_admission(envelope: dict[str, Any], keys: Keys) -> Admission:
    """The admission in an envelope that one of `keys` signed, if it is about the version that it names.

    Whether it is for the right environment, and has not expired, is the caller's to check. Raises `Integrity`.
    """
    admission, properties = _read(envelope, keys, Admission, "admission")
    if ADMITTED not in properties:
        raise not_accepted("admission", "its verdict is not an admission", "not_admitted")
    _check_moment(admission.expires_at, "admission", "its expiry")
    if manifest_digest(admission.files) != admission.digest:
        raise not_accepted("admission", "its files are not those of the version", "files_differ")
    return admission


def read_rehearsal(envelope: dict[str, Any], keys: Keys) -> Rehearsal:
    """The rehearsal in an envelope that one of `keys` signed; its property agrees with what it says. Raises `Integrity`."""
    rehearsal, properties = _read(envelope, keys, Rehearsal, "rehearsal")
    _check_moment(rehearsal.at, "rehearsal", "its moment")
    if (REHEARSED in properties) != rehearsal.passed:
        raise not_accepted("rehearsal", "it contradicts itself", "not_rehearsed")
    return rehearsal


def not_accepted(what: str, why: str, code: str) -> Integrity:
    """A signed statement that does not say what it would have to."""
    return Integrity(
        f"the {what} cannot be accepted: {why}",
        hint="admit the version again with `falaj promote`, or approve it again; it is never served without",
        code=code,
    )


def _check_moment(text: str, what: str, name: str) -> None:
    """Whoever reads a statement counts on its times."""
    try:
        parse_iso(text)
    except ValueError as e:
        raise not_accepted(
            what, f"{name} is not a time", "not_an_admission" if what == "admission" else "not_a_rehearsal"
        ) from e


class _Subject(msgspec.Struct, frozen=True):
    digest: dict[str, str]
    name: str = ""


class _Predicate(msgspec.Struct, frozen=True):
    properties: tuple[str, ...]
    falaj: msgspec.Raw


class _Statement(msgspec.Struct, frozen=True):
    type: str = msgspec.field(name="_type")
    subject: tuple[_Subject, ...]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: _Predicate


def _statement(found: Admission | Rehearsal, at: str, properties: list[str]) -> dict[str, Any]:
    predicate = {
        "verifier": {"id": "falaj"},
        "timeCreated": at,
        "properties": properties,
        "falaj": msgspec.to_builtins(found),
    }
    return statement(found.alias, found.digest, SVR, predicate)


def _read(envelope: dict[str, Any], keys: Keys, kind: type[T], what: str) -> tuple[T, tuple[str, ...]]:
    payload = verify_envelope(envelope, STATEMENT_TYPE, every(keys))
    try:
        said = msgspec.json.decode(payload, type=_Statement)
        if said.type != STATEMENT or said.predicate_type != SVR:
            raise not_accepted(
                what,
                "its statement is of another type",
                "not_an_admission" if what == "admission" else "not_a_rehearsal",
            )
        found = msgspec.json.decode(said.predicate.falaj, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Integrity(
            f"the {what} is signed but cannot be read: {e}",
            hint="the planes are of different versions: upgrade the data plane, then publish again",
            code="unreadable_payload",
        ) from e
    verify_envelope(
        envelope, STATEMENT_TYPE, valid_at(keys, found.issued_at if isinstance(found, Admission) else found.at)
    )
    if [s.digest for s in said.subject] != [{"sha256": found.digest.removeprefix("sha256:")}]:
        raise not_accepted(
            what,
            "it is about another version",
            "admission_for_another_version" if what == "admission" else "rehearsal_for_another_version",
        )
    return found, said.predicate.properties
