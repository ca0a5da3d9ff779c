"""A trained model scores a table through the command line: as training's own estimator did, and as the lake knew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from falaj.bootstrap.control_plane import ControlPlane
from falaj.kernel.settings import Settings
from falaj.lifecycle.training.steps.parity import GROUP, NATIVE
from tests.entrypoints.cli.shell import Shell, cleaned
from tests.lifecycle.project import lay_out


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = lay_out(tmp_path_factory.mktemp("score") / "made")
    with cleaned(folder):
        made = Shell(folder)
        for command in (
            ("apply",),
            ("ingest", "sales"),
            ("features", "materialize"),
            ("train", "back"),
            ("token", "create", "risk", "--role", "risk-officer", "--keep"),
            ("approve", "back@1", "--reason", "evidence read", "--as", "risk"),
        ):
            made.done(*command)
        yield made


def test_as_training_s_own_estimator(shell: Shell) -> None:
    """The parity rows carry what the estimator itself answered."""
    (run,) = shell.done("runs", "list", "back")
    home = ControlPlane(Settings(home=shell.home, project=shell.folder))
    try:
        rows = pl.read_parquet(home.blobs.get(home.training.run(run["id"]).artifacts["parity.parquet"]))
    finally:
        home.close()
    rows = rows.filter(pl.col(GROUP) == "unseen")
    rows.drop(GROUP, NATIVE).write_parquet(shell.folder / "unseen.parquet")
    done = shell.done("score", "back@1", "--data", "unseen.parquet", "--out", "unseen.scores.parquet")
    assert (done["scored"], done["features"]) == (rows.height, "table")
    own = np.array(rows[NATIVE].to_list())[:, 1]
    scores = pl.read_parquet(shell.folder / "unseen.scores.parquet")["probability"].to_numpy()
    assert np.abs(scores - own).max() <= 1e-4


def test_raw_rows_are_joined_as_the_lake_knew_at_each_moment(shell: Shell) -> None:
    """Beside the same rows with the last price that was paid in the shop before they were asked."""
    (shell.folder / "raw.csv").write_bytes((shell.folder / "data" / "sales-1.csv").read_bytes())
    done = shell.done(
        "score", "back", "--data", "raw.csv", "--raw", "--out", "raw.parquet", "--as-of", "2024-02-01T00:00:00Z"
    )
    assert (done["rows"], done["scored"], done["features"], done["moment"]) == (3000, 3000, "lake", "asked_at")
    assert done["datasets"] == {"sales": 0}
    sales = pl.read_csv(shell.folder / "raw.csv")
    # A sale is asked about an hour after it, and known by then: its own price is the shop's last one.
    given = sales.select("price", "visits", last_price="price")
    given.write_csv(shell.folder / "given.csv")
    shell.done("score", "back", "--data", "given.csv", "--out", "given.parquet")
    joined, told = (pl.read_parquet(shell.folder / f"{name}.parquet")["probability"] for name in ("raw", "given"))
    assert joined.equals(told)


def test_nothing_is_overwritten_or_left_half_done(shell: Shell) -> None:
    (shell.folder / "small.csv").write_text("price,visits,last_price\n50,3,50\n")
    shell.done("score", "back", "--data", "small.csv", "--out", "small.scores.csv")
    assert shell.refused("score", "back", "--data", "small.csv", "--out", "small.scores.csv")["code"] == "file_exists"
    shell.done("score", "back", "--data", "small.csv", "--out", "small.scores.csv", "--force")
    (shell.folder / "bad.csv").write_text("price,visits,last_price\nmuch,3,50\n")
    assert shell.refused("score", "back", "--data", "bad.csv", "--out", "bad.scores.csv")["code"] == "nothing_scored"
    left = {p.name for p in Path(shell.folder).iterdir() if "bad" in p.name or p.name.startswith(".small")}
    assert left == {"bad.csv"}
    assert not [p for p in (shell.home / "parcels").iterdir() if p.name.startswith(("tab_", "scr_"))]
