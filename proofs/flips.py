"""Every flipped byte of a version's files, envelopes and signatures is found, and the right file is named.

    python proofs/flips.py [--small 200] [--sample 0] [--seconds 1800]

A released version of a real house, in two places. In the blob store, each byte of what is stored of it (its files, the model
signature, every statement, admission and rehearsal) is changed: reading it must be refused with the blob's name, and a
data plane must refuse to load it with the file's (but for the wrapped data key, which it does not read). In the folder that `falaj evidence export` hands to an outsider, each byte of each
file is changed: the manifest must name that file, or not be signed. And each envelope by itself: whatever byte is changed, its
verifier refuses it or returns the very payload that was signed.

A byte takes another one of its eight bits each time; in files of at most `--small` bytes all its 255 other values. `--sample N` changes N bytes
of each file only. Negative controls: a store that does not look at what it reads, and a manifest that leaves a file out.

Exits 1 when a change goes unseen or is put elsewhere, when a control stays green, or when the time was not enough.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import msgspec  # noqa: E402  # the paths come first
from cryptography.exceptions import InvalidSignature  # noqa: E402

from falaj.governance.signing.dsse import load_public_key, verify_envelope  # noqa: E402
from falaj.governance.signing.keys import plane_key  # noqa: E402
from falaj.kernel.environments import PRODUCTION  # noqa: E402
from falaj.kernel.errors import FalajError  # noqa: E402
from falaj.kernel.log import configure  # noqa: E402
from falaj.lifecycle.registry.model import ModelVersion  # noqa: E402
from falaj.lifecycle.serving.plane.loading import Loader  # noqa: E402
from falaj.lifecycle.serving.plane.verify import read_trust  # noqa: E402
from falaj.storage.blobs import local  # noqa: E402
from falaj.storage.blobs.local import blob_path  # noqa: E402
from tests.lifecycle.house import House, house  # noqa: E402

MANIFEST, SIGNATURE = "MANIFEST", "MANIFEST.sig"
WRAPPED = slice(4, 44)
"""The wrapped data key in a blob. A data plane has that key from its bundle and reads past it: the model's bytes stay the same."""
Wrong = Callable[[str, bytes], str]
"""Asked with a file's name and its changed bytes: why that counts as unseen; empty when it was found."""


