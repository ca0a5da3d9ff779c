"""Every hop beyond loopback, tried with every wrong way to make it: nothing gets through but the right one.

    python proofs/hops.py [--sample] [--broken]

In a network namespace of its own, where 192.0.2.1 is an address like any other: a control plane, a data plane and a witness
are started as for others, by the command line. Rows are hops: at the side that is called, callers try to get an answer that
needs a token; at the side that calls, servers wait for the token or the checkpoint. Columns: plaintext, no certificate, a
certificate by another authority, expired, without an identity, with two, of a foreign trust domain, of another environment
or role, the token over a certificate of somebody else who may call there (replayed), TLS 1.2, and the right one. A cell is as
it should be when the answer came, or the server got bytes of the request, in the last column only. At the end the planes' certificates and their authority are replaced under them. What a hop cannot have, such as identities at a witness that asks for none, is no cell.

Holds when all cells are as they should be. `--broken` runs everything on a copy of the code that asks nobody who they are and
takes TLS 1.2: then it must not hold. `--sample` takes four columns.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(os.environ.get("HOPS_SOURCE", ROOT / "src"))
sys.path[:0] = [str(ROOT), str(SOURCE)]

from falaj.governance.audit.witnessing import post_over_http  # noqa: E402  # the paths come first
from falaj.governance.identity.tls import Party  # noqa: E402
from falaj.kernel.clock import SystemClock  # noqa: E402
from falaj.kernel.errors import FalajError  # noqa: E402
from falaj.lifecycle.serving.model import RehearseTask  # noqa: E402
from falaj.lifecycle.serving.plane.journal import Journal, Prediction  # noqa: E402
from falaj.lifecycle.serving.steps.rehearse import rehearse  # noqa: E402
from falaj.storage import keychain  # noqa: E402
from tests.governance.identity.forge import DOMAIN, Forge  # noqa: E402
from tests.lifecycle.serving.plane.fleet import Silent, flight_contract  # noqa: E402

HERE = "192.0.2.1"  # of TEST-NET-1: nobody's
COLUMNS = (
    "plaintext", "none", "wrong CA", "expired", "0 SAN", "2 SANs", "foreign domain", "another's", "replayed", "TLS 1.2", "right",
)  # fmt: skip
SAMPLE = ("plaintext", "none", "2 SANs", "replayed", "right")
WEB = ("plaintext", "none", "wrong CA", "expired", "TLS 1.2", "right")
"""What a hop can have whose server has an ordinary certificate, for its name."""
CHECKS = (
    ("tls.py", "        _check(end)\n", ""),
    ("tls.py", "minimum_version = ssl.TLSVersion.TLSv1_3", "minimum_version = ssl.TLSVersion.TLSv1_2"),
    ("peers.py", "if len(uris) != 1:", "if not uris:"),
    ("peers.py", "if peer is not None and peer.segments != (OPERATOR, principal):", "if False:"),
    ("../../lifecycle/serving/plane/behind.py", "        if not worker:\n", "        if worker >= 0:\n"),
)
"""What --broken changes."""
LIVE, STATUS = "/v2/health/live", "/falaj/v1/status"
"""Of a data plane: what needs no token, and what needs one."""
FORGED = ("wrong CA", "expired", "0 SAN", "2 SANs", "foreign domain")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


class Called:
    """A hop at the side that is called. `identities` are the right one, one that has no business there, and one that has, but
    not with this token."""

    def __init__(self, name: str, url: str, path: str, identities: tuple[str, str, str], forge: Forge) -> None:
        self.name, self.columns = name, COLUMNS
        self._host, self._port = HERE, int(url.rpartition(":")[2])
        self._path, self._identities, self.forge = path, identities, forge

    def gets_through(self, column: str, folder: Path, token: str) -> bool:
        """Whether a caller of this kind gets an answer for the token."""
        right, other, neighbour = self._identities
        kind = column if column in FORGED else "right"
        identity = {"another's": other, "replayed": neighbour}.get(column, right)
        party = self.forge.write(folder, "caller", identity, kind)
        path = STATUS if column == "replayed" and self._path == LIVE else self._path
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {HERE}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        ).encode()
        try:
            with socket.create_connection((self._host, self._port), 10) as plain:
                if column == "plaintext":
                    return b" 200 " in said(plain, request)
                with careless(column, party).wrap_socket(plain) as secure:
                    return b" 200 " in said(secure, request)
        except OSError:
            return False


class Calling:
    """A hop at the side that calls: `call` is told the address, and the server that waits there is of any kind."""

    def __init__(
        self, name: str, identities: tuple[str, str], call: Callable[[str], object], forge: Forge, *, web: bool = False
    ) -> None:
        self.name, self.columns = name, WEB if web else tuple(c for c in COLUMNS if c != "replayed")
        self._identities, self._call, self._forge = identities, call, forge

    def gets_through(self, column: str, folder: Path, _token: str) -> bool:
        """Whether a server of this kind hears anything of the request."""
        right, other = self._identities
        kind = column if column in FORGED else "right"
        party = self._forge.write(folder, "server", other if column == "another's" else right, kind, addresses=(HERE,))
        with waiting(server_of(column, party)) as (port, heard):
            self._call(f"{'http' if column == 'plaintext' else 'https'}://{HERE}:{port}")
        return bool(heard)


def careless(column: str, party: Party) -> ssl.SSLContext:
    """A caller that looks at nothing itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if column == "TLS 1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if column != "none":
        context.load_cert_chain(party.certificate, party.key)
    return context


