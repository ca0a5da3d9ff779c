"""The entries of the audit log that concern a model, oldest first, read once for however many records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Protocol

import msgspec

from falaj.governance.audit.model import MAX_FOUND, Conditions, Entry, Found
from falaj.governance.changes.records import Step
from falaj.lifecycle.registry.model import ModelVersion


class Log(Protocol):
    """The audit log."""

    def search(self, conditions: Conditions) -> tuple[Found, ...]:
        """Newest first."""
        ...


class Noted(msgspec.Struct, frozen=True):
    """An entry and its place in the log."""

    index: int
    entry: Entry

    @property
    def flow(self) -> str:
        """The flow that did it, empty where a person did."""
        name, colon, _ = self.entry.operation_id.partition(":")
        return name if colon else ""


class Trail(msgspec.Struct, frozen=True):
    """A model's entries, oldest first."""

    model: str
    entries: tuple[Noted, ...]

    def of_flow(self, flow: str) -> list[Noted]:
        """What a flow did, and what was ordered of it."""
        wanted = (flow, f"{flow}:start")
        return [
            n
            for n in self.entries
            if n.flow == flow
            or n.entry.operation_id in wanted
            or n.entry.detail.get("flow") == flow
            or n.entry.detail.get("rollout") == flow
        ]

    def acts(self, action: str, outcome: str = "done") -> list[Noted]:
        """The entries of an action."""
        return [n for n in self.entries if n.entry.action == action and n.entry.outcome == outcome]

    def before(self, index: int, action: str) -> list[Noted]:
        """Those of an action before an entry, newest first."""
        return [n for n in reversed(self.acts(action)) if n.index < index]


def trail_of(log: Log, model: str, versions: list[ModelVersion]) -> Trail:
    """Everything about a model and its versions."""
    names = {model, *(v.alias for v in versions), *(f"{model}@{v.digest[7:19]}" for v in versions)}
    return _trail(model, chain.from_iterable(pages(log, Conditions(resource_id=name)) for name in names))


def trail_of_home(log: Log, actions: Iterable[str]) -> Trail:
    """Everything that was done by some actions, whatever to."""
    done = (pages(log, Conditions(action=action, outcome="done")) for action in actions)
    return _trail("", chain.from_iterable(done))


def _trail(model: str, found: Iterable[Found]) -> Trail:
    entries = {f.index: f.entry for f in found}
    return Trail(model, tuple(Noted(index, entry) for index, entry in sorted(entries.items())))


def pages(log: Log, conditions: Conditions) -> Iterator[Found]:
    """Every entry that meets the conditions, newest first, page by page."""
    wanted = msgspec.structs.replace(conditions, limit=MAX_FOUND)
    while True:
        page = log.search(wanted)
        yield from page
        if len(page) < MAX_FOUND:
            return
        wanted = msgspec.structs.replace(wanted, before_index=page[-1].index)


def steps(notes: list[Noted]) -> tuple[Step, ...]:
    """Entries as the history of a record, in their order."""
    ordered = sorted({n.index: n for n in notes}.values(), key=lambda n: n.index)
    return tuple(
        Step(n.index, n.entry.at, _who(n.entry), n.entry.action, n.entry.outcome, _told(n.entry)) for n in ordered
    )


def _who(entry: Entry) -> str:
    acting = entry.detail.get("on_behalf_of")
    return f"{entry.principal} for {acting}" if acting and acting != entry.principal else entry.principal


def _told(entry: Entry) -> str:
    """What an entry says in a few words."""
    detail = entry.detail
    for name in ("reason", "verdict", "to", "stage", "order", "decision"):
        if detail.get(name):
            return str(detail[name])[:200]
    routes = detail.get("routes")
    return ", ".join(f"{r['digest'][7:19]} {r['weight']} % {r['role']}" for r in routes)[:200] if routes else ""
