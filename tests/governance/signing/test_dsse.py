from __future__ import annotations

import base64
import copy
import string
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from falaj.governance.signing.dsse import STATEMENT_TYPE, load_public_key, pae, verify_envelope
from falaj.governance.signing.keys import public_pem
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.errors import Integrity

KIND = "application/vnd.test+json"
BODY = b'{"a":1,"b":"\xc3\xa9 > \xff"}'  # its base64 has '+' and '/'
ANN, BEN, EVE = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))
CURVE = ec.generate_private_key(ec.SECP256R1())
TRUSTED = (ANN.public_key(),)


def signature(
    key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, kind: str = KIND, body: bytes = BODY
) -> dict[str, str]:
    message = pae(kind, body)
    raw = key.sign(message) if isinstance(key, Ed25519PrivateKey) else key.sign(message, ec.ECDSA(hashes.SHA256()))
    return {"keyid": "", "sig": base64.b64encode(raw).decode()}


def envelope(
    *keys: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, kind: str = KIND, body: bytes = BODY
) -> dict[str, Any]:
    return {
        "payloadType": kind,
        "payload": base64.b64encode(body).decode(),
        "signatures": [signature(key, kind, body) for key in keys],
    }


def test_the_vector_of_the_specification() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


@given(st.text(max_size=9), st.binary(max_size=9), st.text(max_size=9), st.binary(max_size=9))
def test_no_two_payloads_are_signed_alike(kind: str, body: bytes, other: str, other_body: bytes) -> None:
    assert (pae(kind, body) == pae(other, other_body)) == ((kind, body) == (other, other_body))


def test_what_was_signed_comes_back() -> None:
    assert verify_envelope(envelope(ANN), KIND, TRUSTED) == BODY
    assert verify_envelope(envelope(CURVE), KIND, (CURVE.public_key(),)) == BODY


def test_both_alphabets_are_read() -> None:
    signed = envelope(ANN)
    assert set(signed["payload"]) & set("+/")
    other = copy.deepcopy(signed)
    other["payload"] = signed["payload"].replace("+", "-").replace("/", "_")
    other["signatures"][0]["sig"] = signed["signatures"][0]["sig"].replace("+", "-").replace("/", "_")
    assert verify_envelope(other, KIND, TRUSTED) == BODY


def test_a_key_id_decides_nothing() -> None:
    signed = envelope(EVE, ANN)
    signed["signatures"][0]["keyid"] = "ann"
    signed["signatures"][1]["keyid"] = "eve"
    assert verify_envelope(signed, KIND, TRUSTED) == BODY
    del signed["signatures"][1]["keyid"]
    assert verify_envelope(signed, KIND, TRUSTED) == BODY


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    made = envelope(ANN)
    change(made)
    return made


def sig(value: Any) -> dict[str, Any]:
    return changed(lambda e: e["signatures"][0].update(sig=value))


GOOD = envelope(ANN)
HOSTILE: dict[str, Any] = {
    "nothing": {},
    "null": None,
    "a list": [GOOD],
    "a text": "envelope",
    "no type": changed(lambda e: e.pop("payloadType")),
    "no payload": changed(lambda e: e.pop("payload")),
    "no signatures": changed(lambda e: e.pop("signatures")),
    "an empty list of signatures": changed(lambda e: e.update(signatures=[])),
    "signatures as null": changed(lambda e: e.update(signatures=None)),
    "signatures as a text": changed(lambda e: e.update(signatures=GOOD["signatures"][0]["sig"])),
    "signatures as a table": changed(lambda e: e.update(signatures=GOOD["signatures"][0])),
    "signatures as texts": changed(lambda e: e.update(signatures=[GOOD["signatures"][0]["sig"]])),
    "another type": changed(lambda e: e.update(payloadType=STATEMENT_TYPE)),
    "a type in capitals": changed(lambda e: e.update(payloadType=KIND.upper())),
    "a type as null": changed(lambda e: e.update(payloadType=None)),
    "another payload": changed(lambda e: e.update(payload=base64.b64encode(BODY + b" ").decode())),
    "an empty payload": changed(lambda e: e.update(payload="")),
    "a payload as number": changed(lambda e: e.update(payload=5)),
    "a payload as bytes": changed(lambda e: e.update(payload=BODY)),
    "a payload that is not base64": changed(lambda e: e.update(payload="{}")),
    "a payload with a newline": changed(lambda e: e.update(payload=e["payload"] + "\n")),
    "a payload with a space": changed(lambda e: e.update(payload=e["payload"][:4] + " " + e["payload"][4:])),
    "a payload without padding": changed(lambda e: e.update(payload=e["payload"].rstrip("="))),
    "a payload with more padding": changed(lambda e: e.update(payload=e["payload"] + "=")),
    "a payload in wide letters": changed(lambda e: e.update(payload="ｅ" + e["payload"][1:])),
    "no signature text": changed(lambda e: e["signatures"][0].pop("sig")),
    "an empty signature": sig(""),
    "a signature as number": sig(5),
    "a signature as null": sig(None),
    "a zero signature": sig(base64.b64encode(bytes(64)).decode()),
    "a short signature": sig(base64.b64encode(bytes(63)).decode()),
    "a signature with a rest": sig(base64.b64encode(base64.b64decode(GOOD["signatures"][0]["sig"]) + b"x").decode()),
    "the signature of another body": changed(lambda e: e.update(signatures=[signature(ANN, KIND, b"other")])),
    "the signature of another type": changed(lambda e: e.update(signatures=[signature(ANN, STATEMENT_TYPE)])),
    "a signature of the body alone": sig(base64.b64encode(ANN.sign(BODY)).decode()),
    "a stranger's signature": envelope(EVE),
    "a signature of another kind of key": envelope(CURVE),
}  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_envelope_is_refused(hostile: Any) -> None:
    for trusted in (TRUSTED, (ANN.public_key(), BEN.public_key())):
        with pytest.raises(Integrity) as refused:
            verify_envelope(hostile, KIND, trusted)
        assert refused.value.hint
    assert len(HOSTILE) >= 30