def changes(good: bytes, options: argparse.Namespace) -> Iterator[bytes]:
    """The bytes of a file with one of them changed."""
    places = range(0, len(good), max(1, len(good) // options.sample)) if options.sample else range(len(good))
    for at in places:
        small = len(good) <= options.small and not options.sample
        for mask in range(1, 256) if small else (1 << at % 8,):
            yield good[:at] + bytes([good[at] ^ mask]) + good[at + 1 :]


class Tally:
    """Counts changes, and keeps those that went unseen."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.flips: Counter[str] = Counter()
        self.files = 0
        self.unseen: list[str] = []
        self.late = False
        self._options = options
        self._until = time.monotonic() + options.seconds

    def all_of(self, kind: str, name: str, good: bytes, wrong: Wrong) -> None:
        """Every change of a file."""
        if not wrong(name, good):
            self.unseen.append(f"{kind} {name}: refused untouched")
        self.files += 1
        for changed in changes(good, self._options):
            if time.monotonic() > self._until:
                self.late = True
                return
            self.flips[kind] += 1
            why = wrong(name, changed)
            if why:
                self.unseen.append(f"{kind} {name}: {why}")


def stored(home: House, version: ModelVersion) -> dict[str, str]:
    """What lies in the blob store of a version: what it is, and its digest."""
    registry, plane = home.plane.registry, home.plane
    rehearsal = registry.rehearsal(version.digest, "staging")
    assert rehearsal is not None
    return {
        **{f.path: f.sha256 for f in version.files},
        "signature": version.signature,
        **{s.gate: s.envelope for s in plane.evidence.statements(version.digest)},
        **{f"admission to {a.environment}": envelope for a, envelope in registry.admissions(version.digest)},
        "rehearsal": rehearsal[1],
    }


def in_store(home: House, digest: str) -> Wrong:
    """The blob store's own look."""
    path, blobs = blob_path(home.plane.blobs.root, digest), home.plane.blobs
    whole = blobs.get(digest)

    def wrong(_name: str, data: bytes) -> str:
        path.write_bytes(data)
        try:
            return "unseen" if blobs.get(digest) == whole else "other bytes came"
        except FalajError as e:
            return "" if digest in e.message else f"put elsewhere: {e.message}"

    return wrong


def at_load(home: House, version: ModelVersion) -> Callable[[str, bytes], str]:
    """A data plane that loads the version."""
    serving, layout = home.plane.serving, home.plane.layout
    release = serving.release(version.digest, serving.target)
    found = home.plane.registry.admission(version.digest, PRODUCTION)
    assert found is not None
    loader = Loader(read_trust(layout.plane / "trust.json"), plane_key(layout.plane), layout.blobs)
    paths = {f.path: blob_path(layout.blobs, f.sha256) for f in version.files}
    whole = {name: path.read_bytes() for name, path in paths.items()}

    def wrong(name: str, data: bytes) -> str:
        paths[name].write_bytes(data)
        try:
            loader.load(release, found[0])
        except FalajError as e:
            return "" if name in e.message else f"put elsewhere: {e.message}"
        return "" if data[WRAPPED] != whole[name][WRAPPED] else "loaded"  # the store's own look finds these

    return wrong


def in_folder(files: dict[str, bytes], key: Any) -> Wrong:
    """What `openssl` and `sha256sum --strict --check` say of the folder with one file changed."""
    sums = {n: hashlib.sha256(data).hexdigest() for n, data in files.items() if n not in (MANIFEST, SIGNATURE)}

    def wrong(name: str, data: bytes) -> str:
        seen = {**files, name: data}
        try:
            key.verify(seen[SIGNATURE], seen[MANIFEST])
        except InvalidSignature:
            return "" if name in (MANIFEST, SIGNATURE) else "the manifest's signature is broken by another file"
        listed = dict(reversed(line.split("  ", 1)) for line in seen[MANIFEST].decode().splitlines())
        now = sums if name not in sums else {**sums, name: hashlib.sha256(data).hexdigest()}
        differing = [n for n, digest in now.items() if n in listed and listed[n] != digest]
        return "" if differing == [name] else f"unseen ({differing})"

    return wrong


def by_itself(envelope: bytes, keys: list[Any]) -> Wrong:
    """The envelope's own verifier: it refuses, or returns the very payload that was signed."""
    opened = msgspec.json.decode(envelope)
    kind = opened["payloadType"]
    payload = verify_envelope(opened, kind, keys)

    def wrong(_name: str, data: bytes) -> str:
        if data == envelope:
            return "untouched"
        try:
            found = msgspec.json.decode(data, type=dict[str, Any])
            return "" if verify_envelope(found, kind, keys) == payload else "another payload is believed"
        except (FalajError, msgspec.DecodeError, UnicodeDecodeError):
            return ""

    return wrong


def handed(home: House, version: ModelVersion) -> dict[str, bytes]:
    """The folder that an outsider gets, file by file."""
    answer = home.api().get(f"/api/v1/models/{version.model}/versions/{version.number}/dossier")
    assert answer.status_code == 200, answer.text
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        return {m.name.removeprefix("./"): tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def controls(home: House, files: dict[str, bytes], version: ModelVersion) -> list[bool]:
    """Whether a store that does not look, and a manifest that leaves a file out, let a change through."""
    path = blob_path(home.plane.blobs.root, version.signature)
    good, whole, opened = path.read_bytes(), home.plane.blobs.get(version.signature), local.open_sealed
    wrong = in_store(home, version.signature)
    local.open_sealed = lambda *_: whole
    try:
        blind = bool(wrong("", good[:-1] + bytes([good[-1] ^ 1])))
    finally:
        local.open_sealed = opened
        path.write_bytes(good)
    left_out = next(name for name in files if name.startswith("attestations/"))

    class Believer:
        """Takes any manifest for signed."""

        def verify(self, *_: bytes) -> None: ...

    lines = [line for line in files[MANIFEST].decode().splitlines() if not line.endswith(left_out)]
    without = {**files, MANIFEST: "\n".join([*lines, ""]).encode()}
    return [blind, bool(in_folder(without, Believer())(left_out, b"another"))]


def prove(home: House, options: argparse.Namespace) -> int:
    began, tally = time.monotonic(), Tally(options)
    version = home.registered()
    home.release(version)
    version = home.now(version)
    for name, digest in stored(home, version).items():
        path = blob_path(home.plane.blobs.root, digest)
        good = path.read_bytes()
        tally.all_of("in the store", name, good, in_store(home, digest))
        if name in {f.path for f in version.files}:
            tally.all_of("at load", name, good, at_load(home, version))
        path.write_bytes(good)
    files, ring = handed(home, version), home.plane.keys
    key = load_public_key(files["keys/attestation.pem"].decode())
    keys = [ring.attestation.public_key(), *(ring.of(e).public_key() for e in ("dev", "staging", PRODUCTION))]
    for name, data in files.items():
        tally.all_of("handed out", name, data, in_folder(files, key))
        if name.startswith("attestations/"):
            tally.all_of("by itself", name, data, by_itself(data, keys))
    seen = controls(home, files, version)
    for line in tally.unseen[:20]:
        print(f"unseen: {line}", file=sys.stderr)
    total = sum(tally.flips.values())
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in tally.flips.items())
    print(
        f"flips: {total - len(tally.unseen):,} of {total:,} changes in {tally.files} files found, each in its file ({kinds});"
        f" controls: {sum(seen)} of {len(seen)} told ({time.monotonic() - began:.0f} s{', not all of them' if tally.late else ''})"
    )
    return 1 if tally.unseen or tally.late or not all(seen) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", type=int, default=200, help="bytes of a file in which every value is tried")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1800.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="falaj-proof-") as root, (Path(root) / "log").open("w") as log:
        with redirect_stderr(log):
            configure("proof", "error")
        with house(Path(root)) as home:
            return prove(home, options)


if __name__ == "__main__":
    sys.exit(main())
