"""What every test stands on: no setting from outside, and property tests that do not watch the clock."""

from __future__ import annotations

import os

import hypothesis
import pytest

from falaj.storage import keychain

hypothesis.settings.register_profile("house", deadline=None, print_blob=True)
hypothesis.settings.load_profile("house")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A FALAJ_* variable of the person who runs the tests must not change them."""
    for name in [name for name in os.environ if name.startswith("FALAJ_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="session")
def keys_for_every_test(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Stores that lie in no home have keys too: nothing is written in clear. A home holds its own."""
    keychain.hold(tmp_path_factory.getbasetemp(), keychain.fresh())
