"""What lies in the folder, its manifest, and the tar in which it travels. Pure.

The same items give the same bytes: no clock, no user, no order but the paths'.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from falaj.governance.signing.trust import KeyRecord
from falaj.kernel.access import Action
from falaj.kernel.digests import sha256, short

EVIDENCE_EXPORT = Action(
    "evidence.export", "audit", "ModelVersion", "hand out a version with everything that speaks for it"
)
ACTIONS = (EVIDENCE_EXPORT,)

MANIFEST, SIGNATURE = "MANIFEST", "MANIFEST.sig"
MODEL, MODEL_SIGNATURE = "model", "model.sig"
EVIDENCE, WAIVERS = "attestations/evidence", "attestations/waivers"
_FINGERPRINT = "SHA-256 of the key's SubjectPublicKeyInfo in DER: openssl pkey -pubin -in FILE -outform DER | sha256sum"


class Item(msgspec.Struct, frozen=True):
    """One file of the folder: its bytes, or none where they are the blob of that digest."""

    path: str
    size: int
    sha256: str
    content: bytes | None = None


def item(path: str, content: bytes) -> Item:
    """A file with these bytes."""
    return Item(path, len(content), sha256(content), content)


def manifest_text(items: Iterable[Item]) -> bytes:
    """The list that `sha256sum --check` reads: digest, two spaces, path; sorted by path."""
    lines = [f"{i.sha256.removeprefix('sha256:')}  {i.path}\n" for i in sorted(items, key=lambda i: i.path)]
    return "".join(lines).encode()


def key_file(key: KeyRecord) -> str:
    """Where a key lies: `keys/model.pem`, and one that signs no more beside it with the start of its fingerprint."""
    return f"keys/{key.name}.pem" if not key.until else f"keys/{key.name}-{short(key.fingerprint)}.pem"


def keys_document(keys: Sequence[KeyRecord]) -> dict[str, object]:
    """`keys.json`: which key is which, by what rule its fingerprint was made, and what it signs."""
    listed = [
        {
            "name": k.name, "file": key_file(k), "fingerprint": k.fingerprint, "algorithm": k.algorithm,
            "signs": signed_by(k.name), **({"until": k.until, "why": k.why} if k.until else {}),
        }
        for k in keys
    ]  # fmt: skip
    return {"fingerprint": _FINGERPRINT, "keys": listed}


def signed_by(name: str) -> list[str]:
    """The files and folders that the key of this name signs."""
    if name == "model":
        return [MODEL_SIGNATURE]
    return [f"{EVIDENCE}/", SIGNATURE] if name == "attestation" else [f"attestations/{name}/", f"{WAIVERS}/"]


def checks(manifest_key: KeyRecord, model_key: str) -> tuple[str, ...]:
    """The commands that check the folder from within; `model_key` is the path of the key that signed the model."""
    file = key_file(manifest_key)
    signed = (
        f"openssl pkeyutl -verify -pubin -inkey {file} -rawin -in {MANIFEST} -sigfile {SIGNATURE}"
        if manifest_key.algorithm == "Ed25519"
        else f"openssl dgst -sha256 -verify {file} -signature {SIGNATURE} {MANIFEST}"
    )
    return (
        signed,
        f"sha256sum --strict --check {MANIFEST}",
        f"model_signing verify key {MODEL} --signature {MODEL_SIGNATURE} --public_key {model_key}",
    )


def tar(items: Sequence[Item], read: Callable[[str], bytes]) -> Iterator[bytes]:
    """The folder as a tar, item by item; `read` gives the bytes of a blob."""
    for one in sorted(items, key=lambda i: i.path):
        info = tarfile.TarInfo(one.path)
        info.size, info.mode = one.size, 0o644
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
        content = read(one.sha256) if one.content is None else one.content
        yield content
        yield b"\0" * (-len(content) % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)
