"""Our log under Go's own verifier: what holds is accepted, and one flipped byte anywhere is refused, by Go and not by us."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from falaj.governance.audit import note, tiles
from falaj.governance.audit.export import pack, unpack
from falaj.governance.audit.merkle import leaf_hash
from tests.debian import needed
from tests.governance.audit.support import ORIGIN, Log

pytestmark = pytest.mark.timeout(400)  # a fresh machine installs Go first
SOURCE = Path(__file__).parent / "gocheck" / "main.go"
PACKAGES = "/usr/share/gocode"
Go = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Go:
    """Runs the verifier, built from Debian's Go and its copy of golang.org/x/mod; nothing is fetched from elsewhere."""
    compiler = shutil.which("go") or str(needed("golang-go", "/usr/bin/go"))
    needed("golang-golang-x-mod-dev", f"{PACKAGES}/src/golang.org/x/mod/sumdb/tlog/tile.go")
    folder = tmp_path_factory.mktemp("go")
    settings = {
        "GO111MODULE": "off", "GOPATH": PACKAGES, "GOPROXY": "off", "GOFLAGS": "", "GOCACHE": str(folder / "cache"),
    }  # fmt: skip
    binary = folder / "gocheck"
    built = subprocess.run(
        [compiler, "build", "-o", str(binary), SOURCE.name], cwd=SOURCE.parent, env=os.environ | settings,
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr

    def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([binary, *args], capture_output=True, text=True, check=False, timeout=120)

    return run


@pytest.fixture
def exported(log: Log, tmp_path: Path) -> Callable[[str], Path]:
    """Takes the log away as a folder."""

    def export(name: str) -> Path:
        packed = tmp_path / f"{name}.tar"
        packed.write_bytes(b"".join(pack(log.service.snapshot())))
        unpack(packed, tmp_path / name)
        return tmp_path / name

    return export


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 600])
def test_go_accepts_the_log(log: Log, exported: Callable[[str], Path], go: Go, size: int) -> None:
    log.append(size)
    done = go("log", log.publisher.vkey, exported("log"))
    assert done.stdout.startswith(f"log: {size} entries, root "), done.stderr


def test_go_accepts_three_levels_and_paths_of_two_parts(tmp_path: Path, go: Go) -> None:
    """256,250 entries: `tile/0/x001/000`, where Go writes `tile/8/0/x001/000`. Made by what the publisher makes tiles with."""
    entries = [b"entry %d" % n for n in range(256_250)]
    edge, files = tiles.grow(tiles.Edge(), [leaf_hash(e) for e in entries])
    key = Ed25519PrivateKey.generate()
    text = f"{ORIGIN}\n{edge.size}\n{base64.b64encode(edge.root()).decode()}\n"
    files = {**files, **tiles.bundles(0, entries), "checkpoint": note.sign(text, [(ORIGIN, key)])}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    vkey = note.verifier_of(ORIGIN, key.public_key()).vkey
    done = go("log", vkey, tmp_path)
    assert done.stdout.startswith("log: 256250 entries, "), done.stderr
    for name in ("tile/2/000.p/3", "tile/1/003.p/232", "tile/0/x001/000.p/250", "tile/entries/x001/000.p/250"):
        whole = files[name]
        (tmp_path / name).write_bytes(flipped(whole, len(whole) // 2))
        assert go("log", vkey, tmp_path).returncode == 1, name
        (tmp_path / name).write_bytes(whole)


def test_go_finds_each_changed_file_of_an_export(log: Log, exported: Callable[[str], Path], go: Go) -> None:
    log.append(600)
    folder, vkey = exported("log"), log.publisher.vkey
    tried = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "vkey"):
        whole = path.read_bytes()
        every = path.name == "checkpoint"
        for at in range(len(whole)) if every else (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(flipped(whole, at))
            done = go("log", vkey, folder)
            assert (done.returncode, done.stdout) == (1, ""), f"{path.name}, byte {at}"
            tried += 1
        path.write_bytes(whole[:-1])
        assert go("log", vkey, folder).returncode == 1
        path.write_bytes(whole)
    assert tried > 200 and go("log", vkey, folder).returncode == 0
    shutil.rmtree(folder / "tile/1")
    assert go("log", vkey, folder).returncode == 1


def test_go_accepts_a_proof_of_an_entry_and_no_other(log: Log, tmp_path: Path, go: Go) -> None:
    log.append(300)
    log.publisher.publish()
    file, whole = tmp_path / "entry.tlog-proof", b""
    for index in (0, 255, 256, 299):
        whole = log.service.prove(index)
        file.write_bytes(whole)
        done = go("record", log.publisher.vkey, file)
        assert done.stdout.startswith(f"record: entry {index} of 300, root "), done.stderr
    for at in range(len(whole)):
        file.write_bytes(flipped(whole, at))
        assert go("record", log.publisher.vkey, file).returncode == 1, f"byte {at}: {flipped(whole, at)!r}"
    file.write_bytes(whole.replace(b"index 299", b"index 298"))
    assert go("record", log.publisher.vkey, file).returncode == 1


def test_go_accepts_that_the_log_grew_and_no_other_past(
    log: Log, exported: Callable[[str], Path], tmp_path: Path, go: Go
) -> None:
    vkey, told = log.publisher.vkey, tmp_path / "proof.json"
    log.append(300)
    older = exported("older") / "checkpoint"
    log.append(400)
    newer = exported("newer")
    found = log.service.consistency(300, 700)
    told.write_text(json.dumps({"hashes": found.hashes}))
    done = go("tree", vkey, older, newer / "checkpoint", told)
    assert done.stdout == "tree: 700 entries begin with the 300\n", done.stderr
    assert go("grew", vkey, older, newer).stdout == "grew: 700 entries begin with the 300\n"
    assert go("tree", vkey, newer / "checkpoint", older, told).returncode == 1, "a log does not shrink"
    for number, text in enumerate(found.hashes):
        wrong = bytearray(base64.b64decode(text))
        wrong[number % 32] ^= 1
        hashes = [*found.hashes[:number], base64.b64encode(wrong).decode(), *found.hashes[number + 1 :]]
        told.write_text(json.dumps({"hashes": hashes}))
        assert go("tree", vkey, older, newer / "checkpoint", told).returncode == 1, f"hash {number}"
    told.write_text(json.dumps({"hashes": found.hashes[:-1]}))
    assert go("tree", vkey, older, newer / "checkpoint", told).returncode == 1


def test_go_refuses_another_past_of_the_same_size(
    log: Log, exported: Callable[[str], Path], tmp_path: Path, go: Go
) -> None:
    """The same key signs another history: only the checkpoint that was kept shows it."""
    log.append(300)
    kept = exported("kept") / "checkpoint"
    (tmp_path / "home").mkdir()
    forged = Log(tmp_path / "home")
    forged.append(299)
    forged.database.change(lambda tx: forged.service.record_many(tx, [forged.event(7_000_000)]))
    forged.append(400)
    forged.publisher.publish()
    vkey = forged.publisher.vkey
    assert vkey == log.publisher.vkey
    assert go("log", vkey, forged.folder).returncode == 0, "by itself it holds"
    done = go("grew", vkey, kept, forged.folder)
    assert (done.returncode, done.stdout) == (1, "")


def flipped(data: bytes, at: int) -> bytes:
    """One bit changed: one that a base64 digit cannot lose, as Go reads spare bits of the last digit leniently."""
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
