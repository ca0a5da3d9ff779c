"""What is sent to be imported, over HTTP, where it is not what was said of it."""

from __future__ import annotations

from tests.lifecycle.house import House
from tests.lifecycle.tables import ask


def test_limits_cannot_be_passed_by_saying_less(home: House) -> None:
    data = b"x" * 1000
    kept = ask(home, "engineer", "POST", "/api/v1/imports/files", content=data).json()
    assert kept["size"] == len(data)
    file = {"path": "model.onnx", "size": 1, "sha256": kept["digest"]}
    body = {"kind": "onnx", "uri": "model.onnx", "files": [file], "contract": {"task": "binary"}, "claims": {}}
    started = ask(home, "engineer", "POST", "/api/v1/models/bought/imports", json=body)
    assert started.status_code == 202, started.text
    ended = home.finished(started.json()["flow"])
    assert ended.state == "failed" and ended.error is not None
    assert ended.error["code"] == "size_differs" and "1000 bytes and not 1" in ended.error["error"]
