"""What is installed is named by its hash, and nobody's index is written down."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
NAMES = ("bootstrap", "control-plane", "data-plane", "dev")


def requirements(lock: Path) -> list[str]:
    """The logical lines of a lock."""
    text = lock.read_text("utf-8").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]


def pins(lock: Path) -> set[str]:
    """`name==version`, with the condition under which it holds."""
    return {line.partition("--hash")[0].strip() for line in requirements(lock)}


def test_each_process_has_a_lock() -> None:
    assert [lock.stem for lock in LOCKS] == list(NAMES)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_requirement_is_pinned_and_hashed(lock: Path) -> None:
    found = requirements(lock)
    assert found
    for line in found:
        assert re.match(r"[a-z0-9][a-z0-9._-]*==\S+ ", line), line[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), line[:80]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_no_address_stands_in_a_lock(lock: Path) -> None:
    assert not re.search(r"://|^-|^\s*--(?!hash)| @ |\bfile:", lock.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("plane", ["control-plane", "data-plane"])
def test_a_plane_is_deployed_with_what_was_tested(plane: str) -> None:
    tested = {pin.partition(";")[0].strip() for pin in pins(ROOT / "locks" / "dev.txt")}
    assert {pin.partition(";")[0].strip() for pin in pins(ROOT / "locks" / f"{plane}.txt")} <= tested


def test_every_declared_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    for lock, wanted in {
        "dev": [*extras["demo"], *extras["steps"], *project["dependency-groups"]["dev"]],
        "control-plane": [*extras["control-plane"], *extras["cli"]],
        "data-plane": extras["data-plane"],
    }.items():
        locked = {pin.partition("==")[0] for pin in pins(ROOT / "locks" / f"{lock}.txt")}
        for requirement in [*project["project"]["dependencies"], *wanted]:
            match = re.match(r"[\w.-]+", requirement)
            assert match
            name = match[0].lower().replace("_", "-")
            assert name in locked | {"falaj"}, f"{name} is not in locks/{lock}.txt: run make lock"


@pytest.mark.parametrize(
    ("lock", "unwanted"),
    [
        (
            "control-plane",
            {"polars", "deltalake", "pandera", "scipy", "scikit-learn", "lightgbm", "onnxruntime", "pandas"},
        ),
        (
            "data-plane",
            {"sqlalchemy", "dbos", "fastapi", "polars", "deltalake", "scikit-learn", "pandas", "model-signing"},
        ),
    ],
)
def test_a_plane_does_not_install_what_it_must_not_import(lock: str, unwanted: set[str]) -> None:
    assert not unwanted & {pin.partition("==")[0] for pin in pins(ROOT / "locks" / f"{lock}.txt")}
