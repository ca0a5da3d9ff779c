from __future__ import annotations

import asyncio
import functools
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from falaj.governance.signing.keys import KeyRing
from falaj.kernel.errors import Denied, Invalid, Unavailable
from falaj.workflow.steps import StepTask
from tests.workflow.children import SOURCE, Steps, alive, says_its_pid, wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(tmp_path)


def test_events_and_the_result_come_back(steps: Steps, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.onnx").write_bytes(b"weights")
    task = {"model": str(model), "key": str(KeyRing(tmp_path / "keys").model_path), "expected": ""}
    result = steps.run(StepTask("package", task, str(steps.runner.workspace("flow", "step"))))
    assert [f["path"] for f in result.value["files"]] == ["model.onnx"]
    assert result.value["digest"].startswith("sha256:")
    assert result.seconds > 0 and result.peak_mb > 1
    assert [(e["type"], e["text"]) for e in steps.events] == [("progress", "signing")]


def test_what_the_project_defines_comes_back(steps: Steps) -> None:
    value = steps.code(SOURCE).value
    assert [s["name"] for s in value["sources"]] == ["it"]


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("x = 1\n", Invalid, "declares no source"),
        ("import nothing_like_it\n", Invalid, "nothing_like_it"),
        ("def\n", Invalid, "line 1"),
    ],
)
def test_a_refusal_comes_back_as_it_was_raised(steps: Steps, code: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        steps.code(code)


def test_a_fresh_step_process_ends_by_itself_and_well(tmp_path: Path) -> None:
    """The thread that reads standard input must hold no lock that Python wants at its end: it would wait, and abort."""
    process = subprocess.Popen(
        [sys.executable, "-m", "falaj.entrypoints.step"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin and process.stdout
    process.stdin.write(msgspec.json.encode(StepTask("nothing", {}, str(tmp_path))) + b"\n")
    process.stdin.flush()  # and it stays open
    assert msgspec.json.decode(process.stdout.readline())["type"] == "error"
    assert process.wait(20) == 0
    assert "Fatal Python error" not in (tmp_path / "nothing.log").read_text()
    process.communicate()


def test_a_step_that_nobody_knows_is_refused(steps: Steps) -> None:
    with pytest.raises(Invalid, match="no step"):
        steps.run(StepTask("no-such-kind", {}, str(steps.runner.workspace("flow", "step"))))


def test_an_accident_comes_back_with_its_trace(steps: Steps) -> None:
    with pytest.raises(Unavailable) as failed:
        steps.run(StepTask("package", {"model": 7}, str(steps.runner.workspace("flow", "step"))))
    assert failed.value.code == "step_failed"
    assert "ValidationError" in failed.value.details["trace"]


@pytest.mark.parametrize(
    "end", ["os._exit(0)", "os._exit(3)", "os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 11)", "os.abort()"]
)
def test_a_death_is_told_with_the_end_of_the_log(steps: Steps, end: str) -> None:
    with pytest.raises(Unavailable) as died:
        steps.code(f"import os, sys\nprint('last words', flush=True)\n{end}\n")
    assert died.value.code == "step_died"
    assert "last words" in died.value.details["log"]


def test_what_project_code_prints_is_no_protocol(steps: Steps) -> None:
    noise = "import os, sys\n"
    noise += 'print(\'{"type": "result", "value": {"forged": 1}, "peak_mb": 1}\', flush=True)\n'
    noise += "sys.stdout.write('x' * 5_000_000)\nsys.stderr.write('y' * 1_000_000)\nos.write(1, b'z' * 1_000_000)\n"
    assert [s["name"] for s in steps.code(noise + SOURCE).value["sources"]] == ["it"]
    assert steps.events == []
    assert all(steps.log.count(c) >= n for c, n in (("x", 5_000_000), ("y", 1_000_000), ("z", 1_000_000)))


@pytest.mark.parametrize(
    "line", ["b'not json' + bytes([10])", "b'[1]' + bytes([10])", "b'x' * (17 << 20)", "b'null' + bytes([10])"]
)
def test_a_child_that_breaks_the_protocol_counts_as_dead(steps: Steps, line: str) -> None:
    """Whoever finds the protocol's descriptor can break their own step and nothing else."""
    code = "import os\nfor fd in range(3, 20):\n    try:\n"
    code += f"        if os.readlink(f'/proc/self/fd/{{fd}}').startswith('pipe'):\n            os.write(fd, {line})\n"
    code += "    except OSError:\n        pass\n"
    with pytest.raises(Unavailable) as died:
        steps.code(code + SOURCE)
    assert died.value.code == "step_died"


def test_too_much_memory_is_stopped(tmp_path: Path) -> None:
    steps = Steps(tmp_path, memory_mb=300)
    with pytest.raises(Denied, match="more than 300 MB") as stopped:
        steps.code("import time\nx = b'x' * 500_000_000\ntime.sleep(60)\n")
    assert stopped.value.code == "step_limit"


def test_too_much_time_is_stopped_with_all_its_children(tmp_path: Path) -> None:
    steps = Steps(tmp_path, seconds=1)
    code = "import subprocess, time\nchild = subprocess.Popen(['sleep', '60'])\nprint('pid', child.pid, flush=True)\ntime.sleep(60)\n"
    with pytest.raises(Denied, match="longer than 1 s"):
        steps.code(code)
    pid = int(steps.log.split("pid")[1].split()[0])
    wait_for(lambda: not alive(pid))


def test_a_child_has_a_clean_environment(steps: Steps, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "msgspec.py").write_text("raise SystemExit('taken from PYTHONPATH')")
    for name, value in {
        "FALAJ_TOKEN": "falaj_secret", "FALAJ_HOME": "/h", "AWS_SECRET_ACCESS_KEY": "secret", "PYTHONPATH": str(tmp_path / "evil"),
        "PYTHONSTARTUP": "/x", "LD_LIBRARY_PATH": "/nothing", "HTTP_PROXY": "http://p", "SSH_AUTH_SOCK": "/s",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    code = "import json, os, sys\nprint('ENV', json.dumps([dict(os.environ), sys.path, sys.argv, os.getcwd()]), flush=True)\n"
    steps.code(code + SOURCE)
    environ, path, argv, folder = msgspec.json.decode(steps.log.split("ENV ")[1].splitlines()[0])
    workspace = str(tmp_path / "tmp" / "flow" / "step")
    assert (environ["HOME"], environ["TMPDIR"], folder) == (workspace, workspace, workspace)
    assert set(environ) - {"HOME", "TMPDIR", "OMP_NUM_THREADS", "ORT_DISABLE_TELEMETRY", "LC_CTYPE"} <= {
        "PATH",
        "LANG",
        "LC_ALL",
        "TZ",
        "SSL_CERT_FILE",
    }
    assert not any("secret" in v or "evil" in v for v in environ.values())
    assert str(tmp_path / "evil") not in path and "" not in path
    assert not any("secret" in a for a in argv)


def test_secrets_reach_a_step_over_standard_input_only(steps: Steps) -> None:
    code = (
        "import os\nprint('CMD', open('/proc/self/cmdline').read(), dict(os.environ), os.listdir('.'), flush=True)\n"
        + SOURCE
    )
    task = StepTask(
        "describe", {}, str(steps.runner.workspace("flow", "step")), steps.project(code), secrets={"token": "hush-hush"}
    )
    steps.run(task)
    assert "CMD" in steps.log and "hush-hush" not in steps.log
    assert not any(b"hush-hush" in p.read_bytes() for p in steps.folder.rglob("*") if p.is_file())


def test_a_workspace_is_empty_private_and_removed(steps: Steps, tmp_path: Path) -> None:
    first = steps.runner.workspace("bld_1", "train")
    (first / "left").write_text("by an earlier try")
    again = steps.runner.workspace("bld_1", "train")
    assert again == first and list(again.iterdir()) == []
    assert again.stat().st_mode & 0o077 == 0
    other = steps.runner.workspace("bld_2", "train")
    steps.runner.clean("bld_1")
    steps.runner.clean("never-there")
    assert not first.exists() and other.exists()


@pytest.mark.parametrize("name", ["../../outside", "..", "/etc", "a/b", "a\0b", ".", "...", "", "~", "a\nb"])
def test_no_name_leaves_the_folder(steps: Steps, tmp_path: Path, name: str) -> None:
    root = tmp_path / "tmp"
    root.mkdir(exist_ok=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "kept").write_text("x")
    place = steps.runner.workspace(name, name)
    assert root in place.resolve().parents and len(place.resolve().relative_to(root).parts) == 2
    steps.runner.clean(name)
    assert (tmp_path / "kept").exists() and (tmp_path / "outside").exists() and root.exists()


PARENT = """
import asyncio, sys
from pathlib import Path
from falaj.workflow.child import ChildRunner
from falaj.workflow.steps import StepTask
folder = Path(sys.argv[1])
runner = ChildRunner(folder / "tmp", memory_mb=4096, seconds=60)
task = StepTask("describe", {}, str(runner.workspace("flow", "step")), sys.argv[2])
asyncio.run(runner.run(task, print))
"""


@pytest.fixture
def sleeping(steps: Steps) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A parent whose child sleeps, and the child's pid."""
    project = steps.project("import os, time\nprint('pid', os.getpid(), flush=True)\ntime.sleep(60)\n")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(steps.folder), project], cwd=ROOT)
    wait_for(lambda: says_its_pid(steps.folder / "tmp" / "flow" / "step"))
    yield parent, int(steps.log.split("pid")[1].split()[0])
    parent.kill()
    parent.wait(20)


def test_a_child_ends_when_its_parent_is_killed(sleeping: tuple[subprocess.Popen[bytes], int]) -> None:
    parent, child = sleeping
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait(20)
    wait_for(lambda: not alive(child))


def test_a_cancelled_step_leaves_no_process(steps: Steps) -> None:
    project = steps.project("import os, time\nprint('pid', os.getpid(), flush=True)\ntime.sleep(60)\n")
    task = StepTask("describe", {}, str(steps.runner.workspace("flow", "step")), project)

    async def cancel() -> int:
        running = asyncio.create_task(steps.runner.run(task, steps.events.append))
        await asyncio.to_thread(wait_for, lambda: says_its_pid(Path(task.workspace)))
        pid = int(steps.log.split("pid")[1].split()[0])
        assert alive(pid)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return pid

    pid = asyncio.run(cancel())
    wait_for(lambda: not alive(pid))


def test_stopping_the_runner_ends_every_child(steps: Steps) -> None:
    project = steps.project("import os, time\nprint('pid', os.getpid(), flush=True)\ntime.sleep(60)\n")
    tasks = [StepTask("describe", {}, str(steps.runner.workspace("flow", s)), project) for s in ("step", "other")]

    async def stop() -> list[Any]:
        running = asyncio.gather(*(steps.runner.run(t, steps.events.append) for t in tasks), return_exceptions=True)
        for task in tasks:
            await asyncio.to_thread(wait_for, functools.partial(says_its_pid, Path(task.workspace)))
        steps.runner.stop()
        return list(await running)

    ends = asyncio.run(stop())
    assert [type(e) for e in ends] == [Unavailable, Unavailable]
