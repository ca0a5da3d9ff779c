"""Places of key-encryption keys that can be had here, each with what may happen to it."""

from __future__ import annotations

import base64
import itertools
import os
import secrets
from typing import Protocol

import pytest

from tests.governance.signing.hsm import Hsm
from tests.governance.signing.transit import Transit

SORTS = ("env", "token", "vault")
_numbers = itertools.count(1)


class Keeper(Protocol):
    """One sort of place."""

    def make(self) -> str:
        """A new key at a new place; returns where."""
        ...

    def hide(self, place: str) -> None:
        """Let it not answer."""
        ...

    def bring(self, place: str) -> None:
        """Let it answer again."""
        ...

    def exchange(self, place: str) -> None:
        """Put another key there."""
        ...


class Variables:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._hidden: dict[str, str] = {}

    def make(self) -> str:
        name = f"KEK_{next(_numbers)}"
        self._monkeypatch.setenv(name, base64.b64encode(secrets.token_bytes(32)).decode())
        return f"env:{name}"

    def hide(self, place: str) -> None:
        name = place.removeprefix("env:")
        self._hidden[name] = os.environ[name]
        self._monkeypatch.delenv(name)

    def bring(self, place: str) -> None:
        name = place.removeprefix("env:")
        self._monkeypatch.setenv(name, self._hidden[name])

    def exchange(self, place: str) -> None:
        name = place.removeprefix("env:")
        self._monkeypatch.setenv(name, base64.b64encode(secrets.token_bytes(32)).decode())


class Tokens:
    def __init__(self, hsm: Hsm) -> None:
        self._hsm = hsm

    def make(self) -> str:
        return self._hsm.make_secret(f"kek-{next(_numbers)}")

    def hide(self, place: str) -> None:
        self._hsm.rename(self._name(place), f"{self._name(place)}-hidden")

    def bring(self, place: str) -> None:
        self._hsm.rename(f"{self._name(place)}-hidden", self._name(place))

    def exchange(self, place: str) -> None:
        self.hide(place)
        self._hsm.make_secret(self._name(place))

    @staticmethod
    def _name(place: str) -> str:
        return place.partition("object=")[2].partition("?")[0]


class Transits:
    """Of an imitation of Vault."""

    def __init__(self, vault: type[Transit]) -> None:
        self._vault = vault

    def make(self) -> str:
        name = f"kek-{next(_numbers)}"
        self._vault.keys[name] = [secrets.token_bytes(32)]
        return f"hashivault:{name}"

    def hide(self, place: str) -> None:
        self._vault.status = 503

    def bring(self, place: str) -> None:
        self._vault.status = 0

    def exchange(self, place: str) -> None:
        self._vault.keys[place.removeprefix("hashivault:").partition("/")[0]] = [secrets.token_bytes(32)]


def keeper_of(sort: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    """One sort of place."""
    if sort == "env":
        return Variables(monkeypatch)
    if sort == "token":
        return Tokens(request.getfixturevalue("hsm"))
    return Transits(request.getfixturevalue("vault"))


@pytest.fixture(params=SORTS)
def keeper(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    """Each sort of place."""
    return keeper_of(request.param, request, monkeypatch)
