from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from falaj.entrypoints.data_plane import check_host, free_port, main
from falaj.kernel.errors import Invalid, Unavailable

SOURCE = Path(__file__).parents[2] / "src"
FOLDERS = ["--dir", "d", "--blobs", "b", "--online", "o", "--home", "h"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.com", ""])  # noqa: S104  # they are refused
def test_only_loopback_is_listened_on(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Invalid) as caught:
        check_host(host)
    assert caught.value.code == "not_loopback"
    with pytest.raises(SystemExit) as left:
        main([*FOLDERS, "--host", host])
    assert left.value.code == 2
    assert "loopback" in capsys.readouterr().err


def test_a_port_in_use_is_not_shared(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable):
            free_port("127.0.0.1", port)
        with pytest.raises(SystemExit) as left:
            main([*FOLDERS, "--port", str(port)])
    assert left.value.code == 3
    assert str(port) in capsys.readouterr().err


def test_folders_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--dir", "d"])
    assert left.value.code == 2


def loaded(modules: str) -> set[str]:
    """What is loaded after importing some modules in a fresh process."""
    script = f"import sys, {modules}; print(*sys.modules)"
    environ = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_supervisor_stays_small_and_a_worker_carries_no_database() -> None:
    supervisor = loaded("falaj.entrypoints.data_plane")
    assert not supervisor & {"numpy", "onnxruntime", "cryptography", "lmdb", "cedarpy", "falaj.bootstrap.data_plane"}
    worker = loaded("falaj.bootstrap.data_plane")
    forbidden = {
        "falaj.workflow",
        "sqlalchemy",
        "dbos",
        "fastapi",
        "pandas",
        "polars",
        "deltalake",
        "sklearn",
        "model_signing",
    }
    assert not worker & (forbidden | {"pickle5", "securesystemslib", "onnx", "scipy"})
