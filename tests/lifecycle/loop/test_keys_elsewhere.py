"""A whole home whose signing keys lie in a token and in the environment: admitted, served, handed out, replaced, revoked."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from falaj.bootstrap.control_plane import ControlPlane
from falaj.kernel.errors import Conflict, Unavailable
from falaj.kernel.settings import Settings
from tests.governance.signing.hsm import Hsm, hsm
from tests.lifecycle.house import house
from tests.lifecycle.loop.test_dossier import commands, handed
from tests.lifecycle.loop.test_keys import holds, print_of, serves, serving

__all__ = ["hsm"]
IN_TOKEN = ("attestation", "staging", "production", "model", "log")


@pytest.fixture
def places(hsm: Hsm, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A place for each key: dev's in a variable, the log's Ed25519, everything else ECDSA P-256."""
    named = request.node.name.replace("[", "-").replace("]", "")
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    monkeypatch.setenv("DEV_KEY", pem.decode())
    made = {f"signer_{n}": hsm.make(f"{named}-{n}", "Ed25519" if n == "log" else "P-256") for n in IN_TOKEN}
    return {**made, "signer_dev": "env:DEV_KEY"}


def test_a_version_goes_all_the_way(tmp_path: Path, places: dict[str, str]) -> None:
    with house(tmp_path, **places) as home:
        private = [p.name for p in home.plane.layout.keys.iterdir() if b"PRIVATE" in p.read_bytes()]
        assert private == []
        version = serving(home)
        assert holds(home, version) and home.now(version).state == "serving"
        with home.data_plane():
            assert serves(home.plane.layout.plane, version.digest)
        assert home.plane.audit.verify().ok
        folder = tmp_path / "handed"
        with tarfile.open(fileobj=io.BytesIO(handed(home, version))) as packed:
            packed.extractall(folder, filter="data")
    (inside,) = folder.iterdir() if not (folder / "MODEL_CARD.md").exists() else (folder,)
    for command in commands(inside):  # openssl, model_signing and a DSSE verifier, with nothing of ours
        place = Path(sys.executable).parent / command[0]
        done = subprocess.run([str(place) if place.exists() else command[0], *command[1:]], cwd=inside, capture_output=True,
                              text=True, timeout=100, check=False)  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert any("openssl" in c[0] or "openssl" in " ".join(c) for c in commands(inside))


def test_keys_move_into_a_token_and_back_when_somebody_says_so(tmp_path: Path, hsm: Hsm) -> None:
    place = hsm.make("moved-model")
    with house(tmp_path) as home:
        version, old = serving(home), print_of(home, "model")
    with house(tmp_path, signer_model=place) as home:
        home.begin_at(10)
        rows = {r["name"]: r for r in home.api().get("/api/v1/keys/signing").json() if not r["until"]}
        assert (rows["model"]["at"], rows["model"]["asked"]) == ("", place)
        assert print_of(home, "model") == old  # a setting alone changes nothing
        ended = home.plane.vouching.revoking.rotate(home.owner, "model", "into the token")
        assert ended.old == old and home.log(action="keys.rotate")[0].entry.detail["at"] == place
        rows = {r["name"]: r for r in home.api().get("/api/v1/keys/signing").json() if not r["until"]}
        assert (rows["model"]["at"], rows["model"]["asked"]) == (place, "")
        assert holds(home, home.now(version))
        later = serving(home)
        assert holds(home, later)
        with pytest.raises(Conflict, match="already"):
            home.plane.vouching.revoking.rotate(home.owner, "model", "again")
    with house(tmp_path) as home:  # the setting is gone: the next one is made in the home
        home.begin_at(20)
        home.plane.vouching.revoking.rotate(home.owner, "model", "out of the token")
        assert b"PRIVATE" in home.plane.keys.model_path.read_bytes()
        assert holds(home, home.now(version)) and holds(home, home.now(later)) and holds(home, serving(home))


def test_a_key_in_a_token_is_revoked_once_another_is_named(tmp_path: Path, hsm: Hsm) -> None:
    one, other = hsm.make("leaked"), hsm.make("its-successor")
    with house(tmp_path, signer_production=one) as home:
        version = serving(home)
        with pytest.raises(Conflict) as refused:
            home.plane.vouching.revoking.revoke(home.owner, "production", "", "the token was stolen")
        assert "FALAJ_SIGNER_PRODUCTION" in refused.value.hint and home.now(version).state == "serving"
    with house(tmp_path, signer_production=other) as home:
        done = home.plane.vouching.revoking.revoke(home.owner, "production", "", "the token was stolen")
        assert [a["version"] for a in done["affected"]] == [version.alias]
        assert home.now(version).state == "approved" and home.plane.keys.place("production") == other


def test_a_token_that_is_away_stops_what_must_be_signed_and_nothing_else(tmp_path: Path, hsm: Hsm) -> None:
    place = hsm.make("going")
    with house(tmp_path, signer_production=place) as home:
        version = serving(home)
        hsm.destroy("going")
        with home.data_plane():  # what is signed already serves
            assert serves(home.plane.layout.plane, version.digest)
        with pytest.raises(Unavailable) as away:
            home.plane.serving.publish("owner")
        assert away.value.code == "signer_unavailable"
    again = ControlPlane(Settings(home=tmp_path / "home", project=tmp_path, signer_production=place))
    try:  # and the home opens, to be mended
        again.start()
        assert again.registry.by_digest(version.digest).state == "serving"
    finally:
        again.close()
