"""Reviews as use cases: answers come to people by rule or by request, somebody decides, and what waits too long is told."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.governance.policy.schema import principal_fact
from falaj.kernel.access import SYSTEM, Principal, Resource
from falaj.kernel.clock import iso, parse_iso
from falaj.kernel.digests import digest_of
from falaj.kernel.errors import Conflict, FalajError, Integrity, NotFound
from falaj.kernel.ids import new_id
from falaj.kernel.log import logger
from falaj.lifecycle.monitoring.policy import ReviewPolicy
from falaj.lifecycle.monitoring.ports import Alarms
from falaj.lifecycle.monitoring.reviews.model import (
    CONFIRMED,
    OVERDUE,
    OVERRIDDEN,
    PENDING,
    REVIEW_ASK,
    REVIEW_DECIDE,
    REVIEW_QUEUE,
    REVIEW_READ,
    RULE,
    Answered,
    Decided,
    Review,
    Word,
    check_because,
    check_code,
    override_of,
    wanted,
)
from falaj.lifecycle.monitoring.reviews.ports import Authors, Policies, ReviewStore, Versions
from falaj.lifecycle.serving.plane.journal import Prediction, row_of
from falaj.lifecycle.training.model import ModelContract
from falaj.storage.sql.database import Database, Tx

_log = logger(__name__)
_SALT = 16  # bytes


class Ports(msgspec.Struct, frozen=True):
    """What reviewing works with. `record` raises `NotFound`, `Invalid`, `Integrity`; `alarmed` gives the models whose incident
    of answers that wait is open, `logged` what the log says was decided, None where it has no decision."""

    database: Database
    store: ReviewStore
    policies: Policies
    versions: Versions
    authors: Authors
    alarms: Alarms
    alarmed: Callable[[], set[str]]
    logged: Callable[[str], Decided | None]
    record: Callable[[str], Prediction]


class ReviewService:
    """Who looks at which answer, and what they said."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports
        self._contracts: dict[str, ModelContract] = {}
        self._changes = 0  # counts what may have moved a date that `look` waits for
        self._lock = threading.Lock()
        self._seen = -1
        self._next: datetime | None = None
        self._late: set[str] | None = None

    # how answers come to people

    def take(self, batch: list[Prediction]) -> None:
        """Give the answers of a batch of the journal to people by the project's rule. A batch may come again: nothing is
        given twice, so it is done before the journal's cursor moves on."""
        policies: dict[str, ReviewPolicy | None] = {}
        found: dict[str, list[Review]] = {}
        for record in batch:
            if record.model not in policies:
                policies[record.model] = self._p.policies.review(record.model)
            policy = policies[record.model]
            if policy is not None and policy.rules and _answers(record):
                found.setdefault(record.model, []).extend(self._by_rule(record, policy))
        for model, reviews in found.items():
            self._queue(model, reviews)

    def ask(self, actor: Principal, prediction: str, because: str) -> dict[str, Any]:
        """Have a person look at an answer, or at one row of it (`ID/ROW`); asked again, how that stands. Whoever got the answer,
        and whoever reads reviews, is told all of it, others where it stands. Each time is an entry of the log.

        Raises `Denied`, `NotFound`, `Invalid`, `Integrity`, and `Conflict` for what is no answer of a version.
        """
        told = check_because(because)
        self._door.check(Intent(actor, REVIEW_ASK, Resource("Prediction", prediction)))
        record = self._p.record(prediction)
        row = row_of(prediction, record)
        known = self._p.database.read(lambda tx: self._p.store.of(tx, record.id, row))
        if known is None:
            known = self._asked(actor, record, row, told)
        else:
            self._door.read(Intent(actor, REVIEW_ASK, Resource("Prediction", record.id), detail={"review": known.id}))
        checked = self._checked(known)
        reads = self._door.allows(Intent(actor, REVIEW_READ, Resource("Review", checked.id)))
        return checked.told() if reads or record.principal == actor.name else checked.briefly()

    def _asked(self, actor: Principal, record: Prediction, row: int, because: str) -> Review:
        """The review that somebody asked for, or that came to be meanwhile."""
        if not _answers(record):
            raise Conflict(
                f"{record.id} is no answer that anybody got from a version",
                hint="`falaj why ID` shows what it is; shadows, failures and fallbacks are not reviewed",
                code="nothing_to_review",
            )
        policy = self._policy(record.model)
        review = self._new(record, self._judged(record)[1][row], policy, (because, actor.name))

        def do(tx: Tx) -> Done[str]:
            earlier = self._p.store.of(tx, record.id, row)
            if earlier is None:
                self._p.store.add(tx, [review])
            return Done((earlier or review).id, {"review": (earlier or review).id})

        detail = {"model": review.model, "digest": review.digest, "row": row, "because": because}
        made = self._door.change(Intent(actor, REVIEW_ASK, Resource("Prediction", record.id), detail=detail), do)
        self._changed()
        return review if made == review.id else self.get(made)

    # what people say

    def decide(self, actor: Principal, review_id: str, word: Word) -> Review:
        """Confirm an answer, or override it. The same word again changes nothing.

        Raises `Denied` for the author of the version, `Conflict` when somebody else has decided, `NotFound`, `Invalid`.
        """
        found = self.find(review_id)
        if found is None:
            self._door.check(Intent(actor, REVIEW_READ, Resource("Review", review_id)))
            raise _no_review(review_id)
        self._door.check(Intent(actor, REVIEW_DECIDE, self._resource(found)))
        review = self._checked(found)
        told = self._decided(actor, review, word)
        if review.state != PENDING and _said(review) == _said(told):
            return review

        def do(tx: Tx) -> Done[str]:
            if not self._p.store.decide(tx, told):
                now = self._p.store.get(tx, review_id) or review
                raise Conflict(
                    f"{now.decided_by} has decided already: {now.state}",
                    hint=f"see what was decided: `falaj review show {review_id}`",
                    code="reviewed_already",
                )
            return Done(review.id)

        detail = {
            "model": review.model, "digest": review.digest, "prediction": review.prediction, "row": review.row,
            "because": review.because, "decision": told.state,
            "code": told.code, "commitment": told.commitment(),
        }  # fmt: skip
        self._door.change(Intent(actor, REVIEW_DECIDE, self._resource(review), detail=detail), do)
        self._changed()
        return told

    def may_decide(self, actor: Principal, review: Review) -> bool:
        """Whether this person may decide now, to offer it or not. Nothing is recorded."""
        return review.state == PENDING and self._door.allows(Intent(actor, REVIEW_DECIDE, self._resource(review)))

    # looking

    def shown(self, actor: Principal, review_id: str) -> Review:
        """One review, for a person: that it was looked at stands in the log. Raises as `get`, and `Denied`."""
        self._door.read(Intent(actor, REVIEW_READ, Resource("Review", review_id)))
        return self.get(review_id)

    def listed(self, actor: Principal, state: str = "", model: str = "", limit: int = 100) -> list[Review]:
        """As `all`, for a person: that they were looked at stands in the log. Raises `Denied`."""
        asked = {"state": state, "model": model, "limit": limit}
        apart = msgspec.structs.replace(actor, project="")  # each row is asked about afterwards
        self._door.read(Intent(apart, REVIEW_READ, Resource("Review", "*"), detail=asked))
        return self.all(state, model, limit)

    def all(self, state: str = "", model: str = "", limit: int = 100) -> list[Review]:
        """Those that wait, the one that is due first at the top; then the decided ones, newest first. Raises `Integrity` when one
        of these is not as it was decided."""
        found = self._p.database.read(lambda tx: self._p.store.all(tx, state, model, limit))
        return [self._checked(r) for r in found]

    def waiting(self) -> int:
        """How many answers wait for a person."""
        return self._p.database.read(self._p.store.waiting)

    def get(self, review_id: str) -> Review:
        """One review. Raises `NotFound`, and `Integrity` when it is not as the log says that it was decided."""
        found = self.find(review_id)
        if found is None:
            raise _no_review(review_id)
        return self._checked(found)

    def find(self, review_id: str) -> Review | None:
        """One review, if there is one of this id; not compared with the log."""
        return self._p.database.read(lambda tx: self._p.store.get(tx, review_id))

    def told_of(self, prediction: str, row: int) -> dict[str, Any] | None:
        """The review of a row, if anybody was asked to look at it. Raises `Integrity`."""
        found = self._p.database.read(lambda tx: self._p.store.of(tx, prediction, row))
        return self._checked(found).told() if found else None

    def codes(self, model: str) -> tuple[str, ...]:
        """The reasons that an override of this model may have."""
        return self._policy(model).codes

    def choices(self, digest: str) -> tuple[str, ...]:
        """The classes that an override may name; none for a number."""
        contract = self._contract(digest)
        return () if contract.task == "regression" else contract.classes or ("false", "true")

    def look(self) -> None:
        """Open an incident for each model whose answers wait too long, and resolve it when none does any more."""
        now, changes = self._door.clock.now(), self._changes
        if changes == self._seen and (self._next is None or now < self._next):
            return
        at = iso(now)
        overdue = self._p.database.read(lambda tx: self._p.store.overdue(tx, at))
        before = self._p.alarmed() if self._late is None else self._late
        for model, (count, since) in overdue.items():
            waits = "1 answer waits" if count == 1 else f"{count:,} answers wait"
            self._p.alarms.open(
                model, OVERDUE, "", f"{waits} for a person longer than the project says, the first since {since}"
            )
        for model in before - overdue.keys():
            self._p.alarms.settle(model, OVERDUE)
        following = self._p.database.read(lambda tx: self._p.store.next_due(tx, at))
        self._late, self._seen = set(overdue), changes
        self._next = parse_iso(following) if following else None

    # parts

    def _by_rule(self, record: Prediction, policy: ReviewPolicy) -> list[Review]:
        task, rows = self._judged(record)
        return [self._new(record, a, policy, (RULE, SYSTEM.name)) for a in rows if wanted(policy, task, a.value)]

    def _judged(self, record: Prediction) -> tuple[str, list[Answered]]:
        """The model's task, and of each row what it answered. Where the contract cannot be read nobody knows which output
        counts: then no value is known, and a rule sends every row to people."""
        try:
            contract = self._contract(record.digest)
        except FalajError as e:
            _log.warning("no_contract_to_review_by", digest=record.digest, reason=e.message)
            return "", [Answered(row, None) for row in range(record.rows)]
        values = record.outputs.get(contract.score, [])
        return contract.task, [Answered(i, values[i] if i < len(values) else None) for i in range(record.rows)]

    def _queue(self, model: str, reviews: list[Review]) -> None:
        ids = sorted({r.prediction for r in reviews})
        if not _fresh(reviews, self._p.database.read(lambda tx: self._p.store.known(tx, ids))):
            return

        def do(tx: Tx) -> Done[int]:
            new = _fresh(reviews, self._p.store.known(tx, ids))  # somebody may have asked meanwhile
            self._p.store.add(tx, new)
            root = digest_of([[r.id, r.prediction, r.row] for r in new])
            return Done(len(new), {"model": model, "reviews": len(new), "root": root})

        self._door.change(Intent(SYSTEM, REVIEW_QUEUE, Resource("Review", "*")), do)  # nothing of the model changes
        self._changed()

    def _new(self, record: Prediction, answered: Answered, policy: ReviewPolicy, why: tuple[str, str]) -> Review:
        now = self._door.clock.now()
        return Review(
            id=new_id("rev", now),
            prediction=record.id,
            row=answered.row,
            model=record.model,
            digest=record.digest,
            answer=msgspec.json.encode(answered.value).decode(),
            because=why[0],
            asked_by=why[1],
            at=iso(now),
            due_at=iso(now + timedelta(seconds=policy.within_seconds)),
        )

    def _resource(self, review: Review) -> Resource:
        author = principal_fact(self._p.authors.author(review.digest))
        return Resource("Review", review.id, {"author": author})

    def _decided(self, actor: Principal, review: Review, word: Word) -> Review:
        now, salt = iso(self._door.clock.now()), secrets.token_hex(_SALT)
        by = msgspec.structs.replace(review, decided_by=actor.name, decided_at=now, salt=salt)
        if not word.to:
            return msgspec.structs.replace(by, state=CONFIRMED, code="", override="")
        value, code = (
            override_of(self._contract(review.digest), word.to),
            check_code(self._policy(review.model), word.code),
        )
        return msgspec.structs.replace(by, state=OVERRIDDEN, code=code, override=value)

    def _checked(self, review: Review) -> Review:
        """The review, if it is as the log says; as it is now, where somebody decided meanwhile. Raises `Integrity`."""
        logged = self._p.logged(review.id) or Decided()
        if logged != review.decided():  # row and entry are written together: the row as it is now fits, if any does
            review = self.find(review.id) or review
        if logged != review.decided():
            raise Integrity(
                f"{review.id} is not as the log says: there it is {logged.state}{f' by {logged.by}' if logged.by else ''}",
                hint="do not act on it; `falaj audit verify`, and look at who could change the database",
                code="review_altered",
            )
        return review

    def _policy(self, model: str) -> ReviewPolicy:
        return self._p.policies.review(model) or ReviewPolicy()

    def _contract(self, digest: str) -> ModelContract:
        if digest not in self._contracts:
            self._contracts[digest] = self._p.versions.contract(digest)
        return self._contracts[digest]

    def _changed(self) -> None:
        with self._lock:
            self._changes += 1


def _fresh(reviews: list[Review], known: set[tuple[str, int]]) -> list[Review]:
    return [r for r in reviews if (r.prediction, r.row) not in known]


def _no_review(review_id: str) -> NotFound:
    return NotFound(
        f"there is no review {review_id[:60]}", hint="`falaj review list` shows them", code="no_such_review"
    )


def _answers(record: Prediction) -> bool:
    """Whether a caller got this from a version: no shadow's output, no failure, nothing that was said in a killed model's place."""
    return bool(record.digest) and not record.primary and not record.error


def _said(review: Review) -> tuple[str, str, str, str]:
    return review.decided_by, review.state, review.code, review.override
