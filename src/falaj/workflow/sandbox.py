"""Runs code on what a stranger made, where it can do nothing but answer (`confine`).

The process gets a folder to read and answers over a pipe: one header of JSON, then bytes. Nothing it says is believed: the answer has a
largest size, the header is text for the caller to decode strictly, and an error is told as the refusal of what was asked.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from falaj.kernel.errors import Denied, FalajError, Invalid
from falaj.workflow.confine import Limits

_MODULE = "falaj.entrypoints.sandbox"
_LOG_BYTES = 64 << 10  # of what it prints; the rest is read and forgotten
_END_SECONDS = 30.0  # for a process that has closed its pipes to be gone
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_WORDS = 600  # the longest error that is passed on


class Answer(msgspec.Struct, frozen=True):
    """What came out: the header as JSON, and the bytes after it."""

    header: bytes
    body: bytes


class Confined(msgspec.Struct, frozen=True):
    """What a sandbox process is told: which work, with which task, on which folder, under which limits.

    `hidden` are folders that it must not be able to read. `free` runs it without a sandbox, under the limits alone; a kind of
    work that needs one refuses then by itself.
    """

    kind: str
    task: dict[str, Any]
    given: str
    hidden: tuple[str, ...]
    limits: Limits
    free: bool = False


class Sandbox:
    """Runs work in a sandbox. `hidden` are folders that it must never be able to read: no path that it needs may hold one.

    `most_bytes` is the largest answer.
    """

    def __init__(self, hidden: tuple[Path, ...], limits: Limits, most_bytes: int) -> None:
        self._hidden = tuple(str(p.resolve()) for p in hidden)
        self._limits = limits
        self._most = most_bytes

    def run(self, kind: str, task: dict[str, Any], given: Path, *, free: bool = False) -> Answer:
        """Do work of a kind on the folder `given`.

        Raises `Denied` with the code no_sandbox where none can be had, sandbox_limit for what takes too much and sandbox_died for what
        ends without an answer; else what the work refused with.
        """
        told = Confined(kind, task, str(given.resolve()), self._hidden, self._limits, free)
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-m", _MODULE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={"PATH": "", "LANG": "C.UTF-8"}, cwd="/",
        )  # fmt: skip
        try:
            return self._converse(process, msgspec.json.encode(told) + b"\n")
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # what it forked dies with it: its pid namespace, by the parent death signal
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            process.wait()

    def _converse(self, process: subprocess.Popen[bytes], told: bytes) -> Answer:
        if process.stdin is None:
            raise _died("it had no standard input")
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(told)
            process.stdin.close()
        kept: dict[str, bytearray] = {"answer": bytearray(), "log": bytearray()}
        for name, data in self._read(process):
            room = (self._most if name == "answer" else _LOG_BYTES) - len(kept[name])
            if name == "answer" and len(data) > room:
                raise _too_much(f"it answers with more than {self._most >> 20} MB")
            kept[name] += data[: max(room, 0)]
        status = process.wait(_END_SECONDS)
        log = bytes(kept["log"]).decode("utf-8", "replace")
        return _answer(bytes(kept["answer"]), status, log)

    def _read(self, process: subprocess.Popen[bytes]) -> Iterator[tuple[str, bytes]]:
        """What comes over the two pipes until both are closed. Raises `Denied` when it takes too long."""
        most = self._limits.seconds + self._limits.patience
        deadline = time.monotonic() + most
        with selectors.DefaultSelector() as selector:
            for name, pipe in (("answer", process.stdout), ("log", process.stderr)):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ, name)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise _too_much(f"it took longer than {most} s")
                for key, _ in ready:
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    yield str(key.data), data


def needed_paths(hidden: tuple[str, ...]) -> dict[Path, Path]:
    """What this Python needs to import, by the name that it uses → where it really lies: its library, the packages, the system's.

    Raises `Denied` when something that is to stay hidden lies below one of them.
    """
    names = [*sys.path, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *_SYSTEM]
    there = {Path(n).absolute() for n in names if n and Path(n).exists()}
    real = {p.resolve() for p in there}
    for path in real:
        if any(Path(secret).is_relative_to(path) for secret in hidden):
            raise no_sandbox(f"what must stay hidden lies below {path}, which Python reads from")
    whole = {p: p for p in real if not any(o != p and p.is_relative_to(o) for o in real)}
    aliases = {p: p.resolve() for p in there if not any(p.is_relative_to(o) for o in whole)}
    return whole | aliases


def write_answer(out: int, header: bytes, body: bytes = b"") -> None:
    """The other end: how work inside answers, on a descriptor."""
    for part in (len(header).to_bytes(8, "big"), header, body):
        view = memoryview(part)
        while view:
            view = view[os.write(out, view) :]


def _answer(raw: bytes, status: int, log: str) -> Answer:
    size = int.from_bytes(raw[:8], "big")
    if len(raw) < 8 or size > len(raw) - 8 or status:
        raise _ended(status, log)
    answer = Answer(raw[8 : 8 + size], raw[8 + size :])
    try:
        told = msgspec.json.decode(answer.header, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise _died("its answer cannot be read") from e
    if "error" in told:
        raise _refusal(told["error"])
    return answer


def _refusal(error: Any) -> FalajError:
    """An error as it was told from inside: words that are cut short, and one of two kinds."""
    told = error if isinstance(error, dict) else {}
    message, hint, code = (_plain(told.get(name)) for name in ("error", "hint", "code"))
    if code == "no_sandbox":
        return no_sandbox(message)
    kind = Invalid if told.get("kind") == "invalid" else Denied
    safe = code if code.replace("_", "").isalnum() and len(code) <= 60 else "sandbox_refused"
    return kind(message or "the sandbox refused it", hint=hint or "look at the model", code=safe)


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(c if c.isprintable() else " " for c in text[:_WORDS])


def no_sandbox(why: str) -> Denied:
    """Nothing that runs code when it is loaded is loaded without a sandbox."""
    return Denied(
        f"no sandbox can be had here: {why}",
        hint="export the model to ONNX, or save it as LightGBM's own text; or import it on Linux 6.2 or later with "
        "unprivileged user namespaces",
        code="no_sandbox",
    )


def _too_much(why: str) -> Denied:
    return Denied(
        f"the sandbox was ended: {why}",
        hint="export the model to ONNX; a larger one needs FALAJ_STEP_MEMORY_MB",
        code="sandbox_limit",
    )


def _ended(status: int, log: str) -> Denied:
    if status in (128 + signal.SIGXCPU, 128 + signal.SIGKILL):
        return _too_much("it took more processor time than it may")
    if "MemoryError" in log or "bad_alloc" in log or "Cannot allocate memory" in log:
        return _too_much("it took more memory than it may")
    return _died(f"exit status {status}", log)


def _died(why: str, log: str = "") -> Denied:
    return Denied(
        f"the sandbox ended without an answer: {why}",
        hint="the end of what it printed is in the details; export the model to ONNX",
        code="sandbox_died",
        details={"log": log[-2000:]},
    )
