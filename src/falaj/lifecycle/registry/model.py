"""Registered models, immutable versions, admissions: frozen types and pure rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from falaj.governance.changes.inventory import Governed
from falaj.governance.changes.tiers import quorum
from falaj.kernel.access import Action
from falaj.kernel.clock import parse_iso
from falaj.kernel.digests import FileEntry, short
from falaj.kernel.environments import DEV, MEASUREMENT, PRODUCTION, STAGING
from falaj.kernel.errors import Denied, FalajError, Invalid
from falaj.kernel.names import NAME, NAME_RULE
from falaj.lifecycle.evidence.model import Verdict, asks_champion
from falaj.lifecycle.registry.waiver import NOTHING, WAIVER_ACTIONS, Standing, fits
from falaj.lifecycle.training.foreign import is_import

VERSION_READ = Action("registry.read", "read", "ModelVersion", "see versions, their files and their evidence")
VERSION_PACKAGE = Action("registry.package", "system", "ModelVersion", "name and store a packaged model")
VERSION_REGISTER = Action("registry.register", "system", "ModelVersion", "give a version its number, or refuse it")
VERSION_ADMIT = Action("registry.admit", "risk", "ModelVersion", "admit a version to an environment")
VERSION_ADMIT_FLOW = Action("registry.admit_approved", "system", "ModelVersion", "admit a version within a flow")
VERSION_MOVE = Action("registry.move", "system", "ModelVersion", "move a version to another state")
VERSION_PROMOTE = Action("registry.promote", "engineering", "ModelVersion", "carry a version on to an environment")
VERSION_REHEARSE = Action("registry.rehearse", "system", "ModelVersion", "sign how a version's rehearsal went")
ENVIRONMENT_READ = Action("registry.read_environments", "read", "Environment", "see environments and how two differ")
ACTIONS = (
    VERSION_READ, VERSION_PACKAGE, VERSION_REGISTER, VERSION_ADMIT, VERSION_ADMIT_FLOW, VERSION_MOVE, VERSION_PROMOTE,
    VERSION_REHEARSE, ENVIRONMENT_READ, *WAIVER_ACTIONS,
)  # fmt: skip

STATES = (
    "candidate", "refused", "registered", "awaiting approval", "approved", "rejected", "serving", "retired", "rolled back",
)  # fmt: skip
UNDECIDED = ("candidate", "refused", "registered", "awaiting approval")
"""The states in which new evidence may take the place of the old: no decision rests on that yet."""
ADMISSIBLE = ("approved", "serving", "retired")
"""The states in which a version may enter an environment where it takes traffic."""
TRIED = ("registered", "awaiting approval", *ADMISSIBLE)
"""The states in which a version may enter an environment before that one."""
SERVED = ("serving", "retired")
"""The states of a version that was the champion: giving it the traffic back challenges nobody."""

CHAMPION_CHANGED = "champion_changed"
NOT_STAGED = "not_staged"

_REFERENCE = re.compile(r"(?P<name>[^@]+)@(?P<number>[1-9]\d{0,8})\Z")


class Environment(msgspec.Struct, frozen=True):
    """Where versions may go, and what lets them in. Its key and its policy bear its name.

    `after` is the environment that must have admitted the version before, empty for the first. `approvals` people
    other than the author must approve, with each of `roles` among them. `rehearsal`: a version is rehearsed here, and
    leaves for the next environment only if it passed. `traffic`: callers are answered here; then the version's own
    approvals and roles are asked for, and a challenger must have met the champion that serves.
    """

    name: str
    after: str = ""
    approvals: int = 0
    roles: tuple[str, ...] = ()
    rehearsal: bool = False
    traffic: bool = False


def environments(approvals: int = 1, staging_approvals: int = 0) -> tuple[Environment, ...]:
    """The environments of a home, in the order in which a version passes them."""
    return (
        Environment(DEV),
        Environment(STAGING, after=DEV, approvals=staging_approvals, rehearsal=True),
        Environment(PRODUCTION, after=STAGING, approvals=approvals, traffic=True),
    )


MEASURING = Environment(MEASUREMENT)
"""The private data planes of a measurement: a valid signature lets a candidate in, for minutes."""


class ModelVersion(msgspec.Struct, frozen=True):
    """One packaged model. `number` is 0 until it is registered; `digest` is its name for machines."""

    model: str
    number: int
    digest: str
    state: str
    author: str
    run: str
    files: tuple[FileEntry, ...]
    signature: str  # blob digest of the OpenSSF signature bundle
    gates: tuple[str, ...] = ()  # the gates that it must pass, by name
    approvals: int = 1  # how many people other than the author must approve it for production
    evidence: str = ""  # digest of the evidence set
    reason: str = ""
    created_at: str = ""
    approver_roles: tuple[str, ...] = ()  # each must be held by one of those who approve it
    signed_at: str = ""  # when its signature was filed; empty for one that was filed with the version

    @property
    def imported(self) -> bool:
        """Whether it came from elsewhere: what it is missing may then be waived."""
        return is_import(self.run)

    @property
    def alias(self) -> str:
        """What people call it: `flight-delay@1`, or the start of its digest while it is a candidate."""
        return f"{self.model}@{self.number}" if self.number else f"{self.model}@{self.digest[7:19]}"


class PackageTask(msgspec.Struct, frozen=True):
    """A model folder, and the path of the ECDSA P-256 private key (PEM) to sign it with.

    With an empty `key` it is signed with one that nobody keeps, for whoever has the real one to sign again. `expected` is the digest that training gave it; another one is refused.
    """

    model: str
    key: str
    expected: str = ""


class PackageOutcome(msgspec.Struct, frozen=True):
    """The files, the digest that names the version, and the OpenSSF signature (a Sigstore bundle)."""

    files: tuple[FileEntry, ...]
    digest: str
    signature: dict[str, Any]


class Admission(msgspec.Struct, frozen=True):
    """What an admission says (its statement: `statements.admission_statement`).

    The verdict binds the version's files one by one, the evidence set and the approvals, for one
    environment, until it expires. One that rests on a waiver names it, and ends no later than the waiver does.
    `tier` is the model's risk tier then; `marks` say for good how it was let in: `one-person`, by its author alone.
    """

    digest: str
    model: str
    alias: str
    environment: str  # measurement | dev | staging | production
    files: tuple[FileEntry, ...]
    evidence: str
    approvals: tuple[str, ...]
    issued_at: str
    expires_at: str
    waiver: str = ""  # digest of the envelope of the waiver that it rests on; empty where every gate passed
    waived: tuple[str, ...] = ()  # the gates that the waiver lifts, by name
    tier: str = ""
    marks: tuple[str, ...] = ()


class Rehearsal(msgspec.Struct, frozen=True):
    """How a version answered real requests in the environment before production.

    `source` says where the requests came from: `journal` (what production was asked), `holdout`, or empty when there
    was nothing to ask. Latencies are milliseconds as the caller saw them, None without an answer; `statuses` counts
    looked-up view values: present, expired, missing. `reason` is empty for one that passed.
    """

    digest: str
    model: str
    alias: str
    environment: str
    evidence: str  # the set that the version was registered with
    passed: bool
    requests: int
    failures: int
    at: str
    source: str = ""
    p50_ms: float | None = None
    p99_ms: float | None = None
    statuses: dict[str, int] = {}
    reason: str = ""


def check_name(name: str) -> str:
    """Return a model's name if it can be one; raise `Invalid` otherwise."""
    if not NAME.match(name):
        raise Invalid(
            f"{name[:80]!r} cannot name a model",
            hint=NAME_RULE,
            code="bad_model_name",
        )
    return name


