"""Where one may speak in the clear. Kernel only."""

from __future__ import annotations

from falaj.kernel.errors import Denied
from falaj.kernel.settings import LOOPBACK


def check_address(scheme: str, host: str) -> None:
    """Raise `Denied` for plain HTTP to anything but loopback, before anything is sent there."""
    if scheme != "https" and host not in LOOPBACK:
        raise Denied(
            f"refusing to speak to {host or 'nowhere'} in the clear",
            hint="use https://, with FALAJ_TLS naming the folder of your certificate; plain http:// is for loopback only",
            code="plaintext_refused",
        )
