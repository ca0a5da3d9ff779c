"""Quarantine: a dataset or a version that may not be used for now. Frozen types and pure rules.

Rows that break a contract go to a dataset's own quarantine when they are loaded, and nothing reads them. This one is of
things that were let in already: somebody has a doubt, and holds them until somebody else has looked.
"""

from __future__ import annotations

import re

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.errors import Invalid

QUARANTINE_READ = Action("changes.read_quarantine", "read", "Quarantine", "see what is in quarantine, and why")
QUARANTINE = Action("changes.quarantine", "risk", "Quarantine", "put a dataset or a version into quarantine")
QUARANTINE_LIFT = Action("changes.lift_quarantine", "risk", "Quarantine", "let somebody else's quarantine end")

DATASET, VERSION = KINDS = ("dataset", "version")
_NAMED = re.compile(r"[A-Za-z0-9_.-]{1,128}@[0-9]{1,9}\Z")


class Hold(msgspec.Struct, frozen=True):
    """`name` is in quarantine until `lifted_at` is set: a version `MODEL@N`, or a dataset from its version `NAME@N` on,
    for the versions after it have its rows too. Moments are RFC 3339."""

    id: str
    kind: str
    name: str
    by: str
    reason: str
    at: str
    lifted_by: str = ""
    lifted_at: str = ""
    lifted_reason: str = ""


def check_held(kind: str, name: str) -> None:
    """Raise `Invalid` unless this can name something to hold."""
    if kind not in KINDS or not _NAMED.match(name):
        raise Invalid(
            f"{name[:80]!r} cannot be put into quarantine",
            hint="name a version, MODEL@N, or with --dataset a dataset's version, NAME@N",
            code="bad_quarantine",
        )


def holding(holds: list[Hold], versions: tuple[str, ...], datasets: tuple[str, ...]) -> list[Hold]:
    """Those in force that hold one of these versions, or one of these datasets' versions or an earlier one of it."""
    return [
        h
        for h in holds
        if not h.lifted_at
        and (h.name in versions if h.kind == VERSION else any(_reaches(h.name, dataset) for dataset in datasets))
    ]


def _reaches(held: str, used: str) -> bool:
    (name, _, first), (other, _, number) = held.rpartition("@"), used.rpartition("@")
    return name == other and int(number) >= int(first)
