"""What cannot be asked of the signing keys, and who may not: nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from falaj.kernel.errors import Denied, FalajError, Invalid, NotFound
from tests.lifecycle.house import House


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda r, o: r.rotate(o, "log", "why"), Invalid),
        (lambda r, o: r.rotate(o, "kek", "why"), Invalid),
        (lambda r, o: r.rotate(o, "model", " "), Invalid),
        (lambda r, o: r.revoke(o, "sha256:" + "0" * 64, "", "why"), NotFound),
        (lambda r, o: r.revoke(o, "model", "2999-01-01T00:00:00Z", "why"), Invalid),
        (lambda r, o: r.revoke(o, "model", "yesterday", "why"), Invalid),
    ],
)
def test_what_cannot_be_asked_is_refused(home: House, ask: Callable[..., Any], error: type[FalajError]) -> None:
    before = home.plane.signing.records()
    with pytest.raises(error):
        ask(home.plane.vouching.revoking, home.owner)
    assert home.plane.signing.records() == before


def test_only_administrators_may(home: House) -> None:
    before = home.plane.signing.records()
    for who in (home.author, home.risk):
        with pytest.raises(Denied):
            home.plane.vouching.revoking.rotate(who, "model", "why")
        with pytest.raises(Denied):
            home.plane.vouching.revoking.revoke(who, "model", "", "why")
    assert home.plane.signing.records() == before and not list(home.plane.layout.keys.glob(".*.next"))
