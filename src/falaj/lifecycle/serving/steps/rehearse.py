"""Ask a data plane what production is asked, before production sees the version.

The requests are the newest that production answered, as its journal has them; before there are any, the rows of the
version's own holdout. Features are looked up by the data plane, as for any caller.
"""

from __future__ import annotations

import math
import ssl
import time
from collections import Counter, deque
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import httpx
import msgspec
import polars as pl

from falaj.governance.identity.addresses import check_address
from falaj.governance.identity.peers import CONTROL_PLANE, DATA_PLANE
from falaj.governance.identity.tls import client_of
from falaj.kernel.environments import STAGING
from falaj.lifecycle.serving.model import RehearseOutcome, RehearseTask
from falaj.lifecycle.serving.plane.journal import BATCH_ROLE, SUFFIX, records_from
from falaj.lifecycle.serving.plane.protocol import DECLARED
from falaj.lifecycle.training.model import ModelContract
from falaj.workflow.reporting import Reporter

_ROWS = 100  # of one request; a larger one is cut
_FAILURES = 10  # after which nothing more is asked: it did not pass, and a silent plane costs its time-out each time
_SECONDS = 10.0

Columns = dict[str, list[Any]]


class _Output(msgspec.Struct):
    name: str
    data: list[Any]


class _Answer(msgspec.Struct):
    outputs: list[_Output]
    parameters: dict[str, Any] = {}


def rehearse(task: RehearseTask, report: Reporter, token: str) -> RehearseOutcome:
    """Send each request and read each answer. `token` is for the data plane."""
    source, requests = requests_for(task)
    failures: list[str] = []
    times: list[float] = []
    statuses: Counter[str] = Counter()
    url = f"{task.plane}/v2/models/{task.contract.model}/infer"
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    count = 0
    with httpx.Client(headers=headers, timeout=_SECONDS, trust_env=False, verify=_verify(task)) as http:
        for columns in requests:
            body = msgspec.json.encode({"inputs": _inputs(task.contract, columns)})
            count += 1
            started = time.perf_counter()
            try:
                answer = http.post(url, content=body)
            except httpx.HTTPError as e:
                problem = f"the data plane does not answer: {type(e).__name__}"
            else:
                times.append((time.perf_counter() - started) * 1000)
                problem = _problem(answer, task.digest, statuses)
            failures += [problem] if problem else []
            if len(failures) == _FAILURES:
                break
            if count % 50 == 0:
                report.progress("rehearsing", count, len(requests))
    return RehearseOutcome(
        source=source if requests else "",
        requests=count,
        failures=len(failures),
        p50_ms=_quantile(times, 0.5),
        p99_ms=_quantile(times, 0.99),
        statuses=dict(sorted(statuses.items())),
        reason=_reason(count, failures),
    )


def _verify(task: RehearseTask) -> ssl.SSLContext | bool:
    """How the data plane must prove that it is staging's. Raises `Denied` for a plain address beyond loopback."""
    where = httpx.URL(task.plane)
    check_address(where.scheme, where.host)
    if where.scheme != "https":
        return True
    return client_of(task.tls, task.trust_domain, CONTROL_PLANE, f"{DATA_PLANE}/{STAGING}")


def requests_for(task: RehearseTask) -> tuple[str, list[Columns]]:
    """Where the requests come from, and the newest `task.requests` of them."""
    names = _types(task.contract)
    recorded = list(_recorded(Path(task.journal), task.contract.model, names.keys(), task.requests))
    if recorded or not task.holdout:
        return "journal", recorded
    rows = pl.read_parquet(task.holdout, columns=list(names)).tail(task.requests)
    return "holdout", [{name: [value] for name, value in row.items()} for row in rows.iter_rows(named=True)]


def _recorded(journal: Path, model: str, names: Set[str], count: int) -> Iterator[Columns]:
    """What the newest answered requests brought, newest first; those that lack an input of this version are left out, and
    tables that were scored as a whole, which nobody asked a data plane."""
    for path in sorted(journal.glob(f"*{SUFFIX}"), reverse=True):
        kept: deque[Columns] = deque(maxlen=count)
        for record, _ in records_from(path, 0):
            asked = record.role != BATCH_ROLE and not (record.primary or record.error)
            if record.model == model and asked and names <= record.inputs.keys():
                kept.append({name: record.inputs[name][:_ROWS] for name in names})
        yield from reversed(kept)
        count -= len(kept)
        if not count:
            return


def _types(contract: ModelContract) -> dict[str, str]:
    """What a request must bring: each request feature and each join key once, with its type."""
    types = {i.name: i.type for i in contract.inputs if i.source == "request"}
    return types | {k.name: k.type for k in contract.keys if k.name not in types}


def _inputs(contract: ModelContract, columns: Columns) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": [len(columns[name])], "datatype": DECLARED[kind], "data": columns[name]}
        for name, kind in _types(contract).items()
    ]


def _problem(response: httpx.Response, digest: str, statuses: Counter[str]) -> str:
    """What is wrong with an answer; empty when nothing is. Counts the statuses of looked-up values."""
    if response.status_code != 200:
        return f"the data plane answered {response.status_code}: {response.text[:200]}"
    try:
        answer = msgspec.json.decode(response.content, type=_Answer)
    except msgspec.MsgspecError as e:
        return f"the answer cannot be read: {e}"
    if answer.parameters.get("version_digest") != digest:
        return "another version answered"
    statuses.update(answer.parameters.get("features", {}))
    if not answer.outputs:
        return "the answer is empty"
    wrong = [o.name for o in answer.outputs if not o.data or not all(map(_finite, _flat(o.data)))]
    return f"{wrong[0]} is not a finite number" if wrong else ""


def _flat(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value


def _finite(value: Any) -> bool:
    """Whether a value is a finite number, or a class by its name."""
    return isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value))


def _reason(count: int, failures: list[str]) -> str:
    """Why it did not pass; empty when it did."""
    if not count:
        return "there was nothing to ask: no recorded request that fits, and no holdout"
    return f"{len(failures)} of {count} requests failed, the first: {failures[0]}" if failures else ""


def _quantile(times: list[float], q: float) -> float | None:
    """The nearest-rank quantile, in the unit of `times`."""
    if not times:
        return None
    return round(sorted(times)[min(len(times) - 1, math.ceil(q * len(times)) - 1)], 3)
