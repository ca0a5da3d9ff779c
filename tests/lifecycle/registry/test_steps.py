"""Packaging: a foreign verifier accepts the signature, and our digest sees every change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, verifying

from falaj.kernel.digests import manifest, manifest_digest
from falaj.kernel.errors import Invalid, Unavailable
from falaj.lifecycle.registry.model import PackageOutcome, PackageTask
from falaj.lifecycle.registry.steps import run


class Quiet:
    def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        """Nobody watches."""

    def metric(self, key: str, value: float, step: int) -> None:
        """Nobody watches."""


@pytest.fixture
def key(tmp_path: Path) -> Path:
    private = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "model.pem"
    path.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (tmp_path / "model.pub").write_bytes(
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "model.onnx").write_bytes(b"graph" * 100)
    (path / "profile.json").write_bytes(b'{"rows":1}')
    (path / "signature.json").write_bytes(b"{}")
    return path


def package(folder: Path, key: Path) -> PackageOutcome:
    return run(PackageTask(str(folder), str(key)), Quiet())


def verify(folder: Path, signature: dict[str, object], tmp_path: Path) -> None:
    """By the OpenSSF library itself, with nothing ignored."""
    bundle = tmp_path / "bundle.json"
    bundle.write_text(json.dumps(signature))
    everything = hashing.Config()  # type: ignore[no-untyped-call]
    everything.set_ignored_paths(paths=[], ignore_git_paths=False)
    config = verifying.Config()  # type: ignore[no-untyped-call]
    config.use_elliptic_key_verifier(public_key=tmp_path / "model.pub").set_hashing_config(everything)
    config.verify(folder, bundle)


def test_a_foreign_verifier_accepts_the_signature(folder: Path, key: Path, tmp_path: Path) -> None:
    outcome = package(folder, key)
    verify(folder, outcome.signature, tmp_path)
    assert [f.path for f in outcome.files] == ["model.onnx", "profile.json", "signature.json"]
    assert sorted(p.name for p in folder.iterdir()) == ["model.onnx", "profile.json", "signature.json"]
    assert outcome.signature["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"


def flip(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[7] ^= 1
    (folder / "model.onnx").write_bytes(data)


def swap(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "x")
    (folder / "signature.json").rename(folder / "model.onnx")
    (folder / "x").rename(folder / "signature.json")


@pytest.mark.parametrize(
    "change",
    [
        flip,
        swap,
        lambda folder: (folder / ".gitignore").write_text("x"),
        lambda folder: (folder / "model.onnx").rename(folder / "other.onnx"),
        lambda folder: (folder / "signature.json").unlink(),
        lambda folder: (folder / "profile.json").write_bytes(b'{"rows":2}'),
    ],
    ids=["flipped byte", "swapped names", "added git file", "renamed", "removed", "another profile"],
)
def test_our_digest_sees_every_change(folder: Path, key: Path, change: Callable[[Path], object]) -> None:
    outcome = package(folder, key)
    change(folder)
    assert manifest_digest(manifest(folder)) != outcome.digest
    with pytest.raises(Invalid) as error:
        run(PackageTask(str(folder), str(key), expected=outcome.digest), Quiet())
    assert error.value.code == "model_changed"


def test_the_foreign_verifier_sees_an_added_git_file_too(folder: Path, key: Path, tmp_path: Path) -> None:
    outcome = package(folder, key)
    (folder / ".gitignore").write_text("x")
    with pytest.raises(ValueError, match="mismatch"):
        verify(folder, outcome.signature, tmp_path)


def test_an_empty_folder_and_a_key_that_cannot_sign_are_refused(folder: Path, key: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Invalid, match="empty"):
        package(tmp_path / "empty", key)
    key.write_text("no key")
    with pytest.raises(Unavailable) as error:
        package(folder, key)
    assert error.value.code == "signing_failed"
    with pytest.raises(Unavailable):
        package(folder, tmp_path / "gone.pem")


def test_a_link_in_the_folder_is_refused(folder: Path, key: Path) -> None:
    (folder / "link").symlink_to(key)
    with pytest.raises(Invalid, match="not a regular file"):
        package(folder, key)
