"""Two projects in one home see nothing of each other: every route is asked for the other's things, every list for its rows.

    python proofs/tenants.py [--broken | --unfiltered PATH]

Makes a home in which two projects were applied, each with a model that serves, a rollout under way, a training run, a dataset in
quarantine, a feature view, an incident, an answer before people, and a token for somebody with every role that is bound to the project.

- Each asks every route × method of the control plane about the other's things, by each kind of name that the route takes, and
  the data plane for the other's predictions. A cell is *visible* when the answer is no denial by the rule within-the-project.
- Of a thing that is not there the answer must be the same, word for word.
- Each asks for every list, while either project is applied. It must hold something of one's own and no name of the other's.
- The first project's answers to everything that it may read are the same before the second comes and after.
- Controls: an unbound token asks the same questions and must see many cells; and in one list after the other the filter is left
  out, which must show the other's rows.

Exits 1 when a cell is visible across, or a control fails. `--broken` says of everything that it belongs to whoever asks,
`--unfiltered` leaves the filter out of one list: the proof must turn red then.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import httpx  # noqa: E402  # the paths come first
import msgspec  # noqa: E402
from fastapi import Request  # noqa: E402
from sqlalchemy import insert  # noqa: E402

from falaj.governance.identity.guard import PUBLIC  # noqa: E402
from falaj.governance.identity.model import ROLES  # noqa: E402
from falaj.governance.identity.service import Terms  # noqa: E402
from falaj.kernel.access import SYSTEM, Action, Principal, Question  # noqa: E402
from falaj.lifecycle.data.store import dataset_versions  # noqa: E402
from falaj.lifecycle.loop.model import ProjectDefinition  # noqa: E402
from falaj.lifecycle.loop.starting import Order  # noqa: E402
from falaj.lifecycle.monitoring.reviews.store import answer_reviews  # noqa: E402
from falaj.lifecycle.training.store import runs  # noqa: E402
from tests.lifecycle.house import Api, House, house  # noqa: E402

RULE = "within-the-project"
OPEN = {("GET", "/api/v1/whoami")}
"""What tells a bound token something, and nothing of any project; what is public is so as well."""
NOWHERE = {"model": "nothing-model", "digest": f"sha256:{'0' * 64}", "run": "run_nothing", "incident": "inc_nothing",
           "dataset": "nothing-sales", "view": "nothing-view", "flow": "rol_nothing", "hold": "hld_nothing",
           "change": "chg_999999999", "review": "rev_nothing", "project": "nothing"}  # fmt: skip
"""Names of what is not there."""


class Tenant(NamedTuple):
    """A project, and the names of what belongs to it."""

    project: str
    model: str
    digest: str
    run: str
    incident: str
    dataset: str
    view: str
    flow: str
    hold: str
    change: str
    review: str
    definition: str

    def names(self) -> tuple[str, ...]:
        return (*(getattr(self, name) for name in NOWHERE if name != "project"), f"{self.model}@1")

    def hidden(self, text: str) -> str:
        """A text with names of nothing in the place of this project's."""
        for name, nothing in NOWHERE.items():
            text = text.replace(getattr(self, name), nothing)
        return text


