"""Homes for `proofs/crash.py`: a small project, and what is told to its control plane, story by story.

A story can be told again from its beginning: whoever got no answer asks again, under the same key.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from falaj.entrypoints.cli.client import await_address, control_plane_command, open_log, running_control_plane
from falaj.entrypoints.cli.commands.home import start
from falaj.entrypoints.cli.plane import plane_address, start_plane, stop_plane
from falaj.kernel.clock import iso, set_replay
from falaj.kernel.environments import STAGING
from falaj.kernel.errors import FalajError
from falaj.kernel.settings import Settings

BUILD = Path(__file__).with_name("_crash_build.py")
AS_OF = "2024-01-04T00:00:00Z"
DAY = datetime(2024, 1, 11, tzinfo=UTC)  # windows of seven days begin on Thursdays, as 1970 did
SECONDS = 90.0
MODEL = "back"
CODE = '''
"""Will a customer come back?"""

import polars as pl

import falaj as fj


def tidy(rows: pl.LazyFrame) -> pl.LazyFrame:
    sold = pl.col("sold_at").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC", strict=False)
    numbers = [pl.col("price").cast(pl.Float64), pl.col("visits").cast(pl.Int64), pl.col("back") == "1"]
    return rows.with_columns(*numbers, sold_at=sold, paid_at=sold + pl.duration(hours=1))


sales = fj.Source.csv(
    "sales", "data/sales*.csv", event_time="sold_at", known_at="paid_at", prepare=tidy, purposes=("shop",), max_bad=0.05
)
shop = fj.Entity("shop", key="shop")


@fj.feature_view(entity=shop, source=sales, ttl="9999d", features={"last_price": "float"})
def shop_price(sales: pl.LazyFrame) -> pl.LazyFrame:
    return sales.select("shop", "sold_at", "paid_at", last_price=pl.col("price"))


@fj.model(
    name="back",
    task="binary",
    label="back",
    spine=sales,
    at="paid_at",
    features=[shop_price, fj.request_features(price="float", visits="integer")],
    purpose="shop",
    gates=[fj.gate.metric("roc_auc", at_least=0.6), fj.gate.approval("risk-officer")],
    rollout=fj.Shadow(requests=20) >> fj.Canary(steps=[50], requests=20, limits=fj.Limits(shift=0.9, margin=0.9, slow=1.0)),
    monitor=fj.Monitor(window="7d", features=1, min_rows=100),
    retrain=fj.Retrain(cooldown="90d"),
)
def back(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    from sklearn.impute import SimpleImputer  # here, so that a project which is only described loads in a moment
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows = data.numpy()
    return make_pipeline(SimpleImputer(), LogisticRegression(C=params.get("C", 1.0))).fit(rows.features, rows.label)
'''
TOML = '[falaj]\nproject = "."\n\n[project]\nname = "shop"\nmodule = "shop"\n'


class Lost(Exception):
    """The story cannot go on: what was asked for is not there, or somebody else ended the control plane."""


class Home:
    """A project's folder with its home, and whichever processes it has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(home=folder / ".falaj", project=folder)
        self.killed = 0
        self.turn = ""  # what is asked for in another turn is another thing
        self._process: subprocess.Popen[bytes] | None = None
        self._environ: dict[str, str] = {}

    def begin(self, at: str, *, log: Path | None = None, remembers: bool = True, child: str = "") -> None:
        """Start the test build, to be killed at a point, or to kill a step process of a kind.

        One that does not remember is followed by another such.
        """
        self._environ = {} if remembers else {"CRASH_IDEMPOTENCY": "off"}
        try:
            self._test_build({"CRASH_AT": at, "CRASH_LOG": str(log or ""), "CRASH_CHILD": child, **self._environ})
        except FalajError as e:
            self.recover(e.message)

    def serve(self) -> None:
        """Start the data plane, if none runs."""
        if plane_address(self.settings) is None:
            start_plane(self.settings)

    def recover(self, why: str) -> None:
        """Carry on after the kill: `falaj up`. Raises `Lost` when nothing was killed, or it was twice."""
        process, self._process = self._process, None
        try:
            status = process.wait(10) if process else None
        except subprocess.TimeoutExpired:
            status = None
        if status != -signal.SIGKILL:
            raise Lost(f"{why}; nobody killed the control plane ({status})")
        self.killed += 1
        if self._environ:
            self._test_build({"CRASH_AT": "", "CRASH_LOG": "", **self._environ})
        else:
            self.up()

    def up(self) -> None:
        """What `falaj up` does."""
        start(self.settings)

    def down(self) -> None:
        """What `falaj down` does, the control plane first: so no journal segment is shipped on the way."""
        running = running_control_plane(self.settings.home)
        if running is not None:
            os.kill(running.pid, signal.SIGTERM)
            wait_for(lambda: running_control_plane(self.settings.home) is None, "the control plane does not stop")
        if self._process is not None and self._process.wait(30) == -signal.SIGKILL:
            self.recover("it was killed while it stopped")
            self.down()
        stop_plane(self.settings)
        stop_plane(self.settings, STAGING)

    def end(self) -> list[str]:
        """Kill whatever names this folder; returns what that was, once those that were about to end have ended."""
        deadline = time.monotonic() + 5
        while (found := processes_of(self.folder)) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return sorted(set(found.values()))

    def _test_build(self, environ: dict[str, str]) -> None:
        command = control_plane_command(self.settings)
        command = [sys.executable, str(BUILD), *command[command.index("--home") :]]
        with open_log(self.settings.home, "control-plane") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
                env={**os.environ, **environ},
            )  # fmt: skip
        await_address(self._process)


