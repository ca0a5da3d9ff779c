from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from pathlib import Path

import pytest

from falaj.governance.identity import tls
from falaj.governance.identity.addresses import check_address
from falaj.governance.identity.peers import SpiffeId
from falaj.governance.identity.tls import Party, Renewed
from falaj.kernel.errors import Denied, Invalid
from tests.governance.identity.forge import DOMAIN, Forge

PLANE = SpiffeId(DOMAIN, ("data-plane", "production"))


@pytest.fixture
def forge() -> Forge:
    return Forge()


class Server:
    """Takes connections one after the other, and says `hello` to whom it accepts."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.refusals: list[str] = []
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(10)
            try:
                with self._context.wrap_socket(connection, server_side=True) as secure:
                    secure.sendall(b"hello")
            except OSError as e:
                self.refusals.append(str(e))
                connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


def greeting(address: tuple[str, int], context: ssl.SSLContext) -> bytes:
    with socket.create_connection(address, 10) as plain, context.wrap_socket(plain) as secure:
        return secure.recv(5)


def accepted(address: tuple[str, int], context: ssl.SSLContext) -> bool:
    try:
        return greeting(address, context) == b"hello"
    except OSError:
        return False


def careless(party: Party, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, shows: bool = True) -> ssl.SSLContext:
    """A client that looks at nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, version
    if shows:
        context.load_cert_chain(party.certificate, party.key)
    return context


CALLERS = {
    "caller/production/shop": "right", "operator/alice": "right", "control-plane": "right",
}  # fmt: skip


@pytest.mark.parametrize(
    ("identity", "kind", "well"),
    [
        *((identity, "right", True) for identity in CALLERS),
        ("caller/production/shop", "wrong CA", False),
        ("caller/production/shop", "expired", False),
        ("caller/production/shop", "0 SAN", False),
        ("caller/production/shop", "2 SANs", False),
        ("caller/production/shop", "foreign domain", False),
        ("caller/staging/shop", "right", False),
        ("data-plane/production", "right", False),
    ],
)
def test_a_server_takes_whom_it_shall(forge: Forge, tmp_path: Path, identity: str, kind: str, well: bool) -> None:
    server = Server(Renewed(forge.write(tmp_path / "server", "data-plane/production", "data-plane/production")))
    try:
        party = forge.write(tmp_path / "client", "client", identity, kind)
        assert accepted(server.address, careless(party)) is well
    finally:
        server.close()
    assert bool(server.refusals) is not well


def test_a_server_takes_nobody_without_a_certificate_nor_with_tls_1_2(forge: Forge, tmp_path: Path) -> None:
    server = Server(Renewed(forge.write(tmp_path / "server", "data-plane/production", "data-plane/production")))
    try:
        party = forge.write(tmp_path / "client", "client", "operator/alice")
        assert accepted(server.address, careless(party))
        assert not accepted(server.address, careless(party, shows=False))
        assert not accepted(server.address, careless(party, version=ssl.TLSVersion.TLSv1_2))
        with socket.create_connection(server.address, 10) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"hello" not in plain.recv(100)
    finally:
        server.close()


@pytest.mark.parametrize(
    ("identity", "kind", "well"),
    [
        ("data-plane/production", "right", True),
        ("data-plane/production", "wrong CA", False),
        ("data-plane/production", "expired", False),
        ("data-plane/production", "0 SAN", False),
        ("data-plane/production", "2 SANs", False),
        ("data-plane/production", "foreign domain", False),
        ("data-plane/staging", "right", False),
        ("control-plane", "right", False),
    ],
)
def test_a_client_speaks_to_whom_it_means(forge: Forge, tmp_path: Path, identity: str, kind: str, well: bool) -> None:
    party = forge.write(tmp_path / "server", "server", identity, kind)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(party.certificate, party.key)
    server = Server(context)
    try:
        own = forge.write(tmp_path / "client", "operator", "operator/alice")
        assert accepted(server.address, tls.client(own, PLANE)) is well
    finally:
        server.close()


