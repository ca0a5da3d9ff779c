"""The kill switch with a real data plane: the model answers nobody any more within seconds, its fallback does, two revive it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.errors import Conflict, Denied, Unavailable
from falaj.lifecycle.loop.overseeing import KILL_SECONDS
from falaj.lifecycle.rollout.model import all_to
from falaj.lifecycle.serving.plane.journal import read_record
from falaj.lifecycle.serving.service import ServingService
from falaj.lifecycle.training.model import ModelContract
from falaj.storage.blobs.local import blob_path
from tests.lifecycle.house import House
from tests.lifecycle.serving.plane.fleet import flight


@pytest.fixture(scope="module")
def asked(home: House) -> Iterator[httpx.Client]:
    """The home's data plane, asked as a service."""
    token = home.plane.identity.grant(SYSTEM, Principal("shop", "service", ("service",)), 1).token
    with (
        home.data_plane() as plane,
        httpx.Client(base_url=plane.address, headers={"Authorization": f"Bearer {token}"}) as http,
    ):
        yield http


def ask(http: httpx.Client, model: str, version: str = "") -> httpx.Response:
    return http.post(f"/v2/models/{model}{'/versions/' + version if version else ''}/infer", json=flight())


def who(http: httpx.Client, model: str, version: str = "") -> str:
    answer = ask(http, model, version)
    body = answer.json()
    return str(body["model_version"]) if answer.status_code == 200 else str(body["code"])


def serving(home: House, model: str, versions: int = 1) -> None:
    for _ in range(versions):
        assert home.release(home.registered(model=model)).state == "done"


def say(home: House, model: str, fallback: dict[str, Any]) -> None:
    home.plane.inventory.set(home.owner, model, {"fallback": fallback}, "agreed with the owner")


def kill(home: House, model: str) -> dict[str, Any]:
    return home.plane.oversight.overseeing.kill(home.risk, model, "it answers nonsense")


def revive(home: House, model: str) -> None:
    home.plane.oversight.overseeing.revive(home.risk, model, "mended")
    assert home.plane.oversight.overseeing.revive(home.owner, model, "seen")["revived"]


def test_within_five_seconds_it_answers_nobody_under_load(home: House, asked: httpx.Client) -> None:
    model = "loaded"
    serving(home, model)
    answers: list[tuple[float, int]] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            answers.append((time.perf_counter(), ask(asked, model).status_code))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        while len(answers) < 20:
            time.sleep(0.01)
        began = time.perf_counter()
        told = kill(home, model)
        returned = time.perf_counter()
        while answers[-1][0] < returned + 0.2:
            time.sleep(0.01)
    finally:
        stop.set()
        thread.join()
    last = max(at for at, status in answers if status == 200)
    assert last - began < KILL_SECONDS
    assert last < returned, "the command returns once no worker answers any more"
    assert {status for at, status in answers if at > returned} == {503}
    assert who(asked, model) == "model_killed"
    assert (told["workers"], told["fallback"]) == (1, {})
    assert asked.get("/v2/health/ready").status_code == 200, "what is killed on purpose does not make the plane unready"


def test_the_version_before_answers_and_nothing_else(home: House, asked: httpx.Client) -> None:
    model = "older"
    serving(home, model, 2)
    say(home, model, {"kind": "previous"})
    told = kill(home, model)
    assert (told["answers"], told["fallback"]) == (f"{model}@1", {"kind": "version", "number": 1})
    assert who(asked, model) == "1"
    assert who(asked, model, "2") == "version_not_found"
    assert home.plane.rollout.plan(model) is not None, "the plan of the model is as it was"
    revive(home, model)
    assert who(asked, model) == "2"


def test_a_constant_answer_is_recorded_like_any_other(home: House, asked: httpx.Client) -> None:
    model = "constant"
    serving(home, model)
    outputs = {o.name: 0.5 if o.datatype.startswith("FP") else 1 for o in contract(home, model).outputs}
    say(home, model, {"kind": "answer", "answer": outputs})
    kill(home, model)
    answer = ask(asked, model).json()
    assert answer["model_version"] == "constant" and answer["parameters"]["killed"] is True
    assert {o["name"]: o["data"] for o in answer["outputs"]} == {n: [v] for n, v in outputs.items()}
    record = read_record(home.plane.layout.plane / "journal", answer["parameters"]["prediction_id"])
    assert (record.role, record.version, record.digest, record.rows) == ("fallback", "constant", "", 1)
    assert record.outputs == {n: [v] for n, v in outputs.items()}
    assert home.plane.tail.catch_up(10), "monitoring reads on over such records"
    assert who(asked, model, "1") == "model_killed", "whoever names a killed version is refused"
    ragged = {"inputs": [{"name": "a", "shape": [2], "datatype": "FP32", "data": [1.0]}]}
    assert asked.post(f"/v2/models/{model}/infer", json=ragged).json()["code"] == "bad_row_count"
    revive(home, model)
    assert who(asked, model) == "1"


