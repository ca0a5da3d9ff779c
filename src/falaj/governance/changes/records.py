"""Change records: what was changed, by whom, on whose authority, how to take it back, and what came of it. Pure.

A record is derived from the audit log and the tables each time somebody looks; its number is that of the entry of the log
that began the change. Only its review, which nobody could derive, is kept. The fields are those of change enablement in
ITIL 4 (initiator, reason, affected, risk, back-out plan, authority, schedule, history, post-implementation review).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.errors import Invalid

CHANGE_READ = Action("changes.read_records", "read", "Change", "see change records")
CHANGE_REVIEW = Action("changes.review", "risk", "Change", "write the review of a change after it was made")

TYPES = (
    "promotion", "rollback", "kill", "revival", "waiver", "approval revoked", "inventory", "retirement", "quarantine",
    "policy", "access", "key", "break-glass", "definition",
)  # fmt: skip
OUTCOMES = ("successful", "successful with issues", "failed")
_ID = re.compile(r"chg_(?P<index>0|[1-9]\d{0,17})\Z")
_LONGEST = 2000


class Affected(msgspec.Struct, frozen=True):
    """Something that a change concerns (a version, a rule, a principal, a key), and what becomes of it."""

    alias: str
    digest: str
    part: str  # takes the traffic | gives it up | is killed | answers instead | is waived …


class Authority(msgspec.Struct, frozen=True):
    """Somebody who let the change be made: by approval, signature or order, with the roles held then and the reason."""

    principal: str
    roles: tuple[str, ...]
    what: str
    at: str
    reason: str


class Step(msgspec.Struct, frozen=True):
    """One entry of the audit log that belongs to the change."""

    index: int
    at: str
    principal: str
    action: str
    outcome: str
    told: str


class Review(msgspec.Struct, frozen=True):
    """The post-implementation review. `state` is open, written (by a person) or filled (from how the rollout ended)."""

    state: str
    outcome: str = ""
    text: str = ""
    reviewer: str = ""
    at: str = ""


class ChangeRecord(msgspec.Struct, frozen=True):
    """One change. Times are RFC 3339, empty for what has not come.

    `model` is empty for a change of the home itself. `kind` is standard (the platform may do it by itself), normal (people decided before) or emergency (it could not wait).
    `state` is planned, under way, done, refused or backed out. `back_out` is the command that takes it back, `back_out_to`
    the version that then answers, empty where none does.
    """

    id: str
    type: str
    kind: str
    title: str
    state: str
    model: str
    initiator: str
    reason: str
    affected: tuple[Affected, ...]
    environments: tuple[str, ...]
    risk: str
    back_out: str
    back_out_to: str
    authority: tuple[Authority, ...]
    requested_at: str
    started_at: str
    finished_at: str
    history: tuple[Step, ...]
    review: Review


class Summary(msgspec.Struct, frozen=True):
    """A change in a line of a list."""

    id: str
    at: str
    type: str
    kind: str
    model: str
    title: str
    state: str
    initiator: str
    review: str


def summary(record: ChangeRecord) -> Summary:
    """The record as it stands in lists."""
    return Summary(
        record.id, record.requested_at, record.type, record.kind, record.model, record.title, record.state,
        record.initiator, record.review.state,
    )  # fmt: skip


def change_id(index: int) -> str:
    """The name of the change that an entry of the log began."""
    return f"chg_{index}"


def entry_of(change: str) -> int:
    """The entry that began a change. Raises `Invalid` for what names none."""
    match = _ID.match(change)
    if not match:
        raise Invalid(
            f"{change[:40]!r} names no change",
            hint="`falaj changes list` shows them, such as chg_42",
            code="bad_change",
        )
    return int(match["index"])


def check_type(name: str) -> None:
    """Raise `Invalid` unless there are changes of this type; empty is any."""
    if name and name not in TYPES:
        raise Invalid(
            f"there is no type of change {name[:40]!r}", hint=f"use one of {', '.join(TYPES)}", code="bad_change_type"
        )


def check_review(outcome: str, text: str) -> str:
    """The text as it is kept. Raises `Invalid` for an outcome that does not exist, or without words."""
    if outcome not in OUTCOMES or not text.strip() or len(text) > _LONGEST:
        raise Invalid(
            "a review has an outcome and a text",
            hint=f"--outcome is one of {', '.join(OUTCOMES)}; say what was seen: --text '…'",
            code="bad_review",
        )
    return text.strip()


def markdown(record: ChangeRecord) -> str:
    """The record as a page."""
    rows = [
        ("Type", f"{record.type} ({record.kind})"),
        ("State", record.state),
        ("Model", record.model or "all: a change of the home itself"),
        ("Initiator", record.initiator),
        ("Reason", record.reason),
        ("Risk", record.risk),
        ("Environments", ", ".join(record.environments)),
        ("Back-out", f"`{record.back_out}`" if record.back_out else ""),
        ("Back-out leads to", record.back_out_to),
        ("Requested", record.requested_at),
        ("Started", record.started_at),
        ("Finished", record.finished_at),
    ]
    parts = [f"# {record.id}: {_cell(record.title)}", _table(("", ""), [(n, _cell(v) or "–") for n, v in rows])]
    affected = [(a.alias, f"`{a.digest}`" if a.digest else "–", a.part) for a in record.affected]
    parts += ["## Affected", _table(("what", "digest", "part"), affected)]
    authority = [(a.principal, ", ".join(a.roles), a.what, a.at, a.reason) for a in record.authority]
    parts += ["## Authority", _table(("who", "roles", "what", "when", "reason"), authority)]
    steps = [(str(s.index), s.at, s.principal, f"`{s.action}`", s.outcome, s.told) for s in record.history]
    parts += ["## Decision history", _table(("entry", "when", "who", "action", "outcome", "told"), steps)]
    parts += ["## Post-implementation review", _review(record.review)]
    return "\n\n".join(parts) + "\n"


def _review(review: Review) -> str:
    if review.state == "open":
        return "Open: nobody has written it yet."
    by = f"{review.reviewer}, {review.at}" if review.state == "written" else f"filled from the rollout, {review.at}"
    return f"**{_cell(review.outcome)}** ({_cell(by)})\n\n{_cell(review.text)}"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    if not rows:
        return "None."
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(str(c)) or "–" for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """A text on one line that neither ends a cell nor begins markup."""
    return " ".join(text.replace("\\|", "|").replace("|", "\\|").replace("<", "&lt;").split())
