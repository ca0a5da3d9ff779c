"""Names that try to be paths, sent wherever a name or a digest is taken: nothing is opened, made or told that lies elsewhere.

    python proofs/traversal.py [--sample] [--broken]

A control plane and a data plane serve a home, under strace, which writes down each call that takes a path. Every way out of
`_traversal.py`, in every encoding, is sent as each parameter of each route of both planes that is no number, time or prose: in the
path, the query, the members of the body and some headers; the tiles of the log, the console's pages and its static files are
routes among them. Then the same names, and links, stand inside what is unpacked and read: tars of the log and of evidence,
manifests of backups, MLflow folders, ONNX files, parcels, blobs, projects.

Every way out names a canary, and canaries lie outside of the home and in every folder of it. Holds when, while requests
came, no call named one; while files were unpacked, none was opened or made outside of the folder that was meant; no answer
holds what is written in one, none is a 5xx; and what lies around the home is as before. `--broken` adds a route and an
unpacker that join what they are told with a folder: then it must not hold. `--sample` takes every 24th way out.

Exits 1 when it does not hold. Needs strace (fetched from Debian when it is missing).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from falaj.kernel.digests import sha256  # noqa: E402  # the paths come first
from falaj.lifecycle.serving.plane.app import ROUTES  # noqa: E402
from proofs._traversal import CANARY, FILES, REQUESTS, SECRET, Slot, in_address, in_body  # noqa: E402
from proofs.hostile import Line  # noqa: E402
from tools import debian  # noqa: E402

MARK = CANARY[:4]
"""What is looked for: some ways out hide a sign within the token."""
GOOD: dict[str, Any] = {
    "reason": "because", "environment": "production", "format": "csv", "order": "abort", "kind": "service", "roles": ["viewer"],
    "days": 1, "to": "csv", "number": 1, "index": 0, "key": "JFK", "until": "2030-01-01", "since": "2013-01-01", "archive": "sha256:" + "0" * 64,
    "labels": [], "predictions": [], "params": {}, "contract": {}, "claims": {}, "missing": ["scan"], "uri": "file:m", "outcome": "passed",
    "findings": [], "hours": 1, "actions": ["version.approve"], "text": "forbid(principal, action, resource);",
}  # fmt: skip
LOOKS = (
    "stat",
    "lstat",
    "newfstatat",
    "readlink",
    "readlinkat",
    "access",
    "faccessat",
    "faccessat2",
    "statx",
    "statfs",
    "getcwd",
)
"""Calls that open nothing and make nothing."""


# The sending side


class Ended(Line):
    """A connection that reads an answer in pieces too, up to its end."""

    def answer(self, *, head: bool = False) -> tuple[int, dict[str, str], bytes] | None:
        """As `Line`; what came in pieces is told with their lengths, and nothing can follow it."""
        found = super().answer(head=head)
        if found is None or found[1].get("transfer-encoding") != "chunked":
            return found
        body = self._until(b"\r\n0\r\n\r\n") or b""
        return found[0], {**found[1], "connection": "close"}, body


class Sender(threading.Thread):
    """Sends its share of the ways out."""

    def __init__(self, told: dict[str, Any], work: Iterator[tuple[Slot, str]], lock: threading.Lock) -> None:
        super().__init__(daemon=True)
        self._told, self._work, self._lock = told, work, lock
        self._lines: dict[str, Ended] = {}
        self.complaints: list[str] = []
        self.statuses: Counter[int] = Counter()

    def run(self) -> None:
        while True:
            with self._lock:
                slot, text = next(self._work, (None, ""))
            if slot is None:
                return
            try:
                answer = self._ask(slot.plane, self.request(slot, text))
            except (OSError, ValueError, IndexError) as e:  # no answer, or none that is HTTP
                self.complaints.append(
                    f"{slot.method} {slot.path} {slot.where} {slot.name}={text[-90:]!r}: {type(e).__name__}: {e}"
                )
                self._lines.pop(slot.plane, None)
                continue
            status, body = (answer[0], answer[2]) if answer else (0, b"")
            self.statuses[status] += 1
            if status >= 500 or SECRET in body:
                self.complaints.append(
                    f"{slot.method} {slot.path} {slot.where} {slot.name}={text[-90:]!r}: {status} {body[:200]!r}"
                )

    def request(self, slot: Slot, text: str) -> bytes:
        """The bytes of it. In an address the text is as it stands; in a body JSON writes it."""
        path = slot.path
        for name in re.findall(r"{(\w+)", path):
            good = {"model": "flight-delay", "name": "flight-delay", "number": "1", "digest": self._told["digest"]}.get(
                name, "1"
            )
            path = re.sub(
                rf"{{{name}[^}}]*}}",
                lambda _, n=name, g=good: text if slot.where == "path" and n == slot.name else g,
                path,
            )
        path += f"?{slot.name}={text}" if slot.where == "query" else ""
        body, headers = b"", ""
        if slot.where == "body":
            body = json.dumps(filled(slot, text)).encode()
            headers = "Content-Type: application/json\r\n"
        elif slot.method == "POST" and not path.startswith("/api"):
            headers = "Content-Type: application/x-www-form-urlencoded\r\n"
        clean = re.sub(r"[\r\n\0]", "", text).encode("latin-1", "replace").decode("latin-1")
        more = f"{slot.name}: {clean}\r\n" if slot.where == "header" else ""
        token = self._told["tokens"][slot.plane == "data"]
        cookie = "" if "Cookie" in more else f"Cookie: falaj_session={self._told['cookie']}\r\n"
        known = "" if "Authorization" in more else f"Authorization: Bearer {token}\r\n"
        start = f"{slot.method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: same-origin\r\n{known}{cookie}{headers}{more}"
        return f"{start}Content-Length: {len(body)}\r\n\r\n".encode("latin-1", "replace") + body

    def _ask(self, plane: str, request: bytes) -> tuple[int, dict[str, str], bytes] | None:
        for _ in range(2):  # a server may have hung up after a refusal
            line = self._lines.get(plane) or Ended(self._told[plane])
            self._lines[plane] = line
            line.send(request)
            answer = line.answer()
            if answer is not None and answer[1].get("connection") != "close":
                return answer
            line.close()
            del self._lines[plane]
            if answer is not None:
                return answer
        return None


def filled(slot: Slot, text: str) -> Any:
    """A body in which one member is the text, and the others are what may pass."""
    deeper: dict[tuple[str, str], Any] = {
        ("/api/v1/definition", "files"): {"falaj.toml": "name = 'x'", text: "x = 1"},
        ("/api/v1/definition/plan", "files"): {"falaj.toml": "name = 'x'", text: "x = 1"},
        ("/api/v1/models/{model}/imports", "files"): [{"path": text, "size": 1, "sha256": sha256(b"x")}],
        ("/api/v1/models/{model}/imports", "contract"): {
            "task": text,
            "label": text,
            "inputs": [{"name": text, "type": "float"}],
        },
        ("/api/v1/models/{model}/labels", "labels"): [
            {"prediction": text, "prediction_id": text, "label": 1, "value": 1, "at": text}
        ],
        ("/api/v1/external/{name}/predictions", "predictions"): [
            {"id": text, "at": text, "inputs": {text: text}, "outputs": {text: [1]}}
        ],
        ("/api/v1/external", "model"): {"name": text, "task": "binary", "url": text, "label": text},
    }
    if (slot.path, slot.name) in deeper:
        return {**GOOD, slot.name: deeper[slot.path, slot.name]}
    if slot.plane == "data":
        tensor = {"name": "origin", "shape": [1], "datatype": "BYTES", "data": [text]}
        return {"id": text, "inputs": [tensor, {**tensor, "name": text}], "parameters": {slot.name: text}}
    value: Any = [text] if slot.name in ("roles", "scope", "keep", "names", "actions", "canary", "missing") else text
    return {**{k: v for k, v in GOOD.items() if k != slot.name}, slot.name: value}


def all_slots(told: dict[str, Any]) -> list[Slot]:
    """The control plane's, the data plane's, and headers."""
    found = [Slot(*s) for s in told["slots"]]
    for route in ROUTES:
        found += [Slot("data", route.method, route.path, "path", n) for n in re.findall(r"{(\w+)", route.path)]
    found += [Slot("data", "POST", "/v2/models/{model}/infer", "body", n) for n in ("inputs", "id", "routing_key")]
    found += [
        Slot("data", "GET", "/falaj/v1/status", "header", "Authorization"),
        Slot("data", "GET", "/v2", "header", "X-Path"),
    ]
    for name in (
        "Authorization",
        "Cookie",
        "Idempotency-Key",
        "If-None-Match",
        "X-Forwarded-Path",
        "X-Original-URL",
        "X-Rewrite-URL",
    ):
        found += [Slot("control", "POST" if name.startswith("I") else "GET", "/api/v1/status", "header", name)]
    found += [Slot("control", "GET", p, "path", "name") for p in ("/{name}", "/api/v1/{name}", "/static/vendor/{name}")]
    return found


# The judging side


def named(log: Path, root: Path, *, files: bool) -> list[str]:
    """The calls that reached out: while requests came every call that names a canary, while files were unpacked every one
    that opened or made something of that name outside of the folder for it."""
    found, part = [], ""
    for line in log.read_text("utf-8", "replace").splitlines():
        if REQUESTS in line or FILES in line:
            part = "files" if FILES in line else "requests"
        elif part == ("files" if files else "requests") and MARK in line:
            call = re.sub(r"^\d+ +", "", line)
            if not files or (not call.startswith(LOOKS) and _outside(call, root / "work")):
                found.append(call[:300])
    return found


def _outside(call: str, work: Path) -> bool:
    """Whether what a call names lies elsewhere: a path below a folder that is open, one from the root, or what was opened."""
    named = [str(Path(base) / path) for base, path in re.findall(r'(?:<(/[^>]*)>, )?"((?:[^"\\]|\\.)*)"', call)]
    paths = [p for p in [*named, *re.findall(r"= \d+<(/[^>]*)>", call)] if MARK in p]
    return any(not os.path.normpath(p).startswith(f"{work}/") for p in paths)


def around(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """What lies about the home, and every canary in it."""
    found = {}
    for path in itertools.chain(
        root.glob("[!c]*"), root.glob("outside/*"), (root / "srv").glob("*"), root.glob(f"srv/home/**/{MARK}*")
    ):
        about = path.lstat()
        found[str(path)] = (about.st_mode, about.st_size, path.read_bytes() if path.is_file() else b"")
    strays = [
        Path("/") / f"{CANARY}.txt",
        Path.home() / f"{CANARY}.txt",
        ROOT / f"{CANARY}.txt",
    ]
    return found | {str(p): (0, 0, b"") for p in strays if p.exists()}


def prove(root: Path, every: int, broken: bool) -> tuple[str, list[str]]:
    """(the figures, what went wrong)."""
    log, target = root / "calls", str(root / "outside" / f"{CANARY}.txt")
    strace = [*debian.program("strace", "strace", "libunwind8"), "--seccomp-bpf", "-f", "-y", "-qq", "-s", "4096", "-e", "trace=%file", "-o", str(log)]  # fmt: skip
    command = [
        *strace,
        sys.executable,
        str(ROOT / "proofs" / "_traversal_home.py"),
        str(root),
        *(["--broken"] if broken else []),
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
    assert process.stdin is not None and process.stdout is not None
    try:
        told = json.loads(process.stdout.readline())
        before, places = around(root), all_slots(told)
        addresses, bodies = in_address(target)[::every], in_body(target)[::every]
        work = (
            (s, t) for s in places for t in (bodies if s.where in ("body", "header") else [a for _, a in addresses])
        )
        lock, senders = threading.Lock(), list[Sender]()
        senders += [Sender(told, work, lock) for _ in range(2)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        process.stdin.write(f"files\n{every}\n")
        process.stdin.flush()
        unpacked = json.loads(process.stdout.readline())
        after = around(root)
    finally:
        process.stdin.close()
        process.wait(60)
    statuses = sum((s.statuses for s in senders), Counter[int]())
    calls, opened = named(log, root, files=False), named(log, root, files=True)
    wrong = [c for s in senders for c in s.complaints] + unpacked["wrong"] + calls + opened
    wrong += [f"{p} is not as before" for p in before.keys() | after.keys() if before.get(p) != after.get(p)]
    answered = sum(n for code, n in statuses.items() if code < 300)
    text = (
        f"{len(addresses)} ways out in addresses and {len(bodies)} in bodies, at {len(places)} places of {len({(s.plane, s.method, s.path) for s in places})}"
        f" routes: {statuses.total()} requests, {answered} answered, {sum(n for c, n in statuses.items() if c >= 500)} × 5xx; {unpacked['tried']} in"
        f" {unpacked['kinds']} kinds of files, {sum(unpacked['taken'].values())} taken; {len(calls)} and {len(opened)} calls of the operating system reached out,"
        f" {len(wrong)} escapes or faults"
    )
    return text, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", action="store_true")
    parser.add_argument("--broken", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="falaj-proof-") as folder:
        text, wrong = prove(Path(folder).resolve(), 24 if options.sample else 1, options.broken)
    for line in wrong[:60]:
        print(line, file=sys.stderr)
    print(f"traversal: {text} ({time.monotonic() - began:.0f} s)")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