def contract(home: House, model: str) -> ModelContract:
    (plan,) = [p for p in home.plane.rollout.plans() if p.model == model]
    return home.plane.registry.contract(plan.routes[0].digest)


@pytest.mark.parametrize(
    "fallback",
    [
        {"kind": "previous"},
        {"kind": "version", "number": 9},
        {"kind": "version", "number": 1},
        {"kind": "answer", "answer": {"another": 1}},
    ],
    ids=lambda f: f"{f['kind']}-{f.get('number', '')}",
)
def test_a_fallback_that_cannot_answer_is_a_refusal_and_says_why(
    home: House, asked: httpx.Client, fallback: dict[str, Any]
) -> None:
    model = f"bare-{fallback['kind']}-{fallback.get('number', 0)}"
    serving(home, model)
    say(home, model, fallback)
    told = kill(home, model)
    assert told["less"] and told["fallback"] == {}
    assert who(asked, model) == "model_killed"


def test_a_fallback_that_the_data_plane_refuses_leaves_nobody_answering(home: House, asked: httpx.Client) -> None:
    model = "damaged"
    serving(home, model, 2)
    first = home.plane.registry.version(model, 1)
    graph = next(f.sha256 for f in first.files if f.path == "model.onnx")
    path = blob_path(home.plane.blobs.root, graph)
    path.chmod(0o600)
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    say(home, model, {"kind": "version", "number": 1})
    kill(home, model)
    assert who(asked, model) == "model_killed", "never the version that was killed"


def test_one_person_revives_nothing(home: House, asked: httpx.Client) -> None:
    model = "stubborn"
    serving(home, model)
    overseeing = home.plane.oversight.overseeing
    with pytest.raises(Conflict) as calm:
        overseeing.revive(home.risk, model, "it is fine")
    assert calm.value.code == "not_killed"
    kill(home, model)
    with pytest.raises(Conflict) as twice:
        kill(home, model)
    assert twice.value.code == "killed_already"
    assert not overseeing.revive(home.risk, model, "mended")["revived"]
    with pytest.raises(Denied) as alone:
        overseeing.revive(home.risk, model, "mended, I say")
    assert alone.value.details["rules"] == ["two-people-revive"]
    with pytest.raises(Denied):
        overseeing.revive(home.author, model, "me too")
    assert who(asked, model) == "model_killed"
    assert overseeing.revive(home.owner, model, "seen")["revived"]
    assert who(asked, model) == "1"
    done = [e.entry for e in home.log(resource_id=model, outcome="done") if e.entry.action.startswith("changes.")]
    assert [(e.action, e.principal) for e in reversed(done)] == [
        ("changes.kill", "risk"), ("changes.propose_revival", "risk"), ("changes.revive", "owner"),
    ]  # fmt: skip


def test_no_flow_brings_a_killed_model_back(home: House, asked: httpx.Client) -> None:
    model = "eager"
    serving(home, model)
    waiting = home.registered(model=model)
    kill(home, model)
    state = home.release(waiting)
    assert state.state == "failed" and state.error and state.error["code"] == "model_killed"
    home.plane.rollout.set_plan(all_to(model, home.plane.registry.version(model, 1).digest), "risk", home.operation())
    home.plane.serving.settle(home.plane.serving.publish("risk"), 10)
    assert who(asked, model) == "model_killed"
    with pytest.raises(Unavailable) as refused:
        home.plane.kills.check(model)
    assert refused.value.code == "model_killed"


def test_an_engineer_may_kill_and_a_viewer_may_not(home: House, asked: httpx.Client) -> None:
    model = "open"
    serving(home, model)
    home.person("vera", "viewer")
    assert home.api("vera").post(f"/api/v1/models/{model}/kill", {"reason": "bad"}).status_code == 403
    assert who(asked, model) == "1"
    assert home.api("engineer").post(f"/api/v1/models/{model}/kill", {"reason": "bad"}).status_code == 200
    assert who(asked, model) == "model_killed"


def test_a_kill_that_could_not_be_published_is_published_by_the_next_look(
    home: House, asked: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = "unlucky"
    serving(home, model)

    def broken(*_: object, **__: object) -> int:
        raise Unavailable("the disk is full", hint="make room", code="disk_full")

    with monkeypatch.context() as patch:
        patch.setattr(ServingService, "publish", broken)
        with pytest.raises(Unavailable) as late:
            kill(home, model)
    assert late.value.code == "kill_not_taken"
    home.plane.oversight.overseeing.look()
    home.plane.serving.settle(home.plane.serving.generation(), 10)
    assert who(asked, model) == "model_killed"
