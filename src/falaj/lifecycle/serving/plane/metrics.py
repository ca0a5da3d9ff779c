"""What a worker counts, and the Prometheus text exposition of it.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from falaj.lifecycle.serving.model import LATENCY_SECONDS, PlaneStatus, VersionCounts
from falaj.lifecycle.serving.plane.enrich import EXPIRED, MISSING, PRESENT

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counts:
    """Counts of one version; belongs to the thread that answers requests."""

    __slots__ = (
        "alias",
        "digest",
        "dropped",
        "errors",
        "fallbacks",
        "features",
        "latency",
        "model",
        "requests",
        "rows",
        "seconds",
    )

    def __init__(self, model: str, alias: str, digest: str) -> None:
        self.model, self.alias, self.digest = model, alias, digest
        self.requests = self.errors = self.rows = self.fallbacks = self.dropped = 0
        self.seconds = 0.0
        self.latency = [0] * (len(LATENCY_SECONDS) + 1)
        self.features = dict.fromkeys((PRESENT, EXPIRED, MISSING), 0)

    def add(self, seconds: float, rows: int, failed: bool) -> None:
        """Count one request that the model answered or failed."""
        self.requests += 1
        self.errors += failed
        self.rows += rows
        self.seconds += seconds
        self.latency[bisect_left(LATENCY_SECONDS, seconds)] += 1

    def snapshot(self, role: str, weight: int) -> VersionCounts:
        """The counts, with the role and the weight that the version has now."""
        return VersionCounts(
            self.model,
            self.alias,
            self.digest,
            self.requests,
            self.errors,
            self.rows,
            round(self.seconds, 6),
            tuple(self.latency),
            dict(self.features),
            role,
            weight,
            self.fallbacks,
            self.dropped,
        )


def exposition(workers: Iterable[PlaneStatus]) -> str:
    """The metrics of all workers, each sample labelled with its worker."""
    workers = tuple(workers)
    lines: list[str] = []
    for name, kind, text, samples in (
        ("falaj_plane_generation", "gauge", "Generation of the bundle in service.", _gauges(workers, "generation")),
        ("falaj_plane_ready", "gauge", "1 when every planned model can answer.", _gauges(workers, "ready")),
        ("falaj_plane_refused_releases", "gauge", "Releases that were refused.", _refused(workers)),
        ("falaj_http_responses_total", "counter", "Answers by HTTP status.", _responses(workers)),
        (
            "falaj_predict_requests_total",
            "counter",
            "Requests that a version answered or failed.",
            _counts(workers, "requests"),
        ),
        ("falaj_predict_errors_total", "counter", "Requests that a version failed.", _counts(workers, "errors")),
        ("falaj_predict_rows_total", "counter", "Rows of those requests.", _counts(workers, "rows")),
        ("falaj_feature_lookups_total", "counter", "Looked-up view values by status.", _features(workers)),
        ("falaj_traffic_weight", "gauge", "Percent of the traffic that a version has now, by role.", _weights(workers)),
        (
            "falaj_predict_fallbacks_total",
            "counter",
            "Requests that the stable version answered in a challenger's place.",
            _counts(workers, "fallbacks"),
        ),
        (
            "falaj_shadow_dropped_total",
            "counter",
            "Requests that a shadow did not keep up with.",
            _counts(workers, "dropped"),
        ),
        ("falaj_guard_tripped", "gauge", "1 for a challenger that the guard stopped.", _trips(workers)),
        ("falaj_predict_seconds", "histogram", "Time from a request's arrival to its answer.", _latencies(workers)),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{suffix}{labels} {_number(value)}" for suffix, labels, value in samples]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


Sample = tuple[str, str, float]


def _labels(**labels: str) -> str:
    escaped = (
        (k, v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for k, v in labels.items()
    )  # fmt: skip
    return "{" + ",".join(f'{k}="{v}"' for k, v in escaped) + "}"


def _version(plane: PlaneStatus, counts: VersionCounts, **more: str) -> str:
    return _labels(worker=plane.worker, model=counts.model, version=counts.alias, digest=counts.digest, **more)


def _gauges(workers: tuple[PlaneStatus, ...], field: str) -> list[Sample]:
    return [("", _labels(worker=w.worker, environment=w.environment), float(getattr(w, field))) for w in workers]


def _refused(workers: tuple[PlaneStatus, ...]) -> list[Sample]:
    return [("", _labels(worker=w.worker), float(sum(r.state == "refused" for r in w.releases))) for w in workers]


def _responses(workers: tuple[PlaneStatus, ...]) -> list[Sample]:
    return [("", _labels(worker=w.worker, status=s), float(n)) for w in workers for s, n in sorted(w.responses.items())]


def _counts(workers: tuple[PlaneStatus, ...], field: str) -> list[Sample]:
    return [("", _version(w, c), float(getattr(c, field))) for w in workers for c in w.versions]


def _weights(workers: tuple[PlaneStatus, ...]) -> list[Sample]:
    return [("", _version(w, c, role=c.role), float(c.weight)) for w in workers for c in w.versions]


def _trips(workers: tuple[PlaneStatus, ...]) -> list[Sample]:
    return [
        ("", _labels(worker=w.worker, model=g.model, version=g.alias, digest=g.digest, generation=str(g.generation),
                     role=g.role, reason=g.reason), 1.0)
        for w in workers for g in w.guards
    ]  # fmt: skip


def _features(workers: tuple[PlaneStatus, ...]) -> list[Sample]:
    return [
        ("", _version(w, c, status=s), float(n)) for w in workers for c in w.versions for s, n in c.features.items()
    ]


def _latencies(workers: tuple[PlaneStatus, ...]) -> list[Sample]:
    samples: list[Sample] = []
    for w in workers:
        for c in w.versions:
            below = 0
            for bound, count in zip((*LATENCY_SECONDS, float("inf")), c.latency, strict=True):
                below += count
                samples.append(
                    ("_bucket", _version(w, c, le="+Inf" if bound == float("inf") else f"{bound:g}"), float(below))
                )
            samples += [("_sum", _version(w, c), c.seconds), ("_count", _version(w, c), float(c.requests))]
    return samples
