"""Gates alone: measured in a step process, without a home, a server or a project."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from falaj.governance.signing.dsse import STATEMENT_TYPE, PublicKey, load_public_key, verify_envelope
from falaj.governance.signing.keys import public_pem
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.disk import refusal
from falaj.kernel.errors import Integrity, Invalid
from falaj.kernel.files import write_private
from falaj.kernel.settings import Settings
from falaj.lifecycle.evidence.model import PredictionsOutcome, PredictionsTask
from falaj.lifecycle.evidence.statements import test_result
from falaj.workflow.child import ChildRunner
from falaj.workflow.steps import StepTask

KIND = "predictions"


def measure(
    task: PredictionsTask, project: str, settings: Settings, on_event: Callable[[dict[str, Any]], None]
) -> PredictionsOutcome:
    """Measure gates on a table of predictions; `project` is the folder whose model is meant, empty for none."""
    with tempfile.TemporaryDirectory(prefix="falaj-gates-") as folder:
        runner = ChildRunner(Path(folder), memory_mb=settings.step_memory_mb, seconds=settings.step_seconds)
        workspace = runner.workspace("gates", KIND)
        step = StepTask(KIND, msgspec.to_builtins(task), str(workspace), project)
        result = asyncio.run(runner.run(step, on_event))
    return msgspec.convert(result.value, PredictionsOutcome)


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The key in a file; a new one where there is no file, with the public half beside it (`.pub`).

    Raises `Invalid`, and `Unavailable` for a new key that cannot be written.
    """
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        try:
            write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            path.with_name(f"{path.name}.pub").write_text(public_pem(key), "ascii")
        except OSError as e:
            raise refusal(e, path) or _no_key(path) from e
        return key
    try:
        found = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, OSError, UnsupportedAlgorithm) as e:
        raise _no_key(path) from e
    if not isinstance(found, Ed25519PrivateKey):
        raise _no_key(path)
    return found


def signed(outcome: PredictionsOutcome, key: Ed25519PrivateKey) -> bytes:
    """One DSSE envelope a line, around the in-toto statement of each gate: what in-toto calls a bundle."""
    signer = EnvelopeSigner(key)
    envelopes = [signer.sign_statement(test_result(outcome.name, outcome.subject, f)) for f in outcome.findings]
    return b"".join(msgspec.json.encode(e) + b"\n" for e in envelopes)


def read_signed(bundle: bytes, keys: list[PublicKey]) -> list[dict[str, Any]]:
    """The statements in a bundle, each through its signature. Raises `Integrity`."""
    found: list[dict[str, Any]] = []
    for line in bundle.splitlines():
        try:
            envelope = msgspec.json.decode(line, type=dict[str, Any])
            found.append(msgspec.json.decode(verify_envelope(envelope, STATEMENT_TYPE, keys), type=dict[str, Any]))
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise Integrity(
                "the evidence cannot be read", hint="use the file as `falaj gates check` wrote it", code="bad_envelope"
            ) from e
    if not found:
        raise Integrity(
            "the evidence is empty", hint="use the file as `falaj gates check` wrote it", code="no_evidence"
        )
    return found


def public_key(path: Path) -> PublicKey:
    """A public key from its file. Raises `Invalid`, `Integrity`."""
    try:
        return load_public_key(path.read_text("ascii"))
    except (OSError, UnicodeDecodeError) as e:
        raise _no_key(path) from e


def _no_key(path: Path) -> Invalid:
    return Invalid(
        f"{path} is no key that can be used",
        hint="an Ed25519 key in PEM; with a name that is not there, one is made",
        code="bad_key",
    )