def parse_reference(text: str) -> tuple[str, int]:
    """`flight-delay@1` → ("flight-delay", 1). Raises `Invalid` for anything else."""
    match = _REFERENCE.match(text)
    if not match:
        raise Invalid(
            f"{text[:80]!r} does not name a version",
            hint="write MODEL@NUMBER, such as flight-delay@1",
            code="bad_version_name",
        )
    return check_name(match["name"]), int(match["number"])


class Before(msgspec.Struct, frozen=True):
    """What is known of the environment before: what it admitted and rehearsed last, verified with its own key."""

    environment: Environment
    admission: Admission | None = None
    rehearsal: Rehearsal | None = None


class Facts(msgspec.Struct, frozen=True):
    """What was found out about a version, each from bytes that were verified just now.

    `signature` is what is wrong with the model signature, None when it holds. `verdicts` maps a gate
    to the verdict of its verified statement. `approvals` are the ids that count, `missing_roles` the demanded roles
    that none of their givers held. `champion` is the digest that
    the verified champion statements compare with: empty when there was none, None when they do not say.
    `current` is the digest that serves in the environment now, empty when none does. `at` is the moment of asking.
    `waiver` is what covers the gates that are missing; `governed` what the model's inventory asks for, None where there
    is none. `own`: one of the approvals is its author's.
    """

    signature: FalajError | None
    verdicts: dict[str, Verdict]
    evidence: str
    approvals: tuple[str, ...]
    champion: str | None = None
    current: str = ""
    missing_roles: tuple[str, ...] = ()
    before: Before | None = None
    at: str = ""
    waiver: Standing = NOTHING
    governed: Governed | None = None
    own: bool = False