class Asker:
    """Somebody who asks again when no answer came."""

    def __init__(self, home: Home, principal: str = "owner") -> None:
        self._home = home
        self._principal = principal

    def ask(self, method: str, path: str, body: Any = None, key: str = "", **params: Any) -> Any:
        """The answer as JSON. Raises `Refused`."""
        key = key and key + self._home.turn
        while True:
            try:
                return self._once(method, path, body, key, params)
            except httpx.TransportError as e:
                self._home.recover(f"{method} {path}: {e!r}")

    def follow(self, flow: str) -> dict[str, Any]:
        """Wait for a flow's end; returns its state."""
        return self.until(flow, lambda: None)

    def until(self, flow: str, meanwhile: Callable[[], None]) -> dict[str, Any]:
        """Wait for a flow's end, doing something meanwhile."""
        after, deadline = 0, time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            state: dict[str, Any] = self.ask("GET", f"/api/v1/flows/{flow}", wait=0.5, after=after)
            if state["state"] != "running":
                return state
            after = max([after, *(e["number"] for e in state["events"])])
            meanwhile()
        raise Lost(f"{flow} has not ended after {SECONDS:.0f} s")

    def _once(self, method: str, path: str, body: Any, key: str, params: dict[str, Any]) -> Any:
        running = running_control_plane(self._home.settings.home)
        if running is None:
            raise httpx.ConnectError("it does not run")
        token = (self._home.settings.home / "tokens" / self._principal).read_text().strip()
        headers = {"Authorization": f"Bearer {token}"} | ({"Idempotency-Key": key} if key else {})
        answer = httpx.request(method, running.url + path, json=body, params=params, headers=headers, timeout=60)
        if answer.status_code >= 400:
            raise Refused(answer.status_code, answer.json())
        return answer.json() if answer.content else None


