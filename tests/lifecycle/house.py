"""A whole control plane in this process, with versions that were packaged, signed and measured for real.

Training is left out: graphs are written by hand, so a version takes milliseconds. One a process at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from falaj.bootstrap import api
from falaj.bootstrap.control_plane import ControlPlane
from falaj.governance.audit.model import Conditions, Found
from falaj.governance.signing.signer import ModelSigner
from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.clock import iso
from falaj.kernel.digests import canonical_json
from falaj.kernel.environments import DEV, STAGING
from falaj.kernel.ids import new_id
from falaj.kernel.settings import Settings
from falaj.lifecycle.evidence.model import BuildFacts, GateSpec, Measurement, findings
from falaj.lifecycle.evidence.service import Measured
from falaj.lifecycle.registry import steps
from falaj.lifecycle.registry.model import ModelVersion, PackageTask, Rehearsal
from falaj.lifecycle.serving.process import PlaneFolders, PlaneProcess, start_plane
from falaj.lifecycle.training.model import DatasetUse, ModelContract
from falaj.storage.online.lmdb_store import OnlineWriter, ViewMeta
from falaj.workflow.flow import FlowState
from tests.lifecycle.serving.plane.fleet import VIEW, Silent, flight_contract, flight_graph, profile_of

GATES = (
    GateSpec("metric", "roc_auc", at_least=0.6),
    GateSpec("parity", "max_abs_difference", at_most=1e-4),
    GateSpec("scan"),
)
GOOD = {"metric roc_auc": 0.7, "parity max_abs_difference": 1e-6, "scan": 0.0}
NAMES = tuple(g.name for g in GATES)
MODEL = "flight-delay"


class Api:
    """Asks an application as someone, without a socket."""

    def __init__(self, plane: ControlPlane, token: str) -> None:
        self._app = api.build(plane)
        self._steps = plane.steps
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> httpx.Response:
        return self.ask("GET", path)

    def post(self, path: str, json: Any = None) -> httpx.Response:
        return self.ask("POST", path, json=json)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask with whatever httpx can send."""
        return asyncio.run(self._ask(method, path, options))

    async def _ask(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://home", headers=self._headers) as http:
            answer = await http.request(method, path, **options)
        await self._steps.dismiss()  # this loop ends here
        return answer


class House:
    """A control plane, people with roles, and versions in any state."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.plane = ControlPlane(Settings(home=root / "home", project=root, **settings))
        self.plane.start()
        self.author = self.person("engineer", "ml-engineer")
        self.risk = self.person("risk", "risk-officer")
        self.owner = self.plane.identity.principal("owner")
        self._versions = 0
        self._materialise()

    def begin_at(self, number: int) -> None:
        """Number the versions from here on, in a house that was open before."""
        self._versions = number

    def person(self, name: str, *roles: str) -> Principal:
        self.plane.identity.grant(SYSTEM, Principal(name, "person", roles), 1)
        return self.plane.identity.principal(name)

    def packaged(
        self,
        gates: tuple[str, ...] = NAMES,
        approvals: int = 1,
        model: str = MODEL,
        graph: bytes = b"",
        contract: ModelContract | None = None,
        made_by: str = "",
    ) -> ModelVersion:
        """A signed candidate, with a graph or a contract of its own if one is given; its files and signature are blobs."""
        self._versions += 1
        told = contract or flight_contract(model)
        folder = self.root / "models" / str(self._versions)
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(graph or flight_graph(float(self._versions)))
        (folder / "signature.json").write_bytes(msgspec.json.encode(told))
        (folder / "profile.json").write_bytes(profile_of(told, self._versions / 1000))
        signer = ModelSigner(self.plane.keys)
        package = steps.run(PackageTask(str(folder), signer.path), Silent())
        for file in package.files:
            self.plane.blobs.put((folder / file.path).read_bytes())
        version = ModelVersion(
            model=model,
            number=0,
            digest=package.digest,
            state="candidate",
            author=self.author.name,
            run=made_by or f"run_{self._versions}",
            files=package.files,
            signature=self.plane.blobs.put(canonical_json(signer.signed(package.signature, package.files))),
            gates=gates,
            approvals=approvals,
            created_at=iso(self.plane.clock.now()),
        )
        self.plane.registry.package(version, self.author.name, self.operation())
        return version

    def measured(self, version: ModelVersion, **values: float | None) -> str:
        """Sign evidence; `values` replace the good readings, None leaves one out."""
        readings = {**GOOD, **{k.replace("_", " ", 1): v for k, v in values.items()}}
        taken = tuple(Measurement(name, value) for name, value in readings.items() if value is not None)
        now = iso(self.plane.clock.now())
        facts = BuildFacts(
            project=version.digest, datasets=(DatasetUse("flights", 0, version.digest),), run=version.run
        )
        gates = tuple(g for g in GATES if readings.get(g.name) is not None)
        record = Measured(version.alias, version.digest, findings(gates, taken), facts, now, now)
        return self.plane.evidence.record(record, self.author.name, self.operation())

    def registered(self, approvals: int = 1, model: str = MODEL, graph: bytes = b"") -> ModelVersion:
        """A version that awaits approval."""
        version = self.packaged(approvals=approvals, model=model, graph=graph)
        self.measured(version)
        self.plane.registry.register(version.digest, self.author.name, self.operation())
        return self.staged(version)

    def staged(self, version: ModelVersion) -> ModelVersion:
        """A registered version as it leaves staging; no data plane was asked."""
        stage(self.plane, version.digest)
        return self.now(version)

    def approved(self) -> ModelVersion:
        """A version with the approval that it needs, not released."""
        version = self.registered()
        self.plane.changes.decide(self.risk, self.plane.registry.subject(version), True, "evidence read")
        self.plane.registry.move(version.digest, "approved", "", self.risk.name, self.operation())
        return self.now(version)

    def release(self, version: ModelVersion, by: Principal | None = None) -> FlowState:
        """Approve, and wait for the end of the release."""
        answer = self.plane.decisions.approve(by or self.risk, self.now(version), "evidence read")
        return self.finished(answer["flow"])

    def finished(self, flow: str, seconds: float = 60) -> FlowState:
        deadline = time.monotonic() + seconds
        while (state := self.plane.workflows.state(flow, wait=0.2)).state == "running":
            assert time.monotonic() < deadline, state
        return state

    def _materialise(self) -> None:
        """Fill the view that the model looks up."""
        now = self.plane.clock.now()
        meta = ViewMeta(VIEW.digest, iso(now), VIEW.columns, 0, "first")
        writer = OnlineWriter(self.plane.layout.online, map_bytes=1 << 24)
        writer.replace(meta, [("JFK", (int(now.timestamp() * 1_000_000), (10.0, 1.0)))])
        writer.close()

    def api(self, principal: str = "owner") -> Api:
        """The HTTP API, asked as someone of this house."""
        who = self.plane.identity.principal(principal)
        token = self.plane.identity.grant(SYSTEM, who, 1).token
        return Api(self.plane, token)

    def now(self, version: ModelVersion) -> ModelVersion:
        """The version as it stands."""
        return self.plane.registry.by_digest(version.digest)

    def operation(self) -> str:
        return new_id("op", self.plane.clock.now())

    def sql(self, statement: Any) -> Any:
        """Change the database behind everyone's back."""
        return self.plane.database.change(lambda tx: tx.execute(statement).rowcount)

    def log(self, **conditions: Any) -> tuple[Found, ...]:
        """Audit entries, newest first."""
        return self.plane.audit.search(Conditions(**conditions))

    @contextmanager
    def data_plane(self) -> Iterator[PlaneProcess]:
        """The home's data plane as a process."""
        layout = self.plane.layout
        process = start_plane(PlaneFolders(layout.plane, layout.blobs, layout.online, layout.home))
        try:
            yield process
        finally:
            process.stop()


def stage(plane: ControlPlane, digest: str) -> None:
    """Admit a registered version to dev and staging, and sign that it was rehearsed."""
    for environment in (DEV, STAGING):
        plane.registry.admit(digest, environment, SYSTEM)
    plane.registry.rehearsed(rehearsal_of(plane, digest), SYSTEM.name, new_id("op", plane.clock.now()))


def rehearsal_of(plane: ControlPlane, digest: str, **changed: Any) -> Rehearsal:
    """What a rehearsal found out that passed."""
    version = plane.registry.by_digest(digest)
    good = Rehearsal(
        digest=version.digest,
        model=version.model,
        alias=version.alias,
        environment=STAGING,
        evidence=version.evidence,
        passed=True,
        requests=200,
        failures=0,
        at=iso(plane.clock.now()),
        source="journal",
        p50_ms=1.0,
        p99_ms=2.0,
        statuses={"present": 200},
    )
    return msgspec.structs.replace(good, **changed)


@contextmanager
def house(root: Path, **settings: Any) -> Iterator[House]:
    """An open house, closed at the end. One a process at a time: the engine of flows is one a process."""
    opened = House(root, **settings)
    try:
        yield opened
    finally:
        opened.plane.close()