def asked(
    environment: Environment, version: ModelVersion, governed: Governed | None = None
) -> tuple[int, tuple[str, ...]]:
    """How many people must approve a version for an environment, and which roles must be among them: where callers are
    answered, no less than its model's risk tier asks for."""
    if not environment.traffic:
        return environment.approvals, environment.roles
    if governed is None:
        return version.approvals, version.approver_roles
    return quorum(governed.tier, version.approvals, version.approver_roles)


def check_admissible(version: ModelVersion, environment: Environment, facts: Facts) -> None:
    """Raise `Denied` unless this version may enter this environment.

    A measurement needs a valid signature only; everything else needs every gate passed in verified evidence,
    the evidence set that the version was registered with, that nobody refused it since, what the environment before
    says of it, and enough approvals; and where callers are answered, that the champion that it was compared with
    still serves.
    """
    where = f"{version.alias} is not admitted to {environment.name}"
    if facts.signature is not None:
        raise Denied(
            f"{where}: {facts.signature.message}",
            hint="register it through `falaj train`, which signs what it packages",
            code="unsigned" if facts.signature.code == "unsigned" else "bad_signature",
        )
    _check_oversight(version, environment, facts)
    if environment == MEASURING:
        return
    failed = unpassed(unwaived(version, facts.verdicts), facts.verdicts)
    if failed:
        raise Denied(
            f"{where}: {'; '.join(failed)}",
            hint=f"see `falaj evidence show {version.alias}`; train a version that passes",
            code="evidence_missing",
        )
    if facts.evidence != version.evidence:
        raise Denied(
            f"{where}: its evidence is not the set that it was registered with",
            hint=f"train it again, and let someone other than {version.author} approve it on the new evidence",
            code="evidence_changed",
        )
    _check_waiver(version, where, facts)
    _check_before(version, environment, where, facts)
    _check_approvals(version, environment, where, facts)
    if version.state not in (ADMISSIBLE if environment.traffic else TRIED):
        why = f" ({version.reason})" if version.reason else ""
        raise Denied(
            f"{where}: it is {version.state}{why}",
            hint=f"`falaj versions {version.model}` shows where each version stands; train another one",
            code="wrong_state",
        )
    if environment.traffic:
        _check_champion(version, where, facts)


def _check_oversight(version: ModelVersion, environment: Environment, facts: Facts) -> None:
    """The model is not retired; and where callers are answered, nothing of its inventory stands in the way.

    What served before may come back while a validation is overdue: a roll-back is no promotion.
    """
    for freeze in facts.governed.freezes if facts.governed else ():
        if freeze.entirely or (environment.traffic and (freeze.always or version.state not in SERVED)):
            raise freeze.error


def missing(version: ModelVersion, verdicts: Mapping[str, Verdict]) -> tuple[str, ...]:
    """The gates that an imported version is missing, by signed statements that say so. A trained one misses none: it fails."""
    return tuple(g for g in version.gates if verdicts.get(g) is Verdict.MISSING) if version.imported else ()


def unwaived(version: ModelVersion, verdicts: Mapping[str, Verdict]) -> tuple[str, ...]:
    """The gates that a version must pass: all, less those that an imported one is missing, which need a waiver."""
    lacking = missing(version, verdicts)
    return tuple(g for g in version.gates if g not in lacking)


def _check_waiver(version: ModelVersion, where: str, facts: Facts) -> None:
    """What is missing is covered by a waiver for this version, this evidence and these gates, now."""
    lacking = missing(version, facts.verdicts)
    if not lacking:
        return
    standing = facts.waiver
    problem, code = standing.problem, standing.code
    if standing.waiver is not None:
        problem, code = fits(standing.waiver, version.digest, facts.evidence, lacking, parse_iso(facts.at))
    if code:
        named = " ".join(f"--missing '{g}'" for g in lacking)
        propose = f"`falaj waiver propose {version.alias} {named} --reason '…' --until DATE`"
        sign = f"somebody else signs it: `falaj waiver sign {version.alias} --reason '…'`"
        two = f"two people other than {version.author} may waive it: {propose}"
        hint = sign if code == "waiver_unsigned" else two
        raise Denied(f"{where}: {', '.join(lacking)} missing, and {problem}", hint=hint, code=code)


