"""A version that a data plane would not load; a house of its own, whose clock goes on by a year."""

from __future__ import annotations

from datetime import timedelta

from tests.lifecycle.house import House
from tests.lifecycle.serving.office import ROWS, Office, as_parquet, given


def test_a_version_that_a_data_plane_would_not_load_scores_nothing(home: House) -> None:
    office = Office(home)
    graph = next(f for f in office.version.files if f.path == "model.onnx")
    name = graph.sha256.removeprefix("sha256:")
    blob = home.plane.layout.blobs / name[:2] / name
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert office.score(as_parquet(given()))["kind"] == "integrity"
    blob.write_bytes(whole)
    assert office.score(as_parquet(given()))["scored"] == ROWS
    home.plane.clock.set(home.plane.clock.now() + timedelta(days=367))
    assert office.score(as_parquet(given()))["code"] == "admission_expired"
