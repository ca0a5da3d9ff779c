"""The data plane as a process: death, replacement, swaps under load, a start without a control plane."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from falaj.kernel.clock import set_replay
from falaj.lifecycle.serving.plane.journal import iter_records, read_record
from falaj.storage.blobs.local import blob_path
from tests.lifecycle.serving.plane.fleet import (
    SOURCE,
    Home,
    Plane,
    eventually,
    flight,
    flight_contract,
    flight_graph,
)

INFER = "/v2/models/flight-delay/infer"


@pytest.fixture
def planes() -> Iterator[list[Plane]]:
    """Whatever a test starts is stopped."""
    started: list[Plane] = []
    yield started
    for plane in started:
        plane.stop()


def test_what_was_answered_survives_kill_9_and_the_worker_is_replaced(home: Home, planes: list[Plane]) -> None:
    headers = {"authorization": f"Bearer {home.token('shop', ('service',))}"}
    home.materialise({"JFK": (datetime.now(UTC), (10.0, 1.0))})
    home.publish(home.bundle(1, [home.release(home.package(flight_contract(), flight_graph()), "flight-delay@1")]))
    plane = Plane(home)
    planes.append(plane)
    first = plane.status()["pid"]
    answers = [plane.http.post(INFER, json=flight(), headers=headers).json() for _ in range(20)]
    os.kill(first, signal.SIGKILL)
    for answer in answers:
        record = read_record(home.plane / "journal", answer["parameters"]["prediction_id"])
        assert record.outputs["probability"] == answer["outputs"][0]["data"]

    def replaced() -> bool:
        try:
            return plane.status()["pid"] != first and plane.http.get("/v2/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    eventually(replaced, "the worker was not replaced")
    assert plane.http.post(INFER, json=flight(), headers=headers).status_code == 200
    assert plane.stop() == 0
    assert sum(len(list(iter_records(s))) for s in (home.plane / "journal").glob("*.seg")) == 21


def test_bundles_change_under_load_without_a_failed_request(home: Home, planes: list[Plane]) -> None:
    headers = {"authorization": f"Bearer {home.token('shop', ('service',))}"}
    home.materialise({"JFK": (datetime.now(UTC), (10.0, 1.0))})
    versions = [
        home.release(home.package(flight_contract(), flight_graph(b)), f"flight-delay@{i}")
        for i, b in ((1, -9.0), (2, 9.0))
    ]
    home.publish(home.bundle(1, [versions[0]]))
    plane = Plane(home)
    planes.append(plane)
    stop = threading.Event()
    seen: list[tuple[int, str, bool]] = []

    def load() -> None:
        with httpx.Client(base_url=str(plane.http.base_url), headers=headers) as client:
            while not stop.is_set():
                response = client.post(INFER, json=flight())
                body = response.json()
                late = response.status_code == 200 and body["outputs"][0]["data"][0] > 0.5
                seen.append((response.status_code, body.get("model_version", ""), late))

    callers = [threading.Thread(target=load) for _ in range(4)]
    for caller in callers:
        caller.start()
    for generation in range(2, 12):
        home.publish(home.bundle(generation, [versions[generation % 2]]))
        eventually(lambda wanted=generation: plane.status()["generation"] == wanted, "the bundle was not taken")  # type: ignore[misc]
    stop.set()
    for caller in callers:
        caller.join()
    assert {status for status, _, _ in seen} == {200}
    assert {(version, late) for _, version, late in seen} == {
        ("1", False),
        ("2", True),
    }  # never one version's name on another's answer
    assert len(seen) > 50


def test_it_starts_and_serves_without_a_control_plane(home: Home, planes: list[Plane]) -> None:
    headers = {"authorization": f"Bearer {home.token('shop', ('service',))}"}
    home.publish(home.bundle(7, [home.release(home.package(flight_contract(), flight_graph()), "flight-delay@1")]))
    home.materialise({"JFK": (datetime.now(UTC), (10.0, 1.0))})
    first = Plane(home)
    planes.append(first)
    assert first.stop() == 0
    (home.plane / "bundle.json").unlink()
    again = Plane(home)
    planes.append(again)
    response = again.http.post(INFER, json=flight(), headers=headers)
    assert (response.status_code, response.json()["parameters"]["generation"]) == (200, 7)


def test_a_refused_release_is_reported_and_the_home_s_clock_decides(home: Home, planes: list[Plane]) -> None:
    """Flights of 2013: features and admissions are as fresh as the replayed hour says."""
    hour = datetime(2013, 7, 1, 12, tzinfo=UTC)
    set_replay(home.root, hour)
    headers = {"authorization": f"Bearer {home.token('shop', ('service',))}"}
    home.materialise(
        {"JFK": (hour - timedelta(minutes=1), (10.0, 1.0)), "OLD": (hour - timedelta(days=1), (10.0, 1.0))}
    )
    good = home.package(flight_contract(), flight_graph())
    bad = home.package(flight_contract(), flight_graph(1.0))
    home.publish(home.bundle(1, [home.release(good, "flight-delay@1")]))
    plane = Plane(home)
    planes.append(plane)
    for key, expected in (("JFK", "present"), ("OLD", "expired")):
        body = plane.http.post(INFER, json=flight(origin=key), headers=headers).json()
        assert body["parameters"]["features"][expected] == 1
    path = blob_path(home.root / "blobs", next(f.sha256 for f in bad.files if f.path == "model.onnx"))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    home.publish(home.bundle(2, [home.release(bad, "flight-delay@2")]))
    eventually(lambda: plane.status()["generation"] == 2, "the bundle was not taken")
    refused, kept = plane.status()["releases"]
    assert (refused["state"], refused["code"], kept["code"]) == ("refused", "blob_broken", "kept")
    assert plane.http.post(INFER, json=flight(), headers=headers).json()["model_version"] == "1"


def test_workers_end_with_their_supervisor(home: Home, planes: list[Plane]) -> None:
    home.publish(home.bundle(1, [home.release(home.package(flight_contract(), flight_graph()), "flight-delay@1")]))
    plane = Plane(home, workers=2)
    planes.append(plane)
    for worker in (1, 2):  # either may be the first
        eventually((home.plane / "status" / f"{worker}.json").exists, f"worker {worker} does not say how it is")
    pids = [plane.status(worker)["pid"] for worker in (1, 2)]
    plane.process.kill()
    plane.process.wait()

    def gone() -> bool:
        return not any(os.path.exists(f"/proc/{pid}") for pid in pids)  # noqa: PTH110  # it is no file

    eventually(gone, "a worker outlived its supervisor")


def test_a_worker_that_only_starts_ends_with_its_supervisor_too(home: Home, planes: list[Plane]) -> None:
    home.publish(home.bundle(1, [home.release(home.package(flight_contract(), flight_graph()), "flight-delay@1")]))
    plane = Plane(home)
    planes.append(plane)
    assert plane.stop() == 0
    (home.plane / "status" / "1.json").unlink()
    with plane.log.open("ab") as log:
        again = subprocess.Popen(
            plane.process.args, cwd=home.root, env={**os.environ, "PYTHONPATH": str(SOURCE)}, stdout=log, stderr=log
        )
    children = Path(f"/proc/{again.pid}/task/{again.pid}/children")
    eventually(lambda: bool(children.read_text().split()), "no worker starts")
    pids = children.read_text().split()
    again.kill()
    again.wait()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "a worker outlived its supervisor")


def test_a_worker_that_is_killed_again_and_again_is_replaced_each_time(home: Home, planes: list[Plane]) -> None:
    home.publish(home.bundle(1, [home.release(home.package(flight_contract(), flight_graph()), "flight-delay@1")]))
    plane = Plane(home)
    planes.append(plane)
    for _ in range(4):
        pid = plane.status()["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda before=pid: plane.status()["pid"] != before, "the worker was not replaced")  # type: ignore[misc]
    assert plane.stop() == 0


def test_a_data_plane_that_cannot_serve_ends(home: Home) -> None:
    (home.plane / "trust.json").write_bytes(b"{")
    with pytest.raises(AssertionError):
        Plane(home)
    log = (home.root / "plane.log").read_text()
    assert "trust.json" in log


def test_a_worker_that_cannot_start_again_does_not_end_the_others(home: Home, planes: list[Plane]) -> None:
    headers = {"authorization": f"Bearer {home.token('shop', ('service',))}"}
    home.materialise({"JFK": (datetime.now(UTC), (10.0, 1.0))})
    home.publish(home.bundle(1, [home.release(home.package(flight_contract(), flight_graph()), "flight-delay@1")]))
    plane = Plane(home, workers=2)
    planes.append(plane)
    eventually(lambda: len(list((home.plane / "status").glob("*.json"))) == 2, "not every worker says how it is")
    good = (home.plane / "trust.json").read_bytes()
    (home.plane / "trust.json").write_bytes(b"{")
    pid = plane.status(2)["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: plane.log.read_text().count("Unexpected exit from worker") > 3, "it was not tried again")
    with httpx.Client(base_url=plane.http.base_url) as client:
        assert client.post(INFER, json=flight(), headers=headers).status_code == 200
    (home.plane / "trust.json").write_bytes(good)
    eventually(lambda: plane.status(2)["pid"] != pid, "the worker did not come back")
    assert plane.stop() == 0


@pytest.mark.parametrize("moment", ["fork", "journal", "status"])
def test_a_stop_is_heard_while_workers_start(home: Home, moment: str) -> None:
    """The supervisor would end a worker that does not hear it after 30 s."""
    home.publish(home.bundle(1, [home.release(home.package(flight_contract(), flight_graph()), "flight-delay@1")]))
    for _ in range(3):
        for name in ("journal", "status"):
            shutil.rmtree(home.plane / name, ignore_errors=True)
        command = [sys.executable, "-m", "falaj.entrypoints.data_plane", "--workers", "2", "--home", str(home.root)]
        for flag, folder in (("--dir", "plane"), ("--blobs", "blobs"), ("--online", "online")):
            command += [flag, str(home.root / folder)]
        process = subprocess.Popen(command, start_new_session=True, env=os.environ | {"PYTHONPATH": str(SOURCE)})
        try:
            if moment == "fork":
                eventually(lambda p=process: _children(p.pid) > 0, "no worker starts")  # type: ignore[misc]
            else:  # a worker is being built; a worker is about to serve
                eventually(lambda: any((home.plane / moment).glob("[0-9]*.[sj]*")), "no worker starts")
            os.killpg(process.pid, signal.SIGTERM)
            assert process.wait(20) in (0, -signal.SIGTERM)
        finally:
            if process.poll() is None:
                process.kill()


def _children(pid: int) -> int:
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
