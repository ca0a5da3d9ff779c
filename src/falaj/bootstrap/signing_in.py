"""Signing in with an identity provider, put together."""

from __future__ import annotations

from falaj.governance.door import Door
from falaj.governance.identity.oidc.model import setup_of
from falaj.governance.identity.oidc.pending import Pending
from falaj.governance.identity.oidc.provider import Provider
from falaj.governance.identity.oidc.signin import SignIns
from falaj.governance.identity.service import IdentityService
from falaj.kernel.clock import SystemClock
from falaj.kernel.settings import Settings


def sign_ins(settings: Settings, identity: IdentityService, door: Door) -> SignIns | None:
    """The sign-ins of a home's provider; None where none is set. The provider is not asked before somebody signs in.

    Its tokens are judged by the machine's clock: a home that replays another day must not take an old one.
    """
    setup = setup_of(settings)
    if setup is None:
        return None
    clock = SystemClock()
    return SignIns(Provider(setup, clock), Pending(clock), identity, door)
