"""The channel: a model's way from raw data to production and back.

`STAGES` is the order, said once. Data flows down it; knowledge points up: a stage may import the
stages before it and never one after it. `loop` joins them and is no stage itself.
"""

from __future__ import annotations

STAGES: tuple[str, ...] = (
    "data",
    "features",
    "training",
    "evidence",
    "registry",
    "rollout",
    "serving",
    "monitoring",
)
