"""A home that lies elsewhere now: what its flows under way remember of the old place is moved.

A step's result may name folders of the home (tables, code, workspaces). Without this, a flow that is carried on in a
restored home would work on the home that it is a copy of.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from falaj.storage.keychain import keys_of
from falaj.storage.sealed import open_text, seal_text
from falaj.storage.sql.snapshot import reading

IDENTITY = "flows"
"""As what the progress of flows is sealed."""
_PLACES = (
    (
        "SELECT workflow_uuid, inputs FROM workflow_status WHERE status IN ('PENDING', 'ENQUEUED', 'DELAYED')"
        " AND inputs IS NOT NULL",
        "UPDATE workflow_status SET inputs = ? WHERE workflow_uuid = ?",
    ),
    (
        "SELECT i.workflow_uuid, i.inputs FROM workflow_input i JOIN workflow_status s USING (workflow_uuid)"
        " WHERE s.status IN ('PENDING', 'ENQUEUED', 'DELAYED') AND i.inputs IS NOT NULL",
        "UPDATE workflow_input SET inputs = ? WHERE workflow_uuid = ?",
    ),
    (
        "SELECT o.rowid, o.output FROM operation_outputs o JOIN workflow_status s USING (workflow_uuid)"
        " WHERE s.status IN ('PENDING', 'ENQUEUED', 'DELAYED') AND o.output IS NOT NULL",
        "UPDATE operation_outputs SET output = ? WHERE rowid = ?",
    ),
)
_UNDER_WAY = (
    "SELECT workflow_uuid, name, updated_at FROM workflow_status WHERE status IN ('PENDING', 'ENQUEUED', 'DELAYED')"
    " ORDER BY updated_at"
)


def move(flows: Path, old: Path, new: Path) -> int:
    """Rewrite paths below `old` in the inputs and step results of flows that have not ended; returns how many rows."""
    moved, keys = 0, keys_of(flows).flows
    with closing(sqlite3.connect(flows)) as database, database:
        for look, write in _PLACES:
            for row, text in database.execute(look).fetchall():
                plain = open_text(text, keys, IDENTITY)
                told = moved_text(plain, str(old), str(new))
                if told != plain:
                    database.execute(write, (seal_text(told, keys[0], IDENTITY) if plain != text else told, row))
                    moved += 1
    return moved


def moved_text(text: str, old: str, new: str) -> str:
    """A JSON document with every string that is `old`, or a path below it, moved to `new`; others as they are."""
    written = msgspec.json.encode(old)[1:-1].decode()  # a quotation mark in a name has a backslash before it there
    if written not in text:
        return text
    document = msgspec.json.decode(text)
    return msgspec.json.encode(_moved(document, old, new)).decode()


def under_way(flows: Path) -> list[tuple[str, str, int]]:
    """The flows that have not ended: id, name, when they were last touched (Unix milliseconds)."""
    with closing(reading(flows)) as database:
        return [(str(i), str(n), int(at)) for i, n, at in database.execute(_UNDER_WAY)]


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return new + value.removeprefix(old) if value == old or value.startswith(f"{old}/") else value
    if isinstance(value, list):
        return [_moved(v, old, new) for v in value]
    if isinstance(value, dict):
        return {k: _moved(v, old, new) for k, v in value.items()}
    return value
