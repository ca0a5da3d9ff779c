"""A software HSM (Debian's softhsm2) with a token of its own."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path
from typing import Any

import pkcs11
import pytest

from tests.debian import needed

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "1234"
_labels = itertools.count(1)


class Hsm:
    """A token. The module is initialised once a process, so all tokens of a process lie in one folder."""

    def __init__(self, folder: Path) -> None:
        needed("softhsm2", MODULE)
        if "SOFTHSM2_CONF" not in os.environ:
            tokens = folder / "tokens"
            tokens.mkdir(parents=True)
            (folder / "softhsm2.conf").write_text(f"directories.tokendir = {tokens}\nlog.level = ERROR\n")
            os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
        self.pin = folder / "pin"
        self.pin.parent.mkdir(parents=True, exist_ok=True)
        self.pin.write_text(f"{PIN}\n")
        self.label = f"token {next(_labels)}"
        command = ["softhsm2-util", "--init-token", "--free", "--label", self.label, "--pin", PIN, "--so-pin", PIN]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        pkcs11.lib(MODULE).reinitialize()  # it looked for tokens when it was loaded

    def make(self, name: str, kind: str = "P-256") -> str:
        """A key pair in the token; returns the URI that names it."""
        with self.session() as session:
            if kind == "Ed25519":
                parameters = session.create_domain_parameters(
                    pkcs11.KeyType.EC_EDWARDS,
                    {pkcs11.Attribute.EC_PARAMS: b"\x13\x0cedwards25519"}, local=True,
                )  # fmt: skip
            else:
                curve = {"P-256": "06082a8648ce3d030107", "P-384": "06052b81040022"}[kind]
                parameters = session.create_domain_parameters(
                    pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: bytes.fromhex(curve)}, local=True
                )
            mechanism = pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN if kind == "Ed25519" else None
            parameters.generate_keypair(store=True, label=name, mechanism=mechanism)
        return self.uri(name)

    def make_secret(self, name: str, bits: int = 256, **template: bool) -> str:
        """An AES key in the token, which it does not leave; returns the URI that names it."""
        asked = {getattr(pkcs11.Attribute, attribute): value for attribute, value in template.items()}
        with self.session() as session:
            session.generate_key(pkcs11.KeyType.AES, bits, store=True, label=name, template=asked)
        return self.uri(name)

    def rename(self, name: str, to: str) -> None:
        """Give a key another label."""
        with self.session() as session:
            for found in list(session.get_objects({pkcs11.Attribute.LABEL: name})):
                found[pkcs11.Attribute.LABEL] = to

    def destroy(self, name: str) -> None:
        """Take a key out of the token."""
        with self.session() as session:
            for found in list(session.get_objects({pkcs11.Attribute.LABEL: name})):
                found.destroy()

    def uri(self, name: str, pin: str = "") -> str:
        token = self.label.replace(" ", "%20")
        return f"pkcs11:token={token};object={name}?module-path={MODULE}&pin-source={pin or self.pin}"

    def session(self) -> Any:
        """A session that may write. A login is the whole process's, so it may be there already."""
        token = pkcs11.lib(MODULE).get_token(token_label=self.label)
        try:
            return token.open(rw=True, user_pin=PIN)
        except pkcs11.exceptions.UserAlreadyLoggedIn:
            return token.open(rw=True)


@pytest.fixture(scope="session")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Hsm:
    """A token."""
    return Hsm(tmp_path_factory.mktemp("hsm"))
