"""What does not hold is not handed to an outsider; a house for each, for it is broken afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from falaj.lifecycle.evidence.store import statements_table
from falaj.lifecycle.registry.model import ModelVersion
from falaj.storage.blobs.local import blob_path
from tests.lifecycle.house import House, house


def break_statement(home: House, version: ModelVersion) -> None:
    wrong = home.plane.blobs.put(b'{"payload":"","payloadType":"x","signatures":[]}')
    home.sql(update(statements_table).where(statements_table.c.digest == version.digest).values(envelope=wrong))


def break_file(home: House, version: ModelVersion) -> None:
    path = blob_path(home.plane.layout.blobs, version.files[0].sha256)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def break_set(home: House, version: ModelVersion) -> None:
    first = (statements_table.c.digest == version.digest) & (statements_table.c.position == 0)
    home.sql(statements_table.delete().where(first))


@pytest.mark.parametrize("break_it", [break_statement, break_file, break_set])
def test_what_does_not_hold_is_not_handed_out(break_it: Any, tmp_path: Path) -> None:
    with house(tmp_path) as home:
        version = home.registered()
        break_it(home, version)
        answer = home.api().get(f"/api/v1/models/{version.model}/versions/{version.number}/dossier")
        assert answer.status_code != 200 and "is not handed out" in answer.json()["error"]
        assert home.log(action="evidence.export", outcome="refused")
