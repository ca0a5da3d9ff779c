"""Where HashiCorp Vault is, for the keys that lie in it: `VAULT_ADDR`, Vault's own variable."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from falaj.kernel.errors import Unavailable
from falaj.kernel.settings import LOOPBACK


def vault_address(code: str) -> str:
    """Its address. Raises `Unavailable` with this code for one that a token, or a key, would go to in clear."""
    address = os.environ.get("VAULT_ADDR", "")
    parts = urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise Unavailable(
            "Vault is asked over TLS only, beyond loopback" if address else "VAULT_ADDR is not set",
            hint="set VAULT_ADDR to Vault's address, https://…, and VAULT_CACERT where its authority is your own",
            code=code,
        )
    return address