def server_of(column: str, party: Party) -> ssl.SSLContext | None:
    """A server's context; None for a plain one."""
    if column == "plaintext":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if column == "TLS 1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if column != "none":
        context.load_cert_chain(party.certificate, party.key)
    return context


def said(end: socket.socket, request: bytes) -> bytes:
    """The first piece of an answer."""
    end.settimeout(10)
    end.sendall(request)
    return end.recv(4096)


@contextlib.contextmanager
def waiting(context: ssl.SSLContext | None) -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers 200 to anything; (its port, what it has heard in the clear or deciphered)."""
    heard: list[bytes] = []
    listener = socket.create_server((HERE, 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(5)
            try:
                end = context.wrap_socket(connection, server_side=True) if context else connection
            except OSError:
                connection.close()
                continue
            with end, contextlib.suppress(OSError):
                data = end.recv(4096)
                heard.extend([data] if data else [])
                end.sendall(ANSWER)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


class Scene:
    """Both planes and a witness, beyond loopback, and the hops."""

    def __init__(self, root: Path) -> None:
        self.root, self.forge = root, Forge()
        self.host, self.laptop = root / "host", root / "laptop"
        for role in ("control-plane", "data-plane/production"):
            self.forge.write(self.host, role, role)
        self.forge.write(self.laptop, "operator", "operator/owner")
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("FALAJ_")},
            "PYTHONPATH": str(SOURCE),
            "FALAJ_HOME": str(root / "home"),
            "FALAJ_TRUST_DOMAIN": DOMAIN,
        }
        self.falaj("up", FALAJ_HOST=HERE, FALAJ_TLS=str(self.host))
        found = json.loads(self.falaj("up", "--json", FALAJ_HOST=HERE, FALAJ_TLS=str(self.host)))["beyond"]
        self.urls = found["control_plane"], found["data_plane"]
        self.token = (root / "home" / "tokens" / "owner").read_text().strip()
        self.witness, witness = self._witness()
        keychain.hold(root / "journal", keychain.fresh())
        journal = Journal(root / "journal", SystemClock())
        inputs = {"distance": [1.0], "hour": [7], "carrier": ["AA"], "origin": ["JFK"]}
        more: dict[str, Any] = {"outputs": {"probability": [0.5]}, "rows": 1, "generation": 1, "at": 1, "worker": "1"}
        journal.append(Prediction(id=journal.next_id, model="flight-delay", version="flight-delay@1", digest="d",
                                  principal="shop", inputs=inputs, **more))  # fmt: skip
        journal.close()
        control, plane = self.urls
        self.hops: list[Called | Calling] = [
            Called("operator → control plane", control, "/api/v1/status",
                   ("operator/owner", "caller/production/owner", "operator/eve"), self.forge),
            Called("operator → data plane", plane, STATUS, ("operator/owner", "data-plane/production", "operator/eve"), self.forge),
            Called("caller → data plane", plane, STATUS,
                   ("caller/production/owner", "caller/staging/owner", "caller/production/eve"), self.forge),
            Called("control plane → data plane", plane, LIVE, ("control-plane", "data-plane/staging", "control-plane"), self.forge),
            Calling("command line → control plane", ("control-plane", "data-plane/production"), self._status, self.forge),
            Calling("rehearsal → data plane", ("data-plane/staging", "data-plane/production"), self._rehearse, self.forge),
            Calling("log → witness", ("control-plane", "control-plane"), post, self.forge, web=True),
            Witnessed(witness),
        ]  # fmt: skip

    def falaj(self, *arguments: str, **environment: str) -> str:
        """Run a command to its end, whatever that is; its output."""
        command = [sys.executable, "-m", "falaj.entrypoints.cli.app", *arguments]
        done = subprocess.run(
            command, env={**self.environment, **environment}, capture_output=True, text=True, cwd=self.root, timeout=120,
            check=False,
        )  # fmt: skip
        return done.stdout

    def _status(self, url: str) -> None:
        self.falaj("status", FALAJ_SERVER=url, FALAJ_TLS=str(self.laptop), FALAJ_TOKEN=self.token)

    def _rehearse(self, url: str) -> None:
        task = RehearseTask(
            flight_contract("flight-delay"), "d", str(self.root / "journal"), "", url, 1, str(self.host), DOMAIN
        )
        with contextlib.suppress(FalajError):
            rehearse(task, Silent(), "token")

    def _witness(self) -> tuple[subprocess.Popen[str], int]:
        folder, party = self.root / "witness", self.forge.write(self.root / "web", "witness", "x")
        self.falaj("witness", "init", str(folder), "--name", "example.org/w1")
        command = [sys.executable, "-m", "falaj.entrypoints.cli.app", "witness", "serve", str(folder), "--host", HERE,
                   "--certificate", str(party.certificate), "--key", str(party.key), "--json"]  # fmt: skip
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True, cwd=self.root)
        assert process.stdout is not None
        return process, int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])

    def close(self) -> None:
        """Stop everything."""
        self.witness.send_signal(signal.SIGTERM)
        self.witness.wait(30)
        self.falaj("down")


class Witnessed:
    """A witness at the side that is called. It asks nobody who they are, but for TLS 1.3."""

    def __init__(self, port: int) -> None:
        self.name, self.columns, self._port = "anybody → witness", ("plaintext", "TLS 1.2", "right"), port

    def gets_through(self, column: str, _folder: Path, _token: str) -> bool:
        """Whether it answers at all."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if column == "TLS 1.2":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            with socket.create_connection((HERE, self._port), 10) as plain:
                end = plain if column == "plaintext" else context.wrap_socket(plain)
                with end:
                    return said(end, b"GET / HTTP/1.1\r\nHost: w\r\n\r\n").startswith(b"HTTP/1.1 404")
        except OSError:
            return False


