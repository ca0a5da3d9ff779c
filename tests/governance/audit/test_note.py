from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.audit import note
from falaj.kernel.errors import Integrity, Invalid

VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NAME = "falaj.example/log"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OWN = note.verifier_of(NAME, KEY.public_key())
TEXT = note.Checkpoint(NAME, 8, bytes(range(32))).text


def other(n: int) -> tuple[str, Ed25519PrivateKey]:
    return f"witness.example/{n}", Ed25519PrivateKey.from_private_bytes(bytes([n + 1]) * 32)


def respell(line: bytes) -> bytes:
    """The same signature line with its last unused base64 bit set."""
    head, _, text = line.rstrip(b"\n").rpartition(b" ")
    body = text.rstrip(b"=")
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet[alphabet.index(body[-1:]) + 1]
    return head + b" " + body[:-1] + bytes([last]) + text[len(body) :] + b"\n"


def test_reference_vkey() -> None:
    verifier = note.parse_vkey(VKEY)
    assert verifier.name == "example.com/foo"
    assert verifier.key_id.hex() == "530d903a"
    assert verifier.vkey == VKEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "foo",
        VKEY.replace("530d903a", "530d903b"),
        VKEY.replace("530d903a", "530D903A"),
        VKEY.replace("foo", "fop"),
        VKEY.replace("+Ae", "+Ag"),
        VKEY[:-1] + "l",
        VKEY + "\n",
        " " + VKEY,
        VKEY + "=",
    ],
)
def test_vkeys_that_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        note.parse_vkey(text)


def test_sign_and_open() -> None:
    signed = note.sign(TEXT, [(NAME, KEY)])
    assert signed.startswith(TEXT.encode() + "\n— ".encode())
    assert note.open_note(signed, [OWN]) == note.Opened(TEXT, (OWN.vkey,))
    assert note.open_checkpoint(signed, OWN) == note.Checkpoint(NAME, 8, bytes(range(32)))


def test_sixteen_and_more_signatures_of_whom_one_is_known() -> None:
    signed = note.sign(TEXT, [*(other(n) for n in range(20)), (NAME, KEY)])
    assert note.open_note(signed, [OWN]).signers == (OWN.vkey,)
    witness = note.verifier_of(other(3)[0], other(3)[1].public_key())
    assert note.open_note(signed, [OWN, witness]).signers == (witness.vkey, OWN.vkey)


def test_unknown_signers_alone_are_not_enough() -> None:
    with pytest.raises(Integrity, match="no signature by a known key"):
        note.open_note(note.sign(TEXT, [other(1)]), [OWN])


def test_a_known_key_with_a_wrong_signature_rejects_the_note() -> None:
    good, wrong = note.sign(TEXT, [(NAME, KEY)]), note.sign(TEXT + "more\n", [(NAME, KEY)])
    line = wrong[wrong.rindex(b"\n\n") + 2 :]
    with pytest.raises(Integrity, match="is wrong"):
        note.open_note(good + line, [OWN])
    with pytest.raises(Integrity, match="is wrong"):
        note.open_note(TEXT.encode() + b"\n" + line, [OWN])


def test_the_last_empty_line_parts_text_and_signatures() -> None:
    text = "first\n\nsecond\n"
    assert note.open_note(note.sign(text, [(NAME, KEY)]), [OWN]).text == text


def test_another_spelling_of_the_same_base64_is_refused() -> None:
    signed = note.sign(TEXT, [(NAME, KEY)])
    text, _, line = signed.rpartition(b"\n\n")
    assert base64.b64decode(respell(line).split()[-1]) == base64.b64decode(line.split()[-1])
    with pytest.raises(Integrity, match="stray bits"):
        note.open_note(text + b"\n\n" + respell(line), [OWN])


@pytest.mark.parametrize(
    "change",
    [
        lambda n: n[:-1],
        lambda n: n + b"\n",
        lambda n: n + b"junk\n",
        lambda n: n + "— short AAAA\n".encode(),
        lambda n: n.replace(b"\n\n", b"\n"),
        lambda n: n.replace("— ".encode(), b"- "),
        lambda n: n.replace(b"\n", b"\r\n"),
        lambda n: b"\xff" + n,
        lambda n: n.replace(b"8\n", b"8\t\n"),
        lambda n: n[:0],
        lambda n: n + b"x" * note.MAX_NOTE,
    ],
)
def test_malformed_notes_are_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(Integrity):
        note.open_note(change(note.sign(TEXT, [(NAME, KEY)])), [OWN])


@given(st.data())
def test_any_changed_byte_is_found(data: st.DataObject) -> None:
    signed = bytearray(note.sign(TEXT, [(NAME, KEY)]))
    signed[data.draw(st.integers(0, len(signed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Integrity):
        note.open_note(bytes(signed), [OWN])


@pytest.mark.parametrize(
    "text",
    [
        "a\n8\n",
        "\n8\n" + base64.b64encode(bytes(32)).decode() + "\n",
        TEXT.replace("\n8\n", "\n08\n"),
        TEXT.replace("\n8\n", "\n-8\n"),
        TEXT.replace("\n8\n", "\n٨\n"),
        TEXT.replace("\n8\n", "\n8 \n"),
        TEXT + "\n",
        TEXT[:-1],
        f"a\n8\n{base64.b64encode(bytes(31)).decode()}\n",
        f"a\n8\n{base64.b64encode(bytes(32)).decode()[:-2]}B=\n",
    ],
)
def test_texts_that_are_not_checkpoints(text: str) -> None:
    with pytest.raises(Integrity):
        note.parse_checkpoint(text)


def test_a_foreign_checkpoint_may_have_extension_lines() -> None:
    assert note.parse_checkpoint(TEXT + "extra\n").extensions == ("extra",)
    assert note.parse_checkpoint(TEXT + "extra\n").text == TEXT + "extra\n"


def test_a_checkpoint_of_another_log_is_refused() -> None:
    foreign = note.Checkpoint("other.example/log", 8, bytes(32)).text
    with pytest.raises(Integrity, match="is of other"):
        note.open_checkpoint(note.sign(foreign, [(NAME, KEY)]), OWN)


def test_names_and_texts_that_cannot_be_signed() -> None:
    for name in ("", "a b", "a+b", "a\u2003b"):
        with pytest.raises(Invalid):
            note.verifier_of(name, KEY.public_key())
    for text in ("no newline", "tab\t\n"):
        with pytest.raises(Invalid):
            note.sign(text, [(NAME, KEY)])
    with pytest.raises(Invalid):
        note.open_note(note.sign(TEXT, [(NAME, KEY)]), [OWN, OWN])


def test_the_head_file_shows_any_changed_byte() -> None:
    head = note.encode_head(note.parse_checkpoint(TEXT))
    assert note.parse_head(head).text == TEXT
    for i in range(len(head)):
        with pytest.raises(Integrity):
            note.parse_head(head[:i] + bytes([head[i] ^ 1]) + head[i + 1 :])