def test_nobody_trusted_means_nothing_accepted() -> None:
    with pytest.raises(Integrity):
        verify_envelope(GOOD, KIND, ())
    for threshold in (0, -1):
        with pytest.raises(Integrity):
            verify_envelope(envelope(), KIND, TRUSTED, threshold)


def test_unused_bits_of_base64_cannot_be_changed() -> None:
    """Else a changed byte of an envelope would go unseen."""
    for place in ("payload", "sig"):
        made = envelope(ANN)
        holder = made if place == "payload" else made["signatures"][0]
        text = holder[place]
        assert text.endswith("=")
        at = len(text.rstrip("=")) - 1
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        twin = text[:at] + alphabet[alphabet.index(text[at]) ^ 1] + text[at + 1 :]
        assert base64.b64decode(twin) == base64.b64decode(text)
        holder[place] = twin
        with pytest.raises(Integrity):
            verify_envelope(made, KIND, TRUSTED)


def test_a_threshold_counts_keys_not_signatures() -> None:
    two = (ANN.public_key(), BEN.public_key())
    assert verify_envelope(envelope(ANN, BEN), KIND, two, threshold=2) == BODY
    assert verify_envelope(envelope(EVE, BEN, ANN), KIND, two, threshold=2) == BODY
    for signers in ((ANN,), (ANN, ANN), (ANN, EVE), (ANN,) * 5):
        with pytest.raises(Integrity):
            verify_envelope(envelope(*signers), KIND, two, threshold=2)


def test_a_key_that_is_trusted_twice_counts_once() -> None:
    twice = (ANN.public_key(), load_public_key(public_pem(ANN)))
    with pytest.raises(Integrity, match="1 of the 2"):
        verify_envelope(envelope(ANN), KIND, twice, threshold=2)


def test_only_the_first_64_signatures_are_looked_at() -> None:
    bad = [signature(EVE)] * 63
    good = envelope(ANN)
    good["signatures"] = [*bad, signature(ANN)]
    assert verify_envelope(good, KIND, TRUSTED) == BODY
    good["signatures"] = [*bad, signature(EVE), signature(ANN)]
    with pytest.raises(Integrity):
        verify_envelope(good, KIND, TRUSTED)


def test_no_character_of_an_envelope_can_be_another() -> None:
    same = str.maketrans("-_", "+/")
    for place in ("payload", "sig"):
        made = envelope(ANN)
        holder = made if place == "payload" else made["signatures"][0]
        text = holder[place]
        for at in range(len(text)):
            for character in string.ascii_letters + string.digits + "+/=-_ ":
                twin = text[:at] + character + text[at + 1 :]
                if twin.translate(same) == text:
                    continue
                holder[place] = twin
                with pytest.raises(Integrity):
                    verify_envelope(made, KIND, TRUSTED)


def test_keys_of_other_kinds_are_not_trusted() -> None:
    for key in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)):
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        with pytest.raises(Integrity, match="unsupported"):
            load_public_key(pem)
    new_kind = bytes.fromhex("300b300506032a030403020001")  # a SubjectPublicKeyInfo
    unknown = base64.b64encode(new_kind).decode()
    begin, end = "-----BEGIN PUBLIC KEY-----\n", "\n-----END PUBLIC KEY-----"
    for text in ("", f"{begin}AAAA{end}", f"{begin}{unknown}{end}", public_pem(ANN)[:-40]):
        with pytest.raises(Integrity, match="cannot be read"):
            load_public_key(text)


# what others say


def test_a_foreign_verifier_accepts_what_we_sign() -> None:
    statement = {"_type": "https://in-toto.io/Statement/v1", "subject": [], "predicateType": "x", "predicate": {"é": 1}}
    document = EnvelopeSigner(ANN).sign_statement(statement)
    foreign = Envelope.from_dict(copy.deepcopy(document))
    key = SSlibKey.from_crypto(ANN.public_key())
    assert set(foreign.verify([key], 1)) == {key.keyid}
    assert msgspec.json.decode(foreign.payload) == statement
    assert verify_envelope(document, STATEMENT_TYPE, TRUSTED) == foreign.payload
    foreign.payload += b" "
    with pytest.raises(VerificationError):
        foreign.verify([key], 1)


@pytest.mark.parametrize("key", [ANN, CURVE], ids=["Ed25519", "P-256"])
def test_we_accept_what_a_foreign_signer_signs(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
    made = Envelope(payload=BODY, payload_type=KIND, signatures={})
    made.sign(CryptoSigner(key))
    assert verify_envelope(made.to_dict(), KIND, (key.public_key(),)) == BODY
    with pytest.raises(Integrity):
        verify_envelope(made.to_dict(), KIND, (EVE.public_key(),))
