"""Waivers: what is missing of an imported version, and who answers for admitting it all the same. Types and pure rules.

A waiver lifts what is *missing*, never what *failed*; it is bound to one digest, one set of evidence and the gates that it names,
and it ends. Two people sign it, of the roles below, and neither is who imported the version. It becomes a signed in-toto statement
that the data plane reads too:

    predicateType  https://falaj.dev/predicates/waiver/v1
    subject        the version's digest
    predicate      {"waiver": `Waived`}

The data plane imports it too: nothing here reads SQL or blobs, and of signing it knows the verifying half.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from falaj.governance.signing.dsse import STATEMENT_TYPE, verify_envelope
from falaj.governance.signing.trust import Keys, every, valid_at
from falaj.kernel.access import Action
from falaj.kernel.clock import parse_iso
from falaj.kernel.errors import Conflict, Denied, Integrity, Invalid
from falaj.lifecycle.evidence.statements import STATEMENT, statement

WAIVER_READ = Action("registry.read_waivers", "read", "ModelVersion", "see what is waived of a version, and by whom")
WAIVER_PROPOSE = Action("registry.propose_waiver", "risk", "ModelVersion", "propose to waive what a version is missing")
WAIVER_SIGN = Action("registry.sign_waiver", "risk", "ModelVersion", "sign a waiver that somebody else proposed")
WAIVER_REVOKE = Action("registry.revoke_waiver", "risk", "ModelVersion", "revoke a waiver")
WAIVER_ACTIONS = (WAIVER_READ, WAIVER_PROPOSE, WAIVER_SIGN, WAIVER_REVOKE)

PREDICATE = "https://falaj.dev/predicates/waiver/v1"
ROLES = ("risk-officer", "platform-admin")
"""A waiver has a signature by each, and they are two people."""


class Signature(msgspec.Struct, frozen=True):
    """One person's signature: who, with the roles held then, why, and when (RFC 3339)."""

    principal: str
    roles: tuple[str, ...]
    reason: str
    at: str


class Waived(msgspec.Struct, frozen=True):
    """What a waiver says, and its statement holds. `waived` are gates by name, sorted; it holds before `until`."""

    id: str
    digest: str
    model: str
    alias: str
    author: str
    evidence: str
    waived: tuple[str, ...]
    reason: str
    proposed_at: str
    until: str
    signatures: tuple[Signature, ...] = ()

    @property
    def words(self) -> str:
        """For people: what is waived until when, and by whom."""
        people = " and ".join(s.principal for s in self.signatures)
        return f"{', '.join(self.waived)}: missing, waived until {self.until[:10]} by {people}"


class Revocation(msgspec.Struct, frozen=True):
    """Who revoked a waiver, when, and why."""

    principal: str
    at: str
    reason: str


class Waiver(msgspec.Struct, frozen=True):
    """A waiver as it is filed. `statement` is the blob digest of its envelope, empty until the last signature."""

    content: Waived
    statement: str = ""
    revoked: Revocation | None = None

    def state(self, now: str) -> str:
        """proposed | in force | expired | revoked, at the moment `now`."""
        if self.revoked:
            return "revoked"
        if parse_iso(now) >= parse_iso(self.content.until):
            return "expired"
        return "in force" if self.statement else "proposed"


class Standing(msgspec.Struct, frozen=True):
    """What covers a version now: the waiver read from its verified statement; else why there is none, and its code."""

    waiver: Waived | None = None
    statement: str = ""
    problem: str = "nobody waived it"
    code: str = "waiver_missing"


NOTHING = Standing()


class Lacking(msgspec.Struct, frozen=True):
    """What is not known of an imported version, for people. `words` says it in a line; `waived`: a waiver covers it now."""

    imported: str  # the import's id
    missing: tuple[str, ...]
    waived: bool
    words: str


def unsigned(content: Waived) -> str:
    """What the signatures of a waiver lack; empty when they are complete."""
    if any(s.principal == content.author for s in content.signatures):
        return f"{content.author} imported the version and may not sign"
    people = [s.principal for s in content.signatures]
    if len(set(people)) != len(people):
        return "one person signed twice"
    first, second = ROLES
    for one in content.signatures:
        for other in content.signatures:
            if one.principal != other.principal and first in one.roles and second in other.roles:
                return ""
    return f"two people must sign, one as {first} and one as {second}"


