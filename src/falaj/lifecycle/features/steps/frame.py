"""The rows that a model is trained on: a dataset's rows with each view as it was known at their time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import polars as pl

from falaj.kernel.clock import parse_iso
from falaj.lifecycle.features.model import FrameTask
from falaj.lifecycle.features.steps.join import ViewFrame, training_frame
from falaj.lifecycle.features.steps.views import Transform, view_rows
from falaj.storage.lake import delta


def build_frame(task: FrameTask, transforms: Mapping[str, Transform]) -> pl.DataFrame:
    """Read the named versions and enrich; only rows whose outcome was known at `task.as_of`, and that are recent enough.

    Raises what `view_rows` and `training_frame` raise.
    """

    def scan(source: str) -> pl.LazyFrame:
        return delta.scan(Path(task.tables[source]), task.versions[source])

    as_of = parse_iso(task.as_of)
    spine = scan(task.spine).filter(pl.col(task.known_at) <= as_of)
    if task.history_seconds:
        spine = spine.filter(pl.col(task.at) >= as_of - timedelta(seconds=task.history_seconds))
    views = [ViewFrame(v, view_rows(v, transforms[v.name], scan(v.source))) for v in task.views]
    return training_frame(spine, task.at, views)
