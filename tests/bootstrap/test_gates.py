"""The key of gates alone, and evidence that is read back through its signatures."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from falaj.bootstrap.gates import public_key, read_signed, signing_key
from falaj.governance.signing.dsse import STATEMENT_TYPE
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.errors import Integrity, Invalid


def test_a_key_is_made_once_and_is_for_its_owner_only(tmp_path: Path) -> None:
    made = signing_key(tmp_path / "ci.pem")
    assert signing_key(tmp_path / "ci.pem").private_bytes_raw() == made.private_bytes_raw()
    assert public_key(tmp_path / "ci.pem.pub") == made.public_key()
    assert stat.S_IMODE((tmp_path / "ci.pem").stat().st_mode) == 0o600


def test_where_no_key_can_be_made_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        signing_key(tmp_path / "no" / "such" / "folder.pem")
    assert refused.value.code == "bad_key"


@pytest.mark.parametrize("payload", [b"no JSON", b"[]", b'"\xff"'])
def test_what_was_signed_must_be_a_statement(payload: bytes) -> None:
    key = Ed25519PrivateKey.generate()
    bundle = msgspec.json.encode(EnvelopeSigner(key).sign(STATEMENT_TYPE, payload)) + b"\n"
    with pytest.raises(Integrity) as refused:
        read_signed(bundle, [key.public_key()])
    assert refused.value.code == "bad_envelope"
