"""The model inventory: what is known of a model, and what follows from it. Frozen types and pure rules.

Some of it the project's code declares, some people add later; both are shown. What follows is `Governed`: the tier
that holds, and whether anything new of the model may enter production.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from falaj.governance.changes.tiers import Tier, in_force, tier_of
from falaj.kernel.access import Action
from falaj.kernel.clock import parse_iso
from falaj.kernel.errors import Denied, FalajError, Invalid

INVENTORY_READ = Action("changes.read_inventory", "read", "Model", "see the inventory of models")
INVENTORY_SET = Action("changes.set_inventory", "risk", "Model", "say who owns a model, what for, and its risk tier")
MODEL_RETIRE = Action("changes.retire", "risk", "Model", "retire a model, or reinstate it")
MODEL_VALIDATE = Action("changes.validate", "risk", "ModelVersion", "write down an independent validation of a model")
KILL = Action("changes.kill", "risk", "Model", "kill a model: its declared fallback answers in its place")
REVIVE_PROPOSE = Action("changes.propose_revival", "risk", "Model", "propose to revive a killed model")
REVIVE = Action("changes.revive", "risk", "Model", "revive a killed model that somebody else proposed to revive")

PREVIOUS, VERSION, ANSWER, REFUSE = KINDS = ("previous", "version", "answer", "refuse")
OUTCOMES = ("passed", "passed with findings", "failed")
FACTS = ("owner", "intended_use", "impact", "tier", "regulated", "fallback", "revalidate_by", "retired")
OUTPUTS = {"binary": ("probability", "class"), "multiclass": ("probabilities", "class"), "regression": ("value",)}
"""What an answer holds, by task."""
_LONGEST = 2000  # characters of a fact


class Fallback(msgspec.Struct, frozen=True, omit_defaults=True):
    """What answers in place of a killed model: the version that served before (`previous`), the version `number`, a
    constant `answer` (output → value), or nobody (`refuse`: callers get 503 `model_killed`)."""

    kind: str = REFUSE
    number: int = 0
    answer: dict[str, Any] = {}

    @property
    def words(self) -> str:
        """For people."""
        if self.kind == ANSWER:
            return "the answer " + ", ".join(f"{name}={value}" for name, value in self.answer.items())
        return {PREVIOUS: "the version that served before", VERSION: f"version {self.number}"}.get(self.kind, "refusal")


class Declared(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a project's code says of a model. Empty where it says nothing."""

    owner: str = ""
    intended_use: str = ""
    impact: str = ""
    tier: str = ""
    regulated: bool = False
    fallback: Fallback | None = None


class Fact(msgspec.Struct, frozen=True):
    """Something that a person said of a model. `value` is JSON-able."""

    model: str
    fact: str
    value: Any
    by: str
    at: str
    reason: str


class Validation(msgspec.Struct, frozen=True):
    """An independent validation of a model, on one of its versions. It holds until `until` (RFC 3339)."""

    id: str
    model: str
    alias: str
    digest: str
    author: str
    validator: str
    outcome: str
    findings: tuple[str, ...]
    at: str
    until: str


class Kill(msgspec.Struct, frozen=True):
    """A model that was killed. `proposed_*` say who wants it revived, `revived_*` who agreed."""

    id: str
    model: str
    by: str
    reason: str
    at: str
    fallback: Fallback
    proposed_by: str = ""
    proposed_at: str = ""
    proposed_reason: str = ""
    revived_by: str = ""
    revived_at: str = ""
    revived_reason: str = ""


class Freeze(msgspec.Struct, frozen=True):
    """Why nothing new of a model enters production, as the error that says so. `entirely`: it is admitted nowhere, not
    even to be measured; `always`: nor may what served before come back."""

    error: FalajError
    entirely: bool = False
    always: bool = False


class Governed(msgspec.Struct, frozen=True):
    """What follows for a model from its inventory. `freezes` is empty where nothing stands in the way; one for a `kill`
    or a retirement holds for every version, the others for versions that have not served yet."""

    model: str
    tier: Tier
    regulated: bool = False
    approval_days: int = 0
    freezes: tuple[Freeze, ...] = ()
    killed: bool = False
    retired: bool = False


class Known(msgspec.Struct, frozen=True):
    """Everything that was said of a model: `facts` by name, the newest each; `tiers` that the code declared since the tier
    was last confirmed; `validations` newest first; `kill` the one that holds."""

    model: str
    declared: Declared
    tiers: tuple[str, ...]
    facts: dict[str, Fact]
    validations: tuple[Validation, ...]
    kill: Kill | None

    def said(self, fact: str, otherwise: Any) -> Any:
        """What a person said, else what the code declares."""
        return self.facts[fact].value if fact in self.facts else otherwise

    @property
    def regulated(self) -> bool:
        """Regulated if anybody says so: the code or a person."""
        return self.declared.regulated or bool(self.said("regulated", False))

    @property
    def fallback(self) -> Fallback:
        """What answers when it is killed; a person's word before the code's, refusal without either."""
        said = self.said("fallback", None)
        return msgspec.convert(said, Fallback) if said is not None else self.declared.fallback or Fallback()


def due(known: Known) -> str:
    """When the model has to be validated again (RFC 3339); empty when nobody has said. The newest word counts."""
    fact, validation = known.facts.get("revalidate_by"), next(iter(known.validations), None)
    if fact is not None and (validation is None or fact.at > validation.at):
        return str(fact.value)
    return validation.until if validation is not None else ""