def settle(home: House, project: str) -> Tenant:
    """A project with one of everything."""
    model, dataset, view = f"{project}-model", f"{project}-sales", f"{project}-view"
    named = {"name": project, "code": "sha256:0", "entities": [], "models": [_model(model, dataset)]}
    named["sources"] = [{"name": dataset, "format": "csv", "files": "x.csv", "event_time": "at", "known_at": "at"}]
    named["views"] = [_view(view, dataset)]
    text = msgspec.json.encode(named).decode()
    msgspec.json.decode(text, type=ProjectDefinition)
    apply(home, text)
    run = f"run_{project}"
    columns = {c.name: "" for c in runs.columns}
    home.sql(insert(runs).values({**columns, "id": run, "model": model, "state": "finished", "params": "{}", "datasets": "{}", "views": "{}", "metrics": "{}", "artifacts": "{}"}))  # fmt: skip
    loaded = {c.name: "" for c in dataset_versions.columns}
    numbers = {"version": 1, "rows": 5, "added": 5, "quarantined": 0, "reasons": "{}", "files": "[]"}
    home.sql(insert(dataset_versions).values({**loaded, "name": dataset, "digest": f"sha256:{project}", **numbers}))
    version = home.registered(model=model)
    assert home.release(version).state == "done"
    second = home.registered(model=model)
    home.plane.decisions.approve(home.risk, second, "evidence read", hold=True)
    flow = home.plane.starts.start(
        home.risk, home.now(second), Order("a look", shadow=1000, steps=(50,), requests=1000)
    )["flow"]
    begun(home, flow)
    (promotion, *_) = home.plane.oversight.records.all(model)
    incident = home.plane.incidents.open(model, "drift", "", f"{model} has drifted")
    hold = home.plane.oversight.holding.put(home.risk, "dataset", f"{dataset}@1", "a look")["id"]
    review = f"rev_{project}"
    waits = {c.name: "" for c in answer_reviews.columns}
    home.sql(insert(answer_reviews).values({**waits, "id": review, "prediction": f"p_{project}", "row": 0, "model": model, "digest": version.digest, "answer": "0.5", "state": "pending", "due_at": "9999-01-01T00:00:00.000Z"}))  # fmt: skip
    return Tenant(
        project, model, version.digest, run, incident.id, dataset, view, flow, hold, promotion.id, review, text
    )


def begun(home: House, flow: str) -> None:
    """Wait until a rollout tells of its first stage: it has written down what it writes before there are answers to judge."""
    state = home.plane.workflows.state(flow, wait=60.0)
    assert state.state == "running" and {e["type"] for e in state.events} == {"progress"}, state


def apply(home: House, definition: str) -> None:
    """The definition that holds from now on."""
    home.plane.definitions.apply(home.owner, msgspec.json.decode(definition, type=ProjectDefinition))


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
    """How many cells were asked, and those that were visible, or answered otherwise than what is not there."""
    asked, seen = 0, []
    for one, other in itertools.permutations(tenants, 2):
        api = asker(home, one.project)
        nowhere = functools.cache(told)  # both projects' names become the same ones
        for method, path in questions(home, other):
            if path in lists(home):
                continue
            asked += 1
            found = visible(api, method, path)
            leaks = [n for n in other.names() if n in found and n not in path]
            if found and (not is_open(home, method, path) or leaks):
                seen.append(f"{one.project}: {method} {path}: {found}")
            elif not found and other.hidden(told(api, method, path)) != nowhere(api, method, other.hidden(path)):
                seen.append(f"{one.project}: {method} {path}: answered otherwise than what is not there")
    return asked, seen


def told(api: Api, method: str, path: str) -> str:
    """A whole answer, without the moment at which it was given, and whether an entry was signed by then."""
    answer = api.ask(method, path, **({} if method == "GET" else {"json": {}}))
    return re.sub(r'"(now|signed)":("[^"]*"|true|false)', r'"\1":""', f"{answer.status_code} {answer.text}")


def is_open(home: House, method: str, path: str) -> bool:
    """Whether everybody is answered, as there is nothing of any project in it."""
    return (method, path) in OPEN or home.plane.guard.declared.get((method, path)) is PUBLIC


def lists(home: House) -> list[str]:
    """Every list that bound tokens get a part of."""
    return sorted(path for _, path in home.plane.guard.shared if "{" not in path)


