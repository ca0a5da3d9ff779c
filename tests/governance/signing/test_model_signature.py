from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from model_signing import hashing, verifying

from falaj.governance.signing.dsse import STATEMENT_TYPE, pae
from falaj.governance.signing.keys import KeyRing, public_pem
from falaj.governance.signing.model_signature import verify_model_signature
from falaj.kernel.digests import FileEntry, manifest
from falaj.kernel.errors import Integrity
from falaj.lifecycle.registry.model import PackageTask
from falaj.lifecycle.registry.steps import run as package

FILES = {"model.onnx": b"weights", "signature.json": b"{}", "sub/encoding.json": b"[1]", ".gitignore": b"*"}
Bundle = dict[str, Any]


class Silent:
    def progress(self, text: str, done: int = 0, total: int = 0) -> None: ...

    def metric(self, key: str, value: float, step: int) -> None: ...


class Signed:
    """A model folder that the signing step signed, and its key."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "model"
        for name, data in FILES.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(data)
        ring = KeyRing(root / "keys")
        self.key_path = ring.model_path
        self.trusted = (ring.model.public_key(),)
        task = PackageTask(model=str(self.folder), key=str(ring.model_path), expected="")
        outcome = package(task, Silent())
        self.bundle: Bundle = outcome.signature
        self.files = manifest(self.folder)
        key = load_pem_private_key(ring.model_path.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.key = key

    def statement(self) -> Any:
        return msgspec.json.decode(base64.b64decode(self.bundle["dsseEnvelope"]["payload"]))

    def resigned(self, statement: Any) -> Bundle:
        """A bundle around any statement, with a good signature by the trusted key."""
        payload = statement if isinstance(statement, bytes) else msgspec.json.encode(statement)
        made = copy.deepcopy(self.bundle)
        raw = self.key.sign(pae(STATEMENT_TYPE, payload), ec.ECDSA(hashes.SHA256()))
        made["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
        made["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(raw).decode()}]
        return made


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return Signed(tmp_path_factory.mktemp("signed"))


def refused(signed: Signed, bundle: Any, files: Sequence[FileEntry] | None = None) -> Integrity:
    with pytest.raises(Integrity) as error:
        verify_model_signature(bundle, signed.files if files is None else files, signed.trusted)
    assert error.value.hint
    return error.value


def test_a_real_signature_is_accepted(signed: Signed) -> None:
    verify_model_signature(signed.bundle, signed.files, signed.trusted)
    verify_model_signature(signed.bundle, list(reversed(signed.files)), signed.trusted)
    names = {r["name"] for r in signed.statement()["predicate"]["resources"]}
    assert names == set(FILES)


def test_the_library_of_the_format_agrees(signed: Signed, tmp_path: Path) -> None:
    public = tmp_path / "key.pub"
    public.write_text(public_pem(signed.key))
    (tmp_path / "model.sig").write_bytes(msgspec.json.encode(signed.bundle))
    everything = hashing.Config()  # type: ignore[no-untyped-call]
    everything.set_ignored_paths(paths=[], ignore_git_paths=False)
    config = verifying.Config()  # type: ignore[no-untyped-call]
    config.use_elliptic_key_verifier(public_key=public).set_hashing_config(everything)
    config.verify(signed.folder, tmp_path / "model.sig")
    (signed.folder / "more").write_bytes(b"x")
    try:
        with pytest.raises(ValueError, match="more"):
            config.verify(signed.folder, tmp_path / "model.sig")
    finally:
        (signed.folder / "more").unlink()


def test_swapped_names_are_refused(signed: Signed) -> None:
    """The subject's digest is the same: only the list of names tells."""
    by_name = {f.path: f for f in signed.files}
    one, two = by_name["model.onnx"], by_name["signature.json"]
    swapped = [
        *(f for f in signed.files if f not in (one, two)),
        FileEntry(one.path, two.size, two.sha256),
        FileEntry(two.path, one.size, one.sha256),
    ]
    error = refused(signed, signed.bundle, swapped)
    assert (error.code, error.details["files"]) == ("not_as_signed", ["model.onnx", "signature.json"])


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_changed_and_every_missing_file_is_refused(signed: Signed, name: str) -> None:
    others = [f for f in signed.files if f.path != name]
    changed = FileEntry(name, len(FILES[name]), "sha256:" + "0" * 64)
    renamed = FileEntry(name + "x", len(FILES[name]), next(f.sha256 for f in signed.files if f.path == name))
    for files in (others, [*others, changed], [*others, renamed]):
        assert name in refused(signed, signed.bundle, files).details["files"]


