"""Start a data plane: a supervisor that holds nothing, and one worker process a core.

    python -m falaj.entrypoints.data_plane --dir D --blobs B --online O --home H --port 8080 [--workers 2]

Each argument may come from the environment: FALAJ_PLANE_DIR, FALAJ_PLANE_BLOBS, FALAJ_PLANE_ONLINE,
FALAJ_HOME, FALAJ_HOST, FALAJ_PLANE_PORT, FALAJ_PLANE_WORKERS, FALAJ_TLS, FALAJ_TRUST_DOMAIN. Exits 0 after SIGTERM or
SIGINT, 2 for wrong arguments, 3 when it cannot listen.

On any `--host` but loopback it takes TLS 1.3 with a certificate on both sides only (`plane.front`), and listens in the
clear on loopback beside it.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels

from falaj.kernel.errors import FalajError, Invalid, Unavailable
from falaj.kernel.settings import LOOPBACK
from falaj.lifecycle.serving.plane.supervisor import Served, StopSignals, Supervisor, give_back

# Named, not imported: the supervisor stays small, only workers load the runtime.
_APPLICATION = "falaj.bootstrap.data_plane:application"
_OPTIONS = "falaj.bootstrap.data_plane:PlaneOptions"
_CHECK = "falaj.lifecycle.serving.plane.front:check"
_OUTWARD = "falaj.lifecycle.serving.plane.front:Outward"
_DRAIN_SECONDS = 30


def load(fields: dict[str, Any]) -> Any:
    """The application, built in the worker's process."""
    signals = StopSignals()
    give_back()
    return Served(pkgutil.resolve_name(_APPLICATION)(pkgutil.resolve_name(_OPTIONS)(**fields)), signals)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line, with `FALAJ_PLANE_*` as defaults."""
    environ = os.environ
    parser = argparse.ArgumentParser(prog="falaj-data-plane", description="Serve admitted models.")
    for flag, name, text in (
        ("--dir", "FALAJ_PLANE_DIR", "the data plane's own folder"),
        ("--blobs", "FALAJ_PLANE_BLOBS", "the encrypted blob store"),
        ("--online", "FALAJ_PLANE_ONLINE", "the online feature store (LMDB)"),
        ("--home", "FALAJ_HOME", "the home whose clock holds"),
    ):
        parser.add_argument(flag, type=Path, default=environ.get(name), required=name not in environ, help=text)
    parser.add_argument(
        "--host", default=environ.get("FALAJ_HOST", "127.0.0.1"), help="loopback, or any other with --tls"
    )
    parser.add_argument("--port", type=int, default=environ.get("FALAJ_PLANE_PORT", "0"), help="0 takes a free one")
    parser.add_argument("--local-port", type=int, default=0, help="on loopback, beside --host; 0 takes a free one")
    parser.add_argument("--tls", default=environ.get("FALAJ_TLS", ""), help="a folder with certificates")
    parser.add_argument("--trust-domain", default=environ.get("FALAJ_TRUST_DOMAIN") or "falaj.local")
    parser.add_argument("--workers", type=int, default=environ.get("FALAJ_PLANE_WORKERS", "1"))
    parser.add_argument("--log-level", default=environ.get("FALAJ_LOG_LEVEL", "info"))
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    return parser.parse_args(argv)


def check_host(host: str, tls: str = "") -> str:
    """The address to bind. Raises `Invalid` for anything but loopback without certificates."""
    if host not in LOOPBACK and not (tls and host):
        raise Invalid(
            f"refusing to listen on {host}: beyond loopback only with TLS and certificates on both sides",
            hint="name a folder with certificates (--tls, FALAJ_TLS), or use 127.0.0.1",
            code="not_loopback",
        )
    return "127.0.0.1" if host == "localhost" else host


def free_port(host: str, port: int) -> int:
    """`port` if nobody listens there, or a free one for 0. Raises `Unavailable`.

    Workers share the port with SO_REUSEPORT, so a second server would silently get half of the traffic.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as e:
            raise Unavailable(
                f"cannot listen on {host}:{port}: {e.strerror}", hint="choose another port", code="port_taken"
            ) from e
        return int(probe.getsockname()[1])


def serve(options: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT; a worker that dies is replaced (`plane.supervisor`)."""
    host = check_host(options.host, options.tls)
    port = free_port(host, options.port)
    shown, scheme, outward = f"[{host}]" if ":" in host else host, "http", None
    folder = Path(options.dir).resolve()
    if host not in LOOPBACK:
        scheme, outward = "https", pkgutil.resolve_name(_OUTWARD)(host, port, options.tls, options.trust_domain)
        pkgutil.resolve_name(_CHECK)(outward, folder)
        host, port = "127.0.0.1", free_port("127.0.0.1", options.local_port)
    fields = {
        "folder": folder,
        "blobs": Path(options.blobs).resolve(),
        "online": Path(options.online).resolve(),
        "home": Path(options.home).resolve(),
        "address": f"{scheme}://{shown}:{outward.port if outward else port}",
        "log_level": options.log_level,
        "outward": outward,
        "local": (host, port),
    }
    server = Supervisor(
        fields["folder"],
        target="falaj",
        address=host,
        port=port,
        interface=Interfaces.RSGI,
        workers=max(1, options.workers),
        http=HTTPModes.http1,
        websockets=False,
        workers_kill_timeout=_DRAIN_SECONDS,
        log_level=LogLevels.warning,
    )
    if options.with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    server.serve(partial(load, fields))


def _end_with_parent() -> None:
    """Stop when whoever started this process is gone: its end of standard input closes, whatever killed it."""
    while os.read(0, 1024):
        pass
    os.killpg(os.getpgrp(), signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve admitted models; exits with the error's own status when it cannot start."""
    try:
        serve(arguments(sys.argv[1:] if argv is None else argv))
    except FalajError as e:
        print(f"{e.message}\n  {e.hint}", file=sys.stderr)
        sys.exit(2 if isinstance(e, Invalid) else e.exit_code)


if __name__ == "__main__":
    main()
