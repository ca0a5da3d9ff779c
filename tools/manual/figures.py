"""The page of metrics: what Prometheus reads, what a window holds, what a rollout compares, what the journal records."""

from __future__ import annotations

import re
from typing import Any

from falaj.lifecycle.monitoring import analysis
from falaj.lifecycle.monitoring.model import WindowView
from falaj.lifecycle.serving.model import LATENCY_SECONDS, GuardReport, LoadReport, PlaneStatus, VersionCounts
from falaj.lifecycle.serving.plane.journal import Prediction
from falaj.lifecycle.serving.plane.metrics import exposition
from tools.manual.tables import table

UNITS = {"falaj_traffic_weight": "percent", "falaj_plane_generation": "number of a bundle"}
"""Units that a name's ending does not say."""
WINDOW = {
    "model": "the model",
    "digest": "the version that answered",
    "start": "the window's first moment",
    "end": "the first moment after it",
    "rows": "predicted rows",
    "verdict": "Successful, Failed or Inconclusive, by drift",
    "reason": "why",
    "score_psi": "PSI of the answers beside the reference",
    "drifted": "the features that have drifted",
    "features": "PSI of each feature beside the reference",
    "labels": "rows whose label has come",
    "metric": "what `quality` is of: ROC AUC for classes, mean absolute error for a regression",
    "quality": "measured on the labelled rows; empty until labels have come",
    "errors": "requests that the version failed",
    "p50_ms": "milliseconds that half of the requests took at most",
    "p99_ms": "milliseconds that 99 of 100 requests took at most",
    "claims": "what an endpoint of somebody else calls its version; empty for a version of this home",
}
"""What each measure of a window is."""
RECORD = {
    "id": "the prediction's id",
    "at": "when, in microseconds since 1970 by the home's clock",
    "model": "the model",
    "version": "the version, as people call it",
    "digest": "the version's digest",
    "principal": "who asked",
    "generation": "under which bundle",
    "worker": "which worker of the data plane",
    "rows": "how many rows were asked for; each list below has one value a row",
    "inputs": "what the caller sent: request features and join keys",
    "outputs": "what the caller got",
    "features": "what was looked up and used, empty where nothing could be",
    "statuses": "of each view: present, expired or missing",
    "duration": "microseconds from the request's arrival to the writing of this record; negative where nobody timed it",
    "request": "the caller's own id",
    "error": "why there is no answer; then `outputs` is empty",
    "role": "what the version was in the plan: stable, canary or shadow",
    "primary": "the id of the answer that the caller got instead: this one is of a shadow, or failed",
    "event_times": "of each view, when what was found had happened, in microseconds since 1970",
}
"""What each field of a record is."""
_REFUSED = LoadReport("sha256:00", "m@2", "refused")
_STATUS = PlaneStatus(
    "1", 1, 3, "production", "", "", (_REFUSED,), "", "", "", ready=True, responses={"200": 1},
    versions=(VersionCounts("m", "m@1", "sha256:00", 1, 0, 1, 0.1, (1,) * (len(LATENCY_SECONDS) + 1), {"present": 1}, "stable", 100),),
    guards=(),
)  # fmt: skip


def metrics() -> str:
    """Each figure that is kept, with what it counts."""
    window = [(f"`{field}`", WINDOW[field]) for field in WindowView.__struct_fields__]
    journal = [(f"`{field}`", RECORD[field]) for field in Prediction.__struct_fields__]
    compared = [(f"`{name}`", text) for name, text in rollout()]
    return f"""# Metrics

## Prometheus

`GET /metrics` on the data plane, for a role that reads. Every worker's figures stand in each answer, labelled with the worker.
The control plane has no such page: what it knows is in its [API](api.md), and `/health` says whether it lives.

{table(("metric", "type", "unit", "labels", "what it is"), prometheus())}
## A window of monitoring

`falaj drift MODEL --json`, `GET /api/v1/models/{{name}}/drift`. [Drift](../explanation/drift.md) explains the verdict.

{table(("measure", "what it is"), window)}
## A rollout

Compared between the challenger and the stable version, pair by pair
([roll a version out](../how-to/roll-out-a-version.md#when-a-step-passes-and-when-all-goes-back)).

{table(("metric", "what it is"), compared)}
## The prediction journal

One record for each answered request, written before the answer leaves. `falaj why ID` shows one.

{table(("field", "what it is"), journal)}"""


def prometheus() -> list[tuple[str, str, str, str, str]]:
    """Each metric of the exposition: name, type, unit, labels, help."""
    text = exposition([_STATUS])
    rows = []
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        (said,) = re.findall(rf"^# HELP {name} (.*)$", text, re.MULTILINE)
        labels: dict[str, None] = {}
        for found in re.findall(rf"^{name}(?:_\w+)?{{(.*?)}} ", text, re.MULTILINE):
            labels |= dict.fromkeys(re.findall(r"(\w+)=", found))
        rows.append((f"`{name}`", kind, _unit(name, kind), ", ".join(labels) or _guard_labels(name), said))
    return rows


def _guard_labels(name: str) -> str:
    """The labels of a metric that only a guard's trip brings."""
    status = PlaneStatus(
        "1", 1, 3, "production", "", "", (), "", "", "", versions=_STATUS.versions,
        guards=(_trip(),),
    )  # fmt: skip
    (found,) = re.findall(rf"^{name}{{(.*?)}} ", exposition([status]), re.MULTILINE)
    return ", ".join(re.findall(r"(\w+)=", found))


def _trip() -> GuardReport:
    names = GuardReport.__struct_fields__
    required = names[: len(names) - len(GuardReport.__struct_defaults__)]
    values: dict[str, Any] = {"digest": "sha256:00", "reason": "errors", "generation": 3}
    return GuardReport(
        **{n: values.get(n, 0 if n in ("observed", "limit", "count", "bad_answers") else "") for n in required}
    )


def _unit(name: str, kind: str) -> str:
    if name in UNITS:
        return UNITS[name]
    if name.endswith("_seconds"):
        return "seconds"
    return "count" if kind == "counter" or name.endswith("_releases") else "0 or 1"


def rollout() -> list[tuple[str, str]]:
    """The metrics of a rollout, as the analysis names and tells them."""
    found = re.findall(r"^    (\w[\w, ]*?) {2,}(\S[^\n]*)$", analysis.__doc__ or "", re.MULTILINE)
    return [(name, text) for names, text in found for name in names.split(", ")]
