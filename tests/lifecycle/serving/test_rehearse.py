"""What a rehearsal asks: the newest requests that production's data plane answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from falaj.kernel.clock import SystemClock
from falaj.lifecycle.serving.model import RehearseTask
from falaj.lifecycle.serving.plane.journal import BATCH_ROLE, Journal, Prediction
from falaj.lifecycle.serving.steps.rehearse import requests_for
from tests.lifecycle.serving.plane.fleet import flight_contract


def written(journal: Journal, distance: float, **more: Any) -> None:
    inputs = {"distance": [distance], "hour": [7], "carrier": ["AA"], "origin": ["JFK"]}
    record: dict[str, Any] = {"inputs": inputs, "outputs": {"probability": [0.5]}, "rows": 1, "generation": 1, "at": 1}
    told = {"model": "flight-delay", "version": "flight-delay@1", "digest": "d", "principal": "shop", "worker": "1"}
    journal.append(Prediction(id=journal.next_id, **{**record, **told, **more}))


def test_it_asks_the_newest_and_nothing_that_no_data_plane_was_asked(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SystemClock())
    for distance in (1.0, 2.0, 3.0):
        written(journal, distance)
    written(journal, 4.0, primary="p_1", role="shadow")
    written(journal, 5.0, error="it failed", outputs={})
    written(journal, 6.0, role=BATCH_ROLE)
    written(journal, 7.0, model="other")
    journal.close()
    task = RehearseTask(flight_contract("flight-delay"), "d", str(tmp_path), "", "", requests=2)
    source, asked = requests_for(task)
    assert (source, [columns["distance"] for columns in asked]) == ("journal", [[3.0], [2.0]])