def post(url: str) -> None:
    """As the log asks its witness."""
    with contextlib.suppress(OSError, FalajError):
        post_over_http(f"{url}/add-checkpoint", b"checkpoint")


def prove(root: Path, columns: tuple[str, ...]) -> tuple[str, list[str]]:
    """(the figures, the cells that are not as they should be)."""
    began, wrong, cells = time.monotonic(), list[str](), 0
    scene = Scene(root)
    os.environ["SSL_CERT_FILE"] = str(scene.host / "ca.pem")  # the authority that the system knows, for the witness
    try:
        for number, hop in enumerate(scene.hops):
            row = []
            for column in (c for c in columns if c in hop.columns):
                through = hop.gets_through(column, root / "tried" / f"{number}-{column}", scene.token)
                cells += 1
                row.append(f"{column}: {'answered' if through else 'refused'}")
                wrong += [f"{hop.name}, {column}: {row[-1]}"] if through != (column == "right") else []
            print(f"{hop.name:<30}{', '.join(row)}", file=sys.stderr)
        found = renewed(scene, root)
        cells += len(found)
        wrong += [line for line, well in found if not well]
    finally:
        scene.close()
    text = f"{cells - len(wrong)} of {cells} cells of {len(scene.hops)} hops as they should be, in {time.monotonic() - began:.0f} s"
    return text, wrong


def renewed(scene: Scene, root: Path) -> list[tuple[str, bool]]:
    """Under running planes their certificates and the authority are replaced: the old callers are out, the new ones in."""
    found, later = [], Forge()
    for role in ("control-plane", "data-plane/production"):
        later.write(scene.host, role, role)
    for hop in (h for h in scene.hops if isinstance(h, Called)):
        for forge, well in ((hop.forge, False), (later, True)):
            hop.forge = forge
            through = hop.gets_through("right", root / "renewed", scene.token)
            whose = f"{hop.name}, renewed, {'its' if well else 'the former'} authority"
            found.append((f"{whose}: {'answered' if through else 'refused'}", through == well))
    print(*(line for line, _ in found), sep="\n", file=sys.stderr)
    return found


def broken(folder: Path) -> Path:
    """A copy of the code in which handshakes ask nobody who they are."""
    shutil.copytree(ROOT / "src", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, check, instead in CHECKS:
        path = folder / "falaj" / "governance" / "identity" / name
        text = path.read_text("utf-8")
        assert text.count(check) == 1
        path.write_text(text.replace(check, instead), "utf-8")
    return folder


def raise_addresses() -> None:
    """Loopback, and 192.0.2.1 beside it, in a namespace that has nothing yet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(control, 0x8914, up + bytes(8))  # SIOCSIFFLAGS
        address = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(HERE))
        fcntl.ioctl(control, 0x8916, address + bytes(8))  # SIOCSIFADDR


def in_namespace(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run this again in a network namespace of its own; its exit status."""
    command = ["unshare", "--map-root-user", "--net", sys.executable, __file__, *arguments]
    return subprocess.call(command, env={**os.environ, **environment, "HOPS_INSIDE": "1"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", action="store_true")
    parser.add_argument("--broken", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="falaj-proof-") as folder:
        root = Path(folder)
        if "HOPS_INSIDE" not in os.environ:
            source = broken(root / "src") if options.broken else ROOT / "src"
            raise SystemExit(in_namespace(sys.argv[1:], {"HOPS_SOURCE": str(source)}))
        raise_addresses()
        text, wrong = prove(root, SAMPLE if options.sample else COLUMNS)
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"hops: {text} ({os.cpu_count()} cores, Python {sys.version.split()[0]}, {ssl.OPENSSL_VERSION})")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