def listed(home: House, tenants: list[Tenant], paths: list[str]) -> tuple[int, list[str]]:
    """How many lists were looked at, and those that show another's thing, or nothing of one's own where one's own is applied."""
    looked, wrong = 0, []
    for one, other in itertools.permutations(tenants, 2):
        api = asker(home, one.project)
        for applied in (other, one):
            apply(home, applied.definition)
            for path in paths:
                looked += 1
                answer = told(api, "GET", path)
                leaks = [n for n in (*other.names(), other.project) if re.search(rf"{re.escape(n)}\b", answer)]
                if not answer.startswith("200 ") or leaks:
                    wrong.append(f"{one.project}: GET {path}: {leaks} {answer[:150]}")
                elif applied is one and not any(n in answer for n in one.names()):
                    wrong.append(f"{one.project}: GET {path}: nothing of its own: {answer[:150]}")
    return looked, wrong


def readable(home: House, one: Tenant) -> dict[str, str]:
    """What a project reads: every list, and whatever a route tells of its own things. Left out is what changes by itself: the
    flow that is under way, and the dossier and a review, as each look at them is an entry of the log.
    """
    api = asker(home, one.project)
    return {
        path: told(api, m, path)
        for m, path in questions(home, one)
        if m == "GET" and not path.endswith((one.flow, "/dossier", one.review))
    }


@contextmanager
def unfiltered(home: House, path: str) -> Iterator[None]:
    """One list as it would be had its filter been forgotten."""
    guard, rightly = home.plane.guard, home.plane.guard.own

    def own(request: Request, action: Action) -> Any:
        return _anything if request.url.path == path else rightly(request, action)

    guard.own = own  # type: ignore[method-assign]
    try:
        yield
    finally:
        guard.own = rightly  # type: ignore[method-assign]


def _anything(_kind: str, _name: str) -> bool:
    return True


def forgotten(home: House, tenants: list[Tenant]) -> list[str]:
    """The lists in which a forgotten filter is not noticed."""
    unnoticed = []
    for path in lists(home):
        with unfiltered(home, path):
            if not any(path in line for line in listed(home, tenants, [path])[1]):
                unnoticed.append(path)
    return unnoticed


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
    parser.add_argument("--unfiltered", metavar="PATH", default="")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, house(Path(folder)) as home:
        third = '{"name":"third","code":"sha256:0","entities":[],"sources":[],"views":[],"models":[]}'
        north = settle(home, "north")
        apply(home, third)
        before = readable(home, north)
        tenants = [north, settle(home, "south")]
        apply(home, third)
        after = readable(home, north)
        changed = [
            f"north: GET {path}: is another answer since south came" for path in before if before[path] != after[path]
        ]
        free = asker(home, "")
        if options.broken:
            home.plane.informed.learn_from(home.plane.oversight.restrictions, whose=_everyones)
        whole = not (options.broken or options.unfiltered)
        asked, seen = (0, []) if options.unfiltered else across(home, tenants)
        with unfiltered(home, options.unfiltered):
            looked, shown = listed(home, tenants, lists(home))
        called, answered = predictions(home, tenants) if whole else (0, [])
        unnoticed = forgotten(home, tenants) if whole else lists(home)
        number = len(lists(home))
        own = sum(asker(home, t.project).get(f"/api/v1/models/{t.model}/versions").status_code == 200 for t in tenants)
        control = sum(bool(visible(free, m, p)) for m, p in questions(home, tenants[0]) if m == "GET")
    wrong = [*seen, *answered, *shown, *changed]
    for line in [*wrong[:20], *(f"no control for {path}" for path in unnoticed if whole)]:
        print(line, file=sys.stderr)
    print(
        f"tenants: {asked} cells of the control plane, {called} of the data plane and {looked} answers of {number} lists asked across, "
        f"{len(wrong)} visible; {len(before)} answers to one, {len(changed)} changed by the other; {own} of 2 see their own; without its "
        f"filter {number - len(unnoticed)} of {number} lists show the other's; unbound, {control} reads are answered otherwise "
        f"({time.monotonic() - began:.0f} s)"
    )
    sys.exit(1 if wrong or (whole and unnoticed) or own != 2 or control < 50 else 0)


def _everyones(question: Question) -> dict[str, Any]:
    return {"project": question.principal.project} if question.principal.project else {}


if __name__ == "__main__":
    main()
