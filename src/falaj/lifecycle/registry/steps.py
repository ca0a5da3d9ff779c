"""Packaging, as it runs in a step process: name the model folder and sign it.

The signature is an OpenSSF Model Signing v1.0 bundle. Its subject binds no file names and it skips
git files by default, so nothing is ignored here, the signature lies outside the folder, and the
version's own digest over (path, size, sha256) is its name.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from model_signing import hashing, signing

from falaj.kernel.digests import manifest, manifest_digest
from falaj.kernel.errors import Invalid, Unavailable
from falaj.kernel.files import write_private
from falaj.lifecycle.registry.model import PackageOutcome, PackageTask
from falaj.workflow.reporting import Reporter


def run(task: PackageTask, report: Reporter) -> PackageOutcome:
    """Sign a model folder. Raises `Invalid` for an empty or changed folder, `Unavailable` if signing fails."""
    folder = Path(task.model)
    files = manifest(folder)
    digest = manifest_digest(files)
    if not files:
        raise Invalid("the model folder is empty", hint="train the model first", code="empty_model")
    if task.expected and digest != task.expected:
        raise Invalid(
            f"the model folder is {digest}, and {task.expected} was trained",
            hint="train again: the files changed after training",
            code="model_changed",
        )
    report.progress("signing")
    with tempfile.TemporaryDirectory(prefix="falaj-key-") as made_up:
        signature = _sign(folder, Path(task.key) if task.key else _own_key(Path(made_up)))
    if manifest_digest(manifest(folder)) != digest:
        raise Invalid("the model folder changed while it was signed", hint="package it again", code="model_changed")
    return PackageOutcome(files, digest, signature)


def _own_key(folder: Path) -> Path:
    """A key for this one time: what it signs is signed again by whoever has the real one."""
    path = folder / "key.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def _sign(folder: Path, key: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="falaj-signature-") as outside:
        bundle = Path(outside) / "model.sig"
        try:
            everything = hashing.Config()  # type: ignore[no-untyped-call]
            everything.set_ignored_paths(paths=[], ignore_git_paths=False)
            config = signing.Config()  # type: ignore[no-untyped-call]
            config.use_elliptic_key_signer(private_key=key).set_hashing_config(everything).sign(folder, bundle)
        except (OSError, ValueError, TypeError) as e:
            raise Unavailable(
                f"the model could not be signed: {type(e).__name__}: {str(e)[:200]}",
                hint="check the model signing key: an ECDSA P-256 private key in PEM",
                code="signing_failed",
            ) from None
        decoded: dict[str, Any] = msgspec.json.decode(bundle.read_bytes())
        return decoded