def check_waivable(gates: Sequence[str], missing: Sequence[str], failed: Sequence[str], *, imported: bool) -> None:
    """Raise unless exactly these gates can be waived: all that are missing, of a version where nothing else is wrong."""
    if not imported:
        raise Conflict(
            "the version was trained here: nothing of it is waived",
            hint="train one that passes its gates; a waiver is for imported versions only",
            code="waiver_not_for_trained",
        )
    if failed:
        raise Denied(
            f"what failed can never be waived: {'; '.join(failed)}",
            hint="improve the model, and import it again",
            code="waiver_of_a_failure",
        )
    strange = sorted(set(gates) - set(missing))
    if strange or not missing:
        raise Invalid(
            f"{', '.join(strange)[:200] or 'nothing'} is not missing",
            hint=f"missing is: {', '.join(missing) or 'nothing, so there is nothing to waive'}",
            code="waiver_not_missing",
        )
    left = sorted(set(missing) - set(gates))
    if left:
        raise Invalid(
            f"{', '.join(left)} is missing too",
            hint="name everything that is missing: --missing once for each; see `falaj evidence show`",
            code="waiver_not_all",
        )


def check_until(until: datetime, now: datetime, days: int) -> None:
    """Raise `Invalid` unless a waiver may end then: later than now, and within `days`."""
    if until <= now:
        raise Invalid("the waiver would be over before it begins", hint="name a later --until", code="waiver_past")
    if until > now + timedelta(days=days):
        raise Invalid(
            f"a waiver lasts {days} days at most",
            hint="name an earlier --until, and renew it then",
            code="waiver_too_long",
        )


def signed_by(content: Waived, signature: Signature) -> Waived:
    """The waiver with one signature more. Raises `Conflict` for a second one by the same person, `Denied` for the author's."""
    if signature.principal == content.author:
        raise Denied(
            f"{content.author} imported {content.alias} and may not sign its waiver",
            hint="two others sign it",
            code="waiver_by_author",
        )
    if any(s.principal == signature.principal for s in content.signatures):
        raise Conflict(
            f"{signature.principal} has signed this waiver already",
            hint="a second pair of eyes must be another person's",
            code="waiver_signed_already",
        )
    return msgspec.structs.replace(content, signatures=(*content.signatures, signature))


def fits(content: Waived, digest: str, evidence: str, missing: Sequence[str], now: datetime) -> tuple[str, str]:
    """Why a waiver does not cover what is missing of a version now, and the code; two empty strings when it does."""
    lacking = unsigned(content)
    if lacking:
        return lacking, "waiver_unsigned"
    if content.digest != digest:
        return "the waiver is for another version", "waiver_for_another"
    if content.evidence != evidence:
        return "the waiver was signed on other evidence", "waiver_evidence_changed"
    if now >= parse_iso(content.until):
        return f"the waiver expired at {content.until}", "waiver_expired"
    left = sorted(set(missing) - set(content.waived))
    if left:
        return f"the waiver does not name {', '.join(left)}", "waiver_not_all"
    return "", ""


def waiver_statement(content: Waived) -> dict[str, Any]:
    """The in-toto statement of a waiver."""
    return statement(content.alias, content.digest, PREDICATE, {"waiver": msgspec.to_builtins(content)})


def read_waiver(envelope: dict[str, Any], keys: Keys) -> Waived:
    """The waiver in an envelope that one of `keys` signed, if two people signed it and it is about what it names.

    Whether it has ended, and for which version it is asked, is the caller's to check. Raises `Integrity`.
    """
    payload = verify_envelope(envelope, STATEMENT_TYPE, every(keys))
    try:
        said = msgspec.json.decode(payload, type=_Statement)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Integrity(
            f"the waiver is signed but cannot be read: {e}",
            hint="the planes are of different versions: upgrade the data plane, then publish again",
            code="unreadable_payload",
        ) from e
    content = said.predicate.waiver
    signed = max((s.at for s in content.signatures), default="")
    verify_envelope(envelope, STATEMENT_TYPE, valid_at(keys, signed))
    if (said.type, said.predicate_type) != (STATEMENT, PREDICATE):
        raise refused("its statement is of another type", "not_a_waiver")
    if [s.digest for s in said.subject] != [{"sha256": content.digest.removeprefix("sha256:")}]:
        raise refused("it is about another version", "waiver_for_another")
    lacking = unsigned(content)
    if lacking:
        raise refused(lacking, "waiver_unsigned")
    return content


def refused(why: str, code: str) -> Integrity:
    """A waiver that does not say what it would have to."""
    return Integrity(
        f"the waiver cannot be accepted: {why}",
        hint="propose it again, and let two people sign it: `falaj waiver propose MODEL@N`",
        code=code,
    )


class _Subject(msgspec.Struct, frozen=True):
    digest: dict[str, str]
    name: str = ""


class _Predicate(msgspec.Struct, frozen=True):
    waiver: Waived


class _Statement(msgspec.Struct, frozen=True):
    type: str = msgspec.field(name="_type")
    subject: tuple[_Subject, ...]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: _Predicate
