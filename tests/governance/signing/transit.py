"""The calls of Vault's transit engine that are made, as its API documents them. It is not Vault."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class Transit(BaseHTTPRequestHandler):
    """`keys`: the versions of each, private keys that sign or secrets that encrypt. `more` is told of a key; `status` is answered
    to everything when it is not 0; `binds`: as an old release, which does not know associated data, when it is not set."""

    keys: dict[str, list[Any]] = {}
    more: dict[str, dict[str, Any]] = {}
    status = 0
    binds = True
    asked: list[str] = []

    def do_GET(self) -> None:
        self._answer(*self._read(self.path.rpartition("/")[2]))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        what, name = self.path.split("/")[3:5]
        self.asked.append(f"{what} {name}")
        if name not in self.keys:
            return self._answer({"errors": ["encryption key not found"]}, 400)
        does = {"encrypt": self._encrypt, "decrypt": self._decrypt}.get(what, self._sign)
        return self._answer(*does(asked, self.keys[name]))

    do_PUT = do_POST

    def _read(self, name: str) -> tuple[dict[str, Any], int]:
        if name not in self.keys:
            return {"errors": []}, 404
        versions = self.keys[name]
        if isinstance(versions[0], bytes):
            told: dict[str, Any] = {"type": "aes256-gcm96", "keys": {str(n): 1 for n, _ in enumerate(versions, 1)}}
        else:
            public = [base64.b64encode(k.public_key().public_bytes_raw()).decode() for k in versions]
            told = {"type": "ed25519", "keys": {str(n): {"public_key": p} for n, p in enumerate(public, 1)}}
        return {"data": told | {"latest_version": len(versions)} | self.more.get(name, {})}, 200

    def _sign(self, asked: dict[str, Any], versions: list[Any]) -> tuple[dict[str, Any], int]:
        data = base64.b64decode(asked["input"] if "input" in asked else asked["hash_input"])
        made = base64.b64encode(versions[asked["key_version"] - 1].sign(data)).decode()
        return {"data": {"signature": f"vault:v{asked['key_version']}:{made}"}}, 200

    def _encrypt(self, asked: dict[str, Any], versions: list[Any]) -> tuple[dict[str, Any], int]:
        number, nonce = asked.get("key_version") or len(versions), secrets.token_bytes(12)
        made = AESGCM(versions[number - 1]).encrypt(nonce, base64.b64decode(asked["plaintext"]), self._bound(asked))
        text = base64.b64encode(nonce + made).decode()
        return {"data": {"ciphertext": f"vault:v{number}:{text}", "key_version": number}}, 200

    def _decrypt(self, asked: dict[str, Any], versions: list[Any]) -> tuple[dict[str, Any], int]:
        _, version, text = asked["ciphertext"].split(":")
        raw = base64.b64decode(text)
        try:
            plain = AESGCM(versions[int(version[1:]) - 1]).decrypt(raw[:12], raw[12:], self._bound(asked))
        except InvalidTag:
            return {"errors": ["cipher: message authentication failed"]}, 400
        return {"data": {"plaintext": base64.b64encode(plain).decode()}}, 200

    def _bound(self, asked: dict[str, Any]) -> bytes:
        return base64.b64decode(asked.get("associated_data", "")) if self.binds else b""

    def _answer(self, told: dict[str, Any], status: int) -> None:
        if self.headers["X-Vault-Token"] != "s.1":
            told, status = {"errors": ["permission denied"]}, 403
        if self.status:
            told, status = {"errors": ["Vault is sealed"]}, self.status
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Transit]]:
    """An imitation that this process is told of, with keys of its own."""

    class Own(Transit):
        keys: dict[str, list[Ed25519PrivateKey | bytes]] = {}
        more: dict[str, dict[str, Any]] = {}
        asked: list[str] = []

    server = HTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("VAULT_TOKEN", "s.1")
    yield Own
    server.shutdown()
    server.server_close()
    thread.join()