def test_new_files_hold_from_the_next_connection_on(forge: Forge, tmp_path: Path) -> None:
    party = forge.write(tmp_path / "server", "data-plane/production", "data-plane/production")
    server, later = Server(Renewed(party)), Forge()
    try:
        old = tls.client(forge.write(tmp_path / "old", "operator", "operator/alice"), PLANE)
        new = tls.client(later.write(tmp_path / "new", "operator", "operator/alice"), PLANE)
        assert accepted(server.address, old) and not accepted(server.address, new)
        later.write(tmp_path / "server", "data-plane/production", "data-plane/production")
        assert accepted(server.address, new) and not accepted(server.address, old)
        party.key.unlink()  # half of a change: the one before goes on
        assert accepted(server.address, new)
    finally:
        server.close()


def test_a_session_is_not_taken_up_again(forge: Forge, tmp_path: Path) -> None:
    server = Server(Renewed(forge.write(tmp_path / "server", "data-plane/production", "data-plane/production")))
    context = careless(forge.write(tmp_path / "client", "client", "operator/alice"))
    try:
        with socket.create_connection(server.address, 10) as plain, context.wrap_socket(plain) as secure:
            assert secure.recv(5) == b"hello"
            assert secure.session is None or not secure.session.has_ticket
    finally:
        server.close()


@pytest.mark.parametrize("kind", ["wrong CA", "expired", "0 SAN", "2 SANs", "foreign domain"])
def test_a_plane_does_not_start_with_a_wrong_certificate(forge: Forge, tmp_path: Path, kind: str) -> None:
    party = forge.write(tmp_path, "control-plane", "control-plane", kind)
    with pytest.raises(Invalid) as refused:
        Renewed(party)
    assert refused.value.code == "bad_certificate"


def test_nor_with_that_of_another_nor_without_its_files(forge: Forge, tmp_path: Path) -> None:
    party = forge.write(tmp_path, "control-plane", "operator/alice")
    with pytest.raises(Invalid, match="operator/alice"):
        Renewed(party)
    party = forge.write(tmp_path, "control-plane", "control-plane")
    for path in party.files:
        kept = path.read_bytes()
        path.unlink()
        with pytest.raises(Invalid) as refused:
            Renewed(party)
        assert refused.value.code == "bad_certificate"
        path.write_bytes(b"no certificate")
        path.chmod(0o600)
        with pytest.raises(Invalid) as refused:
            Renewed(party)
        assert refused.value.code == "bad_certificate"
        path.write_bytes(kept)
    Renewed(party)


def test_a_key_that_others_can_read_is_not_used(forge: Forge, tmp_path: Path) -> None:
    party = forge.write(tmp_path, "control-plane", "control-plane")
    party.key.chmod(0o640)
    with pytest.raises(Invalid) as refused:
        Renewed(party)
    assert refused.value.code == "key_open_to_others"


def test_an_encrypted_key_asks_nobody(forge: Forge, tmp_path: Path) -> None:
    party = forge.write(tmp_path, "control-plane", "control-plane")
    done = os.spawnlp(
        os.P_WAIT, "openssl", "openssl", "ec", "-aes256", "-passout", "pass:x",
        "-in", str(party.key), "-out", str(party.key),
    )  # fmt: skip
    assert done == 0
    with pytest.raises(Invalid) as refused:
        Renewed(party)
    assert refused.value.code == "bad_certificate"


@pytest.mark.parametrize("host", ["192.0.2.1", "example.org", "127.0.0.2", "localhost.example.org", ""])
def test_nothing_is_sent_in_the_clear_beyond_loopback(host: str) -> None:
    check_address("https", host)
    with pytest.raises(Denied) as refused:
        check_address("http", host)
    assert refused.value.code == "plaintext_refused"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_may_be_spoken_to_in_the_clear(host: str) -> None:
    check_address("http", host)
