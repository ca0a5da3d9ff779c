"""Keys that lie elsewhere: one suite for every place that can be had here, and what each place refuses."""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from falaj.governance.signing import elsewhere
from falaj.governance.signing.dsse import STATEMENT_TYPE, load_public_key, verify_envelope
from falaj.governance.signing.elsewhere import Elsewhere
from falaj.governance.signing.keys import KeyRing, fingerprint, public_pem
from falaj.governance.signing.places import token
from falaj.governance.signing.recovery import attestation_key, log_key, public_ids, read_folder
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.errors import Conflict, FalajError, Integrity, Invalid, Unavailable
from tests.governance.signing.hsm import Hsm, hsm
from tests.governance.signing.transit import Transit, vault

__all__ = ["hsm", "vault"]

Make = Callable[[], str]


def pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture(params=["env P-256", "env Ed25519", "env base64", "token P-256", "token Ed25519", "vault"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a new key at a place each time; returns where."""
    sort, count = request.param, iter(range(100))

    def variable() -> str:
        name = f"KEY_{next(count)}"
        key = Ed25519PrivateKey.generate() if "Ed" in sort else ec.generate_private_key(ec.SECP256R1())
        text = pem(key)
        monkeypatch.setenv(name, base64.b64encode(text.encode()).decode() if "base64" in sort else text)
        return f"env:{name}"

    if sort.startswith("env"):
        return variable
    if sort.startswith("token"):
        found: Hsm = request.getfixturevalue("hsm")
        return lambda: found.make(f"{request.node.name} {next(count)}".replace(" ", "-"), sort.split()[1])
    transit: type[Transit] = request.getfixturevalue("vault")

    def kept() -> str:
        name = f"k{next(count)}"
        transit.keys[name] = [Ed25519PrivateKey.generate()]
        return f"hashivault:{name}"

    return kept


# every place


def test_what_is_signed_elsewhere_verifies_here(make: Make) -> None:
    key = elsewhere.find(make())
    again = elsewhere.parse(key.encoded())
    assert again is not None and fingerprint(again) == fingerprint(key)
    for signer in (key, again):
        envelope = EnvelopeSigner(signer).sign_statement({"a": 1})
        body = verify_envelope(envelope, STATEMENT_TYPE, (load_public_key(public_pem(key)),))
        assert body == b'{"a":1}'


def test_another_key_at_the_same_place_signs_nothing(make: Make) -> None:
    key, other = elsewhere.find(make()), elsewhere.find(make())
    exchanged = Elsewhere(key.place, other.public_key())
    with pytest.raises(FalajError) as refused:
        exchanged.sign(b"x")
    assert refused.value.code in ("signer_other_key", "signer_unavailable")


def test_a_ring_signs_with_it_and_keeps_no_private_half(make: Make, tmp_path: Path) -> None:
    place = make()
    ring = KeyRing(tmp_path / "keys", {"attestation": place})
    again = KeyRing(tmp_path / "keys")  # the folder knows by itself
    assert again.place("attestation").startswith(place) and again.place("dev") == ""
    assert b"PRIVATE" not in (tmp_path / "keys" / "attestation.pem").read_bytes()
    assert again.attestation.sign(b"x") and fingerprint(again.attestation) == fingerprint(ring.attestation)
    kept = read_folder(tmp_path / "keys")
    assert public_ids(kept)["attestation"] == fingerprint(ring.attestation)
    assert attestation_key(kept) == ring.attestation.public_key()


def test_a_successor_is_another_key_at_another_place(make: Make, tmp_path: Path) -> None:
    one, other = make(), make()
    first = fingerprint(KeyRing(tmp_path / "keys", {"dev": one}).of("dev"))
    same = KeyRing(tmp_path / "keys", {"dev": one})
    with pytest.raises(Conflict) as refused:
        same.prepare("dev")
    assert refused.value.code == "signer_same_key" and "FALAJ_SIGNER_DEV" in refused.value.hint
    ring = KeyRing(tmp_path / "keys", {"dev": other})
    assert fingerprint(ring.of("dev")) == first  # until somebody says so
    new = ring.prepare("dev")
    assert fingerprint(ring.of("dev")) == first != new
    ring.take_over("dev")
    assert fingerprint(ring.of("dev")) == new and ring.place("dev").startswith(other)
    home = KeyRing(tmp_path / "keys")
    home.prepare("dev")
    home.take_over("dev")
    assert home.place("dev") == "" and isinstance(KeyRing(tmp_path / "keys").of("dev"), Ed25519PrivateKey)


def test_only_the_types_that_verifiers_know_are_taken(make: Make, tmp_path: Path) -> None:
    place = make()
    ed25519 = elsewhere.find(place).encoded() and not isinstance(
        elsewhere.find(place).public_key(), ec.EllipticCurvePublicKey
    )
    refused, taken = ("model", "log") if ed25519 else ("log", "model")
    with pytest.raises(Invalid) as error:
        KeyRing(tmp_path / "refused", {refused: place})
    assert error.value.code == "signer_key_type" and not (tmp_path / "refused").exists()
    ring = KeyRing(tmp_path / "taken", {taken: place})
    assert (log_key(read_folder(ring.folder)) is not None) and ring.place(taken).startswith(place)


# one place


def test_a_token_is_opened_again_when_it_was_away(hsm: Hsm) -> None:
    place = hsm.make("away")
    key = elsewhere.find(place)
    assert key.sign(b"x")
    hsm.destroy("away")
    with pytest.raises(Unavailable) as gone:
        key.sign(b"x")
    assert gone.value.code == "signer_unavailable" and "away" in gone.value.message
    hsm.make("away")  # the same name, another key
    with pytest.raises(Integrity) as other:
        key.sign(b"x")
    assert other.value.code == "signer_other_key"


def test_threads_and_keys_share_a_token(hsm: Hsm) -> None:
    keys = [elsewhere.find(hsm.make(f"shared-{n}")) for n in range(3)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda n: keys[n % 3].sign(b"%d" % n), range(60)))


def test_the_pin_never_shows(hsm: Hsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hsm.make("quiet")
    (tmp_path / "wrong").write_text("987654\n")
    monkeypatch.setenv("A_PIN", "1234")
    assert elsewhere.find(hsm.uri("quiet", pin="env:A_PIN"))
    wrong = hsm.uri("quiet", pin=str(tmp_path / "wrong"))
    missing = hsm.uri("quiet", pin=str(tmp_path / "nothing"))
    for place in (wrong, missing):
        try:
            token.Token(place).public()
        except Unavailable as e:
            told = f"{e.message} {e.hint} {e.code}"
        else:
            told = "signer_unavailable" if place == wrong else ""  # this process is logged in: no PIN is asked for then
        assert "987654" not in told and "signer_unavailable" in told


@pytest.mark.parametrize(
    "place",
    [
        "pkcs11:token=a;object=b", "pkcs11:token=a?module-path=/m.so&pin-source=/p", "pkcs11:object=b?module-path=/m.so&pin-source=/p",
        "pkcs11:token=a;object=b?module-path=m.so&pin-source=/p", "pkcs11:token=a;object=b?module-path=/m.so&pin-value=1234",
        "pkcs11:token=a;token=b;object=b?module-path=/m.so&pin-source=/p", "pkcs11:token=a;object=b?module-path=/m.so&pin-source=|cat",
        "env:", "env:A B", "env:A=B", "file:/tmp/key.pem", "", "model", "awskms:", "gcpkms:/", "azurekms://elsewhere.example/keys/k",
        "azurekms://v.vault.azure.net/secrets/k", "hashivault:", "https://example.com/key", "env:A\nB", "pkcs11:", "awskms:\x00",
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises((Invalid, Unavailable)) as refused:
        elsewhere.find(place)
    assert refused.value.code in ("bad_signer", "signer_unavailable") and refused.value.hint
    assert "1234" not in refused.value.message


@pytest.mark.parametrize("text", ["", "no key", base64.b64encode(b"no key").decode(), "-----BEGIN PRIVATE KEY-----\n"])
def test_a_variable_without_a_key_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", text)
    with pytest.raises(Unavailable) as refused:
        elsewhere.find("env:A_KEY")
    assert "A_KEY" in refused.value.message and (not text or text not in refused.value.message)


def test_other_curves_are_refused(hsm: Hsm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P384", pem(ec.generate_private_key(ec.SECP384R1())))
    for place in ("env:P384", hsm.make("p384", "P-384")):
        with pytest.raises(Invalid) as refused:
            elsewhere.find(place)
        assert refused.value.code == "signer_key_type"


def test_a_service_that_is_away_is_told(vault: type[Transit], monkeypatch: pytest.MonkeyPatch) -> None:
    vault.keys["m"] = [Ed25519PrivateKey.generate()]
    key = elsewhere.find("hashivault:m")
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:9")
    away = elsewhere.parse(key.encoded())
    assert away is not None
    with pytest.raises(Unavailable) as gone:
        away.sign(b"x")
    assert gone.value.code == "signer_unavailable"


@pytest.mark.parametrize("address", ["http://vault.example:8200", "", "vault.example"])
def test_no_token_of_vault_goes_in_clear(vault: type[Transit], monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    vault.keys["m"] = [Ed25519PrivateKey.generate()]
    key = elsewhere.parse(elsewhere.find("hashivault:m").encoded())
    assert key is not None
    monkeypatch.setenv("VAULT_ADDR", address)
    for ask in (lambda: key.sign(b"x"), lambda: elsewhere.find("hashivault:m")):
        with pytest.raises(Unavailable, match=r"over TLS only|VAULT_ADDR is not set") as refused:
            ask()
        assert refused.value.code == "signer_unavailable"


def test_vault_is_pinned_to_a_version(vault: type[Transit]) -> None:
    vault.keys["m"] = [Ed25519PrivateKey.generate()]
    first = elsewhere.find("hashivault:m")
    vault.keys["m"].append(Ed25519PrivateKey.generate())
    assert first.place == "hashivault:m/1" and first.sign(b"x")
    second = elsewhere.find("hashivault:m")
    assert second.place == "hashivault:m/2" and fingerprint(second) != fingerprint(first)
    with pytest.raises(Invalid, match="newest"):
        elsewhere.find("hashivault:m/1")


@pytest.mark.parametrize(
    "place",
    [
        "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
        "azurekms://v.vault.azure.net/keys/k",
    ],
)
def test_a_library_that_is_not_there_is_named(place: str) -> None:
    """None is installed for tests: nothing here answers as they do."""
    with pytest.raises(Unavailable) as refused:
        elsewhere.find(place)
    assert refused.value.code == "signer_library_missing" and "pip install" in refused.value.hint
