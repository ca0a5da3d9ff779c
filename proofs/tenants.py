"""Two projects in one home see nothing of each other: every route is asked for the other's things.

    python proofs/tenants.py [--broken]

Makes a home in which two projects were applied, each with a model that serves, a training run, a dataset, a feature view, an
incident, and a token for somebody with every role that is bound to the project. Then each asks every route × method of
the control plane about the other's things, by each kind of name that the route takes, and the data plane for the other's
predictions. A cell is *visible* when the answer is no denial by the rule within-the-project. Each also asks about its own, where
something must be answered, and an unbound token asks the same questions, which must see many cells: a control of the questions.

Exits 1 when a cell is visible across, or a control fails. `--broken` says of everything that it belongs to whoever asks: the proof
must turn red then.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import httpx  # noqa: E402  # the paths come first
import msgspec  # noqa: E402
from sqlalchemy import insert  # noqa: E402

from falaj.governance.identity.model import ROLES  # noqa: E402
from falaj.governance.identity.service import Terms  # noqa: E402
from falaj.kernel.access import SYSTEM, Principal, Question  # noqa: E402
from falaj.lifecycle.loop.model import ProjectDefinition  # noqa: E402
from falaj.lifecycle.loop.store import definitions  # noqa: E402
from falaj.lifecycle.training.store import runs  # noqa: E402
from tests.lifecycle.house import Api, House, house  # noqa: E402

RULE = "within-the-project"
OPEN = {("GET", "/health"), ("GET", "/api/v1/whoami")}
"""What tells a bound token something, and nothing of any project."""


class Tenant(NamedTuple):
    """A project, and the names of what belongs to it."""

    project: str
    model: str
    digest: str
    run: str
    incident: str
    dataset: str
    view: str

    def names(self) -> tuple[str, ...]:
        return (self.model, self.digest, self.run, self.incident, self.dataset, self.view, f"{self.model}@1")


def settle(home: House, project: str) -> Tenant:
    """A project with one of everything."""
    model, dataset, view = f"{project}-model", f"{project}-sales", f"{project}-view"
    named = {"name": project, "code": "sha256:0", "entities": [], "models": [_model(model, dataset)]}
    named["sources"] = [{"name": dataset, "format": "csv", "files": "x.csv", "event_time": "at", "known_at": "at"}]
    named["views"] = [_view(view, dataset)]
    text = msgspec.json.encode(named).decode()
    msgspec.json.decode(text, type=ProjectDefinition)
    number = len(home.plane.database.read(lambda tx: tx.execute(definitions.select()).all())) + 1
    values = {"number": number, "digest": f"sha256:{number}", "definition": text, "author": "owner", "at": "now"}
    home.sql(insert(definitions).values(values))
    run = f"run_{project}"
    columns = {c.name: "" for c in runs.columns}
    home.sql(insert(runs).values({**columns, "id": run, "model": model, "state": "finished", "params": "{}", "datasets": "{}", "views": "{}", "metrics": "{}", "artifacts": "{}"}))  # fmt: skip
    version = home.registered(model=model)
    assert home.release(version).state == "done"
    incident = home.plane.incidents.open(model, "drift", "", f"{model} has drifted")
    return Tenant(project, model, version.digest, run, incident.id, dataset, view)


def _model(name: str, spine: str) -> dict[str, Any]:
    return {
        "name": name, "task": "binary", "label": "late", "spine": spine, "at": "at", "inputs": [], "keys": [], "views": [],
        "gates": [], "train": "m:train", "code": "sha256:0",
    }  # fmt: skip


def _view(name: str, source: str) -> dict[str, Any]:
    entity = {"name": "shop", "key": "shop"}
    return {
        "name": name, "entity": entity, "source": source, "event_time": "at", "known_at": "at", "ttl_seconds": 60, "columns": [],
        "transform": "m:view", "digest": "sha256:0",
    }  # fmt: skip


def asker(home: House, project: str, name: str = "everything") -> Api:
    """Somebody with every role, by a token that is bound to a project (empty: to none)."""
    who = Principal(f"{name}-{project or 'nowhere'}", "person", tuple(ROLES))
    return Api(home.plane, home.plane.identity.grant(SYSTEM, who, Terms(1, project=project)).token)


def questions(home: House, of: Tenant) -> Iterator[tuple[str, str]]:
    """Every route × method, with each of a tenant's names in its first place."""
    for (method, path), _ in sorted(home.plane.guard.declared.items()):
        if path.startswith("/api/v1/clock") or not path.startswith(("/api", "/health")):
            continue
        places = re.findall(r"{(\w+)[^}]*}", path)
        for name in of.names() if places else ("",):
            rest = iter([name, *itertools.repeat("1", len(places))])
            yield method, re.sub(r"{\w+[^}]*}", lambda _: next(rest), path)  # noqa: B023  # used up at once


