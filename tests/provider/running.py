"""A real OpenID provider (npm's oidc-provider) for tests and proofs, in a process of its own on a free loopback port.

It is installed below build/ from the lock beside this file when it is first needed. Keys and accounts are the test's:
what the provider signs, the test can sign too, and otherwise than a provider would.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
from joserfc.jwk import RSAKey

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build"
CLIENT = "falaj-tests"
SECRET = "known to the tests only"
_INSTALL_SECONDS = 240.0
_START_SECONDS = 30.0


def installed() -> Path:
    """A folder with the provider in it; npm is asked once for each version of the lock. Raises where node is missing:
    a test that needs it must not pass without."""
    files = [HERE / name for name in ("package.json", "package-lock.json", "provider.mjs")]
    digest = hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]
    folder = BUILD / f"provider-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            if not (shutil.which("node") and shutil.which("npm")):
                raise RuntimeError("node and npm are needed for the OpenID provider (Debian: nodejs, npm)")
            for file in files:
                shutil.copy(file, folder)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
            subprocess.run(command, cwd=folder, check=True, timeout=_INSTALL_SECONDS)
            (folder / "whole").touch()
    return folder


def signing_key(kid: str) -> RSAKey:
    """A fresh RSA key."""
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"}, private=True)


class RunningProvider:
    """A provider that runs. `account` names who signs in next, `redirects` where browsers may be sent back to."""

    def __init__(self, folder: Path, redirects: list[str], issuer: str = "") -> None:
        self._told_issuer = issuer  # where something stands before it
        self._config = folder / "provider.json"
        self._redirects = redirects
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.keys: list[RSAKey] = [signing_key("first")]
        self.accounts: dict[str, dict[str, Any]] = {}
        self.issuer = ""
        self.start()

    def start(self) -> None:
        """Start, on the port it had before."""
        self._write()
        command = ["node", "provider.mjs", str(self._config)]
        self._process = subprocess.Popen(
            command, cwd=installed(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        told = json.loads(self._process.stdout.readline())
        self.issuer, self.port = told["issuer"], told["port"]

    def stop(self) -> None:
        """Stop."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=_START_SECONDS)
            self._process = None

    def rotate(self, *keys: RSAKey) -> None:
        """Serve these keys from now on; the first of them signs."""
        self.stop()
        self.keys = list(keys)
        self.start()

    def account(self, name: str, groups: list[str] | None = None, **claims: Any) -> None:
        """Add an account, or change what is told of it."""
        self.accounts[name] = {"name": name.title(), "groups": groups or [], **claims}
        self._write()

    def _write(self) -> None:
        client = {
            "client_id": CLIENT,
            "client_secret": SECRET,
            "redirect_uris": self._redirects,
            "response_types": ["code"],
            "grant_types": ["authorization_code", "urn:ietf:params:oauth:grant-type:device_code"],
        }
        keys = [k.as_dict(private=True) for k in self.keys]
        config = {
            "issuer": self._told_issuer, "port": self.port, "clients": [client], "jwks": {"keys": keys},
            "accounts": self.accounts,
        }  # fmt: skip
        self._config.write_text(json.dumps(config))

    def authorize(self, url: str, account: str, *, refuse: bool = False) -> str:
        """What a browser does from the address it was sent to until it is sent back; returns that address."""
        with httpx.Client(timeout=30) as browser:
            return self._walk(browser, browser.get(url), account, refuse=refuse)

    def confirm(self, url: str, account: str) -> str:
        """Confirm a device at the address that the person was shown; returns the page that ends it."""
        with httpx.Client(timeout=30) as browser:
            page = browser.get(url)
            while "<form" in page.text:
                fields = dict(re.findall(r'name="([^"]+)" value="([^"]*)"', page.text))
                action = re.search(r'action="([^"]+)"', page.text)
                assert action is not None, page.text
                page = browser.post(urljoin(str(page.url), unescape(action[1])), data={**fields, "confirm": "yes"})
            return self._walk(browser, page, account)

    def _walk(self, browser: httpx.Client, answer: httpx.Response, account: str, *, refuse: bool = False) -> str:
        for _ in range(12):
            if not answer.is_redirect:
                return answer.text
            target = urljoin(str(answer.url), answer.headers["location"])
            if not target.startswith(self.issuer + "/"):
                return target
            if "/interaction/" in target:
                target += "?refuse=1" if refuse else f"?account={account}"
            answer = browser.get(target)
        raise AssertionError("the provider leads round in circles")