def _check_before(version: ModelVersion, environment: Environment, where: str, facts: Facts) -> None:
    """The environment before has admitted these bytes on this evidence, and rehearsed them if it rehearses."""
    if not environment.after:
        return
    before = facts.before
    if before is None or before.environment.name != environment.after:
        raise Denied(
            f"{where}: nothing is known of {environment.after}", hint=_CARRY_ON % version.alias, code=NOT_STAGED
        )
    lacking = unstaged(version, before, facts.at)
    if lacking:
        raise Denied(f"{where}: {lacking}", hint=_CARRY_ON % version.alias, code=NOT_STAGED)


_CARRY_ON = "carry it on: `falaj promote %s --to staging`, which admits, rehearses and signs"


def unstaged(version: ModelVersion, before: Before, at: str) -> str:
    """Why a version may not leave an environment for the next at the moment `at` (RFC 3339); empty when it may."""
    name, admission, rehearsal = before.environment.name, before.admission, before.rehearsal
    subject = (version.digest, name, version.evidence)
    if admission is None or (admission.digest, admission.environment) != subject[:2]:
        return f"{name} has not admitted it"
    if admission.evidence != version.evidence:
        return f"{name} admitted it on other evidence"
    if not at or parse_iso(admission.expires_at) <= parse_iso(at):
        return f"its admission to {name} expired at {admission.expires_at}"
    if not before.environment.rehearsal:
        return ""
    if rehearsal is None or (rehearsal.digest, rehearsal.environment, rehearsal.evidence) != subject:
        return f"it was not rehearsed in {name}"
    return "" if rehearsal.passed else f"its rehearsal in {name} failed: {rehearsal.reason}"


def _check_approvals(version: ModelVersion, environment: Environment, where: str, facts: Facts) -> None:
    """As many people as are asked for, with the demanded roles among them."""
    needed, _ = asked(environment, version, facts.governed)
    option = "" if environment.traffic else f" --environment {environment.name}"
    command = f"`falaj approve {version.alias}{option} --reason '…'`"
    if len(facts.approvals) < needed:
        raise Denied(
            f"{where}: {len(facts.approvals)} of {needed} approvals",
            hint=f"someone other than {version.author} approves it: {command}",
            code="not_approved",
        )
    if facts.missing_roles:
        roles = " and ".join(facts.missing_roles)
        raise Denied(
            f"{where}: nobody approved it as {roles}",
            hint=f"someone other than {version.author} who holds the role {roles} approves it: {command}",
            code="not_approved",
        )


def _check_champion(version: ModelVersion, where: str, facts: Facts) -> None:
    """A champion gate holds against the version that it was measured against, and no other.

    Where no version serves there is nobody to be worse than; a version that served before is no challenger.
    """
    if not asks_champion(unwaived(version, facts.verdicts)) or version.state in SERVED:
        return
    if facts.current in ("", version.digest, facts.champion):
        return
    compared = f"it was compared with {short(facts.champion)}" if facts.champion else "it was compared with no champion"
    raise Denied(
        f"{where}: {compared}, and {short(facts.current)} serves now",
        hint=f"train it again: it is then measured against the version that serves, and someone other than {version.author} approves it on the new evidence",
        code=CHAMPION_CHANGED,
    )


def unpassed(
    gates: tuple[str, ...], verdicts: dict[str, Verdict], reasons: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """The gates without a passed verdict, in words, with their reasons as far as given; no gates at all is a failure too."""
    if not gates:
        return ["no gate was declared for it"]
    failed = [gate for gate in gates if verdicts.get(gate) is not Verdict.SUCCESSFUL]
    return [f"{gate}: {verdicts.get(gate) or 'no evidence'}{_because(reasons.get(gate, ''))}" for gate in failed]


def _because(reason: str) -> str:
    """A reason on one line, in brackets."""
    text = " ".join(reason.split())
    return f" ({text if len(text) <= 200 else text[:199] + '…'})" if text else ""