def visible(api: Api, method: str, path: str) -> str:
    """What was answered that is no denial by the rule; empty for a denial."""
    answer = api.ask(method, path, **({} if method == "GET" else {"json": {}}))
    told = answer.json() if answer.headers.get("content-type", "").startswith("application/json") else {}
    rules = told.get("details", {}).get("rules", []) if isinstance(told, dict) else []
    return "" if answer.status_code == 403 and RULE in rules else f"{answer.status_code} {answer.text[:150]}"


def across(home: House, tenants: list[Tenant]) -> tuple[int, list[str]]:
    """How many cells were asked, and those that were visible."""
    asked, seen = 0, []
    for one, other in itertools.permutations(tenants, 2):
        api = asker(home, one.project)
        for method, path in questions(home, other):
            asked += 1
            found = visible(api, method, path)
            leaks = [n for n in other.names() if n in found and n not in path]
            if found and ((method, path) not in OPEN or leaks):
                seen.append(f"{one.project}: {method} {path}: {found}")
    return asked, seen


def predictions(home: House, tenants: list[Tenant]) -> tuple[int, list[str]]:
    """The same for the data plane: every route that speaks of a model. One's own must be answered by something else."""
    asked, seen = 0, []
    with home.data_plane() as plane:
        for one, other in itertools.product(tenants, repeat=2):
            who = Principal(f"caller-{one.project}", "service", ("service", "ml-engineer", "viewer"))
            token = home.plane.identity.grant(SYSTEM, who, Terms(1, project=one.project)).token
            headers = {"Authorization": f"Bearer {token}"}
            for version, what in itertools.product(("", "/versions/1"), ("", "/ready", "/infer")):
                path, method = f"/v2/models/{other.model}{version}{what}", "POST" if what == "/infer" else "GET"
                content = b"{}" if what == "/infer" else None
                answer = httpx.request(method, plane.address + path, headers=headers, content=content)
                asked += one != other
                if (answer.status_code == 403 and RULE in answer.text) == (one == other):
                    seen.append(f"{one.project}: {method} {path}: {answer.status_code} {answer.text[:150]}")
    return asked, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broken", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, house(Path(folder)) as home:
        tenants = [settle(home, "north"), settle(home, "south")]
        free = asker(home, "")
        if options.broken:
            home.plane.informed.learn_from(home.plane.oversight.restrictions, _everyones)
        asked, seen = across(home, tenants)
        called, answered = (0, []) if options.broken else predictions(home, tenants)
        own = sum(asker(home, t.project).get(f"/api/v1/models/{t.model}/versions").status_code == 200 for t in tenants)
        control = sum(bool(visible(free, m, p)) for m, p in questions(home, tenants[0]) if m == "GET")
    wrong = [*seen, *answered]
    for line in wrong[:20]:
        print(line, file=sys.stderr)
    print(
        f"tenants: {asked} cells of the control plane and {called} of the data plane asked across, {len(wrong)} visible; "
        f"{own} of 2 see their own; unbound, {control} reads are answered otherwise ({time.monotonic() - began:.0f} s)"
    )
    sys.exit(1 if wrong or own != 2 or control < 50 else 0)


def _everyones(question: Question) -> dict[str, Any]:
    return {"project": question.principal.project} if question.principal.project else {}


if __name__ == "__main__":
    main()