def governed(known: Known, default: str, approval_days: int, now: datetime) -> Governed:
    """What follows now. `default` is the tier of models that nobody has put into one."""
    confirmed = str(known.said("tier", ""))
    tier = in_force(list(known.tiers), confirmed, default, regulated=known.regulated)
    return Governed(
        model=known.model,
        tier=tier,
        regulated=known.regulated,
        approval_days=min(approval_days, tier.approval_days),
        freezes=tuple(_freezes(known, tier, now)),
        killed=known.kill is not None,
        retired=bool(known.said("retired", False)),
    )


def _freezes(known: Known, tier: Tier, now: datetime) -> list[Freeze]:
    model, found = known.model, []
    validate = f"somebody other than the author validates it: `falaj inventory validate {model}@N --outcome passed --until DATE`"
    last, by = next(iter(known.validations), None), due(known)
    if known.said("retired", False):
        fact = known.facts["retired"]
        retired = Denied(
            f"{model} was retired by {fact.by} on {fact.at[:10]}: {fact.reason}",
            hint=f"use another model; if it was retired by mistake: `falaj inventory set {model} --reinstate --reason '…'`",
            code="model_retired",
        )
        found.append(Freeze(retired, entirely=True, always=True))
    if known.kill is not None:
        killed = Denied(
            f"{model} was killed by {known.kill.by}: {known.kill.reason}",
            hint=f"two people revive it: `falaj revive {model} --reason '…'`",
            code="model_killed",
        )
        found.append(Freeze(killed, always=True))
    if last is not None and last.outcome == "failed":
        failed = Denied(
            f"the validation of {last.alias} by {last.validator} failed: {'; '.join(last.findings)}",
            hint=f"mend what was found; then {validate}",
            code="validation_failed",
        )
        found.append(Freeze(failed))
    elif last is None and tier.validated:
        lacking = Denied(
            f"nobody has validated {model}, which is of {tier.name} risk", hint=validate, code="validation_missing"
        )
        found.append(Freeze(lacking))
    if by and now >= parse_iso(by):
        overdue = Denied(
            f"{model} had to be validated again by {by[:10]}; what serves goes on serving",
            hint=validate,
            code="revalidation_overdue",
        )
        found.append(Freeze(overdue))
    return found


def check_tier(tier: str, *, regulated: bool) -> Tier:
    """Return the tier; raise `Invalid` unless it exists and may be used for what the model is used for."""
    found = tier_of(tier)
    if regulated and not found.regulated:
        raise Invalid(
            f"the tier {tier} is never for regulated use",
            hint="take limited, high or critical",
            code="tier_not_for_regulated",
        )
    return found


def check_fallback(fallback: Fallback, task: str = "") -> Fallback:
    """Return the fallback; raise `Invalid` unless it can answer. `task`, if known, says which outputs an answer has."""
    wrong = ""
    if fallback.kind not in KINDS:
        wrong = f"there is no fallback {fallback.kind[:40]!r}"
    elif fallback.kind == VERSION and fallback.number < 1:
        wrong = "a fallback version has a number from 1"
    elif fallback.kind == ANSWER and not fallback.answer:
        wrong = "a constant answer has no value"
    elif fallback.kind == ANSWER and any(not _answers(v) for v in fallback.answer.values()):
        wrong = "a constant answer holds something else than finite numbers"
    elif fallback.kind == ANSWER and task and set(fallback.answer) != set(OUTPUTS.get(task, fallback.answer)):
        wrong = f"the answer of a {task} model holds {' and '.join(OUTPUTS[task])}"
    if wrong:
        raise Invalid(
            wrong,
            hint="write previous, version:N, refuse, or an answer such as answer:probability=0.5,class=0",
            code="bad_fallback",
        )
    return fallback


def _answers(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(_answers(v) and not isinstance(v, list | tuple) for v in value)
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def check_fact(fact: str, value: Any, known: Known) -> Any:
    """The value as it is kept. Raises `Invalid` for one that cannot be."""
    if fact in ("owner", "intended_use", "impact"):
        if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST:
            raise Invalid(f"the {fact} is no text", hint=f"write 1 to {_LONGEST} characters", code="bad_inventory_fact")
        return value.strip()
    if fact == "tier":
        return check_tier(str(value), regulated=known.regulated).name
    if fact == "regulated" and value:
        check_tier(str(known.said("tier", "")) or "limited", regulated=True)
    if fact == "fallback":
        return msgspec.to_builtins(check_fallback(msgspec.convert(value, Fallback)))
    return value


def check_validation(validation: Validation, known: Known, tier: Tier) -> Validation:
    """Return it; raise `Invalid` unless it is independent, says what it found, and ends when its tier lets it."""
    owner = str(known.said("owner", known.declared.owner))
    if validation.validator in (validation.author, owner):
        raise Invalid(
            f"{validation.validator} is the {'author' if validation.validator == validation.author else 'owner'} of what is validated",
            hint="a validation is independent: somebody else writes it down",
            code="validation_not_independent",
        )
    if validation.outcome not in OUTCOMES or (validation.outcome != "passed" and not validation.findings):
        raise Invalid(
            "a validation has an outcome, and findings unless it passed",
            hint=f"--outcome is one of {', '.join(OUTCOMES)}; say each finding: --finding '…'",
            code="bad_validation",
        )
    if any(not f.strip() or len(f) > _LONGEST for f in validation.findings):
        raise Invalid("a finding is no text", hint=f"write 1 to {_LONGEST} characters", code="bad_validation")
    at, until = parse_iso(validation.at), parse_iso(validation.until)
    longest = timedelta(days=tier.revalidate_days or 3660)
    if not at < until <= at + longest:
        raise Invalid(
            f"a validation of a {tier.name} risk model lasts until a day within {longest.days} days",
            hint="give a nearer day that is still to come: --until DATE",
            code="bad_validation",
        )
    return validation