@pytest.mark.parametrize(
    "name", ["more.txt", ".git/config", ".gitattributes", "model.sig", "sub/more", "__pycache__/x.pyc"]
)
def test_every_added_file_is_refused(signed: Signed, name: str) -> None:
    added = [*signed.files, FileEntry(name, 0, "sha256:" + "e" * 64)]
    assert refused(signed, signed.bundle, added).details["files"] == [name]


def test_an_empty_folder_is_not_what_was_signed(signed: Signed) -> None:
    assert refused(signed, signed.bundle, []).code == "not_as_signed"


def test_another_key_is_refused(signed: Signed, tmp_path: Path) -> None:
    other = KeyRing(tmp_path / "keys")
    for trusted in ((other.model.public_key(),), (other.attestation.public_key(),), ()):
        with pytest.raises(Integrity) as error:
            verify_model_signature(signed.bundle, signed.files, trusted)
        assert error.value.code == "bad_signature"


Change = Callable[[Any], object]
TAMPERED: dict[str, Change] = {
    "another predicate type": lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"),
    "no predicate type": lambda s: s.pop("predicateType"),
    "no predicate": lambda s: s.pop("predicate"),
    "no resources": lambda s: s["predicate"].pop("resources"),
    "resources as text": lambda s: s["predicate"].update(resources="all"),
    "no subject": lambda s: s.pop("subject"),
    "an empty subject": lambda s: s.update(subject=[]),
    "another subject": lambda s: s["subject"][0]["digest"].update(sha256="0" * 64),
    "a subject with another hash": lambda s: s["subject"][0].update(digest={"sha512": "0" * 128}),
    "a file less": lambda s: s["predicate"]["resources"].pop(),
    "a file twice": lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0]),
    "another hash": lambda s: s["predicate"]["resources"][0].update(algorithm="blake2b"),
    "no hash": lambda s: s["predicate"]["resources"][0].pop("digest"),
    "a digest that is not hex": lambda s: s["predicate"]["resources"][0].update(digest="zz"),
    "a digest as number": lambda s: s["predicate"]["resources"][0].update(digest=7),
    "a name as list": lambda s: s["predicate"]["resources"][0].update(name=["model.onnx"]),
    "a name as null": lambda s: s["predicate"]["resources"][0].update(name=None),
    "a resource as text": lambda s: s["predicate"]["resources"].__setitem__(0, "model.onnx"),
    "files in shards": lambda s: s["predicate"]["serialization"].update(method="shards"),
    "no serialization": lambda s: s["predicate"].pop("serialization"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_statement_that_says_something_else_is_refused_even_when_signed(signed: Signed, name: str) -> None:
    statement = signed.statement()
    verify_model_signature(signed.resigned(statement), signed.files, signed.trusted)
    TAMPERED[name](statement)
    refused(signed, signed.resigned(statement))


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"{}" * 2], ids=ascii)
def test_a_payload_that_is_no_statement_is_refused(signed: Signed, payload: bytes) -> None:
    refused(signed, signed.resigned(payload))


def test_a_changed_statement_without_a_new_signature_is_refused(signed: Signed) -> None:
    payload = base64.b64decode(signed.bundle["dsseEnvelope"]["payload"])
    for at in range(0, len(payload), 7):
        changed = bytearray(payload)
        changed[at] ^= 1
        made = copy.deepcopy(signed.bundle)
        made["dsseEnvelope"]["payload"] = base64.b64encode(bytes(changed)).decode()
        assert refused(signed, made).code == "bad_signature"


def test_what_is_no_bundle_is_refused(signed: Signed) -> None:
    other = {**signed.bundle, "mediaType": "application/vnd.dev.sigstore.bundle.v0.2+json"}
    bare = signed.bundle["dsseEnvelope"]
    no_envelope = {k: v for k, v in signed.bundle.items() if k != "dsseEnvelope"}
    hostile: list[Any] = [{}, None, [], "x", other, bare, no_envelope, {**signed.bundle, "dsseEnvelope": "x"}]
    for bundle in hostile:
        refused(signed, bundle)