class Refused(Exception):
    """The control plane's refusal."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(f"{status} {error}")
        self.code = str(error.get("code", ""))


Story = Callable[[Home], None]


def first_start(home: Home) -> None:
    """A new home: whoever owns the folder is its administrator."""
    Asker(home).ask("GET", "/api/v1/status")


def apply(home: Home) -> None:
    """The project holds, and a second person may approve."""
    owner = Asker(home)
    owner.ask("POST", "/api/v1/definition", {"files": {"falaj.toml": TOML, "shop.py": CODE}})
    answer = owner.ask(
        "POST", "/api/v1/tokens", {"name": "risk", "kind": "person", "roles": ["risk-officer"], "days": 90}
    )
    (home.settings.home / "tokens" / "risk").write_text(answer["token"])


def load(home: Home) -> None:
    """From files to a dataset version and to values in the online store."""
    owner = Asker(home)
    _well(owner, owner.ask("POST", "/api/v1/datasets/sales/loads", {}, "load")["flow"])
    _well(owner, owner.ask("POST", "/api/v1/features/materializations", {"as_of": AS_OF}, "fill")["flow"])


def build(home: Home) -> None:
    """From a dataset version to a model version that awaits approval: train, package, measure, register, rehearse."""
    _train(Asker(home), {}, "first")


def release(home: Home) -> None:
    """Approved, admitted, planned, published, loaded: the version takes all traffic."""
    _approve(home, 1)


def second(home: Home) -> None:
    """Another version that awaits approval; the requests that the first one answered are shipped meanwhile."""
    asker = Asker(home)
    _train(asker, {"C": 0.01}, "second")
    wait_for(lambda: asker.ask("GET", "/api/v1/journal/segments"), "the journal is not shipped")


def rollout(home: Home) -> None:
    """Approved; a shadow, a canary, promoted: by what the data plane records of real requests."""
    _approve(home, 2)


def drifted(home: Home) -> None:
    """Requests unlike those that the version learned from, on seven days; recorded, and not judged yet."""
    for day in range(7):
        set_replay(home.settings.home, DAY + timedelta(days=day, hours=12))
        time.sleep(0.2)  # a data plane looks at the home's clock every 50 ms
        for n in range(40):
            _predict(home, 500.0 + n, 40)
    asker = Asker(home)
    stop_plane(home.settings)  # it ends its segment
    shipped = lambda: {s["records"] for s in asker.ask("GET", "/api/v1/journal/segments")}  # noqa: E731
    wait_for(lambda: 280 in shipped(), "the journal is not shipped")


def over(home: Home) -> None:
    """The window is over: what has drifted is judged at the next start."""
    set_replay(home.settings.home, DAY + timedelta(days=8))


def retrain(home: Home) -> None:
    """Drift is judged, an incident opens, the platform trains by itself, and the version awaits approval."""
    owner = Asker(home)
    deadline = time.monotonic() + 20
    while not (found := owner.ask("GET", "/api/v1/incidents")):
        if time.monotonic() > deadline:
            raise Lost("no incident was opened")
        time.sleep(0.05)
    flow = f"rtr_{found[0]['id'].partition('_')[2]}"
    while True:
        try:
            _well(owner, flow)
        except Refused as e:
            if e.code != "no_such_flow" and "no flow" not in str(e):
                raise
            if time.monotonic() > deadline:
                raise Lost("the incident started no retraining") from e
            time.sleep(0.05)
        else:
            return


def _train(owner: Asker, params: dict[str, Any], key: str) -> None:
    _well(owner, owner.ask("POST", f"/api/v1/models/{MODEL}/builds", {"params": params, "as_of": AS_OF}, key)["flow"])


def _approve(home: Home, number: int) -> None:
    """Approve a version, and wait until its way into traffic has ended."""
    risk, owner = Asker(home, "risk"), Asker(home)
    path = f"/api/v1/models/{MODEL}/versions/{number}/approvals"
    try:
        flow = risk.ask("POST", path, {"reason": "evidence read"})["flow"]
    except Refused as e:  # it was done before the answer was lost, and has gone on since
        if e.code != "not_awaiting":
            raise
        flow = ""
    if flow:
        state = owner.until(flow, lambda: _requests(home) if flow.startswith("rol_") else None)
        if state["state"] != "done":
            raise Lost(f"{flow}: {state['error']}")

    def serves() -> bool:
        _requests(home)
        return _state(owner, number) == "serving"

    wait_for(serves, f"{MODEL}@{number} does not serve")


def _state(owner: Asker, number: int) -> str:
    found = owner.ask("GET", f"/api/v1/models/{MODEL}/versions")
    return str(next(v["state"] for v in found if v["number"] == number))


def _well(asker: Asker, flow: str) -> None:
    state = asker.follow(flow)
    if state["state"] != "done":
        raise Lost(f"{flow} ended as {state['state']}: {state['error']}")


def _requests(home: Home) -> None:
    for n in range(40):
        _predict(home, 40.0 + n, n % 10)


def _predict(home: Home, price: float, visits: int) -> None:
    address = plane_address(home.settings)
    token = (home.settings.home / "tokens" / "owner").read_text().strip()
    inputs = [
        {"name": "shop", "datatype": "BYTES", "shape": [1], "data": ["north"]},
        {"name": "price", "datatype": "FP64", "shape": [1], "data": [price]},
        {"name": "visits", "datatype": "INT64", "shape": [1], "data": [visits]},
    ]
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.post(f"{address}/v2/models/{MODEL}/infer", json={"inputs": inputs}, headers=headers)
    if answer.status_code != 200 and answer.json().get("code") != "model_not_found":
        raise Lost(f"a request failed: {answer.status_code} {answer.text[:300]}")


def lay_out(folder: Path) -> Home:
    """A project's folder: its code, and a few thousand sales of two days, one without a time."""
    (folder / "data").mkdir(parents=True)
    (folder / "falaj.toml").write_text(TOML)
    (folder / "shop.py").write_text(CODE)
    first = datetime(2024, 1, 1, tzinfo=UTC)
    lines = ["sold_at,shop,price,visits,back", "nobody knows when,north,50.0,1,1"]
    for n in range(2400):
        price, visits = 50 + (n * 37 % 41) - 20, n * 13 % 10
        back = (price - 50) / 8 + (visits - 4.5) / 3 + (n * 29 % 17 - 8) / 4 > 0
        sold = iso(first + timedelta(minutes=n * 2))[:19]
        lines.append(f"{sold}Z,{'north' if n % 2 else 'south'},{price:.1f},{visits},{int(back)}")
    (folder / "data" / "sales-1.csv").write_text("\n".join(lines) + "\n")
    return Home(folder)


def processes_of(folder: Path) -> dict[int, str]:
    """Live processes that name a folder in their arguments, or work in it, with their arguments."""
    found, own = {}, str(folder)
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = path.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            cwd = str((path / "cwd").readlink())
            zombie = path.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if not zombie and (own in words or cwd.startswith(own)) and int(path.name) != os.getpid():
            found[int(path.name)] = words[:300]
    return found


def wait_for(condition: Callable[[], Any], otherwise: str, seconds: float = 30.0) -> Any:
    """Wait until something holds. Raises `Lost`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Lost(otherwise)
        time.sleep(0.05)
    return found
