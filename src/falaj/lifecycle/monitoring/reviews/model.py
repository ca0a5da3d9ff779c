"""A review of one answer by a person: frozen types and pure rules.

An answer comes to people by the project's rule or because somebody asks. A person confirms it, or overrides it and says why
by a code. There is no free text: what is written about a person's case would be personal data, and could never be erased
from whatever was signed over it.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.digests import digest_of
from falaj.kernel.errors import Invalid
from falaj.lifecycle.monitoring.policy import ReviewPolicy
from falaj.lifecycle.training.model import ModelContract

REVIEW_READ = Action(
    "monitoring.read_reviews", "audit", "Review", "see which answers people look at, and what they said"
)
REVIEW_ASK = Action("monitoring.ask_review", "inference", "Prediction", "ask that a person looks at an answer")
REVIEW_QUEUE = Action("monitoring.queue_reviews", "system", "Review", "give answers to people by the project's rule")
REVIEW_DECIDE = Action("monitoring.decide_review", "risk", "Review", "confirm or override an answer")

ACTIONS = (REVIEW_READ, REVIEW_ASK, REVIEW_QUEUE, REVIEW_DECIDE)

RULE, CONTESTED, DOUBTED = ("rule", "contested", "doubted")
"""Why an answer is looked at: the project's rule; whom it is about does not agree; somebody here has a doubt."""
CONFIRM, OVERRIDE = "confirm", "override"
PENDING, CONFIRMED, OVERRIDDEN = ("pending", "confirmed", "overridden")
OVERDUE = "review"
"""The kind of incident when answers wait for a person longer than the project says."""


class Review(msgspec.Struct, frozen=True):
    """One row of one answer, before a person. Moments are RFC 3339.

    `answer` is what the model said of the row, `override` what holds instead; both JSON. `salt` hides both in the log's
    commitment to them.
    """

    id: str
    prediction: str
    row: int
    model: str
    digest: str
    answer: str
    because: str
    asked_by: str
    at: str
    due_at: str
    state: str = PENDING
    decided_by: str = ""
    decided_at: str = ""
    code: str = ""
    override: str = ""
    salt: str = ""

    def told(self) -> dict[str, Any]:
        """As people and programs are told of it."""
        plain = {n: v for n, v in msgspec.structs.asdict(self).items() if n != "salt"}
        return {**plain, "answer": _value(self.answer), "override": _value(self.override)}

    def briefly(self) -> dict[str, Any]:
        """As whoever may not read answers is told of it: where it stands, and nothing of the person."""
        return {
            name: getattr(self, name) for name in ("id", "prediction", "row", "model", "because", "state", "due_at")
        }

    def commitment(self) -> str:
        """What the log holds of the answer that was looked at and of what holds instead: it fixes both and tells neither."""
        return digest_of([self.salt, self.id, self.answer, self.override]) if self.salt else ""

    def decided(self) -> Decided:
        """What the log must say of it."""
        if self.state == PENDING:
            return Decided(commitment=self.commitment())
        where = (self.prediction, self.row, self.model, self.digest)
        return Decided(self.state, self.decided_by, self.code, self.commitment(), where)


class Word(msgspec.Struct, frozen=True):
    """What a person says of an answer: that it holds, or `to` holds instead of it, for the reason `code`."""

    to: str = ""
    code: str = ""


class Decided(msgspec.Struct, frozen=True):
    """What the log holds of a decision; by default that there was none. `where` is the prediction, row, model and version."""

    state: str = PENDING
    by: str = ""
    code: str = ""
    commitment: str = ""
    where: tuple[str, int, str, str] = ("", 0, "", "")


class Answered(msgspec.Struct, frozen=True):
    """One row that was answered: its number and the judged output, a number or one for each class."""

    row: int
    value: Any


def wanted(policy: ReviewPolicy, task: str, value: Any) -> bool:
    """Whether the project's rule sends an answer to people. What is no finite number always goes to one."""
    if not policy.rules:
        return False
    if policy.every:
        return True
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        return True
    if policy.between is not None and policy.between[0] <= numbers[0] <= policy.between[1]:
        return True
    return policy.unsure is not None and confidence(task, numbers) < policy.unsure


def confidence(task: str, numbers: list[float]) -> float:
    """How sure a classifier is of its own choice: the probability of the class that it would choose."""
    return max(numbers[0], 1 - numbers[0]) if task == "binary" else max(numbers)


def override_of(contract: ModelContract, to: str) -> str:
    """What a person's word means for the model, as JSON: a class by its name, or a number.

    For a binary model the classes are `true` and `false` where the contract names none. Raises `Invalid`.
    """
    if contract.task == "regression":
        try:
            number = float(to)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise _no_answer(to, contract, "give a finite number")
        return msgspec.json.encode(number).decode()
    classes = contract.classes or ("false", "true")
    if to not in classes:
        raise _no_answer(to, contract, f"give one of {', '.join(classes)}")
    return msgspec.json.encode(to).decode()


def check_code(policy: ReviewPolicy, code: str) -> str:
    """The reason code of an override. Raises `Invalid` for one that the project does not have."""
    if code not in policy.codes:
        raise Invalid(
            f"{code[:60]!r} is no reason code of this model",
            hint=f"give one of {', '.join(policy.codes)}",
            code="bad_reason_code",
        )
    return code


def word_of(decision: str, to: str, code: str) -> Word:
    """What somebody meant to say. Raises `Invalid` for half a decision: a forgotten `to` must not confirm."""
    if (decision, bool(to), bool(code)) not in ((CONFIRM, False, False), (OVERRIDE, True, True)):
        raise Invalid(
            f"{decision[:20] or 'nothing'!r} is half a decision",
            hint=f"say {CONFIRM}, without more, or {OVERRIDE} with `to` and `code`",
            code="bad_decision",
        )
    return Word(to, code)


def check_because(because: str) -> str:
    """Why somebody asks. Raises `Invalid`."""
    if because not in (CONTESTED, DOUBTED):
        raise Invalid(
            f"{because[:60]!r} says not why a person is to look at it",
            hint=f"{CONTESTED}: whom it is about does not agree; {DOUBTED}: somebody here has a doubt",
            code="bad_review_request",
        )
    return because


def _no_answer(to: str, contract: ModelContract, hint: str) -> Invalid:
    return Invalid(f"{to[:60]!r} is no answer of {contract.model}", hint=hint, code="bad_override")


def _value(text: str) -> Any:
    return msgspec.json.decode(text) if text else None
