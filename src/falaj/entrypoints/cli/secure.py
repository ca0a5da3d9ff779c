"""Connections of the command line that carry a token: plain to this machine only, TLS 1.3 to any other."""

from __future__ import annotations

import pkgutil
import ssl
from typing import Any, cast

import httpx

from falaj.governance.identity.addresses import check_address
from falaj.kernel.errors import Invalid
from falaj.kernel.settings import Settings

_CLIENT = "falaj.governance.identity.tls:client_of"  # named, not imported: most commands stay on loopback


def connection(url: str, settings: Settings, server: str, **options: Any) -> httpx.Client:
    """A client of `server`, a role such as control-plane, at an address. Raises `Denied` for a plain one beyond loopback, `Invalid` for no address and
    for certificates that cannot be used.

    Without `FALAJ_TLS` an https address is an ordinary one, such as of a proxy that ends TLS: the system's authorities
    vouch for its name.
    """
    try:
        where = httpx.URL(url)
    except httpx.InvalidURL as e:
        raise Invalid(
            f"{url[:80]!r} is no address", hint="write it like https://falaj.example.org:8443", code="bad_setting"
        ) from e
    check_address(where.scheme, where.host)
    if where.scheme != "https":  # a proxy that the environment names would be told the token in the clear
        return httpx.Client(base_url=url, trust_env=False, **options)
    return httpx.Client(base_url=url, verify=_context(settings, server), **options)


def _context(settings: Settings, server: str) -> ssl.SSLContext:
    if settings.tls:
        made = pkgutil.resolve_name(_CLIENT)(settings.tls, settings.trust_domain, "operator", server)
        return cast(ssl.SSLContext, made)
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
